"""The command as a shell sees it: verbs, exit statuses, pipes and interrupts."""

import os
import re
import signal
import subprocess
import sys
import time
from importlib import import_module
from importlib.metadata import version
from inspect import signature

import pytest

from statprune.cli.interrupts import INTERRUPTED
from statprune.cli.main import VERBS
from statprune.runs.store import read_record
from tests.helpers.command import statprune
from tests.helpers.verbs import verb

COMMAND = [sys.executable, "-m", "statprune"]
SMALL = ["calibration.samples=4", "calibration.seq_len=32", "evaluation.max_windows=4", "tracking=disabled"]
# the same with thousands of windows, each evaluated alone: it goes on for longer than anyone waits here
LONG = [*SMALL[:1], "calibration.seq_len=8", "evaluation.batch_size=1", "tracking=disabled", "cache=null"]


def test_the_version_is_ours(tmp_path):
    done = statprune("--version", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout == f"statprune {version('statprune')}\n" and done.stderr == ""


@pytest.mark.parametrize("name", VERBS)
def test_a_mistyped_verb_gets_a_suggestion(name, capsys):
    mistyped = name.replace("e", "a") + "s"
    assert verb(mistyped) == 1
    assert capsys.readouterr().err.endswith(f"did you mean statprune {name}?\n")


def test_a_word_that_is_like_no_verb_gets_all_verbs(capsys):
    assert verb("xyzzy") == 1
    verbs = ", ".join(VERBS)
    message = f"statprune: xyzzy is neither a verb nor key=value; the verbs are {verbs}\n"
    assert capsys.readouterr().err == message


def test_a_mistyped_verb_is_answered_in_the_shell_too(tmp_path):
    done = statprune("reprot", cwd=tmp_path)
    assert done.returncode == 1 and "did you mean statprune report?" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("name", VERBS)
def test_the_module_of_a_verb_has_an_example_and_arguments_and_runs(name):
    module = import_module(VERBS[name].module)
    assert module.EXAMPLE.startswith(f"statprune {name}")
    assert [*signature(module.add_arguments).parameters] == ["parser"]
    assert [*signature(module.run).parameters] == ["options"]


@pytest.mark.parametrize("name", VERBS)
def test_an_empty_argument_of_a_verb_is_refused(name, capsys):  # as a path it would be the working folder
    assert verb(name, "") == 1
    error = capsys.readouterr().err
    assert "an argument is empty" in error and error.endswith(f"statprune {name} --help lists what there is\n")


@pytest.mark.parametrize("name", VERBS)
def test_the_help_of_a_verb_shows_its_example(name, capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        verb(name, "--help")
    assert import_module(VERBS[name].module).EXAMPLE in capsys.readouterr().out


@pytest.mark.parametrize("arguments", ["--help", "--cfg job"])
def test_output_that_is_cut_off_by_head_ends_without_a_traceback(arguments, tmp_path):
    line = f"{sys.executable} -m statprune {arguments} | head -1"
    done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def test_a_summary_that_nobody_reads_ends_without_a_traceback(tmp_path, tiny_folder):
    reading, writing = os.pipe()
    os.close(reading)
    command = [*COMMAND, f"model.path={tiny_folder}", *SMALL]
    done = subprocess.run(command, cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(writing)
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr
    (path,) = tmp_path.glob("outputs/default/*/result.json")
    assert read_record(path.parent).is_finished


@pytest.fixture(scope="module")
def start_up(tmp_path_factory):
    """Seconds until the command does anything here; before that, Python alone decides what an interrupt prints."""
    start = time.monotonic()
    statprune("--version", cwd=tmp_path_factory.mktemp("start"), fresh=True)
    return time.monotonic() - start


@pytest.mark.parametrize("seconds", [0.3, 1, 2.5, 6])
def test_an_interrupt_ends_a_run_without_a_traceback(seconds, start_up, tmp_path, tiny_folder):
    command = [*COMMAND, f"model.path={tiny_folder}", *LONG]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(max(seconds, 1.5 * start_up))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == INTERRUPTED == 130, errors
    assert "Traceback" not in errors
    assert re.search(r"^statprune: interrupted", errors, re.MULTILINE)
    assert not list(tmp_path.rglob("result.json"))
