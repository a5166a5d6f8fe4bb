from typing import Any

import pytest

from berrymq_rpc.exchange.batch import (
    MAX_COUNT,
    MAX_NAME_LENGTH,
    Batch,
    checked_name,
    parse_batch,
)

ENVELOPE = {"origin": "a", "epoch": 5, "seq": 3, "count": 2}
ANSWER = ENVELOPE | {"count": 1, "to": ("b", 6)}


@pytest.mark.parametrize(
    "envelope",
    [
        ENVELOPE,
        ENVELOPE | {"seq": 2**63 - 2},
        ENVELOPE | {"withheld": 2},
        ANSWER,
        ANSWER | {"error": ("builtins.ValueError", (1,), "ValueError(1)")},
    ],
)
def test_there_and_back(envelope: dict[str, Any]) -> None:
    batch = parse_batch(envelope, b"data", [b"frame"])
    assert batch.envelope() == envelope
    assert (batch.source, batch.first) == (("a", 5), envelope["seq"])
    assert batch.last == batch.first + batch.count - 1
    assert (batch.data, batch.frames) == (b"data", [b"frame"])
    assert batch.size > 9


def test_one_message_need_not_be_counted() -> None:
    assert parse_batch({"origin": "a", "epoch": 0, "seq": 1}).count == 1


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"origin": ""}, ValueError),
        ({"origin": "x" * (MAX_NAME_LENGTH + 1)}, ValueError),
        ({"origin": "a\nb"}, ValueError),
        ({"origin": None}, TypeError),
        ({"origin": b"a"}, TypeError),
        ({"epoch": -1}, ValueError),
        ({"epoch": 2**63}, ValueError),
        ({"epoch": 1.0}, TypeError),
        ({"epoch": None}, TypeError),
        ({"epoch": True}, TypeError),
        ({"seq": 0}, ValueError),
        ({"seq": -5}, ValueError),
        ({"seq": 2**63}, ValueError),
        ({"seq": 2**63 - 1}, ValueError),
        ({"seq": "1"}, TypeError),
        ({"seq": None}, TypeError),
        ({"withheld": 3}, ValueError),
        ({"withheld": -1}, ValueError),
        ({"withheld": True}, TypeError),
        ({"withheld": None}, TypeError),
        ({"count": 0}, ValueError),
        ({"count": -1}, ValueError),
        ({"count": MAX_COUNT + 1}, ValueError),
        ({"count": None}, TypeError),
        ({"to": ("b", 6)}, ValueError),
        ({"count": 1, "to": "bc"}, TypeError),
        ({"count": 1, "to": ("b",)}, TypeError),
        ({"count": 1, "to": ("b", -1)}, ValueError),
        ({"count": 1, "to": (5, 5)}, TypeError),
        ({"count": 1, "to": ("b", 6), "error": "text"}, TypeError),
        ({"count": 1, "to": ("b", 6), "error": ("type", "args", "text")}, TypeError),
        ({"count": 1, "to": ("b", 6), "error": ("type", ())}, TypeError),
    ],
)
def test_refuses_an_envelope(changed: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        parse_batch(ENVELOPE | changed, b"")


@pytest.mark.parametrize("envelope", [None, 5, "text", [], {}])
def test_refuses_what_is_no_envelope(envelope: Any) -> None:
    with pytest.raises(TypeError):
        parse_batch(envelope)


@pytest.mark.parametrize(
    ("data", "frames"),
    [("no base64", ()), ("dGV4", ["="]), ("é", ()), (None, ()), (b"", b""), (b"", [5])],
)
def test_refuses_what_are_no_messages(data: Any, frames: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        parse_batch(ENVELOPE, data, frames)


def test_names() -> None:
    assert checked_name("Gerät 5") == "Gerät 5"


def test_repr() -> None:
    assert repr(Batch(("a", 5), 3, 2, b"")) == "<Messages 3 to 4 of a>"
    assert repr(Batch(("a", 5), 3, 1, b"", (), ("b", 6))) == "<Answer 3 of a>"
