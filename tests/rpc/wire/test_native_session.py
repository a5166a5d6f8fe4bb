"""The native dialect: greeting, window, deadlines, streams, liveness, closing."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joined import (
    NATIVE,
    Pair,
    check,
    connected,
    message,
    native,
    opened,
    sent,
    start,
)

from berrymq_rpc.errors import (
    ConnectionLostError,
    ProtocolError,
    RPCTimeoutError,
    ServiceClosedError,
    TooLargeError,
)
from berrymq_rpc.rpc.wire.clock import DRIFT
from berrymq_rpc.rpc.wire.exception_codec import Failure
from berrymq_rpc.rpc.wire.limits import Limits
from berrymq_rpc.rpc.wire.native_records import PREFIX
from berrymq_rpc.rpc.wire.native_session import (
    FIRST_WINDOW,
    SILENCE,
    NativeSession,
)
from berrymq_rpc.rpc.wire.record import (
    ACCEPTED,
    ACKNOWLEDGE,
    CALL,
    CANCEL,
    CLOSED,
    CREDIT,
    END,
    ERROR,
    GOODBYE,
    HELLO,
    ITEM,
    NO_KWARGS,
    NOTIFY,
    PING,
    PONG,
    RESULT,
)
from berrymq_rpc.rpc.wire.session import State

FAILURE = Failure("builtins.ValueError", ("x",), "ValueError('x')")
CANCELLED = Failure("asyncio.exceptions.CancelledError", (), "CancelledError()")


def hello(**properties: Any) -> tuple[bytes]:
    return message((HELLO, {"versions": [1], **properties}))


# -- how it differs from other dialects ------------------------------------------------------


def test_recognises_its_own() -> None:
    session = native()
    session.connected(0.0)
    (greeting,) = session.messages(0.0)
    assert NATIVE.recognises(greeting)
    assert NATIVE.recognises((memoryview(greeting[0]), b"more"))


@pytest.mark.parametrize(
    "frames",
    [
        (),
        (b"",),
        (b"\xc1",),
        (b"\xc1b",),
        (b"\xc1bx\x01",),
        (b"bq\xc1",),
        (b'{"method": "m"}',),
        (b"[]",),
        (b"", PREFIX),
        (bytes(16), b"method", b"\x90", b"\x80"),
    ],
)
def test_does_not_recognise(frames: tuple[bytes, ...]) -> None:
    assert not NATIVE.recognises(frames)


def test_prefix_is_in_no_other_dialect() -> None:
    # Neither text, and so no JSON, nor the beginning of a value in msgpack.
    with pytest.raises(UnicodeDecodeError):
        PREFIX.decode("utf-8")
    assert PREFIX[0] == 0xC1


@given(st.lists(st.binary(max_size=20), max_size=3))
def test_head_is_never_as_long_as_that_of_aiozmq(values: list[bytes]) -> None:
    session = connected()
    for value in values:
        session.item(1, value)
    session.end(1)
    session.goodbye("")
    for frames in session.messages(0.0):
        assert len(frames[0]) > 17


# -- greeting --------------------------------------------------------------------------------


def test_says_hello_first() -> None:
    session = native(Limits(window=7, heartbeat=0.5))
    start(session)
    session.connected(0.0)
    first, second = sent(session)
    assert first == [
        HELLO,
        {
            "versions": [1],
            "window": 7,
            "max_message": 1 << 20,
            "max_frame": 64 << 20,
            "max_waiting": 20_000,
            "stream_window": 64,
            "heartbeat": 0.5,
            "metadata": 8192,
        },
    ]
    assert second == [CALL, 1, "method", []]


@pytest.mark.parametrize(("window", "first"), [(3, 3), (64, 64), (500, FIRST_WINDOW)])
def test_window_before_the_peer_has_told_its_own(window: int, first: int) -> None:
    session = native(Limits(window=window))
    session.connected(0.0)
    assert session.window == first


@pytest.mark.parametrize("window", [1, 63, 64, 65, 100_000])
def test_window_is_what_the_peer_told(window: int) -> None:
    session = connected()
    session.receive(hello(window=window), 0.0)
    assert session.window == window


def test_what_waits_is_sent_when_the_window_is_told() -> None:
    session = connected(Limits(window=500))
    callers = [start(session) for _ in range(200)]
    assert session.in_window == FIRST_WINDOW
    session.receive(hello(window=150), 0.0)
    assert session.in_window == 150
    assert sum(caller.sent is not None for caller in callers) == 150


def test_a_window_that_shrinks_takes_nothing_back() -> None:
    session = connected()
    callers = [start(session) for _ in range(10)]
    session.receive(hello(window=2), 0.0)
    waiting = start(session)
    for caller in callers[:8]:
        session.receive(message((RESULT, caller.id, None)), 0.0)
        assert waiting.sent is None
    session.receive(message((RESULT, callers[8].id, None)), 0.0)
    assert waiting.sent is not None
    check(session)


def test_smaller_limits_hold() -> None:
    session = connected(Limits(max_message=50_000, max_frame=200_000, stream_window=20))
    session.receive(hello(max_message=20_000, max_frame=100_000, stream_window=10), 0.0)
    assert session.stream_credit == 10
    with pytest.raises(TooLargeError, match="20,000"):
        start(session, "method", "x" * 20_001)
    with pytest.raises(TooLargeError, match="100,000"):
        start(session, "method", bytes(100_001))
    session.receive(hello(max_message=90_000, max_frame=900_000, stream_window=90), 0.0)
    assert session.stream_credit == 20
    with pytest.raises(TooLargeError, match="50,000"):
        start(session, "method", "x" * 50_001)
    with pytest.raises(TooLargeError, match="200,000"):
        start(session, "method", bytes(200_001))
    start(session, "method", bytes(200_000))


def test_what_is_not_told_is_taken_to_be_as_here() -> None:
    session = connected(Limits(window=11, stream_window=12))
    assert session.stream_credit == 12
    session.receive(hello(), 0.0)
    assert session.window == 11
    assert session.stream_credit == 12


def test_unknown_properties_are_ignored() -> None:
    session = connected()
    session.receive(hello(window=5, colour="green", compression=["zstd"]), 0.0)
    assert session.window == 5
    assert session.malformed == 0


@pytest.mark.parametrize("name", ["window", "max_message", "max_frame", "stream_window"])
@pytest.mark.parametrize("value", [0, -1, True, None, "5", 2.5, [], {}, float("nan")])
def test_a_limit_that_is_none_changes_nothing(name: str, value: Any) -> None:
    session = connected()
    session.receive(hello(window=9), 0.0)
    session.receive(hello(**{"window": 5, name: value}), 0.0)
    assert session.window == 9
    assert session.malformed == 1


@pytest.mark.parametrize("versions", [[1], [1, 2], [3, 2, 1], {1: "a"}])
def test_a_common_version(versions: Any) -> None:
    session = connected()
    assert session.receive(message((HELLO, {"versions": versions, "window": 5})), 0.0) == []
    assert session.state is State.OPEN
    assert session.window == 5


@pytest.mark.parametrize("properties", [{}, {"versions": []}, {"versions": [2, 3]}])
def test_no_common_version(properties: dict[str, Any]) -> None:
    session = connected(window=2)
    callers = [start(session, "method", number) for number in range(3)]
    session.messages(0.0)
    (event,) = session.receive(message((HELLO, properties)), 0.0)
    assert event[0] == GOODBYE
    assert "version 1" in event[2]
    assert session.goodbye_reason == event[2]
    assert session.state is State.CLOSING
    # The peer is told, those in flight fail, as nothing will come that is understood here ...
    assert sent(session) == [[GOODBYE, event[2]]]
    for caller in callers[:2]:
        assert isinstance(caller.error, ProtocolError)
    # ... and what was not sent may go elsewhere.
    assert callers[2].outcomes == []
    assert [entry.caller for entry in session.take_backlog()] == [callers[2]]
    assert session.in_window == 0
    check(session)


def test_reason_for_no_common_version_is_short() -> None:
    session = connected()
    session.receive(message((HELLO, {"versions": list(range(2, 100_000))})), 0.0)
    assert len(session.goodbye_reason or "") < 250


def test_hello_of_a_closing_peer_does_not_open_the_window() -> None:
    session = connected()
    session.receive(message((GOODBYE, "closing")), 0.0)
    session.receive(hello(window=50), 0.0)
    assert session.window == 0


# -- calls -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "kwargs"),
    [
        ((CALL, 5, "ns.add", (1, 2)), {}),
        ((CALL, 5, "ns.add", (1, 2), {}), {}),
        ((CALL, 5, "ns.add", (1, 2), {"key": 3}), {"key": 3}),
        ((CALL, 5, "ns.add", (1, 2), {"key": 3}, None), {"key": 3}),
        ((CALL, 5, "ns.add", (1, 2), {}, None, None), {}),
        ((CALL, 5, "ns.add", (1, 2), {}, None, {}), {}),
        ((CALL, 5, "ns.add", (1, 2), {}, None, None, "of a later version"), {}),
    ],
)
@pytest.mark.parametrize("use_list", [False, True])
def test_takes_a_call(record: Any, kwargs: dict[str, Any], use_list: bool) -> None:
    from berrymq_rpc.rpc.wire.codec import Codec

    session = opened(NativeSession(Codec(use_list=use_list), Limits(), {}))
    assert session.receive(message(record), 1.0) == [
        (CALL, 5, "ns.add", (1, 2), kwargs, None, None)
    ]
    assert session.pending_records == 0


@pytest.mark.parametrize(
    ("record", "kwargs"),
    [
        ((NOTIFY, "log", (1,)), {}),
        ((NOTIFY, "log", (1,), {}), {}),
        ((NOTIFY, "log", (1,), {"key": 3}), {"key": 3}),
        ((NOTIFY, "log", (1,), {"key": 3}, None), {"key": 3}),
        ((NOTIFY, "log", (1,), {"key": 3}, None, "of a later version"), {"key": 3}),
    ],
)
def test_takes_a_notification(record: Any, kwargs: dict[str, Any]) -> None:
    session = connected()
    assert session.receive(message(record), 1.0) == [
        (NOTIFY, None, "log", (1,), kwargs, None, None)
    ]


def test_calls_without_named_arguments_share_a_map_that_stays_empty() -> None:
    ((*_, kwargs, _, _),) = connected().receive(message((CALL, 1, "method", ())), 0.0)
    assert kwargs is NO_KWARGS


def test_sends_no_more_than_a_call_needs() -> None:
    session = connected()
    start(session, "plain", 1)
    start(session, "named", key=1)
    start(session, "timed", deadline=2.5)
    session.notify("plain", (1,), {}, 0.0)
    session.notify("named", (), {"key": 1}, 0.0)
    assert sent(session) == [
        [CALL, 1, "plain", [1]],
        [CALL, 2, "named", [], {"key": 1}],
        [CALL, 3, "timed", [], {}, 2_500_000],
        [NOTIFY, "plain", [1]],
        [NOTIFY, "named", [], {"key": 1}],
    ]


def test_takes_its_messages_as_any_buffers() -> None:
    (data,) = message((CALL, 1, "method", (b"value",)))
    for kind in (bytes, bytearray, memoryview):
        ((*_, args, _, _, _),) = connected().receive((kind(data),), 0.0)
        assert args == (b"value",)


@pytest.mark.parametrize("value", [2**70, "\ud800", {2**70: "\udfff"}, (1, {2, 3})])
def test_values_that_are_packed_slowly(value: Any) -> None:
    pair = Pair().settled()
    callers = [pair.call("echo", value), pair.call("echo", value, key=value)]
    pair.client.notify("log", (value,), {}, pair.now)
    pair.shuttle(lambda event: event[1] and pair.server.result(event[1], event[3]))
    assert [caller.value for caller in callers] == [(value,), (value,)]
    assert pair.right.asked[1][4] == {"key": value}


@pytest.mark.parametrize("make", [lambda s, v: start(s, "m", v), lambda s, v: s.result(1, v)])
def test_an_error_names_what_cannot_be_packed(make: Any) -> None:
    for value in (object(), [1, {"key": object()}]):
        with pytest.raises(TypeError, match=r"^(args\[0\]|the result)"):
            make(connected(), value)
    with pytest.raises(TypeError, match="key"):
        start(connected(), "method", 1, key=object())


# -- the window: each way out gives the slot back --------------------------------------------


def one_in_flight() -> tuple[NativeSession, Any]:
    session = connected(window=1)
    caller = start(session)
    session.messages(0.0)
    assert session.in_window == 1
    return session, caller


RELEASED = (ACCEPTED, [1], [1])
ANSWERS = [
    (RESULT, 1, "value"),
    (RESULT, 1, "value", False),
    (RESULT, 1, "value", True),
    (ERROR, 1, "builtins.ValueError", [], "text"),
    (ERROR, 1, "builtins.ValueError", [], "text", "traceback"),
    (END, 1),
    (RESULT, 1),
    (ERROR, 1),
    (END, 1, 2),
    # None of these can be unpacked: the byte C1, and a key that is an unhashable map.
    b"\x93\x04\x01\xc1",
    b"\x94\x05\x01\xa1x\xc1",
    b"\x93\x0d\x01\xc1",
    b"\x93\x04\x01\x81\x80\x01",
]


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("accepted", [None, (ACCEPTED, [1], []), RELEASED, (ACCEPTED, [], [1])])
def test_an_answer_gives_the_slot_back(answer: Any, accepted: Any) -> None:
    session, caller = one_in_flight()
    if accepted:
        session.receive(message(accepted), 0.0)
        assert session.in_window == 1 - len(accepted[2])
    session.receive(message(answer), 0.0)
    assert len(caller.outcomes) == 1
    assert session.in_window == 0
    assert session.idle or sent(session) == [[ACKNOWLEDGE, 1]]
    check(session)
    # A second answer, or a late acceptance, is dropped.
    session.receive(message(answer, RELEASED), 0.0)
    assert len(caller.outcomes) == 1
    assert session.in_window == 0
    check(session)


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("accepted", [None, (ACCEPTED, [1], []), RELEASED])
@pytest.mark.parametrize("first", ["accepted", "cancelled"])
def test_a_cancelled_call_keeps_its_slot_until_the_answer(
    answer: Any, accepted: Any, first: str
) -> None:
    session, caller = one_in_flight()
    if accepted and first == "accepted":
        session.receive(message(accepted), 0.0)
    session.cancel(caller.id)
    assert sent(session) == [[CANCEL, 1]]
    if accepted and first == "cancelled":
        session.receive(message(accepted), 0.0)
    check(session)
    assert session.in_window == (0 if accepted == RELEASED else 1)
    session.receive(message(answer), 0.0)
    assert caller.outcomes == []
    assert session.in_window == 0
    assert session.idle
    check(session)


def test_the_slot_of_a_cancelled_call_is_not_used_before_the_answer() -> None:
    session, caller = one_in_flight()
    waiting = start(session)
    session.cancel(caller.id)
    assert waiting.sent is None
    session.receive(message((ERROR, 1, "asyncio.CancelledError", [], "")), 2.0)
    assert waiting.sent == 2.0


def test_a_call_cancelled_in_the_tick_it_was_made_is_sent_and_cancelled() -> None:
    session = connected()
    session.cancel(start(session).id)
    assert sent(session) == [[CALL, 1, "method", []], [CANCEL, 1]]
    check(session)


def test_a_released_call_makes_room() -> None:
    session, _ = one_in_flight()
    waiting = start(session)
    session.receive(message(RELEASED), 2.0)
    assert waiting.sent == 2.0
    assert session.in_window == 1


def test_a_call_is_told_that_it_was_accepted() -> None:
    session = connected()
    plain, waits, other = start(session), start(session), start(session)
    session.receive(message((ACCEPTED, [1, 2, 99], [2, 98])), 3.0)
    assert plain.acceptances == [(3.0, False)]
    assert waits.acceptances == [(3.0, True)]
    assert other.acceptances == []
    assert session.in_window == 2
    check(session)


def test_released_twice_counts_once() -> None:
    session, _ = one_in_flight()
    session.receive(message((ACCEPTED, [1], [1, 1]), RELEASED), 0.0)
    assert session.in_window == 0
    check(session)


@pytest.mark.parametrize("answer", [*ANSWERS, RELEASED, (ITEM, 1, "item"), (ITEM, 1)])
def test_ids_of_nobody_are_dropped(answer: Any) -> None:
    session = connected()
    session.receive(message(answer), 0.0)
    assert session.in_window == 0
    assert session.idle
    check(session)


@pytest.mark.parametrize("answer", [*ANSWERS, RELEASED, (ITEM, 1, "item"), (ITEM, 1)])
def test_words_about_a_call_that_was_not_sent_are_dropped(answer: Any) -> None:
    """A peer that guesses ids of calls in the backlog gains no slot by it."""
    limits = Limits(window=1)
    session = connected(limits, window=0)
    caller = start(session)
    session.receive(message(answer), 0.0)
    assert caller.outcomes == caller.items == caller.acceptances == []
    assert session.in_window == 0
    check(session)
    session.receive(hello(window=1), 0.0)
    session.receive(message((RESULT, 1, "value")), 0.0)
    assert caller.value == "value"


def test_the_same_answer_for_many() -> None:
    pair = Pair().settled()
    callers = [pair.call("echo", number) for number in range(1000)]
    pair.shuttle(lambda event: pair.server.result(event[1], event[3][0]))
    assert [caller.value for caller in callers] == list(range(1000))
    assert pair.client.window == 500


@pytest.mark.parametrize("seed", range(20))
def test_answers_in_any_order(seed: int) -> None:
    pair = Pair(client=Limits(window=40), server=Limits(window=40)).settled()
    callers = [pair.call("echo", number) for number in range(100)]
    order = random.Random(seed)
    open_calls: list[Any] = []
    pair.flush()
    while pair.right.arriving or open_calls:
        while pair.right.arriving:
            open_calls += [event for event in pair.deliver(pair.right) if event[0] == CALL]
        # Some at a time, in any order, after some were accepted, and some of these released.
        order.shuffle(open_calls)
        taken = [open_calls.pop() for _ in range(min(len(open_calls), order.randint(1, 9)))]
        accepted = [event[1] for event in taken if order.random() < 0.5]
        pair.server.accepted(accepted, [i for i in accepted if order.random() < 0.5])
        for event in taken:
            pair.server.result(event[1], event[3][0])
        pair.flush()
        while pair.left.arriving:
            pair.deliver(pair.left)
        pair.flush()
    assert [caller.value for caller in callers] == list(range(100))
    assert pair.client.in_window == 0
    assert pair.client.idle


@pytest.mark.parametrize("seed", range(20))
def test_messages_out_of_order_or_lost_break_nothing(seed: int) -> None:
    """No transport does this, but a peer may: each call is told once, at the latest at the loss."""
    pair = Pair(client=Limits(window=20), server=Limits(window=20))
    chance = random.Random(seed)
    callers = []
    for _ in range(300):
        pair.now += chance.random()
        action = chance.random()
        if action < 0.4:
            callers.append(pair.call("m", timeout=chance.choice([None, 1.0, 5.0])))
        elif action < 0.5 and callers:
            pair.client.cancel(chance.choice(callers).id)
        elif action < 0.6:
            pair.client.expire(pair.now)
        for side in (pair.left, pair.right):
            while side.arriving and chance.random() < 0.6:
                index = chance.randrange(len(side.arriving))
                if chance.random() < 0.1:
                    del side.arriving[index]
                    continue
                for event in pair.deliver(side, index):
                    if event[0] == CALL and chance.random() < 0.9:
                        pair.server.result(event[1], None)
        pair.flush()
    pair.client.lost(ConnectionLostError("gone"), pair.now)
    assert all(len(caller.outcomes) <= 1 for caller in callers)
    assert not pair.client.pending
    assert pair.client.malformed == pair.server.malformed == 0
    check(pair.client)


# -- deadlines -------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, 12_345.678, -900.0])
def test_a_deadline_travels_by_the_callers_clock(offset: float) -> None:
    pair = Pair(offset=offset).settled()
    pair.call("slow", timeout=2.0)
    pair.shuttle()
    ((*_, deadline, _),) = pair.right.asked
    assert deadline == pytest.approx(pair.now + offset + 2.0, abs=0.001)


@pytest.mark.parametrize(("clock", "taken"), [(4_999_999, True), (5_000_000, False)])
def test_at_its_deadline_a_call_is_too_late(clock: int, taken: bool) -> None:
    # The first message tells the clock: by it, the call is read when it was sent.
    frames = message((CALL, 1, "method", [], {}, 5_000_000), clock=clock)
    assert bool(connected().receive(frames, 7.0)) is taken


@pytest.mark.parametrize("offset", [0.0, 12_345.678, -900.0])
def test_a_call_that_is_read_after_its_deadline_is_refused(offset: float) -> None:
    pair = Pair(offset=offset).settled()
    caller = pair.call("slow", timeout=2.0)
    other = pair.call("other")
    pair.flush()
    pair.now += 2.1
    pair.shuttle(lambda event: pair.server.result(event[1], "ran"))
    assert [event[2] for event in pair.right.asked] == ["other"]
    assert pair.server.expired == 1
    assert isinstance(caller.error, TimeoutError)
    assert other.value == "ran"
    assert pair.client.in_window == 0


def test_what_a_frozen_process_finds_is_old() -> None:
    """Its buffers fill while it is stopped; all of it was sent before its deadline."""
    pair = Pair(offset=-500.0).settled()
    old = []
    for _ in range(10):
        pair.now += 1.0
        old.append(pair.call("slow", timeout=5.0))
        pair.flush()
    pair.now += 30.0
    fresh = pair.call("fresh", timeout=5.0)
    pair.shuttle(lambda event: pair.server.result(event[1], "ran"))
    assert [event[2] for event in pair.right.asked] == ["fresh"]
    assert fresh.value == "ran"
    for caller in old:
        assert isinstance(caller.error, TimeoutError)


def test_the_first_messages_delay_is_not_known() -> None:
    pair = Pair()
    pair.call("slow", timeout=1.0)
    pair.flush()
    pair.now += 60.0
    pair.shuttle()
    assert [event[0] for event in pair.right.asked] == [CALL]


@pytest.mark.parametrize("drift", [DRIFT * 0.9, -DRIFT * 0.9])
def test_clocks_that_drift_apart(drift: float) -> None:
    """A connection of a week, with a call each hour: none is taken for an old one."""
    pair = Pair(offset=77.0).settled()
    began = pair.now
    for _ in range(7 * 24):
        pair.now += 3600.0
        pair.offset = 77.0 + drift * (pair.now - began)
        pair.call("hourly", timeout=0.5)
        pair.shuttle(lambda event: pair.server.result(event[1], None))
    assert len(pair.right.asked) == 7 * 24
    assert pair.server.expired == 0


@pytest.mark.parametrize("deadline", [-1, 2.5, float("nan"), float("inf"), True, "5", [], {}, b"5"])
def test_a_deadline_that_is_none_is_malformed(deadline: Any) -> None:
    session = connected()
    assert session.receive(message((CALL, 3, "method", (), {}, deadline)), 0.0) == []
    ((kind, call_id, *_),) = sent(session)
    assert (kind, call_id) == (ERROR, 3)
    assert session.malformed == 1


@pytest.mark.parametrize("deadline", [1 << 63, (1 << 64) - 1])
def test_a_deadline_may_be_far_away(deadline: int) -> None:
    session = connected()
    ((*_, when, _),) = session.receive(message((CALL, 3, "method", (), {}, deadline)), 0.0)
    assert when == pytest.approx(deadline * 1e-6, rel=0.01)


OVER = "berrymq_rpc.errors.RPCTimeoutError"


@pytest.mark.parametrize(
    ("deadline", "name", "cls"),
    [
        (5.0, OVER, RPCTimeoutError),
        (4.0, OVER, RPCTimeoutError),
        (5.004, OVER, RPCTimeoutError),
        (6.0, OVER, TimeoutError),
        (None, OVER, TimeoutError),
        (4.0, "builtins.ValueError", ValueError),
        (4.0, "builtins.TimeoutError", TimeoutError),
    ],
)
def test_the_peer_may_say_first_that_time_is_over(
    deadline: float | None, name: str, cls: type[Exception]
) -> None:
    session = connected()
    caller = start(session, deadline=deadline)
    session.receive(message((ERROR, 1, name, [], "")), 5.0)
    assert type(caller.error) is cls


# -- a side that closes ----------------------------------------------------------------------


def test_a_call_that_a_closing_peer_did_not_run() -> None:
    pair = Pair().settled()
    caller = pair.call("buy")
    pair.shuttle()
    pair.server.closed(caller.id, "closing for repairs", began=False)
    pair.shuttle()
    ((outcome, error),) = caller.outcomes
    assert outcome == "refused"
    assert isinstance(error, ServiceClosedError)
    assert str(error) == "closing for repairs: 'buy' did not run"
    assert pair.client.idle
    assert pair.client.in_window == 0


def test_a_call_that_a_closing_peer_stopped() -> None:
    session, caller = one_in_flight()
    session.receive(message((CLOSED, 1, "closing", True)), 2.0)
    assert isinstance(caller.error, ServiceClosedError)
    assert str(caller.error) == "closing: 'method' was sent 2.0 s ago, not accepted"
    assert session.idle


def test_a_call_that_was_given_up_and_is_refused() -> None:
    session, caller = one_in_flight()
    session.cancel(caller.id)
    session.receive(message((CLOSED, 1, "closing", False)), 0.0)
    assert caller.outcomes == []
    assert session.in_window == 0
    check(session)


@pytest.mark.parametrize("fields", [(None, True), ("closing", 1), ("closing",), ("x", True, 1)])
def test_a_refusal_that_makes_no_sense_is_an_answer_still(fields: tuple[Any, ...]) -> None:
    session, caller = one_in_flight()
    session.receive(message((CLOSED, 1, *fields)), 0.0)
    assert isinstance(caller.error, ProtocolError)
    assert session.malformed == 1
    assert session.idle


def test_the_peer_says_when_it_has_read_all() -> None:
    pair = Pair().settled()
    assert pair.server.barrier_passed
    pair.server.goodbye("closing")
    pair.server.barrier()
    assert not pair.server.barrier_passed
    crossing = pair.call()
    pair.shuttle(lambda event: pair.server.closed(event[1], "closing", began=False))
    assert pair.server.barrier_passed
    assert crossing.outcomes[0][0] == "refused"


def test_the_answer_to_another_ping_settles_nothing() -> None:
    session = connected()
    session.barrier()
    session.receive(message((PONG, 5), (PONG,), (PONG, 0, 0)), 0.0)
    assert not session.barrier_passed
    session.receive(message((PONG, 0)), 0.0)
    assert session.barrier_passed


# -- streams ---------------------------------------------------------------------------------


def test_a_stream() -> None:
    pair = Pair().settled()
    caller = pair.call("ticks", 2)
    pair.shuttle()
    call_id = pair.right.asked[0][1]
    pair.server.accepted([call_id], [call_id])
    pair.server.item(call_id, "first")
    pair.server.item(call_id, "second")
    pair.shuttle()
    assert caller.items == ["first", "second"]
    assert caller.outcomes == []
    assert pair.client.in_window == 0
    pair.client.credit(call_id, 2)
    pair.shuttle()
    assert pair.right.asked[1] == (CREDIT, call_id, "", (2,), NO_KWARGS, None, None)
    pair.server.end(call_id)
    pair.shuttle()
    assert caller.outcomes == [("end",)]
    assert pair.client.idle


def test_a_stream_that_fails() -> None:
    pair = Pair().settled()
    caller = pair.call("ticks")
    pair.shuttle()
    pair.server.item(1, "first")
    pair.server.error(1, FAILURE)
    pair.shuttle()
    assert caller.items == ["first"]
    assert isinstance(caller.error, ValueError)


def test_items_of_a_stream_that_was_left_are_dropped() -> None:
    pair = Pair().settled()
    caller = pair.call("ticks")
    pair.shuttle()
    pair.client.cancel(caller.id)
    pair.server.item(caller.id, "late")
    pair.shuttle()
    assert pair.right.asked[-1][:2] == (CANCEL, caller.id)
    pair.server.error(caller.id, CANCELLED)
    pair.shuttle()
    assert caller.items == caller.outcomes == []
    assert pair.client.in_window == 0


@pytest.mark.parametrize("item", [(ITEM, 1), (ITEM, 1, "item", "more"), b"\x93\x07\x01\xc1"])
def test_an_item_that_makes_no_sense_ends_the_stream_on_both_sides(item: Any) -> None:
    session, caller = one_in_flight()
    session.receive(message(RELEASED, (ITEM, 1, "first"), item, (ITEM, 1, "third")), 0.0)
    assert caller.items == ["first"]
    assert isinstance(caller.error, ProtocolError)
    assert sent(session) == [[CANCEL, 1]]
    session.receive(message((ERROR, 1, "asyncio.CancelledError", [], "")), 0.0)
    assert session.idle
    check(session)


# -- acknowledgements ------------------------------------------------------------------------


def test_a_result_is_acknowledged_where_that_is_wanted() -> None:
    pair = Pair().settled()
    callers = [pair.call("get"), pair.call("get")]
    pair.shuttle()
    pair.server.result(1, "one", acknowledge=True)
    pair.server.result(2, "two", acknowledge=False)
    pair.shuttle()
    assert [caller.value for caller in callers] == ["one", "two"]
    assert pair.right.asked[2:] == [(ACKNOWLEDGE, 1, "", (), NO_KWARGS, None, None)]


def test_a_result_that_nobody_waits_for_is_not_acknowledged() -> None:
    pair = Pair().settled()
    caller = pair.call("get")
    pair.shuttle()
    pair.server.result(1, "one", acknowledge=True)
    pair.client.cancel(caller.id)
    pair.shuttle()
    # The cancel, which came later than the result was sent, says that it did not arrive.
    assert [event[0] for event in pair.right.asked] == [CALL, CANCEL]


# -- liveness --------------------------------------------------------------------------------


def test_a_ping_is_answered() -> None:
    pair = Pair().settled()
    pair.right.arriving.append(message((PING, 77), clock=int(pair.now * 1e6)))
    pair.shuttle()
    assert pair.right.asked == []
    session = connected()
    session.receive(message((PING, 77), (PING, 1 << 63)), 0.0)
    assert sent(session) == [[PONG, 77], [PONG, 1 << 63]]


def test_a_quiet_connection_is_kept_alive() -> None:
    pair = Pair(client=Limits(heartbeat=2.0), server=Limits(heartbeat=2.0)).settled()
    for _ in range(100):
        pair.now += 0.5
        assert pair.client.tick(pair.now)
        assert pair.server.tick(pair.now)
        pair.shuttle()
    assert pair.client.last_heard == pair.server.last_heard == pair.now


def test_pings_only_when_nothing_else_is_said() -> None:
    session = connected(Limits(heartbeat=2.0))
    assert session.tick(0.4)
    assert session.pending_records == 0
    assert session.tick(0.5)
    assert sent(session, 0.5) == [[PING, 500_000]]
    assert session.tick(0.9)
    assert session.pending_records == 0
    session.goodbye("something else")
    assert session.tick(1.0)
    assert session.pending_records == 1


def test_pings_while_both_sides_close() -> None:
    session = connected(Limits(heartbeat=2.0))
    session.receive(message((GOODBYE, "closing")), 0.0)
    session.tick(0.5)
    assert sent(session, 0.5) == [[PING, 500_000]]


def test_silence_is_counted_from_the_connection() -> None:
    session = native(Limits(heartbeat=2.0))
    session.connected(100.0)
    assert session.tick(102.9)
    assert not session.tick(103.1)


def test_silence_is_noticed_within_two_heartbeats() -> None:
    session = connected(Limits(heartbeat=2.0))
    now = 0.0
    while session.tick(now):
        assert now <= SILENCE * 2.0
        now += 0.5
    assert now < 2 * 2.0


@pytest.mark.parametrize("record", [(PONG, 5), (RESULT, 9, None), (99,), b"\xc1"])
def test_anything_that_is_heard_counts_as_life(record: Any) -> None:
    session = connected(Limits(heartbeat=2.0))
    session.receive(message(record), 2.9)
    assert session.tick(5.8)
    assert not session.tick(6.0)


# -- goodbye ---------------------------------------------------------------------------------


def test_goodbye_lets_what_is_in_flight_finish() -> None:
    pair = Pair().settled()
    caller = pair.call()
    pair.shuttle()
    pair.server.goodbye("closing for repairs")
    pair.shuttle()
    assert pair.left.asked == [(GOODBYE, None, "closing for repairs", (), NO_KWARGS, None, None)]
    assert pair.client.state is State.CLOSING
    assert pair.client.goodbye_reason == "closing for repairs"
    assert pair.server.state is State.OPEN
    pair.server.result(1, "after all")
    pair.shuttle()
    assert caller.value == "after all"


def test_what_waits_is_not_sent_to_a_closing_peer() -> None:
    session, sent_one = one_in_flight()
    waiting = start(session)
    session.receive(message((RESULT, 1, None), (GOODBYE, "closing")), 0.0)
    assert sent_one.value is None
    assert waiting.sent is None
    assert session.pending_records == 0
    assert [entry.caller for entry in session.take_backlog()] == [waiting]
    check(session)


def test_a_closing_peer_is_sent_no_more_calls() -> None:
    session = connected()
    session.receive(message((GOODBYE, "closing")), 0.0)
    with pytest.raises(ServiceClosedError):
        start(session)
    with pytest.raises(ServiceClosedError):
        session.notify("log", (), {}, 0.0)
    assert session.idle


def test_a_second_goodbye_is_told_too() -> None:
    session = connected()
    session.receive(message((GOODBYE, "first")), 0.0)
    (event,) = session.receive(message((GOODBYE, "second")), 0.0)
    assert event[2] == session.goodbye_reason == "second"
    assert session.state is State.CLOSING


def test_goodbye_on_a_session_without_a_connection() -> None:
    session = native()
    session.receive(message((GOODBYE, "full")), 0.0)
    assert session.state is State.CONNECTING


def test_a_long_reason_is_cut() -> None:
    session = connected()
    session.receive(message((GOODBYE, "x" * 100_000)), 0.0)
    assert len(session.goodbye_reason or "") <= 4096


def test_a_closing_peer_may_still_call() -> None:
    pair = Pair().settled()
    pair.server.goodbye("closing")
    pair.shuttle()
    caller = start(pair.server, "last", now=pair.now)
    pair.shuttle()
    pair.client.result(pair.left.asked[-1][1], "fine")
    pair.shuttle()
    assert caller.value == "fine"


# -- errors ----------------------------------------------------------------------------------


def test_an_error_with_its_traceback() -> None:
    pair = Pair().settled()
    caller = pair.call()
    pair.shuttle()
    pair.server.error(1, FAILURE._replace(traceback="line 1\nline 2"))
    pair.shuttle()
    assert "line 2" in caller.error.__notes__[0]


@pytest.mark.parametrize("argument", [object(), "x" * 30_000, bytes(30_000), 1 << 70])
def test_an_error_always_finds_a_form_that_travels(argument: Any) -> None:
    limits = Limits(max_message=10_000, max_frame=10_000)
    pair = Pair(client=limits, server=limits).settled()
    caller = pair.call()
    pair.shuttle()
    pair.server.error(1, Failure("builtins.ValueError", (argument,), "text", "traceback"))
    pair.shuttle()
    assert isinstance(caller.error, ValueError)
    assert pair.client.in_window == 0
    assert pair.server.large_bytes == 0


def test_an_own_error_class() -> None:
    class OwnError(Exception):
        pass

    from berrymq_rpc.rpc.wire.codec import Codec

    session = opened(NativeSession(Codec(), Limits(), {"there.OwnError": OwnError}))
    caller = start(session)
    session.receive(message((ERROR, 1, "there.OwnError", [1, 2], "text")), 0.0)
    assert type(caller.error) is OwnError
    assert caller.error.args == (1, 2)


def test_the_peers_timeout_is_not_ours() -> None:
    session, caller = one_in_flight()
    session.receive(message((ERROR, 1, "berrymq_rpc.errors.RPCTimeoutError", [], "")), 0.0)
    assert isinstance(caller.error, TimeoutError)
    assert not isinstance(caller.error, RPCTimeoutError)
