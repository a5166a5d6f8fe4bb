"""Which of the connections that end in their handshake are logged, by the events alone."""

import socket

import pytest

from berrymq_rpc.rpc.transport.handshakes import Handshakes
from berrymq_rpc.rpc.transport.monitor import ACCEPTED, BROKEN_OFF, CONNECTED, LOST, REFUSED

#: Numbers that no file of this process has: what is looked up by them is not there.
ONE, TWO, THREE = 1_000_001, 1_000_002, 1_000_003

#: Events, and how many lines they make.
COURSES = {
    "it ends in its handshake": ([(ACCEPTED, ONE), (LOST, ONE)], 1),
    "libzmq says that it does": ([(ACCEPTED, ONE), (BROKEN_OFF, 32), (LOST, ONE)], 1),
    "its key was logged": ([(ACCEPTED, ONE), (REFUSED, 400), (LOST, ONE)], 0),
    "it gets through": ([(ACCEPTED, ONE), (CONNECTED, 0), (LOST, ONE)], 0),
    "its number is used again": (
        [
            (ACCEPTED, ONE),
            (LOST, ONE),
            (ACCEPTED, ONE),
            (CONNECTED, 0),
            (LOST, ONE),
            (ACCEPTED, ONE),
            (LOST, ONE),
            (ACCEPTED, ONE),
            (REFUSED, 400),
            (LOST, ONE),
        ],
        2,
    ),
    "beside one that stays": (
        [
            (ACCEPTED, ONE),
            (CONNECTED, 0),
            (ACCEPTED, TWO),
            (LOST, TWO),
            (ACCEPTED, THREE),
            (LOST, THREE),
            (LOST, ONE),
        ],
        2,
    ),
    "while another gets through": (
        # Either may be the one that has.
        [(ACCEPTED, ONE), (ACCEPTED, TWO), (CONNECTED, 0), (LOST, ONE), (LOST, TWO)],
        0,
    ),
    "libzmq says so while another gets through": (
        [(ACCEPTED, ONE), (ACCEPTED, TWO), (CONNECTED, 0), (BROKEN_OFF, 32), (LOST, TWO)],
        1,
    ),
    "what libzmq says is of one alone": (
        [
            (ACCEPTED, ONE),
            (ACCEPTED, TWO),
            (CONNECTED, 0),
            (CONNECTED, 0),
            (ACCEPTED, THREE),
            (BROKEN_OFF, 32),
            (LOST, THREE),
            (LOST, ONE),
            (LOST, TWO),
        ],
        1,
    ),
    "before all that is known": ([(LOST, ONE), (BROKEN_OFF, 32), (LOST, TWO)], 0),
}


@pytest.mark.parametrize(("events", "lines"), COURSES.values(), ids=list(COURSES))
def test_courses(
    events: list[tuple[int, int]], lines: int, caplog: pytest.LogCaptureFixture
) -> None:
    handshakes = Handshakes("tcp://127.0.0.1:5555")
    for event, value in events:
        handshakes.see(event, value)
    texts = [record.message for record in caplog.records]
    assert len(texts) == lines
    for text in texts:
        assert text.startswith("a peer at an unknown address refused at tcp://127.0.0.1:5555: it ")
    # Nothing is remembered of those that have ended.
    ended = {value for event, value in events if event == LOST}
    assert not ended & handshakes._open.keys()
    assert (handshakes._refused, handshakes._is_broken_off) == (0, False)


def test_the_host_is_named(caplog: pytest.LogCaptureFixture) -> None:
    handshakes = Handshakes("tcp://127.0.0.1:5555")
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
