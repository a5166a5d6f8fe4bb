"""What an error says of its call: `method`, `endpoint`, `sent` and `elapsed`, for each cause."""

from typing import Any

import pytest
from joined import Pair, Recorder, message, native, opened, start

from berrymq_rpc import errors
from berrymq_rpc.errors import (
    ConnectionLostError,
    Error,
    GenericError,
    NotFoundError,
    OverloadedError,
    ParametersError,
    ProtocolError,
    RPCTimeoutError,
    ServiceClosedError,
    TooLargeError,
)
from berrymq_rpc.rpc.wire.codec import Codec
from berrymq_rpc.rpc.wire.exception_codec import describe, restore
from berrymq_rpc.rpc.wire.limits import CONNECT_TIMEOUT, Limits
from berrymq_rpc.rpc.wire.native_session import NativeDialect
from berrymq_rpc.rpc.wire.record import ACCEPTED, CLOSED, ERROR, ITEM

ENDPOINT = "tcp://127.0.0.1:5555"


def connected(window: int = 10) -> Any:
    session = opened(native(), window=window)
    session.endpoint = ENDPOINT
    return session


def fields(error: BaseException) -> tuple[str | None, str | None, bool | None, float | None]:
    assert isinstance(error, Error)
    return error.method, error.endpoint, error.sent, error.elapsed


def answered(caller: Recorder, session: Any, error: Exception, now: float = 2.0) -> Error:
    """What the caller gets for an error that the peer answers with."""
    failure = describe(error, Codec())
    session.receive(message((ERROR, caller.id, *failure[:3])), now)
    found = caller.error
    assert isinstance(found, Error)
    return found


# -- a timeout of this side ------------------------------------------------------------------


def test_timeout_of_a_call_that_was_never_sent() -> None:
    session = connected(window=1)
    start(session)
    caller = start(session, "waiting", now=1.0, deadline=3.0)
    session.expire(3.0)
    assert type(caller.error) is RPCTimeoutError
    assert fields(caller.error) == ("waiting", ENDPOINT, False, 2.0)
    assert str(caller.error) == f"{ENDPOINT}: no answer in time: 'waiting' was not sent"


def test_timeout_without_a_connection() -> None:
    session = native()
    session.endpoint = ENDPOINT
    caller = start(session, "waiting", deadline=1.0)
    session.expire(1.0)
    assert fields(caller.error) == ("waiting", ENDPOINT, False, 1.0)
    told = f"{ENDPOINT}: no answer in time, as there is no connection: 'waiting' was not sent"
    assert str(caller.error) == told


def test_timeout_of_a_call_that_was_sent() -> None:
    session = connected()
    caller = start(session, "slow", now=1.0, deadline=3.0)
    session.expire(3.0)
    assert fields(caller.error) == ("slow", ENDPOINT, True, 2.0)
    told = f"{ENDPOINT}: no answer in time: 'slow' was sent 2.0 s ago, not accepted"
    assert str(caller.error) == told


def test_timeout_of_a_call_that_runs() -> None:
    session = connected()
    caller = start(session, "slow", deadline=3.0)
    session.receive(message((ACCEPTED, [caller.id], [])), 1.0)
    session.expire(3.0)
    assert fields(caller.error) == ("slow", ENDPOINT, True, 3.0)
    told = f"{ENDPOINT}: no answer in time: 'slow' was accepted, and running for 2.0 s"
    assert str(caller.error) == told


def test_the_time_that_a_call_waited_for_its_turn_counts() -> None:
    session = connected(window=1)
    first = start(session)
    caller = start(session, "slow", now=1.0)
    session.receive(message((ERROR, first.id, "x", [], "")), 3.0)
    session.lost(ConnectionLostError("the peer is gone"), 7.0)
    assert fields(caller.error) == ("slow", ENDPOINT, True, 6.0)
    assert str(caller.error).endswith("'slow' was sent 4.0 s ago, not accepted")


# -- the connection --------------------------------------------------------------------------


def test_no_connection_in_time() -> None:
    session = native()
    session.endpoint = ENDPOINT
    caller = start(session, "waiting")
    session.expire(CONNECT_TIMEOUT)
    assert type(caller.error) is ConnectionLostError
    assert fields(caller.error) == ("waiting", ENDPOINT, False, CONNECT_TIMEOUT)


def test_connection_lost() -> None:
    session = connected(window=2)
    running, sent, waiting = (start(session, name) for name in ("running", "sent", "waiting"))
    session.receive(message((ACCEPTED, [running.id], [])), 1.0)
    session.lost(ConnectionLostError("the peer is gone"), 3.0)
    assert fields(running.error) == ("running", ENDPOINT, True, 3.0)
    assert fields(sent.error) == ("sent", ENDPOINT, True, 3.0)
    assert fields(waiting.error) == ("waiting", ENDPOINT, False, 3.0)
    assert running.error.args == ("the peer is gone",)


def test_this_side_gives_up() -> None:
    session = connected(window=1)
    sent, waiting = start(session, "sent"), start(session, "waiting")
    session.give_up(ServiceClosedError("the client is closed"), 1.0)
    assert fields(sent.error) == ("sent", ENDPOINT, True, 1.0)
    assert fields(waiting.error) == ("waiting", ENDPOINT, False, 1.0)


def test_a_call_on_a_connection_that_is_lost() -> None:
    session = connected()
    session.lost(ConnectionLostError("the peer is gone"), 3.0)
    with pytest.raises(ServiceClosedError) as caught:
        start(session, "late")
    assert fields(caught.value) == ("late", ENDPOINT, False, None)
    with pytest.raises(ServiceClosedError) as caught:
        session.notify("late", (), {}, 3.0)
    assert fields(caught.value) == ("late", ENDPOINT, False, None)


def test_a_call_that_is_too_large_to_send() -> None:
    session = opened(native(Limits(max_message=1 << 16, max_frame=1 << 16)))
    session.endpoint = ENDPOINT
    with pytest.raises(TooLargeError) as caught:
        start(session, "large", "x" * (1 << 17))
    assert fields(caught.value) == ("large", ENDPOINT, False, None)


# -- what the peer says ----------------------------------------------------------------------


@pytest.mark.parametrize("cls", [OverloadedError, NotFoundError, ParametersError])
def test_refused_before_it_started(cls: type[Error]) -> None:
    session = connected()
    error = answered(start(session, "busy"), session, cls("a reason"))
    assert type(error) is cls
    assert fields(error) == ("busy", ENDPOINT, False, 2.0)
    assert str(error) == "a reason"
    assert error.args == ("a reason",)


@pytest.mark.parametrize("cls", [OverloadedError, NotFoundError, ParametersError])
def test_a_method_that_has_begun_may_meet_with_a_refusal_itself(cls: type[Error]) -> None:
    session = connected()
    caller = start(session, "relay")
    session.receive(message((ACCEPTED, [caller.id], [])), 1.0)
    assert fields(answered(caller, session, cls("a reason"))) == ("relay", ENDPOINT, True, 2.0)


@pytest.mark.parametrize("cls", [ProtocolError, TooLargeError, Error])
def test_other_answers(cls: type[Error]) -> None:
    session = connected()
    error = answered(start(session, "odd"), session, cls("a reason"))
    assert fields(error) == ("odd", ENDPOINT, True, 2.0)
    assert str(error) == "a reason"


def test_an_exception_that_is_not_known_here() -> None:
    session = connected()
    caller = start(session, "odd")
    session.receive(message((ERROR, caller.id, "pkg.Odd", [1], "Odd(1)")), 2.0)
    assert type(caller.error) is GenericError
    assert fields(caller.error) == ("odd", ENDPOINT, True, 2.0)
    assert str(caller.error) == "pkg.Odd: Odd(1)"


def test_an_exception_of_pythons_has_no_fields() -> None:
    session = connected()
    caller = start(session, "odd")
    session.receive(message((ERROR, caller.id, "builtins.ValueError", ["x"], "")), 2.0)
    assert type(caller.error) is ValueError
    assert not vars(caller.error)


def test_a_users_own_fields_stay() -> None:
    class Stuck(Error):
        def __init__(self, method: str) -> None:
            super().__init__(method)
            self.method = method
            self.progress = "half"

    dialect = NativeDialect(Codec(), {"pkg.Stuck": Stuck})
    session = opened(dialect.session(Limits()))
    caller = start(session, "called")
    session.receive(message((ERROR, caller.id, "pkg.Stuck", ["theirs"], "")), 2.0)
    assert type(caller.error) is Stuck
    assert caller.error.method == "theirs"
    assert describe(caller.error, Codec()).args == ("theirs",)


def test_a_closing_peer_did_not_run_it() -> None:
    session = connected()
    caller = start(session, "late")
    session.receive(message((CLOSED, caller.id, "the server is closing", False)), 2.0)
    ((outcome, error),) = caller.outcomes
    assert outcome == "refused"
    assert fields(error) == ("late", ENDPOINT, False, 2.0)
    assert str(error) == f"{ENDPOINT}: the server is closing: 'late' did not run"


def test_a_closing_peer_stopped_it() -> None:
    session = connected()
    caller = start(session, "stopped")
    session.receive(message((CLOSED, caller.id, "the server is closing", True)), 2.0)
    assert fields(caller.error) == ("stopped", ENDPOINT, True, 2.0)


def test_what_waits_while_the_peer_closes() -> None:
    session = connected(window=1)
    _, waiting = start(session), start(session, "waiting")
    session.refuse_backlog(ServiceClosedError("the peer is closing"), 2.0)
    assert fields(waiting.error) == ("waiting", ENDPOINT, False, 2.0)


def test_an_item_that_cannot_be_read() -> None:
    session = connected()
    caller = start(session, "ticks")
    session.receive(message(b"\x93" + bytes([ITEM, caller.id]) + b"\xc1"), 2.0)
    assert type(caller.error) is ProtocolError
    assert fields(caller.error) == ("ticks", ENDPOINT, True, 2.0)
    assert "an item cannot be read: " in str(caller.error)


# -- on its way to another caller ------------------------------------------------------------


def test_the_whole_text_travels_on() -> None:
    """A handler that lets out an error of a call of its own: the peer has only the text."""
    session = connected()
    caller = start(session, "slow", deadline=1.0)
    session.expire(1.0)
    failure = describe(caller.error, Codec())
    assert failure.type_name == "berrymq_rpc.errors.RPCTimeoutError"
    assert failure.args == (str(caller.error),)
    assert failure.text == f"RPCTimeoutError({str(caller.error)!r})"
    assert str(restore(failure)) == str(caller.error)


def test_what_a_peer_answered_travels_on_as_it_is() -> None:
    session = connected()
    error = answered(start(session, "relayed"), session, NotFoundError("no method 'x'"))
    assert describe(error, Codec()) == describe(NotFoundError("no method 'x'"), Codec())


@pytest.mark.parametrize("dialect", ["native", "aiozmq"])
def test_every_dialect_fills_them_in(dialect: str) -> None:
    pair = Pair(dialect).settled()
    pair.client.endpoint = ENDPOINT
    caller = pair.call("odd")
    pair.shuttle()
    pair.server.error(caller.id, describe(errors.NotFoundError("no method 'odd'"), Codec()))
    pair.now += 1.0
    pair.shuttle()
    assert fields(caller.error) == ("odd", ENDPOINT, False, 1.0)
