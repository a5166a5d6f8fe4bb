"""Messages that a proxy loses or sends twice, found in the bytes of ZMTP."""

import random

import pytest

from berrymq_rpc.testing.message_faults import COMMAND, GREETING, LONG, MORE, MessageFaults


def frame(body: bytes, flags: int = 0) -> bytes:
    if len(body) > 255:
        return bytes([flags | LONG]) + len(body).to_bytes(8, "big") + body
    return bytes([flags, len(body)]) + body


HEAD = bytes(GREETING)
PING = frame(b"\4PING", COMMAND)
ONE = frame(b"first", MORE) + frame(b"")
TWO = frame(b"x" * 1000)
STREAM = HEAD + frame(b"\5READY", COMMAND) + ONE + PING + TWO + frame(b"last")


@pytest.fixture
def faults() -> MessageFaults:
    return MessageFaults()


@pytest.mark.parametrize("size", [1, 2, 7, 63, 64, 65, 5000])
def test_all_passes(faults: MessageFaults, size: int) -> None:
    feed = faults.filter("up")
    parts = [STREAM[start : start + size] for start in range(0, len(STREAM), size)]
    assert b"".join(map(feed, parts)) == STREAM


def test_drop(faults: MessageFaults) -> None:
    faults.drops["up"] = 1
    assert faults.filter("down")(STREAM) == STREAM
    assert faults.filter("up")(STREAM) == STREAM.replace(ONE, b"")
    assert faults.filter("up")(STREAM) == STREAM


def test_duplicate(faults: MessageFaults) -> None:
    faults.duplicates["down"] = 2
    assert faults.filter("down")(STREAM) == STREAM.replace(ONE, ONE * 2).replace(TWO, TWO * 2)


def test_a_message_that_has_begun_is_dropped_whole(faults: MessageFaults) -> None:
    feed = faults.filter("up")
    assert feed(HEAD + ONE[:4]) == HEAD
    faults.drops["up"] = 1
    assert feed(ONE[4:] + TWO) == TWO


def test_a_command_between_frames(faults: MessageFaults) -> None:
    faults.drops["up"] = 1
    message = frame(b"a", MORE) + PING + frame(b"b")
    assert faults.filter("up")(HEAD + message) == HEAD + PING


def test_random_parts(faults: MessageFaults) -> None:
    chance = random.Random(1)
    messages = [frame(chance.randbytes(chance.randrange(600))) for _ in range(50)]
    faults.drops["up"] = 10
    stream = HEAD + b"".join(messages)
    feed = faults.filter("up")
    passed = b""
    while stream:
        size = chance.randrange(1, 400)
        passed += feed(stream[:size])
        stream = stream[size:]
    assert passed == HEAD + b"".join(messages[10:])
