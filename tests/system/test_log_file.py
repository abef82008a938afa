"""A log file that can't be written costs one line."""

import logging

import pytest

from statprune.system.console import keep_going_without_log


@pytest.fixture
def log_file(tmp_path):
    """The root logger's handler, as Hydra makes it."""
    handler = logging.FileHandler(tmp_path / "run.log")
    logging.getLogger().addHandler(handler)
    keep_going_without_log()
    yield handler
    logging.getLogger().removeHandler(handler)


def test_a_log_on_a_full_disk_costs_one_line(log_file, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log_file, "flush", full)
    for _ in range(2):
        logging.getLogger("statprune").error("told")
    told = capsys.readouterr().err
    assert told.count("run.log can't be written (No space left on device): the run goes on") == 1
    assert "Traceback" not in told
