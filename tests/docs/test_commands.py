"""Every command of README and the site is one that works: its configuration is checked, and it runs on a tiny model."""

from types import SimpleNamespace

import pytest

from tests.helpers.page_commands import carry_out, commands_of, smaller
from tests.helpers.pages import DOCS, Block, blocks_of, name_of, pages
from tests.helpers.warm import WarmSweep

ELSEWHERE = {"extending"}  # folders whose commands need the page's files: tests/test_extending.py


def commands(page):
    return list(commands_of(blocks_of(page.read_text(encoding="utf-8"))))


OWN = [page for page in pages() if page.parent.name not in ELSEWHERE and commands(page)]


@pytest.mark.parametrize("page", OWN, ids=name_of)
def test_the_commands_of_a_page_have_no_problem(page, page_folder, capfd):
    check(page, capfd, runs=False)


def test_the_first_command_runs(page_folder, capfd):
    check(DOCS / "index.md", capfd, runs=True)


@pytest.mark.long
@pytest.mark.parametrize("page", OWN, ids=name_of)
def test_the_commands_of_a_page_run(page, page_folder, capfd, monkeypatch):
    warm = SimpleNamespace(Popen=lambda command, stdout=None: WarmSweep(command))  # wherever it prints
    monkeypatch.setattr("statprune.experiments.reproduce.subprocess", warm)
    check(page, capfd, runs=True)


def check(page, capfd, runs):
    problems = []
    for command in commands(page):
        problem = carry_out(command, runs)
        said = capfd.readouterr()
        if problem:
            problems.append(f"{command}: {problem}; {(said.err or said.out).strip()[-600:]}")
    assert problems == [], "\n".join(problems)


def test_commands_are_split_as_a_shell_does():
    text = "statprune -m 'a=[1,2]' b=1,2  # twice\n\ncd x && make test\nstatprune \\\n  c=d | less\n"
    found = [(command.line, command.words) for command in commands_of([Block(5, "bash", text)])]
    assert found == [
        (5, ("statprune", "-m", "a=[1,2]", "b=1,2")),
        (7, ("cd", "x")),
        (7, ("make", "test")),
        (8, ("statprune", "c=d")),
    ]
    assert list(commands_of([Block(1, "bash", "rm -rf /", "skip no"), Block(1, "text", "ls")])) == []


def test_what_a_page_says_wrong_is_found(page_folder):
    texts = ["statprune method=wandaa", "statprune verify", "make tset", "python examples/none.py", "frobnicate"]
    for text in texts:
        (command,) = commands_of([Block(1, "bash", text)])
        assert carry_out(command), text


def test_small_settings_take_the_place_of_typed_ones():
    words = smaller(["-m", "calibration.samples=512", "seed=0,1", "--config-dir", "own"])
    assert words[:2] == ["-m", "seed=0,1"] and words[-2:] == ["--config-dir", "own"]
    assert [word for word in words if word.startswith("calibration.samples")] == ["calibration.samples=2"]
    table = smaller(["tables", "ppl", "--overrides", "name=a", "calibration.seq_len=128", "--rows", "Wanda"])
    assert [word for word in table if word.startswith("calibration.seq_len")] == ["calibration.seq_len=32"]
    assert table.index("--overrides") < table.index("name=a") < table.index("--rows")
    assert smaller(["report", "outputs"]) == ["report", "outputs"]
