"""Least squares on a fixed mask in whole models: a plain one and one with experts, under every propagation."""

import pytest
import torch

from statprune.core.least_squares import FittedTo, LeastSquares
from statprune.core.methods import get_method
from statprune.core.patterns import NofM
from statprune.pruning.loop import prune
from statprune.pruning.spec import Propagation, PruneSpec
from statprune.runs.finals import correction_result
from tests.helpers.families import tiny_model
from tests.helpers.models import tiny_llama

WINDOWS = torch.arange(6 * 32).view(6, 32) * 7 % 97


def pruned(model, source, propagation=Propagation.pruned, method="wanda"):
    """Reports of the model's matrices at 2:4."""
    spec = PruneSpec(get_method(method), NofM(2, 4), LeastSquares(source, min_gain=0), propagation=propagation)
    return prune(model, WINDOWS, spec).matrices


@pytest.mark.parametrize("source", list(FittedTo))
@pytest.mark.parametrize("propagation", list(Propagation))
def test_the_matrices_stay_half_zero_and_their_errors_fall(source, propagation):
    reports = pruned(tiny_llama(), source, propagation)
    assert len(reports) == 21 and all(report.sparsity == 0.5 for report in reports)
    result = correction_result(reports)
    assert result.corrected >= 15 and result.output_error_after < result.output_error_before
    assert result.mean_shift_after < result.mean_shift_before


@pytest.mark.parametrize("source", list(FittedTo))
def test_experts_that_few_tokens_reach_are_judged_by_what_there_is(source):
    model = tiny_model("Qwen3MoeConfig")
    reports = pruned(model, source, method="sparsegpt" if source is FittedTo.gram else "wanda")
    assert all(report.sparsity == 0.5 for report in reports) and any(report.expert for report in reports)
    for report in reports:
        before, after = (report.diagnostics[f"output_error_{name}"] for name in ("before", "after"))
        assert before is None or after <= before
        assert before is not None or report.diagnostics["corrected"] == 0
