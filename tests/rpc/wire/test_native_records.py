"""How native records are packed, and put into messages and frames."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joined import (
    HEAD,
    Pair,
    check,
    connected,
    message,
    native,
    opened,
    pack,
    received,
    records,
    sent,
    start,
)

from berrymq_rpc.errors import (
    ProtocolError,
    TooLargeError,
)
from berrymq_rpc.rpc.wire.limits import Limits
from berrymq_rpc.rpc.wire.native_records import MAX_BATCH, MIN_DETACHED, PREFIX
from berrymq_rpc.rpc.wire.native_session import NativeSession
from berrymq_rpc.rpc.wire.record import (
    ACCEPTED,
    CALL,
    CANCEL,
    CREDIT,
    ERROR,
    ITEM,
    NOTIFY,
    PING,
    RESULT,
)
from berrymq_rpc.rpc.wire.session import SHARE

# -- plain records: packed all at once, their bytes are those of each by itself ---------------

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False),
    st.text(max_size=300),
    st.text(st.characters(categories=["Cs", "L"]), max_size=5),
    st.binary(max_size=20),
    st.just(bytes(MIN_DETACHED)),
    st.lists(st.integers(), max_size=3).map(tuple),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@given(st.lists(st.lists(VALUES, max_size=10).map(tuple), max_size=40))
def test_whatever_is_sent_together_arrives_as_it_was(calls: list[tuple[Any, ...]]) -> None:
    left, right = opened(native()), opened(native())
    for args in calls:
        left.notify("method", args, {}, 0.0)
    arrived = [event for frames in left.messages(0.0) for event in right.receive(frames, 0.0)]
    assert [event[:4] for event in arrived] == [(NOTIFY, None, "method", args) for args in calls]
    assert right.malformed == 0


@given(st.lists(VALUES, max_size=30))
def test_results_too(values: list[Any]) -> None:
    left, right = opened(native()), opened(native())
    callers = [start(left) for _ in values]
    left.messages(0.0)
    for caller, value in zip(callers, values, strict=True):
        right.result(caller.id, value)
    for frames in right.messages(0.0):
        left.receive(frames, 0.0)
    assert [caller.outcomes for caller in callers] == [[("result", value)] for value in values]


@pytest.mark.parametrize("count", [1, 15, 16, 17, 1999, 2000, 2001, 70_000])
def test_any_number(count: int) -> None:
    left, right = opened(native()), opened(native(limits=Limits(window=count)))
    for number in range(count):
        left.notify("method", (number,), {}, 0.0)
    messages = left.messages(0.0)
    assert all(len(frames) == 1 and len(frames[0]) <= MAX_BATCH + HEAD.size for frames in messages)
    arrived = [event for frames in messages for event in received(right, frames)]
    assert [event[3] for event in arrived] == [(number,) for number in range(count)]


def test_batches_over_the_bound_are_split() -> None:
    left, right = opened(native()), opened(native())
    for number in range(1500):
        left.notify("method", (number, "x" * 250), {}, 0.0)
    messages = left.messages(0.0)
    assert len(messages) > 1
    assert all(len(frames[0]) <= MAX_BATCH + HEAD.size for frames in messages)
    arrived = [event for frames in messages for event in received(right, frames)]
    assert [event[3][0] for event in arrived] == list(range(1500))


@pytest.mark.parametrize("kind", [NOTIFY, PING, RESULT, CANCEL, CREDIT])
def test_a_message_is_taken_in_shares(kind: int) -> None:
    """Whatever its records are: each share may be followed by what others have asked."""
    session = opened(native())
    fields = {
        NOTIFY: ("method", ()),
        PING: (7,),
        RESULT: (1, None),
        CANCEL: (1,),
        CREDIT: (1, 1),
    }[kind]
    count = 2 * SHARE + 3
    taken = [len(session.receive(message(*[(kind, *fields)] * count), 0.0))]
    left = [session.unread]
    while session.unread:
        taken.append(len(session.receive_rest(0.0)))
        left.append(session.unread)
    assert left == [SHARE + 3, 3, 0]
    assert taken == ([SHARE, SHARE, 3] if kind in (NOTIFY, CANCEL, CREDIT) else [0, 0, 0])
    assert len(sent(session)) == (count if kind == PING else 0)
    assert session.malformed == 0


def test_more_calls_are_accepted_than_there_are() -> None:
    session = connected()
    caller = start(session)
    session.receive(message((ACCEPTED, list(range(SHARE + 1)), [])), 0.0)
    assert session.malformed == 1
    session.receive(message((ACCEPTED, list(range(SHARE)), [])), 0.0)
    assert session.malformed == 1
    assert caller.accepted_at is not None


@pytest.mark.parametrize("value", ["\ud800", 2**64, -(2**70)])
def test_what_msgpack_itself_cannot_pack(value: Any) -> None:
    left, right = opened(native()), opened(native())
    left.notify("method", (1, value), {}, 0.0)
    left.notify("method", (2,), {}, 0.0)
    (frames,) = left.messages(0.0)
    assert [event[3] for event in right.receive(frames, 0.0)] == [(1, value), (2,)]


def test_what_can_change_is_packed_when_it_is_given() -> None:
    left, right = opened(native()), opened(native())
    value = [1]
    left.notify("method", (value,), {}, 0.0)
    start(left, "method", value)
    value.append(2)
    (frames,) = left.messages(0.0)
    assert [event[3] for event in right.receive(frames, 0.0)] == [((1,),), ((1,),)]


def test_a_call_with_a_deadline() -> None:
    left = opened(native())
    caller = start(left, "method", 1, deadline=2.5)
    (frames,) = left.messages(0.0)
    assert records(frames) == [[CALL, caller.id, "method", [1], {}, 2_500_000]]


def test_an_acknowledged_result() -> None:
    session = opened(native())
    session.result(7, 5, acknowledge=True)
    (frames,) = session.messages(0.0)
    assert records(frames) == [[RESULT, 7, 5, True]]


# -- messages --------------------------------------------------------------------------------


def test_all_of_a_tick_in_one_message() -> None:
    session = connected()
    for number in range(100):
        session.result(number, "value")
    (frames,) = session.messages(2.5)
    assert HEAD.unpack_from(frames[0]) == (PREFIX, 1, 2_500_000, 0xDD, 100)
    assert len(frames) == 1
    assert session.messages(3.0) == []


def fill(session: NativeSession, size: int) -> None:
    """Gather one record of exactly so many bytes."""
    session.item(1, "x" * (size - 5 if size - 5 > 255 else size - 4))


@pytest.mark.parametrize("size", [100, 8_000, 60_000])
def test_splits_at_the_bound(size: int) -> None:
    session = connected()
    for _ in range(2 * MAX_BATCH // size):
        session.item(1, "x" * size)
    messages = session.messages(0.0)
    assert len(messages) >= 2
    total = 0
    for frames in messages:
        assert len(frames[0]) <= MAX_BATCH + HEAD.size
        total += len(records(frames))
    assert total == 2 * MAX_BATCH // size


def test_a_message_of_exactly_the_bound_is_sent_and_taken_whole() -> None:
    sender = connected()
    # Each is an array of 3, a kind, an id and a text of up to 65,535 bytes: 6 bytes and the text.
    sender.item(1, "x" * (MAX_BATCH // 2 - 6))
    sender.item(1, "x" * (MAX_BATCH // 2 - 6))
    (frames,) = sender.messages(0.0)
    assert len(frames[0]) == MAX_BATCH + HEAD.size
    # Also by a peer whose largest record is smaller.
    receiver = connected(Limits(max_message=1000))
    caller = start(receiver)
    receiver.receive(frames, 0.0)
    assert len(caller.items) == 2
    sender.item(1, "x" * (MAX_BATCH // 2 - 6))
    sender.item(1, "x" * (MAX_BATCH // 2 - 5))
    assert len(sender.messages(0.0)) == 2


def test_order_is_kept_across_messages() -> None:
    pair = Pair().settled()
    caller = pair.call()
    pair.shuttle()
    sizes = [1, 200_000, 5, 9_000, 130_000, 7]
    values = [bytes(size) if index % 2 else "x" * size for index, size in enumerate(sizes)] * 3
    for value in values:
        pair.server.item(1, value)
    pair.shuttle()
    assert caller.items == values


def test_a_record_larger_than_the_bound_travels_alone() -> None:
    session = connected()
    session.item(1, "before")
    session.item(1, "x" * MAX_BATCH)
    session.item(1, "after")
    first, second, third = session.messages(0.0)
    assert [len(records(frames)) for frames in (first, second, third)] == [1, 1, 1]
    assert len(second[0]) > MAX_BATCH + HEAD.size


def test_no_message_without_records() -> None:
    session = connected()
    session.item(1, bytes(MIN_DETACHED))
    session.item(1, bytes(MIN_DETACHED))
    assert [len(frames) for frames in session.messages(0.0)] == [2, 2]


# -- frames of their own ---------------------------------------------------------------------


@pytest.mark.parametrize("extra", [-1, 0, 1, 1_000_000])
def test_long_byte_strings_travel_beside_the_record(extra: int) -> None:
    data = random.Random(1).randbytes(MIN_DETACHED + extra)
    session = connected()
    session.item(1, "before")
    session.result(1, {"key": [data, "short"]})
    session.item(1, "after")
    messages = session.messages(0.0)
    if extra < 0:
        assert len(messages) == 1
    else:
        before, alone, after = messages
        head, frame = alone
        assert bytes(frame) == data
        assert records((head,))[0][:2] == [RESULT, 1]
        assert len(head) < 60
        assert [len(records(m)) for m in (before, after)] == [1, 1]
    receiver = connected()
    caller = start(receiver)
    for frames in messages:
        receiver.receive(frames, 0.0)
    assert caller.value == {"key": (data, "short")}


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_each_kind_of_buffer(kind: type) -> None:
    data = random.Random(2).randbytes(20_000)
    pair = Pair().settled()
    caller = pair.call("echo", kind(data), first=kind(data[1:]))
    pair.shuttle(lambda event: pair.server.result(event[1], (event[3][0], event[4]["first"])))
    assert caller.value == (data, data[1:])


def test_a_buffer_that_changes_later_has_been_copied() -> None:
    data = bytearray(b"a" * 20_000)
    pair = Pair().settled()
    pair.call("echo", data)
    data[:] = b"b" * 20_000
    pair.shuttle()
    assert pair.right.asked[0][3] == (b"a" * 20_000,)


def test_many_frames() -> None:
    values = [bytes([number]) * MIN_DETACHED for number in range(255)] * 2
    pair = Pair().settled()
    pair.call("method", *values)
    pair.shuttle()
    assert pair.right.asked[0][3] == tuple(values)


@pytest.mark.parametrize("frames", [(), (b"first",)])
def test_a_frame_that_is_missing(frames: tuple[bytes, ...]) -> None:
    session = connected()
    record = b"\x94\x01\x05\xa1m\x92\xd4\x7f\x00\xd4\x7f\x01"
    good = (CALL, 6, "good", ())
    asked = session.receive((*message(record, good), *frames), 0.0)
    assert [event[1] for event in asked] == [6]
    ((kind, call_id, name, *_),) = sent(session)
    assert (kind, call_id, name) == (ERROR, 5, "berrymq_rpc.errors.ProtocolError")


def test_frames_that_nothing_refers_to_are_ignored() -> None:
    session = connected()
    assert len(session.receive((*message((CALL, 1, "method", ())), b"x", b"y"), 0.0)) == 1


def test_bytes_that_wait_are_counted() -> None:
    session = connected()
    session.item(1, "x" * 100)
    assert session.large_bytes == 0
    session.item(1, "x" * 10_000)
    assert 10_000 < session.large_bytes < 10_100
    session.item(1, bytes(50_000))
    assert 60_000 < session.large_bytes < 60_200
    with pytest.raises(TooLargeError):
        session.item(1, [bytes(50_000), bytes(65 << 20)])
    assert session.large_bytes < 60_200
    session.messages(0.0)
    assert session.large_bytes == 0


# -- too large -------------------------------------------------------------------------------


def test_a_call_that_is_too_large_here_is_refused_here() -> None:
    """Sent before the limit was known."""
    pair = Pair(client=Limits(max_message=1 << 20), server=Limits(max_message=200_000))
    caller = pair.call("method", "x" * 300_000)
    pair.flush()
    assert pair.deliver(pair.right) == []
    with pytest.raises(ProtocolError, match="over max_message=200,000"):
        pair.deliver(pair.right)
    pair.shuttle()
    assert isinstance(caller.error, TooLargeError)
    assert pair.client.in_window == 0
    assert pair.server.malformed == 1


@pytest.mark.parametrize(
    "record",
    [
        (RESULT, 1, "x" * 300_000),
        (ERROR, 1, "builtins.ValueError", ["x" * 300_000], "text"),
        (ITEM, 1, "x" * 300_000),
        (NOTIFY, "method", ["x" * 300_000]),
        "x" * 300_000,
    ],
)
def test_what_comes_too_large_fails_the_caller(record: Any) -> None:
    session = connected(Limits(max_message=200_000), window=1)
    caller = start(session)
    with pytest.raises(ProtocolError):
        session.receive(message(record), 0.0)
    concerned = record[0] in (RESULT, ERROR, ITEM)
    assert len(caller.outcomes) == concerned
    if concerned:
        assert isinstance(caller.error, TooLargeError)
    check(session)


@pytest.mark.parametrize("size", [199_993, 199_994])
def test_the_largest_message(size: int) -> None:
    """An array of 3, a kind, an id and a text of more than 65,535 bytes: 8 bytes and the text."""
    sender = connected(Limits(max_message=200_002))
    sender.item(1, "x" * size)
    (frames,) = sender.messages(0.0)
    receiver = connected(Limits(max_message=200_002))
    caller = start(receiver)
    receiver.receive(frames, 0.0)
    assert caller.items


# -- what is no message ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "frames",
    [
        (),
        (b"",),
        (b"\xc1bq",),
        (b"\xc1bq\x01" + bytes(12),),
        (b"\xc1bq\x01" + bytes(13),),
        (b"\xc1bq\x02" + bytes(8) + b"\xdd\x00\x00\x00\x00",),
        (b"\xc1bQ\x01" + bytes(8) + b"\xdd\x00\x00\x00\x00",),
        (b"\xc1bq\x01" + bytes(8) + b"\xd3" + bytes(8),),
        (b"\xc1bq\x01" + bytes(8) + b"\xdc\x00\x00\x00\x00",),
        (b'{"jsonrpc": "2.0", "method": "m"}',),
    ],
)
def test_what_is_no_message(frames: tuple[bytes, ...]) -> None:
    session = connected()
    with pytest.raises(ProtocolError):
        session.receive(frames, 5.0)
    assert session.malformed == 1
    assert session.last_heard == 0.0
    # The session works on.
    assert len(session.receive(message((CALL, 1, "method", ())), 5.0)) == 1


def test_a_message_without_records_is_one() -> None:
    session = connected()
    assert session.receive(message(), 5.0) == []
    assert session.last_heard == 5.0
    assert session.malformed == 0


@pytest.mark.parametrize("count", [1, 3, 0xFFFFFFFF])
def test_fewer_records_than_told(count: int) -> None:
    session = connected()
    body = b"".join(pack((CALL, number, "method", ())) for number in (1, 2))
    head = HEAD.pack(PREFIX, 1, 0, 0xDD, max(count, 3))
    asked = session.receive((head + body,), 0.0)
    assert session.malformed == 1
    # Those that are there are served, or else told.
    told = [call_id for _, call_id, *_ in sent(session)]
    assert sorted([event[1] for event in asked] + told) == [1, 2]


def test_more_records_than_told() -> None:
    session = connected()
    body = b"".join(pack((CALL, number, "method", ())) for number in (1, 2))
    asked = session.receive((HEAD.pack(PREFIX, 1, 0, 0xDD, 1) + body,), 0.0)
    assert [event[1] for event in asked] == [1]
    assert [call_id for _, call_id, *_ in sent(session)] == [2]
