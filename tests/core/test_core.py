"""The pure functions against naive float64 formulas written out here."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from statprune.core.compensation import Energy
from statprune.core.methods import get_method
from statprune.core.patterns import Group, NofM, Unstructured
from statprune.core.scores import CvrOptions, NoOptions, RiaOptions, cvr, ria, wanda
from statprune.core.sparsegpt import inverse_factor
from statprune.core.statistics import InputStatistics, StatisticsKind


def make(out_features=6, in_features=8, tokens=50, seed=0, kind=StatisticsKind.GRAM):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out_features, in_features, generator=generator, dtype=torch.float64)
    inputs = torch.randn(tokens, in_features, generator=generator, dtype=torch.float64) + 0.3
    statistics = InputStatistics(in_features, kind, dtype=torch.float64)
    for batch in inputs.split(7):
        statistics.update(batch)
    return weight, inputs, statistics


def test_moments_and_gram_match_naive_sums():
    _, x, statistics = make()
    n = len(x)
    for j in range(x.shape[1]):
        mean = sum(x[:, j].tolist()) / n
        assert statistics.mean[j].item() == pytest.approx(mean)
        assert statistics.variance[j].item() == pytest.approx(sum((v - mean) ** 2 for v in x[:, j].tolist()) / n)
        assert statistics.norm[j].item() == pytest.approx(math.sqrt(sum(v * v for v in x[:, j].tolist())))
    assert torch.allclose(statistics.gram, x.T @ x)


def test_variance_survives_a_large_mean_in_float32():
    x = torch.randn(4096, 3, generator=torch.Generator().manual_seed(1)) * 1e-2 + 100
    statistics = InputStatistics(3)
    for batch in x.split(512):
        statistics.update(batch)
    assert torch.allclose(statistics.variance, x.double().var(0, correction=0), rtol=1e-3)


def test_sampled_rows_are_the_tokens_asked_for():
    x = torch.arange(40.0).view(20, 2)
    statistics = InputStatistics(2, sample_index=torch.tensor([0, 6, 7, 19]))
    for batch in x.split(7):
        statistics.update(batch)
    assert torch.equal(statistics.rows, x[[0, 6, 7, 19]])


def test_scores_match_the_papers_formulas():
    w, x, statistics = make()
    out_features, in_features = w.shape
    for i in range(out_features):
        for j in range(in_features):
            norm = math.sqrt(sum(v * v for v in x[:, j].tolist()))
            a = abs(w[i, j].item())
            assert wanda(w, statistics, NoOptions())[i, j].item() == pytest.approx(a * norm)
            relative = a / w[:, j].abs().sum().item() + a / w[i].abs().sum().item()
            assert ria(w, statistics, RiaOptions())[i, j].item() == pytest.approx(relative * norm**0.5)
            column = w[:, j].tolist()
            mean = sum(column) / out_features
            v_j = sum((v - mean) ** 2 for v in column) / out_features
            x_mean = x[:, j].sum().item() / len(x)
            v_x = sum((v - x_mean) ** 2 for v in x[:, j].tolist()) / len(x)
            wanted = a * v_x**0.25 * (v_j + 1e-8) ** (-0.25)
            assert cvr(w, statistics, CvrOptions())[i, j].item() == pytest.approx(wanted)
    off = cvr(w, statistics, CvrOptions(statistic_calibration=False))
    assert torch.equal(off, wanda(w, statistics, NoOptions()))


def naive_keep_spread(groups, remove):
    """Equal scores at the threshold are removed evenly spaced: the i-th of n where i·wanted/n passes an integer."""
    keep = []
    for row in groups:
        threshold = sorted(row)[remove - 1] if remove else -math.inf
        ties = [j for j in range(len(row)) if row[j] == threshold]
        wanted = remove - sum(value < threshold for value in row)
        spread = {j for i, j in enumerate(ties) if (i + 1) * wanted // len(ties) > i * wanted // len(ties)}
        keep.append([row[j] >= threshold and j not in spread for j in range(len(row))])
    return keep


def naive_keep(groups, remove):
    """Of equal scores the first is kept."""
    keep = []
    for row in groups:
        removed = sorted(range(len(row)), key=lambda j: (row[j], -j))[:remove]
        keep.append([j not in removed for j in range(len(row))])
    return keep


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_masks_remove_exactly_the_lowest_scores_and_break_ties_by_their_rule(data):
    rows = data.draw(st.integers(1, 4))
    groups = data.draw(st.integers(1, 4))
    m = data.draw(st.integers(2, 8))
    n = data.draw(st.integers(1, m - 1))
    values = data.draw(st.lists(st.integers(0, 4), min_size=rows * groups * m, max_size=rows * groups * m))
    ratio = data.draw(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 0.9]))
    score = torch.tensor(values, dtype=torch.float32).view(rows, groups * m)
    mask = NofM(n, m).select(score)
    assert mask.view(-1, m).tolist() == naive_keep(score.view(-1, m).tolist(), m - n)
    remove = round(ratio * 10) * score.shape[1] // 10
    assert Unstructured(ratio).select(score).tolist() == naive_keep_spread(score.tolist(), remove)
    remove = round(ratio * 10) * score.numel() // 10
    flat = Unstructured(ratio, Group.matrix).select(score).view(1, -1)
    assert flat.tolist() == naive_keep_spread(score.view(1, -1).tolist(), remove)


def test_nan_scores_and_impossible_patterns_fail():
    with pytest.raises(ValueError, match="NaN"):
        Unstructured(0.5).select(torch.tensor([[1.0, float("nan")]]))
    with pytest.raises(ValueError, match="outside"):
        Unstructured(1.0)
    with pytest.raises(ValueError, match="0 < N < M"):
        NofM(4, 4)
    assert "not divisible" in NofM(2, 4).problem(6)


@pytest.mark.parametrize("steps", [("columns", "rows"), ("columns",), ("rows",), ("rows", "columns")])
def test_energy_compensation_matches_the_papers_formula(steps):
    w, _, statistics = make()
    keep = Unstructured(0.5).select(w.abs())
    wanted, dense, mask = (w * keep).tolist(), w.tolist(), keep.tolist()
    for step in steps:
        if step == "columns":  # the same along the other direction
            wanted, dense, mask = (
                [list(line) for line in zip(*matrix, strict=True)] for matrix in (wanted, dense, mask)
            )
        for i, line in enumerate(dense):
            mu = sum(line) / len(line)
            e = sum((v - mu) ** 2 for v in line)
            p = sum((v - mu) ** 2 for v in wanted[i])
            s = min(max(math.sqrt(e / (p + 1e-12)), 0.5), 2.0)
            wanted[i] = [((v - mu) * s + mu) * mask[i][j] for j, v in enumerate(wanted[i])]
        if step == "columns":
            wanted, dense, mask = (
                [list(line) for line in zip(*matrix, strict=True)] for matrix in (wanted, dense, mask)
            )
    asked = Energy("columns" in steps, "rows" in steps, rows_first=steps[0] == "rows")
    result, report = asked.apply(w, w * keep, keep, statistics)
    assert torch.allclose(result, torch.tensor(wanted, dtype=torch.float64))
    assert ("row_scale_min" in report) == ("rows" in steps) and ("column_scale_min" in report) == ("columns" in steps)
    ratio = (result - w.mean(0)).square().sum() / (w - w.mean(0)).square().sum()
    assert report["column_energy_ratio"].item() == pytest.approx(ratio.item())


@pytest.mark.parametrize("pattern", [Unstructured(0.5, Group.matrix), Unstructured(0.5), NofM(2, 4)])
def test_sparsegpt_matches_the_textbook_loop(pattern):
    """One column at a time on the full inverse Hessian, updated by Gaussian elimination, no lazy blocks."""
    w, x, statistics = make(in_features=12)
    block = 8
    hessian = x.T @ x
    hessian += 0.01 * hessian.diagonal().mean() * torch.eye(12, dtype=torch.float64)
    inverse = torch.linalg.inv(hessian)
    wanted, keep = w.clone(), torch.ones_like(w, dtype=torch.bool)
    diagonals = []
    running = inverse.clone()
    for j in range(12):
        diagonals.append(running[j, j].item())
        running = running - torch.outer(running[:, j], running[j]) / running[j, j]
    d = torch.tensor(diagonals, dtype=torch.float64)
    running = inverse.clone()
    for j in range(12):
        size = pattern.of if isinstance(pattern, NofM) else block
        if j % size == 0:
            part = slice(j, min(j + size, 12))
            keep[:, part] = pattern.select(wanted[:, part] ** 2 / d[part])
        error = wanted[:, j] * ~keep[:, j] / running[j, j]
        wanted = wanted - torch.outer(error, running[j])
        running = running - torch.outer(running[:, j], running[j]) / running[j, j]
    result, mask, report = get_method("sparsegpt", block_size=block).solve(w, statistics, pattern)
    assert torch.equal(mask, keep)
    assert torch.allclose(result, wanted * keep, atol=1e-9)
    assert report["damping"] == 0.01


@pytest.mark.parametrize("block", [1, 5, 8])
@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.7, 0.95])
@pytest.mark.parametrize("group", Group)
def test_sparsegpt_removes_as_many_as_other_methods_whatever_its_blocks(ratio, block, group):
    w, _, statistics = make(in_features=12)
    _, mask, _ = get_method("sparsegpt", block_size=block).solve(w, statistics, Unstructured(ratio, group))
    if group is Group.row:
        assert ((~mask).sum(1) == int(ratio * 12 + 1e-9)).all()
    assert (~mask).sum() == (~Unstructured(ratio, group).select(w.abs())).sum()


def test_energy_without_epsilon_leaves_empty_rows_and_columns_empty():
    w = torch.tensor([[1.0, 0, 2], [0, 0, 0], [3, 0, 4]])
    result, report = Energy(epsilon=0).apply(w, w * (w > 1), w > 1, InputStatistics(3))
    assert result.isfinite().all() and (result[w <= 1] == 0).all() and report["row_scale_max"].isfinite()


def test_sparsegpt_raises_damping_and_says_so():
    statistics = InputStatistics(4, StatisticsKind.GRAM)
    statistics.update(torch.ones(3, 4))
    statistics.gram[0, 1] = statistics.gram[1, 0] = 3.4  # not positive definite at 1%
    _, _, report = get_method("sparsegpt").solve(torch.randn(2, 4), statistics, NofM(2, 4))
    assert report["damping"] > 0.01


def test_a_wide_gram_matrix_is_whole_although_half_of_it_is_computed():
    x = torch.randn(3, 20, 1100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    statistics = InputStatistics(1100, StatisticsKind.GRAM, dtype=torch.float64)
    statistics.update(x[:1])
    assert torch.allclose(statistics.gram, x[0].T @ x[0])
    statistics.update(x[1:])
    assert torch.allclose(statistics.gram, x.flatten(0, 1).T @ x.flatten(0, 1))
    other = InputStatistics(1100, StatisticsKind.GRAM, dtype=torch.float64)
    other.update(x[:2])
    assert torch.allclose(InputStatistics.pooled([statistics, other]).gram, statistics.gram + other.gram)


def test_a_process_that_saw_no_token_of_an_expert_gets_its_whole_gram_matrix(monkeypatch):
    x = torch.randn(20, 600, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    seen = InputStatistics(600, StatisticsKind.GRAM, dtype=torch.float64)
    empty = InputStatistics(600, StatisticsKind.GRAM, dtype=torch.float64)
    seen.update(x)
    theirs = iter([torch.tensor([20, 0]), torch.stack([seen.mean, seen.variance * 20]), torch.zeros(0, 600).double()])
    monkeypatch.setattr("statprune.core.statistics.gathered_tensors", lambda mine: [mine, next(theirs)])
    monkeypatch.setattr("statprune.core.statistics.add_up", lambda gram: gram.add_(seen._gram))
    empty.merge_processes()
    assert empty.count == 20 and torch.allclose(empty.gram, x.T @ x) and torch.allclose(empty.norm, seen.norm)


def test_layers_of_one_input_are_factorised_once(monkeypatch):
    weight, _, statistics = make(kind=StatisticsKind.GRAM)
    calls = []
    monkeypatch.setattr(
        "statprune.core.sparsegpt.inverse_factor",
        lambda gram, damping: calls.append(1) or inverse_factor(gram, damping),
    )
    first = get_method("sparsegpt").solve(weight, statistics, Unstructured(0.5))
    second = get_method("sparsegpt").solve(weight, statistics, Unstructured(0.5))
    assert len(calls) == 1 and torch.equal(first[0], second[0])


@pytest.mark.parametrize(("keep", "of"), [(2, 4), (4, 8), (1, 4), (3, 5)])
def test_a_group_is_selected_as_n_of_m_selects_it(keep, of):
    score = torch.randint(0, 4, (50, of), generator=torch.Generator().manual_seed(0)).float()
    assert torch.equal(NofM(keep, of).best(score.T).T, NofM(keep, of).select(score))


def test_the_inverse_factor_is_that_of_the_definition():
    x = torch.randn(50, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    factor, damping = inverse_factor(x.T @ x, 0.01)
    damped = x.T @ x + 0.01 * (x.T @ x).diagonal().mean() * torch.eye(9, dtype=torch.float64)
    assert damping == 0.01 and torch.equal(factor, factor.triu())
    assert torch.allclose(factor.T @ factor, torch.linalg.inv(damped), rtol=1e-10, atol=0)


def test_unknown_method_names_the_choices():
    with pytest.raises(ValueError, match="wanda"):
        get_method("wnada")


def test_statistics_do_not_depend_on_how_windows_are_batched():
    """One mask entry that rounding flips early on moves a small model's perplexity by half a percent."""
    windows = torch.randn(6, 50, 9, generator=torch.Generator().manual_seed(2)) * 3 + 5
    whole, single = InputStatistics(9, StatisticsKind.GRAM), InputStatistics(9, StatisticsKind.GRAM)
    whole.update(windows)
    for window in windows:
        single.update(window[None])
    assert torch.equal(whole.gram, single.gram)
    for name in ("mean", "variance", "norm"):
        assert torch.allclose(getattr(whole, name), getattr(single, name), rtol=1e-13, atol=0), name
