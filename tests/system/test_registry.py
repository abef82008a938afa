"""Choices by name: ours, entry points of distributions, and what a program registers."""

import json
import sys

import pytest

from statprune.errors import ChoiceError, PluginError
from statprune.system.registry import OWN, Registry
from tests.helpers.plugins import fake_distribution


class Base:
    """What the choices of these tests are below."""


class First(Base):
    """Registered under two names in turn."""


def problem(value: object) -> str | None:
    return None if isinstance(value, type) and issubclass(value, Base) else "it is no choice"


@pytest.fixture
def registry(request):
    """A registry of nothing but entry points of a group of its own."""
    return Registry("thing", f"things.{abs(hash(request.node.name))}", {}, problem)


def offer(monkeypatch, tmp_path, registry, name, place, code="", editable=False):
    """Install a distribution that offers one choice."""
    fake_distribution(tmp_path, name, {registry.group: {"mine": place}}, code)
    if editable:
        text = json.dumps({"dir_info": {"editable": True}})
        (tmp_path / f"{name}-1.0.dist-info" / "direct_url.json").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)


CODE = f"import sys\nBase = sys.modules[{__name__!r}].Base\nclass Mine(Base): pass\n"


def test_a_choice_is_imported_when_it_is_asked_for(registry, monkeypatch, tmp_path):
    offer(monkeypatch, tmp_path, registry, "lazy_things", "lazy_things:Mine", CODE)
    assert registry.names() == ["mine"] and "lazy_things" not in sys.modules
    assert registry.get("mine").__name__ == "Mine" and "lazy_things" in sys.modules


def test_its_distribution_and_version_are_known(registry, monkeypatch, tmp_path):
    offer(monkeypatch, tmp_path, registry, "known_things", "known_things:Mine", CODE)
    origin = registry.origin("mine")
    assert (origin.distribution, origin.version, origin.module) == ("known_things", "1.0", "known_things")
    assert not origin.is_own


def test_files_of_an_editable_installation_are_part_of_its_version(registry, monkeypatch, tmp_path):
    offer(monkeypatch, tmp_path, registry, "edited_things", "edited_things:Mine", CODE, editable=True)
    assert registry.origin("mine").version.startswith("1.0+")


@pytest.mark.parametrize("place", ["absent_module:Mine", "broken_things:Absent"])
def test_what_cant_be_imported_names_its_distribution(registry, place, monkeypatch, tmp_path):
    offer(monkeypatch, tmp_path, registry, "broken_things", place, CODE, editable=True)
    with pytest.raises(PluginError, match=r"the thing 'mine' of broken_things 1\.0 .* can't be imported"):
        registry.get("mine")
    assert registry.names() == ["mine"] and registry.origin("mine").version == "1.0"  # lists go on


def test_what_is_no_choice_is_refused(registry, monkeypatch, tmp_path):
    offer(monkeypatch, tmp_path, registry, "odd_things", "odd_things:Mine", "Mine = 3\n")
    with pytest.raises(PluginError, match="can't be used: it is no choice"):
        registry.get("mine")


def test_two_distributions_with_one_name_are_both_named(registry, monkeypatch, tmp_path):
    offer(monkeypatch, tmp_path, registry, "one_things", "one_things:Mine", CODE)
    offer(monkeypatch, tmp_path, registry, "other_things", "other_things:Mine", CODE)
    with pytest.raises(PluginError, match=r"one_things 1\.0 .* other_things 1\.0 .*rename one of them"):
        registry.get("mine")


def test_an_unknown_name_gets_a_suggestion(registry):
    registry.register("first", First)
    with pytest.raises(ChoiceError, match=r"the thing .frist. is unknown; did you mean first\?"):
        registry.get("frist")


def test_defining_a_choice_again_replaces_it(registry):
    again = type("First", (Base,), {"__module__": First.__module__})
    registry.register("first", First)
    assert registry.register("first", again) is registry.get("first") is again


def test_what_a_program_registers_has_the_version_of_its_file(registry):
    registry.register("first", First)
    assert registry.origin("first").distribution is None and len(registry.origin("first").version) == 12


def test_our_own_choices_are_known_as_ours():
    own = Registry("thing", "no.such.group", {"first": f"{__name__}:First"}, problem)
    assert own.is_own("first") and own.origin("first").distribution == OWN and own.get("first") is First
