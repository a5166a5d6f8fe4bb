"""Metadata of calls: what travels, to whom, and what a peer may send."""

from typing import Any

import pytest

from berrymq_rpc.errors import ProtocolError, ServiceClosedError
from berrymq_rpc.rpc.wire.codec import Codec
from berrymq_rpc.rpc.wire.limits import Limits
from berrymq_rpc.rpc.wire.metadata import (
    MAX_METADATA,
    checked_metadata,
    metadata_bytes,
    read_metadata,
)
from berrymq_rpc.rpc.wire.native_records import HEAD, MIN_DETACHED, PAYLOAD
from berrymq_rpc.rpc.wire.native_session import NativeDialect, NativeSession
from berrymq_rpc.rpc.wire.record import CALL, HELLO, NOTIFY, RESULT

from .joined import AIOZMQ

CODEC = Codec()
DIALECT = NativeDialect(CODEC, {})
GIVEN: dict[str, Any] = {"user": "alice", "raw": b"\x00", "attempt": 2, "share": 0.5}


class Caller:
    deadline: float | None = None
    made_at = 0.0
    accepted_at: float | None = None
    sent: float | None = None
    id = 0
    method = "add"

    def __init__(self) -> None:
        self.outcomes: list[Any] = []

    def succeed(self, value: Any, /) -> None:
        self.outcomes.append(value)

    fail = refused = item = succeed

    def accepted(self, now: float, released: bool, /) -> None: ...

    def end(self) -> None: ...


def opened() -> NativeSession:
    session = DIALECT.session(Limits())
    session.connected(0.0)
    session.messages(0.0)
    return session


def message(*records: Any) -> tuple[bytes]:
    return (b"\xc1bq\x01" + bytes(8) + b"\xdd" + _packed(records),)


def _packed(records: Any) -> bytes:
    return len(records).to_bytes(4, "big") + b"".join(CODEC.pack(record) for record in records)


def hello(**properties: Any) -> tuple[bytes]:
    return message((HELLO, {"versions": [1], **properties}))


def sent(session: NativeSession) -> list[Any]:
    found: list[Any] = []
    for head, *frames in session.messages(0.0):
        assert len(head) > HEAD.size
        found += CODEC.unpack(memoryview(head)[PAYLOAD:], frames)
    return found


def call(session: NativeSession, args: Any = (1,), metadata: Any = GIVEN, **more: Any) -> Caller:
    caller = Caller()
    caller.deadline = more.get("deadline")
    session.call_with(caller, "add", args, more.get("kwargs", {}), 0.0, metadata)
    return caller


def test_it_arrives() -> None:
    client, server = opened(), opened()
    client.receive(hello(metadata=MAX_METADATA), 0.0)
    caller = call(client, kwargs={"b": 2}, deadline=5.0)
    client.notify_with("log", ("x",), {}, 0.0, GIVEN)
    (frames,) = client.messages(0.0)
    (asked, noted) = server.receive(frames, 0.0)
    assert asked[:5] == (CALL, caller.id, "add", (1,), {"b": 2})
    assert asked[5] == pytest.approx(5.0)
    assert asked[6] == GIVEN
    assert noted == (NOTIFY, None, "log", ("x",), {}, None, GIVEN)


def test_what_is_not_sent() -> None:
    session = opened()
    session.lost(ServiceClosedError("the client is closed"), 1.0)
    for ask in (call, lambda session: session.notify_with("add", (), {}, 0.0, GIVEN)):
        with pytest.raises(ServiceClosedError) as refused:
            ask(session)
        assert (refused.value.method, refused.value.sent) == ("add", False)


def test_dialects_without() -> None:
    session = AIOZMQ.session(Limits())
    with pytest.raises(ValueError, match=r"does not travel to a peer that speaks aiozmq"):
        session.call_with(Caller(), "add", (), {}, 0.0, GIVEN)


def test_it_waits_for_what_the_peer_takes() -> None:
    session = opened()
    first = call(session)
    session.notify_with("log", (), {}, 0.0, GIVEN)
    second = Caller()
    session.call(second, "sub", (), {}, 0.0)
    assert (sent(session), first.sent) == ([], None)
    session.receive(hello(metadata=MAX_METADATA), 1.0)
    # In their order.
    assert sent(session) == [
        (CALL, 1, "add", (1,), {}, None, GIVEN),
        (NOTIFY, "log", (), {}, GIVEN),
        (CALL, 2, "sub", ()),
    ]
    assert (first.sent, second.sent, session.in_window) == (1.0, 1.0, 2)
    session.receive(message((RESULT, 1, 3)), 1.0)
    assert first.outcomes == [3]


@pytest.mark.parametrize("properties", [{}, {"metadata": 0}, {"metadata": 20}])
@pytest.mark.parametrize("is_known", [False, True])
@pytest.mark.parametrize("size", [1, 2 * MIN_DETACHED])
def test_a_peer_that_does_not_take_it_gets_the_call(
    properties: dict[str, Any], is_known: bool, size: int
) -> None:
    session, args = opened(), (b"*" * size, "b" * size)
    if is_known:
        session.receive(hello(**properties), 0.0)
    call(session, args, deadline=2.0)
    session.notify_with("log", args, {"k": 1}, 0.0, GIVEN)
    if not is_known:
        session.receive(hello(**properties), 0.0)
    assert sent(session) == [
        (CALL, 1, "add", args, {}, 2_000_000),
        (NOTIFY, "log", args, {"k": 1}),
    ]


@pytest.mark.parametrize(
    "properties", [{"metadata": -1}, {"metadata": "many"}, {"window": 0}, {"metadata": None}]
)
def test_a_malformed_greeting_holds_nothing_up(properties: dict[str, Any]) -> None:
    session = opened()
    call(session)
    session.receive(hello(**properties), 0.0)
    assert sent(session) == [(CALL, 1, "add", (1,), {}, None)]
    assert session.malformed == 1


def test_what_waits_may_be_given_up_or_lost() -> None:
    session = opened()
    first, second = call(session), call(session)
    session.cancel(first.id)
    session.receive(hello(metadata=MAX_METADATA), 0.0)
    assert [record[1] for record in sent(session)] == [second.id]
    session = opened()
    caller = call(session, deadline=3.0)
    assert session.next_deadline() == 3.0
    session.expire(3.0)
    assert len(caller.outcomes) == 1
    assert sent(session) == []


def test_it_moves_to_another_session_of_the_client() -> None:
    first, second = opened(), opened()
    caller = call(first)
    second.receive(hello(metadata=MAX_METADATA), 0.0)
    second.adopt(first.take_backlog(), 0.0)
    assert sent(second) == [(CALL, caller.id, "add", (1,), {}, None, GIVEN)]


MALFORMED: list[Any] = [
    5,
    "text",
    ["a"],
    {1: "a"},
    {"a": None},
    {"a": True},
    {"a": ["b"]},
    {"a": {"b": "c"}},
    {"a": "x" * MAX_METADATA},
    dict.fromkeys(map(str, range(1000)), 1),
]


@pytest.mark.parametrize("value", MALFORMED)
def test_malformed_metadata_costs_its_call_alone(value: Any) -> None:
    session = opened()
    frames = message(
        (CALL, 7, "add", (), {}, None, value),
        (NOTIFY, "log", (), {}, value),
        (CALL, 8, "good", (), {}, None, GIVEN),
    )
    (good,) = session.receive(frames, 0.0)
    assert (good[1], good[6]) == (8, GIVEN)
    assert session.malformed == 2
    (refused,) = sent(session)
    assert refused[1:3] == (7, "berrymq_rpc.errors.ProtocolError")
    with pytest.raises(ProtocolError):
        read_metadata(value)


def test_nothing_is_no_metadata() -> None:
    assert read_metadata(None) is None
    ((*_, metadata),) = opened().receive(message((CALL, 1, "a", (), {}, None, {})), 0.0)
    assert metadata is None


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (5, TypeError),
        ([("a", "b")], TypeError),
        ({1: "a"}, TypeError),
        ({"a": None}, TypeError),
        ({"a": True}, TypeError),
        ({"a": ["b"]}, TypeError),
        ({"a": 1 << 64}, ValueError),
        ({"a": "\xe4" * (MAX_METADATA // 2)}, ValueError),
    ],
)
def test_what_a_user_cannot_give(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="metadata"):
        checked_metadata(value)


def test_the_largest() -> None:
    largest = {"a": "x" * (MAX_METADATA - 9), "b": 1}
    largest["a"] = "x" * (MAX_METADATA - 9 - 9)
    assert metadata_bytes(largest) == MAX_METADATA
    assert checked_metadata(largest) == largest
    client, server = opened(), opened()
    client.receive(hello(metadata=MAX_METADATA), 0.0)
    call(client, metadata=largest)
    (frames,) = client.messages(0.0)
    ((*_, metadata),) = server.receive(frames, 0.0)
    assert metadata == largest
