"""Values of pruned matrices are found in files that hold them under other names, joined or split."""

import pytest
import torch

from statprune import find_blocks
from statprune.model.pruned_parts import pruned_parts
from tests.helpers.families import tiny_model


def parts_of(family, chosen):
    model = tiny_model(family)
    block = find_blocks(model, torch.arange(32)[None])[1]
    return pruned_parts(model, block, [matrix for matrix in block.matrices if chosen(matrix.name)])


def test_half_of_a_joined_matrix_is_an_experts_own_tensor():
    parts = parts_of("MixtralConfig", lambda name: name == "mlp.experts.gate_up_proj[2]")
    experts = "model.layers.1.block_sparse_moe.experts"
    assert {name for name, part in parts.items() if part is True} == {
        f"{experts}.2.w1.weight",
        f"{experts}.2.w3.weight",
    }
    assert all(part is True or part is False for part in parts.values())
    assert parts[f"{experts}.2.w2.weight"] is False and parts["model.layers.1.input_layernorm.weight"] is False


@pytest.mark.parametrize("family", ["GptOssConfig", "Llama4TextConfig"])
def test_of_a_stack_that_files_hold_whole_the_experts_matrix_is_marked(family):
    parts = parts_of(family, lambda name: name.endswith("experts.down_proj[1]"))
    (name,) = [name for name, part in parts.items() if part is not False]
    assert name.endswith("experts.down_proj") and parts[name][1].all()
    assert int(parts[name].sum()) == parts[name][1].numel()
