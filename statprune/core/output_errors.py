"""What pruning does to a layer's outputs."""

from collections.abc import Sequence

from torch import Tensor


def output_errors(dense: Tensor, weights: Sequence[Tensor], rows: Tensor) -> list[Tensor]:
    """‖X(W − Ŵ)ᵀ‖ / ‖XWᵀ‖ of each Ŵ over sampled calibration inputs X, (samples, in_features); NaN without samples."""
    rows = rows.to(dense.dtype)
    norm = (rows @ dense.T).norm()
    return [(rows @ (dense - weight).T).norm() / norm for weight in weights]
