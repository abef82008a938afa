"""How far pruning moves a matrix's outputs."""

from collections.abc import Sequence

from torch import Tensor


def output_errors(dense: Tensor, weights: Sequence[Tensor], rows: Tensor) -> list[Tensor]:
    """Relative output error ‖X(W − Ŵ)ᵀ‖ / ‖XWᵀ‖ of each Ŵ on sampled inputs X.

    Args:
        dense: W, (out_features, in_features).
        weights: each Ŵ, of the same shape.
        rows: X, (samples, in_features).

    Returns:
        A scalar for each Ŵ; NaN without samples.
    """
    rows = rows.to(dense.dtype)
    norm = (rows @ dense.T).norm()
    return [(rows @ (dense - weight).T).norm() / norm for weight in weights]


def error_without_and_with_bias(dense: Tensor, weight: Tensor, rows: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """The relative output error, and what would be left if the module's bias took up the outputs' mean shift.

    Pruning that adds b_i = Σ_j (W_ij − Ŵ_ij) μ_j to the bias, as FLAP (An et al., AAAI 2024, arXiv 2312.11983) and
    STADE (arXiv 2503.22451) do, has the error ‖(X − μ)(W − Ŵ)ᵀ‖ / ‖XWᵀ‖: that of the deviations from the mean.

    Args:
        dense: W, (out_features, in_features).
        weight: Ŵ, of the same shape.
        rows: X, (samples, in_features).
        mean: μ, (in_features,).

    Returns:
        Two scalars; NaN without samples.
    """
    rows, lost = rows.to(dense.dtype), dense - weight
    norm, change = (rows @ dense.T).norm(), rows @ lost.T
    return change.norm() / norm, (change - lost @ mean.to(dense.dtype)).norm() / norm
