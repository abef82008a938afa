"""A saved model is checked against its run's record; whatever is changed afterwards is named."""

import json
import shutil

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from statprune import NofM
from statprune.core.sparsity_facts import broken_groups
from statprune.errors import StatpruneError
from statprune.runs.pipeline import run
from statprune.runs.saved_run import Finding, saved_run
from statprune.runs.verification import verify
from tests.helpers.command import tiny_job
from tests.helpers.gguf_files import write_gguf
from tests.helpers.verbs import verb

UP = "model.layers.1.mlp.up_proj.weight"
NORM = "model.layers.0.input_layernorm.weight"


@pytest.fixture(scope="module")
def finished(tiny_folder, tmp_path_factory):
    """Runs at 2:4 and at 50%, and one that prunes nothing, all with their models."""
    folder = tmp_path_factory.mktemp("verify")
    jobs = {
        "2_4": ("method=wanda", "sparsity='2_4'"),
        "half": ("method=sparsegpt",),
        "dense": ("method=dense",),
    }
    for name, overrides in jobs.items():
        run(tiny_job(tiny_folder, *overrides, "save_model=true"), folder / name)
    return folder


@pytest.fixture
def own(finished, tmp_path):
    """A copy of the run at 2:4 that a test may damage."""
    shutil.copytree(finished / "2_4", tmp_path / "run")
    return tmp_path / "run"


def rewrite(folder, **tensors):
    """Put other tensors into a saved model; the record's checksums are made to fit, so that other checks find it."""
    file = folder / "model" / "model.safetensors"
    values = {name: value.clone() for name, value in load_file(file).items()}
    for name, change in tensors.items():
        change(values[name])
    save_file(values, file, metadata={"format": "pt"})


def found(folder, windows=2):
    return {finding.check: finding for finding in verify(saved_run(folder), windows)}


@pytest.mark.parametrize("name", ["2_4", "half", "dense"])
def test_what_a_run_saved_is_right(finished, name):
    findings = found(finished / name)
    assert {check: own.is_right for check, own in findings.items()} == dict.fromkeys(findings, True)
    wanted = {"record", "checksums", "files", "card", "zeros", "untouched", "losses"} | (
        {"groups"} if name == "2_4" else set()
    )
    assert findings.keys() == wanted
    assert "at most 0 nats" in findings["losses"].sentence


def test_the_models_folder_will_do(finished):
    assert saved_run(finished / "half" / "model").folder == finished / "half"


def break_a_group(weight):
    weight[tuple((weight == 0).nonzero()[7])] = 0.25


def test_a_single_weight_in_an_nm_group_is_found(own):
    rewrite(own, **{UP: break_a_group})
    findings = found(own)
    assert findings["checksums"].is_right is False and "model.safetensors is not what" in findings["checksums"].sentence
    assert findings["groups"] == Finding("groups", False, f"groups that are not 2:4: 1 in {UP.removesuffix('.weight')}")
    assert "up_proj of block 1 has 767 zeros and not 768" in findings["zeros"].sentence
    assert findings["untouched"].is_right and findings["record"].is_right


def test_a_changed_norm_is_found_by_its_values_and_by_the_losses(own):
    rewrite(own, **{NORM: lambda weight: weight.mul_(3)})
    findings = found(own)
    assert findings["untouched"].is_right is False and NORM in findings["untouched"].sentence
    assert findings["losses"].is_right is False and findings["zeros"].is_right and findings["groups"].is_right


def test_a_truncated_shard_and_one_too_many_are_named(own):
    file = own / "model" / "model.safetensors"
    shutil.copy(file, own / "model" / "extra.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    findings = found(own)
    assert (
        findings["checksums"].sentence
        == "model.safetensors is not what the run wrote; extra.safetensors is not of the run"
    )
    assert findings["model"].is_right is False and "is damaged or not whole" in findings["model"].sentence
    assert "losses" not in findings


def test_damaged_files_beside_the_record_are_named(own):
    with (own / "blocks.jsonl").open("a") as file:
        file.write("\n")
    findings = found(own)
    assert findings["record"].sentence == "of the files beside the record blocks.jsonl is not what the run wrote"
    assert findings["groups"].sentence == "blocks.jsonl can't be read" and findings["groups"].is_right is None


def test_what_cant_be_compared_is_said(own, tiny_folder, monkeypatch):
    monkeypatch.setattr("statprune.runs.saved_run.SavedRun.source", "/nowhere/model")
    monkeypatch.setattr("statprune.runs.verification.evaluation_windows", fails)
    findings = found(own)
    assert findings["untouched"].is_right is None and "nothing to compare with" in findings["untouched"].sentence
    assert findings["losses"].is_right is None and "bundled can't be compared: no text" in findings["losses"].sentence


def test_a_gguf_model_is_compared_with_the_folder_it_was_converted_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STATPRUNE_MODEL_CACHE")
    file = write_gguf(tmp_path / "tiny.gguf")
    text = tmp_path / "text.txt"
    text.write_text("the ant and the hen ran " * 100)
    overrides = ("save_model=true", "method=magnitude", "calibration=text", f"calibration.path={text}", "cache=cache")
    overrides += ("evaluation.datasets=[text]", f"evaluation.path={text}", "evaluation.seq_len=32")
    run(tiny_job(file, *overrides), tmp_path / "run")
    findings = found(tmp_path / "run")
    assert {check: own.is_right for check, own in findings.items()} == dict.fromkeys(findings, True)
    rewrite(tmp_path / "run", **{NORM: lambda weight: weight.mul_(3)})
    assert found(tmp_path / "run")["untouched"].is_right is False
    shutil.rmtree(tmp_path / "cache")
    assert "is not kept converted" in found(tmp_path / "run")["untouched"].sentence


def fails(*arguments):
    raise StatpruneError("no text")


def test_other_losses_are_found(own):
    table = pd.read_parquet(own / "windows.parquet")
    table["pruned_loss"] += 0.01
    table.to_parquet(own / "windows.parquet")
    findings = found(own, windows=1)
    assert findings["record"].is_right is False
    assert findings["losses"].is_right is False and "of 1 window of" in findings["losses"].sentence


def test_the_verb_prints_a_line_for_each_check_and_fails_where_one_is_wrong(finished, own, capsys):
    assert verb("verify", finished / "half") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == 7 * ["right"] and lines[-1] == "all 7 checks are passed"
    rewrite(own, **{UP: break_a_group})
    assert verb("verify", own) == 1
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("WRONG") for line in lines) == 4
    assert lines[-1] == "of 8 checks 4 found something wrong (checksums, zeros, groups, losses)"
    assert verb("verify", own, "--json") == 1
    values = json.loads(capsys.readouterr().out)
    assert {value["check"] for value in values if value["is_right"] is False} == {
        "checksums",
        "zeros",
        "groups",
        "losses",
    }


@pytest.mark.parametrize("arguments", [["--windows", 0], []], ids=str)
def test_what_cant_be_verified_ends_in_a_sentence(finished, tmp_path, arguments, capsys):
    folder = finished / "half" if arguments else tmp_path
    assert verb("verify", folder, *arguments) == 1
    error = capsys.readouterr().err
    assert ("--windows 0 is too few" if arguments else "holds no result.json") in error


def test_a_run_that_saved_no_model_says_what_to_do(own):
    shutil.rmtree(own / "model")
    with pytest.raises(StatpruneError, match="run again with save_model=true rerun=true"):
        saved_run(own)


def test_broken_groups_are_counted():
    weight = torch.randn(4, 10)
    weight[:, :8] *= NofM(2, 4).select(weight[:, :8].abs())
    assert broken_groups(weight[:, :8], 2, 4) == 0
    assert broken_groups(torch.ones(2, 10), 2, 4) == 4  # the two that are left over are no full group
    weight[0, 0:4] = 1
    assert broken_groups(weight[:, :8], 2, 4) == 1
