"""Saved models are sent to the hub: what is wrong is told before anything is pruned, what fails costs no result."""

import shutil
from datetime import UTC, datetime

import pytest

from statprune.config.hub_target import repository_problem
from statprune.errors import ConfigError
from statprune.runs.ledger import JobState
from statprune.runs.own_model import lost, owns
from statprune.runs.pipeline import run
from statprune.runs.store import MODEL, damaged_files, read_record
from statprune.runs.summary import print_summary
from tests.helpers.command import composed, tiny_job
from tests.helpers.commands import problems_of
from tests.helpers.full_disks import carried_out, counted_matrices
from tests.helpers.hub import COMMIT, Hub, a_hub
from tests.helpers.verbs import verb

QUICK = ("method=magnitude", "evaluation=none", "save_model=compressed")
TARGET = "push_to_hub=somebody/small"


@pytest.fixture
def hub(monkeypatch) -> Hub:
    return a_hub(monkeypatch)


@pytest.fixture(scope="module")
def finished(tiny_folder, tmp_path_factory):
    """A run that was not sent anywhere."""
    folder = tmp_path_factory.mktemp("pushing") / "run"
    run(tiny_job(tiny_folder, *QUICK), folder)
    return folder


@pytest.fixture
def own(finished, tmp_path):
    """A copy of it that a test may change."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def test_a_run_sends_its_model_once_it_is_recorded(hub, tiny_folder, tmp_path, capsys):
    record = carried_out(tiny_folder, tmp_path, *QUICK, TARGET, "push_private=true").record
    assert hub.names == ["whoami", "create_repo", "upload_folder"]
    made, sent = hub.calls[1][1], hub.calls[2][1]
    assert made == {"repo_id": "somebody/small", "repo_type": "model", "private": True, "exist_ok": True}
    assert sent["repo_id"] == "somebody/small" and sent["folder_path"] == str(tmp_path / MODEL)
    assert {"compressed.json", "*.safetensors", "*.safetensors.index.json"} == set(sent["delete_patterns"])
    assert hub.files == {path.name: path.read_bytes() for path in (tmp_path / MODEL).iterdir()}
    assert 'load_compressed("somebody/small")' in hub.files["README.md"].decode()
    assert record.date <= record.pushed.date <= datetime.now(UTC).isoformat()
    assert (record.pushed.repository, record.pushed.commit) == ("somebody/small", COMMIT)
    assert read_record(tmp_path) == record and not damaged_files(tmp_path, record)
    print_summary(record, tmp_path)
    assert COMMIT in capsys.readouterr().out


def test_where_a_model_is_sent_is_no_part_of_the_hash():
    assert composed(TARGET, "save_model=true", "push_private=true").hash() == composed().hash()
    assert composed().settings.push_to_hub is None


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ((TARGET,), "sends the saved model, and none is saved; set save_model=true"),
        (("save_model=true", "push_to_hub=small"), "push_to_hub=small is no repository's name; give OWNER/NAME"),
        (("save_model=true", "push_to_hub=some/body/small"), "is no repository's name; give OWNER/NAME"),
        (("save_model=true", "push_to_hub=somebody/a--b"), "push_to_hub=somebody/a--b is no repository's name ("),
        (("save_model=true", "push_private=true"), "push_private=true has no effect without push_to_hub"),
    ],
)
def test_a_target_that_cant_be_meant_is_a_mistake(overrides, told):
    with pytest.raises(ConfigError) as caught:
        composed(*overrides)
    assert len(caught.value.problems) == 1 and told in caught.value.problems[0]


def test_a_name_that_can_be_is_no_problem():
    assert repository_problem("lab/Llama-3.2_1B.pruned") is None


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"token": None}, "there is no token for the hub; run `hf auth login`, or set HF_TOKEN"),
        ({"reachable": False}, "the hub can't be reached; try again with a network"),
        ({"owner": "else"}, "the token belongs to somebody, who has no part in else; give one of somebody, lab"),
        ({"role": "read"}, "the token may only read"),
        ({"refused": True}, "the hub does not accept the token (401 nobody)"),
    ],
)
def test_what_would_fail_in_the_end_is_told_before_the_model_is_opened(how, told, tiny_folder, tmp_path, monkeypatch):
    hub = a_hub(monkeypatch, how.get("token", "hf_of_nobody"), how.get("reachable", True))
    hub.role = how.get("role", "write")
    if "refused" in how:
        monkeypatch.setattr(Hub, "whoami", lambda _: (_ for _ in ()).throw(OSError("401 nobody")))
    monkeypatch.setattr("statprune.runs.prepare.open_model", lambda *_: pytest.fail("a model was opened"))
    target = f"push_to_hub={how.get('owner', 'lab')}/small"
    outcome = carried_out(tiny_folder, tmp_path / "run", *QUICK, target)
    (reason,) = outcome.reasons
    assert outcome.state is JobState.FAILED and told in reason and reason.startswith(target)
    assert "statprune push" in reason and "upload_folder" not in hub.names
    assert not list((tmp_path / "run").iterdir())


def test_a_refused_push_leaves_the_model_and_record_that_would_be_replaced(tiny_folder, own, monkeypatch):
    a_hub(monkeypatch, None)
    before = {path: path.read_bytes() for path in own.rglob("*") if path.is_file()}
    assert carried_out(tiny_folder, own, *QUICK, TARGET, "rerun=true").state is JobState.FAILED
    assert {path: path.read_bytes() for path in own.rglob("*") if path.is_file()} == before


def test_a_model_that_could_not_be_sent_is_sent_later_without_pruning(hub, tiny_folder, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    hub.error = OSError("503 come back later")
    outcome = carried_out(tiny_folder, tmp_path, *QUICK, TARGET)
    assert outcome.state is JobState.FINISHED and outcome.record.pushed is None
    told = (
        f"could not be sent to somebody/small (OSError: 503 come back later); statprune push {tmp_path} somebody/small"
    )
    assert told in caplog.text and read_record(tmp_path).is_finished
    pruned, hub.error = counted_matrices(monkeypatch), None
    caplog.clear()
    assert carried_out(tiny_folder, tmp_path, *QUICK, TARGET).state is JobState.SKIPPED
    assert "its model was not sent to somebody/small: statprune push" in caplog.text
    assert verb("push", tmp_path, "somebody/small") == 0
    assert not pruned and read_record(tmp_path).pushed.commit == COMMIT
    caplog.clear()
    assert carried_out(tiny_folder, tmp_path, *QUICK, TARGET).state is JobState.SKIPPED
    assert "was not sent" not in caplog.text


def test_the_verb_sends_a_run_and_names_the_repository_in_the_card(hub, own, capsys):
    assert verb("push", own, "lab/small", "--private") == 0
    assert COMMIT in capsys.readouterr().out and hub.calls[1][1]["private"] is True
    assert '"lab/small"' in hub.files["README.md"].decode() and "this/folder" not in hub.files["README.md"].decode()
    record = read_record(own)
    assert record.pushed.repository == "lab/small" and not damaged_files(own, record)
    assert owns(own, MODEL, record) and not lost(own, MODEL, record)
    assert verb("push", own, "somebody/small") == 0
    assert (
        '"somebody/small"' in hub.files["README.md"].decode() and '"lab/small"' not in hub.files["README.md"].decode()
    )


def test_what_a_user_wrote_into_the_card_is_sent(hub, own):
    with (own / MODEL / "README.md").open("a") as file:
        file.write("My own words.\n")
    assert verb("push", own, "lab/small") == 0
    assert hub.files["README.md"].decode().endswith("My own words.\n")


@pytest.mark.parametrize(
    ("repository", "told"),
    [("small", "is no repository's name"), ("else/small", "who has no part in else")],
)
def test_what_cant_be_sent_ends_in_a_sentence(hub, own, repository, told, capsys):
    before = (own / "result.json").read_bytes()
    assert verb("push", own, repository) == 1
    assert told in capsys.readouterr().err and (own / "result.json").read_bytes() == before
    assert "upload_folder" not in hub.names


def test_a_damaged_model_is_not_sent(hub, own, capsys):
    file = own / MODEL / "compressed-00001.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    assert verb("push", own, "lab/small") == 1
    assert "is damaged" in capsys.readouterr().err and not hub.calls


def test_a_push_that_fails_leaves_the_record(hub, own, capsys):
    hub.error = OSError("503")
    before = (own / "result.json").read_bytes()
    assert verb("push", own, "lab/small") == 1
    assert "could not be sent to lab/small (OSError: 503)" in capsys.readouterr().err
    assert (own / "result.json").read_bytes() == before


def test_a_sweep_does_not_send_its_models_to_one_repository(tiny_folder):
    several = problems_of("-m", f"model.path={tiny_folder}", "method=magnitude,wanda", "save_model=true", TARGET)
    assert len(several) == 1 and "replace each other there" in several[0]
    assert not problems_of("-m", f"model.path={tiny_folder}", "method=magnitude", "save_model=true", TARGET)
