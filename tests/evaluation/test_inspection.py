"""A checkpoint is inspected tensor by tensor, and what is wrong with it is found."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from statprune import NofM, prune
from statprune.core.sparsity_facts import HeldPattern
from statprune.errors import ModelError
from statprune.evaluation.inspection import inspect_checkpoint, place_of_tensor
from statprune.model.checkpoint_tensors import open_checkpoint
from statprune.model.source_tensors import tensor_readers
from tests.helpers.gguf_files import TOKENS, write_gguf
from tests.helpers.models import tiny_llama

UP = "model.layers.1.mlp.up_proj.weight"
NORM = "model.layers.0.input_layernorm.weight"


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspection") / "dense"
    tiny_llama().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspection") / "pruned"
    model = tiny_llama()
    windows = torch.randint(97, (4, 32), generator=torch.Generator().manual_seed(0))
    prune(model, "wanda", NofM(2, 4), windows=windows)
    model.save_pretrained(folder)
    return folder


def changed(source, folder, **tensors):
    """A copy of a checkpoint with other tensors; None removes one."""
    folder.mkdir()
    values = load_file(source / "model.safetensors")
    for name, value in tensors.items():
        values[name] = value
    save_file(
        {name: value.contiguous() for name, value in values.items() if value is not None}, folder / "model.safetensors"
    )
    (folder / "config.json").write_text((source / "config.json").read_text())
    return folder


def test_zeros_and_patterns_are_counted(pruned):
    found = inspect_checkpoint(str(pruned))
    values = load_file(pruned / "model.safetensors")
    assert {own.name for own in found.tensors} == values.keys()
    for own in found.tensors:
        assert own.shape == tuple(values[own.name].shape) and own.dtype == "float32"
        if own.facts is not None:
            assert own.facts.zeros == int((values[own.name] == 0).sum())
    assert len(found.matrices) == 3 * 7 and found.sparsity == 0.5
    assert all(HeldPattern(2, 4) in own.facts.along_rows for own in found.matrices)
    assert {own.block for own in found.matrices} == {0, 1, 2} and found.card_sparsity is None
    assert {own.name for own in found.tensors} - {own.name for own in found.matrices} >= {"lm_head.weight", NORM}


def test_a_single_weight_that_breaks_a_group_is_found(pruned, tmp_path):
    weight = load_file(pruned / "model.safetensors")[UP].clone()
    weight[tuple((weight == 0).nonzero()[7])] = 0.25
    found = inspect_checkpoint(str(changed(pruned, tmp_path / "broken", **{UP: weight})))
    broken = [own.name for own in found.matrices if HeldPattern(2, 4) not in own.facts.along_rows]
    assert broken == [UP] and found.sparsity < 0.5


def test_against_its_original_only_pruned_weights_differ(pruned, dense):
    found = inspect_checkpoint(str(pruned), str(dense))
    assert found.changed_elsewhere == () and found.not_compared == () and found.missing == ()
    for own in found.matrices:
        assert own.is_changed and own.change.pruned == own.facts.zeros
        assert own.change.updated == own.change.refilled == 0 and 0 < own.change.relative_change < 1
        assert own.change.relative_update == 0


def test_a_changed_norm_other_shapes_and_names_are_named(pruned, dense, tmp_path):
    values = {NORM: torch.full((32,), 2.0), "lm_head.weight": torch.ones(96, 32), UP: None, "extra": torch.ones(2)}
    found = inspect_checkpoint(str(changed(pruned, tmp_path / "odd", **values)), str(dense))
    assert [own.name for own in found.changed_elsewhere] == [NORM]
    assert {own.name: own.problem for own in found.not_compared} == {
        "lm_head.weight": "has the shape (97, 32) there",
        "extra": "is not there",
    }
    assert found.missing == (UP,)


def test_updated_and_refilled_weights_are_counted(pruned, dense, tmp_path):
    weight = load_file(pruned / "model.safetensors")[UP] * 1.5
    weight[0, 0] = 0.0
    original = load_file(dense / "model.safetensors")[UP].clone()
    original[1, :] = 0
    original[0, 0] = 1.0
    base = changed(dense, tmp_path / "base", **{UP: original})
    found = inspect_checkpoint(str(changed(pruned, tmp_path / "updated", **{UP: weight})), str(base))
    own = next(own for own in found.matrices if own.name == UP)
    assert own.change.refilled == int((weight[1] != 0).sum())
    assert own.change.updated == own.change.kept == int(((weight != 0) & (original != 0)).sum())


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("model.layers.12.self_attn.q_proj.weight", (12, "self_attn.q_proj")),
        ("transformer.h.3.mlp.c_fc.weight", (3, "mlp.c_fc")),
        ("model.decoder.layers.0.fc1.weight", (0, "fc1")),
        ("gpt_neox.layers.5.attention.query_key_value.weight", (5, "attention.query_key_value")),
        ("model.layers.1.mlp.experts.7.w1.weight", (1, "mlp.experts.w1")),
        ("model.layers.1.mlp.experts.gate_up_proj", (1, "mlp.experts.gate_up_proj")),
        ("blk.4.attn_q.weight", (4, "attn_q")),
        ("model.embed_tokens.weight", (None, "model.embed_tokens")),
        ("backbone.stages.2.mixer.in_proj.weight", (2, "mixer.in_proj")),
    ],
)
def test_a_tensors_block_and_kind_are_read_off_its_name(name, place):
    assert place_of_tensor(name) == place


def test_equal_tensors_are_named(dense, tmp_path):
    embeddings = load_file(dense / "model.safetensors")["model.embed_tokens.weight"]
    found = inspect_checkpoint(str(changed(dense, tmp_path / "twins", **{"lm_head.weight": embeddings.clone()})))
    assert {own.name: own.same_as for own in found.tensors if own.same_as} in (
        {"model.embed_tokens.weight": "lm_head.weight"},
        {"lm_head.weight": "model.embed_tokens.weight"},
    )


@pytest.mark.parametrize(("said", "is_true"), [("0.50000", True), ("0.49000", False), (None, None)])
def test_the_card_is_compared_with_what_is_counted(said, is_true, pruned, tmp_path):
    folder = changed(pruned, tmp_path / "card")
    if said:
        (folder / "README.md").write_text(f"| sparsity | 2:4; achieved {said} over all block matrices |")
    assert inspect_checkpoint(str(folder)).is_card_true is is_true


@pytest.mark.parametrize("is_zip", [True, False])  # False: as torch did before 1.6
def test_old_and_sharded_checkpoints_and_other_precisions_are_read(is_zip, tmp_path):
    model = tiny_llama().bfloat16()
    model.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    (tmp_path / "old").mkdir()
    torch.save(model.state_dict(), tmp_path / "old" / "pytorch_model.bin", _use_new_zipfile_serialization=is_zip)
    first, second = (inspect_checkpoint(str(tmp_path / name)) for name in ("sharded", "old"))
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    assert sorted(own.name for own in first.tensors) == sorted(own.name for own in second.tensors)
    assert {own.dtype for own in first.tensors} == {"bfloat16"}
    found = inspect_checkpoint(str(tmp_path / "sharded"), str(tmp_path / "old"))
    assert not any(own.is_changed for own in found.tensors)


def test_a_gguf_file_is_read_tensor_by_tensor(tmp_path):
    file = write_gguf(tmp_path / "tiny.gguf")
    found = inspect_checkpoint(str(file))
    shapes = {own.name: own.shape for own in found.tensors}
    assert shapes["token_embd.weight"] == (len(TOKENS), 32) and shapes["blk.1.ffn_up.weight"] == (64, 32)
    assert len(found.matrices) == 2 * 7 and found.bytes == file.stat().st_size


def test_one_tensor_at_a_time_is_in_memory(pruned, dense, monkeypatch):
    held, most = set(), 0

    def counted(path):
        def reading(name, read):
            def once():
                nonlocal most
                tensor = read()
                held.add(id(tensor))
                most = max(most, len([own for own in held]))
                import weakref

                weakref.finalize(tensor, held.discard, id(tensor))
                return tensor

            return once

        return {name: reading(name, read) for name, read in tensor_readers(path).items()}

    monkeypatch.setattr("statprune.model.checkpoint_tensors.tensor_readers", counted)
    inspect_checkpoint(str(pruned), str(dense))
    assert most == 2


def test_progress_is_told(dense):
    seen = []
    found = inspect_checkpoint(str(dense), progress=lambda done, count: seen.append((done, count)))
    assert seen == [(number, len(found.tensors)) for number in range(1, len(found.tensors) + 1)]


def test_a_dense_checkpoint_without_the_prefix_of_its_names_is_compared(dense, pruned, tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    tensors = load_file(dense / "model.safetensors")
    names = {name: name.removeprefix("model.") for name in tensors}
    save_file({names[name]: tensor for name, tensor in tensors.items()}, base / "model.safetensors")
    found, named = (inspect_checkpoint(str(pruned), str(against)) for against in (base, dense))
    assert found.tensors == named.tensors and not found.not_compared and not found.missing


def test_what_cant_be_read_ends_in_a_sentence(dense, tmp_path):
    (tmp_path / "empty").mkdir()
    short = changed(dense, tmp_path / "short") / "model.safetensors"
    short.write_bytes(short.read_bytes()[:-10])
    other = tmp_path / "other"
    other.mkdir()
    save_file({"x": torch.ones(2)}, other / "model.safetensors")
    index = tmp_path / "index"
    index.mkdir()
    (index / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "absent.safetensors"}}))
    cases = {
        tmp_path / "empty": "has no file of weights",
        tmp_path / "short": "is damaged or not whole",
        short: "is a single file",
        tmp_path / "nowhere": "can't be read",
        index: "absent.safetensors",
    }
    for path, message in cases.items():
        with pytest.raises(ModelError, match=message):
            open_checkpoint(str(path))
    with pytest.raises(ModelError, match="no tensor's name in common"):
        inspect_checkpoint(str(dense), str(other))
