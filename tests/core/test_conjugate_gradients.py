"""Masked conjugate gradients against the normal equations' exact solution and a rewrite by rows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from statprune.core import conjugate_gradients
from statprune.core.conjugate_gradients import SecondMoments, fit_kept_weights, share_left
from statprune.core.patterns import Group, NofM, Unstructured
from tests.helpers.corrections import half, make

DAMPING = torch.tensor(0.01, dtype=torch.float64)


def second_moments(inputs, by_rows=False):
    """G of the inputs in units of its mean diagonal, as a matrix or as rows."""
    unit = inputs.square().sum(0).mean()
    scaled = inputs / unit.sqrt()
    diagonal = scaled.square().sum(0)
    return SecondMoments(diagonal, rows=scaled) if by_rows else SecondMoments(diagonal, gram=scaled.T @ scaled)


def normal_equations(inputs, damping=DAMPING):
    """G + λI, with λ a share of the mean diagonal."""
    gram = inputs.T @ inputs
    return gram + damping * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)


def exact(w, keep, system):
    """Row by row, (G + λI)_SS v = ((G + λI) w)_S."""
    result = torch.zeros_like(w)
    for i in range(len(w)):
        kept = keep[i].nonzero().squeeze(1)
        if len(kept):
            result[i, kept] = torch.linalg.solve(system[kept][:, kept], (system @ w[i])[kept])
    return result


def loss(w, v, system):
    """(w − v)ᵀ (G + λI) (w − v) of every row."""
    return torch.stack([(a - b) @ system @ (a - b) for a, b in zip(w, v, strict=True)])


def by_loops(w, keep, system, steps):
    """The textbook's preconditioned conjugate gradients on each row's own submatrix."""
    result = w * keep
    for i in range(len(w)):
        kept = keep[i].nonzero().squeeze(1)
        own, target = system[kept][:, kept], (system @ w[i])[kept]
        v, diagonal = result[i, kept].clone(), own.diagonal()
        r = target - own @ v
        p = z = r / diagonal
        for _ in range(steps):
            length = (r @ z) / (p @ own @ p)
            v, remaining = v + length * p, r - length * (own @ p)
            z_next = remaining / diagonal
            p, r, z = z_next + (remaining @ z_next) / (r @ z) * p, remaining, z_next
        result[i, kept] = v
    return result


@pytest.fixture
def problem():
    """Weight, half of it, inputs with means, and their G + λI; float64."""
    w, x, _ = make(tokens=200, out_features=6, in_features=16)
    return w, half(w), x, normal_equations(x)


@pytest.mark.parametrize("by_rows", [False, True])
def test_as_many_steps_as_weights_are_kept_solve_the_normal_equations(problem, by_rows):
    w, keep, x, system = problem
    result, left = fit_kept_weights(w, w * keep, keep, second_moments(x, by_rows), DAMPING, 12)
    assert torch.allclose(result, exact(w, keep, system), rtol=1e-8)
    gradient = ((w - result) @ system) * keep
    assert gradient.abs().max() < 1e-8 * (((w - w * keep) @ system) * keep).abs().max()
    assert left[1] < 1e-16 * left[0]


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("by_rows", [False, True])
def test_steps_are_those_of_each_rows_own_system(problem, steps, by_rows):
    w, keep, x, system = problem
    result, _ = fit_kept_weights(w, w * keep, keep, second_moments(x, by_rows), DAMPING, steps)
    assert torch.allclose(result, by_loops(w, keep, system, steps), rtol=1e-9)


def test_another_start_has_the_same_end(problem):
    w, keep, x, _ = problem
    moments = second_moments(x)
    first, _ = fit_kept_weights(w, w * keep, keep, moments, DAMPING, 16)
    second, _ = fit_kept_weights(w, -3 * w * keep, keep, moments, DAMPING, 16)
    assert torch.allclose(first, second, rtol=1e-6)


def test_what_is_left_is_the_preconditioned_gradient(problem):
    w, keep, x, system = problem
    result, left = fit_kept_weights(w, w * keep, keep, second_moments(x), DAMPING, 2)
    for weight, actual in zip((w * keep, result), left, strict=True):
        gradient = ((w - weight) @ system) * keep
        unit = (x.T @ x).diagonal().mean()
        assert actual.item() == pytest.approx((gradient.square() / system.diagonal()).sum().item() / unit.item())


def test_a_large_ridge_leaves_the_dense_weights(problem):
    w, keep, x, _ = problem
    result, _ = fit_kept_weights(w, w * keep, keep, second_moments(x), torch.tensor(1e9), 10)
    assert torch.allclose(result, w * keep, rtol=1e-6)
    drawn, _ = fit_kept_weights(w, 0 * w, keep, second_moments(x), torch.tensor(1e9), 10)
    assert torch.allclose(drawn, w * keep, rtol=1e-6)


def test_the_chunks_of_rows_change_nothing(problem, monkeypatch):
    w, keep, x, _ = problem
    whole, left = fit_kept_weights(w, w * keep, keep, second_moments(x), DAMPING, 5)
    monkeypatch.setitem(conjugate_gradients.CHUNK_ENTRIES, "cpu", 40)  # two rows of sixteen at a time
    chunked, left_of_chunks = fit_kept_weights(w, w * keep, keep, second_moments(x), DAMPING, 5)
    assert torch.allclose(chunked, whole, rtol=1e-9) and torch.allclose(left, left_of_chunks)


def test_steps_in_float32_end_where_those_in_float64_do():
    """Channels of very different sizes, as a model's are."""
    w, x, _ = make(tokens=400, out_features=8, in_features=32, seed=2)
    x = x * torch.logspace(-2, 1, 32, dtype=torch.float64)
    keep, system = half(w), normal_equations(x)
    moments = second_moments(x)
    single = SecondMoments(moments.diagonal.float(), moments.gram.float())
    for steps in (10, 100):
        exactly, _ = fit_kept_weights(w, w * keep, keep, moments, DAMPING, steps)
        result, _ = fit_kept_weights(w.float(), (w * keep).float(), keep, single, DAMPING.float(), steps)
        assert torch.allclose(loss(w, result.double(), system), loss(w, exactly, system), rtol=1e-3)
    assert torch.allclose(loss(w, result.double(), system), loss(w, exact(w, keep, system), system), rtol=1e-3)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    tokens=st.sampled_from([1, 3, 64]),
    pattern=st.sampled_from([Unstructured(0.0), Unstructured(0.9, Group.matrix), NofM(2, 4), Unstructured(0.5)]),
    damping=st.sampled_from([1e-4, 0.01, 1.0]),
    by_rows=st.booleans(),
)
def test_every_step_lowers_the_loss_and_keeps_the_mask(seed, tokens, pattern, damping, by_rows):
    w, x, _ = make(tokens=tokens, seed=seed)
    w[1] = 0
    keep, system, moments = pattern.select(w.abs()), normal_equations(x, damping), second_moments(x, by_rows)
    before = loss(w, w * keep, system)
    for steps in (1, 2, 3, 10):
        result, _ = fit_kept_weights(w, w * keep, keep, moments, torch.tensor(damping), steps)
        after = loss(w, result, system)
        assert result.isfinite().all() and (result[~keep] == 0).all()
        assert (after <= before * (1 + 1e-9) + 1e-12).all()
        before = after
    assert torch.equal(result[1], torch.zeros_like(w[1]))


@pytest.mark.parametrize("by_rows", [False, True])
def test_degenerate_matrices(by_rows):
    """Rank-1 inputs, a dead channel, a row with nothing kept, one input channel."""
    w, x, _ = make(tokens=30)
    x = x[:, :1] @ torch.linspace(-1, 2, 8, dtype=torch.float64)[None]
    x[:, 5] = 0
    keep = half(w)
    keep[0], keep[1] = False, True
    result, _ = fit_kept_weights(w, w * keep, keep, second_moments(x, by_rows), DAMPING, 20)
    assert torch.allclose(result, exact(w, keep, normal_equations(x)), rtol=1e-6)
    assert torch.equal(result[:, 5], (w * keep)[:, 5]) and torch.equal(result[:2], (w * keep)[:2])
    one, keep = w[:, :1], torch.tensor([[True], [False], [True], [True], [False]])
    result, _ = fit_kept_weights(one, one * keep, keep, second_moments(x[:, :1], by_rows), DAMPING, 20)
    assert torch.equal(result, one * keep)


def test_what_is_left_of_a_gradient_is_a_share_of_its_norm():
    assert share_left(torch.tensor([16.0, 1.0])) == 0.25
    assert share_left(torch.tensor([0.0, 0.0])) == 0
