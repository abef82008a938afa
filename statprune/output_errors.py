"""What pruning does to a layer's outputs."""

from torch import Tensor


def output_error(dense: Tensor, weight: Tensor, rows: Tensor) -> Tensor:
    """‖X(W − Ŵ)ᵀ‖ / ‖XWᵀ‖ over sampled calibration inputs X, (samples, in_features); NaN without samples."""
    rows = rows.to(dense.dtype)
    return (rows @ (dense - weight).T).norm() / (rows @ dense.T).norm()
