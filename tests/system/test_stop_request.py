import signal

from statprune.errors import Interrupted
from statprune.system import stop_request


def test_a_request_stands(monkeypatch) -> None:
    monkeypatch.setattr(stop_request, "_signal", None)  # and afterwards as it was
    assert stop_request.requested() is None
    stop_request.request(signal.SIGTERM)
    assert stop_request.requested() == signal.SIGTERM
    assert stop_request.requested() == signal.SIGTERM


def test_an_interruption_knows_its_signal() -> None:
    assert Interrupted(15, "stopped after block 3").signal == 15
