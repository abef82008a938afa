"""SparseGPT's solver against the textbook's loop, and its factor against the definition."""

import pytest
import torch

from statprune.core.methods import get_method
from statprune.core.patterns import Group, NofM, Unstructured
from statprune.core.sparsegpt import inverse_factor
from statprune.core.statistics import InputStatistics, StatisticsKind
from tests.helpers.matrices import random_matrix

PATTERNS = [Unstructured(0.5, Group.matrix), Unstructured(0.5), NofM(2, 4)]
BLOCK = 8


def textbook(w, x, pattern):
    """Weight and mask; one column at a time on the full inverse Hessian, by Gaussian elimination, no lazy blocks."""
    columns = w.shape[1]
    hessian = x.T @ x
    hessian += 0.01 * hessian.diagonal().mean() * torch.eye(columns, dtype=torch.float64)
    inverse = torch.linalg.inv(hessian)
    wanted, keep = w.clone(), torch.ones_like(w, dtype=torch.bool)
    diagonals = []
    running = inverse.clone()
    for j in range(columns):
        diagonals.append(running[j, j].item())
        running = running - torch.outer(running[:, j], running[j]) / running[j, j]
    d = torch.tensor(diagonals, dtype=torch.float64)
    running = inverse.clone()
    for j in range(columns):
        size = pattern.of if isinstance(pattern, NofM) else BLOCK
        if j % size == 0:
            part = slice(j, min(j + size, columns))
            keep[:, part] = pattern.select(wanted[:, part] ** 2 / d[part])
        error = wanted[:, j] * ~keep[:, j] / running[j, j]
        wanted = wanted - torch.outer(error, running[j])
        running = running - torch.outer(running[:, j], running[j]) / running[j, j]
    return wanted * keep, keep


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_mask_is_that_of_the_textbook_loop(pattern):
    w, x, statistics = random_matrix(in_features=12)
    solution = get_method("sparsegpt", block_size=BLOCK).solve(w, statistics, pattern)
    assert torch.equal(solution.keep, textbook(w, x, pattern)[1])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_weight_is_that_of_the_textbook_loop(pattern):
    w, x, statistics = random_matrix(in_features=12)
    solution = get_method("sparsegpt", block_size=BLOCK).solve(w, statistics, pattern)
    assert torch.allclose(solution.weight, textbook(w, x, pattern)[0], atol=1e-9)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_damping_of_a_good_gram_matrix_is_the_one_asked_for(pattern):
    w, _, statistics = random_matrix(in_features=12)
    solution = get_method("sparsegpt", block_size=BLOCK).solve(w, statistics, pattern)
    assert solution.diagnostics["damping"] == 0.01


def test_damping_is_raised_where_the_factorisation_fails_and_reported():
    statistics = InputStatistics(4, StatisticsKind.GRAM)
    statistics.update(torch.ones(3, 4))
    statistics.gram[0, 1] = statistics.gram[1, 0] = 3.4  # not positive definite at 1%
    solution = get_method("sparsegpt").solve(torch.randn(2, 4), statistics, NofM(2, 4))
    assert solution.diagnostics["damping"] > 0.01


@pytest.mark.parametrize("block", [1, 5, 8])
@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.7, 0.95])
@pytest.mark.parametrize("group", Group)
def test_as_many_weights_are_removed_as_by_other_methods_whatever_the_blocks(ratio, block, group):
    w, _, statistics = random_matrix(in_features=12)
    solution = get_method("sparsegpt", block_size=block).solve(w, statistics, Unstructured(ratio, group))
    assert (~solution.keep).sum() == (~Unstructured(ratio, group).select(w.abs())).sum()


@pytest.mark.parametrize("block", [1, 5, 8])
@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.7, 0.95])
def test_every_row_loses_as_many_weights_whatever_the_blocks(ratio, block):
    w, _, statistics = random_matrix(in_features=12)
    solution = get_method("sparsegpt", block_size=block).solve(w, statistics, Unstructured(ratio, Group.row))
    assert ((~solution.keep).sum(1) == int(ratio * 12 + 1e-9)).all()


def test_matrices_of_one_input_are_factorised_once(monkeypatch):
    weight, _, statistics = random_matrix(kind=StatisticsKind.GRAM)
    calls = []
    monkeypatch.setattr(
        "statprune.core.sparsegpt.inverse_factor",
        lambda *given: calls.append(1) or inverse_factor(*given),
    )
    first = get_method("sparsegpt").solve(weight, statistics, Unstructured(0.5))
    second = get_method("sparsegpt").solve(weight, statistics, Unstructured(0.5))
    assert len(calls) == 1 and torch.equal(first.weight, second.weight)


def test_the_inverse_factor_is_that_of_the_definition():
    x = torch.randn(50, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    factor, damping = inverse_factor(x.T @ x, 0.01)
    damped = x.T @ x + 0.01 * (x.T @ x).diagonal().mean() * torch.eye(9, dtype=torch.float64)
    assert damping == 0.01 and torch.equal(factor, factor.triu())
    assert torch.allclose(factor.T @ factor, torch.linalg.inv(damped), rtol=1e-10, atol=0)


def test_the_inverse_factor_has_ones_on_the_diagonal_for_dead_channels_and_leaves_the_gram_matrix():
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x[:, [1, 4]] = 0
    gram = x.T @ x
    given = gram.clone()
    factor, _ = inverse_factor(gram, 0.01, gram.diagonal() == 0)
    filled = given + torch.diag(torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0, 0.0], dtype=torch.float64))
    damped = filled + 0.01 * filled.diagonal().mean() * torch.eye(6, dtype=torch.float64)
    assert torch.equal(gram, given)
    assert torch.allclose(factor.T @ factor, torch.linalg.inv(damped), rtol=1e-10, atol=1e-15)


def test_the_inverse_factor_is_computed_in_the_memory_of_one_matrix():
    x = torch.randn(103, 100, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    gram = x.T @ x
    with torch.profiler.profile(profile_memory=True) as profile:
        factor, _ = inverse_factor(gram, 0.01)
    taken = [event.self_cpu_memory_usage for event in profile.events() if event.self_cpu_memory_usage >= 1000]
    assert taken == [factor.nbytes]


def test_the_inverse_factor_is_that_of_the_lower_triangle_to_the_last_bit():
    x = torch.randn(50, 9, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    gram = x.T @ x
    gram += torch.full_like(gram, 1e-13).triu(1)  # as rounding leaves the triangles of a product apart
    damped = gram + 0.01 * gram.diagonal().mean() * torch.eye(9, dtype=torch.float64)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    assert torch.equal(inverse_factor(gram, 0.01)[0], torch.linalg.cholesky(inverse, upper=True))


def indefinite(lift):
    """A Gram matrix whose least eigenvalue is −lift, with 1 on the diagonal: λ alone tells whether it is factorised."""
    gram = torch.eye(2, dtype=torch.float64)
    gram[0, 1] = gram[1, 0] = 1 + lift
    return gram


@pytest.mark.parametrize(("lift", "damping"), [(-0.5, 0.01), (0.05, 0.1), (0.5, 1.0), (5.0, 10.0), (50.0, 100.0)])
def test_damping_is_raised_tenfold_until_it_suffices(lift, damping):
    gram = indefinite(lift)
    given = gram.clone()
    factor, taken = inverse_factor(gram, 0.01)
    assert taken == pytest.approx(damping, rel=1e-12) and torch.equal(gram, given)
    damped = gram + damping * torch.eye(2, dtype=torch.float64)
    assert torch.allclose(factor.T @ factor, torch.linalg.inv(damped), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("lift", "is_enough"), [(999.0, True), (1001.0, False)])
def test_damping_is_raised_to_a_thousand_and_no_further(lift, is_enough):
    if is_enough:
        assert inverse_factor(indefinite(lift), 1.0)[1] == 1e3
        return
    with pytest.raises(ValueError, match="not positive definite even at damping 1e3"):
        inverse_factor(indefinite(lift), 1.0)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_gram_matrix_that_is_not_finite_is_refused(value):
    gram = torch.eye(3, dtype=torch.float64)
    gram[0, 2] = value
    with pytest.raises(ValueError, match="the Gram matrix is not finite; the calibration inputs overflow"):
        inverse_factor(gram, 0.01)


@pytest.mark.parametrize("pattern", [*PATTERNS, Unstructured(0.0)], ids=str)
def test_dead_columns_are_found_emptied_and_counted(pattern):
    w, x, _ = random_matrix(in_features=12)
    x[:, [2, 7]] = 0
    statistics = InputStatistics(12, StatisticsKind.GRAM, dtype=torch.float64)
    statistics.update(x)
    given, gram = w.clone(), statistics.gram.clone()
    solution = get_method("sparsegpt", block_size=BLOCK).solve(w, statistics, pattern)
    assert solution.diagnostics["dead_columns"] == 2 and (solution.weight[:, [2, 7]] == 0).all()
    assert torch.equal(w, given) and torch.equal(statistics.gram, gram)
    lively = x.T @ x + torch.diag((x == 0).all(0).double())  # a dead channel has 1 on the diagonal
    root = torch.linalg.cholesky(lively).T
    if pattern != NofM(2, 4):  # the textbook's groups are the same, but for the columns emptied beforehand
        emptied = w.clone()
        emptied[:, [2, 7]] = 0
        wanted, keep = textbook(emptied, root, pattern)
        assert torch.equal(solution.keep, keep) and torch.allclose(solution.weight, wanted, atol=1e-9)


def test_without_dead_columns_none_are_counted():
    w, _, statistics = random_matrix()
    solution = get_method("sparsegpt").solve(w, statistics, Unstructured(0.5))
    assert solution.diagnostics["dead_columns"] == 0


def test_another_damping_is_another_factor_of_the_same_input():
    w, _, statistics = random_matrix()
    results = [get_method("sparsegpt", damping=damping).solve(w, statistics, NofM(2, 4)) for damping in (0.01, 1.0)]
    assert [result.diagnostics["damping"] for result in results] == [0.01, 1.0]
    assert not torch.equal(results[0].weight, results[1].weight)
    for dtype in (torch.float32, torch.float64):
        assert get_method("sparsegpt").solve(w.to(dtype), statistics, NofM(2, 4)).weight.dtype == dtype


def test_the_defaults_are_the_authors():
    method = get_method("sparsegpt")
    assert (method.damping, method.block_size) == (0.01, 128)
    assert method.needs is StatisticsKind.GRAM and method.group is Group.matrix


@pytest.mark.parametrize(("name", "wrong", "least"), [("damping", 0.0, 1e-9), ("block_size", 0, 1)])
def test_an_option_out_of_range_is_refused_and_its_bound_is_not(name, wrong, least):
    with pytest.raises(ValueError, match=f"method.{name}={wrong} is not a? ?positive"):
        get_method("sparsegpt", **{name: wrong})
    assert getattr(get_method("sparsegpt", **{name: least}), name) == least


def test_a_group_that_would_cross_a_column_block_is_refused():
    w, _, statistics = random_matrix()
    method = get_method("sparsegpt", block_size=6)
    assert method.problem(NofM(2, 4)) == "method.block_size=6 is not divisible by M=4; give a multiple of it"
    assert method.problem(NofM(1, 3)) is None and method.problem(Unstructured(0.5)) is None
    with pytest.raises(ValueError, match="block_size=6 is not divisible"):
        method.solve(w, statistics, NofM(2, 4))


def test_damping_is_raised_where_only_the_inverse_can_not_be_factorised(monkeypatch):
    factorised, refused = torch.linalg.cholesky_ex, []

    def refusing(matrix, upper=False, **options):
        factor, info = factorised(matrix, upper=upper, **options)
        if upper and not refused:
            refused.append(True)
            info.fill_(1)
        return factor, info

    monkeypatch.setattr(torch.linalg, "cholesky_ex", refusing)
    factor, taken = inverse_factor(torch.eye(3, dtype=torch.float64), 0.01)
    assert refused
    assert taken == pytest.approx(0.1)
    assert torch.allclose(factor.T @ factor, torch.eye(3, dtype=torch.float64) / 1.1)
