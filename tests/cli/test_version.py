"""What ``statprune --version --json`` tells for a report of a fault."""

import json
import os
import sys
from importlib import metadata

import pytest

from statprune.system import installation
from tests.helpers.plugins import fake_distribution
from tests.helpers.verbs import verb


@pytest.fixture
def told(capsys):
    assert verb("--version", "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_versions_are_those_that_are_installed(told):
    assert told["statprune"] == metadata.version("statprune")
    assert told["python"] == ".".join(map(str, sys.version_info[:3]))
    for package in ("torch", "transformers", "hydra-core", "pydantic", "pytest"):
        assert told["packages"][package] == metadata.version(package)


def test_the_machine_is_this_one(told):
    with open("/proc/meminfo") as file:
        kilobytes = int(file.readline().split()[1])
    assert told["machine"]["cores"] == os.cpu_count()
    assert told["machine"]["memory_gib"] == pytest.approx(kilobytes / 2**20, abs=0.1)
    assert told["machine"]["torch_problem"] is None


def test_an_installation_without_torch_is_told_all_the_same(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)  # what importing it then raises is an ImportError
    assert verb("--version", "--json") == 0
    machine = json.loads(capsys.readouterr().out)["machine"]
    assert "torch" in machine["torch_problem"] and machine["cuda"] is None and machine["gpus"] == []


def test_a_missing_dependency_is_null_and_a_missing_extra_left_out(monkeypatch):
    wanted = ["no-such-package>=1", 'no-such-extra>=1; extra == "ray"']
    monkeypatch.setattr(installation.metadata, "requires", lambda name: wanted)
    assert installation.describe_installation().packages == {"no-such-package": None}


def test_distributions_that_bring_choices_are_told(monkeypatch, tmp_path):
    fake_distribution(tmp_path, "rival", {"statprune.scores": {"a": "rival:a"}, "statprune.sources": {"b": "rival:b"}})
    monkeypatch.syspath_prepend(str(tmp_path))
    assert installation.describe_installation().plugins["rival"] == "1.0"


def test_a_word_without_meaning_beside_it_is_refused(capsys):
    assert verb("--version", "method=wanda") == 1
    assert "method=wanda means nothing beside --version" in capsys.readouterr().err
