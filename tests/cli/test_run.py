"""Runs by the command as a person starts them: bad input, what is printed and what is written."""

import re

import pytest
import yaml

from statprune.runs.store import read_record
from tests.helpers.command import statprune
from tests.helpers.wandb_files import wandb_run

EMPTY_TEXTS = [
    "calibration=text",
    "calibration.path=empty.txt",
    "evaluation.datasets=[text]",
    "evaluation.path=empty.txt",
]


@pytest.mark.parametrize(
    ("overrides", "messages"),
    [
        (["sparsity=2_4", "sparsity.ratio=0.5"], ["together with keep and of"]),
        (["sparsity=2_4", "sparsity.group=row"], ["sparsity.group is for unstructured"]),
        (["sparsity.keep=4", "sparsity.of=4"], ["0 < keep < of"]),
        (["sparsity.keep=2", "sparsity.of=5", "method=sparsegpt"], ["not divisible by M=5"]),
        (["method.alfa=1", "sparsity.ratio=-0.1"], ["did you mean method.alpha?", "outside [0, 1)"]),
        (["method=wnada", "modle=x"], ["choose one of admm, alps, cvr, dense, magnitude", "modle is not a key"]),
        (
            ["method=dense", "compensation=energy", "device=cuda:7"],
            ["can't follow method=dense", "cuda:7 is not there"],
        ),
        (
            ["model.path=./no", "calibration=text", "evaluation.datasets=[text]", "evaluation.path=no.txt"],
            ["./no does not exist", "calibration.path is not set", "evaluation.path=no.txt is no file"],
        ),
        (["evaluation.datasets=[pile]", "seed=many"], ["the source 'pile' is unknown", "seed=many has the wrong type"]),
    ],
)
def test_all_bad_input_is_reported_in_sentences_before_anything_starts(overrides, messages, tmp_path):
    done = statprune(*overrides, cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert all(line.startswith("statprune: ") for line in done.stderr.splitlines())
    for message in messages:
        assert message in done.stderr
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("flags", [["-m", "method=wanda,ria,foo"], ["--cfg", "job", "method=foo"]], ids=" ".join)
def test_sweeps_and_printing_check_their_overrides_and_text_files_too(flags, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    done = statprune(*flags, *EMPTY_TEXTS, cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 3, done.stderr
    assert "method=foo is not a choice" in done.stderr
    for part in ("calibration", "evaluation"):
        assert f"empty.txt is empty; give {part}.path a file with text" in done.stderr


def test_a_hub_name_without_network_fails_in_one_sentence(tmp_path):
    done = statprune("model=opt_125m", "tracking=disabled", cwd=tmp_path, fresh=True, HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 1 and "Traceback" not in done.stderr and "Retry" not in done.stderr
    assert "model.path=facebook/opt-125m can't be opened" in done.stderr
    assert "no network, and not in the local cache" in " ".join(done.stderr.split())


def test_an_unknown_task_is_a_sentence_before_the_model_is_loaded(tmp_path, tiny_folder):
    overrides = ["evaluation=zero_shot", "evaluation.tasks=[bundeld]", f"model.path={tiny_folder}"]
    done = statprune(*overrides, "tracking=disabled", cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("statprune: ")]
    assert "did you mean bundled?" in line and "loading" not in done.stderr
    assert not list(tmp_path.rglob("result.json"))


def test_bad_settings_of_tasks_are_a_sentence_each(tmp_path):
    (tmp_path / "rows.json").write_text("{}")
    wrong = ["evaluation.tasks=[./no,./rows.json,boolq,paper]", "evaluation.limit=0", "evaluation.num_fewshot=-1"]
    done = statprune("evaluation=zero_shot", *wrong, "evaluation.task_batch_size=0", cwd=tmp_path)
    lines = done.stderr.splitlines()
    assert done.returncode == 1 and len(lines) == 6 and all(line.startswith("statprune: evaluation.") for line in lines)
    assert "./rows.json, which is no .yaml file" in done.stderr
    assert "has boolq twice" in done.stderr and "./no, which does not exist" in done.stderr


@pytest.fixture(scope="module")
def another_text(tmp_path_factory, tiny_folder):
    """A verbose run of another model on another text, tracked offline and saved, and its folder."""
    folder = tmp_path_factory.mktemp("another_text")
    text = folder / "words.txt"
    text.write_text("another text with other words. " * 100)
    done = statprune(
        f"model.path={tiny_folder}",
        "calibration=text",
        f"calibration.path={text}",
        "calibration.samples=2",
        "calibration.seq_len=32",
        "evaluation.datasets=[text,bundled]",
        f"evaluation.path={text}",
        "evaluation.max_windows=2",
        "method=wanda",
        "sparsity=4_8",
        "model.dtype=bfloat16",
        "save_model=true",
        "verbose=true",
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    (run_folder,) = (folder / "outputs" / "default").iterdir()
    return done, run_folder


@pytest.fixture(scope="module")
def record(another_text):
    return read_record(another_text[1])


@pytest.fixture(scope="module")
def tracked(another_text):
    """What W&B's file says of the run."""
    return wandb_run(next((another_text[1] / "wandb").glob("offline-run-*/*.wandb")))


def test_a_verbose_run_prints_a_line_for_each_block(another_text):
    done, _ = another_text
    assert re.findall(r"block (\d) of 3: mean relative output error 0\.\d+", done.stderr) == ["1", "2", "3"]


def test_output_into_a_file_has_no_bars_and_colours(another_text):
    done, _ = another_text
    assert "\r" not in done.stdout + done.stderr and "\x1b" not in done.stdout + done.stderr


def test_perplexity_is_measured_on_each_dataset(record):
    assert set(record.perplexity) == {"text", "bundled"}


def test_every_block_has_the_pattern(record):
    assert vars(record.sparsity) == {"target": 0.5, "achieved": 0.5, "blocks": [0.5, 0.5, 0.5]}


def test_the_record_holds_the_overrides(record):
    assert record.config["model"]["dtype"] == "bfloat16" and record.config["method"] == {"name": "wanda"}


@pytest.mark.parametrize("phase", ["load", "calibrate", "observe", "solve", "propagate", "evaluate", "save"])
def test_the_record_holds_the_seconds_of_each_phase(record, phase):
    assert record.seconds[phase] > 0


def test_wandb_holds_the_configuration(tracked):
    assert tracked["config"]["method"] == {"name": "wanda"}


def test_wandb_holds_the_numbers_of_each_block(tracked):
    blocks = [row for row in tracked["history"] if "block" in row]
    assert [row["block"] for row in blocks] == [0, 1, 2]
    assert all(row["block/sparsity"] == 0.5 and row["block/seconds"] > 0 for row in blocks)


def test_wandb_holds_the_perplexity(tracked, record):
    assert tracked["summary"]["perplexity/text"] == record.perplexity["text"].pruned


def test_the_saved_models_card_has_the_hubs_header(another_text):
    card = (another_text[1] / "model" / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "transformers"


def test_the_saved_models_card_says_what_was_done_and_what_it_cost(another_text, record):
    card = (another_text[1] / "model" / "README.md").read_text()
    perplexity = record.perplexity["text"]
    numbers = f"| {perplexity.dense:.4f} | {perplexity.pruned:.4f} |"
    for part in ("| wanda |", "4:8; achieved 0.50000", "2 windows of 32 tokens, seed 0", numbers):
        assert part in card, part


def test_the_composed_configuration_is_printed(tmp_path):
    printed = yaml.safe_load(statprune("method=wanda", "--cfg", "job", cwd=tmp_path).stdout)
    assert printed["method"] == {"name": "wanda"} and printed["compensation"] == {"name": "none"}
    assert printed["calibration"]["samples"] == 24
