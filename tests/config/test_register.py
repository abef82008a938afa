"""Choices that a program registers, and where choices come from."""

import json
import sys
from dataclasses import dataclass

import pytest

import statprune
from statprune.config.register import KINDS
from statprune.core.compensation import COMPENSATIONS
from statprune.core.score import SCORES
from statprune.data.sources import SOURCES, get_source
from statprune.errors import PluginError
from statprune.system import registry
from tests.helpers.plugins import fake_distribution


@pytest.fixture(autouse=True)
def registries(monkeypatch):
    """What a test registers is gone afterwards."""
    for own in (SCORES, *(own for _, own in KINDS)):
        monkeypatch.setattr(own, "_registered", dict(own._registered))
        monkeypatch.setattr(own, "_loaded", dict(own._loaded))


def halved():
    """A new compensation."""

    @dataclass(frozen=True)
    class Halved(statprune.Compensation):
        def apply(self, dense, pruned, keep, statistics):
            return pruned / 2, {}

    return Halved


def test_the_base_class_says_of_which_kind_a_choice_is():
    cls = statprune.register("halved")(halved())
    assert COMPENSATIONS.get("halved") is cls and "halved" not in SOURCES


def test_a_class_that_is_defined_again_replaces_the_first():
    statprune.register("halved")(halved())
    cls = statprune.register("halved")(halved())
    assert COMPENSATIONS.get("halved") is cls


class NoDataclass(statprune.Compensation):
    """Lacks its decorator."""


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("new", NoDataclass, "it is no dataclass; write @dataclass"),
        ("new", int, "int is a subclass of none of statprune's Method, Refinement"),
        ("new", len, "a score is a function under @statprune.score"),
        ("energy", halved(), "there are two of the compensation 'energy': of statprune .* and of your own code"),
        ("none", halved(), "the compensation 'none' of your own code .* has a name that means something else"),
        ("rows", halved(), "has a name that means something else there; rename it"),
    ],
)
def test_what_can_not_be_registered(name, value, sentence):
    with pytest.raises(PluginError, match=sentence):
        statprune.register(name)(value)


class Demanding(statprune.Source):
    """A source whose class needs an argument."""

    def __init__(self, path):
        self.path = path

    def documents(self, part, path):
        return [part]


def test_a_source_that_can_not_be_made():
    statprune.register("demanding")(Demanding)
    with pytest.raises(PluginError, match=r"the source 'demanding' of .* can't be made without arguments \(TypeError"):
        get_source("demanding")


@pytest.mark.parametrize("editable", [False, True])
def test_the_version_of_an_editable_installation_follows_its_files(editable, tmp_path, monkeypatch):
    name = f"linked{int(editable)}"
    code = "import statprune\n\n@statprune.score()\ndef linked(weight, statistics):\n    return weight.abs()\n"
    fake_distribution(tmp_path, name, {"statprune.scores": {"linked": f"{name}:linked"}}, code)
    info = {"url": "file:///somewhere", "dir_info": {"editable": editable}}
    (tmp_path / f"{name}-1.0.dist-info" / "direct_url.json").write_text(json.dumps(info))
    monkeypatch.syspath_prepend(str(tmp_path))
    caches = (registry._plugin_entries, registry._distributions, registry._is_editable, registry._digest_of_package)
    for cached in caches:
        cached.cache_clear()
    try:
        version = SCORES.origin("linked").version
    finally:
        for cached in caches:
            cached.cache_clear()
        sys.modules.pop(name, None)
    assert len(version) == (len("1.0+") + 12 if editable else len("1.0"))
