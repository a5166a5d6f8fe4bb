"""Which of the connections that end in their handshake are logged, by the events alone."""

import socket
from collections.abc import Iterator

import pytest

from berrymq_rpc.rpc.transport.handshakes import Handshakes
from berrymq_rpc.rpc.transport.monitor import ACCEPTED, CONNECTED, LOST, REFUSED

#: Numbers that no file of this process has: what is looked up by them is not there.
ONE, TWO, THREE = 1_000_001, 1_000_002, 1_000_003


@pytest.fixture
def handshakes(caplog: pytest.LogCaptureFixture) -> Iterator[Handshakes]:
    made = Handshakes("tcp://127.0.0.1:5555")
    yield made
    # Nothing is remembered of those that are gone.
    assert (made._silent, made._through, made._refused) == ({}, 0, 0)


def logged(caplog: pytest.LogCaptureFixture) -> int:
    return sum("refused at tcp://127.0.0.1:5555" in record.message for record in caplog.records)


def test_one_that_ends_in_its_handshake(
    handshakes: Handshakes, caplog: pytest.LogCaptureFixture
) -> None:
    handshakes.see(ACCEPTED, ONE)
    assert logged(caplog) == 0
    handshakes.see(LOST, ONE)
    assert logged(caplog) == 1
    assert "a peer at an unknown address refused" in caplog.text


def test_one_whose_key_was_logged_already(
    handshakes: Handshakes, caplog: pytest.LogCaptureFixture
) -> None:
    handshakes.see(ACCEPTED, ONE)
    handshakes.see(REFUSED, 400)
    handshakes.see(LOST, ONE)
    assert logged(caplog) == 0


def test_one_that_speaks(handshakes: Handshakes, caplog: pytest.LogCaptureFixture) -> None:
    handshakes.see(ACCEPTED, ONE)
    handshakes.see(CONNECTED, 0)
    handshakes.arrived(ONE)
    handshakes.see(LOST, ONE)
    assert logged(caplog) == 0


def test_one_whose_message_is_read_after_its_end(
    handshakes: Handshakes, caplog: pytest.LogCaptureFixture
) -> None:
    handshakes.see(ACCEPTED, ONE)
    handshakes.see(CONNECTED, 0)
    handshakes.see(LOST, ONE)
    handshakes.arrived(ONE)
    assert logged(caplog) == 0


def test_one_that_says_nothing(handshakes: Handshakes, caplog: pytest.LogCaptureFixture) -> None:
    handshakes.see(ACCEPTED, ONE)
    handshakes.see(CONNECTED, 0)
    # Others come and go meanwhile.
    for refused in (TWO, THREE):
        handshakes.see(ACCEPTED, refused)
        handshakes.see(LOST, refused)
    assert logged(caplog) == 2
    handshakes.see(ACCEPTED, TWO)
    handshakes.see(CONNECTED, 0)
    handshakes.arrived(TWO)
    handshakes.see(LOST, TWO)
    handshakes.see(LOST, ONE)
    assert logged(caplog) == 2


def test_a_number_that_is_used_again(
    handshakes: Handshakes, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        handshakes.see(ACCEPTED, ONE)
        handshakes.see(LOST, ONE)
        handshakes.see(ACCEPTED, ONE)
        handshakes.see(CONNECTED, 0)
        handshakes.arrived(ONE)
        handshakes.see(LOST, ONE)
    assert logged(caplog) == 3


def test_the_host_is_named(handshakes: Handshakes, caplog: pytest.LogCaptureFixture) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()),
        server.accept()[0] as accepted,
    ):
        handshakes.see(ACCEPTED, accepted.fileno())
        handshakes.see(LOST, accepted.fileno())
    assert "a peer at 127.0.0.1 refused" in caplog.text
    if hasattr(socket, "AF_UNIX"):
        one, other = socket.socketpair(socket.AF_UNIX)
        with one, other:
            handshakes.see(ACCEPTED, one.fileno())
            handshakes.see(LOST, one.fileno())
        assert "a peer at this host refused" in caplog.text
