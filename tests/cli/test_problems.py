"""How the command tells what the user got wrong."""

import subprocess
import sys

import pytest
import torch

from statprune.cli.problems import print_problems, report_problems
from statprune.errors import ConfigError, ModelError
from tests.helpers.commands import problems_of

LESS = "give smaller batches, shorter texts or a smaller model, or use a machine with more memory"


def raising(error):
    def act():
        raise error

    return act


def test_another_error_is_no_users_mistake():
    with pytest.raises(RuntimeError, match="shapes"):
        report_problems(raising(RuntimeError("shapes do not fit")))


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (ConfigError(["one", "two"]), "statprune: one\nstatprune: two\n"),
        (ModelError("no such model"), "statprune: no such model\n"),
        (MemoryError(), f"statprune: this machine's memory is too small (no reason given); {LESS}\n"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            "statprune: this machine's memory is too small (DefaultCPUAllocator: can't allocate memory: you tried to "
            f"allocate 9 bytes); {LESS}\n",
        ),
        (torch.OutOfMemoryError("CUDA"), f"statprune: the GPU's memory is too small (CUDA); {LESS}\n"),
    ],
)
def test_what_a_user_got_wrong_is_a_line_each_and_status_1(error, lines, capsys):
    assert report_problems(raising(error)) == 1
    assert capsys.readouterr().err == lines


@pytest.mark.parametrize(
    "typed", ["hf_0123456789", "plugins=[hf_0123456789]", "hydra.searchpath=[file://hf_0123456789]"]
)
def test_a_secret_is_not_shown(typed, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789")
    print_problems(problems_of(typed))
    told = capsys.readouterr().err
    assert "$HF_TOKEN" in told and "hf_0123456789" not in told


def test_what_went_well_has_its_own_status(capsys):
    assert report_problems(lambda: 0) == 0
    assert capsys.readouterr().err == ""


def test_one_of_several_processes_tells(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert print_problems(["no"]) == 1
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("RANK", "0")
    print_problems(["no"])
    assert capsys.readouterr().err == "statprune: no\n"


def test_a_typo_is_answered_without_importing_torch():
    program = "import sys; from statprune.cli import main; main(['reprot']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "False\n" and "did you mean statprune report?" in done.stderr
