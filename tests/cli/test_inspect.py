"""``statprune inspect``: tables of 80 columns, JSON, and a picture."""

import json

import pytest
import torch

from statprune import NofM, prune
from tests.helpers.models import tiny_llama
from tests.helpers.verbs import verb


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A dense model, and the same pruned with a card that is wrong."""
    folder = tmp_path_factory.mktemp("inspect")
    model = tiny_llama()
    model.save_pretrained(folder / "dense")
    windows = torch.randint(97, (4, 32), generator=torch.Generator().manual_seed(0))
    prune(model, "sparsegpt", NofM(2, 4), windows=windows)
    model.model.norm.weight.data += 1
    model.save_pretrained(folder / "pruned")
    (folder / "pruned" / "README.md").write_text("achieved 0.60000 over all block matrices")
    return folder / "dense", folder / "pruned"


def test_tables_tell_what_is_in_it_and_what_has_changed(folders, capsys):
    dense, pruned = folders
    assert verb("inspect", pruned, "--against", dense) == 0
    text = capsys.readouterr().out
    assert all(len(line) <= 80 or str(pruned.parent) in line for line in text.splitlines())
    joined = " ".join(text.split())
    assert "sparsity 0.50000 of" in joined and "21 matrices of 3 decoder blocks" in joined
    assert "The model card says sparsity 0.60000, but 0.50000 was counted." in joined
    assert "Outside of blocks' matrices 1 tensor is other than there: model.norm.weight." in joined
    assert text.count("2:4") >= 7 and "mlp.down_proj" in text


def test_json_has_every_tensor(folders, capsys):
    dense, pruned = folders
    assert verb("inspect", pruned, "--against", dense, "--json") == 0
    values = json.loads(capsys.readouterr().out)
    assert values["sparsity"] == 0.5 and values["card_is_true"] is False
    own = next(own for own in values["tensors"] if own["name"] == "model.layers.0.mlp.up_proj.weight")
    assert own["facts"]["along_rows"] == ["2:4"] and own["change"]["updated"] > 0 and own["block"] == 0


def test_a_dense_model_says_so(folders, capsys):
    assert verb("inspect", folders[0]) == 0
    text = capsys.readouterr().out
    assert "sparsity 0.00000 of" in text and "2:4" not in text


@pytest.mark.parametrize("against", [False, True])
def test_a_picture_is_drawn(folders, tmp_path, capsys, against):
    dense, pruned = folders
    more = ["--against", dense] if against else []
    assert verb("inspect", pruned, *more, "--picture", tmp_path / "own") == 0
    assert sorted(path.name for path in (tmp_path / "own").iterdir()) == ["inspection.pdf", "inspection.png"]
    assert "inspection.png" in capsys.readouterr().err


def test_what_is_no_checkpoint_ends_in_a_sentence(tmp_path, capsys):
    assert verb("inspect", tmp_path) == 1
    assert "has no file of weights" in capsys.readouterr().err
