import signal

from statprune.errors import Interrupted
from statprune.system import stop_request


def test_a_request_stands_until_it_is_withdrawn() -> None:
    assert stop_request.requested() is None
    stop_request.request(signal.SIGTERM)
    try:
        assert stop_request.requested() == signal.SIGTERM
    finally:
        stop_request.withdraw()
    assert stop_request.requested() is None


def test_an_interruption_knows_its_signal() -> None:
    assert Interrupted(15, "stopped after block 3").signal == 15
