"""Compressed models come back bit for bit, are as small as they should be, and tell where they are damaged."""

import gc
import json
import re
import shutil
import tracemalloc
import weakref
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from statprune import NofM, load_compressed, load_model, prune
from statprune.errors import ModelError
from statprune.model import compressed, tensor_files
from statprune.model.checkpoint_tensors import open_checkpoint
from statprune.model.compressed import compress_model, decompress_model
from statprune.model.location import model_path_problem
from tests.helpers.families import tiny_model
from tests.helpers.models import tiny_llama, tiny_tokenizer
from tests.helpers.verbs import verb

UP = "model.layers.1.mlp.up_proj.weight"
WINDOWS = torch.randint(97, (4, 32), generator=torch.Generator().manual_seed(0))


def saved(folder, pattern=0.5, dtype=torch.bfloat16, **how) -> Path:
    model = tiny_llama().to(dtype)
    prune(model, "magnitude", pattern, windows=WINDOWS)
    model.save_pretrained(folder, **how)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def dense(tmp_path_factory) -> Path:
    return saved(tmp_path_factory.mktemp("compressed") / "dense")


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def there_and_back(dense, folder, compares=True):
    """Compress and decompress; every file is what it was."""
    sizes = compress_model(dense, folder / "small")
    assert decompress_model(folder / "small", folder / "back") == sizes
    assert not compares or files(folder / "back") == files(dense)
    return sizes


@pytest.mark.parametrize("pattern", [0.5, NofM(2, 4), 0.9], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_what_comes_back_has_the_same_bytes(tmp_path, dtype, pattern):
    sizes = there_and_back(saved(tmp_path / "dense", pattern, dtype), tmp_path)
    assert sizes.matrices == 3 * 7
    kept, width = 0.1 if pattern == 0.9 else 0.5, 8 * dtype.itemsize
    matrices = 3 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48)
    saved_bytes = matrices * dtype.itemsize - matrices * (kept + 1 / width) * dtype.itemsize
    assert sizes.dense - sizes.compressed == pytest.approx(saved_bytes, rel=0.05, abs=6000)  # headers are large here
    assert sizes.dense == (tmp_path / "dense" / "model.safetensors").stat().st_size


@pytest.mark.parametrize(("dtype", "share"), [(torch.bfloat16, 9 / 16), (torch.float32, 17 / 32)], ids=str)
def test_half_of_the_weights_take_half_of_the_bytes_and_a_bit_each(tmp_path, dtype, share):
    weight = torch.randn(256, 512).to(dtype)
    weight[~NofM(2, 4).select(weight.float().abs())] = 0
    (tmp_path / "dense").mkdir()
    save_file({"a.weight": weight}, tmp_path / "dense" / "model.safetensors")
    sizes = there_and_back(tmp_path / "dense", tmp_path)
    assert sizes.compressed / sizes.dense == pytest.approx(share, rel=2e-3)


def test_the_layout_is_the_documented_one(dense, tmp_path):
    compress_model(dense, tmp_path / "small")
    weight = load_file(dense / "model.safetensors")[UP]
    with safe_open(tmp_path / "small" / "compressed-00001.safetensors", "pt") as file:
        mask, values = file.get_tensor(f"{UP}.bitmask"), file.get_tensor(f"{UP}.values")
        assert "lm_head.weight" in file.keys() and UP not in file.keys()  # noqa: SIM118 - it is no dict
    kept = [weight.reshape(-1)[i] for i in range(weight.numel()) if mask[i // 8].item() >> (i % 8) & 1]
    assert torch.equal(torch.stack(kept), values) and values.dtype is torch.bfloat16
    assert len(mask) == -(-weight.numel() // 8)


def test_the_guides_code_reads_the_layout(dense, tmp_path, monkeypatch):
    compress_model(dense, tmp_path / "small")
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[2] / "docs" / "guide" / "sparse-checkpoints.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    names = {}
    exec(next(block for block in blocks if "unpackbits" in block), names)
    assert torch.equal(names["matrix"], load_file(dense / "model.safetensors")[names["name"]])


def test_shards_ties_and_what_is_not_sparse(tmp_path):
    there_and_back(saved(tmp_path / "dense", max_shard_size="20KB"), tmp_path)
    assert len(list((tmp_path / "small").glob("compressed-*.safetensors"))) > 1
    (tmp_path / "whole").mkdir()
    tiny_llama().save_pretrained(tmp_path / "whole" / "dense")
    assert there_and_back(tmp_path / "whole" / "dense", tmp_path / "whole").matrices == 0


def test_odd_tensors_come_back(tmp_path):
    (tmp_path / "dense").mkdir()
    odd = torch.zeros(3, 5)
    odd[0] = torch.tensor([-0.0, float("nan"), float("inf"), 1e-45, 0.0])
    tensors = {
        "odd": odd,
        "empty": torch.zeros(0, 4),
        "integers": torch.zeros(4, 4, dtype=torch.int64),
        "double": torch.zeros(7, 9, dtype=torch.float64),
        "scalar": torch.tensor(0.0),
        "vector": torch.zeros(100),
        "experts": torch.zeros(2, 3, 5, dtype=torch.float16),
    }
    save_file(tensors, tmp_path / "dense" / "model.safetensors", metadata={"who": "é"})
    assert there_and_back(tmp_path / "dense", tmp_path).matrices == 3


@pytest.mark.parametrize("name", ["GPT2Config", "MixtralConfig", "Gemma2Config", "MambaConfig"])
def test_families_come_back(name, tmp_path):
    model = tiny_model(name)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(torch.rand_like(parameter) < 0.5)
    model.save_pretrained(tmp_path / "dense")
    assert there_and_back(tmp_path / "dense", tmp_path).matrices > 0


def test_a_compressed_model_opens_and_its_dense_copy_goes_with_it(dense, tmp_path):
    compress_model(dense, tmp_path / "small")
    wanted, found = load_model(str(dense)), load_compressed(tmp_path / "small", dtype="float32")
    assert found.source.path == str(tmp_path / "small") and found.source.dtype == "float32"
    state = found.model.state_dict()
    assert all(torch.equal(value.float(), state[name]) for name, value in wanted.model.state_dict().items())
    assert wanted.tokenizer("the").input_ids == found.tokenizer("the").input_ids
    copy = Path(found.model.config._name_or_path)
    assert copy.is_dir()
    model = weakref.ref(found.model)
    del found, state
    gc.collect()
    assert model() is None and not copy.exists()


def test_a_piece_is_in_memory_at_a_time(tmp_path, monkeypatch):
    """Both ways a model of 12 MiB in one file is read and written in pieces; the peak is far below two of its files."""
    (tmp_path / "dense").mkdir()
    weights = {name: torch.randn(1024, 1024) for name in "abc"}
    for weight in weights.values():
        weight[torch.rand_like(weight) < 0.5] = 0
    save_file(weights | {"dense": torch.ones(1024)}, tmp_path / "dense" / "model.safetensors")
    for module in (compressed, tensor_files):
        monkeypatch.setattr(module, "PIECE", 2**14)
    monkeypatch.setattr(tensor_files.TensorFile.pieces, "__defaults__", (2**14,))
    tracemalloc.start()
    there_and_back(tmp_path / "dense", tmp_path, compares=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20 and files(tmp_path / "back") == files(tmp_path / "dense")


def test_pieces_of_any_length_give_the_same_file(dense, tmp_path, monkeypatch):
    compress_model(dense, tmp_path / "whole")
    monkeypatch.setattr(compressed, "PIECE", 24)
    monkeypatch.setattr(tensor_files.TensorFile.pieces, "__defaults__", (7,))
    compress_model(dense, tmp_path / "pieces")
    assert files(tmp_path / "pieces") == files(tmp_path / "whole")
    decompress_model(tmp_path / "pieces", tmp_path / "back")
    assert files(tmp_path / "back") == files(dense)


def test_tensors_are_read_one_by_one_as_the_dense_model_has_them(tmp_path):
    compress_model(saved(tmp_path / "dense", max_shard_size="20KB"), tmp_path / "small")
    wanted = open_checkpoint(str(tmp_path / "dense")).readers
    found = open_checkpoint(str(tmp_path / "small")).readers
    assert found.keys() == wanted.keys()
    assert all(
        torch.equal(found[name](), read()) and found[name]().dtype is read().dtype for name, read in wanted.items()
    )
    (tmp_path / "small" / "compressed-00001.safetensors").unlink()
    with pytest.raises(ModelError, match="is damaged or not whole"):
        open_checkpoint(str(tmp_path / "small"))


def test_a_compressed_model_of_the_hub_is_downloaded(dense, tmp_path, monkeypatch):
    compress_model(dense, tmp_path / "small")
    asked = []
    monkeypatch.setattr("statprune.model.hub_folder.hub_access", lambda: nullcontext(True))
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda path, **how: asked.append((path, how)) or str(tmp_path / "small")
    )
    found = load_compressed("owner/name", revision="v1", dtype="float32")
    assert found.source.path == "owner/name" and found.source.revision == "v1"
    assert asked == [("owner/name", {"revision": "v1", "allow_patterns": None, "local_files_only": False})]


def test_a_compressed_model_on_the_hub_is_named_where_a_dense_one_is_needed(monkeypatch):
    def fails(*_):
        raise OSError("no file named model.safetensors")

    monkeypatch.setattr("statprune.model.loading.hub_access", lambda: nullcontext(True))
    monkeypatch.setattr("statprune.model.loading._Opening._from_pretrained", fails)
    for is_there, told in (
        (True, "holds a compressed model; make it dense with statprune decompress owner/small"),
        (False, "no file named"),
    ):
        monkeypatch.setattr("huggingface_hub.file_exists", lambda *_, revision, own=is_there: own)
        with pytest.raises(ModelError, match=told):
            load_model("owner/small")


def test_a_disk_without_room_for_the_dense_copy_is_named(dense, tmp_path, monkeypatch):
    sizes = compress_model(dense, tmp_path / "small")
    usage = shutil.disk_usage(tmp_path)._replace(free=sizes.dense - 1)
    monkeypatch.setattr(compressed.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ModelError, match=r"back needs .* are free there; make room"):
        decompress_model(tmp_path / "small", tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("damage", ["shortened", "changed", "removed", "manifest", "version", "escape"])
def test_damage_is_named(dense, tmp_path, damage):
    small = tmp_path / "small"
    compress_model(dense, small)
    file, manifest = small / "compressed-00001.safetensors", small / "compressed.json"
    values = json.loads(manifest.read_text())
    if damage == "shortened":
        file.write_bytes(file.read_bytes()[:-8])
    elif damage == "changed":
        file.write_bytes(file.read_bytes()[:-1] + b"\x55")
    elif damage == "removed":
        file.unlink()
    elif damage == "manifest":
        manifest.write_text("{")
    elif damage == "version":
        manifest.write_text(json.dumps(values | {"version": 99}))
    else:
        manifest.write_text(json.dumps(values | {"shards": {"../x": values["shards"]["model.safetensors"]}}))
    wanted = "does not know; update" if damage == "version" else "is damaged or not whole"
    with pytest.raises(ModelError, match=wanted):
        decompress_model(small, tmp_path / "back")
    assert set(tmp_path.iterdir()) == {small}


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")], ids=["signal", "disk"])
def test_what_ends_early_leaves_nothing_and_the_same_call_then_succeeds(dense, tmp_path, monkeypatch, error):
    def fails(*_):
        raise error

    small, back = tmp_path / "small", tmp_path / "back"
    expected = pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else ModelError, match=r"^$|No space left")
    for act, source, target in ((compress_model, dense, small), (decompress_model, small, back)):
        with monkeypatch.context() as patch, expected:
            patch.setattr(compressed, "_copy_others", fails)
            act(source, target)
        assert target not in tmp_path.iterdir() and not [
            path for path in tmp_path.iterdir() if path.name.startswith(".")
        ]
        act(source, target)
    assert files(back) == files(dense)


def test_what_cant_be_compressed_ends_in_a_sentence(dense, tmp_path):
    small = tmp_path / "small"
    compress_model(dense, small)
    (tmp_path / "old").mkdir()
    torch.save({"a": torch.zeros(2, 2)}, tmp_path / "old" / "pytorch_model.bin")
    for source, target, message in (
        (small, tmp_path / "twice", "is compressed already"),
        (tmp_path / "old", tmp_path / "new", "no .safetensors to compress"),
        (dense, small, "exists already"),
        (tmp_path / "nowhere", tmp_path / "new", "no .safetensors to compress"),
        (dense, Path("/proc/new"), "/proc/new can't be written"),
        (dense, tmp_path / "old" / "pytorch_model.bin" / "new", "new can't be "),
    ):
        with pytest.raises(ModelError, match=message):
            compress_model(source, target)
    with pytest.raises(ModelError, match=r"holds no compressed\.json"):
        decompress_model(dense, tmp_path / "new")
    assert "statprune decompress" in model_path_problem(str(small))


def test_the_verbs_print_the_sizes(dense, tmp_path, capsys):
    assert verb("compress", dense, tmp_path / "small") == 0
    assert "21 matrices as bits and values" in capsys.readouterr().out
    assert verb("decompress", tmp_path / "small", tmp_path / "back") == 0
    assert files(tmp_path / "back") == files(dense)
    assert verb("compress", dense, tmp_path / "small") == 1
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize("compensation", [None, "energy", "least_squares"])
@pytest.mark.parametrize("method", ["wanda", "sparsegpt", "admm"])
def test_what_pruning_removes_has_no_bit_set(method, compensation):
    model = tiny_llama().bfloat16()
    prune(model, method, 0.5, windows=WINDOWS, compensation=compensation)
    weight = model.state_dict()[UP]
    assert int((weight.view(torch.uint16).to(torch.int32) == 0).sum()) == int((weight == 0).sum()) > 0
