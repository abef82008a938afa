"""What is wrong with a tokenizer is said before the model is opened."""

import json
import shutil

import pytest

from statprune.errors import DataError, ModelError, StatpruneError
from statprune.runs import prepare
from statprune.runs.pipeline import run
from tests.helpers.command import tiny_job
from tests.helpers.models import tiny_tokenizer
from tests.helpers.tasks import choices


@pytest.fixture
def unopened(monkeypatch):
    """No model is opened: an attempt is a failure of another kind."""

    def opened(context):
        raise AssertionError("the model was opened")

    monkeypatch.setattr(prepare, "_opened", opened)


@pytest.fixture
def asked(tiny_folder, tmp_path):
    """A model's folder of the test's own, and the overrides that ask it a task."""
    shutil.copytree(tiny_folder, tmp_path / "model")
    (tmp_path / "tasks").mkdir()
    choices("alone", tmp_path / "tasks", 3)
    return tmp_path / "model", ["evaluation=full", f"evaluation.tasks=[{tmp_path}/tasks]"]


@pytest.mark.usefixtures("unopened")
def test_a_tokenizer_without_bos_and_eos_is_found_first(asked, tmp_path):
    folder, overrides = asked
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = None
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match="has neither a BOS nor an EOS token"):
        run(tiny_job(folder, *overrides), tmp_path / "run")


@pytest.mark.usefixtures("unopened")
@pytest.mark.parametrize(
    ("override", "sentence"),
    [("evaluation.chat_template=true", "has no chat template"), ("method=dense", "the model was opened")],
)
def test_an_option_that_the_tokenizer_can_not_follow_is_found_first(override, sentence, asked, tmp_path):
    folder, overrides = asked
    with pytest.raises((StatpruneError, AssertionError), match=sentence):
        run(tiny_job(folder, *overrides, override), tmp_path / "run")


@pytest.mark.usefixtures("unopened")
def test_another_models_tokenizer_is_found_first(asked, tmp_path):
    folder, overrides = asked
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 40}))
    with pytest.raises(ModelError, match="for plain English, and the model's vocab_size is 40; give the tokenizer"):
        run(tiny_job(folder, *overrides), tmp_path / "run")


@pytest.mark.usefixtures("unopened")
def test_conversations_without_a_template_are_found_first(tiny_folder, tmp_path):
    chat = {"messages": [{"role": "user", "content": "words"}]}
    (tmp_path / "chats.jsonl").write_text(json.dumps(chat))
    with pytest.raises(DataError, match=r"calibration\.path=.* holds conversations, and the model's tokenizer has no"):
        run(tiny_job(tiny_folder, "calibration=text", f"calibration.path={tmp_path}/chats.jsonl"), tmp_path / "run")
