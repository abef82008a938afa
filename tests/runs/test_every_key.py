"""Every key of the configuration changes something, or is refused; a new key needs an entry here."""

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from statprune.config.sections import (
    CalibrationConfig,
    EvaluationConfig,
    ModelConfig,
    QuantizeConfig,
    Settings,
    SparsityConfig,
    TrackingConfig,
)
from statprune.core.compensation import COMPENSATIONS
from statprune.core.least_squares import FittedTo
from statprune.core.methods import get_method, method_names, method_origin, options_class
from statprune.core.patterns import Group, Unstructured
from statprune.core.refinement import REFINEMENTS
from statprune.core.statistics import InputStatistics, StatisticsKind
from statprune.pruning.allocation import ALLOCATIONS
from statprune.runs.pipeline import run
from statprune.runs.record import RunRecord
from statprune.runs.workbench import Workbench
from statprune.system.options import option_names
from tests.helpers.command import tiny_job
from tests.helpers.matrices import random_matrix

ROOT = Path(__file__).parents[2]
WORDS = "the weight of a matrix and the score of a row are not the same thing at all, but a mask is a mask. " * 40
SECTIONS = {
    "": Settings,
    "model.": ModelConfig,
    "calibration.": CalibrationConfig,
    "sparsity.": SparsityConfig,
    "evaluation.": EvaluationConfig,
    "quantize.": QuantizeConfig,
    "tracking.": TrackingConfig,
}


def result(record: RunRecord) -> object:
    """What a run measures of its pruned model."""
    return {source: own.pruned for source, own in record.perplexity.items()}


def measured_on(record: RunRecord) -> object:
    """What the perplexity was measured on."""
    return {source: (own.seq_len, own.windows, own.sha256) for source, own in record.perplexity.items()}


def memory(record: RunRecord) -> object:
    """The prediction, and where hidden states wait."""
    return record.memory.predicted_host_bytes, record.memory.activations


def zeros(record: RunRecord) -> object:
    """Where zeros are."""
    return record.sparsity.achieved, record.sparsity.blocks


# by key: overrides of one run beside those that all have, and what the record then has otherwise
CHANGED: dict[str, tuple[str, Callable[[RunRecord], object]]] = {
    "propagation": ("propagation=dense", result),
    "seed": ("seed=1", result),
    "gram_precision": ("method=sparsegpt gram_precision=tf32", result),
    "activations": ("activations=disk", memory),
    "model.dtype": ("model.dtype=bfloat16", result),
    "model.exclude": ("model.exclude=[q_proj]", zeros),
    "calibration.source": ("calibration.source=bundled calibration.path=null", result),
    "calibration.samples": ("calibration.samples=2", result),
    "calibration.seq_len": ("calibration.seq_len=8", result),
    "calibration.batch_size": ("calibration.batch_size=1", memory),
    "calibration.bos": ("calibration.bos=always", result),
    "calibration.path": ("calibration.path={base}/other.txt", result),
    "sparsity.ratio": ("sparsity.ratio=0.7", zeros),
    "sparsity.group": ("sparsity.group=matrix", result),
    "sparsity.keep": ("sparsity.keep=1 sparsity.of=4", zeros),
    "sparsity.of": ("sparsity.keep=1 sparsity.of=8", zeros),
    "sparsity.allocation": ("sparsity.allocation=owl", zeros),
    "sparsity.layer_ratios": ("sparsity.layer_ratios=[0.1,0.2,0.3]", zeros),
    "allocation=owl.outlier_threshold": ("sparsity.allocation=owl sparsity.outlier_threshold=2", zeros),
    "allocation=owl.max_deviation": ("sparsity.allocation=owl sparsity.max_deviation=0.2", zeros),
    "allocation=alpha.deviation": ("sparsity.allocation=alpha sparsity.deviation=0.8", zeros),
    "allocation=alpha.bins": ("sparsity.allocation=alpha sparsity.bins=1", zeros),
    "evaluation.datasets": ("evaluation.datasets=[bundled] evaluation.path=null", measured_on),
    "evaluation.seq_len": ("evaluation.seq_len=8", measured_on),
    "evaluation.max_windows": ("evaluation.max_windows=1", measured_on),
    "evaluation.batch_size": ("evaluation.batch_size=1", memory),
    "evaluation.bos": ("evaluation.bos=always", result),
    "evaluation.path": ("evaluation.path={base}/other.txt", measured_on),
}
# by key: the test of its effect
TESTED = {
    "name": "tests/config/test_naming.py::test_different_values_have_different_names",
    "device": "tests/config/test_checks.py::test_a_device_that_is_not_there_is_refused",
    "offload": "tests/model/test_offload.py::test_only_the_block_at_work_is_on_the_device",
    "save_model": "tests/runs/test_verdict.py::test_a_finished_job_whose_model_is_saved_is_skipped",
    "push_to_hub": "tests/runs/test_pushing.py::test_a_run_sends_its_model_once_it_is_recorded",
    "push_private": "tests/runs/test_pushing.py::test_a_run_sends_its_model_once_it_is_recorded",
    "verbose": "tests/cli/test_run.py::test_a_verbose_run_prints_a_line_for_each_block",
    "rerun": "tests/runs/test_verdict.py::test_a_finished_job_is_run_where_that_is_asked_for",
    "verify_inputs": "tests/runs/test_inputs.py::"
    "test_a_change_that_keeps_size_and_time_is_found_where_inputs_are_verified",
    "cache": "tests/runs/test_dense_cache.py::test_a_perplexity_is_stored_once_and_reused",
    "plugins": "tests/test_extension.py::test_a_single_file_is_a_plugin",
    "model.path": "tests/runs/test_workbench.py::test_a_model_that_changed_on_disk_is_measured_again",
    "model.revision": "tests/config/test_unused.py::test_a_key_that_cant_act_is_refused",
    "model.trust_remote_code": "tests/model/test_refusals.py::test_a_model_with_code_of_its_own_needs_consent",
    "model.prune_routers": "tests/walk/test_classify.py::test_routers_are_pruned_where_asked_for",
    "calibration.min_expert_tokens": "tests/pruning/test_loop.py::"
    "test_experts_below_the_least_number_of_tokens_have_pooled_statistics",
    "sparsity.pattern": "tests/test_extension.py::test_the_experiment_of_a_plugin_uses_its_choices",
    "evaluation.name": "tests/config/test_checks.py::test_zero_shot_without_tasks_is_a_mistake",
    "evaluation.tasks": "tests/evaluation/test_zero_shot.py::test_a_group_and_its_tasks_are_in_the_record",
    "evaluation.metric": "tests/evaluation/test_zero_shot.py::test_the_chosen_metric_stands_for_the_tasks_that_have_it",
    "evaluation.num_fewshot": "tests/runs/test_dense_cache.py::"
    "test_dense_accuracies_are_measured_again_for_other_requests",
    "evaluation.limit": "tests/runs/test_summary.py::test_a_limited_task_counts_the_documents_that_were_asked",
    "evaluation.task_batch_size": "tests/config/test_unused.py::test_a_key_that_cant_act_is_refused",
    "evaluation.add_bos_token": "tests/evaluation/test_zero_shot.py::"
    "test_bos_and_truncated_requests_are_in_the_protocol",
    "evaluation.chat_template": "tests/evaluation/test_zero_shot.py::"
    "test_a_chat_template_is_used_where_it_is_asked_for",
    "calibration.field": "tests/data/test_text_files.py::test_a_named_column_is_read",
    "evaluation.fidelity": "tests/runs/test_fidelity.py::test_a_run_without_fidelity_keeps_nothing_for_it",
    "evaluation.field": "tests/data/test_text_files.py::test_a_column_of_plain_text_is_refused",
    "evaluation.trust_task_code": "tests/evaluation/test_task_code.py::test_a_task_that_runs_code_needs_the_switch",
    "checkpoint": "tests/runs/test_interrupted_pruning.py::test_a_run_that_was_asked_to_stop_goes_on",
    "refinement=dsnot.max_cycles": "tests/core/test_dsnot.py::test_no_row_makes_more_swaps_than_there_are_cycles",
    "refinement=dsnot.exclude": "tests/pruning/test_refined.py::test_matrices_that_are_excluded_keep_the_methods_mask",
    "refinement=dsnot.tokens": "tests/core/test_dsnot.py::test_the_threshold_is_for_so_many_tokens",
    "quantize.name": "tests/runs/test_quantized.py::"
    "test_dense_and_pruned_are_measured_with_the_weights_that_torchao_makes",
    "quantize.group_size": "tests/model/test_quantization.py::"
    "test_a_quantised_matrix_multiplies_as_the_definition_says",
    "tracking.mode": "tests/runs/test_tracking.py::test_another_try_is_finished_without_an_error",
    "tracking.project": "tests/runs/test_tracking.py::test_wandb_is_told_project_entity_group_and_type",
    "tracking.entity": "tests/runs/test_tracking.py::test_wandb_is_told_project_entity_group_and_type",
    "tracking.group": "tests/runs/test_tracking.py::test_wandb_is_told_project_entity_group_and_type",
    "tracking.job_type": "tests/runs/test_tracking.py::test_wandb_is_told_project_entity_group_and_type",
    "tracking.tags": "tests/runs/test_tracking.py::test_tags_and_notes_of_the_user_are_sent",
    "tracking.notes": "tests/runs/test_tracking.py::test_tags_and_notes_of_the_user_are_sent",
    "tracking.artifacts": "tests/runs/test_tracking.py::test_masks_and_models_are_uploaded_if_asked_for",
}
# by method or compensation and option: another value, beside values that let it act
OPTIONS: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "method=ria.power": ({}, {"power": 2.0}),
    "method=cvr.statistic_calibration": ({}, {"statistic_calibration": False}),
    "method=cvr.alpha": ({}, {"alpha": 5.0}),
    "method=cvr.epsilon": ({"alpha": 5.0}, {"alpha": 5.0, "epsilon": 1.0}),
    "method=cvr.activation": ({}, {"activation": "norm"}),
    "method=cvr.activation_power": ({}, {"activation_power": 3.0}),
    "method=sparsegpt.damping": ({}, {"damping": 1.0}),
    "method=sparsegpt.block_size": ({}, {"block_size": 4}),
    "refinement=swaps.max_swaps": ({}, {"max_swaps": 1}),
    "refinement=swaps.candidates": ({}, {"candidates": 1}),
    "refinement=swaps.min_gain": ({}, {"min_gain": 0.2}),
    "refinement=dsnot.threshold": ({}, {"threshold": 1e9}),
    "method=alps.damping": ({}, {"damping": 1.0}),
    "method=alps.rho": ({}, {"rho": 10.0}),
    "method=alps.rounds": ({}, {"rounds": 1}),
    "method=alps.tolerance": ({"rho": 0.001}, {"rho": 0.001, "tolerance": 0.9}),
    "method=alps.steps": ({}, {"steps": 0}),
    "method=admm.statistics": ({}, {"statistics": FittedTo.rows}),
    "method=admm.damping": ({}, {"damping": 1.0}),
    "method=admm.rho": ({}, {"rho": 10.0}),
    "method=admm.rounds": ({}, {"rounds": 5}),
    "method=admm.ramp": ({}, {"ramp": 1}),
    "method=admm.steps": ({}, {"steps": 0}),
    "method=admm.samples": ({"statistics": FittedTo.rows}, {"statistics": FittedTo.rows, "samples": 8}),
    "compensation=energy.columns": ({}, {"columns": False}),
    "compensation=energy.rows": ({}, {"rows": False}),
    "compensation=energy.rows_first": ({}, {"rows_first": True}),
    "compensation=energy.min_scale": ({}, {"min_scale": 1.2}),
    "compensation=energy.max_scale": ({}, {"max_scale": 1.01}),
    "compensation=energy.epsilon": ({}, {"epsilon": 0.5}),
    "compensation=moments.mean": ({}, {"mean": False}),
    "compensation=moments.scale": ({}, {"scale": False}),
    "compensation=moments.energy_first": ({}, {"energy_first": True}),
    "compensation=moments.groups": ({}, {"groups": 4}),
    "compensation=moments.shrinkage": ({"groups": 4}, {"groups": 4, "shrinkage": 3.0}),
    "compensation=moments.floor": ({}, {"floor": 1.0}),
    "compensation=moments.min_scale": ({}, {"min_scale": 1.3}),
    "compensation=moments.max_scale": ({}, {"max_scale": 0.9}),
    "compensation=moments.samples": ({}, {"samples": 8}),
    "compensation=moments.min_gain": ({}, {"min_gain": 0.999}),
    "compensation=least_squares.statistics": ({"samples": 64}, {"samples": 64, "statistics": FittedTo.rows}),
    "compensation=least_squares.steps": ({}, {"steps": 1}),
    "compensation=least_squares.damping": ({}, {"damping": (1.0,)}),
    "compensation=least_squares.samples": ({}, {"samples": 8}),
    "compensation=least_squares.min_gain": ({}, {"min_gain": 0.999}),
}


def all_keys() -> set[str]:
    """Every key of ours; options of choices by their choice."""
    keys = {f"{prefix}{item.name}" for prefix, cls in SECTIONS.items() for item in fields(cls)} - {"sparsity.options"}
    methods = [name for name in method_names() if method_origin(name).is_own]
    keys |= {f"method={name}.{item.name}" for name in methods for item in fields(options_class(name))}
    groups = {"compensation": COMPENSATIONS, "refinement": REFINEMENTS, "allocation": ALLOCATIONS}
    for group, registry in groups.items():
        own = [name for name in registry.names() if registry.is_own(name)]
        keys |= {f"{group}={name}.{option}" for name in own for option in option_names(registry.get(name))}
    return keys


def test_every_key_has_an_entry():
    assert {*CHANGED, *TESTED, *OPTIONS} == all_keys()


@pytest.mark.parametrize("key", TESTED)
def test_a_key_is_tested_elsewhere(key):
    file, _, name = TESTED[key].partition("::")
    assert re.search(rf"^def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A folder with two texts."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "own.txt").write_text(WORDS)
    (folder / "other.txt").write_text(WORDS[::-1])
    return folder


@pytest.fixture(scope="module")
def record_of(tiny_folder, texts, tmp_path_factory):
    """The record of a run with some overrides; runs share what they can."""
    bench, known = Workbench(holds_model=True), {}

    def record(overrides):
        if overrides not in known:
            own = [override.format(base=texts) for override in overrides.split()]
            config = tiny_job(
                tiny_folder,
                *("method=wanda", "compensation=none", "calibration=text", f"calibration.path={texts}/own.txt"),
                *("calibration.samples=4", "calibration.seq_len=16", "evaluation.datasets=[text]"),
                *(f"evaluation.path={texts}/own.txt", "evaluation.max_windows=4", "evaluation.seq_len=16", *own),
            )
            known[overrides] = run(config, tmp_path_factory.mktemp("run"), bench)
        return known[overrides]

    return record


@pytest.mark.parametrize("key", CHANGED)
def test_a_key_changes_the_record(key, record_of):
    overrides, part = CHANGED[key]
    *shared, _ = overrides.split() if key.startswith(("allocation", "gram")) else [""]
    assert part(record_of(overrides)) != part(record_of(" ".join(shared)))


def solved(key: str, values: dict[str, object]) -> torch.Tensor:
    """A pruned matrix, refined or compensated where the key is of such a choice."""
    group, _, name = key.partition(".")[0].partition("=")
    weight, inputs, _ = random_matrix(in_features=16, tokens=200)
    inputs = inputs * torch.linspace(0.2, 1, 16) + torch.linspace(1, 3, 16)
    statistics = InputStatistics(16, StatisticsKind.GRAM, torch.arange(200), dtype=torch.float64)
    statistics.update(inputs)
    method = get_method(name, **values) if group == "method" else get_method("magnitude")
    solution = method.solve(weight.clone(), statistics, Unstructured(0.5, Group.row))
    if group == "method":
        return solution.weight
    if group == "refinement":
        return REFINEMENTS.get(name)(**values).refine(weight, solution, statistics, Unstructured(0.5)).weight
    compensation = COMPENSATIONS.get(name)(**values)
    return compensation.apply(weight, solution.weight, solution.keep, statistics)[0]


@pytest.mark.parametrize("key", OPTIONS)
def test_an_option_changes_the_weight(key):
    before, after = OPTIONS[key]
    assert not torch.equal(solved(key, before), solved(key, after))
