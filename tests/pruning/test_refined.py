"""Which matrices a refinement leaves alone, and what a bias would leave of a matrix's output error."""

import pytest
import torch

from statprune.core.dsnot import DSnoT
from statprune.core.methods import get_method
from statprune.core.patterns import Unstructured
from statprune.errors import ModelError
from statprune.pruning.loop import prune
from statprune.pruning.spec import Propagation, PruneSpec
from tests.helpers.models import tiny_llama
from tests.helpers.windows import random_windows

WINDOWS = random_windows(4, 32)


def pruned(method="wanda", refinement=None, propagation=Propagation.dense):
    model = tiny_llama()
    spec = PruneSpec(get_method(method), Unstructured(0.5), propagation=propagation, refinement=refinement)
    return model, prune(model, WINDOWS, spec).matrices


def test_matrices_that_are_excluded_keep_the_methods_mask():
    (plain, _), (partly, reports), (refined, _) = (
        pruned(refinement=own) for own in (None, DSnoT(exclude=("mlp",)), DSnoT())
    )
    changed = set()
    for name, weight in partly.named_parameters():
        is_excluded = ".mlp." in name
        assert torch.equal(weight, (plain if is_excluded else refined).get_parameter(name)), name
        if not torch.equal(weight, plain.get_parameter(name)):
            changed.add(name)
    assert changed
    assert [report.name for report in reports if "swaps" not in report.diagnostics] == [
        report.name for report in reports if "mlp" in report.name
    ]


def test_what_is_excluded_has_to_be_there_before_anything_is_pruned():
    model = tiny_llama()
    dense = {name: weight.clone() for name, weight in model.named_parameters()}
    spec = PruneSpec(get_method("wanda"), Unstructured(0.5), refinement=DSnoT(exclude=("mlp", "nowhere")))
    with pytest.raises(
        ModelError, match=r"refinement\.exclude: nowhere is found in no pruned matrix's name; names are"
    ):
        prune(model, WINDOWS, spec)
    assert all(torch.equal(weight, dense[name]) for name, weight in model.named_parameters())


def inputs_of(model, name):
    """What a linear module is fed with all windows, (tokens, in_features), float64."""
    seen = []
    hook = model.get_submodule(name).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        model(WINDOWS)
    hook.remove()
    return torch.cat([rows.flatten(0, 1) for rows in seen]).double()


@pytest.mark.parametrize("method", ["stade", "wanda", "sparsegpt"])
def test_every_matrix_reports_what_a_bias_would_leave_of_its_error(method):
    model, reports = pruned(method)
    dense = tiny_llama()
    for report in reports:
        name = f"model.layers.{report.block}.{report.name}"
        rows, weight = inputs_of(dense, name), dense.get_submodule(name).weight.double()
        lost = weight - model.get_submodule(name).weight.double()
        left = ((rows - rows.mean(0)) @ lost.T).norm() / (rows @ weight.T).norm()
        assert report.diagnostics["bias_output_error"] == pytest.approx(left.item(), rel=1e-3)


def test_without_means_nothing_is_said_of_a_bias():
    _, reports = pruned("magnitude")
    assert not any("bias_output_error" in report.diagnostics for report in reports)
    assert all(report.relative_output_error is not None for report in reports)
