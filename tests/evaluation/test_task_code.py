"""Code that task YAMLs of the user's bring along does not run unless it is trusted."""

from pathlib import Path

import lm_eval.utils
import pytest
import yaml

from statprune.errors import ConfigError, DataError
from statprune.evaluation.task_code import code_problems, sandboxed
from statprune.evaluation.tasks import OWN_TASKS, TaskOptions, load_tasks
from statprune.evaluation.zero_shot import ZeroShot
from tests.helpers.command import composed
from tests.helpers.models import tiny_llama, tiny_tokenizer
from tests.helpers.tasks import choices, task_yaml

CODE = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\ndef same(docs):\n    return docs\n"
REACHING = "{{question.__class__.__mro__}} :"


def with_function(folder: Path) -> None:
    choices("calls", folder, 3)
    (folder / "code.py").write_text(CODE)
    with (folder / "calls.yaml").open("a") as file:
        file.write("process_docs: !function code.same\n")


def with_function_included(folder: Path) -> None:
    with_function(folder)
    (folder / "calls.yaml").rename(folder / "_shared")
    (folder / "outer.yaml").write_text("include: _shared\ntask: outer\n")


def with_template(folder: Path) -> None:
    choices("reaches", folder, 3, doc_to_text=REACHING)


def with_item(folder: Path) -> None:
    choices("reaches", folder, 3, doc_to_text="{{question['__class__']}}")


def with_filter(folder: Path) -> None:
    choices("reaches", folder, 3, doc_to_text="{{question | attr('__class__')}}")


def with_foreign_metric(folder: Path) -> None:
    choices("metric", folder, 3, metric_list=[{"metric": "./metric.py"}])


FOLDERS = {
    with_function: "runs code (!function code.same)",
    with_function_included: "_shared runs code",
    with_template: "reaches into Python itself (__",
    with_item: "reaches into Python itself (__class__)",
    with_filter: "reaches into Python itself (__class__)",
    with_foreign_metric: "names the metric ./metric.py",
}


@pytest.mark.parametrize("write", FOLDERS, ids=lambda write: write.__name__)
def test_a_task_that_runs_code_needs_the_switch(write, tmp_path):
    write(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_tasks([str(tmp_path)])
    (problem,) = caught.value.problems
    assert FOLDERS[write] in problem and problem.endswith("if you trust it, set evaluation.trust_task_code=true")
    assert not (tmp_path / "ran").exists()


def test_trusted_code_runs(tmp_path):
    with_function(tmp_path)
    assert load_tasks([str(tmp_path)], trust_code=True).tasks and (tmp_path / "ran").exists()


def test_a_name_that_a_template_builds_is_seen_by_the_sandbox(tmp_path):
    choices("builds", tmp_path, 3, doc_to_text="{{question | attr('_' ~ '_class_' ~ '_')}}")
    with pytest.raises((ConfigError, DataError), match=r"SecurityError|unsafe|undefined"):
        ZeroShot(load_tasks([str(tmp_path)]), tiny_llama(), tiny_tokenizer(), TaskOptions())


def test_plain_tasks_need_no_switch(tasks):
    assert code_problems(tasks) == []


def test_what_comes_with_statprune_or_lm_eval_needs_no_switch(tmp_path):
    import lm_eval.tasks

    from statprune.experiments import tasks as own

    assert own.__name__ == OWN_TASKS and code_problems(Path(own.__path__[0])) == []
    assert code_problems(Path(lm_eval.tasks.__file__).parent / "hellaswag") == []


def test_a_yaml_that_leads_back_to_itself_is_read_once(tmp_path):
    task_yaml("loop", tmp_path)
    (tmp_path / "loop.yaml").write_text(yaml.safe_dump({"task": "loop", "include": "loop.yaml"}))
    assert code_problems(tmp_path) == []


def test_the_switch_without_a_yaml_of_ones_own_is_refused():
    with pytest.raises(ConfigError, match="trust_task_code=true has no effect"):
        composed("evaluation=zero_shot", "evaluation.tasks=[bundled]", "evaluation.trust_task_code=true")


@pytest.mark.parametrize("is_on", [True, False])
def test_a_template_is_compiled_once_and_filled_in_for_each_document(is_on):
    usual = lm_eval.utils.env
    with sandboxed(is_on):
        texts = [lm_eval.utils.apply_template("{{word|upper}}\n", {"word": word}) for word in ("one", "two")]
        assert lm_eval.utils.env.from_string("{{word}}") is lm_eval.utils.env.from_string("{{word}}")
    assert texts == ["ONE\n", "TWO\n"]
    assert lm_eval.utils.env is usual and usual.from_string("{{word}}") is not usual.from_string("{{word}}")
