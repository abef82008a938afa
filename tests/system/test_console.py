"""What is shown while a person waits: on a terminal only, and by one process only."""

import io
import logging
import re
import time
import warnings

import pytest
from rich.console import Console

from statprune.runs.pipeline import run
from statprune.system import console
from statprune.system.console import LIBRARIES, progress, waiting, warn_in_the_log
from tests.helpers.command import tiny_job


@pytest.fixture(params=[True, False], ids=["terminal", "file"])
def is_terminal(request):
    return request.param


@pytest.fixture
def written(is_terminal, monkeypatch):
    """What is written to a terminal, or a file, that takes the place of standard error."""
    file = io.StringIO()
    own = Console(file=file, force_terminal=is_terminal, width=120, color_system=None, legacy_windows=False)
    monkeypatch.setattr(console, "CONSOLE", own)
    return file


def test_where_there_is_no_terminal_a_line_a_minute_says_how_far_it_is(monkeypatch, caplog):
    now = [100.0]
    monkeypatch.setattr(console, "CONSOLE", Console(file=io.StringIO(), force_terminal=False))
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO, "statprune"), progress("pruning blocks", 30) as advance:
        for done, seconds in enumerate([1, 58, 1, 59, 2, 300], start=1):
            now[0] += seconds
            advance(done)
    assert [record.getMessage() for record in caplog.records] == [
        "pruning blocks: 3 of 30",
        "pruning blocks: 5 of 30",
        "pruning blocks: 6 of 30",
    ]


def test_a_wait_is_shown_with_its_seconds_on_a_terminal_only(written, is_terminal):
    with waiting("loading [my] model"):
        time.sleep(0.15)
    if is_terminal:
        assert re.search(r"loading \[my\] model \d:\d\d:\d\d", written.getvalue())
    else:
        assert written.getvalue().strip() == ""


@pytest.mark.parametrize("is_terminal", [True], indirect=True)
def test_a_librarys_bar_fills_the_line_that_is_waited_on(written):
    bar = console.BarInLine(range(4))
    with waiting("converting"):
        lines = console._WAITING[0]
        seen = [(item, lines.tasks[0].total, lines.tasks[0].completed) for item in bar]
        assert (lines.tasks[0].total, lines.tasks[0].completed) == (4, 4)
        time.sleep(0.15)
    assert [item for item, *_ in seen] == list(range(4)) and seen[0][1] is None and seen[3][1:] == (4, 3)
    assert "━" in written.getvalue() and list(console.BarInLine("ab")) == ["a", "b"]
    assert console._WAITING == []


def test_nothing_is_shown_by_a_process_that_another_speaks_for(written):
    console.CONSOLE.quiet = True
    with waiting("loading"), progress("pruning", 3) as advance:
        advance(3)
    assert written.getvalue() == ""


@pytest.mark.parametrize("is_terminal", [True], indirect=True)
def test_a_run_shows_that_its_model_is_being_loaded(written, tiny_folder, tmp_path):
    run(tiny_job(tiny_folder), tmp_path)
    assert f"loading {tiny_folder}"[:60] in written.getvalue()


@pytest.fixture
def libraries():
    """The libraries' loggers, as they were before at the end."""
    loggers = [logging.getLogger(name) for name in LIBRARIES]
    before = [(own.handlers, own.propagate, own.level) for own in loggers]
    yield
    logging.captureWarnings(False)
    for own, (handlers, propagate, level) in zip(loggers, before, strict=True):
        own.handlers, own.propagate, own.level = handlers, propagate, level


def test_libraries_warnings_go_to_the_log_once(libraries, caplog, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warn_in_the_log()
        for _ in range(2):
            logging.getLogger("transformers.modeling_utils").warning("%d weights are not tied", 3)
            logging.getLogger("transformers.modeling_utils").info("all is well")
            warnings.warn("a dtype was changed", stacklevel=1)
        logging.captureWarnings(False)
    tied, dtype = [(record.levelname, record.name, record.getMessage()) for record in caplog.records]
    assert tied == ("WARNING", "transformers.modeling_utils", "3 weights are not tied")
    assert dtype[:2] == ("WARNING", "py.warnings") and "a dtype was changed" in dtype[2]
    assert capsys.readouterr().err == ""
