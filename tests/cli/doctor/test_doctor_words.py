"""What the doctor knows without asking anybody: bytes, greetings, numbers."""

from datetime import UTC, datetime, timedelta

import pytest

from berrymq_rpc.cli.doctor.answer import identify
from berrymq_rpc.cli.doctor.check import Status, latency
from berrymq_rpc.cli.doctor.greeting import (
    SIGNATURE,
    Greeting,
    parse_greeting,
    parse_ready,
    ready,
    rest_of_greeting,
)
from berrymq_rpc.cli.doctor.native import checks_of_greeting
from berrymq_rpc.cli.doctor.nats_server import clock


@pytest.mark.parametrize(
    ("first", "word"),
    [
        (SIGNATURE, "zeromq"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "ssh"),
        (b'INFO {"server_id":"N"} \r\n', "nats"),
        (b"HTTP/1.1 400 Bad Request\r\n", "http"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "tls"),
        (b'{"jsonrpc": "2.0"}', "json"),
        (b"220 mail.example.org ESMTP", "mail"),
        (b"-ERR wrong number of arguments", "redis"),
        (b"AMQP\x00\x00\x09\x01", "amqp"),
        (b"\x00\x01nonsense\x1b[2J", "other"),
    ],
)
def test_who_answers(first: bytes, word: str) -> None:
    speaker = identify(first)
    assert speaker.word == word
    assert speaker.advice
    assert speaker.text.isprintable()


def test_greetings() -> None:
    whole = SIGNATURE + rest_of_greeting("CURVE")
    assert parse_greeting(whole) == Greeting((3, 0), "CURVE")
    assert parse_greeting(whole[:-1]) is None
    assert parse_greeting(b"S" + whole[1:]) is None
    # ZMTP 2.0, of ZeroMQ 3.
    assert parse_greeting(SIGNATURE + b"\1" + whole[11:]) is None


def test_commands() -> None:
    assert parse_ready(ready("ROUTER")) == ("READY", {"socket-type": "ROUTER"})
    assert parse_ready(b"\x04\x0b\x05ERROR\x04nope") == ("ERROR", {"reason": "nope"})


@pytest.mark.parametrize("end", range(len(ready("DEALER"))))
def test_half_a_command(end: int) -> None:
    assert parse_ready(ready("DEALER")[:end]) is None


@pytest.mark.parametrize(
    "data",
    [b"\0\1x", b"\4\0", b"\4\1\xff", b"\4\x07\5READY\xff", b"\6" + b"\xff" * 8, b"\4\2\1A\0"],
)
def test_malformed_commands(data: bytes) -> None:
    found = parse_ready(data)
    assert found is None or found[1] == {}


LIMITS = {"window": 500, "max_message": 1 << 20, "max_frame": 1 << 26, "heartbeat": 2.0}


def test_a_peer_of_this_version() -> None:
    version, limits = checks_of_greeting({"versions": [1], **LIMITS}, "0.1.0")
    assert (version.status, limits.status) == (Status.OK, Status.OK)
    assert "0.1.0" in version.text
    assert limits.details == LIMITS


@pytest.mark.parametrize(
    ("versions", "older"),
    [([2], "this command"), ([], "peer"), ([0], "peer"), ("1", "peer"), (None, "peer")],
)
def test_a_peer_of_another_version(versions: object, older: str) -> None:
    version, _ = checks_of_greeting({"versions": versions, **LIMITS}, "0.1.0")
    assert version.status is Status.FAILED
    assert version.advice is not None
    assert older in version.advice


def test_limits_that_are_told() -> None:
    _, few = checks_of_greeting({"versions": [1], "window": 1, "max_message": 1000}, "0.1.0")
    assert few.status is Status.WARNING
    assert few.advice is not None
    assert "TooLargeError" in few.advice
    assert "few calls" in few.advice
    # A peer can send anything.
    _, huge = checks_of_greeting({"versions": [1], "window": 10**5000, "max_frame": 7}, "0.1.0")
    assert huge.details == {"max_frame": 7}
    _, none = checks_of_greeting({"versions": [1], "window": "many", "max_frame": True}, "0.1.0")
    assert (none.status, none.text) == (Status.WARNING, "the peer tells no limits")


def test_latency() -> None:
    check = latency([0.001, 0.003, 0.002], "pings")
    assert check.status is Status.OK
    assert check.text == "3 pings: p50 2 ms, max 3 ms"
    assert check.details == {"count": 3, "p50": 0.002, "max": 0.003}
    assert latency([0.4, 0.4, 0.001], "pings").status is Status.WARNING


@pytest.mark.parametrize(
    ("ahead", "status"), [(0, "ok"), (4, "ok"), (90, "warning"), (-90, "warning")]
)
def test_clocks(ahead: float, status: str) -> None:
    now = datetime(2026, 11, 28, 10, tzinfo=UTC)
    told = f"{now + timedelta(seconds=ahead):%Y-%m-%dT%H:%M:%S}.123456789Z"
    check = clock(told, now)
    assert check.status == status
    assert check.details["difference"] == ahead
    if status == "warning":
        assert f"90 s {'ahead of' if ahead > 0 else 'behind'}" in check.text
    assert clock("yesterday", now).status is Status.WARNING
