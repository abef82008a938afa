"""The numbers that our methods, refinements and compensations report of a matrix, beside the report's own fields."""

from collections.abc import Mapping

# by stage ("matrices": what every matrix has), then by key of blocks.jsonl; units in brackets, as in docstrings
STAGE_NUMBERS: Mapping[str, Mapping[str, str]] = {
    "methods": {
        "score_min": "least score (scores)",
        "score_mean": "mean score (scores)",
        "score_max": "largest score (scores)",
        "damping": "what the factorisation took, as a share of the Gram matrix's mean diagonal (sparsegpt) [fraction]",
        "dead_columns": "channels that are zero in all inputs (sparsegpt, alps, admm) [channels]",
        "rounds": "how many were made (alps) [rounds]",
        "rho": "ρ at the end (alps)",
        "support_change": "entries that entered or left the mask when it was last looked at, as a share of what it "
        "keeps (alps, admm) [fraction]",
        "fit_residual": "what conjugate gradients left of their residual's norm (alps, admm) [fraction]",
    },
    "matrices": {
        "bias_output_error": "what would be left of relative_output_error if a bias took up the outputs' mean shift, "
        "as STADE and FLAP have it (where means are known); with moments and least_squares, of output_error_before "
        "[fraction]",
    },
    "refinements": {
        "swaps": "pairs that were exchanged [swaps]",
        "rows_stopped": "rows without another swap that helps [rows]",
        "rows_put_back": "rows whose loss rounding had raised (swaps) [rows]",
        "loss_before": "share of the outputs' energy that the method's mask loses (swaps) [fraction]",
        "loss_after": "the same after the swaps (swaps) [fraction]",
        "error_before": "mean size of the rows' expected errors (dsnot)",
        "error_after": "the same after the swaps (dsnot)",
    },
    "compensations": {
        "column_scale_min": "least scale of a column (energy)",
        "column_scale_mean": "mean scale of the columns (energy)",
        "column_scale_max": "largest scale of a column (energy)",
        "column_scale_clamped": "columns whose scale is one of the clamps (energy) [fraction]",
        "column_energy_ratio": "energy of all columns after, over that of the dense weight (energy) [fraction]",
        "row_scale_min": "least scale of a row (energy, moments)",
        "row_scale_mean": "mean scale of the rows (energy, moments)",
        "row_scale_max": "largest scale of a row (energy, moments)",
        "row_scale_clamped": "rows whose scale is one of the clamps (energy) [fraction]",
        "row_energy_ratio": "energy of all rows after, over that of the dense weight (energy) [fraction]",
        "corrected": "1 where the correction was kept, 0 where held-out rows refused it (moments, least_squares)",
        "mean_shift_before": "shift of the outputs' means as a share of their norm (moments, least_squares) [fraction]",
        "mean_shift_after": "the same after the correction [fraction]",
        "output_error_before": "relative output error on held-out rows (moments, least_squares) [fraction]",
        "output_error_after": "the same after the correction, which relative_output_error then is, too [fraction]",
        "fit_damping": "λ of the fit, as a share of G's mean diagonal (least_squares) [fraction]",
        "fit_steps": "steps of conjugate gradients (least_squares) [steps]",
        "fit_residual": "what they left of their residual's norm (least_squares) [fraction]",
    },
}
