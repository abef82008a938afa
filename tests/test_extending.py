"""The code, the files and the commands of docs/extending/ do what the pages say."""

import re
import shlex
import sys
from importlib import util
from pathlib import Path

import pytest

from statprune import testing
from statprune.config.compose import _configs_of
from statprune.config.overrides import named_plugins, override_problems, searchpath_of
from statprune.config.place import own_place, place_of, use_place
from statprune.config.register import KINDS
from statprune.system import plugin_files
from statprune.system.plugin_files import use_plugin_files
from tests.helpers.plugins import forget_registered

DOCS = Path(__file__).parents[1] / "docs" / "extending"
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md"))}
BLOCKS = [
    block for page in PAGES.values() for block in re.findall(r"^```(\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
]
FILES = {
    match.group(1): text
    for _, text in BLOCKS
    if (match := re.match(r"(?:# @\w+ \w+\n)?# ([\w./]+\.(?:py|yaml))\n", text)) is not None
}
COMMANDS = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
RUNS = [
    line for line in COMMANDS if re.match(r"statprune (-m |--config-dir \w+ )?\w+[.=]", line) or "experiment=" in line
]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The pages' files in the working folder; what they register is gone afterwards."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "texts").mkdir()
    for number in range(10):
        (tmp_path / "texts" / f"{number}.txt").write_text(f"words of file {number}\n" * 20)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(plugin_files, "_IMPORTED", set())
    monkeypatch.setenv(plugin_files.PLUGINS, "")
    forget_registered(monkeypatch)
    _configs_of.cache_clear()  # groups' choices are read once
    yield tmp_path
    use_place(own_place())
    _configs_of.cache_clear()
    for name in FILES:
        sys.modules.pop(Path(name).stem, None)


def loaded(name):
    """The module of one of the pages' files."""
    spec = util.spec_from_file_location(Path(name).stem, name)
    module = sys.modules[spec.name] = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_kind_has_a_page_with_a_file_and_its_test():
    for kind in ("score", *(base.__name__.lower() for base, _ in KINDS)):
        names = re.findall(r"^# ((?:test_)?my_\w+)\.py$", PAGES[kind], re.MULTILINE)
        assert f"test_{names[0]}" in names, f"the page of {kind} tests its file"


@pytest.mark.parametrize("command", RUNS)
def test_commands_have_no_problem(command, files):
    words = shlex.split(command)[1:]
    folder = words[words.index("--config-dir") + 1] if "--config-dir" in words else None
    overrides = [word for word in words if "=" in word]
    use_place(place_of(None, None, folder).with_folders(searchpath_of(overrides), "hydra.searchpath in command-line"))
    use_plugin_files(named_plugins(overrides))
    assert override_problems(overrides, multirun="-m" in words) == []


def test_most_commands_are_checked():
    others = set(COMMANDS) - set(RUNS)
    assert others == {"statprune init my-pruning", "STATPRUNE_PLUGINS=my_score.py statprune tables own.yaml"}


@pytest.mark.parametrize("name", sorted(name for name in FILES if name.startswith("test_")))
def test_the_pages_tests_pass(name, files):
    tests = loaded(name)
    getattr(tests, Path(name).stem)()


def test_a_second_score_passes_its_check(files):
    testing.check_score(loaded("my_magnitude.py").normed)


def test_code_that_is_no_file_runs():
    blocks = [text for kind, text in BLOCKS if kind == "python" and text not in FILES.values()]
    for text in blocks:
        exec(compile(text, "extending", "exec"), {})
    assert len(blocks) == 2


def test_links_lead_to_pages():
    for page in PAGES.values():
        for target in re.findall(r"\]\(([\w/.-]+\.md)", page):
            assert (DOCS / target).is_file()
