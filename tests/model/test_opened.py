"""A model is only opened where it is the one that its checkpoint holds."""

import shutil
import warnings

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)
from transformers.utils import logging as transformers_logging

from statprune.api.arguments import opened_model
from statprune.errors import ModelError
from statprune.model.loading import LoadedModel, load_model
from statprune.model.opened import LoadingInfo, check_loaded, noticed
from tests.helpers.checkpoints import change_config, change_weights
from tests.helpers.families import tiny_model
from tests.helpers.loading import saved
from tests.helpers.models import tiny_llama

UP = "model.layers.1.mlp.up_proj.weight"
OFFLOADS = pytest.mark.parametrize("offload", ["none", "cpu", "disk"])


@pytest.fixture
def folder(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder, tmp_path / "model")


@pytest.fixture
def opened(tmp_path):
    """Opens a folder; what it opened is closed at the end."""
    models = []

    def open_folder(folder, offload="none") -> LoadedModel:
        models.append(load_model(str(folder), offload=offload, folder=tmp_path / "new"))
        return models[-1]

    yield open_folder
    for loaded in models:
        loaded.close()


def tied_llama() -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(**(tiny_llama().config.to_dict() | {"tie_word_embeddings": True})))


@OFFLOADS
def test_a_missing_tensor_is_named(folder, opened, offload):
    change_weights(folder, lambda tensors: tensors.pop(UP))
    with pytest.raises(
        ModelError, match=rf"checkpoint lacks 1 of the model's tensors \({UP}\), which would be filled at"
    ):
        opened(folder, offload)


@OFFLOADS
def test_a_wrong_shape_is_named_with_both_shapes(folder, opened, offload):
    change_weights(folder, lambda tensors: tensors.update({UP: tensors[UP][:40]}))
    both = rf"{UP} is \(40, 32\) in the checkpoint and \(48, 32\) in the model"
    with pytest.raises(ModelError, match=both):
        opened(folder, offload)


@OFFLOADS
def test_a_config_with_fewer_layers_loses_none_of_the_file(folder, opened, offload):
    change_config(folder, num_hidden_layers=2)
    with pytest.raises(
        ModelError, match=r"no place for 9 of the checkpoint's tensors \(model\.layers\.2\..* and 6 more"
    ):
        opened(folder, offload)


@OFFLOADS
def test_a_config_with_more_layers_is_refused(folder, opened, offload):
    change_config(folder, num_hidden_layers=5)
    with pytest.raises(ModelError, match=r"lacks 18 of the model's tensors \(model\.layers\.3\."):
        opened(folder, offload)


@OFFLOADS
def test_an_encoder_decoder_is_not_opened_as_its_decoder(opened, tmp_path, offload):
    sizes = {f"{part}_{name}": size for part in ("encoder", "decoder") for name, size in SIZES.items()}
    model = BartForConditionalGeneration(BartConfig(vocab_size=97, d_model=32, max_position_embeddings=64, **sizes))
    with pytest.raises(ModelError, match=r"fit BartForCausalLM \(config\.json says BartForCond.*model\.encoder\."):
        opened(saved(model, tmp_path / "bart"), offload)


SIZES = {"layers": 2, "attention_heads": 4, "ffn_dim": 48}


@pytest.mark.parametrize("tied", [False, True])
def test_a_reward_model_is_not_opened_as_a_language_model(opened, tmp_path, tied):
    config = (tied_llama() if tied else tiny_llama()).config
    with pytest.raises(ModelError, match=r"config\.json says LlamaForSequenceClassification.*score\.weight"):
        opened(saved(LlamaForSequenceClassification(config), tmp_path / "reward"))


@OFFLOADS
def test_weights_under_another_tools_names_are_refused(folder, opened, offload):
    def quantise(tensors):
        base = UP.removesuffix("weight")
        tensors[f"{base}qweight"] = tensors.pop(UP).to(torch.int32)
        tensors[f"{base}scales"] = torch.ones(48)

    with pytest.raises(
        ModelError, match=r"up_proj\.qweight, .*up_proj\.scales\), which look quantised by another tool"
    ):
        opened(change_weights(folder, quantise), offload)


@pytest.mark.parametrize(("dtype", "name"), [(torch.int8, "I8"), (torch.float8_e4m3fn, "F8_E4M3")])
def test_codes_under_a_weights_own_name_are_refused(folder, opened, dtype, name):
    change_weights(folder, lambda tensors: tensors.update({UP: tensors[UP].to(dtype)}))
    with pytest.raises(ModelError, match=rf"weights are stored as {name}, without what decodes them \({UP}\)"):
        opened(folder)


@pytest.mark.parametrize("offload", ["none", "disk"])
def test_an_expert_that_the_checkpoint_lacks_is_told(opened, tmp_path, offload):
    folder = saved(tiny_model("MixtralConfig"), tmp_path / "mixture")

    def drop(tensors):
        del tensors[next(name for name in sorted(tensors) if "experts.2" in name)]

    with pytest.raises(ModelError, match=r"does not fit MixtralForCausalLM: .*model\.layers\.0\.mlp\.experts\."):
        opened(change_weights(folder, drop), offload)


def test_an_old_pickled_checkpoint_is_checked_as_well(folder, opened):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    opened(folder)
    del tensors[UP]
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=rf"lacks 1 of the model's tensors \({UP}\)"):
        opened(folder)


def test_nothing_is_left_on_disk_of_a_model_that_is_refused(folder, opened, tmp_path):
    change_weights(folder, lambda tensors: tensors.update({UP: tensors[UP][:40]}))
    with pytest.raises(ModelError):
        opened(folder, "disk")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@OFFLOADS
def test_a_tied_head_need_not_be_in_the_checkpoint(opened, tmp_path, offload):
    loaded = opened(saved(tied_llama(), tmp_path / "tied"), offload)
    assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight


@pytest.mark.parametrize("offload", ["none", "disk"])
def test_tensors_that_the_class_ignores_or_computes_are_counted(opened, tmp_path, offload):
    folder = saved(tiny_model("GPT2Config"), tmp_path / "gpt2")
    mask = {"transformer.h.0.attn.bias": torch.ones(1, 1, 8, 8), "transformer.h.0.attn.masked_bias": torch.tensor(-1e4)}
    loaded = opened(change_weights(folder, lambda tensors: tensors.update(mask)), offload)
    assert (loaded.opened.ignored_tensors, loaded.opened.ignored) == (2, sorted(mask))


def test_frequencies_that_old_checkpoints_stored_are_counted(folder, opened):
    change_weights(
        folder, lambda tensors: tensors.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    )
    assert opened(folder).opened.ignored_tensors == 1


def test_what_transformers_warns_of_is_kept_each_time_though_it_was_quieted(opened, tmp_path):
    folder = saved(tied_llama(), tmp_path / "tied")
    change_weights(folder, lambda tensors: tensors.update({"lm_head.weight": torch.ones(97, 32)}))
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        for _ in range(2):
            (warning,) = opened(folder).opened.warnings
            assert "we will NOT tie them" in warning
        assert transformers_logging.get_verbosity() == transformers_logging.ERROR
    finally:
        transformers_logging.set_verbosity(verbosity)


def test_pythons_own_warnings_are_kept_and_shown():
    with pytest.warns(UserWarning, match="twice"), noticed() as found:
        warnings.warn("it counts twice", stacklevel=1)
        warnings.warn("it counts twice", stacklevel=1)
        warnings.warn("an old name", FutureWarning, stacklevel=1)
    assert found == ["it counts twice"]


def test_a_model_that_a_caller_gave_an_adapter_is_refused():
    model = tiny_llama()
    model.model.layers[0].mlp.up_proj.lora_A = torch.nn.Linear(32, 2)
    with pytest.raises(ModelError, match=r"has an adapter \(.*lora_A.*merge_and_unload"):
        opened_model(model, "prune")


def test_a_model_that_a_caller_quantised_is_refused():
    model = tiny_llama()
    model.model.layers[0].mlp.up_proj.weight = torch.nn.Parameter(torch.zeros(4, 4, dtype=torch.uint8), False)
    with pytest.raises(ModelError, match=r"were quantised \(model\.layers\.0\.mlp\.up_proj\.weight"):
        opened_model(model, "prune")


@pytest.mark.parametrize("config", ["vision_config", None])
def test_the_language_model_of_a_multimodal_checkpoint_is_opened_and_the_rest_counted(config):
    model, rest = tiny_llama(), {"vision_model.layers.0.weight", "projector.weight"}
    found = LoadingInfo("Llama", unexpected=set(rest))
    if config is None:
        with pytest.raises(ModelError, match="no place for 2 of the checkpoint's tensors"):
            check_loaded(found, None, {}, model)
        return
    parts = {"text_config": {}, config: {}}
    assert check_loaded(found, None, parts, model) == sorted(rest)
    found.unexpected.add("model.layers.9.mlp.up_proj.weight")
    with pytest.raises(ModelError, match=r"no place for 1 of the checkpoint's tensors \(model\.layers\.9"):
        check_loaded(found, None, parts, model)
