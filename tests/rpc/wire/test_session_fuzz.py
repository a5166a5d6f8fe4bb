"""Any bytes at all: nothing but `ProtocolError` is raised, and the tables stay in agreement."""

from typing import Any

import msgpack
from hypothesis import given
from hypothesis import strategies as st
from joined import HEAD, Pair, Recorder, aiozmq, check, message, native, opened, start

from berrymq_rpc.errors import ProtocolError
from berrymq_rpc.rpc.wire.codec import Codec
from berrymq_rpc.rpc.wire.exception_codec import Failure
from berrymq_rpc.rpc.wire.limits import Limits
from berrymq_rpc.rpc.wire.record import CALL, NOTIFY, PING
from berrymq_rpc.rpc.wire.session import State

CODEC = Codec()
LIMITS = Limits(window=3, max_message=10_000, max_depth=20)


def busy(session: Any) -> tuple[Any, list[Recorder]]:
    """A session with calls in each state."""
    opened(session, window=3)
    callers = [start(session, deadline=50.0) for _ in range(5)]
    session.messages(0.0)
    session.cancel(callers[1].id)
    return session, callers


def feed(session: Any, frames: Any, now: float = 1.0) -> None:
    """Let a session take a message; check what must hold whatever it is."""
    try:
        asked = session.receive(frames, now)
    except ProtocolError:
        asked = []
    for event in asked:
        # What the owner relies on without looking.
        kind, call_id, method, args, kwargs, deadline, _ = event
        assert type(kind) is int
        assert type(method) is str
        assert type(args) is tuple
        assert type(kwargs) is dict
        assert deadline is None or deadline > now
        assert hash(call_id) is not None
        if kind == CALL:
            session.result(call_id, None)
        else:
            assert kind != NOTIFY or call_id is None
    check(session)
    session.messages(now)
    check(session)


def finish(session: Any, callers: list[Recorder]) -> None:
    assert all(len(caller.outcomes) <= 1 for caller in callers)
    session.lost(ProtocolError("over"), 2.0)
    check(session)
    given_up = callers[1]
    assert given_up.outcomes == []
    assert all(len(caller.outcomes) == 1 for caller in callers if caller is not given_up)


@given(st.lists(st.lists(st.binary(max_size=40), max_size=6), max_size=4))
def test_random_frames(messages: list[list[bytes]]) -> None:
    for make in (native, aiozmq):
        session, callers = busy(make(LIMITS))
        for frames in messages:
            feed(session, frames)
        finish(session, callers)


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=4), st.integers(0, 2**64 - 1))
def test_random_records(bodies: list[bytes], clock: int) -> None:
    session, callers = busy(native(LIMITS))
    for body in bodies:
        count = body[0] % 4 if body else 0
        feed(session, (HEAD.pack(b"\xc1bq", 1, clock, 0xDD, count) + body,))
    finish(session, callers)


IDS = st.integers(0, 6)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
MAPS = st.dictionaries(
    st.sampled_from(["versions", "window", "max_message", "max_frame", "stream_window"]), VALUES
)
RECORDS = (
    st.tuples(st.integers(0, 14), IDS, VALUES)
    | st.tuples(st.integers(0, 14), IDS | VALUES, VALUES, VALUES)
    | st.tuples(st.just(1), IDS, st.text(), st.lists(VALUES), MAPS, st.integers(0, 10**8) | VALUES)
    | st.tuples(st.just(3), st.lists(IDS), st.lists(IDS | VALUES))
    | st.tuples(st.just(5), IDS, VALUES, VALUES, VALUES)
    | st.tuples(st.sampled_from([0, 6, 8, 9, 10, 11, 12, 13]), IDS | MAPS | st.text())
    | VALUES
)


@given(st.lists(st.lists(RECORDS, max_size=6), max_size=5))
def test_records_that_are_nearly_right(messages: list[list[Any]]) -> None:
    session, callers = busy(native(LIMITS))
    for records in messages:
        feed(session, message(*map(CODEC.pack, records)))
    finish(session, callers)


def conversation(dialect: str) -> list[tuple[bool, list[bytes]]]:
    """The messages of two sessions that say all they can, and whether each goes to the server."""
    pair = Pair(dialect)
    found: list[tuple[bool, list[bytes]]] = []

    def shuttle() -> None:
        pair.flush()
        for side in (pair.right, pair.left):
            found.extend((side is pair.right, [bytes(f) for f in m]) for m in side.arriving)
            while side.arriving:
                pair.deliver(side)

    callers = [pair.call("method", 1, "text", b"bytes", key={"a": [None]}, timeout=5.0)]
    callers += [pair.call("large", bytes(9_000)) for _ in range(4)]
    pair.client.notify("log", ("done",), {"level": 1}, pair.now)
    shuttle()
    ids = [event[1] for event in pair.right.asked if event[0] == CALL]
    pair.server.accepted(ids[:3], ids[1:2])
    pair.server.result(ids[0], {"key": (1, 2)})
    pair.server.error(ids[2], Failure("builtins.ValueError", ("x",), "text", "traceback"))
    if dialect == "native":
        pair.server.result(ids[3], bytes(9_000), acknowledge=True)
        pair.server.item(ids[1], "item")
        pair.server.end(ids[1])
        pair.client.credit(ids[1], 5)
        pair.right.arriving.append(message((PING, 5), clock=int(pair.now * 1e6)))
        pair.server.goodbye("closing")
    pair.client.cancel(callers[4].id)
    shuttle()
    shuttle()
    assert callers[0].outcomes
    assert callers[2].outcomes
    return found


CONVERSATIONS = {dialect: conversation(dialect) for dialect in ("native", "aiozmq")}

#: Bytes that mean much in msgpack.
TELLING = [0x00, 0x7F, 0x80, 0x90, 0x91, 0x92, 0xA0, 0xC0, 0xC1, 0xC7, 0xD4, 0xDC, 0xDD, 0xDF, 0xFF]

CHANGES = ["replace", "insert", "delete", "cut", "drop", "double", "swap", "extend"]


@st.composite
def mutations(draw: st.DrawFn, dialect: str) -> tuple[bool, list[bytes]]:
    """A message of the conversation with some bytes or frames other than they were."""
    to_server, frames = draw(st.sampled_from(CONVERSATIONS[dialect]))
    frames = list(frames)
    for _ in range(draw(st.integers(0, 4))):
        index = draw(st.integers(0, len(frames) - 1))
        data = bytearray(frames[index])
        # The front is where most of the meaning is.
        place = min(draw(st.integers(0, 80)), max(len(data) - 1, 0))
        match draw(st.sampled_from(CHANGES)):
            case "replace" if data:
                data[place] = draw(st.sampled_from(TELLING) | st.integers(0, 255))
            case "insert":
                data[place:place] = draw(st.binary(max_size=6))
            case "delete":
                del data[place : place + draw(st.integers(1, 6))]
            case "cut":
                del data[place:]
            case "drop" if len(frames) > 1:
                del frames[index]
                continue
            case "double":
                frames.insert(index, bytes(data))
            case "swap":
                other = draw(st.integers(0, len(frames) - 1))
                frames[index], frames[other] = frames[other], frames[index]
                continue
            case "extend":
                data += draw(st.binary(max_size=6))
        frames[index] = bytes(data)
    return to_server, frames


def check_mutated(dialect: str, messages: list[tuple[bool, list[bytes]]]) -> None:
    pair = Pair(dialect, client=LIMITS, server=LIMITS).settled()
    callers = [pair.call() for _ in range(5)]
    pair.client.messages(pair.now)
    pair.client.cancel(callers[1].id)
    for to_server, frames in messages:
        side = pair.right if to_server else pair.left
        feed(side.session, frames, pair.now)
    # Both work on.
    if dialect == "native":
        good = message((CALL, 77, "good", ()), clock=int(pair.now * 1e6))
        assert pair.server.receive(good, pair.now)[-1][1] == 77
    finish(pair.client, callers)


@given(st.lists(mutations("native"), min_size=1, max_size=6))
def test_mutated_native_messages(messages: list[tuple[bool, list[bytes]]]) -> None:
    check_mutated("native", messages)


@given(st.lists(mutations("aiozmq"), min_size=1, max_size=6))
def test_mutated_aiozmq_messages(messages: list[tuple[bool, list[bytes]]]) -> None:
    check_mutated("aiozmq", messages)


@given(mutations("native"), mutations("aiozmq"))
def test_messages_of_the_other_dialect(
    of_native: tuple[bool, list[bytes]], of_aiozmq: tuple[bool, list[bytes]]
) -> None:
    for make, (_, frames) in ((aiozmq, of_native), (native, of_aiozmq)):
        session, callers = busy(make(LIMITS))
        feed(session, frames)
        finish(session, callers)


@given(st.integers(0, 14), st.integers(0, 3), st.integers(0, 2**64 - 1), VALUES)
def test_each_call_is_answered_once(kind: int, cut: int, call_id: int, value: Any) -> None:
    """A call whose kind and id can be read is either asked of the owner, or answered."""
    session = opened(native(LIMITS))
    head = b"\x95" + bytes([kind]) + msgpack.packb(call_id)
    body = CODEC.pack("method") + CODEC.pack(value) + b"\x80"
    asked: list[Any] = []
    try:
        asked = session.receive(message(head + body[: len(body) - cut]), 1.0)
    except ProtocolError:
        # Over max_message: the answer has been made all the same.
        asked = []
    if kind == CALL and call_id < 2**64:
        assert len(asked) + len(session.messages(1.0)) == 1
    assert session.state is State.OPEN
