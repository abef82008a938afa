"""The best of all pairs, found by bounds, against looking at each."""

import pytest
import torch

from statprune.core.statistics import StatisticsKind
from statprune.core.swap_candidates import swap_around_best
from statprune.core.swap_pairs import best_swaps, close_pairs
from statprune.core.swap_rows import SwapRows
from statprune.testing.cases import usual_case


def rows_of(dense, keep, gram, least_gain):
    error = dense * ~keep
    return SwapRows(
        number=torch.arange(len(dense)),
        side=torch.where(keep, -torch.inf, torch.inf).to(dense.dtype),
        change=torch.where(keep, dense, -dense),
        slope=2 * error @ gram,
        least_gain=torch.full((len(dense),), least_gain, dtype=dense.dtype),
        made=torch.zeros(len(dense), dtype=torch.int64),
    )


def grams():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 40, generator=generator, dtype=torch.float64)
    common = torch.randn(200, 1, generator=generator, dtype=torch.float64)
    yield "independent", inputs
    yield "a common direction", inputs + 2 * common
    yield "one direction alone", common * torch.rand(1, 40, generator=generator, dtype=torch.float64)
    yield "few tokens", inputs[:3]
    yield "two equal channels", torch.cat([inputs[:, :39], inputs[:, :1]], 1)
    yield "dead channels", inputs * (torch.arange(40) > 9)


@pytest.mark.parametrize(("label", "inputs"), list(grams()), ids=[label for label, _ in grams()])
@pytest.mark.parametrize("kept", [1, 20, 39])
def test_the_best_swap_is_that_of_all_pairs(label, inputs, kept):
    gram = inputs.T @ inputs / len(inputs)
    generator = torch.Generator().manual_seed(1)
    dense = torch.randn(30, 40, generator=generator, dtype=torch.float64)
    keep = torch.rand(30, 40, generator=generator).argsort(1) < kept
    rows = rows_of(dense, keep, gram, 1e-12)
    own = rows.own_changes(gram)
    pairs = rows.kept(own)[:, :, None] + rows.pruned(own)[:, None, :]
    pairs += 2 * rows.change[:, :, None] * rows.change[:, None, :] * gram
    expected = pairs.flatten(1).amin(1)
    change, first, second = best_swaps(rows, own, gram, close_pairs(gram), 4)
    gains = expected < -1e-12
    assert gains.any()
    assert torch.allclose(change[gains], expected[gains], rtol=1e-9, atol=1e-12)
    assert (change[~gains] >= -1e-12).all()
    found = pairs[torch.arange(30), first[:, 0], second[:, 0]]
    assert torch.allclose(found[gains], expected[gains])


def test_swaps_around_the_best_one_gain_at_least_as_much_as_it_does():
    _, inputs = list(grams())[1]
    gram = inputs.T @ inputs / len(inputs)
    generator = torch.Generator().manual_seed(2)
    dense = torch.randn(30, 40, generator=generator, dtype=torch.float64)
    keep = torch.rand(30, 40, generator=generator).argsort(1) < 20
    rows = rows_of(dense, keep, gram, 1e-12)
    best, first, second = best_swaps(rows, rows.own_changes(gram), gram, close_pairs(gram), 4)
    assert first.shape == second.shape == (30, 4)
    before = dense * ~rows.keep
    has_swapped = swap_around_best(rows, gram, close_pairs(gram), 4, 100)
    after = dense * ~rows.keep
    change = ((after @ gram) * after).sum(1) - ((before @ gram) * before).sum(1)
    assert has_swapped.all()
    assert (change <= best + 1e-9).all()
    assert (rows.made > 1).any()
    assert (rows.keep.sum(1) == 20).all()
    assert torch.allclose(rows.slope, 2 * after @ gram)


def test_no_row_makes_more_swaps_around_the_best_one_than_it_may():
    _, inputs = list(grams())[1]
    gram = inputs.T @ inputs / len(inputs)
    dense = torch.randn(30, 40, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    rows = rows_of(dense, dense > 0, gram, 1e-12)
    swap_around_best(rows, gram, close_pairs(gram), 4, 1)
    assert (rows.made == 1).all()


def test_a_finished_row_has_no_swap_left():
    case = usual_case(StatisticsKind.GRAM)
    gram = case.statistics.gram.float()
    rows = rows_of(case.weight, case.weight > 0, gram, torch.inf)
    change, _, _ = best_swaps(rows, rows.own_changes(gram), gram, close_pairs(gram), 4)
    assert len(change) == len(rows)
