"""What counts as a matrix of weights is what a run counts, for every family, and not what only looks like one."""

import pytest
import torch
from safetensors.torch import save_file

from statprune.evaluation.inspection import inspect_checkpoint
from statprune.evaluation.tensor_roles import is_weight_matrix
from statprune.model.coverage import sparsity
from statprune.walk.discover import find_blocks
from tests.helpers.families import FAMILIES, UNUSUAL, tiny_model
from tests.helpers.windows import random_windows

WINDOWS = random_windows(1, 16)
PLACE = "model.layers.0."


def inspected(folder, **tensors):
    """What is found in a checkpoint of these tensors of one block."""
    save_file({PLACE + name: tensor for name, tensor in tensors.items()}, folder / "model.safetensors")
    return inspect_checkpoint(str(folder))


@pytest.mark.parametrize("name", [*FAMILIES, *UNUSUAL])
def test_a_saved_model_has_the_sparsity_that_its_record_would_have(name, tmp_path):
    model = tiny_model(name)
    blocks = find_blocks(model, WINDOWS)
    for block in blocks:
        for matrix in block.matrices:
            matrix.stored[:, ::3] = 0
    counted = [tensor for block in blocks for tensor in (*block.matrices, *block.skipped)]
    model.save_pretrained(tmp_path)
    found = inspect_checkpoint(str(tmp_path))
    assert sum(own.facts.weights for own in found.matrices) == sum(own.weights for own in counted)
    assert found.sparsity == sparsity(blocks) > 0.2
    assert {own.block for own in found.matrices} == {block.index for block in blocks}


@pytest.mark.parametrize(
    ("name", "shape", "is_one"),
    [
        ("h.0.attn.c_attn.weight", (8, 24), True),
        ("layers.0.mlp.experts.gate_up_proj", (4, 8, 16), True),
        ("layers.0.mlp.experts.gate_up_proj", (1, 8, 16), True),
        ("layers.0.mlp.shared_expert_gate.weight", (1, 8), True),
        ("layers.0.mixer.conv1d.weight", (8, 1, 4), True),
        ("layers.0.mlp.experts.gate_up_proj_bias", (4, 16), False),
        ("blk.0.ffn_gate_exps.bias", (4, 16), False),
        ("layers.0.mlp.gate.e_score_correction", (1, 4), False),
        ("h.0.attn.bias", (1, 1, 8, 8), False),
        ("h.0.attn.causal_mask", (8, 8), False),
        ("layers.0.rotary_emb.cos_cached", (1, 1, 32, 8), False),
        ("layers.0.empty.weight", (0, 8), False),
        ("layers.0.norm.weight", (8,), False),
        ("layers.0.scalar", (), False),
    ],
)
def test_weight_matrices_are_told_by_name_and_shape(name, shape, is_one):
    assert is_weight_matrix(name, shape) is is_one


def test_the_masks_of_old_checkpoints_are_not_counted(tmp_path):
    mask = torch.tril(torch.ones(8, 8)).view(1, 1, 8, 8)
    found = inspected(tmp_path, **{"attn.bias": mask, "attn.c_attn.weight": torch.ones(4, 4)})
    assert [own.name for own in found.matrices] == [PLACE + "attn.c_attn.weight"] and found.sparsity == 0


def test_codes_and_their_scales_are_no_weights_and_are_named(tmp_path):
    codes = {"q.weight": torch.zeros(8, 8, dtype=torch.int8), "q.weight_scale": torch.zeros(8, 1)}
    blocks = {"r.qweight": torch.zeros(8, 2, dtype=torch.int32), "r.scales": torch.zeros(2, 8)}
    packed = {"p.weight": torch.zeros(4, 4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)}
    found = inspected(tmp_path, **codes, **blocks, **packed, **{"s.weight": torch.ones(4, 4)})
    assert [own.kind for own in found.matrices] == ["s"] and found.sparsity == 0
    assert [own.kind for own in found.coded_matrices] == ["p", "q", "r.qweight"]


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2])
def test_numbers_of_eight_bits_are_counted_and_their_scales_are_not(dtype, tmp_path):
    weight = torch.tensor([[0.0, 1.0, torch.nan, 0.0]] * 2).to(dtype)
    found = inspected(tmp_path, **{"q.weight": weight, "q.weight_scale_inv": torch.ones(2, 2)})
    (own,) = found.matrices
    assert (own.kind, own.facts.zeros, own.not_finite, found.coded_matrices) == ("q", 4, 2, ())


def test_a_scale_beside_plain_weights_is_a_matrix_like_others(tmp_path):
    assert len(inspected(tmp_path, **{"q.weight": torch.ones(4, 4), "q.scale": torch.ones(4, 4) * 2}).matrices) == 2


def test_packed_codes_are_compared_byte_by_byte(tmp_path):
    folders = [tmp_path / "own", tmp_path / "other"]
    for number, folder in enumerate(folders):
        folder.mkdir()
        codes = torch.full((4, 4), number, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
        inspected(folder, **{"q.weight": codes})
    same, changed = (inspect_checkpoint(str(folders[0]), str(other)).tensors[0] for other in folders)
    assert (same.is_changed, changed.is_changed, changed.change) == (False, True, None)
