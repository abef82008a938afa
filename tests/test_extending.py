"""The code, the files and the commands of docs/extending.md do what the page says."""

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
from statprune.core.score import SCORES
from statprune.system import plugin_files
from statprune.system.plugin_files import use_plugin_files

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FILES = {
    match.group(1): text
    for _, text in BLOCKS
    if (match := re.match(r"(?:# @\w+ \w+\n)?# ([\w./]+\.(?:py|yaml))\n", text)) is not None
}
COMMANDS = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
RUNS = [
    line for line in COMMANDS if re.match(r"statprune (-m |--config-dir \w+ )?\w+[.=]", line) or "experiment=" in line
]
CHECKS = {
    "FittedWanda": testing.check_method,
    "SecondLook": testing.check_refinement,
    "RowSum": testing.check_compensation,
    "Runs": testing.check_pattern,
    "ByEnergy": testing.check_allocation,
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The page's files in the working folder; what they register is gone afterwards."""
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
    for registry in (SCORES, *(registry for _, registry in KINDS)):
        monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    _configs_of.cache_clear()  # groups' choices are read once
    yield tmp_path
    use_place(own_place())
    _configs_of.cache_clear()
    for name in FILES:
        sys.modules.pop(Path(name).stem, None)


def loaded(name):
    """The module of one of the page's files."""
    spec = util.spec_from_file_location(Path(name).stem, name)
    module = sys.modules[spec.name] = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_has_a_file_for_every_kind():
    assert {name for name in FILES if name.startswith("my_")} == {
        f"my_{kind}.py"
        for kind in ("score", "magnitude", "method", "refinement", "compensation", "pattern", "allocation", "texts")
    }


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


def test_the_pages_choices_pass_the_checks(files):
    for name in (name for name in FILES if name.startswith("my_")):
        module = loaded(name)
        for cls, check in CHECKS.items():
            if hasattr(module, cls):
                check(getattr(module, cls)())
    testing.check_source(sys.modules["my_texts"].Folder, "texts", "texts")
    testing.check_score(sys.modules["my_magnitude"].normed)


def test_the_pages_tests_pass(files):
    loaded("my_score.py")
    loaded("test_my_score.py").test_my_score()


def test_code_that_is_no_file_runs():
    blocks = [text for kind, text in BLOCKS if kind == "python" and text not in FILES.values()]
    for text in blocks:
        exec(compile(text, "extending.md", "exec"), {})
    assert len(blocks) == 2
