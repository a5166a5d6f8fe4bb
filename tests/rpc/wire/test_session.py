"""What all sessions share: states, the window, the backlog, deadlines, loss."""

from itertools import count
from typing import Any

import pytest
from joined import DIALECTS, Pair, Recorder, check, native, opened, start

from berrymq_rpc.errors import (
    ConnectionLostError,
    Error,
    GenericError,
    RPCTimeoutError,
    ServiceClosedError,
    TooLargeError,
)
from berrymq_rpc.rpc.wire.exception_codec import Failure
from berrymq_rpc.rpc.wire.limits import CONNECT_TIMEOUT, Limits
from berrymq_rpc.rpc.wire.record import CALL, NOTIFY
from berrymq_rpc.rpc.wire.session import State, Unsent

FAILURE = Failure("builtins.ValueError", ("x",), "ValueError('x')")


@pytest.fixture(params=sorted(DIALECTS))
def dialect(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def made(dialect: str, **settings: Any) -> Any:
    return DIALECTS[dialect].session(settings.pop("limits", None) or Limits(), **settings)


# -- states ----------------------------------------------------------------------------------

ALLOWED = {
    (State.CONNECTING, State.OPEN),
    (State.CONNECTING, State.LOST),
    (State.OPEN, State.CLOSING),
    (State.OPEN, State.LOST),
    (State.CLOSING, State.LOST),
}


@pytest.mark.parametrize("before", State)
@pytest.mark.parametrize("after", State)
def test_transitions(before: State, after: State) -> None:
    session = native()
    session.state = before
    if (before, after) in ALLOWED:
        session.enter(after)
        assert session.state is after
    else:
        with pytest.raises(RuntimeError, match=f"is {before.value} cannot be {after.value}"):
            session.enter(after)
        assert session.state is before


def test_begins_without_a_connection(dialect: str) -> None:
    session = made(dialect)
    assert session.state is State.CONNECTING
    assert session.window == session.in_window == session.load == session.pending_records == 0
    assert session.idle
    assert session.messages(0.0) == []
    assert session.next_deadline() is None


def test_cannot_be_connected_twice(dialect: str) -> None:
    session = opened(made(dialect))
    with pytest.raises(RuntimeError):
        session.connected(1.0)


def test_state_changes_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "berrymq_rpc.rpc")
    native().connected(0.0)
    assert "connecting -> open" in caplog.text


# -- a call and its answer -------------------------------------------------------------------


def test_idle_is_when_nothing_is_asked_and_nothing_waits(dialect: str) -> None:
    session = made(dialect)
    session.notify("log", (), {}, 0.0)
    assert not session.idle
    session.connected(0.0)
    assert not session.idle
    session.messages(0.0)
    assert session.idle
    caller = start(session)
    session.messages(0.0)
    assert not session.idle
    session.cancel(caller.id)
    assert session.idle is (dialect == "aiozmq")
    session.messages(0.0)
    assert session.idle


def test_result(dialect: str) -> None:
    pair = Pair(dialect).settled()
    caller = pair.call("add", 1, 2, key="value")
    assert caller.sent == pair.now
    pair.shuttle()
    ((kind, call_id, method, args, kwargs, deadline, _),) = pair.right.asked
    assert (kind, method, args, kwargs, deadline) == (CALL, "add", (1, 2), {"key": "value"}, None)
    pair.server.result(call_id, 3)
    pair.shuttle()
    assert caller.value == 3
    assert pair.client.in_window == 0
    assert pair.client.idle


def test_error(dialect: str) -> None:
    pair = Pair(dialect).settled()
    caller = pair.call()
    pair.shuttle()
    pair.server.error(pair.right.asked[0][1], FAILURE)
    pair.shuttle()
    assert isinstance(caller.error, ValueError)
    assert caller.error.args == ("x",)
    assert pair.client.in_window == 0


def test_calls_in_both_directions(dialect: str) -> None:
    pair = Pair(dialect).settled()
    outward = pair.call("outward")
    inward = start(pair.server, "inward", now=pair.now)
    pair.shuttle()
    pair.client.result(pair.left.asked[0][1], "from the client")
    pair.server.result(pair.right.asked[0][1], "from the server")
    pair.shuttle()
    assert outward.value == "from the server"
    assert inward.value == "from the client"


def test_notification(dialect: str) -> None:
    pair = Pair(dialect).settled()
    pair.client.notify("log", ("done",), {"level": 2}, pair.now)
    assert pair.client.in_window == 0
    pair.shuttle()
    ((kind, _, method, args, kwargs, _, _),) = pair.right.asked
    # An aiozmq.rpc peer knows none: it answers, and the answer is dropped.
    assert kind == (NOTIFY if dialect == "native" else CALL)
    assert (method, args, kwargs) == ("log", ("done",), {"level": 2})
    assert pair.client.idle


def test_ids_are_never_used_twice(dialect: str) -> None:
    ids = count(7)
    first = opened(made(dialect, ids=ids))
    second = opened(made(dialect, ids=ids))
    callers = [start(session) for session in (first, second, first, second)]
    assert [caller.id for caller in callers] == [7, 8, 9, 10]


def test_what_cannot_be_packed_leaves_nothing_behind(dialect: str) -> None:
    session = opened(made(dialect))
    with pytest.raises(TypeError):
        start(session, "method", object(), deadline=5.0)
    with pytest.raises(TypeError):
        start(session, "method", key=object())
    with pytest.raises(TypeError):
        session.notify("method", (object(),), {}, 0.0)
    assert session.idle
    assert session.in_window == session.pending_records == 0
    assert session.next_deadline() is None
    check(session)


def test_what_is_too_large_leaves_nothing_behind(dialect: str) -> None:
    session = opened(made(dialect, limits=Limits(max_message=10_000)))
    with pytest.raises(TooLargeError):
        start(session, "method", "x" * 50_000)
    with pytest.raises(TooLargeError):
        session.notify("method", ("x" * 50_000,), {}, 0.0)
    with pytest.raises(TooLargeError):
        session.result(1, "x" * 50_000)
    assert session.idle
    assert session.in_window == session.pending_records == session.large_bytes == 0
    check(session)


def test_a_result_that_cannot_be_packed_is_still_to_be_answered(dialect: str) -> None:
    pair = Pair(dialect).settled()
    caller = pair.call()
    pair.shuttle()
    call_id = pair.right.asked[0][1]
    with pytest.raises(TypeError):
        pair.server.result(call_id, object())
    pair.server.error(call_id, FAILURE)
    pair.shuttle()
    assert isinstance(caller.error, ValueError)


# -- the window and the backlog --------------------------------------------------------------


def test_calls_beyond_the_window_wait_in_order(dialect: str) -> None:
    limits = Limits(window=3)
    pair = Pair(dialect, client=limits, server=limits).settled()
    callers = [pair.call("method", number) for number in range(10)]
    assert pair.client.in_window == 3
    assert [caller.sent is None for caller in callers] == [False] * 3 + [True] * 7
    assert pair.client.load == 10
    most = 0

    def answer(event: Any) -> None:
        nonlocal most
        most = max(most, pair.client.in_window)
        pair.server.result(event[1], event[3][0])

    pair.shuttle(answer)
    assert [caller.value for caller in callers] == list(range(10))
    assert [event[3] for event in pair.right.asked] == [(number,) for number in range(10)]
    assert most == 3
    assert pair.client.in_window == pair.client.load == 0
    assert pair.client.idle


def test_a_new_call_does_not_overtake_the_backlog(dialect: str) -> None:
    session = opened(made(dialect), window=1)
    start(session)
    waiting = start(session)
    # As if the window had grown: still, what waits goes first.
    session.window = 5
    assert start(session).sent is None
    assert waiting.sent is None


def test_a_notification_does_not_wait_for_the_window(dialect: str) -> None:
    session = opened(made(dialect), window=1)
    start(session)
    start(session)
    session.notify("method", (), {}, 0.0)
    assert len(session.backlog) == 1
    assert session.pending_records == 2


def test_calls_made_before_the_connection_are_sent_with_it(dialect: str) -> None:
    pair = Pair(dialect)
    session = made(dialect)
    callers = [start(session, "method", number) for number in range(3)]
    session.notify("log", (), {}, 0.0)
    assert session.in_window == 0
    assert session.load == 4
    assert not session.idle
    session.connected(5.0)
    assert [caller.sent for caller in callers] == [5.0] * 3
    assert session.in_window == 3
    asked = [event for m in session.messages(5.0) for event in pair.server.receive(m, 5.0)]
    assert [event[2] for event in asked] == ["method"] * 3 + ["log"]
    check(session)


@pytest.mark.parametrize("size", [10, 9_000, 200_000])
def test_large_arguments_wait_as_well(dialect: str, size: int) -> None:
    data = bytes(size)
    pair = Pair(dialect, client=Limits(window=1), server=Limits(window=1)).settled()
    callers = [pair.call("method", data, number) for number in range(3)]
    pair.client.notify("log", (data,), {}, pair.now)
    pair.shuttle(lambda event: event[1] and pair.server.result(event[1], event[3]))
    assert [caller.value for caller in callers] == [(data, number) for number in range(3)]


def test_a_cancelled_call_in_the_backlog_is_never_sent(dialect: str) -> None:
    pair = Pair(dialect, client=Limits(window=1), server=Limits(window=1)).settled()
    first, second, third = (pair.call("method", number) for number in range(3))
    pair.client.cancel(second.id)
    pair.check()
    pair.shuttle(lambda event: pair.server.result(event[1], event[3][0]))
    assert [event[3] for event in pair.right.asked] == [(0,), (2,)]
    assert first.value == 0
    assert second.outcomes == []
    assert third.value == 2
    assert pair.client.idle


def test_cancelling_an_unknown_call_does_nothing(dialect: str) -> None:
    session = opened(made(dialect))
    session.cancel(77)
    assert session.idle
    check(session)


def test_cancelling_an_answered_call_does_nothing(dialect: str) -> None:
    pair = Pair(dialect).settled()
    caller = pair.call()
    pair.shuttle(lambda event: pair.server.result(event[1], 1))
    pair.client.cancel(caller.id)
    assert pair.client.idle
    pair.check()


# -- moving from one session to another ------------------------------------------------------


@pytest.fixture
def two(dialect: str) -> tuple[Any, Any]:
    """A session without a connection, and the client of a pair."""
    ids = count(1)
    pair = Pair(dialect).settled()
    pair.client.ids = ids
    return made(dialect, ids=ids), pair


def test_another_session_takes_over_what_waits(two: tuple[Any, Pair]) -> None:
    waiting, pair = two
    callers = [start(waiting, "method", number, deadline=1010.0 + number) for number in range(3)]
    waiting.notify("log", (), {}, 0.0)
    waiting.cancel(callers[1].id)
    entries = waiting.take_backlog()
    assert len(entries) == 3
    assert waiting.idle
    check(waiting)
    pair.client.adopt(entries, pair.now)
    assert pair.client.next_deadline() == 1010.0
    pair.shuttle(lambda event: event[1] and pair.server.result(event[1], event[3]))
    assert callers[0].value == (0,)
    assert callers[1].outcomes == []
    assert callers[2].value == (2,)
    assert pair.client.idle


def test_a_session_with_a_full_window_takes_over_too(two: tuple[Any, Pair]) -> None:
    waiting, pair = two
    pair.client.window = 1
    own = pair.call("own")
    adopted = start(waiting, "adopted")
    pair.client.adopt(waiting.take_backlog(), pair.now)
    assert adopted.sent is None
    pair.shuttle(lambda event: pair.server.result(event[1], event[2]))
    assert own.value == "own"
    assert adopted.value == "adopted"


@pytest.mark.parametrize("size", [10, 9_000, 200_000])
def test_large_arguments_move_as_well(two: tuple[Any, Pair], size: int) -> None:
    waiting, pair = two
    caller = start(waiting, "method", bytes(size))
    pair.client.adopt(waiting.take_backlog(), pair.now)
    pair.shuttle(lambda event: pair.server.result(event[1], len(event[3][0])))
    assert caller.value == size


def test_what_was_sent_stays(two: tuple[Any, Pair]) -> None:
    _, pair = two
    pair.client.window = 1
    sent, unsent = pair.call("sent"), pair.call("unsent")
    (entry,) = pair.client.take_backlog()
    assert entry.caller is unsent
    assert list(pair.client.pending.values()) == [sent]
    pair.check()


def test_notifications_wait_where_calls_do(dialect: str) -> None:
    first, second = made(dialect), made(dialect)
    first.notify("log", (), {}, 0.0)
    caller = start(first)
    second.adopt(first.take_backlog(), 0.0)
    assert second.pending_records == 0
    second.connected(1.0)
    assert caller.sent == 1.0
    assert second.backlog == first.backlog


def test_there_and_back_again(two: tuple[Any, Pair]) -> None:
    """A call that a session had before, with its deadline, times out once."""
    waiting, pair = two
    pair.client.window = 0
    caller = start(waiting, deadline=1004.0)
    for _ in range(3):
        pair.client.adopt(waiting.take_backlog(), 1000.0)
        waiting.adopt(pair.client.take_backlog(), 1000.0)
    assert waiting.next_deadline() == 1004.0
    other = start(waiting, deadline=1004.0, now=1000.0)
    waiting.expire(1004.0)
    for one in (caller, other):
        assert isinstance(one.error, RPCTimeoutError)
    check(waiting)


def test_since_when_it_waits_begins_anew(dialect: str) -> None:
    first, second = made(dialect), made(dialect)
    caller = start(first, now=0.0)
    second.adopt(first.take_backlog(), 4.0)
    second.expire(4.0 + CONNECT_TIMEOUT - 0.01)
    assert caller.outcomes == []
    second.expire(4.0 + CONNECT_TIMEOUT)
    assert isinstance(caller.error, ConnectionLostError)


class Replacement(Recorder):
    """What takes a call's place once it is known to be a stream."""

    def __init__(self, call: Recorder) -> None:
        super().__init__(call.method)
        self.id = call.id
        self.sent = call.sent


def replaced(session: Any, caller: Recorder) -> Replacement:
    session.pending[caller.id] = replacement = Replacement(caller)
    return replacement


def test_what_takes_the_place_of_an_unsent_call_is_sent(dialect: str) -> None:
    session = made(dialect)
    stream = replaced(session, start(session))
    session.connected(3.0)
    assert stream.sent == 3.0
    session.cancel(stream.id)
    check(session)


def test_what_takes_the_place_of_an_unsent_call_moves(dialect: str) -> None:
    first, second = made(dialect), opened(made(dialect))
    stream = replaced(first, start(first, deadline=5.0))
    second.adopt(first.take_backlog(), 3.0)
    assert second.pending == {stream.id: stream}
    assert stream.sent == 3.0
    check(second)


def test_what_takes_the_place_of_an_unsent_call_is_told_of_the_missing_server(
    dialect: str,
) -> None:
    session = made(dialect)
    stream = replaced(session, start(session))
    session.expire(CONNECT_TIMEOUT)
    assert isinstance(stream.error, ConnectionLostError)


def test_what_takes_the_place_of_a_call_has_no_deadline(dialect: str) -> None:
    session = opened(made(dialect))
    caller = start(session, deadline=5.0)
    stream = replaced(session, caller)
    session.expire(6.0)
    assert caller.outcomes == stream.outcomes == []
    assert session.next_deadline() is None


def test_refusing_what_waits(dialect: str) -> None:
    session = opened(made(dialect), window=1)
    sent, waiting = start(session), start(session)
    session.backlog.append(session.backlog[0]._replace(caller=None))
    session.refuse_backlog(ServiceClosedError("closing"), 3.0)
    assert sent.outcomes == []
    assert isinstance(waiting.error, ServiceClosedError)
    assert str(waiting.error) == "closing: 'method' was not sent"
    assert session.notifications_lost == 1
    check(session)


def test_what_was_packed_may_go_to_another_peer(dialect: str) -> None:
    first, second = opened(made(dialect), window=1), opened(made(dialect))
    for arguments in (1,), ([2],):
        # The first is sent, the other waits.
        caller = start(first, "method", *arguments)
        encoded = first.packed(caller)
        caller.sent = None
        second.adopt([Unsent(caller, encoded, 0.0)], 1.0)
        assert caller.sent == 1.0
    peer = opened(made(dialect))
    asked = [event for frames in second.messages(1.0) for event in peer.receive(frames, 1.0)]
    assert [event[3] for event in asked] == [(1,), ((2,),)]


def test_each_call_is_refused_with_an_error_of_its_own(dialect: str) -> None:
    """One that several raise gathers the tracebacks of all."""
    session = made(dialect)
    waiting = [start(session), start(session)]
    session.refuse_backlog(ServiceClosedError("closing"), 3.0)
    assert waiting[0].error is not waiting[1].error


# -- deadlines -------------------------------------------------------------------------------


def test_a_call_in_flight_times_out(dialect: str) -> None:
    pair = Pair(dialect).settled()
    caller = pair.call("slow", timeout=2.0)
    assert pair.client.next_deadline() == pair.now + 2.0
    pair.shuttle()
    pair.client.expire(pair.now + 1.9)
    assert caller.outcomes == []
    pair.now += 2.0
    pair.client.expire(pair.now)
    assert isinstance(caller.error, RPCTimeoutError)
    assert str(caller.error) == "no answer in time: 'slow' was sent 2.0 s ago, not accepted"
    assert pair.client.next_deadline() is None
    pair.check()
    # The answer crosses, and is dropped.
    pair.server.result(pair.right.asked[0][1], "late")
    pair.shuttle()
    assert len(caller.outcomes) == 1
    assert pair.client.in_window == 0
    assert pair.client.idle


def test_a_call_that_waits_times_out(dialect: str) -> None:
    session = opened(made(dialect), window=1)
    start(session)
    caller = start(session, deadline=2.0)
    session.expire(2.0)
    assert isinstance(caller.error, RPCTimeoutError)
    assert "'method' was not sent" in str(caller.error)
    check(session)


def test_several_time_out_in_order(dialect: str) -> None:
    session = opened(made(dialect))
    told: list[int] = []

    class Ordered(Recorder):
        def fail(self, error: BaseException, /) -> None:
            told.append(self.id)

    for deadline in (3.0, 1.0, 2.0, 9.0):
        session.call(Ordered("method", deadline), "method", (), {}, 0.0)
    session.expire(5.0)
    assert told == [2, 3, 1]
    assert session.next_deadline() == 9.0


def test_telling_one_may_cancel_another(dialect: str) -> None:
    session = opened(made(dialect))
    second = Recorder("second", 1.0)

    class First(Recorder):
        def fail(self, error: BaseException, /) -> None:
            super().fail(error)
            session.cancel(second.id)

    first = First("first", 1.0)
    session.call(first, "first", (), {}, 0.0)
    session.call(second, "second", (), {}, 0.0)
    session.expire(1.0)
    assert isinstance(first.error, RPCTimeoutError)
    assert second.outcomes == []
    check(session)


def test_no_connection_in_time(dialect: str) -> None:
    session = made(dialect, connect_timeout=2.0)
    early = start(session, now=0.0)
    session.notify("log", (), {}, 0.0)
    cancelled = start(session, now=0.5)
    session.cancel(cancelled.id)
    late = start(session, now=1.0)
    assert session.next_deadline() == 2.0
    session.expire(1.9)
    assert early.outcomes == []
    session.expire(2.5)
    assert isinstance(early.error, ConnectionLostError)
    assert "within 2 s" in str(early.error)
    assert cancelled.outcomes == []
    assert session.notifications_lost == 1
    assert late.outcomes == []
    assert session.next_deadline() == 3.0
    session.expire(3.0)
    assert isinstance(late.error, ConnectionLostError)
    assert session.idle
    check(session)


def test_what_waits_for_the_window_has_no_connect_timeout(dialect: str) -> None:
    session = opened(made(dialect, connect_timeout=2.0), window=1)
    callers = [start(session), start(session)]
    assert session.next_deadline() is None
    session.expire(100.0)
    assert [caller.outcomes for caller in callers] == [[], []]
    assert session.load == 2


def test_the_earlier_of_deadline_and_connect_timeout(dialect: str) -> None:
    session = made(dialect, connect_timeout=2.0)
    start(session, deadline=1.0)
    assert session.next_deadline() == 1.0
    session.expire(1.0)
    # Its place in the backlog is still there.
    assert session.next_deadline() == 2.0
    session.expire(2.0)
    assert session.next_deadline() is None


# -- loss ------------------------------------------------------------------------------------


def test_loss_fails_everything_and_says_how_far_it_came(dialect: str) -> None:
    session = opened(made(dialect), window=2)
    sent, given_up, waiting = start(session, "sent"), start(session), start(session, "waiting")
    session.cancel(given_up.id)
    session.backlog.extend([session.backlog[0]._replace(caller=None)] * 2)
    session.lost(ConnectionLostError("the peer is gone"), 3.0)
    assert str(sent.error) == "the peer is gone: 'sent' was sent 3.0 s ago, not accepted"
    assert str(waiting.error) == "the peer is gone: 'waiting' was not sent"
    for caller in (sent, waiting):
        assert type(caller.error) is ConnectionLostError
    assert given_up.outcomes == []
    assert session.notifications_lost == 2
    assert session.state is State.LOST
    assert session.idle
    assert session.load == session.window == session.pending_records == 0
    check(session)


def test_notifications_that_were_gathered_are_lost_too(dialect: str) -> None:
    session = opened(made(dialect))
    session.notify("sent", (), {}, 0.0)
    session.messages(0.0)
    start(session)
    session.cancel(start(session).id)
    session.notify("plain", (1,), {}, 0.0)
    session.notify("packed", ([1],), {}, 0.0)
    session.notify("named", (), {"key": 1}, 0.0)
    session.notify("large", (bytes(100_000),), {}, 0.0)
    session.error(5, Failure("builtins.ValueError", (), ""))
    session.lost(ConnectionLostError("the peer is gone"), 3.0)
    assert session.notifications_lost == 4
    assert session.pending_records == 0


def test_loss_of_calls_that_had_left_the_window() -> None:
    pair = Pair().settled()
    accepted, given_up = pair.call(), pair.call()
    pair.shuttle()
    pair.server.accepted([1, 2], [1, 2])
    pair.shuttle()
    pair.client.cancel(given_up.id)
    pair.client.lost(ConnectionLostError("gone"), pair.now)
    assert isinstance(accepted.error, ConnectionLostError)
    assert given_up.outcomes == []
    check(pair.client)


def test_loss_without_ever_a_connection(dialect: str) -> None:
    session = made(dialect)
    caller = start(session)
    session.lost(ServiceClosedError("closed"), 1.0)
    assert isinstance(caller.error, ServiceClosedError)
    check(session)


def test_a_second_loss_does_nothing(dialect: str) -> None:
    session = opened(made(dialect))
    caller = start(session)
    session.lost(ConnectionLostError("first"), 1.0)
    session.lost(ConnectionLostError("second"), 2.0)
    assert "first" in str(caller.error)


def test_after_the_loss_nothing_is_taken(dialect: str) -> None:
    session = opened(made(dialect))
    caller = start(session)
    session.lost(ConnectionLostError("gone"), 1.0)
    session.cancel(caller.id)
    with pytest.raises(ServiceClosedError):
        start(session)
    with pytest.raises(ServiceClosedError):
        session.notify("log", (), {}, 2.0)
    session.expire(10.0)
    assert session.messages(10.0) == []
    assert session.next_deadline() is None
    assert len(caller.outcomes) == 1
    check(session)


def test_what_is_told_of_the_loss_may_cancel(dialect: str) -> None:
    session = opened(made(dialect))
    second = Recorder()

    class First(Recorder):
        def fail(self, error: BaseException, /) -> None:
            super().fail(error)
            session.cancel(second.id)

    first = First()
    session.call(first, "first", (), {}, 0.0)
    session.call(second, "second", (), {}, 0.0)
    session.lost(ConnectionLostError("gone"), 1.0)
    for caller in (first, second):
        assert isinstance(caller.error, ConnectionLostError)


#: Those of the package's own; other layers have some for themselves.
ERRORS = [
    error
    for error in Error.__subclasses__()
    if error is not GenericError and error.__module__ == Error.__module__
]


@pytest.mark.parametrize("error", ERRORS)
def test_the_kind_of_loss_is_kept(dialect: str, error: type[Error]) -> None:
    session = opened(made(dialect))
    caller = start(session)
    session.lost(error("why"), 1.0)
    assert type(caller.error) is error


def test_giving_everything_up(dialect: str) -> None:
    pair = Pair(dialect, client=Limits(window=2), server=Limits(window=2)).settled()
    callers = [pair.call() for _ in range(3)]
    pair.shuttle()
    pair.client.give_up(ServiceClosedError("this side closes"), pair.now)
    for caller in callers:
        assert isinstance(caller.error, ServiceClosedError)
    assert not pair.client.pending
    pair.check()
    for event in pair.right.asked[:2]:
        pair.server.result(event[1], "late")
    pair.shuttle()
    assert [len(caller.outcomes) for caller in callers] == [1, 1, 1]
    assert pair.client.in_window == 0
    assert pair.client.messages(pair.now) == []
    assert pair.client.idle


def test_late_answers_after_the_loss_are_dropped(dialect: str) -> None:
    pair = Pair(dialect).settled()
    caller = pair.call()
    pair.shuttle()
    pair.server.result(pair.right.asked[0][1], 1)
    pair.client.lost(ConnectionLostError("gone"), pair.now)
    pair.shuttle()
    assert len(caller.outcomes) == 1


# -- what not every dialect can --------------------------------------------------------------


def test_aiozmq_does_not_support_streams() -> None:
    session = opened(made("aiozmq"))
    with pytest.raises(TypeError, match="aiozmq does not support streams"):
        session.item(1, 2)
    with pytest.raises(TypeError, match="aiozmq does not support streams"):
        session.end(1)


def test_what_aiozmq_has_no_word_for_is_not_said() -> None:
    session = opened(made("aiozmq"))
    session.accepted([1], [1])
    session.credit(1, 2)
    session.goodbye("closing")
    session.barrier()
    assert session.tick(1e9)
    assert session.messages(1e9) == []
    # Nobody need wait for an answer that does not come.
    assert session.barrier_passed


def test_dialects_tell_what_they_can() -> None:
    for name, dialect in DIALECTS.items():
        session = dialect.session(Limits())
        assert dialect.name == session.dialect == name
        assert session.keeps_window is session.acknowledges is (name == "native")
