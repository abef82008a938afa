"""Importance scores: (weight, statistics, options) → score, all (out_features, in_features); higher is kept.

To add a score here: write a function under ``@score`` and name it in ``OWN_SCORES``.
"""

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from statprune.core.patterns import Group
from statprune.core.row_chunks import row_chunks
from statprune.core.score import NoOptions, score
from statprune.core.statistics import InputStatistics, StatisticsKind
from statprune.core.switches import check_unused


class Activation(Enum):
    """CVR's activation factor a_j: a power of the input variance, or Wanda's input norm."""

    variance = "variance"
    norm = "norm"


@dataclass(frozen=True)
class RiaOptions:
    """RIA's parameter.

    Attributes:
        power: exponent of the input norm (Zhang et al. 2024: a = 0.5).
    """

    power: float = 0.5

    def __post_init__(self) -> None:
        if self.power < 0:
            raise ValueError(f"method.power={self.power} is negative; RIA's authors use 0.5")


@dataclass(frozen=True)
class CvrOptions:
    """CVR's parameters (arXiv 2602.07375, §3.1; the values that the paper leaves open are our reading).

    Attributes:
        statistic_calibration: whether CVR's factors are used; False gives Wanda's score, the ablation's first rung.
        alpha: reweighting strength α ≥ 0 of c_j; 0 switches c_j off.
        epsilon: ε > 0 added to the weight column variance.
        activation: variance for a_j = v_xj^activation_power, norm for Wanda's ‖x_j‖₂ in its place.
        activation_power: exponent of the input variance (0.25 in the paper).
    """

    statistic_calibration: bool = True
    alpha: float = 0.5
    epsilon: float = 1e-8
    activation: Activation = Activation.variance
    activation_power: float = 0.25

    def __post_init__(self) -> None:
        if self.alpha < 0:
            raise ValueError(f"method.alpha={self.alpha} is negative; give α ≥ 0 (0 switches c_j off)")
        if self.epsilon <= 0:
            raise ValueError(f"method.epsilon={self.epsilon} is not positive; give a small number such as 1e-8")
        if self.activation_power < 0:
            raise ValueError(f"method.activation_power={self.activation_power} is negative; the paper has 0.25")
        if not self.statistic_calibration:
            names = ("alpha", "epsilon", "activation", "activation_power")
            check_unused(self, names, "method", "statistic_calibration=false")
        if self.activation is Activation.norm:
            check_unused(self, ("activation_power",), "method", "activation=norm")


@score(needs=StatisticsKind.NONE, group=Group.matrix)
def magnitude(weight: Tensor, statistics: InputStatistics, options: NoOptions) -> Tensor:
    """|W_ij| (Han et al. 2015)."""
    return weight.abs()


@score()
def wanda(weight: Tensor, statistics: InputStatistics, options: NoOptions) -> Tensor:
    """|W_ij| · ‖x_j‖₂ (Sun et al., ICLR 2024)."""
    return weight.abs().mul_(statistics.norm.to(weight.dtype))


@score()
def ria(weight: Tensor, statistics: InputStatistics, options: RiaOptions) -> Tensor:
    """(|W_ij| / Σ_i|W_ij| + |W_ij| / Σ_j|W_ij|) · ‖x_j‖₂^a (Zhang et al., ICLR 2024).

    Deviation: weights compete within rows, as the authors' code has it with ``--per_outneuron``; without it that code
    compares over the whole matrix (``sparsity.group=matrix``). Its authors' channel permutation for N:M is not built.
    Only where the channels are rows of matrices before does it cost nothing (a gated MLP's down projection, and the
    output projection within its heads). Elsewhere the inputs would have to be permuted in every pass, and the public
    code maps the mask back to the old order, where it is not N:M.
    """
    absolute = weight.abs()
    tiny = 1e-30  # an all-zero row or column has no importance, and must not become NaN
    relative = absolute / absolute.sum(0).clamp_min(tiny) + absolute / absolute.sum(1, keepdim=True).clamp_min(tiny)
    return relative * statistics.norm.pow(options.power).to(weight.dtype)


@score()
def cvr(weight: Tensor, statistics: InputStatistics, options: CvrOptions) -> Tensor:
    """Column-variance reweighting, S_ij = |W_ij| · a_j · c_j (arXiv 2602.07375, §3.1).

    a_j = Var(x_j)^(1/4); c_j = (Var_i(W_ij) + ε)^(−α/2), population variances.
    """
    if not options.statistic_calibration:
        return wanda(weight, statistics, NoOptions())
    if options.activation is Activation.variance:
        activation = statistics.variance.to(weight.dtype).pow(options.activation_power)
    else:
        activation = statistics.norm.to(weight.dtype)
    column = (_column_variance(weight).to(weight.dtype) + options.epsilon).pow(-options.alpha / 2)
    return weight.abs().mul_(activation * column)


@score()
def stade(weight: Tensor, statistics: InputStatistics, options: NoOptions) -> Tensor:
    """W_ij² · Var(x_j), population variance (STADE, arXiv 2503.22451).

    It ranks as |W_ij| · σ_j does. Deviation: its authors also add Σ_j W_ij μ_j over the pruned weights to the module's
    bias, as FLAP (An et al., AAAI 2024) does. We do not: most models' modules have no bias, and the checkpoint stays a
    standard one. (``bias_output_error`` is what this bias would leave of a matrix's output error.)
    """
    return weight.square().mul_(statistics.variance.to(weight.dtype))


@score()
def stade_w(weight: Tensor, statistics: InputStatistics, options: NoOptions) -> Tensor:
    """Wanda for matrices whose input is what a norm of their block returned, STADE for others (arXiv 2503.22451).

    The first are q, k, v, gate and up of most models, and the experts' own of a mixture's; the others their output and
    down projections. What follows a norm is seen in the model and not told by names: the input of a first linear that
    reads the residual stream unnormed (OLMo-2) or scaled by its router (Llama 4's experts) follows none, and that of an
    output projection behind a norm of its own does. Deviation: no bias is added, as in ``stade``.
    """
    return wanda(weight, statistics, options) if statistics.follows_norm else stade(weight, statistics, options)


def _column_variance(weight: Tensor) -> Tensor:
    """Population variances of the columns, float64; two passes are exact enough, and faster than torch's own.

    NaN where a square overflows: an infinite variance would make all scores of the column zero.
    """
    mean = weight.mean(0, dtype=torch.float64).to(weight.dtype)
    total = torch.zeros(weight.shape[1], dtype=torch.float64, device=weight.device)
    for rows in row_chunks(weight):
        total += (weight[rows] - mean).square_().sum(0, dtype=torch.float64)
    return torch.where(total.isinf(), torch.nan, total / len(weight))
