"""Tensors of two checkpoints are told to be the same, also where a prefix stands before the names of one."""

import pytest

from statprune.model.tensor_names import counterparts

BASE = ["wte.weight", "h.0.attn.c_proj.weight", "h.1.attn.c_proj.weight", "ln_f.bias"]
WHOLE = [*(f"transformer.{name}" for name in BASE), "lm_head.weight"]


def test_a_prefix_that_one_of_both_has_makes_names_equal():
    assert counterparts(WHOLE, BASE) == dict(zip(WHOLE[:-1], BASE, strict=True))
    assert counterparts(BASE, WHOLE) == dict(zip(BASE, WHOLE[:-1], strict=True))


def test_equal_names_come_first():
    own, dense = ["model.norm.weight", "lm_head.weight"], ["norm.weight", "lm_head.weight", "head.weight"]
    assert counterparts(own, dense) == {"model.norm.weight": "norm.weight", "lm_head.weight": "lm_head.weight"}
    assert counterparts(["model.norm.weight"], ["model.norm.weight", "norm.weight"]) == {
        "model.norm.weight": "model.norm.weight"
    }


@pytest.mark.parametrize("own", [["model.layers.0.mlp.weight"], ["layers.1.mlp.weight"], []])
def test_a_blocks_number_is_no_prefix(own):
    assert counterparts(own, ["mlp.weight"]) == {}
