"""Records whose values are plain are packed all at once: the bytes are those of each by itself."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joined import HEAD, native, opened, records, start

from berrymq_rpc.rpc.wire.limits import Limits
from berrymq_rpc.rpc.wire.native_session import MAX_BATCH, MIN_DETACHED
from berrymq_rpc.rpc.wire.record import CALL, NOTIFY, RESULT

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
    arrived = [event for frames in messages for event in right.receive(frames, 0.0)]
    assert [event[3] for event in arrived] == [(number,) for number in range(count)]


def test_batches_over_the_bound_are_split() -> None:
    left, right = opened(native()), opened(native())
    for number in range(1500):
        left.notify("method", (number, "x" * 250), {}, 0.0)
    messages = left.messages(0.0)
    assert len(messages) > 1
    assert all(len(frames[0]) <= MAX_BATCH + HEAD.size for frames in messages)
    arrived = [event for frames in messages for event in right.receive(frames, 0.0)]
    assert [event[3][0] for event in arrived] == list(range(1500))


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
