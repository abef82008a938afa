"""What scores make of input channels, against plain loops; a matrix's input is the dense model's."""

import itertools

import numpy
import pytest
import torch

from statprune.analysis import figures
from statprune.analysis.channels import MatrixInput, channel_scores, config_of, input_of_run, matrix_input
from statprune.core.methods import Method
from statprune.core.patterns import NofM, Unstructured
from statprune.core.scores import CvrOptions
from statprune.core.solution import Solution
from statprune.core.statistics import InputStatistics, StatisticsKind
from statprune.errors import StatpruneError
from statprune.pruning.loop import prune
from statprune.pruning.spec import PruneSpec
from statprune.runs.pipeline import run
from tests.helpers.command import tiny_job
from tests.helpers.families import tiny_model
from tests.helpers.models import tiny_llama
from tests.helpers.old_records import SCHEMA_1
from tests.helpers.pictures import assert_readable

PATTERNS = [Unstructured(0.5), NofM(2, 4)]
SCORES = ("wanda", "cvr")


@pytest.fixture(scope="module")
def inputs():
    """Inputs of eight channels, of which one is an outlier and one is weak."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(40, 8, generator=generator) * torch.tensor([10.0, 1, 1, 1, 2, 1, 1, 0.1]) + 0.3


@pytest.fixture(scope="module")
def matrix(inputs):
    """A matrix of six outputs with these inputs."""
    statistics = InputStatistics(8)
    statistics.update(inputs)
    return MatrixInput(torch.randn(6, 8, generator=torch.Generator().manual_seed(0)), statistics)


def factor_of(score, matrix, inputs):
    """What the score multiplies the magnitude of each channel's weights by."""
    if score == "wanda":
        return inputs.double().square().sum(0).sqrt()
    spread_of_weights = matrix.weight.double().var(0, correction=0) + 1e-8
    return inputs.double().var(0, correction=0) ** 0.25 * spread_of_weights**-0.125


def test_a_channels_activation_is_its_root_mean_square(matrix, inputs):
    norm = inputs.double().square().sum(0).sqrt()
    activation = channel_scores(matrix, Unstructured(0.5)).activation.to_numpy()
    assert activation == pytest.approx((norm / 40**0.5).numpy(), rel=1e-5)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("score", SCORES)
def test_factors_are_the_formulas_over_their_median(score, pattern, matrix, inputs):
    table, factor = channel_scores(matrix, pattern, CvrOptions(alpha=0.25)), factor_of(score, matrix, inputs)
    assert table[f"{score}_factor"].to_numpy() == pytest.approx((factor / factor.median()).numpy(), rel=1e-5)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("score", SCORES)
def test_the_share_of_a_channel_is_what_the_pattern_keeps_of_it(score, pattern, matrix, inputs):
    scores = (matrix.weight.abs().double() * factor_of(score, matrix, inputs)).numpy()
    mask = numpy.zeros((6, 8))
    groups = numpy.arange(8).reshape(-1, 8 if isinstance(pattern, Unstructured) else 4)
    for i, group in itertools.product(range(6), groups):
        for j in sorted(group, key=lambda j, i=i: -scores[i, j])[: len(group) // 2]:
            mask[i, j] = 1
    table = channel_scores(matrix, pattern, CvrOptions(alpha=0.25))
    assert table[f"{score}_kept"].to_numpy() == pytest.approx(mask.mean(0))


class Spy(Method):
    """A method that prunes nothing, and remembers what it was to solve."""

    needs = StatisticsKind.MOMENTS

    def __init__(self):
        self.seen = []

    def solve(self, weight, statistics, pattern):
        self.seen.append((weight.clone(), statistics.norm.clone()))
        return Solution(weight, torch.ones_like(weight, dtype=torch.bool), {})


@pytest.fixture(scope="module")
def windows():
    return torch.arange(64).view(2, 32) % 97


def test_a_matrixs_input_is_what_a_method_sees_in_the_dense_model(windows):
    model, spy = tiny_llama(), Spy()
    matrix = matrix_input(model, windows, 1, "mlp.down_proj")
    prune(model, windows, PruneSpec(spy, Unstructured(0.0)))
    weight, norm = spy.seen[7 + 6]
    assert torch.equal(weight, matrix.weight) and torch.allclose(norm, matrix.statistics.norm, rtol=1e-12)


def test_a_matrix_that_does_not_exist_is_refused_with_those_that_do(windows):
    with pytest.raises(StatpruneError, match=r"block 1 has no layer mlp.down; choose one of: self_attn.q_proj"):
        matrix_input(tiny_llama(), windows, 1, "mlp.down")


@pytest.mark.parametrize("block", [3, -1])
def test_a_block_that_does_not_exist_is_refused(block, windows):
    with pytest.raises(StatpruneError, match=f"there is no block {block}; the model has blocks 0 to 2"):
        matrix_input(tiny_llama(), windows, block, "mlp.down_proj")


def test_an_expert_has_the_statistics_of_its_own_tokens(windows):
    statistics = matrix_input(tiny_model("MixtralConfig"), windows, 0, "mlp.experts.down_proj[1]", 0).statistics
    assert statistics.count > 0 and statistics.variance.std() > 0  # and not what stands for an expert without tokens


@pytest.fixture(scope="module")
def of_mixture(windows):
    """A dense matrix with the input of an expert: channels far apart."""
    statistics = matrix_input(tiny_model("MixtralConfig"), windows, 0, "mlp.experts.down_proj[1]", 0).statistics
    return MatrixInput(matrix_input(tiny_llama(), windows, 1, "mlp.down_proj").weight, statistics)


def test_the_figure_of_channels_is_readable(of_mixture):
    assert_readable(figures.draw_channels(channel_scores(of_mixture, Unstructured(0.5)), "block 1", 0.5))


def test_the_figure_of_channels_is_written_as_png_and_pdf(of_mixture, tmp_path):
    paths = figures.score_outliers(of_mixture, tmp_path, "block 1, mlp.down_proj")
    assert [path.name for path in paths] == ["channels.png", "channels.pdf"]
    assert all(path.stat().st_size > 5000 for path in paths)


def test_the_configuration_of_a_run_is_read_from_its_record():
    config = config_of(SCHEMA_1 / "plain")
    assert (config.method_name, config.settings.seed, config.model.path) == ("wanda", 0, "tiny")


def test_a_folder_without_a_run_has_no_configuration(tmp_path):
    with pytest.raises(StatpruneError, match="holds no finished run; give the folder of one"):
        config_of(tmp_path)


def test_the_input_of_a_run_is_that_of_its_model_under_its_calibration(tiny_folder, tmp_path):
    job = tiny_job(tiny_folder, "method=wanda", "evaluation=none", "sparsity.ratio=0.0", "propagation=dense")
    run(job, tmp_path / "run")
    config = config_of(tmp_path / "run")
    matrix = input_of_run(config, tmp_path / "run", 1, "mlp.down_proj")
    assert torch.equal(matrix.weight, tiny_llama().model.layers[1].mlp.down_proj.weight)
    assert matrix.statistics.count == 4 * 32
    other = input_of_run(tiny_job(tiny_folder, "seed=1"), tmp_path, 1, "mlp.down_proj")
    assert not torch.equal(matrix.statistics.norm, other.statistics.norm)
