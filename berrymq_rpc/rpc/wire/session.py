"""What the sessions of all dialects share: calls in flight, the window, the backlog.

A session takes frames and gives frames, with the time passed in; it never touches a socket, a
clock or an event loop. A call that this side makes is a `Caller`, whose methods report its outcome.
A call that the peer makes is returned as an `InboundEvent`, and each one is answered by exactly one
of `result`, `error` and `end`.

States::

    CONNECTING --connected()--> OPEN --goodbye--> CLOSING
        |                        |                   |
        +---------lost()---------+-------------------+----> LOST

CONNECTING keeps calls in the backlog. CLOSING takes no new calls, but answers those in flight.
"""

import enum
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple, Protocol, TypeAlias

from ...common.safe_log import SafeLog
from ...errors import (
    ConnectionLostError,
    Error,
    NotFoundError,
    OverloadedError,
    ParametersError,
    PermissionDeniedError,
    RPCTimeoutError,
    ServiceClosedError,
)
from .deadlines import Deadlines
from .exception_codec import Failure, is_own
from .limits import CONNECT_TIMEOUT, Limits
from .record import InboundEvent
from .safe_repr import full_name

__all__ = ["SHARE", "Buffer", "Caller", "Dialect", "Frames", "Session", "State", "Unsent"]

logger = SafeLog("berrymq_rpc.rpc")

#: Records of a message that are taken at once: more than the calls of a window. Malformed ones,
#: which cost the most, hold the event loop for some 10 ms.
SHARE = 512

Buffer: TypeAlias = bytes | bytearray | memoryview
Frames: TypeAlias = Sequence[Buffer]


_SERVICE_CLOSED = full_name(ServiceClosedError)

#: The errors with which a peer answers a call that it did not run.
_REFUSALS = (NotFoundError, OverloadedError, ParametersError, PermissionDeniedError)


class State(enum.Enum):
    """The state of a session's connection."""

    CONNECTING = "connecting"
    OPEN = "open"
    CLOSING = "closing"
    LOST = "lost"


_NEXT = {
    State.CONNECTING: frozenset({State.OPEN, State.LOST}),
    State.OPEN: frozenset({State.CLOSING, State.LOST}),
    State.CLOSING: frozenset({State.LOST}),
    State.LOST: frozenset(),
}


class Caller(Protocol):
    """One call that this side made. Its outcome is reported once."""

    id: int
    method: str
    deadline: float | None
    #: When the call was made.
    made_at: float
    #: When the call was handed to the transport; ``None`` before.
    sent: float | None
    #: When the peer said that the method had begun.
    accepted_at: float | None

    def succeed(self, value: Any, /) -> None:
        """The result arrived."""

    def fail(self, error: BaseException, /) -> None:
        """The call failed, here or at the peer."""

    def refused(self, error: BaseException, /) -> None:
        """The closing peer did not run the call: fail it, or send it to another peer."""

    def accepted(self, now: float, released: bool, /) -> None:
        """The peer has begun the call; `released`: it holds no slot of the window any more."""

    def item(self, value: Any, /) -> None:
        """An item arrived: the call is a stream."""

    def end(self) -> None:
        """The stream is over."""


class Unsent(NamedTuple):
    """A packed call (or notification, without `caller`) that waits to be sent."""

    caller: Caller | None
    encoded: Any
    since: float


class Session(ABC):
    """Calls in both directions with one peer.

    Args:
        limits: the bounds of this side.
        ids: where the ids of outgoing calls come from; the sessions of one client share it, so
            that an unsent call may move from one to another.
        connect_timeout: seconds that a call waits for a connection.
    """

    #: Name of the dialect.
    dialect: str
    #: Whether the peer keeps to the window; the calls of one that does not are queued here.
    keeps_window: bool
    #: Whether the peer can say that a result reached its caller.
    acknowledges: bool
    #: Whether the peer can read streams.
    reads_streams = True
    #: What to call the peer in an error.
    peer_kind = "a native peer"
    #: Whether the peer can be sent anything but answers: not one that waits for the answer to each
    #: of its requests, and would take anything else for it. Set before `connected`.
    can_be_pushed = True
    #: Bytes of metadata that the peer takes with a call; ``None`` before it has said so.
    peer_metadata: int | None = None
    #: How many records of the last message are not taken yet; see `receive_rest`.
    unread = 0

    def __init__(
        self,
        limits: Limits,
        *,
        ids: Iterator[int] | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
    ) -> None:
        self.limits = limits
        #: The peer's address, or the addresses that are tried.
        self.endpoint: str | None = None
        self.state = State.CONNECTING
        #: Calls that this side made and that are not answered yet.
        self.pending: dict[int, Caller] = {}
        #: Calls in flight that hold a slot of the peer's window.
        self.in_window = 0
        #: The size of that window; 0 while there is no connection.
        self.window = 0
        #: Calls and notifications that wait for a slot or for the connection, oldest first.
        self.backlog: deque[Unsent] = deque()
        #: Called with the name of a peer's notification that could not be read, and why.
        self.report_dropped: Callable[[str, Exception], object] = _ignore
        #: Called with the method and arguments of a peer's call that was too old to run.
        self.report_expired: Callable[[str, tuple[Any, ...], dict[str, Any]], object] = _ignore
        #: Says why there is no connection, where that is known.
        self.trouble: Callable[[], str | None] = _unknown
        #: Malformed messages and records of the peer.
        self.malformed = 0
        #: The peer's calls that were too old to run when they were read.
        self.expired = 0
        #: Notifications of this side that did not arrive, as far as is known.
        self.notifications_lost = 0
        #: Items of a stream that may be sent before the peer asks for more.
        self.stream_credit = limits.stream_window
        self.last_heard = 0.0
        #: Bytes of long records and frames that wait to be sent.
        self.large_bytes = 0
        self.connect_timeout = connect_timeout
        self.ids = count(1) if ids is None else ids
        self._deadlines = Deadlines(self.pending)
        #: Calls cancelled here that the peer has not answered: they still hold their slot.
        self.abandoned: set[int] = set()
        #: Calls that the peer accepted and took out of the window.
        self.released: set[int] = set()
        self._out: list[Any] = []

    def enter(self, state: State) -> None:
        """Change the state. Raises `RuntimeError` for an invalid change."""
        if state not in _NEXT[self.state]:
            raise RuntimeError(f"a session that is {self.state.value} cannot be {state.value}")
        logger.debug("session %#x: %s -> %s", id(self), self.state.value, state.value)
        self.state = state

    # -- the calls of this side ----------------------------------------------------------

    def call(
        self,
        caller: Caller,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        now: float,
    ) -> None:
        """Send a call, or keep it until the window has room.

        Raises:
            TypeError, ValueError: an argument cannot be packed; nothing was sent.
            TooLargeError: it is larger than this side or the peer allows; nothing was sent.
            ServiceClosedError: the session is CLOSING or LOST.
        """
        call_id = caller.id = next(self.ids)
        deadline = caller.deadline
        try:
            encoded = self._encode_call(call_id, method, args, kwargs, deadline)
            if self.in_window < self.window and not self.backlog:
                self.in_window += 1
                caller.sent = now
                self._out.append(encoded)
            else:
                self._check_open()
                caller.sent = None
                self.backlog.append(Unsent(caller, encoded, now))
        except Error as error:
            self.note_unsent(error, method)
            raise
        self.pending[call_id] = caller
        if deadline is not None:
            self._deadlines.add(deadline, call_id)

    def notify(
        self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], now: float
    ) -> None:
        """Send a call that is never answered. Raises as `call` does."""
        try:
            encoded = self._encode_notify(method, args, kwargs)
            if self.window:
                self._out.append(encoded)
            else:
                self._check_open()
                self.backlog.append(Unsent(None, encoded, now))
        except Error as error:
            self.note_unsent(error, method)
            raise

    def call_with(
        self,
        caller: Caller,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        now: float,
        metadata: Mapping[str, Any],
    ) -> None:
        """Send a call with metadata, which a peer that knows none does not get.

        Until the peer has said what it takes, the call waits: for a round trip after connecting.

        Raises:
            ValueError: this dialect has no metadata; nothing was sent.
            Exception: as `call` does.
        """
        call_id = caller.id = next(self.ids)
        deadline = caller.deadline
        try:
            encoded = self._encode_with(call_id, method, args, kwargs, deadline, metadata)
            self._check_open()
        except Error as error:
            self.note_unsent(error, method)
            raise
        caller.sent = None
        self.backlog.append(Unsent(caller, encoded, now))
        self.pending[call_id] = caller
        if deadline is not None:
            self._deadlines.add(deadline, call_id)
        self._release(now)

    def notify_with(
        self,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        now: float,
        metadata: Mapping[str, Any],
    ) -> None:
        """Send a notification with metadata; see `call_with`."""
        try:
            encoded = self._encode_with(None, method, args, kwargs, None, metadata)
            self._check_open()
        except Error as error:
            self.note_unsent(error, method)
            raise
        if self.window and self.peer_metadata is not None:
            self._out.append(encoded)
        else:
            self.backlog.append(Unsent(None, encoded, now))

    def _encode_with(
        self,
        call_id: int | None,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        deadline: float | None,
        metadata: Mapping[str, Any],
    ) -> Any:
        """Encode a call, or a notification without an id, with its metadata."""
        raise ValueError(f"metadata does not travel to a peer that speaks {self.dialect}")

    def _as_taken(self, encoded: Any) -> Any:
        """What the peer takes of something encoded; ``None`` before that is known."""
        return encoded

    def _check_open(self) -> None:
        if not self.can_be_pushed:
            raise ServiceClosedError(
                "the peer waits for the answer to each of its requests (it posts them, or has a "
                "REQ socket), so it can be answered but not called"
            )
        if self.state is State.CLOSING or self.state is State.LOST:
            raise ServiceClosedError("the peer takes no more calls on this connection")

    def note_unsent(self, error: Error, method: str) -> None:
        """Set the fields of an error about a call or notification that was never sent."""
        error.method = method
        error.endpoint = self.endpoint
        error.sent = False

    def cancel(self, call_id: int) -> None:
        """Cancel a call: tell the peer, and drop an answer that still arrives."""
        caller = self.pending.pop(call_id, None)
        if caller is None or self.state is State.LOST:
            return
        if caller.sent is not None:
            self._abandon(call_id)

    def _abandon(self, call_id: int) -> None:
        self.abandoned.add(call_id)

    def _answered(self, call_id: Any) -> Caller | None:
        """Remove the call that this final record answers."""
        caller = self.pending.get(call_id)
        if caller is None:
            if call_id not in self.abandoned:
                return None
            self.abandoned.discard(call_id)
        elif caller.sent is None:
            # It holds no slot, and the peer does not know it.
            return None
        else:
            del self.pending[call_id]
        if call_id in self.released:
            self.released.discard(call_id)
        else:
            self.in_window -= 1
        return caller

    def _release(self, now: float) -> None:
        """Send calls from the backlog, as far as the window has room."""
        backlog = self.backlog
        pending = self.pending
        while backlog:
            unsent, encoded, _ = backlog[0]
            encoded = self._as_taken(encoded)
            if encoded is None:
                return
            if unsent is None:
                if self.window == 0:
                    return
            else:
                # Not `unsent` itself: a stream may have taken its place.
                caller = pending.get(unsent.id)
                if caller is None:
                    backlog.popleft()
                    continue
                if self.in_window >= self.window:
                    return
                self.in_window += 1
                caller.sent = now
            backlog.popleft()
            self._out.append(encoded)

    def refuse_backlog(self, error: Error, now: float) -> None:
        """Fail the calls of the backlog, which can no longer be sent."""
        for entry in self.take_backlog():
            if entry.caller is None:
                self.notifications_lost += 1
            else:
                self.fail(entry.caller, error, now)

    def packed(self, caller: Caller) -> Any:
        """What `call` or `call_with` has just encoded for `caller`."""
        return self.backlog[-1].encoded if caller.sent is None else self._out[-1]

    def take_backlog(self) -> list[Unsent]:
        """Remove and return the backlog, for another session to `adopt`."""
        entries = []
        for entry in self.backlog:
            if entry.caller is None:
                entries.append(entry)
                continue
            caller = self.pending.pop(entry.caller.id, None)
            if caller is not None:
                entries.append(entry._replace(caller=caller))
        self.backlog.clear()
        return entries

    def adopt(self, entries: Iterable[Unsent], now: float) -> None:
        """Take over the backlog of another session of the same client."""
        for entry in entries:
            caller = entry.caller
            if caller is not None:
                self.pending[caller.id] = caller
                if caller.deadline is not None:
                    self._deadlines.add(caller.deadline, caller.id)
            self.backlog.append(entry._replace(since=now))
        self._release(now)

    # -- time ----------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When to call `expire` next, or ``None``."""
        when = self._deadlines.next()
        if self.state is State.CONNECTING and self.backlog:
            limit = self.backlog[0].since + self.connect_timeout
            return limit if when is None else min(when, limit)
        return when

    def _time_is_over(self) -> RPCTimeoutError:
        if self.state is State.CONNECTING:
            return RPCTimeoutError("no answer in time, as there is no connection")
        return RPCTimeoutError("no answer in time")

    def expire(self, now: float) -> None:
        """Fail the calls whose deadline has passed at `now`, and tell the peer to stop them."""
        if self.state is State.CONNECTING:
            # First: with a timeout as long as `connect_timeout`, this says more.
            self._expire_backlog(now)
        for call_id in self._deadlines.due(now):
            caller = self.pending.get(call_id)
            if caller is None or caller.deadline is None:
                # It was adopted twice, and has two entries; or it is a stream, where each item has
                # a timeout of its own.
                continue
            self.cancel(call_id)
            self.fail(caller, self._time_is_over(), now)

    def _expire_backlog(self, now: float) -> None:
        """Fail what has waited for a connection for too long."""
        trouble = self.trouble() or "is the server running, and is the address right?"
        unreachable = ConnectionLostError(
            f"no connection within {self.connect_timeout:g} s ({trouble})"
        )
        while self.backlog and self.backlog[0].since + self.connect_timeout <= now:
            unsent = self.backlog.popleft().caller
            if unsent is None:
                self.notifications_lost += 1
                continue
            caller = self.pending.pop(unsent.id, None)
            if caller is not None:
                self.fail(caller, unreachable, now)

    # -- the life of the connection ------------------------------------------------------

    def connected(self, now: float) -> None:
        """The transport reached the peer."""
        self.enter(State.OPEN)
        self.last_heard = now
        # Without a window, `_check_open` sees every call and notification.
        self.window = self._first_window() if self.can_be_pushed else 0
        self._greet()
        self._release(now)

    def lost(self, error: Error, now: float) -> None:
        """The peer is gone: fail the calls in flight, each with an error of its own."""
        if self.state is State.LOST:
            return
        self.enter(State.LOST)
        self.unread = 0
        self.window = 0
        self.in_window = 0
        pending = list(self.pending.values())
        self.pending.clear()
        self.notifications_lost += sum(entry.caller is None for entry in self.backlog)
        self.notifications_lost += sum(map(self._is_notification, self._out))
        self.backlog.clear()
        self.abandoned.clear()
        self.released.clear()
        self._out.clear()
        for caller in pending:
            self.fail(caller, error, now)

    def give_up(self, error: Error, now: float) -> None:
        """Cancel all calls of this side; each fails with a copy of `error`."""
        for call_id, caller in list(self.pending.items()):
            self.cancel(call_id)
            self.fail(caller, error, now)

    def fail(self, caller: Caller, error: Error, now: float) -> None:
        """Fail a call with a copy of `error` that says how far the call came."""
        own = type(error)(*error.args)
        vars(own).update(vars(error))
        self.note_call(own, caller, now)
        own.progress = _progress(caller, now)
        caller.fail(own)

    def _fail_remotely(self, caller: Caller, error: Exception, now: float) -> None:
        """Fail a call with the error that the peer answered."""
        if is_own(error):
            assert isinstance(error, Error)
            self.note_call(error, caller, now)
            if isinstance(error, _REFUSALS) and caller.accepted_at is None:
                error.sent = False
        caller.fail(error)

    def note_call(self, error: Error, caller: Caller, now: float) -> Error:
        """Set an error's fields to what is known of its call, and return the error."""
        error.method = caller.method
        error.endpoint = self.endpoint
        error.sent = caller.sent is not None
        error.elapsed = now - caller.made_at
        return error

    @property
    def idle(self) -> bool:
        """Whether no call of this side is in flight and nothing waits to be sent."""
        return not (self.pending or self.backlog or self._out)

    @property
    def load(self) -> int:
        """Calls in flight and waiting: the measure for the least loaded of several peers."""
        return self.in_window + len(self.backlog)

    def _first_window(self) -> int:
        return self.limits.window

    def _greet(self) -> None:
        """Send the first record of a new connection."""

    def goodbye(self, reason: str) -> None:
        """Tell the peer that this side takes no more calls."""

    #: Whether the peer has read what was sent before `barrier`, as far as this side can ask.
    barrier_passed = True

    def barrier(self) -> None:
        """Ask the peer to report when it has read what was sent so far."""

    def tick(self, now: float) -> bool:
        """Keep a connection alive whose transport does not; call it each quarter heartbeat.

        Returns:
            Whether the peer is alive, as far as is known.
        """
        return True

    # -- the peer's requests --------------------------------------------------------------

    @abstractmethod
    def receive(self, frames: Frames, now: float) -> list[InboundEvent]:
        """Read one message, once nothing of the one before is unread.

        Of a message of many records, only some are taken; `unread` says how many are left.

        Raises:
            ProtocolError: the message is malformed. The session works on.
        """

    def receive_rest(self, now: float) -> list[InboundEvent]:
        """Take some more records of the last message, if there are any."""
        return []

    @abstractmethod
    def result(self, call_id: Any, value: Any, *, acknowledge: bool = False) -> None:
        """Answer a call. Raises as `call` does; the call is then still to be answered."""

    @abstractmethod
    def error(self, call_id: Any, failure: Failure) -> None:
        """Answer a call with a failure. Never raises."""

    def closed(self, call_id: Any, reason: str, *, began: bool) -> None:
        """Answer a call that was refused or stopped because this side is closing. Never raises."""
        self.error(call_id, Failure(_SERVICE_CLOSED, (reason,), f"ServiceClosedError({reason!r})"))

    def accepted(self, running: list[Any], released: list[Any]) -> None:
        """Report which calls have begun, and which of them hold no slot of the window."""

    def item(self, call_id: Any, value: Any) -> None:
        """Send an item of a stream. Raises as `call` does."""
        raise TypeError(f"a peer that speaks {self.dialect} does not support streams")

    def end(self, call_id: Any) -> None:
        """Report the end of a stream."""
        raise TypeError(f"a peer that speaks {self.dialect} does not support streams")

    def credit(self, call_id: int, items: int) -> None:
        """Ask for more items of a stream."""

    @abstractmethod
    def messages(self, now: float) -> list[Frames]:
        """Remove and return what is to be sent, as messages in order."""

    @property
    def pending_records(self) -> int:
        """How many records wait to be sent."""
        return len(self._out)

    # -- packing -------------------------------------------------------------------------

    @abstractmethod
    def _encode_call(
        self,
        call_id: int,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        deadline: float | None,
    ) -> Any: ...

    @abstractmethod
    def _encode_notify(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any: ...

    @abstractmethod
    def _is_notification(self, encoded: Any) -> bool:
        """Whether an encoded record is a notification."""


def _ignore(*event: object) -> None: ...


def _unknown() -> str | None:
    return None


def _progress(caller: Caller, now: float) -> str:
    if caller.sent is None:
        return "was not sent"
    if caller.accepted_at is None:
        return f"was sent {now - caller.sent:.1f} s ago, not accepted"
    return f"was accepted, and running for {now - caller.accepted_at:.1f} s"


class Dialect(Protocol):
    """One language of the wire: recognises its messages, and makes sessions."""

    name: str

    def recognises(self, frames: Frames) -> bool:
        """Whether a peer's first message is of this dialect, by its frames alone."""

    def session(
        self,
        limits: Limits,
        *,
        ids: Iterator[int] | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
    ) -> Session:
        """Make a session with a peer that speaks it."""
