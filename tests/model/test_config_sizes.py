"""Sizes in config.json that can't be meant are refused before anything of their size is made."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from statprune.errors import ModelError
from statprune.model.config_sizes import check_parameters, check_sizes
from statprune.model.loading import load_model
from statprune.model.stored import StoredCheckpoint, StoredTensor
from tests.helpers.checkpoints import change_config

STORED = StoredCheckpoint({f"layers.{index}": StoredTensor((48, 32), "F32", "a") for index in range(30)})


@pytest.mark.parametrize("offload", ["none", "disk"])
@pytest.mark.parametrize(
    ("key", "value"),
    [("num_hidden_layers", 10**9), ("hidden_size", 10**9), ("vocab_size", 10**12), ("head_dim", 10**6)],
)
def test_an_absurd_size_is_named_before_anything_is_allocated(tiny_folder, tmp_path, key, value, offload):
    folder = change_config(shutil.copytree(tiny_folder, tmp_path / "model"), **{key: value})
    with pytest.raises(ModelError, match=f"config.json has {key}={value}, but .*its checkpoint"):
        load_model(str(folder), offload=offload, folder=tmp_path / "new")


@pytest.mark.parametrize("key", ["num_hidden_layers", "hidden_size", "vocab_size", "n_head", "max_position_embeddings"])
@pytest.mark.parametrize("value", [0, -1, "32", 32.0, True, {"a": 1}])
def test_a_size_is_a_positive_whole_number(key, value):
    with pytest.raises(ModelError, match=f"config.json has {key}=") as caught:
        check_sizes({key: value}, STORED)
    assert repr(value) in str(caught.value)


def test_sizes_of_a_part_are_named_with_the_part():
    with pytest.raises(ModelError, match=r"has text_config\.hidden_size=-3, but"):
        check_sizes({"text_config": {"hidden_size": -3}}, STORED)


def test_absurd_sizes_are_refused_where_the_files_are_not_there_yet():
    with pytest.raises(ModelError, match="n_layer=1000000, but no model has so many"):
        check_sizes({"n_layer": 10**6}, None)


def test_sizes_that_some_models_have_are_accepted():
    usual = {"num_key_value_heads": None, "intermediate_size": [48, 48], "n_shared_experts": 0, "num_hidden_layers": 30}
    unused = {"intermediate_size": 11_008, "max_position_embeddings": 10_000_000}  # a mixture's class has its own
    check_sizes(usual, STORED)
    check_sizes(unused, STORED)
    check_sizes({"hidden_size": 4096, "vocab_size": 256_000}, None)


def test_a_model_far_larger_than_its_checkpoint_is_refused_by_its_keys():
    with torch.device("meta"):
        model = nn.Linear(40_000, 40_000)
    config = {"hidden_size": 40_000, "num_hidden_layers": 3}
    with pytest.raises(
        ModelError, match=r"1,600,040,000 values, and its checkpoint holds 46,080 .*hidden_size=40000\)"
    ):
        check_parameters(config, model, STORED)


def test_masks_of_absurdly_many_positions_are_refused():
    with torch.device("meta"):
        mask = torch.ones(10**6, 10**6)
    model = SimpleNamespace(parameters=lambda: [], buffers=lambda: [mask])
    with pytest.raises(ModelError, match="n_positions=1000000"):
        check_parameters({"n_positions": 10**6}, model, STORED)
