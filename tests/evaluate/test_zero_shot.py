"""Zero-shot accuracy: lm-eval's own numbers, errors before pruning, failures after it, and what is kept for pairing."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy
import pandas
import pytest
import torch
import yaml
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM

from statprune.errors import ConfigError, DataError, ModelError
from statprune.evaluate.tasks import load_tasks
from statprune.evaluate.zero_shot import ZeroShot
from statprune.runs.job import SAVES, Outcome, _remove_model, finished_record, to_json
from statprune.runs.ledger import print_sweep
from statprune.runs.model_card import model_card
from statprune.runs.pipeline import complete, run
from statprune.runs.resume import UNSAVED
from statprune.runs.summary import print_summary
from statprune.runs.workbench import Workbench
from tests.helpers.command import composed, statprune, tiny, torchrun
from tests.helpers.models import tiny_llama, tiny_tokenizer
from tests.helpers.wandb_files import wandb_run

ACCURACIES = [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")]
WORDS = ["model", "mask", "score", "block", "weight", "row", "column", "sum", "mean", "one", "two", "three"]


def choices(task: str, folder: Path, documents: int, **changes) -> None:
    """A multiple-choice task over a JSON file, both in ``folder``."""
    draw = numpy.random.default_rng(documents)
    rows = []
    for _ in range(documents):
        texts = [" ".join(draw.choice(WORDS, draw.integers(1, 5))) for _ in range(5)]
        rows.append({"question": texts[0], "choices": texts[1:], "label": int(draw.integers(4))})
    (folder / f"{task}.json").write_text("\n".join(json.dumps(row) for row in rows))
    task_yaml(task, folder, dataset_kwargs={"data_files": {"test": str(folder / f"{task}.json")}}, **changes)


def task_yaml(task: str, folder: Path, **changes) -> None:
    config = {
        "task": task,
        "dataset_path": "json",
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_text": "{{question}} :",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "label",
        "metric_list": ACCURACIES,
        "metadata": {"version": 2.5},
    }
    folder.mkdir(exist_ok=True)
    (folder / f"{task}.yaml").write_text(yaml.safe_dump(config | changes))


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    """The tiny model with blocks that weigh enough for pruning to change its answers."""
    folder, model = tmp_path_factory.mktemp("lively") / "model", tiny_llama()
    for parameter in model.model.layers.parameters():
        parameter.data.mul_(12 if parameter.ndim == 2 else 1)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A folder with a task of its own, and with a group of two, weighted by size, one with shots and one metric."""
    folder = tmp_path_factory.mktemp("tasks")
    choices("alone", folder, 23)
    choices("shown", folder, 9, num_fewshot=2, fewshot_split="test", metric_list=ACCURACIES[:1])
    choices("plain", folder, 30)
    group = {"group": "pair", "task": ["shown", "plain"], "metadata": {"version": 1.0}}
    group["aggregate_metric_list"] = [{"metric": "acc", "aggregation": "mean", "weight_by_size": True}]
    (folder / "pair.yaml").write_text(yaml.safe_dump(group))
    return folder


def evaluated(model, tasks, *overrides):
    """A job on the tiny model that asks it the tasks of a folder."""
    return tiny(
        model, "evaluation=full", f"evaluation.tasks=[{tasks}]", "method=magnitude", "sparsity.ratio=0.8", *overrides
    )


@pytest.fixture(scope="module")
def measured(tiny_folder, tasks, tmp_path_factory):
    """One run with everything."""
    folder = tmp_path_factory.mktemp("measured") / "run"
    return run(evaluated(tiny_folder, tasks, "save_model=true"), folder), folder


def harness_command(model: Path, tasks: Path, names: str, output: Path, *arguments: str) -> tuple[dict, dict]:
    """Results of lm-eval's own command line, and its samples by task."""
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--model_args", f"pretrained={model}"]
    command += ["--include_path", str(tasks), "--tasks", names, "--batch_size", "16", "--device", "cpu"]
    command += ["--log_samples", "--output_path", str(output), *arguments]
    done = subprocess.run(command, cwd=output.parent, env=os.environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (path,) = output.rglob("results_*.json")
    samples = {}
    for file in output.rglob("samples_*.jsonl"):
        task = re.fullmatch(r"samples_(.+)_\d{4}-.*", file.stem)[1]
        samples[task] = [json.loads(line) for line in file.read_text().splitlines()]
    return json.loads(path.read_text()), samples


def assert_equal_to_harness(record: dict, folder: Path, results: dict, samples: dict) -> None:
    ours = record["metrics"]["zero_shot"]["tasks"]
    for name, task in ours.items():
        theirs = {
            key.removesuffix(",none"): value for key, value in results["results"][name].items() if key.endswith(",none")
        }
        assert task["pruned"] == {key: None if value == "N/A" else value for key, value in theirs.items()}
        assert task["version"] == results["versions"][name]
    table = pandas.read_parquet(folder / "documents.parquet")
    for name, rows in samples.items():
        for metric in ("acc", "acc_norm"):
            if metric in rows[0]:
                own = table[(table.task == name) & (table.metric == metric)].sort_values("document")
                theirs = sorted((row["doc_id"], row["doc_hash"], row[metric]) for row in rows)
                assert list(zip(own.document, own.document_hash, own.pruned, strict=True)) == theirs


def test_numbers_are_those_of_lm_evals_command_on_the_saved_model(measured, tasks, tmp_path):
    record, folder = measured
    results, samples = harness_command(folder / "model", tasks, "alone,pair", tmp_path / "theirs")
    assert set(samples) == {"alone", "shown", "plain"}
    assert_equal_to_harness(record, folder, results, samples)
    zero_shot = record["metrics"]["zero_shot"]
    assert set(zero_shot["tasks"]) == {"alone", "pair", "shown", "plain"} and zero_shot["averaged"] == ["alone", "pair"]
    assert [zero_shot["tasks"][name]["shots"] for name in ("alone", "shown", "plain")] == [0, 2, 0]


@pytest.mark.slow
def test_numbers_of_the_bundled_task_on_the_bundled_model_are_lm_evals(tmp_path):
    changes = ["experiment=smoke", "evaluation=zero_shot", "evaluation.tasks=bundled", "evaluation.limit=12"]
    done = statprune(*changes, "save_model=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "only the first 12 documents of each task" in " ".join(done.stdout.split()) and "git" not in done.stderr
    (path,) = tmp_path.glob("outputs/*/*/result.json")
    record = json.loads(path.read_text())
    tasks = Path(__file__).parents[2] / "experiments" / "tasks"
    results, samples = harness_command(path.parent / "model", tasks, "bundled", tmp_path / "theirs", "--limit", "12")
    assert_equal_to_harness(record, path.parent, results, samples)
    bundled = record["metrics"]["zero_shot"]["tasks"]["bundled"]
    assert bundled["dense"]["acc"] > 0.4 and (bundled["limit"], bundled["documents"]) == (12, 12)


def test_the_record_tells_everything_that_changes_a_number(measured):
    zero_shot = measured[0]["metrics"]["zero_shot"]
    protocol = zero_shot["protocol"]
    assert protocol["lm_eval"].startswith("0.4.") and protocol["dtype"] == "float32"
    assert protocol["batch_size"] == 16 and protocol["limit"] is None and protocol["max_length"] == 64
    assert protocol["chat_template"] is False and protocol["begins_with_bos"] is False
    assert protocol["requests"] == 4 * (23 + 9 + 30)  # acc_norm asks for nothing more
    assert re.fullmatch(r"[0-9a-f]{64}", protocol["requests_sha256"])
    alone = zero_shot["tasks"]["alone"]
    assert (alone["version"], alone["metric"], alone["documents"], alone["limit"]) == (2.5, "acc", 23, None)
    assert set(alone["pruned"]) == {"acc", "acc_stderr", "acc_norm", "acc_norm_stderr"}
    assert measured[0]["environment"]["packages"]["lm_eval"] == protocol["lm_eval"]


def test_standard_errors_of_differences_and_means_are_those_of_the_formulas(measured):
    record, folder = measured
    zero_shot, table = record["metrics"]["zero_shot"], pandas.read_parquet(folder / "documents.parquet")
    errors = {}
    for name in ("alone", "shown", "plain"):
        rows = table[(table.task == name) & (table.metric == "acc")]
        difference = (rows.pruned - rows.dense).to_numpy()
        errors[name] = math.sqrt(sum((d - difference.mean()) ** 2 for d in difference) / (len(rows) - 1) / len(rows))
        task = zero_shot["tasks"][name]
        assert task["difference"] == pytest.approx(difference.mean()) and task["pruned"]["acc"] == rows.pruned.mean()
        assert task["difference_stderr"] == pytest.approx(errors[name])
    pair = zero_shot["tasks"]["pair"]
    assert pair["difference_stderr"] == pytest.approx(math.hypot(9 * errors["shown"], 30 * errors["plain"]) / 39)
    mean = zero_shot["mean"]
    assert mean["pruned"] == pytest.approx((zero_shot["tasks"]["alone"]["pruned"]["acc"] + pair["pruned"]["acc"]) / 2)
    assert all(errors.values()) and mean["difference"]
    both = [zero_shot["tasks"][name]["pruned"]["acc_stderr"] for name in ("alone", "pair")]
    assert mean["pruned_stderr"] == pytest.approx(math.hypot(*both) / 2)
    assert mean["difference"] == pytest.approx(mean["pruned"] - mean["dense"])
    assert mean["difference_stderr"] == pytest.approx(math.hypot(errors["alone"], pair["difference_stderr"]) / 2)


def test_the_summary_the_card_and_the_sweepers_number_tell_of_accuracies(
    measured, tiny_folder, tasks, tmp_path, capsys
):
    record, folder = measured
    print_summary(record, folder)
    text = capsys.readouterr().out
    mean = record["metrics"]["zero_shot"]["mean"]
    assert re.search(
        r"mean of 2 .* {:.4f} ± .* {:.4f} ± .* {:.4f} ± ".format(*map(mean.get, ("dense", "pruned", "difference"))),
        text,
    )
    assert "first" not in text
    card = (folder / "model" / "README.md").read_text()
    assert (
        f"| mean of alone, pair | | | | {mean['dense']:.4f} ± " in card
        and "| alone, version 2.5 | acc | 0 | 23 |" in card
    )
    limited = run(
        evaluated(tiny_folder, tasks / "alone.yaml", "evaluation.limit=5", "evaluation.datasets=[]"), tmp_path
    )
    print_summary(limited, tmp_path)
    assert "only the first 5 documents of each task" in " ".join(capsys.readouterr().out.split())
    assert "only the first 5 documents of each" in model_card(limited)
    alone = limited["metrics"]["zero_shot"]["tasks"]["alone"]
    assert Outcome(tmp_path, "finished", record=limited).metric == pytest.approx(1 - alone["pruned"]["acc"])
    assert (alone["documents"], alone["documents_in_all"]) == (5, 23)
    print_sweep([json.loads(to_json(Outcome(folder, "finished", record=made))) for made in (limited, record)])
    told = capsys.readouterr().out
    assert re.search(rf"{1 - alone['pruned']['acc']:.4f}\s+\(zero-shot error\)", told) and "(perplexity)" in told


def test_wandb_gets_every_metric_of_every_task(tiny_folder, tasks, tmp_path):
    config = evaluated(tiny_folder, tasks, "tracking=offline")
    record = run(config, tmp_path)
    (file,) = tmp_path.rglob("*.wandb")
    finals = wandb_run(file)["summary"]
    shown = record["metrics"]["zero_shot"]["tasks"]
    for name in ("alone", "pair", "shown", "plain"):
        for metric, value in shown[name]["pruned"].items():
            assert finals[f"zero_shot/{name}/{metric}"] == value
            assert finals[f"zero_shot/{name}/{metric}_dense"] == shown[name]["dense"][metric]
    assert finals["zero_shot/mean/pruned"] == record["metrics"]["zero_shot"]["mean"]["pruned"]


def test_evaluating_changes_no_weight_and_the_run_leaves_no_model(tiny_folder, tasks, tmp_path, measured):
    plain = run(tiny(tiny_folder, "method=magnitude", "sparsity.ratio=0.8", "save_model=true"), tmp_path / "plain")
    first, second = (
        AutoModelForCausalLM.from_pretrained(folder / "model").state_dict()
        for folder in (tmp_path / "plain", measured[1])
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert plain["metrics"]["perplexity"] == measured[0]["metrics"]["perplexity"]
    run(evaluated(tiny_folder, tasks), tmp_path / "unsaved")
    left = {path.name for path in (tmp_path / "unsaved").iterdir()}
    assert left == {"result.json", "blocks.jsonl", "windows.parquet", "documents.parquet"}


@pytest.mark.parametrize("where", ["cpu", "disk"])
def test_streamed_blocks_give_the_same_answers(where, tiny_folder, tasks, tmp_path, measured):
    record = run(evaluated(tiny_folder, tasks, f"offload={where}"), tmp_path)
    assert record["metrics"]["zero_shot"]["tasks"] == measured[0]["metrics"]["zero_shot"]["tasks"]
    assert pandas.read_parquet(tmp_path / "documents.parquet").equals(
        pandas.read_parquet(measured[1] / "documents.parquet")
    )


def test_several_processes_give_the_answers_of_one(tiny_folder, tasks, tmp_path):
    """One request at a time, so that what runs together is the same; shots are drawn for each process alone."""
    names = f"evaluation.tasks=[{tasks}/alone.yaml,{tasks}/plain.yaml]"
    changes = ["evaluation=full", names, "evaluation.task_batch_size=1", "method=magnitude", "sparsity.ratio=0.8"]
    changes += ["calibration.samples=4", "calibration.seq_len=32", "evaluation.max_windows=4", "tracking=disabled"]
    done = torchrun(2, *changes, f"model.path={tiny_folder}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("outputs/*/*/result.json")
    ours = json.loads(path.read_text())["metrics"]["zero_shot"]
    one = run(composed(*changes, f"model.path={tiny_folder}"), tmp_path / "one")["metrics"]["zero_shot"]
    assert ours["mean"] == pytest.approx(one["mean"], rel=1e-12)  # sums in another order
    assert ours["protocol"] == one["protocol"]
    tables = [pandas.read_parquet(folder / "documents.parquet") for folder in (path.parent, tmp_path / "one")]
    order = ["task", "document", "metric"]
    first, second = (table.sort_values(order, ignore_index=True) for table in tables)
    assert first.equals(second)


# -- settings --


def test_bos_and_truncated_requests_are_told(tiny_folder, tasks, tmp_path):
    choices("long", tmp_path, 6, doc_to_text="{{question * 40}}")
    shutil.copytree(tiny_folder, tmp_path / "model")
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save_pretrained(tmp_path / "model")
    for asked, begins in (("null", True), ("true", True), ("false", False)):
        config = evaluated(tmp_path / "model", tmp_path / "long.yaml", f"evaluation.add_bos_token={asked}")
        protocol = run(config, tmp_path / asked)["metrics"]["zero_shot"]["protocol"]
        assert protocol["begins_with_bos"] is begins and protocol["add_bos_token"] is yaml.safe_load(asked)
        assert protocol["truncated_requests"] == 24


def test_the_metric_asked_for_stands_for_the_tasks_that_have_it(tiny_folder, tasks, tmp_path):
    record = run(evaluated(tiny_folder, tasks, "evaluation.metric=acc_norm"), tmp_path)
    zero_shot = record["metrics"]["zero_shot"]
    metrics = {name: task["metric"] for name, task in zero_shot["tasks"].items()}
    assert metrics == {"alone": "acc_norm", "pair": "acc", "shown": "acc", "plain": "acc_norm"}


def test_shots_asked_for_are_given(tiny_folder, tmp_path):
    choices("shots", tmp_path, 8, fewshot_split="test")
    records = [
        run(evaluated(tiny_folder, tmp_path / "shots.yaml", f"evaluation.num_fewshot={n}"), tmp_path / str(n))
        for n in (0, 1)
    ]
    zero_shots = [record["metrics"]["zero_shot"] for record in records]
    assert [part["tasks"]["shots"]["shots"] for part in zero_shots] == [0, 1]
    assert zero_shots[0]["protocol"]["requests_sha256"] != zero_shots[1]["protocol"]["requests_sha256"]


def test_a_chat_template_is_used_where_there_is_one_and_missed_before_pruning(tiny_folder, tasks, tmp_path):
    ask = "evaluation.chat_template=true"
    with pytest.raises(ModelError, match=r"has no chat template; set evaluation.chat_template=false"):
        run(evaluated(tiny_folder, tasks, ask), tmp_path / "absent")
    assert not (tmp_path / "absent" / "blocks.jsonl").exists()
    shutil.copytree(tiny_folder, tmp_path / "chatty")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}model:"
    tokenizer.save_pretrained(tmp_path / "chatty")
    record = run(evaluated(tmp_path / "chatty", tasks, ask), tmp_path / "there")
    plain = run(evaluated(tmp_path / "chatty", tasks), tmp_path / "plain")
    protocols = [part["metrics"]["zero_shot"]["protocol"] for part in (record, plain)]
    assert protocols[0]["chat_template"] is True
    assert protocols[0]["requests_sha256"] != protocols[1]["requests_sha256"]


# -- what is wrong with tasks is said before anything is pruned --


def bad_tasks(folder: Path) -> dict[str, str]:
    """Folders with something wrong, and what has to be said about each."""
    (folder / "empty").mkdir()
    task_yaml("gone", folder / "gone", dataset_kwargs={"data_files": {"test": str(folder / "gone.json")}})
    (folder / "broken").mkdir()
    (folder / "broken" / "broken.yaml").write_text("task: broken\n  metric_list: [")
    task_yaml("remote", folder / "remote", dataset_path="somebody/no-such-dataset")
    (folder / "script").mkdir()
    (folder / "script" / "data.py").write_text("import datasets\n")
    task_yaml("script", folder / "script", dataset_path=str(folder / "script" / "data.py"))
    (folder / "missing").mkdir()
    (folder / "missing" / "group.yaml").write_text(yaml.safe_dump({"group": "half", "task": ["nowhere"]}))
    (folder / "twice").mkdir()
    for file in ("first", "second"):
        choices("same", folder / "twice", 3)
        (folder / "twice" / "same.yaml").rename(folder / "twice" / f"{file}.yaml")
    code = folder / "unsafe"
    code.mkdir()
    choices("unsafe", code, 3, unsafe_code=True)
    return {
        "empty": "holds no YAML of an lm-eval task",
        "gone": "the task gone can't be loaded",
        "broken": "broken.yaml can't be read",
        "remote": "(somebody/no-such-dataset) of the task remote can't be loaded (no network, and not in the",
        "script": "comes with code of its own, which datasets",
        "missing": "the group half names nowhere, which lm-eval does not know",
        "twice": "both define same; rename one",
        "unsafe": "runs code that the model writes",
    }


def test_what_is_wrong_with_a_folder_of_tasks_is_a_sentence_each(tmp_path, tasks):
    wrong = bad_tasks(tmp_path)
    for name, message in wrong.items():
        with pytest.raises(ConfigError) as caught:
            load_tasks([str(tmp_path / name)])
        (problem,) = caught.value.problems
        assert message in problem and "\n" not in problem and "; " in problem, problem
    with pytest.raises(ConfigError) as caught:
        load_tasks([str(tmp_path / name) for name in wrong])
    assert len(caught.value.problems) == len(wrong)
    with pytest.raises(ConfigError, match=r"leads to alone twice"):
        load_tasks([f"{tasks}/alone.yaml", str(tasks)])


def test_names_are_lm_evals_and_an_unknown_one_gets_the_nearest(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_tasks(["arc_chalenge", "bundled", "boolq"])
    unknown, offline = caught.value.problems
    assert unknown.endswith("did you mean arc_challenge?") and "'arc_chalenge'" in unknown
    assert "of the task boolq can't be loaded (no network, and not in the local cache" in offline


def test_the_command_says_what_is_wrong_with_tasks_before_the_model_is_loaded(tmp_path, tiny_folder):
    both = ["evaluation=zero_shot", "evaluation.tasks=[bundeld]", f"model.path={tiny_folder}", "tracking=disabled"]
    done = statprune(*both, cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("statprune: ")]
    assert "did you mean bundled?" in line and "loading" not in done.stderr
    assert not list(tmp_path.rglob("result.json"))
    (tmp_path / "rows.json").write_text("{}")
    wrong = ["evaluation.tasks=[./no,./rows.json,boolq,paper]", "evaluation.limit=0", "evaluation.num_fewshot=-1"]
    done = statprune("evaluation=zero_shot", *wrong, "evaluation.task_batch_size=0", cwd=tmp_path)
    lines = done.stderr.splitlines()
    assert done.returncode == 1 and len(lines) == 6 and all(line.startswith("statprune: evaluation.") for line in lines)
    assert "./rows.json, which is no .yaml file" in done.stderr
    assert "has boolq twice" in done.stderr and "./no, which does not exist" in done.stderr


def test_a_template_that_fits_no_document_fails_before_pruning(tiny_folder, tmp_path):
    choices("bent", tmp_path, 4, doc_to_choice="{{choices[7].upper()}}")
    with pytest.raises((ConfigError, DataError), match=r"mend"):
        run(evaluated(tiny_folder, tmp_path), tmp_path / "run")
    assert not (tmp_path / "run" / "blocks.jsonl").exists()


# -- failures after pruning, and what is remembered --


def test_an_evaluation_that_fails_after_pruning_goes_on_without_pruning_again(
    tiny_folder, tasks, tmp_path, measured, monkeypatch
):
    measure = ZeroShot.measure

    def fails(self, model, name):
        if name == "pruned":
            raise DataError("the disk of the tasks went away")
        return measure(self, model, name)

    monkeypatch.setattr(ZeroShot, "measure", fails)
    for save, place in (("false", UNSAVED), ("true", "model")):
        folder, config = tmp_path / save, evaluated(tiny_folder, tasks, f"save_model={save}")
        with pytest.raises(DataError, match="went away"):
            run(config, folder)
        kept = json.loads((folder / "result.json").read_text())
        assert kept["pending"] == {"evaluation": "zero_shot", "model": place}
        assert kept["metrics"]["perplexity"] == measured[0]["metrics"]["perplexity"]
        assert kept["metrics"]["zero_shot"]["mean"]["pruned"] is None
        assert kept["metrics"]["zero_shot"]["mean"]["dense"] == measured[0]["metrics"]["zero_shot"]["mean"]["dense"]
    monkeypatch.undo()
    for save, later in (("false", "false"), ("true", "true"), ("false", "true")):
        folder = tmp_path / f"{save}-{later}"
        shutil.copytree(tmp_path / save, folder)
        pruned_at = (folder / "blocks.jsonl").stat().st_mtime_ns
        if save == later == "true":
            (folder / "documents.parquet").write_bytes(b"half")
        config = evaluated(tiny_folder, tasks, f"save_model={later}")
        record = complete(config, folder, finished_record(config, folder))
        assert "pending" not in record and record["metrics"] == measured[0]["metrics"]
        assert json.loads((folder / "result.json").read_text())["metrics"] == record["metrics"]
        assert (folder / "blocks.jsonl").stat().st_mtime_ns == pruned_at
        assert (folder / "model" / "README.md").exists() is (later == "true") and not (folder / UNSAVED).exists()
        tables = [pandas.read_parquet(place / "documents.parquet") for place in (folder, measured[1])]
        assert tables[0].equals(tables[1])


def test_a_pending_run_without_its_model_is_run_again(tiny_folder, tasks, tmp_path, monkeypatch):
    config = evaluated(tiny_folder, tasks)
    monkeypatch.setattr("statprune.runs.pipeline._save", lambda *_: ModelError("the disk is full"))
    monkeypatch.setattr(ZeroShot, "measure", _failing_when_pruned(ZeroShot.measure))
    with pytest.raises(DataError):
        run(config, tmp_path)
    assert json.loads((tmp_path / "result.json").read_text())["pending"]["model"] is None
    assert finished_record(config, tmp_path) is None


def _failing_when_pruned(measure):
    def fails(self, model, name):
        if name == "pruned":
            raise DataError("no")
        return measure(self, model, name)

    return fails


KILLER = """
import os, pathlib, signal

def results(doc, results):
    if pathlib.Path("armed").exists() and any(pathlib.Path(".").glob("outputs/*/*/.pruned/config.json")):
        os.kill(os.getpid(), signal.SIGKILL)
    return {"acc": float(max(results)[0] == results[doc["label"]][0])}
"""


def test_a_run_that_is_killed_in_its_evaluation_goes_on_from_the_pruned_model(tiny_folder, tmp_path):
    (tmp_path / "tasks").mkdir()
    choices("deadly", tmp_path / "tasks", 6)
    (tmp_path / "tasks" / "killer.py").write_text(KILLER)
    path = tmp_path / "tasks" / "deadly.yaml"
    path.write_text(path.read_text() + "process_results: !function killer.results\n")
    changes = ["evaluation=full", "evaluation.tasks=./tasks", f"model.path={tiny_folder}", "calibration.samples=4"]
    changes += ["calibration.seq_len=32", "evaluation.max_windows=4", "tracking=disabled"]
    (tmp_path / "armed").touch()
    assert statprune(*changes, cwd=tmp_path).returncode == -9
    (tmp_path / "armed").unlink()
    done = statprune(*changes, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "which is not pruned again" in done.stderr and "deadly" in done.stdout
    (folder,) = tmp_path.glob("outputs/default/*")
    record = json.loads((folder / "result.json").read_text())
    assert "pending" not in record and record["metrics"]["zero_shot"]["tasks"]["deadly"]["pruned"]["acc"] is not None
    assert not (folder / ".pruned").exists()
    done = statprune(*changes, cwd=tmp_path)
    assert done.returncode == 0 and "finished already" in done.stderr


def test_dense_accuracies_are_remembered_for_the_same_requests_only(tiny_folder, tasks, tmp_path, measured, caplog):
    cache = f"cache={tmp_path / 'cache'}"

    def again(*changes):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return run(evaluated(tiny_folder, tasks, cache, *changes), folder, Workbench(keeps=False))

    first, second = again(), again("seed=1")
    assert "the dense accuracies" not in first["reused"] and "the dense accuracies" in second["reused"]
    assert second["metrics"]["zero_shot"] == first["metrics"]["zero_shot"] == measured[0]["metrics"]["zero_shot"]
    assert "the dense accuracies" not in again("evaluation.num_fewshot=1")["reused"]
    for file in (tmp_path / "cache" / "zero_shot").glob("*.json"):
        file.write_text(file.read_text()[:100])
    damaged = again("seed=2")
    assert "the dense accuracies" not in damaged["reused"] and "is damaged and not used" in caplog.text
    assert damaged["metrics"]["zero_shot"] == first["metrics"]["zero_shot"]


def test_settings_of_tasks_are_no_part_of_a_run_without_tasks():
    plain = composed()
    assert "tasks" not in plain.resolved()["evaluation"] and "limit" not in plain.resolved()["evaluation"]
    assert composed("evaluation.limit=3").hash() == plain.hash()
    assert composed("evaluation=full", "evaluation.tasks=bundled").evaluation.tasks == ["bundled"]


def test_other_kinds_of_requests_have_the_harness_numbers_too(tiny_folder, tmp_path, monkeypatch):
    """Perplexity of texts, words that have to be guessed (its error is bootstrapped) and generated ones."""
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = "<s>"
    shutil.copytree(tiny_folder, tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    kinds = {
        "guess": {"output_type": "loglikelihood", "metric_list": [{"metric": "acc"}, {"metric": "perplexity"}]},
        "text": {"output_type": "loglikelihood_rolling", "metric_list": [{"metric": "word_perplexity"}]},
        "write": {"output_type": "generate_until", "metric_list": [{"metric": "exact_match"}]},
    }
    kinds["write"]["generation_kwargs"] = {"until": ["one"], "max_gen_toks": 8}
    (tmp_path / "tasks").mkdir()
    for name, kind in kinds.items():
        choices(name, tmp_path / "tasks", 9, doc_to_choice=None, doc_to_target="{{' ' + choices[0]}}", **kind)
    config = evaluated(tmp_path / "model", tmp_path / "tasks", "save_model=true", "evaluation.datasets=[]")
    ours = run(config, tmp_path / "run")["metrics"]["zero_shot"]
    monkeypatch.setenv("DISABLE_MULTIPROC", "1")
    theirs = simple_evaluate(
        "hf",
        model_args={"pretrained": str(tmp_path / "run" / "model")},
        tasks=[*kinds],
        task_manager=TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False),
        batch_size=16,
        device="cpu",
    )["results"]
    for name, task in ours["tasks"].items():
        for metric, value in task["pruned"].items():
            their = theirs[name][f"{metric},none"]
            assert value == (None if their == "N/A" else their)
    assert ours["tasks"]["guess"]["pruned"]["perplexity_stderr"] > 0
    assert ours["averaged"] == ["guess", "write"]


def test_groups_may_hold_groups_and_tags(tmp_path):
    for name, tag in (("first", "marked"), ("second", "marked"), ("third", "other")):
        choices(name, tmp_path, 3, tag=tag)
    inner = {"group": "inner", "task": ["third"]}
    (tmp_path / "outer.yaml").write_text(yaml.safe_dump({"group": "outer", "task": ["marked", inner]}))
    suite = load_tasks([str(tmp_path)])
    assert [item.name for item in suite.items] == ["outer"]
    assert sorted(task.task_name for task in suite.tasks) == ["first", "second", "third"]


STRANGE = """
def endless(doc, results):
    return {"odd": float("inf")}
"""


def test_tasks_without_a_mean_and_numbers_that_are_not_finite_end_in_a_record(tiny_folder, tmp_path):
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "strange.py").write_text(STRANGE)
    odd = [{"metric": "odd", "aggregation": "mean", "higher_is_better": True}]
    choices("endless", folder, 4, metric_list=odd)
    (folder / "endless.yaml").open("a").write("process_results: !function strange.endless\n")
    text = {"output_type": "loglikelihood_rolling", "metric_list": [{"metric": "word_perplexity"}]}
    choices("text", folder, 4, doc_to_choice=None, doc_to_target="{{question}}", **text)
    cache = f"cache={tmp_path / 'cache'}"
    first, second = (
        run(evaluated(tiny_folder, folder, cache, f"seed={seed}"), tmp_path / str(seed), Workbench(keeps=False))
        for seed in (0, 1)
    )
    assert "the dense accuracies" in second["reused"]
    for record in (first, second):
        zero_shot = record["metrics"]["zero_shot"]
        assert zero_shot["tasks"]["endless"]["pruned"]["odd"] is None and zero_shot["mean"]["pruned"] is None
        assert zero_shot["averaged"] == ["endless"]
        print_summary(record, tmp_path)
        assert "| endless, version 2.5 | odd | 0 | 4 | none | none |" in model_card(record)
    alone = run(evaluated(tiny_folder, folder / "text.yaml"), tmp_path / "alone")
    assert alone["metrics"]["zero_shot"]["averaged"] == [] and alone["metrics"]["zero_shot"]["mean"]["dense"] is None


def test_tasks_that_write_need_a_token_that_ends(tiny_folder, tmp_path):
    kind = {"output_type": "generate_until", "metric_list": [{"metric": "exact_match"}]}
    choices("write", tmp_path, 3, doc_to_choice=None, doc_to_target="{{question}}", **kind)
    with pytest.raises(ModelError, match="tasks write let the model write, and its tokenizer has no end-of-sequence"):
        run(evaluated(tiny_folder, tmp_path), tmp_path / "run")


def test_zero_shot_without_tasks_is_a_mistake():
    with pytest.raises(ConfigError, match=r"evaluation=full has no evaluation\.tasks"):
        composed("evaluation=full", "evaluation.tasks=[]")


def test_a_model_of_an_earlier_run_does_not_stay_beside_another_record(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    # the second and the third run prune that very model
    for path, stays in ((tiny_folder, False), (tmp_path / "model", True), ("'~/model'", True)):
        shutil.rmtree(tmp_path / "model", ignore_errors=True)
        shutil.copytree(tiny_folder, tmp_path / "model")
        (tmp_path / SAVES).touch()
        _remove_model(tiny(path), tmp_path)
        assert (tmp_path / "model").exists() is stays
