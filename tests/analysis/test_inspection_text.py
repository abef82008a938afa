"""What is told of a checkpoint: patterns that all matrices hold, means of what was compared, what is left out."""

import math

import pytest
import torch
from safetensors.torch import save_file

from statprune import NofM
from statprune.analysis.inspection_figure import inspection_figure
from statprune.analysis.inspection_text import findings, print_inspection
from statprune.evaluation.inspection import inspect_checkpoint

Q = "model.layers.{}.q.weight"
NORM = "model.layers.0.input_layernorm.weight"
HEAD = "model.embed_tokens.weight"


def matrix(seed=0, keep=None, of=4, rows=32):
    weight = torch.randn(rows, 64, generator=torch.Generator().manual_seed(seed))
    return weight * NofM(keep, of).select(weight.abs()) if keep else weight


def saved(folder, *matrices, **others):
    """A checkpoint with these matrices, one in each block."""
    folder.mkdir()
    tensors = {Q.format(number): weight.contiguous() for number, weight in enumerate(matrices)}
    save_file(tensors | others, folder / "model.safetensors")
    return folder


def row(capsys, inspection, name="q"):
    """The last two cells, and the N:M cell, of a row of the tables."""
    print_inspection(inspection)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.split()[:1] == [name])
    return line.split()


def dead(weight, step=2):
    weight = weight.clone()
    weight[::step] = 0
    return weight


@pytest.mark.parametrize(
    ("matrices", "shown"),
    [
        ([matrix(0, 2), matrix(1, 2), torch.zeros(32, 64)], "2:4"),
        ([matrix(0, 2), matrix(1, 2), matrix(2, 1)], "2:4"),
        ([matrix(0, 2), *(matrix(seed, 1) for seed in range(5))], "2:4"),
        ([matrix(0, 4, 8), matrix(1, 2)], "4:8"),
        ([matrix(0, 3, 8), matrix(1, 2)], "4:8"),
        ([dead(matrix(0, 2)), dead(matrix(1, 2), 4)], "2:4"),
        ([matrix(0, 2), matrix(1)], "none"),
        ([torch.zeros(32, 64)], "none"),
    ],
)
def test_the_tightest_pattern_that_all_matrices_hold_is_shown(matrices, shown, tmp_path, capsys):
    cells = row(capsys, inspect_checkpoint(str(saved(tmp_path / "own", *matrices))))
    assert cells[-3] == shown


def test_a_pattern_of_columns_is_that_of_living_columns(tmp_path, capsys):
    weight = dead(matrix(0, 2)).T
    assert row(capsys, inspect_checkpoint(str(saved(tmp_path / "own", weight))))[-4:-2] == ["2:4", "down"]


def test_a_pattern_that_holds_by_chance_is_not_shown(tmp_path, capsys):
    weight = matrix()
    weight[torch.rand(32, 64, generator=torch.Generator().manual_seed(1)) < 0.5] = 0
    found = inspect_checkpoint(str(saved(tmp_path / "own", weight)))
    assert found.matrices[0].facts.along_rows  # such as 26:32
    assert row(capsys, found)[-3] == "none"


def test_unchanged_matrices_count_among_those_that_were_compared(tmp_path, capsys):
    dense = [matrix(0), matrix(1)]
    paths = [saved(tmp_path / "own", dense[0] * 2, dense[1]), saved(tmp_path / "dense", *dense)]
    found = inspect_checkpoint(*map(str, paths))
    assert row(capsys, found)[-2:] == ["0.500", "0.5000"]
    assert row(capsys, found, "1")[-2:] == ["0.000", "0.0000"]


def test_what_could_not_be_compared_is_a_dash_and_enters_no_mean(tmp_path, capsys):
    dense = [matrix(0), matrix(1), matrix(2)]
    paths = [saved(tmp_path / "own", dense[0] * 2, matrix(1, rows=16)), saved(tmp_path / "dense", *dense)]
    found = inspect_checkpoint(*map(str, paths))
    assert row(capsys, found)[-2:] == ["1.000", "1.0000"]
    assert row(capsys, found, "1")[-2:] == ["–", "–"]
    (change,) = (axes for axes in inspection_figure(found).axes if axes.get_title() == "relative change")
    shown = change.images[0].get_array().filled(math.nan).ravel().tolist()
    assert shown[0] == pytest.approx(1) and math.isnan(shown[1])


def test_a_picture_has_the_mean_of_the_matrices_that_were_compared(tmp_path):
    own, dense = ({f"model.layers.0.experts.{number}.w.weight": matrix(number) for number in range(2)} for _ in "ab")
    own["model.layers.0.experts.0.w.weight"] *= 3
    own["model.layers.0.experts.1.w.weight"] = matrix(1, rows=16)
    found = inspect_checkpoint(str(saved(tmp_path / "own", **own)), str(saved(tmp_path / "dense", **dense)))
    (change,) = (axes for axes in inspection_figure(found).axes if axes.get_title() == "relative change")
    assert change.images[0].get_array().item() == pytest.approx(2)


def test_nan_and_infinity_are_told_of_any_tensor(tmp_path):
    norm, head = torch.full((64,), torch.nan), torch.full((64,), torch.inf)
    one = inspect_checkpoint(str(saved(tmp_path / "one", matrix(), **{NORM: norm})))
    assert findings(one) == [f"1 tensor holds NaN or infinity: {NORM}."]
    two = inspect_checkpoint(str(saved(tmp_path / "two", matrix(), **{NORM: norm, HEAD: head})))
    assert findings(two) == [f"2 tensors hold NaN or infinity: {HEAD}, {NORM}."]


def test_matrices_of_integers_are_named(tmp_path):
    codes = [torch.ones(4, 4, dtype=torch.int8), torch.ones(4, 4, dtype=torch.uint8)]
    one = inspect_checkpoint(str(saved(tmp_path / "one", codes[0])))
    assert findings(one) == [f"1 matrix of a block is stored as int8, and not counted: {Q.format(0)}."]
    two = inspect_checkpoint(str(saved(tmp_path / "two", *codes)))
    named = f"{Q.format(0)}, {Q.format(1)}"
    assert findings(two) == [f"2 matrices of blocks are stored as int8, uint8, and not counted: {named}."]


def test_one_of_anything_is_told_in_the_singular(tmp_path, capsys):
    own, dense = saved(tmp_path / "own", matrix()), saved(tmp_path / "dense", matrix(rows=16), **{NORM: torch.ones(2)})
    save_file({"x": torch.ones(2)}, own / "model-2.safetensors")
    print_inspection(found := inspect_checkpoint(str(own), str(dense)))
    printed = " ".join(capsys.readouterr().out.split())
    assert "1 tensor (1 float32)" in printed and "in 1 matrix of 1 decoder block " in printed
    left_out = "1 file of tensors in the folder is no part of the checkpoint, and not looked at: model-2.safetensors."
    assert findings(found) == [
        left_out,
        "Outside of blocks' matrices nothing that both have has changed.",
        f"1 tensor could not be compared: {Q.format(0)} has the shape (16, 64) there.",
        f"1 tensor is in the dense model alone: {NORM}.",
    ]


def test_more_than_three_twins_are_counted(tmp_path):
    for count, ending in ((5, "1 more matrix has the same values as another one."), (6, "2 more matrices have")):
        found = inspect_checkpoint(str(saved(tmp_path / str(count), *(matrix() for _ in range(count)))))
        assert findings(found)[3].startswith(ending)
