"""One connection: a session of calls in both directions, tied to a port and an event loop."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterable
from threading import get_ident
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import (
    Error,
    OverloadedError,
    ProtocolError,
    RPCTimeoutError,
    ServiceClosedError,
)
from .call import Call
from .context import Peer
from .inbound_call import InboundCall
from .method import Method
from .stream import Stream
from .transport.port import Key, Port
from .wire.record import InboundEvent
from .wire.session import Frames, Session, Unsent

if TYPE_CHECKING:
    from .dispatcher import Dispatcher

__all__ = ["Connection", "ConnectionOwner"]

logger = logging.getLogger("berrymq_rpc.rpc")

#: Records that a tick may gather before they are handed to the transport, so that a loop which
#: sends without ever awaiting meets the bound on queued bytes.
MAX_GATHERED = 1000


class ConnectionOwner(Protocol):
    """A client's or server's part that a connection belongs to."""

    def peer_closing(self, connection: "Connection") -> None:
        """The peer takes no more calls on it."""

    def resend(self, caller: "Call | Stream") -> bool:
        """Send what a closing peer refused to another one; whether there is one."""


class Connection:
    """Calls with one peer.

    Args:
        session: the call state; its dialect decides what is possible.
        port: where its messages go.
        key: the peer's name at the port.
        dispatcher: serves the peer's calls.
        owner: is told when the peer says goodbye.
    """

    __slots__ = (
        "_congested",
        "_gathered",
        "_peer",
        "_started",
        "_timer",
        "_timer_at",
        "dirty",
        "dispatcher",
        "flush_scheduled",
        "in_flight",
        "is_admitting",
        "key",
        "loop",
        "message_bytes",
        "owner",
        "port",
        "queue",
        "queue_bytes",
        "running",
        "session",
        "slow_handler",
        "stalled",
        "thread",
        "unacknowledged",
        "waiting",
    )

    def __init__(
        self,
        session: Session,
        port: Port | None,
        key: Key,
        dispatcher: "Dispatcher",
        loop: asyncio.AbstractEventLoop,
        owner: ConnectionOwner,
    ) -> None:
        self.owner = owner
        #: Whether a message arrived in the burst that is being read.
        self.dirty = False
        self.session = session
        self.port = port
        self.key = key
        self.dispatcher = dispatcher
        self.loop = loop
        #: The thread of the event loop, which alone may use it.
        self.thread = get_ident()
        self.slow_handler = dispatcher.slow_handler
        #: Calls of the peer's that run, by id; notifications by their `InboundCall`.
        self.running: dict[Any, InboundCall] = {}
        #: Those among them that hold a slot of the window, and those that do not.
        self.in_flight = 0
        self.waiting = 0
        #: Calls that wait for a slot, of a peer that knows no window or has not heard of it yet,
        #: by id; and notifications, by an object of their own.
        self.queue: OrderedDict[Any, tuple[InboundEvent, Method, int]] = OrderedDict()
        #: What the peer asked while its answers waited for it to read them, by id as in `queue`;
        #: it is served when it has.
        self.stalled: OrderedDict[Any, tuple[InboundEvent, int]] | None = None
        #: What both take together.
        self.queue_bytes = 0
        #: Whether calls in the queue are being started.
        self.is_admitting = False
        #: Bytes of the message that is being dispatched.
        self.message_bytes = 0
        #: Answers whose acknowledgement is awaited.
        self.unacknowledged: dict[Any, InboundCall] = {}
        self._started: list[Any] = []
        self._peer: Peer | None = None
        #: Whether what is gathered leaves at the end of this tick.
        self.flush_scheduled = False
        #: Notifications since the last flush.
        self._gathered = 0
        #: Whether the last flush left so much behind that notifications have to be refused.
        self._congested = True
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")

    @property
    def identity(self) -> str:
        """Text that names the connection in logs."""
        key = self.key
        return key.hex() if isinstance(key, bytes) else f"{id(key):x}"

    @property
    def peer(self) -> Peer:
        """The other side, for handlers."""
        if self._peer is None:
            self._peer = Peer(self)
        return self._peer

    # -- calls of this side ----------------------------------------------------------------

    def call(
        self,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        timeout: float | None,
        *,
        keep: bool = False,
    ) -> Call:
        """Send a call. What cannot be sent raises here and now.

        Args:
            keep: keep what is sent, so that it can be sent to another peer.
        """
        now = monotonic()
        call = Call(loop=self.loop)
        call.connection = self
        call.method = method
        call.made_at = now
        if timeout is not None:
            call.timeout = timeout
            call.deadline = now + timeout
        session = self.session
        session.call(call, method, args, kwargs, now)
        if keep:
            # As it was packed now: what the arguments hold later is not what was asked.
            call.encoded = session.packed(call)
        if not self.flush_scheduled:
            if session.in_window == 1:
                # Alone under way: it does not wait for others to share the cost of its message.
                self.flush()
            else:
                self.flush_scheduled = True
                self.loop.call_soon(self.flush)
        if timeout is not None or self.port is None:
            self.set_timer()
        return call

    def notify(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Send a notification.

        Raises:
            OverloadedError: the peer does not read fast enough; this one was not sent.
        """
        session = self.session
        if self._congested and self.is_congested():
            error = OverloadedError(
                f"{session.limits.max_queued_bytes:,} bytes wait for the peer to read them"
            )
            session.note_unsent(error, method)
            raise error
        session.notify(method, args, kwargs, 0.0 if session.window else monotonic())
        if not self.flush_scheduled:
            self._gathered = 1
            if self.port is None:
                self.set_timer()
            self.schedule_flush()
        else:
            self._gathered += 1
        if self._gathered >= MAX_GATHERED or session.large_bytes > session.limits.max_queued_bytes:
            self._gathered = 0
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

    # -- answers to the peer ---------------------------------------------------------------

    def started(self, running: InboundCall) -> None:
        """A call runs on: it is told to be accepted unless it ends at once."""
        key = running if running.id is None else running.id
        self.running[key] = running
        if running.id is not None:
            self._started.append(running.id)

    def finished(self, running: InboundCall, value: Any) -> None:
        """A call ended with a result."""
        if self._ended(running):
            if running.cancelled:
                self.answer_error(running, self._reason(running, asyncio.CancelledError()))
            else:
                self.answer(running, value)
            self.schedule_flush()

    def failed(self, running: InboundCall, error: BaseException) -> None:
        """A call ended with an exception."""
        self.dispatcher.log_error(running.method.name, error, answered=running.id is not None)
        if self._ended(running):
            if isinstance(error, asyncio.CancelledError):
                error = self._reason(running, error)
            self.answer_error(running, error)
            self.schedule_flush()
            if isinstance(error, KeyboardInterrupt):
                # The event loop is about to end.
                self.flush()

    def _reason(self, running: InboundCall, error: BaseException) -> BaseException:
        """What to tell the caller of a call that was cancelled."""
        if running.expired:
            return RPCTimeoutError("the caller's deadline passed while the method ran")
        if self.dispatcher.closing is not None:
            return ServiceClosedError(self.dispatcher.closing)
        return error

    def answer(self, running: InboundCall, value: Any) -> None:
        """Send a result; one that cannot be sent is answered with the error that says so."""
        session = self.session
        if running.id is None:
            self.dispatcher.call_back(running.on_delivery, False)
            return
        try:
            if running.is_stream:
                session.end(running.id)
                return
            wants = running.on_delivery is not None and session.acknowledges
            session.result(running.id, value, acknowledge=wants)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            # A value may run code of its own while it is packed, and that may raise anything.
            self.answer_error(running, error)
            return
        if running.on_delivery is not None:
            if wants:
                self.unacknowledged[running.id] = running
            else:
                self.dispatcher.call_back(running.on_delivery, True)

    def answer_error(self, running: InboundCall, error: BaseException) -> None:
        """Send an exception as the answer."""
        closing = self.dispatcher.closing
        if running.id is None:
            pass
        elif closing is not None and isinstance(error, ServiceClosedError):
            self.session.closed(running.id, closing, began=True)
        else:
            self.session.error(running.id, self.dispatcher.describe(error))
        self.dispatcher.call_back(running.on_delivery, False)

    def send_item(self, running: InboundCall, item: Any) -> None:
        """Send an item of a stream. Raises as `Session.item` does."""
        self.session.item(running.id, item)
        self.schedule_flush()

    def _ended(self, running: InboundCall) -> bool:
        """Take a call out of the tables; whether it may still be answered."""
        if running.timer is not None:
            running.timer.cancel()
        # The task holds it too: without a cycle of the two, both are freed now.
        running.task = None
        self.dispatcher.ended(self, running)
        key = running if running.id is None else running.id
        return self.running.pop(key, None) is not None

    # -- sending ---------------------------------------------------------------------------

    def is_congested(self) -> bool:
        """Whether the peer does not read, and the bound on what is queued for it is reached."""
        if self.port is None:
            return len(self.session.backlog) >= self.session.limits.max_waiting
        return self.port.queued_bytes(self.key) > self.session.limits.max_queued_bytes

    def schedule_flush(self) -> None:
        """Send what is gathered at the end of this tick of the event loop."""
        if not self.flush_scheduled:
            self.flush_scheduled = True
            self.loop.call_soon(self.flush)

    def flush_soon(self) -> None:
        """Send what the messages just read led to.

        Now, unless handlers were started: the first step of each may give its result.
        """
        if self._started:
            self.schedule_flush()
        else:
            self.flush()

    def flush(self) -> None:
        """Send what is gathered now."""
        self.flush_scheduled = False
        session = self.session
        if self._started:
            self._tell_accepted()
        port = self.port
        if port is None or not session.pending_records:
            return
        for frames in session.messages(monotonic()):
            if not port.send(self.key, frames):
                return
        self._congested = self.is_congested()

    def _tell_accepted(self) -> None:
        running = [call_id for call_id in self._started if call_id in self.running]
        self._started.clear()
        if running:
            released = [call_id for call_id in running if not self.running[call_id].holds_slot]
            self.session.accepted(running, released)

    # -- receiving -------------------------------------------------------------------------

    def receive(self, frames: Frames) -> None:
        """Take one message. Never raises."""
        now = monotonic()
        try:
            incoming = self.session.receive(frames, now)
        except ProtocolError as error:
            self.dispatcher.log_malformed(self.identity, error)
            self.schedule_flush()
            return
        except Exception:
            # A fault of this package. It must cost this message alone, not the reading of others.
            logger.exception("a message from peer %s could not be taken", self.identity)
            return
        if incoming:
            self.message_bytes = sum(map(len, frames)) if len(frames) > 1 else len(frames[0])
            # Not `now`: the first handler is not to be named for the time that decoding took.
            self.dispatcher.dispatch(self, incoming, monotonic())

    def lost(self, error: Error) -> None:
        """The peer is gone: its calls are stopped, those to it fail."""
        if self._timer is not None:
            self._timer.cancel()
        self.session.lost(error, monotonic())
        if self.session.notifications_lost:
            count = self.session.notifications_lost
            logger.warning(
                "%s: %d notifications were not delivered: %s", self.session.endpoint, count, error
            )
        self.stop()
        unacknowledged = list(self.unacknowledged.values())
        self.unacknowledged.clear()
        for running in unacknowledged:
            self.dispatcher.call_back(running.on_delivery, False)

    def peer_closing(self) -> None:
        """The peer takes no more calls: what was not sent goes elsewhere, or fails."""
        self.owner.peer_closing(self)
        self.session.refuse_backlog(ServiceClosedError("the peer is closing"), monotonic())

    def give_up(self, error: Error) -> None:
        """Fail the calls of this side, and have them stopped at the peer."""
        self.session.give_up(error, monotonic())
        self.schedule_flush()

    def stop_waiting(self) -> None:
        """End what waits for something that need not come, as this side closes."""
        self.dispatcher.refuse_queue(self)
        for running in list(self.running.values()):
            if running.method.waits:
                running.cancel()

    def forget_queue(self) -> None:
        """Drop the calls of the peer that wait for their turn."""
        self.queue.clear()
        self.stalled = None
        self.queue_bytes = 0

    def stop(self) -> None:
        """Cancel what runs for the peer."""
        self.forget_queue()
        for running in list(self.running.values()):
            running.cancel()

    # -- time ------------------------------------------------------------------------------

    def set_timer(self) -> None:
        """See that `_expire` runs when the next call's time is over."""
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
