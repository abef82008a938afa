"""Zero-shot accuracy: what the record holds, how tasks are asked, and what is wrong with them before pruning."""

import re
import shutil

import pandas
import pytest
import torch
import yaml
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM

from statprune.errors import ConfigError, DataError, ModelError
from statprune.runs.model_card import model_card
from statprune.runs.pipeline import run
from statprune.runs.store import read_record
from statprune.runs.summary import print_summary
from statprune.runs.workbench import Workbench
from tests.helpers.command import composed, in_processes, tiny_job
from tests.helpers.models import tiny_tokenizer
from tests.helpers.tasks import choices, evaluated

CHAT_TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}model:"
STRANGE = """
def endless(doc, results):
    return {"odd": float("inf")}
"""


def test_a_group_and_its_tasks_are_in_the_record(measured):
    record, _ = measured
    assert set(record.zero_shot.tasks) == {"alone", "pair", "shown", "plain"}


def test_the_mean_is_over_the_single_tasks_and_groups(measured):
    record, _ = measured
    assert record.zero_shot.averaged == ["alone", "pair"]


def test_shots_are_those_of_each_task(measured):
    tasks = measured[0].zero_shot.tasks
    assert [tasks[name].shots for name in ("alone", "shown", "plain")] == [0, 2, 0]


def test_the_protocol_holds_everything_else_that_changes_a_number(measured):
    protocol = measured[0].zero_shot.protocol
    assert protocol.lm_eval.startswith("0.4.") and protocol.dtype == "float32"
    assert protocol.batch_size == 16 and protocol.limit is None and protocol.max_length == 64
    assert protocol.chat_template is False and protocol.requests_with_bos == 0
    assert protocol.requests == 4 * (23 + 9 + 30)  # acc_norm asks for nothing more
    assert re.fullmatch(r"[0-9a-f]{64}", protocol.requests_sha256)


def test_a_task_is_recorded_with_its_version_metrics_and_documents(measured):
    alone = measured[0].zero_shot.tasks["alone"]
    assert (alone.version, alone.metric, alone.documents, alone.limit) == (2.5, "acc", 23, None)
    assert set(alone.pruned) == {"acc", "acc_stderr", "acc_norm", "acc_norm_stderr"}


def test_the_harness_is_one_of_the_environments_packages(measured):
    record, _ = measured
    assert record.environment.packages["lm_eval"] == record.zero_shot.protocol.lm_eval


@pytest.fixture(scope="module")
def without_tasks(lively_folder, tmp_path_factory):
    """The record and folder of the same run without its tasks."""
    folder = tmp_path_factory.mktemp("without_tasks")
    return run(tiny_job(lively_folder, "method=magnitude", "sparsity.ratio=0.8", "save_model=true"), folder), folder


def test_evaluating_changes_no_weight(without_tasks, measured):
    first, second = (
        AutoModelForCausalLM.from_pretrained(folder / "model").state_dict()
        for folder in (without_tasks[1], measured[1])
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_evaluating_changes_no_perplexity(without_tasks, measured):
    assert without_tasks[0].perplexity == measured[0].perplexity


def test_a_run_that_saves_no_model_leaves_none(lively_folder, tasks, tmp_path):
    run(evaluated(lively_folder, tasks), tmp_path)
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"result.json", "blocks.jsonl", "windows.parquet", "documents.parquet"}


@pytest.mark.parametrize("where", ["cpu", "disk"])
def test_streamed_blocks_give_the_same_answers(where, lively_folder, tasks, tmp_path, measured):
    record = run(evaluated(lively_folder, tasks, f"offload={where}"), tmp_path)
    assert record.zero_shot.tasks == measured[0].zero_shot.tasks
    assert pandas.read_parquet(tmp_path / "documents.parquet").equals(
        pandas.read_parquet(measured[1] / "documents.parquet")
    )


@pytest.fixture(scope="module")
def in_two_processes(lively_folder, tasks, tmp_path_factory):
    """Folders of a run by two processes, and of the same run by one.

    One request at a time, so that what runs together is the same; shots are drawn for each process alone.
    """
    folder = tmp_path_factory.mktemp("two")
    names = f"evaluation.tasks=[{tasks}/alone.yaml,{tasks}/plain.yaml]"
    changes = ["evaluation=full", names, "evaluation.task_batch_size=1", "method=magnitude", "sparsity.ratio=0.8"]
    changes += ["calibration.samples=4", "calibration.seq_len=32", "evaluation.max_windows=4", "tracking=disabled"]
    done = in_processes(2, *changes, f"model.path={lively_folder}", cwd=folder)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("outputs/*/*/result.json")
    run(composed(*changes, f"model.path={lively_folder}"), folder / "one")
    return path.parent, folder / "one"


@pytest.mark.long
def test_several_processes_measure_the_accuracies_of_one(in_two_processes):
    two, one = (read_record(folder).zero_shot for folder in in_two_processes)
    assert vars(two.mean) == pytest.approx(vars(one.mean), rel=1e-12)  # sums in another order
    assert two.protocol == one.protocol


@pytest.mark.long
def test_several_processes_give_the_answers_of_one(in_two_processes):
    tables = [pandas.read_parquet(folder / "documents.parquet") for folder in in_two_processes]
    order = ["task", "document", "metric"]
    two, one = (table.sort_values(order, ignore_index=True) for table in tables)
    assert two.equals(one)


@pytest.mark.parametrize(("asked", "begins"), [("null", 24), ("true", 24), ("false", 0)])
def test_bos_and_truncated_requests_are_in_the_protocol(asked, begins, lively_folder, tmp_path):
    choices("long", tmp_path, 6, doc_to_text="{{question * 40}}")
    shutil.copytree(lively_folder, tmp_path / "model")
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save_pretrained(tmp_path / "model")
    config = evaluated(tmp_path / "model", tmp_path / "long.yaml", f"evaluation.add_bos_token={asked}")
    protocol = run(config, tmp_path / "run").zero_shot.protocol
    assert protocol.requests_with_bos == begins and protocol.add_bos_token is yaml.safe_load(asked)
    assert protocol.truncated_requests == 24


def test_the_chosen_metric_stands_for_the_tasks_that_have_it(lively_folder, tasks, tmp_path):
    record = run(evaluated(lively_folder, tasks, "evaluation.metric=acc_norm"), tmp_path)
    metrics = {name: task.metric for name, task in record.zero_shot.tasks.items()}
    assert metrics == {"alone": "acc_norm", "pair": "acc", "shown": "acc", "plain": "acc_norm"}


def test_the_number_of_shots_can_be_chosen(lively_folder, tmp_path):
    choices("shots", tmp_path, 8, fewshot_split="test")
    none, one = (
        run(
            evaluated(lively_folder, tmp_path / "shots.yaml", f"evaluation.num_fewshot={shots}"), tmp_path / str(shots)
        ).zero_shot
        for shots in (0, 1)
    )
    assert (none.tasks["shots"].shots, one.tasks["shots"].shots) == (0, 1)
    assert none.protocol.requests_sha256 != one.protocol.requests_sha256


def test_a_missing_chat_template_is_an_error_before_pruning(lively_folder, tasks, tmp_path):
    with pytest.raises(ModelError, match=r"has no chat template; set evaluation.chat_template=false"):
        run(evaluated(lively_folder, tasks, "evaluation.chat_template=true"), tmp_path)
    assert not (tmp_path / "blocks.jsonl").exists()


def test_a_chat_template_is_used_where_it_is_asked_for(lively_folder, tasks, tmp_path):
    shutil.copytree(lively_folder, tmp_path / "chatty")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(tmp_path / "chatty")
    chat = run(evaluated(tmp_path / "chatty", tasks, "evaluation.chat_template=true"), tmp_path / "chat")
    plain = run(evaluated(tmp_path / "chatty", tasks), tmp_path / "plain")
    assert chat.zero_shot.protocol.chat_template is True
    assert chat.zero_shot.protocol.requests_sha256 != plain.zero_shot.protocol.requests_sha256


def test_a_template_that_fits_no_document_is_an_error_before_pruning(lively_folder, tmp_path):
    choices("bent", tmp_path, 4, doc_to_choice="{{choices[7].upper()}}")
    with pytest.raises((ConfigError, DataError), match=r"mend"):
        run(evaluated(lively_folder, tmp_path), tmp_path / "run")
    assert not (tmp_path / "run" / "blocks.jsonl").exists()


def test_tasks_that_let_the_model_write_need_an_end_of_sequence_token(lively_folder, tmp_path):
    kind = {"output_type": "generate_until", "metric_list": [{"metric": "exact_match"}]}
    choices("write", tmp_path, 3, doc_to_choice=None, doc_to_target="{{question}}", **kind)
    with pytest.raises(ModelError, match="tasks write let the model write, and its tokenizer has no end-of-sequence"):
        run(evaluated(lively_folder, tmp_path), tmp_path / "run")


@pytest.fixture(scope="module")
def odd_tasks(tmp_path_factory):
    """A task whose metric is infinite, and one whose metric is no mean over documents."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "strange.py").write_text(STRANGE)
    odd = [{"metric": "odd", "aggregation": "mean", "higher_is_better": True}]
    choices("endless", folder, 4, metric_list=odd)
    with (folder / "endless.yaml").open("a") as file:
        file.write("process_results: !function strange.endless\n")
    text = {"output_type": "loglikelihood_rolling", "metric_list": [{"metric": "word_perplexity"}]}
    choices("text", folder, 4, doc_to_choice=None, doc_to_target="{{question}}", **text)
    return folder


@pytest.fixture(scope="module")
def odd_runs(lively_folder, odd_tasks, tmp_path_factory):
    """Records of a run that measures the dense model, and of one that takes its answers from the cache."""
    folder = tmp_path_factory.mktemp("odd_runs")
    return [
        run(
            evaluated(
                lively_folder,
                odd_tasks,
                f"cache={folder / 'cache'}",
                f"seed={seed}",
                "evaluation.trust_task_code=true",
            ),
            folder / str(seed),
            Workbench(holds_model=False),
        )
        for seed in (0, 1)
    ]


def test_dense_answers_that_are_not_finite_are_reused_too(odd_runs):
    assert "the dense accuracies" in odd_runs[1].reused


@pytest.mark.parametrize("index", [0, 1])
def test_metrics_that_are_not_finite_are_none(odd_runs, index):
    zero_shot = odd_runs[index].zero_shot
    assert zero_shot.tasks["endless"].pruned["odd"] is None and zero_shot.mean.pruned is None
    assert zero_shot.averaged == ["endless"]


@pytest.mark.parametrize("index", [0, 1])
def test_metrics_that_are_not_finite_can_be_printed_and_put_on_a_card(odd_runs, index, tmp_path):
    print_summary(odd_runs[index], tmp_path)
    assert "| endless, version 2.5 | odd | 0 | 4 | none | none |" in model_card(odd_runs[index])


def test_a_task_without_a_mean_over_documents_is_not_averaged(lively_folder, odd_tasks, tmp_path):
    zero_shot = run(evaluated(lively_folder, odd_tasks / "text.yaml"), tmp_path).zero_shot
    assert zero_shot.averaged == [] and zero_shot.mean.dense is None
