"""An edited or damaged compressed.json: a sentence that names the file and the field, or the very same model."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from statprune.errors import ModelError
from statprune.model.compressed import check_compressed, compress_model, compressed_readers, decompress_model
from statprune.model.manifest import read_manifest
from statprune.model.tensor_files import TensorFile

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
REMOVED = object()
Place = tuple[Any, ...]  # keys that lead to a value; "header" leads into the text, which is JSON itself


@pytest.fixture(scope="module")
def dense(tmp_path_factory) -> Path:
    """Two shards with an index; of each a matrix is sparse, and one tensor is not."""
    folder = tmp_path_factory.mktemp("manifest") / "dense"
    folder.mkdir()
    tensors = {name: torch.eye(8) for name in ("a.weight", "b.weight")} | {"a.norm": torch.ones(8)}
    tensors["b.codes"] = torch.arange(4)
    files = {FIRST: ("a.norm", "a.weight"), SECOND: ("b.codes", "b.weight")}
    for file, names in files.items():
        save_file({name: tensors[name] for name in names}, folder / file)
    index = {"weight_map": {name: file for file, names in files.items() for name in names}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="module")
def small(dense) -> Path:
    compress_model(dense, dense.parent / "small")
    return dense.parent / "small"


def opened(path: Path) -> Any:
    """compressed.json with its headers as objects."""
    values = json.loads(path.read_text())
    for shard in values["shards"].values():
        shard["header"] = json.loads(shard["header"])
    return values


def written(values: Any, path: Path) -> None:
    """The same with headers as texts, as far as they are still there."""
    shards = values.get("shards") if isinstance(values, dict) else None
    for shard in shards.values() if isinstance(shards, dict) else ():
        if isinstance(shard, dict) and isinstance(shard.get("header"), dict):
            shard["header"] = json.dumps(shard["header"], separators=(",", ":"))
    path.write_text(json.dumps(values))


def places(values: Any, before: Place = ()) -> Iterator[Place]:
    yield before
    parts = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in parts:
        yield from places(value, (*before, key))


def edited(values: Any, place: Place, value: Any) -> Any:
    if not place:
        return None if value is REMOVED else value
    owner = values
    for key in place[:-1]:
        owner = owner[key]
    if value is REMOVED:
        del owner[place[-1]]
    else:
        owner[place[-1]] = value
    return values


def copied(small: Path, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return shutil.copytree(small, folder)


NUMBERS = st.sampled_from([-1, 0, 1, 2, 4, 8, 64, 256, 10**30, 1e400, 0.5])
NAMES = st.sampled_from(
    ["", ".", "../x", "a.weight", "a.weight.bitmask", "F16", "I32", "U8", "x.safetensors", "\ud800"]
)
TEXTS = NAMES | st.sampled_from(
    ["compressed-00001.safetensors", "compressed-00002.safetensors", FIRST, "{", "[" * 9999]
)
PLAIN = st.none() | st.booleans() | NUMBERS | TEXTS | st.text(max_size=3)
ANY = st.recursive(PLAIN, lambda own: st.lists(own, max_size=3) | st.dictionaries(TEXTS, own, max_size=3), max_leaves=4)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_edit_gives_the_same_model_or_a_sentence(data, dense, small, tmp_path):
    values = opened(small / "compressed.json")
    every = list(places(values))
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.sampled_from([own for own in places(values) if own in every]))
        values = edited(values, place, data.draw(st.just(REMOVED) | ANY))
    folder, back = copied(small, tmp_path / "small"), tmp_path / "back"
    written(values, folder / "compressed.json")
    shutil.rmtree(back, ignore_errors=True)
    for act in (check_compressed, lambda own: decompress_model(own, back), lambda own: _same_values(own, dense)):
        try:
            act(folder)
        except ModelError as error:
            assert str(folder) in str(error) or "compressed in a form" in str(error)
    if back.exists():
        assert {own.name: own.read_bytes() for own in back.iterdir()} == {
            own.name: own.read_bytes() for own in dense.iterdir()
        }


def _same_values(folder: Path, dense: Path) -> None:
    """Read all tensors one by one; a matrix's shape is held against its checksum only where all of it is read."""
    wanted = load_file(dense / FIRST) | load_file(dense / SECOND)
    readers = compressed_readers(folder)
    assert readers.keys() == wanted.keys()
    assert all(torch.equal(read().reshape(-1), wanted[name].reshape(-1)) for name, read in readers.items())


HEADER = ("shards", FIRST, "header")
EDITS = [
    ((), [], "compressed.json is damaged or not whole (it is no object)"),
    (("version",), REMOVED, "(version is missing)"),
    (("shards",), {}, "(shards names no files)"),
    (("shards",), [3], "(shards is no object)"),
    (("shards", FIRST), REMOVED, "(it does not name compressed-00001.safetensors, which is beside it)"),
    (("shards", FIRST), 5, f"({FIRST}: it is no object)"),
    (("shards", "../x.safetensors"), {}, "(../x.safetensors: this key of shards is no name of a .safetensors file)"),
    (("shards", FIRST, "file"), REMOVED, f"({FIRST}: file is missing)"),
    (("shards", FIRST, "file"), 5, f"({FIRST}: file is no text)"),
    (("shards", FIRST, "file"), "../x", f'({FIRST}: file is "../x", which is no name of a .safetensors file)'),
    (("shards", FIRST, "file"), "x.safetensors", "x.safetensors is damaged or not whole (it is not there)"),
    (("shards", FIRST, "sha256"), REMOVED, f"({FIRST}: sha256 is missing)"),
    (("shards", FIRST, "sha256"), "0", f"({FIRST} made from it does not have the sha256 that compressed.json tells)"),
    (("shards", FIRST, "matrices"), 5, f"({FIRST}: matrices is missing or no list of tensors' names)"),
    (("shards", FIRST, "matrices"), ["x"], f"({FIRST}: matrices names x, which header does not have)"),
    (("shards", FIRST, "matrices"), [], "(a.weight is not there, of which compressed.json tells)"),
    (("shards", FIRST, "matrices"), 2 * ["a.weight"], f"({FIRST}: matrices names a tensor twice)"),
    (HEADER, "{", f"({FIRST}: header can't be used: Expecting property name"),
    ((*HEADER, "a.norm"), REMOVED, "header can't be used: data_offsets of a.weight do not begin where"),
    ((*HEADER, "a.norm", "shape"), "8", "a.norm has no shape of whole numbers"),
    ((*HEADER, "a.norm", "dtype"), "I32", f"(a.norm is not what the header of {FIRST} in compressed.json says"),
    ((*HEADER, "a.norm", "data_offsets"), [0], "a.norm has no data_offsets of its first byte"),
    ((*HEADER, "a.weight", "dtype"), "I4", "its dtype is I4, of which no matrix is stored as bits and values"),
    ((*HEADER, "a.weight", "shape"), [4, 4], "its shape and its bytes differ"),
]


@pytest.mark.parametrize(("place", "value", "sentence"), EDITS, ids=[own[2][-40:] for own in EDITS])
def test_the_sentence_names_the_file_and_the_field(place, value, sentence, small, tmp_path):
    folder = copied(small, tmp_path / "small")
    written(edited(opened(folder / "compressed.json"), place, value), folder / "compressed.json")
    with pytest.raises(ModelError) as caught:
        check_compressed(folder)
    assert sentence in str(caught.value) and str(caught.value).startswith(f"{folder}/")
    with pytest.raises(ModelError):
        decompress_model(folder, tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    "edit", [{FIRST: "other.safetensors"}, {FIRST: SECOND, SECOND: FIRST}], ids=["other", "swapped"]
)
def test_a_dense_file_of_another_name_is_told_by_the_index(edit, small, tmp_path):
    folder = copied(small, tmp_path / "small")
    values = json.loads((folder / "compressed.json").read_text())
    values["shards"] = {edit.get(name, name): shard for name, shard in values["shards"].items()}
    (folder / "compressed.json").write_text(json.dumps(values))
    with pytest.raises(ModelError, match=r"shards has no a\.norm.* where model\.safetensors\.index\.json names it"):
        read_manifest(folder)
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(ModelError, match=r"shards does not name model\.safetensors, and no .* is beside it"):
        read_manifest(folder)


def test_a_compressed_file_that_is_cut_or_has_more_tensors_is_named_before_anything_is_written(small, tmp_path):
    folder = copied(small, tmp_path / "small")
    path = folder / "compressed-00001.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ModelError, match=r"compressed-00001.* \(it has [\d,]+ bytes, and its header tells of"):
        read_manifest(folder)
    save_file(load_file(small / path.name) | {"more": torch.ones(1)}, path)
    with pytest.raises(ModelError, match=r"compressed-00001.* \(more is not of model-00001"):
        read_manifest(folder)


def test_bits_that_mark_fewer_weights_than_there_are_values_are_told(small, tmp_path):
    folder = copied(small, tmp_path / "small")
    path = folder / "compressed-00001.safetensors"
    with TensorFile(path) as file:
        start = path.stat().st_size - sum(own.size for own in file.places.values())
        first = start + file.places["a.weight.bitmask"].begin
    data = bytearray(path.read_bytes())
    data[first] = 0
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"a\.weight\.values has other weights than its bits mark"):
        compressed_readers(folder)["a.weight"]()
