"""``statprune bench``: whatever holds a model, side by side, and arguments that make no sense."""

import json
import logging

import pytest
import torch

from statprune import NofM, prune
from statprune.model import sparse_forms
from statprune.model.compressed import compress_model, sizes_of
from statprune.model.sparse_forms import SparseForm
from tests.helpers.models import tiny_llama, tiny_tokenizer
from tests.helpers.verbs import verb

QUICK = ("--prompt-tokens", 8, "--new-tokens", 2, "--rounds", 1, "--batch-sizes", "1,2", "--device", "cpu")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A dense model, a run that saved it pruned, and that compressed."""
    folder = tmp_path_factory.mktemp("bench")
    model = tiny_llama()
    for name in ("dense", "run/model"):
        model.save_pretrained(folder / name)
        tiny_tokenizer().save_pretrained(folder / name)
        windows = torch.randint(97, (4, 32), generator=torch.Generator().manual_seed(0))
        prune(model, "magnitude", NofM(2, 4), windows=windows)
    model.save_pretrained(folder / "run" / "model")
    (folder / "run" / "result.json").write_text("{}")
    compress_model(folder / "run" / "model", folder / "small")
    return folder


def facts(capsys, *arguments):
    assert verb("bench", *arguments, *QUICK, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_a_run_and_its_original_are_timed_side_by_side(folders, capsys):
    values = facts(capsys, folders / "run", "--against", folders / "dense")
    assert [form["name"] for form in values["forms"]] == ["dense", "original", "csr"]
    for form in values["forms"]:
        assert [timing["batch_size"] for timing in form["timings"]] == [1, 2]
        assert all(len(timing["prefill_seconds"]) == 1 for timing in form["timings"])
    assert values["forms"][2]["converted"] == 21 and values["forms"][2]["agreement"]["is_same"]
    assert values["forms"][0]["file_bytes"] == (folders / "run" / "model" / "model.safetensors").stat().st_size
    # untied: 97 rows of 32 twice, norms, and the blocks' matrices, in float32; inverse frequencies besides
    weights = 2 * 97 * 32 + 7 * 32 + 3 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48)
    assert weights * 4 <= values["forms"][0]["held_bytes"] <= weights * 4 + 100
    assert {"date", "cpu", "gpu", "threads", "torch", "statprune", "load_average"} <= values["machine"].keys()
    assert values["prompts"] == "the bundled evaluation text" and values["prefill_logits"] == "last"


def test_a_compressed_model_is_as_large_as_its_files(folders, capsys):
    form = facts(capsys, folders / "small")["forms"][0]
    assert form["file_bytes"] == sizes_of(folders / "small").compressed
    assert form["file_bytes"] == (folders / "small" / "compressed-00001.safetensors").stat().st_size


def test_bfloat16_has_no_sparse_form_on_a_cpu_or_says_how_it_agrees(folders, capsys):
    values = facts(capsys, folders / "run" / "model", "--dtype", "bfloat16")
    assert values["dtype"] == "bfloat16" and len(values["forms"]) + len(values["missing"]) == 1 + 3


def test_a_dense_model_has_nothing_to_convert(folders, capsys, tmp_path):
    assert verb("bench", folders / "dense", *QUICK, "--picture", tmp_path) == 0
    shown = capsys.readouterr()
    text = " ".join(shown.out.split())
    assert "csr was not timed: none of the blocks' matrices can be converted (21 of the blocks' 21 matrices" in text
    assert "Nothing faster" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["speed.pdf", "speed.png"]


def test_a_form_with_other_outputs_ends_with_status_1(folders, capsys, monkeypatch):
    wrong = SparseForm("wrong", "cpu", lambda own: own.neg(), torch.nn.functional.linear, lambda own: None)
    monkeypatch.setattr(sparse_forms, "FORMS", (wrong,))
    monkeypatch.setattr(sparse_forms, "absence", lambda *_: None)
    assert verb("bench", folders / "run", *QUICK) == 1
    assert "SOMETHING ELSE" in capsys.readouterr().out


def test_a_model_whose_dense_logits_are_no_numbers_is_not_blamed_on_a_form(folders, capsys, tmp_path):
    broken = tiny_llama()
    prune(broken, "magnitude", 0.5, windows=torch.arange(64).reshape(2, 32))
    broken.model.norm.weight.data[0] = torch.nan
    broken.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    assert verb("bench", tmp_path, *QUICK) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "csr can't be compared" in text and "the logits of dense weights are not finite" in text
    assert "SOMETHING ELSE" not in text and "1 round is too few" not in text


def test_batches_that_memory_does_not_hold_end_in_a_sentence(folders, capsys):
    assert verb("bench", folders / "dense", *QUICK, "--batch-sizes", 10**12) == 1
    error = capsys.readouterr().err
    assert "this machine's memory is too small" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--batch-sizes", "1,x"), "--batch-sizes 1,x is no list of different sizes"),
        (("--batch-sizes", "0,2"), "--batch-sizes 0,2 is no list of different sizes"),
        (("--batch-sizes", "2,2"), "--batch-sizes 2,2 is no list of different sizes"),
        (("--prompt-tokens", 0), "--prompt-tokens 0 is too few; give 1 or more"),
        (("--new-tokens", -1), "--new-tokens -1 is too few; give 0 or more"),
        (("--rounds", 0), "--rounds 0 is too few; give 1 or more"),
        (("--tolerance", 2), "--tolerance 2.0 is no relative difference"),
        (("--device", "tpu"), "--device tpu is unknown"),
        (("--device", "meta"), "--device meta is not supported"),
        (("--device", "cuda:99"), "--device cuda:99 is not there"),
    ],
)
def test_arguments_that_make_no_sense_end_in_a_sentence(arguments, sentence, capsys):
    assert verb("bench", "nowhere", *arguments) == 1
    error = capsys.readouterr().err
    assert sentence in error and len(error.strip().splitlines()) == 1


def test_what_can_not_be_measured_ends_in_a_sentence(folders, capsys, tmp_path):
    assert verb("bench", folders / "dense", "--prompt-tokens", 60, "--new-tokens", 5, "--device", "cpu") == 1
    assert "--prompt-tokens and --new-tokens, 65 together, is longer than the model's 64 pos" in capsys.readouterr().err
    (tmp_path / "result.json").write_text("{}")
    assert verb("bench", tmp_path, "--device", "cpu") == 1
    assert "is a run that saved no model; run it again with save_model=true" in capsys.readouterr().err
    tiny_llama().bfloat16().save_pretrained(tmp_path / "half")
    tiny_tokenizer().save_pretrained(tmp_path / "half")
    assert verb("bench", folders / "dense", "--against", tmp_path / "half", *QUICK) == 1
    assert "give both the same with --dtype" in capsys.readouterr().err


def test_a_verb_leaves_the_logs_of_its_process_as_they_were(folders):
    own = logging.getLogger("statprune")
    before = list(own.handlers), own.level, logging.getLogger("transformers").propagate
    assert verb("bench", folders / "dense", "--prompt-tokens", 60, "--new-tokens", 5, "--device", "cpu") == 1
    assert (own.handlers, own.level, logging.getLogger("transformers").propagate) == before
