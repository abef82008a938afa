"""GGUF models are converted once, and then open as they did, bit for bit, from a folder of the cache."""

import json
import logging
import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import gguf
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from statprune.errors import ModelError
from statprune.model import converted, loading
from statprune.model.converted import MANIFEST, Conversion
from statprune.model.loading import ModelSource, load_model, open_model
from statprune.model.tokenizer import open_tokenizer
from tests.helpers.gguf_files import write_gguf

TEXTS = ["the ant and the hen", " an", "", "<s>the</s>", "xyz  the"]
# of a configuration: where it was read and by which version, and the class's name, which a file does not hold
OF_A_FOLDER = ("_name_or_path", "transformers_version", "architectures")


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="module")
def filled(file, tmp_path_factory) -> Path:
    """A cache that holds the converted file."""
    cache = tmp_path_factory.mktemp("cache") / "models"
    open_model(ModelSource(str(file)), converted=cache)
    return cache


@pytest.fixture
def cache(filled, tmp_path) -> Path:
    """A copy of it that a test may damage."""
    return Path(shutil.copytree(filled, tmp_path / "models"))


@pytest.fixture
def direct(monkeypatch):
    """Which files are converted from here on."""
    seen = []
    own = loading._Opening._from_gguf
    monkeypatch.setattr(
        loading._Opening,
        "_from_gguf",
        lambda self, path: seen.append((path.name, self.source.dtype)) or own(self, path),
    )
    return seen


def check_same(one, other):
    """Weights, buffers, configuration and tokens are the same."""
    wanted, found = (dict(loaded.model.state_dict()) for loaded in (one, other))
    wanted |= dict(one.model.named_buffers())
    found |= dict(other.model.named_buffers())
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[name], found[name]) and wanted[name].dtype == found[name].dtype for name in wanted)
    configs = [loaded.model.config.to_dict() for loaded in (one, other)]
    assert {k: v for k, v in configs[0].items() if k not in OF_A_FOLDER} == {
        k: v for k, v in configs[1].items() if k not in OF_A_FOLDER
    }
    assert one.model.generation_config.to_dict() == other.model.generation_config.to_dict()
    check_same_tokens(one.tokenizer, other.tokenizer)
    # of a file in another precision transformers warns that it is slow
    assert replace(one.opened, warnings=[]) == replace(other.opened, warnings=[]) and one.source == other.source


def check_same_tokens(one, other):
    assert [one(text).input_ids for text in TEXTS] == [other(text).input_ids for text in TEXTS]
    assert [one.decode([token]) for token in range(len(one))] == [other.decode([token]) for token in range(len(other))]
    assert one.special_tokens_map == other.special_tokens_map and len(one) == len(other)


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16", "float16"])
def test_what_opens_is_the_file_bit_for_bit(dtype, file, filled, direct):
    source = ModelSource(str(file), dtype)
    found = open_model(source, converted=filled)
    assert direct == []
    check_same(open_model(source), found)


def test_the_first_time_opens_the_folder_too(file, tmp_path, direct):
    first = open_model(ModelSource(str(file), "bfloat16"), converted=tmp_path / "models")
    assert direct == [("tiny.gguf", "float32")]
    check_same(open_model(ModelSource(str(file), "bfloat16")), first)
    assert first.model.lm_head.weight is first.model.model.embed_tokens.weight
    assert not list((tmp_path / "models").glob("unfinished*"))


def test_a_tokenizer_alone_comes_from_the_folder_where_there_is_one(file, filled, tmp_path, monkeypatch):
    wanted = open_tokenizer(ModelSource(str(file)))
    check_same_tokens(wanted, open_tokenizer(ModelSource(str(file)), tmp_path / "models"))
    assert not (tmp_path / "models").exists()
    monkeypatch.setattr("transformers.modeling_gguf_pytorch_utils.load_gguf_checkpoint", None)
    check_same_tokens(wanted, open_tokenizer(ModelSource(str(file)), filled))


@pytest.mark.parametrize("damage", ["shortened", "changed", "removed", "added", "no manifest", "other manifest"])
def test_a_damaged_folder_is_made_anew(damage, file, cache, direct, caplog):
    folder = Conversion(file, cache).folder
    weights = folder / "model.safetensors"
    if damage == "shortened":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif damage == "changed":
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    elif damage == "removed":
        (folder / "tokenizer.json").unlink()
    elif damage == "added":
        (folder / "adapter_config.json").write_text("{}")
    elif damage == "no manifest":
        (folder / MANIFEST).write_text("{")
    else:
        (folder / MANIFEST).write_text(json.dumps({"of": {}, "files": {}, "opened": {}}))
    with caplog.at_level(logging.WARNING):
        open_model(ModelSource(str(file)), converted=cache)
    assert len(direct) == 1 and "is damaged" in caplog.text
    direct.clear()
    open_model(ModelSource(str(file)), converted=cache)
    assert direct == []


def test_another_file_under_the_same_name_is_converted_and_the_old_one_removed(tmp_path, direct):
    cache, path = tmp_path / "models", tmp_path / "own.gguf"
    first = open_model(ModelSource(str(write_gguf(path, seed=1))), converted=cache)
    old = Conversion(path, cache).folder
    path.unlink()
    second = open_model(ModelSource(str(write_gguf(path, seed=2))), converted=cache)
    assert len(direct) == 2 and not old.exists() and Conversion(path, cache).folder.exists()
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(first.model.state_dict()[name], second.model.state_dict()[name])


def test_another_version_converts_anew(file, cache, direct, monkeypatch):
    before = Conversion(file, cache).folder
    monkeypatch.setattr(converted, "version", lambda name: "99" if name == "gguf" else version(name))
    open_model(ModelSource(str(file)), converted=cache)
    assert len(direct) == 1 and not before.exists()


def test_two_files_are_kept_beside_each_other(file, cache, tmp_path):
    other = write_gguf(tmp_path / "other.gguf", seed=3)
    open_model(ModelSource(str(other)), converted=cache)
    assert Conversion(file, cache).opened() is not None and Conversion(other, cache).opened() is not None


def test_without_room_the_model_opens_all_the_same(file, tmp_path, direct, monkeypatch, caplog):
    monkeypatch.setattr(converted.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with caplog.at_level(logging.WARNING):
        found = open_model(ModelSource(str(file), "bfloat16"), converted=tmp_path / "models")
    assert "GiB left" in caplog.text and [dtype for _, dtype in direct] == ["float32", "bfloat16"]
    check_same(open_model(ModelSource(str(file), "bfloat16")), found)


def test_a_cache_that_cant_be_written_costs_a_line(file, tmp_path, caplog):
    (tmp_path / "models").write_text("a file")
    with caplog.at_level(logging.WARNING):
        found = open_model(ModelSource(str(file)), converted=tmp_path / "models")
    assert "could not be kept converted" in caplog.text
    check_same(open_model(ModelSource(str(file))), found)


def test_what_another_process_finished_first_is_used(file, tmp_path, filled, monkeypatch, caplog):
    cache = tmp_path / "models"
    own = converted.write_json

    def late(path, value):
        own(path, value)
        shutil.copytree(Conversion(file, filled).folder, Conversion(file, cache).folder)

    monkeypatch.setattr(converted, "write_json", late)
    with caplog.at_level(logging.WARNING):
        open_model(ModelSource(str(file)), converted=cache)
    assert caplog.text == "" and [path.name for path in cache.iterdir()] == [Conversion(file, cache).folder.name]


def test_a_folder_that_does_not_open_is_left_for_the_file(file, cache, direct, monkeypatch, caplog):
    own = loading._Opening._open

    def fails(self, location, options):
        if "gguf_file" not in options:
            raise loading.ModelError("it is broken")
        return own(self, location, options)

    monkeypatch.setattr(loading._Opening, "_open", fails)
    with caplog.at_level(logging.WARNING):
        open_model(ModelSource(str(file)), converted=cache)
    assert "it is broken" in caplog.text and len(direct) == 1 and not Conversion(file, cache).folder.exists()


@pytest.mark.parametrize(
    ("cache", "variable", "folder"),
    [("own", None, "own/models"), (None, None, None), ("own", "else/where", "else/where"), (None, "there", "there")],
)
def test_the_environment_or_the_cache_says_where_models_are_kept(cache, variable, folder, monkeypatch):
    monkeypatch.delenv(converted.VARIABLE, raising=False)
    if variable:
        monkeypatch.setenv(converted.VARIABLE, variable)
    assert converted.converted_models(cache) == (Path(folder) if folder else None)


def test_the_interface_keeps_a_model_where_the_environment_says(file, tmp_path, direct, monkeypatch):
    monkeypatch.delenv(converted.VARIABLE, raising=False)
    load_model(str(file))
    monkeypatch.setenv(converted.VARIABLE, str(tmp_path))
    load_model(str(file))
    load_model(str(file))
    assert len(direct) == 2 and Conversion(file, tmp_path).opened() is not None


def test_a_file_is_parsed_once_and_gives_what_transformers_gives(file, monkeypatch):
    parsed, reader = [], gguf.GGUFReader
    monkeypatch.setattr(gguf, "GGUFReader", lambda path: parsed.append(path) or reader(path))
    counting = gguf.GGUFReader
    own = open_model(ModelSource(str(file)))
    assert len(parsed) == 1 and gguf.GGUFReader is counting
    place = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    wanted = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32).state_dict()
    found = own.model.state_dict()
    assert wanted.keys() == found.keys() and all(torch.equal(value, found[name]) for name, value in wanted.items())
    tokenizer = AutoTokenizer.from_pretrained(**place)
    assert [own.tokenizer(text).input_ids for text in TEXTS] == [tokenizer(text).input_ids for text in TEXTS]


def test_a_file_that_cant_be_parsed_leaves_the_parser_as_it_was(tmp_path):
    reader, names = gguf.GGUFReader, gguf.get_tensor_name_map
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(ModelError):
        open_model(ModelSource(str(tmp_path / "broken.gguf")))
    assert gguf.GGUFReader is reader and gguf.get_tensor_name_map is names
