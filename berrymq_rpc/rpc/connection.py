"""One connection: a session of calls in both directions, tied to a port and an event loop."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from threading import get_ident
from time import monotonic
from typing import Any, Protocol

from ..errors import Error, OverloadedError, ProtocolError, ServiceClosedError
from ..runtime.log import Log
from .call import Call
from .call_bytes import MESSAGE, CallBytes, Room
from .method import Method
from .options import CallOptions
from .stream import PendingCall, Stream
from .transport.port import Key, Port
from .wire.record import NOTIFY, InboundEvent
from .wire.session import SHARE, Frames, Session, Unsent

__all__ = ["Connection", "InboundHandler"]

logger = Log("berrymq_rpc.rpc")

#: Notifications of one tick before they are handed to the transport, so that a loop which sends
#: without ever awaiting meets the bound on queued bytes.
MAX_NOTIFICATIONS = 1000


class InboundHandler(Protocol):
    """Serves the calls of a connection's peer: an `inbound.Inbound`."""

    #: Ids of the calls that were started since the last flush; ``None`` for notifications.
    started: list[Any]
    #: Bytes of the message that is being served, or of the part of it that is.
    message_bytes: int
    #: Whether calls wait for the peer's next turn.
    needs_turn: bool
    #: What the peer's calls take that wait.
    call_bytes: CallBytes

    @property
    def in_progress(self) -> int:
        """How many calls run or wait for their turn."""

    def dispatch(self, events: Sequence[InboundEvent], now: float, end: float) -> None:
        """Serve what one message asked for, until `end`; the rest waits for the next turn."""

    def resume(self, end: float) -> None:
        """Serve the calls that wait for a turn, until `end`."""

    def refuse(self, events: Sequence[InboundEvent]) -> list[InboundEvent]:
        """Refuse the calls of a message that there was no room for, and return the rest of it."""

    def wait_for_turn(self) -> None:
        """Have the connection take a turn."""

    def report_accepted(self) -> None:
        """Tell the peer which of the calls in `started` run on."""

    def report_malformed(self, error: Exception) -> None:
        """Count a message that could not be read, and log some of them."""

    def tasks(self) -> list["asyncio.Future[Any]"]:
        """The tasks and threads of the calls that run."""

    def stop_waiting(self) -> None:
        """End calls that wait for something that may not happen, as this side closes."""

    def cancel_waiting(self, waits: Callable[[Method], bool]) -> None:
        """Cancel the calls that run and only wait for something to come."""

    def cancel_calls(self) -> None:
        """Cancel the calls that run, and let the notifications go on."""

    def stop(self) -> None:
        """Cancel what runs for the peer, and drop what waits."""

    def leaving(self) -> None:
        """The peer is gone, and what it sent before is not served yet: drop its calls."""

    def lost(self) -> None:
        """The peer is gone: stop its calls; no answer of them will be acknowledged."""


class Connection:
    """Calls with one peer.

    Args:
        session: the call state; its dialect decides what is possible.
        port: where its messages go.
        key: the peer's name at the port.
        on_peer_closing: called when the peer says that it takes no more calls.

    Attributes:
        inbound: serves the peer's calls. An `Inbound` sets it as it is made.
    """

    __slots__ = (
        "_account",
        "_congested",
        "_leaving",
        "_notifications",
        "_on_lost",
        "_on_peer_closing",
        "_room",
        "_served",
        "_timer",
        "_timer_at",
        "_unread",
        "dirty",
        "flush_scheduled",
        "inbound",
        "is_behind",
        "key",
        "loop",
        "new_call",
        "port",
        "session",
        "thread",
    )

    inbound: InboundHandler

    def __init__(
        self,
        session: Session,
        port: Port | None,
        key: Key,
        loop: asyncio.AbstractEventLoop,
        on_peer_closing: "Callable[[Connection], None] | None" = None,
    ) -> None:
        self.session = session
        self.port = port
        self.key = key
        self.loop = loop
        #: Makes the calls of this side: `Call`, or what its dispatcher has in place of it.
        self.new_call: Callable[..., Call] = Call
        #: The thread of the event loop, which alone may use it.
        self.thread = get_ident()
        #: Whether a message has arrived since `PortHandler.read_complete`.
        self.dirty = False
        #: Whether the pending records leave at the end of this tick.
        self.flush_scheduled = False
        self._on_peer_closing = on_peer_closing
        self._account: object = None
        #: Called when the peer is gone; ``None`` for nothing.
        self._on_lost: dict[Callable[[], object], None] | None = None
        #: Notifications since the last flush.
        self._notifications = 0
        #: Whether the last flush left so much behind that notifications have to be refused.
        self._congested = True
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        #: Whether a part of what the peer sent waits for its next turn.
        self.is_behind = False
        #: The messages that do, each with its size and whether there is room for its calls.
        self._unread: deque[tuple[Frames, int, Room]] = deque()
        #: That of the message that is being read.
        self._room = Room.SERVED
        #: What waits until all was served.
        self._served: list[asyncio.Future[None]] = []
        #: Called when all that a lost peer sent was served.
        self._leaving: Callable[[], object] | None = None

    @property
    def identity(self) -> str:
        """Text that names the connection in logs."""
        key = self.key
        return key.hex() if isinstance(key, bytes) else f"{id(key):x}"

    @property
    def account(self) -> object:
        """An object that stands for the connection, and may be kept for longer."""
        if self._account is None:
            self._account = object()
        return self._account

    # -- calls of this side ----------------------------------------------------------------

    def call(
        self,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
        resend: Callable[[Any, PendingCall], bool] | None = None,
    ) -> Call:
        """Send a call. What cannot be sent fails, as what the peer refuses does.

        Args:
            options: how it is made.
            resend: called with the encoded call and the call when the peer refuses it as it is
                closing; returns whether it was sent elsewhere.
        """
        now = monotonic()
        call = self.new_call(loop=self.loop)
        call.connection = self
        call.method = method
        call.made_at = now
        timeout = options.timeout
        if timeout is not None:
            call.timeout = timeout
            call.deadline = now + timeout
        session = self.session
        metadata = options.metadata
        try:
            if metadata is None:
                session.call(call, method, args, kwargs, now)
            else:
                session.call_with(call, method, args, kwargs, now, metadata)
        except Exception as error:
            call.fail_at_once(error)
            return call
        if resend is not None:
            # As it was packed now: what the arguments hold later is not what was asked.
            call.resend = partial(resend, session.packed(call))
        if not self.flush_scheduled:
            if session.in_window == 1:
                # It is alone: do not wait for others to share the cost of a message.
                self.flush()
            else:
                self.flush_scheduled = True
                self.loop.call_soon(self.flush)
        if timeout is not None or self.port is None:
            self.set_timer()
        return call

    def notify(
        self,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Send a notification.

        Args:
            metadata: as `CallOptions` has it checked.

        Raises:
            OverloadedError: the peer does not read fast enough; this one was not sent.
            TypeError, ValueError, ServiceClosedError: as `Session.notify` does.
        """
        session = self.session
        if self._congested and self.is_congested():
            error = OverloadedError(
                f"max_queued_bytes={session.limits.max_queued_bytes:,} bytes wait to be sent to "
                "the peer: send less, or await a call now and then, which waits for its turn"
            )
            session.note_unsent(error, method)
            raise error
        try:
            if metadata is None:
                session.notify(method, args, kwargs, 0.0 if session.window else monotonic())
            else:
                session.notify_with(method, args, kwargs, monotonic(), metadata)
        except Exception as error:
            # Where it was raised inside says nothing to the caller.
            raise error.with_traceback(None) from error.__cause__
        if not self.flush_scheduled:
            self._notifications = 1
            if self.port is None:
                self.set_timer()
            self.schedule_flush()
        else:
            self._notifications += 1
        if (
            self._notifications >= MAX_NOTIFICATIONS
            or session.large_bytes > session.limits.max_queued_bytes
        ):
            self._notifications = 0
            self.flush()

    def adopt(self, unsent: Iterable[Unsent]) -> None:
        """Take over calls that another connection of the same client had not sent."""
        unsent = list(unsent)
        for entry in unsent:
            if isinstance(entry.caller, Call | Stream):
                entry.caller.connection = self
        self.session.adopt(unsent, monotonic())
        self.set_timer()
        self.schedule_flush()

    def cancel(self, call_id: int) -> None:
        """Give up a call of this side."""
        self.session.cancel(call_id)
        self.schedule_flush()

    def credit(self, call_id: int, items: int) -> None:
        """Ask for more items of a stream."""
        self.session.credit(call_id, items)
        self.schedule_flush()

    def take_place(self, stream: Stream) -> None:
        """Report to a stream, from now on, what becomes of the call with its id."""
        self.session.pending[stream.id] = stream

    # -- sending ---------------------------------------------------------------------------

    def is_congested(self) -> bool:
        """Whether the peer reads too slowly: a bound on bytes queued for it is reached.

        Where the bound of all peers is, that are all for which anything is queued.
        """
        port, limits = self.port, self.session.limits
        if port is None:
            return len(self.session.backlog) >= limits.max_waiting
        queued = port.queued_bytes(self.key)
        return queued > 0 and (
            queued > limits.max_queued_bytes
            or port.all_queued_bytes() > limits.max_all_queued_bytes
        )

    def queued_bytes(self) -> int:
        """Bytes that wait for the peer to read them."""
        return 0 if self.port is None else self.port.queued_bytes(self.key)

    def schedule_flush(self) -> None:
        """Send the pending records at the end of this tick of the event loop."""
        if not self.flush_scheduled:
            self.flush_scheduled = True
            self.loop.call_soon(self.flush)

    def flush_soon(self) -> None:
        """Send what the messages just read led to.

        Now, unless handlers were started: the first step of each may give its result.
        """
        if self.inbound.started:
            self.schedule_flush()
        else:
            self.flush()

    def flush(self) -> None:
        """Send the pending records now."""
        self.flush_scheduled = False
        session = self.session
        if self.inbound.started:
            self.inbound.report_accepted()
        port = self.port
        if port is None or not session.pending_records:
            return
        for frames in session.messages(monotonic()):
            if not port.send(self.key, frames):
                return
        self._congested = self.is_congested()

    # -- receiving -------------------------------------------------------------------------

    def receive(self, frames: Frames, now: float, end: float) -> None:
        """Take one message, and serve it until `end`; the rest waits. Never raises."""
        inbound = self.inbound
        session = self.session
        try:
            events = session.receive(frames, now)
        except ProtocolError as error:
            inbound.report_malformed(error)
            self.schedule_flush()
            return
        except Exception:
            # A fault of this package. It must cost this message alone, not the reading of others.
            logger.exception("a message from peer %s could not be read", self.identity)
            return
        if events:
            inbound.message_bytes = sum(map(len, frames)) if len(frames) > 1 else len(frames[0])
            if session.unread:
                inbound.message_bytes = inbound.message_bytes * SHARE // (SHARE + session.unread)
            if self.is_behind:
                self._serve(events, end)
            else:
                # Not `now`: the first handler is not to be named for the time that decoding took.
                inbound.dispatch(events, monotonic(), end)
        if (session.unread or inbound.needs_turn) and not self.is_behind:
            self.is_behind = True
            if inbound.needs_turn or self._go_on(end):
                inbound.wait_for_turn()

    # -- what waits for the peer's next turn -----------------------------------------------

    def postpone(self, frames: Frames, now: float) -> bool:
        """Keep a message until the peer's next turn.

        Returns:
            Whether there was room for it. If not, the peer sends faster than it is served.
        """
        size = MESSAGE + sum(map(len, frames))
        self.session.last_heard = now
        room = self.inbound.call_bytes.reserve(size)
        if room is Room.NONE:
            return False
        self._unread.append((frames, size, room))
        self.fall_behind()
        return True

    def take_turn(self, end: float) -> bool:
        """Serve what waits until `end`, and return whether some is left."""
        if not self.is_behind:
            # It was lost meanwhile.
            return False
        if self.inbound.started:
            # Their first steps are done.
            self.flush()
        is_left = self._go_on(end)
        self.flush_soon()
        return is_left

    def _go_on(self, end: float) -> bool:
        inbound = self.inbound
        session = self.session
        if inbound.needs_turn:
            inbound.resume(end)
        while not inbound.needs_turn and (now := monotonic()) < end:
            if session.unread:
                self._serve(session.receive_rest(now), end)
            elif self._unread:
                frames, size, self._room = self._unread.popleft()
                inbound.call_bytes.release(size)
                self.receive(frames, now, end)
            else:
                self._caught_up()
                return False
        return True

    def _serve(self, events: Sequence[InboundEvent], end: float) -> None:
        """Serve what waited, as far as that is still wanted."""
        if self._leaving is not None:
            events = [event for event in events if event[0] == NOTIFY]
        if self._room is Room.REFUSED:
            events = self.inbound.refuse(events)
        if events:
            self.inbound.dispatch(events, monotonic(), end)

    def fall_behind(self) -> None:
        """Have what waits served in the peer's next turn."""
        if not self.is_behind:
            self.is_behind = True
            self.inbound.wait_for_turn()

    def _caught_up(self) -> None:
        self.is_behind = False
        self._room = Room.SERVED
        for waiter in self._served:
            if not waiter.done():
                waiter.set_result(None)
        self._served.clear()
        if self._leaving is not None:
            leaving, self._leaving = self._leaving, None
            leaving()

    def end_turns(self) -> None:
        """Drop what waits, as this side has closed."""
        self._unread.clear()
        self._caught_up()

    async def served(self) -> None:
        """Wait until all that the peer has sent was served, or it is lost."""
        if self.is_behind:
            waiter = self.loop.create_future()
            self._served.append(waiter)
            await waiter

    def leave(self, error: Error, left: Callable[[], object]) -> None:
        """The peer is gone: serve the notifications and answers that it sent before, then `lost`.

        Args:
            error: what calls of this side fail with.
            left: called at the end of it.
        """

        def end() -> None:
            self.lost(error)
            left()

        if self.is_behind:
            self._leaving = end
            self.inbound.leaving()
        else:
            end()

    def lost(self, error: Error) -> None:
        """The peer is gone: stop its calls, and fail those to it."""
        if self.is_behind:
            self._unread.clear()
            self._leaving = None
            self._caught_up()
        if self._timer is not None:
            self._timer.cancel()
        self.session.lost(error, monotonic())
        if self.session.notifications_lost:
            count = self.session.notifications_lost
            logger.warning(
                "%s: %d notifications were not delivered: %s", self.session.endpoint, count, error
            )
        self.inbound.lost()
        callbacks, self._on_lost = self._on_lost, None
        for callback in callbacks or ():
            try:
                callback()
            except Exception:
                # Whatever it does, the others have to know.
                logger.exception("an on_lost callback failed")

    def on_lost(self, callback: Callable[[], object]) -> None:
        """Have a function called once the peer is gone."""
        if self._on_lost is None:
            self._on_lost = {}
        self._on_lost[callback] = None

    def forget_on_lost(self, callback: Callable[[], object]) -> None:
        """Undo `on_lost`; nothing happens if it is not there."""
        if self._on_lost is not None:
            self._on_lost.pop(callback, None)

    def peer_closing(self) -> None:
        """The peer takes no more calls: what was not sent goes elsewhere, or fails."""
        if self._on_peer_closing is not None:
            self._on_peer_closing(self)
        self.session.refuse_backlog(ServiceClosedError("the peer is closing"), monotonic())

    def give_up(self, error: Error) -> None:
        """Fail the calls of this side, and have them stopped at the peer."""
        self.session.give_up(error, monotonic())
        self.schedule_flush()

    # -- time ------------------------------------------------------------------------------

    def set_timer(self) -> None:
        """Have `_expire` run when the next call's time is over."""
        when = self.session.next_deadline()
        if when is None:
            return
        if when < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = when
            self._timer = self.loop.call_later(max(0.0, when - monotonic()), self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._timer_at = float("inf")
        before = self.session.notifications_lost
        self.session.expire(monotonic())
        if self.session.notifications_lost > before:
            count = self.session.notifications_lost - before
            logger.warning(
                "%d notifications dropped: no connection to %s", count, self.session.endpoint
            )
        self.schedule_flush()
        self.set_timer()
