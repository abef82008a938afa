"""What a call of ``prune`` is asked to do, and what it returns."""

import pandas as pd
import pytest

from statprune.core.admm import Admm
from statprune.core.compensation import Energy
from statprune.core.least_squares import FittedTo, LeastSquares
from statprune.core.methods import get_method, method_names
from statprune.core.moments import Moments
from statprune.core.patterns import NofM, Unstructured
from statprune.core.statistics import StatisticsKind
from statprune.core.swaps import Swaps
from statprune.model.coverage import Coverage
from statprune.pruning.allocation import BlockRatios, NamedRatios, Owl
from statprune.pruning.loop import prune
from statprune.pruning.report import MatrixReport
from statprune.pruning.spec import Calibration, Propagation, PruneResult, PruneRuntime, PruneSpec
from tests.helpers.models import tiny_llama
from tests.helpers.windows import random_windows


def spec(**options):
    return PruneSpec(get_method("wanda"), NofM(2, 4), **options)


@pytest.mark.parametrize("method", method_names())
@pytest.mark.parametrize("allocation", [None, Owl(), BlockRatios((0.4, 0.5)), NamedRatios((("mlp", 0.5),))])
@pytest.mark.parametrize("compensation", [None, Energy(), Moments()])
def test_equal_specs_are_one_key(method, allocation, compensation):
    first, second = (
        PruneSpec(get_method(method), Unstructured(0.5), compensation, allocation, Propagation.dense) for _ in range(2)
    )
    assert {first: "once", second: "again"} == {first: "again"}


@pytest.mark.parametrize(
    "options", [{"seed": 1}, {"min_expert_tokens": 8}, {"propagation": "dense"}, {"compensation": Energy()}]
)
def test_specs_that_differ_are_different_keys(options):
    assert len({spec(), spec(**options)}) == 2


@pytest.mark.parametrize("propagation", Propagation)
def test_a_propagation_is_taken_by_its_value(propagation):
    assert spec(propagation=propagation.value).propagation is propagation
    assert spec(propagation=propagation.value) == spec(propagation=propagation)


def test_an_unknown_propagation_names_the_choices():
    with pytest.raises(ValueError, match="propagation='origin' is unknown; choose one of pruned"):
        spec(propagation="origin")


def test_the_statistics_are_what_the_method_and_the_compensation_need():
    assert PruneSpec(get_method("magnitude"), NofM(2, 4)).statistics_kind is StatisticsKind.NONE
    assert PruneSpec(get_method("magnitude"), NofM(2, 4), Moments()).statistics_kind is StatisticsKind.MOMENTS
    assert PruneSpec(get_method("sparsegpt"), NofM(2, 4), Moments()).statistics_kind is StatisticsKind.GRAM


def test_a_compensation_may_want_more_rows_than_the_output_error():
    assert spec().sampled_rows == 256
    assert spec(compensation=Moments(samples=64)).sampled_rows == 256
    assert spec(compensation=Moments(samples=512)).sampled_rows == 512


def test_what_solving_holds_is_what_its_stages_hold():
    assert spec().gram_copies == 0 and spec(compensation=LeastSquares()).gram_copies == 7
    methods = {name: PruneSpec(get_method(name), NofM(2, 4)) for name in ("sparsegpt", "admm", "alps")}
    assert [own.gram_copies for own in methods.values()] == [7, 6, 12]
    both = PruneSpec(get_method("admm"), NofM(2, 4), LeastSquares(), refinement=Swaps())
    assert both.gram_copies == 20 and PruneSpec(Admm(FittedTo.rows), NofM(2, 4)).gram_copies == 0
    assert [own.working_copies for own in (spec(), *methods.values(), both)] == [6, 6, 12, 12, 12]


def test_a_batch_of_no_window_is_refused():
    with pytest.raises(ValueError, match="batch_size=0"):
        PruneRuntime(batch_size=0)


def report(name, weights, sparsity, **diagnostics):
    return MatrixReport(0, name, None, 1, weights, weights, 0.5, 8, False, sparsity, 0.1, 0.01, diagnostics)


def result_of(*reports):
    return PruneResult({}, reports, Coverage(400, 400, 0, {}), spec(), Calibration(1, 8, 0))


def test_the_sparsity_of_a_result_weighs_matrices_by_their_size():
    result = result_of(report("small", 100, 0.1), report("large", 300, 0.5))
    assert result.sparsity == pytest.approx(0.4)


def test_a_result_without_matrices_has_no_zeros():
    assert result_of().sparsity == 0


def test_the_sparsity_of_a_pruned_model_is_counted_on_its_weights():
    model, windows = tiny_llama(), random_windows(4, 16)
    result = prune(model, windows, spec())
    weights = [parameter for name, parameter in model.named_parameters() if "proj" in name]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    assert result.sparsity == zeros / sum(weight.numel() for weight in weights) == 0.5


def test_a_result_as_a_frame_has_a_row_for_each_matrix():
    result = result_of(report("small", 100, 0.1, score_mean=2.0), report("large", 300, 0.5))
    frame = result.to_frame()
    assert frame.layer.tolist() == ["small", "large"] and frame.sparsity.tolist() == [0.1, 0.5]


def test_a_result_as_a_frame_has_a_column_for_each_diagnostic():
    frame = result_of(report("small", 100, 0.1, score_mean=2.0), report("large", 300, 0.5)).to_frame()
    assert frame.score_mean[0] == 2.0 and pd.isna(frame.score_mean[1])
