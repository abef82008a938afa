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
