"""Models as they are opened: what comes with them, and what is refused."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from statprune.errors import ConfigError, ModelError
from statprune.model.loading import LoadedModel, ModelSource, load_model
from statprune.model.offload import Streamer
from tests.helpers.command import composed

OFFLOADS = ["none", "cpu", "disk"]


@pytest.fixture
def opened(request, tiny_folder, tmp_path):
    loaded = load_model(str(tiny_folder), offload=request.param, folder=tmp_path / "new")
    yield loaded
    loaded.close()


@pytest.mark.parametrize("opened", ["none"], indirect=True)
def test_a_model_opened_whole_has_no_streamer(opened):
    assert opened.streamer is None


@pytest.mark.parametrize("opened", ["cpu", "disk"], indirect=True)
def test_an_offloaded_model_comes_with_the_streamer_of_its_blocks(opened):
    assert isinstance(opened.streamer, Streamer)
    assert opened.streamer.modules == list(opened.model.model.layers)


@pytest.mark.parametrize("opened", OFFLOADS, indirect=True)
def test_an_opened_model_says_what_was_opened(opened, tiny_folder):
    assert opened.source == ModelSource(str(tiny_folder))


@pytest.mark.parametrize("opened", OFFLOADS, indirect=True)
def test_an_opened_model_comes_with_its_own_tokenizer_in_evaluation_mode(opened):
    assert isinstance(opened, LoadedModel) and not opened.model.training
    assert opened.tokenizer.bos_token == "<s>"


@pytest.mark.parametrize(
    ("opened", "by_accelerate"),
    # accelerate's hooks, once removed, leave the model's own forward on it
    [("none", set()), ("cpu", set()), ("disk", {"forward"})],
    indirect=["opened"],
)
def test_nothing_hangs_on_the_transformers_object(opened, by_accelerate, tiny_folder):
    plain = AutoModelForCausalLM.from_pretrained(tiny_folder)
    assert vars(opened.model).keys() == vars(plain).keys() | by_accelerate


@pytest.mark.parametrize("opened", OFFLOADS, indirect=True)
def test_an_opened_model_gives_the_logits_of_a_plain_one(opened, tiny_folder):
    ids = torch.arange(16)[None]
    with torch.no_grad():
        assert torch.equal(opened.model(ids).logits, AutoModelForCausalLM.from_pretrained(tiny_folder)(ids).logits)


def test_a_gguf_file_is_not_read_from_disk():
    with pytest.raises(ModelError, match="offload=disk reads safetensors"):
        load_model(offload="disk", folder=Path("nowhere"))


def test_a_configuration_that_reads_a_gguf_file_from_disk_says_what_to_do():
    with pytest.raises(ConfigError, match="decoded whole; save it once with method=dense save_model=true"):
        composed("offload=disk")
