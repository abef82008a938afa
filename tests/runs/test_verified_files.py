"""The files of a run and of its saved model are verified without opening it; what can't be looked at is said."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from statprune.runs import own_model
from statprune.runs.pipeline import run
from statprune.runs.saved_run import saved_run
from statprune.runs.verification import verify
from tests.helpers.command import tiny_job
from tests.helpers.verbs import verb


@pytest.fixture(scope="module")
def finished(tiny_folder, tmp_path_factory):
    """A run with its losses, and one that measured none."""
    folder = tmp_path_factory.mktemp("verified_files")
    for name, overrides in {"measured": ["sparsity='2_4'"], "unmeasured": ["evaluation=none"]}.items():
        run(tiny_job(tiny_folder, "method=magnitude", "save_model=true", *overrides), folder / name)
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    """Copies of both that a test may damage."""
    shutil.copytree(finished, tmp_path / "runs")
    return tmp_path / "runs"


def found(folder):
    return {finding.check: finding for finding in verify(saved_run(folder))}


def unlike_right(folder):
    return {check: own for check, own in found(folder).items() if not own.is_right}


def edit(path, before, after):
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")


def test_a_changed_configuration_is_found_where_no_loss_was_measured(copied):
    own = copied / "unmeasured"
    edit(own / "model" / "config.json", '"hidden_act": "silu"', '"hidden_act": "relu"')
    odd = unlike_right(own)
    assert odd.keys() == {"files", "losses"}
    assert odd["files"].is_right is False and odd["files"].sentence == "config.json is not what the run wrote"
    assert odd["losses"].is_right is None and odd["losses"].sentence == "the run measured no perplexity"


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_missing_configuration_or_tokenizer_is_found_where_no_loss_was_measured(name, copied):
    (copied / "unmeasured" / "model" / name).unlink()
    findings = found(copied / "unmeasured")
    assert findings["files"].is_right is False and findings["files"].sentence == f"{name} is missing"
    assert findings["model"].is_right is False


def test_a_configuration_that_the_run_did_not_write_is_named(copied):
    (copied / "measured" / "model" / "processor_config.json").write_text("{}")
    odd = unlike_right(copied / "measured")
    assert odd.keys() == {"files"} and odd["files"].sentence == "processor_config.json is not of the run"


def test_a_run_without_a_list_of_its_models_files_is_unknown(copied):
    (copied / "measured" / own_model.MARKER).unlink()
    odd = unlike_right(copied / "measured")
    assert odd.keys() == {"files"} and odd["files"].is_right is None and own_model.MARKER in odd["files"].sentence


def test_a_card_with_other_numbers_than_the_record_is_wrong(copied):
    own = copied / "measured"
    edit(own / "model" / "README.md", "achieved 0.50000", "achieved 0.90000")
    odd = unlike_right(own)
    assert odd.keys() == {"card"} and odd["card"].is_right is False
    assert "sparsity: 2:4; achieved 0.50000 over all block matrices" in odd["card"].sentence


def test_a_perplexity_in_the_card_is_compared_too(copied):
    own = copied / "measured"
    shown = f"{saved_run(own).record.perplexity['bundled'].pruned:.4f}"
    edit(own / "model" / "README.md", shown, f"1{shown}")
    assert unlike_right(own).keys() == {"card"}


@pytest.mark.parametrize(
    ("text", "is_right"), [(None, None), ("My own words, with 7 numbers.\n", None), ("prose of mine", True)]
)
def test_a_card_of_other_words_is_not_wrong(text, is_right, copied):
    card = copied / "measured" / "model" / "README.md"
    if text is None:
        card.unlink()
    else:
        card.write_text(text if is_right is None else card.read_text(encoding="utf-8") + text, encoding="utf-8")
    findings = found(copied / "measured")
    assert findings["card"].is_right is is_right and findings["files"].is_right


def cut(path):
    path.write_bytes(path.read_bytes()[:2])


@pytest.mark.parametrize(
    ("damaged", "told"), [(cut, "windows.parquet can't be read (Arrow"), (lambda path: path.unlink(), "is missing")]
)
def test_losses_that_cant_be_read_are_unknown_and_not_said_to_be_unmeasured(damaged, told, copied):
    damaged(copied / "measured" / "windows.parquet")
    odd = unlike_right(copied / "measured")
    assert odd.keys() == {"record", "losses"} and odd["record"].is_right is False
    assert odd["losses"].is_right is None and told in odd["losses"].sentence


def without_a_line(path):
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))


@pytest.mark.parametrize("damaged", [cut, without_a_line, lambda path: path.unlink()])
def test_without_the_reports_zeros_and_untouched_tensors_are_unknown(damaged, copied):
    own = copied / "measured"
    damaged(own / "blocks.jsonl")
    odd = unlike_right(own)
    assert odd.keys() == {"record", "zeros", "groups", "untouched"} and odd["record"].is_right is False
    assert all(odd[check].is_right is None and "blocks.jsonl" in odd[check].sentence for check in list(odd)[1:])
    assert "over all block matrices the sparsity is 0.50000, as recorded" in odd["zeros"].sentence
    file = own / "model" / "model.safetensors"
    values = load_file(file)
    values["model.layers.0.self_attn.q_proj.weight"] = 0 * values["model.layers.0.self_attn.q_proj.weight"]
    save_file(values, file, metadata={"format": "pt"})
    assert found(own)["zeros"].is_right is False


def test_the_last_line_says_what_could_not_be_checked(finished, capsys):
    assert verb("verify", finished / "unmeasured") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "of 7 checks 1 could not be made (losses)"
    assert verb("verify", finished / "unmeasured", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 7
