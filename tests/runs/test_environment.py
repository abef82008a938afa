"""Versions, commit and machine of a run."""

import re
import subprocess
from importlib.metadata import version

import pytest
import torch

from statprune.runs import environment
from statprune.runs.environment import describe_environment
from statprune.system import checkout

CPU = torch.device("cpu")


def test_the_commit_is_this_checkouts_or_none():
    commit = describe_environment(CPU).git_commit
    assert commit is None or re.fullmatch(r"[0-9a-f]{40}", commit)


def test_a_wheel_inside_another_project_has_no_commit(tmp_path, monkeypatch):
    author = ["-c", "user.name=a", "-c", "user.email=b"]
    for command in (["init", "-q"], [*author, "commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", "-C", tmp_path, *command], check=True)
    installed = tmp_path / "venv" / "site-packages" / "statprune" / "runs"
    installed.mkdir(parents=True)
    monkeypatch.setattr(checkout, "__file__", str(installed / "checkout.py"))
    assert describe_environment(CPU).git_commit is None


@pytest.mark.parametrize("package", ["statprune", "torch", "transformers", "hydra-core"])
def test_packages_have_their_versions(package):
    assert describe_environment(CPU).packages[package] == version(package)


def test_a_package_that_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr(environment, "PACKAGES", ("torch", "no-such-package"))
    assert describe_environment(CPU).packages == {"torch": version("torch"), "no-such-package": None}


def test_files_that_differ_from_the_commit_are_told(monkeypatch):
    for status, changed in ((" M statprune/cli/main.py\n", True), ("", False)):
        told = {"rev-parse": f"{checkout._checkout()}\n{'a' * 40}\n", "status": status}
        monkeypatch.setattr(checkout, "_git", lambda verb, *options, told=told: told[verb])
        assert describe_environment(CPU).has_local_changes is changed
