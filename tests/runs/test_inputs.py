"""What a run read is part of what finished means."""

import json
import os
import shutil
from dataclasses import replace

import pytest

from statprune.errors import StatpruneError
from statprune.runs.inputs import InputIdentity, changes, read_inputs
from statprune.runs.pipeline import run
from statprune.runs.record import Pending
from statprune.runs.store import read_record, write_record
from statprune.runs.verdict import Complete, Run, Skip, verdict_on
from statprune.runs.workbench import Workbench
from tests.helpers.command import tiny_job
from tests.helpers.runs import record_text
from tests.helpers.tasks import choices

WORDS = "one two three four five six seven eight nine ten " * 60


@pytest.fixture(scope="module")
def finished_run(tiny_folder, tmp_path_factory):
    """The folder of a finished run, and the folder with everything that it read."""
    base = tmp_path_factory.mktemp("inputs")
    shutil.copytree(tiny_folder, base / "model")
    for name in ("calibration.txt", "evaluation.txt"):
        (base / name).write_text(WORDS)
    (base / "tasks").mkdir()
    choices("own", base / "tasks", 3)
    run(replace_tasks(job(base), []), base / "run")
    return base


@pytest.fixture
def base(finished_run, tmp_path):
    """A copy, whose record says that the tasks were asked as well; sizes, times and contents are the same."""
    shutil.copytree(finished_run, tmp_path, dirs_exist_ok=True)
    yaml = tmp_path / "tasks" / "own.yaml"
    yaml.write_text(yaml.read_text().replace(str(finished_run), str(tmp_path)))
    config = job(tmp_path)
    record = replace(read_record(tmp_path / "run"), config_hash=config.hash(), inputs=read_inputs(config))
    write_record(tmp_path / "run", record)
    return tmp_path


def job(base, *overrides):
    return tiny_job(
        base / "model",
        *("method=magnitude", "calibration=text", f"calibration.path={base}/calibration.txt"),
        *("calibration.samples=2", "calibration.seq_len=16", "evaluation.datasets=[text,bundled]"),
        *(f"evaluation.path={base}/evaluation.txt", f"evaluation.tasks=[{base}/tasks]", *overrides),
    )


def replace_tasks(config, tasks):
    return replace(config, evaluation=replace(config.evaluation, tasks=tasks))


def overwrite(path, old, new):
    """Replace text in place; where both are equally long the size stays."""
    path.write_bytes(path.read_bytes().replace(old, new))
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 10**9))


CHANGES = {
    "calibration.path=": ("calibration.txt", b"one", b"two"),
    "evaluation.path=": ("evaluation.txt", b"one", b"two"),
    "evaluation.tasks has ": ("tasks/own.json", b'"label"', b'"libel"'),
    "model.path=": ("model/model.safetensors", b"\x00", b"\x01"),
    "(config.json is another)": ("model/config.json", b"1e-06", b"1e-05"),
    "(tokenizer.json is another)": ("model/tokenizer.json", b"a", b"b"),
}


def test_a_run_records_what_it_read(finished_run):
    record = read_record(finished_run / "run")
    assert set(record.inputs) == {"model.path", "calibration.path", "evaluation.path"}
    own = record.inputs["calibration.path"].files["calibration.txt"]
    assert own.size == len(WORDS) and own.is_whole and len(own.sha256) == 64


def test_a_run_whose_inputs_are_the_same_is_skipped(base):
    assert isinstance(verdict_on(job(base), base / "run"), Skip)


@pytest.mark.parametrize("what", CHANGES)
def test_a_run_is_repeated_where_a_file_it_read_was_overwritten(what, base):
    name, old, new = CHANGES[what]
    overwrite(base / name, old, new)
    verdict = verdict_on(job(base), base / "run")
    assert isinstance(verdict, Run) and what in verdict.because
    assert "has changed since" in verdict.because and verdict.because.endswith(f"the run in {base / 'run'} is repeated")


def test_a_run_whose_inputs_were_written_again_as_they_were_is_skipped(base):
    for name, old, _ in CHANGES.values():
        overwrite(base / name, old, old)
    assert isinstance(verdict_on(job(base), base / "run"), Skip)


@pytest.mark.parametrize(("name", "what"), [("modeling_own.py", "is new"), ("tokenizer_config.json", "is gone")])
def test_a_file_of_the_model_that_came_or_went_is_a_change(name, what, base):
    path = base / "model" / name
    path.unlink() if path.exists() else path.touch()
    assert changes(read_record(base / "run").inputs, job(base)) == {
        "model.path": f"model.path={base / 'model'} has changed since ({name} {what})"
    }


def test_inputs_that_are_not_here_do_not_repeat_a_run(base):
    config = job(base)
    shutil.rmtree(base / "model")
    assert isinstance(verdict_on(config, base / "run"), Skip)


def test_a_record_that_says_nothing_of_its_inputs_stays_finished(base):
    values = json.loads((base / "run" / "result.json").read_text())
    del values["inputs"]
    del values["sha256"]
    (base / "run" / "result.json").write_text(record_text(values))
    overwrite(base / "calibration.txt", b"one", b"two")
    assert isinstance(verdict_on(job(base), base / "run"), Skip)


@pytest.mark.parametrize("name", ["tasks/own.json", "calibration.txt", "model/model.safetensors"])
def test_a_pending_run_goes_on_only_where_what_it_pruned_with_is_the_same(name, base):
    record = replace(read_record(base / "run"), pending=Pending("zero_shot", ".pruned"))
    write_record(base / "run", record)
    (base / "run" / ".pruned").mkdir()
    (base / "run" / ".pruned" / "config.json").touch()
    assert verdict_on(job(base), base / "run") == Complete(record)
    overwrite(
        base / name,
        *CHANGES[
            {"tasks": "evaluation.tasks has ", "model": "model.path="}.get(name.partition("/")[0], "calibration.path=")
        ][1:],
    )
    assert isinstance(verdict_on(job(base), base / "run"), Complete if name.startswith("tasks") else Run)


def test_a_change_that_keeps_size_and_time_is_found_where_inputs_are_verified(base):
    path, before = base / "evaluation.txt", (base / "evaluation.txt").stat().st_mtime_ns
    overwrite(path, b"one", b"two")
    os.utime(path, ns=(before, before))
    assert isinstance(verdict_on(job(base), base / "run"), Skip)
    from statprune.system import contents

    contents._HASHES.clear()  # as another process would find it
    assert isinstance(verdict_on(job(base, "verify_inputs=true"), base / "run"), Run)


def test_a_branch_of_the_hub_that_moved_is_a_change(base, monkeypatch):
    inputs = {"model.path": InputIdentity(commit="a" * 40)}
    config = replace(job(base), model=replace(job(base).model, path="some/model"))
    for commit, changed in ((None, False), ("a" * 40, False), ("b" * 40, True)):
        monkeypatch.setattr("statprune.runs.inputs.hub_commit", lambda path, revision, commit=commit: commit)
        assert bool(changes(inputs, config)) is changed


def test_an_input_that_cant_be_read_is_one_sentence(base, monkeypatch):
    def unreadable(file, in_full):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("statprune.runs.inputs.identity_of", unreadable)
    with pytest.raises(StatpruneError, match=r"model.path=.* can't be read \(Input/output error\); give another$"):
        read_inputs(job(base))


def test_what_runs_of_a_process_share_is_read_again_where_its_file_changed(base):
    bench, config = Workbench(holds_model=True), replace_tasks(job(base), [])
    first = run(config, base / "a", bench)
    overwrite(base / "evaluation.txt", b"one", b"six")
    second = run(config, base / "b", bench)
    assert "the model" in second.reused and "the dense perplexity" not in second.reused
    assert first.perplexity["text"].sha256 != second.perplexity["text"].sha256
