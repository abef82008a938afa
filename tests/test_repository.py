"""What stands beside the code: one version everywhere, a licence, templates that can be read, lower ends."""

import re
import tomllib
from importlib import util
from pathlib import Path

import pytest
import yaml

from tests.helpers.pages import make_targets

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
GUIDES = [path for path in sorted(ROOT.glob("*.md")) if path.name != "README.md"]
TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def releases() -> list[tuple[str, str | None]]:
    """Versions of the changelog with their dates, the newest first."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    return re.findall(r"^## \[([\w.]+)\](?: - (\d{4}-\d\d-\d\d))?$", text, re.MULTILINE)


def test_the_changelog_begins_with_what_is_unreleased_and_the_projects_version():
    assert [version for version, _ in releases()][:2] == ["Unreleased", PROJECT["version"]]


def test_the_citation_is_of_the_projects_version():
    assert CITATION["version"] == PROJECT["version"]
    assert str(CITATION["date-released"]) == dict(releases())[PROJECT["version"]]
    assert CITATION["license"] == PROJECT["license"] == "Apache-2.0"
    assert {"cff-version", "message", "title", "authors"} <= set(CITATION)


def test_the_licence_is_the_whole_of_apache_2():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in text and "Copyright 2026 The statprune authors" in text
    assert [f"   {number}. " in text for number in range(1, 10)] == [True] * 9


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_a_template_asks_for_the_installation_and_the_record(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= set(form)
    asked = {part["id"]: part["attributes"]["label"] for part in form["body"] if part["type"] != "markdown"}
    assert "statprune --version --json" in asked["version"] and any("record" in label for label in asked.values())


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.name)
def test_links_of_a_guide_lead_somewhere(path):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8")):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.name)
def test_commands_of_a_guide_are_targets_of_make(path):
    for target in re.findall(r"`?make ([a-z][\w-]+)`", path.read_text(encoding="utf-8")):
        assert target in make_targets(), target


def lowest():
    spec = util.spec_from_file_location("lowest", ROOT / "tools" / "lowest.py")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.lowest


def test_lower_ends_are_exact_versions():
    wanted = ["torch>=2.8", "hydra-core>=1.3.2,<1.4", 'triton>=3.4; sys_platform == "linux"']
    found = ["torch==2.9", "hydra-core==1.3.2", 'triton==3.4; sys_platform == "linux"']
    assert lowest()(wanted, {"torch": "2.9"}) == found


@pytest.mark.parametrize("dependency", ["torch<3", "torch"])
def test_a_range_without_a_lower_end_is_refused(dependency):
    with pytest.raises(ValueError, match="has no lower end"):
        lowest()([dependency], {})


def test_a_version_for_what_is_no_dependency_is_refused():
    with pytest.raises(ValueError, match="jax is no dependency"):
        lowest()(["torch>=2"], {"jax": "1"})


def test_every_dependency_of_the_project_has_a_lower_end():
    assert len(lowest()(PROJECT["dependencies"], {})) == len(PROJECT["dependencies"])
