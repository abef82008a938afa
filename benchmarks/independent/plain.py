"""Pruning methods, plainly: one matrix at a time, nothing of statprune imported.

Written from notes on papers ("METHODS"), on the paper ("PAPER") and conventions ("DESIGN"), docs/methods/admm.md and
the entries of docs/reference/options.md, and not from statprune's code. A weight W is (outputs, inputs), row i an
output, column j an input; G = XᵀX / tokens, not centred, is (inputs, inputs). A solver takes the dense weight, its
inputs and a pattern, and returns the pruned weight. Statistics and factorisations are float64; the repeated products
of a solver have the precision of the weight that it is given.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pattern:
    """What is removed: the lowest share of a row (or matrix), or of each group of ``of`` consecutive inputs."""

    ratio: float = 0.5
    of: int | None = None


@dataclass(frozen=True)
class Inputs:
    """What one linear module saw in the calibration windows, in float64; a Gram matrix only where it is asked for.

    Attributes:
        rows: X, (tokens, inputs).
        held_out: so many tokens, drawn at random, are not in the Gram matrix; none in the plain cells.
        noise: share of √(G_jj G_kk) that normal noise changes G_jk by, to see what rounding may do; none in the cells.
    """

    rows: Tensor
    held_out: int = 0
    noise: float = 0.0

    @cached_property
    def square(self) -> Tensor:
        """Mean of x_j² over all tokens."""
        return self.rows.square().mean(0)

    @property
    def norm(self) -> Tensor:
        """‖x_j‖₂ but for a factor that all channels share, which no comparison within a matrix sees."""
        return self.square.sqrt()

    @property
    def variance(self) -> Tensor:
        """Var(x_j), population variance."""
        return self.rows.var(0, unbiased=False)

    @cached_property
    def order(self) -> Tensor:
        """The tokens' numbers in random order: the first ones are held out."""
        return torch.randperm(len(self.rows), generator=torch.Generator().manual_seed(1))

    @property
    def held(self) -> Tensor:
        """The rows of the held-out tokens."""
        return self.rows[self.order[: self.held_out]]

    @property
    def tokens(self) -> int:
        """How many tokens are in the Gram matrix."""
        return len(self.rows) - self.held_out

    @cached_property
    def gram(self) -> Tensor:
        """G = Σ xxᵀ / tokens over the tokens that are not held out, not centred."""
        fitted = self.rows[self.order[self.held_out :].sort().values]
        gram = fitted.mT @ fitted / len(fitted)
        noise = torch.randn(gram.shape, generator=torch.Generator().manual_seed(2), dtype=gram.dtype).triu()
        scale = self.noise * gram.diagonal().sqrt()
        return gram + (noise + noise.triu(1).mT) * scale * gram.diagonal().sqrt()[:, None]

    @cached_property
    def alps_factors(self) -> tuple[Tensor, Tensor, Tensor]:
        """METHODS 3: G damped by 0.01 of its mean diagonal, in units of a diagonal of ones: units, Λ and Q."""
        gram = damped(self.gram, 0.01)
        unit = gram.diagonal().sqrt()
        values, vectors = torch.linalg.eigh(gram / unit / unit[:, None])
        return unit, values, vectors

    @cached_property
    def cholesky_of_inverse(self) -> Tensor:
        """SparseGPT: the upper Cholesky factor of (G + λI)⁻¹, λ = 0.01 of the mean diagonal (PAPER, baselines)."""
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped(self.gram, 0.01)))
        return torch.linalg.cholesky(inverse, upper=True)

    def admm_factors(self, damping: float | None, rho: float) -> tuple[Tensor, Tensor, Tensor]:
        """Docs/reference.md, method=admm: units, G̃ + λI and ρ (G̃ + (λ + ρ) I)⁻¹.

        λ = inputs / tokens, at least 0.01; ρ in units of the mean of 1 / [(G̃ + λI)⁻¹]_jj, of all channels here.
        """
        if (damping, rho) not in self._admm:
            unit = self.gram.diagonal().sqrt()
            eye = torch.eye(len(unit), dtype=unit.dtype)
            ridge = max(0.01, len(unit) / self.tokens) if damping is None else damping
            gram = self.gram / unit / unit[:, None] + ridge * eye
            absolute = rho * float((1 / torch.linalg.inv(gram).diagonal()).mean())
            self._admm[damping, rho] = unit, gram, absolute * torch.linalg.inv(gram + absolute * eye)
        return self._admm[damping, rho]

    @cached_property
    def _admm(self) -> dict[tuple[float | None, float], tuple[Tensor, Tensor, Tensor]]:
        return {}


Solver = Callable[[Tensor, Inputs, Pattern], Tensor]
Score = Callable[[Tensor, Inputs], Tensor]


def damped(gram: Tensor, share: float) -> Tensor:
    """G + λI with λ a share of G's mean diagonal."""
    return gram + share * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)


def keep_mask(score: Tensor, pattern: Pattern, whole: bool = False) -> Tensor:
    """True where a weight is kept (DESIGN 4): floor(ratio · size) of the lowest scores go, ties as they come.

    The size is a row's, with ``whole`` the matrix', and with N:M a group's. Between two N:M patterns the number that
    goes of each group is rounded and at least one.
    """
    if pattern.of is not None:
        groups = score.reshape(-1, pattern.of)
        removed = max(1, round(pattern.ratio * pattern.of))
    else:
        groups = score.reshape(1, -1) if whole else score
        removed = int(pattern.ratio * groups.shape[1])
    lowest = groups.topk(removed, dim=1, largest=False, sorted=False).indices
    return torch.ones_like(groups, dtype=torch.bool).scatter_(1, lowest, False).reshape(score.shape)


# Scores (PAPER, baselines; METHODS 4)


def wanda(weight: Tensor, inputs: Inputs) -> Tensor:
    """|W_ij| ‖x_j‖₂."""
    return weight.double().abs() * inputs.norm


def ria(weight: Tensor, inputs: Inputs) -> Tensor:
    """(|W_ij| / Σ_i |W_ij| + |W_ij| / Σ_j |W_ij|) ‖x_j‖₂^0.5."""
    size = weight.double().abs()
    return (size / size.sum(0, keepdim=True) + size / size.sum(1, keepdim=True)) * inputs.norm**0.5


def stade(weight: Tensor, inputs: Inputs) -> Tensor:
    """W_ij² Var(x_j): METHODS 4. |W| σ is its root and ranks alike."""
    return weight.double() ** 2 * inputs.variance


def scored(score: Score) -> Solver:
    """Remove the weights of lowest score within each row or N:M group; the others stay as they are."""

    def solve(weight: Tensor, inputs: Inputs, pattern: Pattern) -> Tensor:
        return weight * keep_mask(score(weight, inputs), pattern)

    return solve


# Least squares on a mask (METHODS 2)


def conjugate_gradients(dense: Tensor, start: Tensor, keep: Tensor, gram: Tensor, steps: int) -> Tensor:
    """METHODS 2: lower (w − v)ᵀ G (w − v) over v on the mask, from v = start, all rows at once, each with its own step.

    G is preconditioned by its diagonal, and residual and direction are masked in every step.
    """
    gram, values = gram.to(dense.dtype), start * keep
    scale = gram.diagonal()
    residual = ((dense - values) @ gram) * keep
    toward = residual / scale
    direction = toward
    size = (residual * toward).sum(1, keepdim=True)
    for _ in range(steps):
        product = direction @ gram
        step = size / (direction * product).sum(1, keepdim=True).clamp_min(1e-30)
        values = values + step * direction
        residual = residual - step * product * keep
        toward = residual / scale
        size, before = (residual * toward).sum(1, keepdim=True), size
        direction = toward + size / before.clamp_min(1e-30) * direction
    return values


def with_least_squares(score: Score, damping: float = 0.01, steps: int = 10) -> Solver:
    """A scored mask, then METHODS 2 with SparseGPT's damping: G + λI takes G's place on both sides of the equation."""

    def solve(weight: Tensor, inputs: Inputs, pattern: Pattern) -> Tensor:
        keep = keep_mask(score(weight, inputs), pattern)
        return conjugate_gradients(weight, weight, keep, damped(inputs.gram, damping), steps)

    return solve


def with_gated_least_squares(score: Score, dampings: tuple[float, ...] = (0.01, 0.1), gain: float = 0.02) -> Solver:
    """As docs/reference.md has it: λ by the error on the held-out rows of 64 outputs, and a gate on the same rows."""

    def solve(weight: Tensor, inputs: Inputs, pattern: Pattern) -> Tensor:
        keep = keep_mask(score(weight, inputs), pattern)
        outputs = torch.linspace(0, len(weight) - 1, min(64, len(weight))).long()

        def fit(damping: float, rows: Tensor) -> Tensor:
            return conjugate_gradients(weight[rows], weight[rows], keep[rows], damped(inputs.gram, damping), 10)

        def error(pruned: Tensor, rows: Tensor) -> float:
            return float((inputs.held.to(weight.dtype) @ (weight[rows] - pruned).mT).norm())

        best = min(dampings, key=lambda damping: error(fit(damping, outputs), outputs))
        every = torch.arange(len(weight))
        fitted = fit(best, every)
        return fitted if error(fitted, every) <= (1 - gain) * error(weight * keep, every) else weight * keep

    return solve


# SparseGPT (Frantar and Alistarh, ICML 2023; PAPER, baselines)


def sparsegpt(weight: Tensor, inputs: Inputs, pattern: Pattern, block: int = 128) -> Tensor:
    """Column by column, the error of what is removed is spread over the columns to come, by H⁻¹'s Cholesky factor U.

    In blocks of 128 columns: a mask of the block's lowest w² / U_jj² over all rows (N:M: of each group as it is
    reached), then the block's updates, then one product for all columns after it.
    """
    factor, pruned = inputs.cholesky_of_inverse.to(weight.dtype), weight.clone()
    for start in range(0, weight.shape[1], block):
        end = min(start + block, weight.shape[1])
        own, errors = factor[start:end, start:end], torch.zeros_like(pruned[:, start:end])
        columns, diagonal = pruned[:, start:end], own.diagonal()
        keep = keep_mask((columns / diagonal) ** 2, Pattern(pattern.ratio), whole=True)
        for j in range(end - start):
            if pattern.of is not None and j % pattern.of == 0:
                group = slice(j, j + pattern.of)
                keep[:, group] = keep_mask((columns[:, group] / diagonal[group]) ** 2, pattern)
            wanted = columns[:, j] * keep[:, j]
            errors[:, j] = (columns[:, j] - wanted) / own[j, j]
            columns[:, j:] -= errors[:, j, None] * own[j, j:]
            columns[:, j] = wanted
        pruned[:, end:] -= errors @ factor[start:end, end:]
    return pruned


# ALPS (METHODS 3) and gradual ADMM (docs/admm.md; docs/reference.md, method=admm)


def alps(weight: Tensor, inputs: Inputs, pattern: Pattern, rounds: int = 300, whole: bool = True) -> Tensor:
    """METHODS 3, with W from the right: B = (WG − V + ρD)(G + ρI)⁻¹, D = the k largest of B + V/ρ, V += ρ(B − D)."""
    unit, values, vectors = (factor.to(weight.dtype) for factor in inputs.alps_factors)
    dense, gram = weight * unit, (vectors * values) @ vectors.mT
    product, rho = dense @ gram, 0.1

    def started() -> tuple[Tensor, Tensor]:
        keep = keep_mask(dense.abs(), pattern, whole)
        return dense * keep, torch.zeros_like(dense)

    sparse, dual = started()
    last, moving = sparse != 0, False
    inverse = (vectors / (values + rho)) @ vectors.mT
    for number in range(1, rounds + 1):
        answer = (product - dual + rho * sparse) @ inverse
        shifted = answer + dual / rho
        keep = keep_mask(shifted.abs(), pattern, whole)
        sparse = shifted * keep
        dual = dual + rho * (answer - sparse)
        if number % 3:
            continue
        share = float((keep ^ last).sum() / keep.sum())
        last, moving = keep, moving or share > 0.005
        if not moving:  # ρ was too large for the support to move: start again with a smaller one
            rho, (sparse, dual) = rho / 5, started()
            last = sparse != 0
        elif share == 0 or (number > 30 and share < 3e-4):
            break
        else:
            rho *= 1.3 if share > 0.1 else 1.2 if share > 0.005 else 1.1
        inverse = (vectors / (values + rho)) @ vectors.mT
    return conjugate_gradients(dense, sparse, keep, gram, 10) / unit


def admm(
    weight: Tensor,
    inputs: Inputs,
    pattern: Pattern,
    whole: bool = False,
    rho: float = 1.5,
    damping: float | None = None,
) -> Tensor:
    """Docs/reference.md, method=admm: six rounds, five of them a ramp, then four steps of conjugate gradients.

    B = W̄ + ρ (D − U − W̄)(G̃ + (λ + ρ) I)⁻¹; D = the largest of B + U, others 0; U += B − D.
    """
    unit, gram, inverse = (factor.to(weight.dtype) for factor in inputs.admm_factors(damping, rho))
    dense, ramp = weight * unit, 5
    sparse, dual = dense, torch.zeros_like(dense)
    for number in range(1, 7):
        answer = dense + (sparse - dual - dense) @ inverse
        share = 1 - max(0.0, 1 - number / ramp) ** 3
        keep = keep_mask((answer + dual).abs(), Pattern(pattern.ratio * share, pattern.of), whole)
        sparse = (answer + dual) * keep
        dual = dual + answer - sparse
    return conjugate_gradients(dense, sparse, keep, gram, 4) / unit


# Exact swaps (METHODS 1)


def with_swaps(score: Score, most: int = 100, candidates: int = 16) -> Solver:
    """A scored mask, then at most so many swaps a row, one at a time, unstructured."""

    def solve(weight: Tensor, inputs: Inputs, pattern: Pattern) -> Tensor:
        keep = keep_mask(score(weight, inputs), pattern)
        return weight * swapped(weight, keep, inputs.gram.to(weight.dtype), most, candidates)

    return solve


def swapped(weight: Tensor, keep: Tensor, gram: Tensor, most: int, candidates: int) -> Tensor:
    """METHODS 1: the best pair of the best few kept u and pruned v; where they gain nothing, the best pair of all."""
    keep, rows = keep.clone(), torch.arange(len(weight))
    loss_slope, diagonal = (weight * ~keep) @ gram, gram.diagonal()  # c = G p
    least = 1e-6 * ((weight * ~keep) * loss_slope).sum(1)  # a smaller gain ends a row
    for _ in range(most):
        w, c, kept = weight[rows], loss_slope[rows], keep[rows]
        prune = torch.where(kept, 2 * w * c + w**2 * diagonal, torch.inf)
        restore = torch.where(kept, torch.inf, -2 * w * c + w**2 * diagonal)
        low_u, u = prune.topk(candidates, largest=False)
        low_v, v = restore.topk(candidates, largest=False)
        cross = w.gather(1, u)[:, :, None] * w.gather(1, v)[:, None, :] * gram[u[:, :, None], v[:, None, :]]
        change, pair = (low_u[:, :, None] + low_v[:, None, :] - 2 * cross).flatten(1).min(1)
        u, v = u.gather(1, pair[:, None] // candidates)[:, 0], v.gather(1, pair[:, None] % candidates)[:, 0]
        for n in (change >= -least[rows]).nonzero()[:, 0].tolist():
            every = prune[n, :, None] + restore[n] - 2 * w[n, :, None] * w[n] * gram
            change[n], best = every.flatten().min(0)
            u[n], v[n] = best // len(gram), best % len(gram)
        gains = change < -least[rows]
        rows, u, v = rows[gains], u[gains], v[gains]
        if not len(rows):
            break
        keep[rows, u], keep[rows, v] = False, True
        loss_slope[rows] += weight[rows, u, None] * gram[u] - weight[rows, v, None] * gram[v]
    return keep
