"""Serves peers' calls: finds the method, checks the arguments, runs it, answers."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..common.tally import Tally
from ..errors import (
    Error,
    OverloadedError,
    ProtocolError,
    RPCTimeoutError,
    ServiceClosedError,
)
from .context import current
from .describe import describe as describe_methods
from .inbound_call import InboundCall, warn_slow
from .method import Kind, Method
from .method_table import HandlerTable
from .wire.codec import Codec
from .wire.exception_codec import Failure, describe
from .wire.limits import Limits
from .wire.native_session import FIRST_WINDOW
from .wire.record import ACKNOWLEDGE, CALL, CANCEL, CREDIT, GOODBYE, NOTIFY, InboundEvent

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["DESCRIBE", "SLOW_HANDLER", "Dispatcher"]

logger = logging.getLogger("berrymq_rpc.rpc")

#: The method that every peer offers beside its handler's.
DESCRIBE = "rpc.describe"

#: Seconds that a handler may hold the event loop before it is named: as in asyncio's debug mode.
SLOW_HANDLER = 0.1

#: Answers that leave before the rest of a message is served, so that the peer works on them
#: meanwhile. With 100 calls in flight, 50 gave 179,000 calls/s, 34 170,000, 25 157,000, and all
#: at the end 142,000 (benchmarks/rpc.py, two cores).
PIPELINED = 50

#: Bytes of long answers that leave before the rest of a message is served: what a peer that does
#: not read may have in excess of the bound.
PIPELINED_BYTES = 256 << 10

#: Bytes that a call that waits for its turn takes beside those that it arrived with.
QUEUED_CALL = 500

#: Seconds after which a peer whose answers waited is looked at again.
CONGESTION_PAUSE = 0.002

#: Stands for a method that is not called at once: no number of arguments fits.
_NOT_SIMPLE: tuple[Any, Any, int, float] = (None, None, 1, 0)

#: Seconds between two lines about malformed messages; what came between is counted.
MALFORMED_LOG_INTERVAL = 10.0


class Dispatcher:
    """The serving half of a client or server, shared by its connections.

    Args:
        table: what is exported.
        limits: the bounds.
        codec: tells which arguments of an exception can travel.
        slow_handler: seconds that a handler may hold the event loop before a warning names it.
        log_exceptions: log what handlers raise.
        exclude_log_exceptions: exception classes not to log.
        send_traceback: send the text of the traceback with an exception.
        threads: workers for ``thread=True`` methods; ``None`` for the executor's default.
    """

    def __init__(
        self,
        table: HandlerTable,
        limits: Limits,
        codec: Codec,
        *,
        slow_handler: float = SLOW_HANDLER,
        log_exceptions: bool = False,
        exclude_log_exceptions: Sequence[type[BaseException]] = (),
        send_traceback: bool = False,
        threads: int | None = None,
    ) -> None:
        self.table = table
        self.limits = limits
        self.slow_handler = slow_handler
        self.log_exceptions = log_exceptions
        self.exclude_log_exceptions = tuple(exclude_log_exceptions)
        self.send_traceback = send_traceback
        #: Why calls are refused, once this side is closing.
        self.closing: str | None = None
        #: Calls in flight of all peers that hold a slot.
        self.in_flight = 0
        #: What is counted for `statistics`.
        self.notifications_dropped = Tally()
        self.malformed = 0
        self._threads = threads
        self._executor: ThreadPoolExecutor | None = None
        self._codec = codec
        self._malformed_logged = float("-inf")
        self._methods = dict(table.methods)
        # A table that forwards calls has its own.
        self._methods.setdefault(DESCRIBE, Method.of(DESCRIBE, self._describe))
        #: Those that end when they return: the method, its function, and the least and greatest
        #: number of positional arguments.
        self._simple: dict[str, tuple[Method, Callable[..., Any], int, float]] = {
            name: (method, method.function, method.signature.minimum, method.signature.maximum)
            for name, method in self._methods.items()
            if method.kind is Kind.SYNC
        }

    def _describe(self) -> dict[str, Any]:
        return describe_methods(self.table)

    # -- calls ---------------------------------------------------------------------------

    def dispatch(
        self, connection: "Connection", incoming: Sequence[InboundEvent], now: float
    ) -> None:
        """Serve what one message asked for.

        What a peer asks that does not read its answers waits until it has, up to a bound.

        Raises:
            KeyboardInterrupt: a handler raised it; it was answered.
        """
        find_simple = self._simple.get
        slow_handler = self.slow_handler
        session = connection.session
        answered = 0
        is_barred = self._is_barred(connection)
        frame = _SyncCalls(connection)
        token = current.set(frame)
        try:
            for event in incoming:
                kind, call_id, name, args, kwargs, _ = event
                if kind != NOTIFY and kind != CALL:
                    self._control(connection, kind, call_id, args)
                    continue
                if is_barred:
                    self._bar(connection, event, len(incoming))
                    continue
                # The common case in as few steps as there can be; all others by the long way.
                method, function, least, most = find_simple(name, _NOT_SIMPLE)
                if kwargs or not least <= len(args) <= most:
                    found = self._find(connection, event, len(incoming))
                    if found is None:
                        continue
                    method, function = found, found.function
                frame.event = event
                frame.method = method
                frame.running = None
                try:
                    value = function(*args, **kwargs) if kwargs else function(*args)
                    if frame.running is not None:
                        connection.answer(frame.running, value)
                    elif call_id is not None:
                        session.result(call_id, value)
                except BaseException as error:
                    self.log_error(name, error, answered=call_id is not None)
                    if frame.running is not None:
                        connection.answer_error(frame.running, error)
                    elif call_id is not None:
                        session.error(call_id, self.describe(error))
                    if isinstance(error, KeyboardInterrupt):
                        connection.flush()
                        raise
                ended = monotonic()
                if ended - now > slow_handler:
                    warn_slow(method, ended - now)
                now = ended
                if call_id is None:
                    continue
                answered += 1
                if answered >= PIPELINED:
                    answered = 0
                    connection.flush()
                    now = monotonic()
                if session.large_bytes > PIPELINED_BYTES:
                    connection.flush()
                    is_barred = self._is_barred(connection)
        finally:
            current.reset(token)
            frame.end()

    def _find(self, connection: "Connection", event: InboundEvent, count: int) -> Method | None:
        """The method to call at once; one that does not end at once is started here."""
        _, call_id, name, args, kwargs, _ = event
        try:
            method = self._methods.get(name) or self.table.find(name)
            signature = method.signature
            if kwargs or not signature.minimum <= len(args) <= signature.maximum:
                signature.check(args, kwargs)
        except Error as error:
            self._refuse(connection, call_id, name, error)
            return None
        if method.kind is Kind.SYNC:
            return method
        self._admit(connection, event, method, QUEUED_CALL + connection.message_bytes // count)
        return None

    def _is_barred(self, connection: "Connection") -> bool:
        """Whether nothing of this peer is served now: this side is closing, or it does not read."""
        return (
            self.closing is not None or connection.stalled is not None or connection.is_congested()
        )

    def _bar(self, connection: "Connection", event: InboundEvent, count: int) -> None:
        """Refuse what was asked as this side is closing; otherwise hold it, up to a bound."""
        _, call_id, name, *_ = event
        if self.closing is not None:
            self._refuse(connection, call_id, name, ServiceClosedError(self.closing))
            return
        if connection.stalled is None:
            connection.stalled = OrderedDict()
            connection.loop.call_later(CONGESTION_PAUSE, self._go_on, connection)
        cost = QUEUED_CALL + connection.message_bytes // count
        if call_id in connection.stalled or call_id in connection.running:
            self._refuse(connection, call_id, name, ProtocolError(f"the id {call_id} is in use"))
        elif connection.queue_bytes + cost > self.limits.max_queued_call_bytes:
            error = OverloadedError(
                f"max_queued_call_bytes={self.limits.max_queued_call_bytes:,} bytes of calls wait "
                "for this peer to read its answers, over "
                f"max_queued_bytes={self.limits.max_queued_bytes:,} of them"
            )
            self._refuse(connection, call_id, name, error)
        else:
            connection.stalled[object() if call_id is None else call_id] = (event, cost)
            connection.queue_bytes += cost

    def _go_on(self, connection: "Connection") -> None:
        """Serve what was held of a peer, as far as it has read its answers."""
        held = connection.stalled
        if held is None:
            return
        # Out of the way of `dispatch`; what comes meanwhile comes after this turn.
        connection.stalled = None
        try:
            while held and not connection.is_congested():
                _, (event, cost) = held.popitem(last=False)
                connection.queue_bytes -= cost
                now = monotonic()
                if not self._is_late(connection, event, now):
                    connection.message_bytes = cost - QUEUED_CALL
                    self.dispatch(connection, (event,), now)
            connection.flush()
        finally:
            if held:
                connection.stalled = held
                connection.loop.call_later(CONGESTION_PAUSE, self._go_on, connection)

    def _is_late(self, connection: "Connection", event: InboundEvent, now: float) -> bool:
        """Whether a call that waited is not to be run any more; if so, it is answered."""
        _, call_id, name, _, _, deadline = event
        if deadline is None or deadline > now:
            return False
        error = RPCTimeoutError("the caller's deadline passed before the call's turn came")
        self._refuse(connection, call_id, name, error)
        return True

    def _refuse(
        self, connection: "Connection", call_id: Any, name: str, error: BaseException
    ) -> None:
        if call_id is None:
            self.drop_notification(name, error)
        elif self.closing is not None and isinstance(error, ServiceClosedError):
            connection.session.closed(call_id, self.closing, began=False)
        else:
            connection.session.error(call_id, self.describe(error))

    def drop_notification(self, name: str, reason: object) -> None:
        """Count a notification that is not served, and say so."""
        if self.notifications_dropped.add():
            logger.warning(
                "notification %.100r dropped (%d so far): %s",
                name,
                self.notifications_dropped.count,
                reason,
            )

    def _admit(
        self, connection: "Connection", event: InboundEvent, method: Method, cost: int
    ) -> None:
        """Start what does not end at once, queue it, or refuse it."""
        _, call_id, name, _, _, _ = event
        if call_id is None and method.kind is Kind.STREAM:
            self.drop_notification(name, "a stream needs a reader")
        elif call_id is not None and (call_id in connection.running or call_id in connection.queue):
            self._refuse(connection, call_id, name, ProtocolError(f"the id {call_id} is in use"))
        elif method.waits or method.kind is Kind.STREAM:
            if connection.waiting >= self.limits.max_waiting:
                error = OverloadedError(f"max_waiting={self.limits.max_waiting:,} is reached")
                self._refuse(connection, call_id, name, error)
            else:
                self._start(connection, event, method)
        elif connection.in_flight < self.limits.window and not connection.queue:
            if self.in_flight >= self.limits.max_in_flight:
                error = OverloadedError(f"max_in_flight={self.limits.max_in_flight:,} is reached")
                self._refuse(connection, call_id, name, error)
            else:
                self._start(connection, event, method)
        elif (
            call_id is not None
            and connection.session.keeps_window
            and len(connection.queue) >= FIRST_WINDOW
        ):
            error = OverloadedError(f"window={self.limits.window:,} calls are in flight")
            self._refuse(connection, call_id, name, error)
        elif connection.queue_bytes + cost > self.limits.max_queued_call_bytes:
            error = OverloadedError(
                f"max_queued_call_bytes={self.limits.max_queued_call_bytes:,} bytes wait for "
                "their turn"
            )
            self._refuse(connection, call_id, name, error)
        else:
            connection.queue[object() if call_id is None else call_id] = (event, method, cost)
            connection.queue_bytes += cost

    def _start(self, connection: "Connection", event: InboundEvent, method: Method) -> None:
        _, call_id, _, args, kwargs, deadline = event
        running = InboundCall(connection, call_id, method, args, kwargs, deadline)
        connection.started(running)
        if running.holds_slot:
            connection.in_flight += 1
            self.in_flight += 1
        else:
            connection.waiting += 1
        try:
            running.start(connection.loop, self._executor_for(method))
        except Exception as error:
            # A decorated coroutine function may raise when it is called, and not when awaited.
            connection.failed(running, error)

    def ended(self, connection: "Connection", running: InboundCall) -> None:
        """Give back the slot of a call that ended, to the next that waits for one."""
        if running.holds_slot:
            connection.in_flight -= 1
            self.in_flight -= 1
        else:
            connection.waiting -= 1
        if connection.queue and not connection.is_admitting:
            # A call that fails as it starts ends within this loop, which goes on.
            connection.is_admitting = True
            try:
                self._admit_queued(connection)
            finally:
                connection.is_admitting = False

    def _admit_queued(self, connection: "Connection") -> None:
        while (
            connection.queue
            and connection.in_flight < self.limits.window
            # A peer with nothing in flight would have nobody to start its next call later.
            and (self.in_flight < self.limits.max_in_flight or not connection.in_flight)
        ):
            _, (event, method, cost) = connection.queue.popitem(last=False)
            connection.queue_bytes -= cost
            if not self._is_late(connection, event, monotonic()):
                self._start(connection, event, method)

    def _take_back(self, connection: "Connection", call_id: Any) -> bool:
        """Drop a call that waits for its turn; whether there was one."""
        if call_id in connection.queue:
            event, _, cost = connection.queue.pop(call_id)
        elif connection.stalled is not None and call_id in connection.stalled:
            event, cost = connection.stalled.pop(call_id)
        else:
            return False
        connection.queue_bytes -= cost
        self._refuse(connection, call_id, event[2], asyncio.CancelledError())
        return True

    def refuse_queue(self, connection: "Connection") -> None:
        """Refuse the calls of a peer that wait for their turn."""
        events = [event for event, _, _ in connection.queue.values()]
        events += [event for event, _ in (connection.stalled or {}).values()]
        connection.forget_queue()
        for _, call_id, name, *_ in events:
            self._refuse(connection, call_id, name, ServiceClosedError(self.closing))

    def _control(self, connection: "Connection", kind: int, call_id: Any, args: Any) -> None:
        if kind == CANCEL:
            running = connection.running.get(call_id)
            if running is not None:
                running.cancel()
            elif not self._take_back(connection, call_id):
                self._delivered(connection, call_id, False)
        elif kind == CREDIT:
            running = connection.running.get(call_id)
            if running is not None:
                running.add_credit(args[0])
        elif kind == ACKNOWLEDGE:
            self._delivered(connection, call_id, True)
        elif kind == GOODBYE:
            connection.peer_closing()

    def _delivered(self, connection: "Connection", call_id: Any, delivered: bool) -> None:
        running = connection.unacknowledged.pop(call_id, None)
        if running is not None:
            self.call_back(running.on_delivery, delivered)

    def call_back(self, callback: Callable[[bool], object] | None, delivered: bool) -> None:
        """Tell a handler whether its result arrived."""
        if callback is not None:
            try:
                callback(delivered)
            except KeyboardInterrupt:
                raise
            except BaseException:
                logger.exception("an on_delivery callback failed")

    # -- threads ---------------------------------------------------------------------------

    def _executor_for(self, method: Method) -> ThreadPoolExecutor | None:
        if method.kind is Kind.THREAD and self._executor is None:
            self._executor = ThreadPoolExecutor(self._threads, "berrymq_rpc")
        return self._executor

    def close(self) -> None:
        """Let the threads end; those that still run are not waited for."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)

    # -- errors ----------------------------------------------------------------------------

    def describe(self, error: BaseException) -> Failure:
        """An exception as it travels. Never raises."""
        return describe(error, self._codec, traceback=self.send_traceback)

    def log_error(self, name: str, error: BaseException, *, answered: bool) -> None:
        """Log what a handler raised, if the caller will not see it or the server wants it."""
        if isinstance(error, asyncio.CancelledError):
            return
        if answered and not self.log_exceptions:
            return
        if isinstance(error, self.exclude_log_exceptions):
            return
        logger.error("handler %s failed", name, exc_info=error)

    def log_malformed(self, peer: str, error: BaseException) -> None:
        """Count bytes that made no sense, and log some of them shortly."""
        self.malformed += 1
        now = monotonic()
        if now - self._malformed_logged >= MALFORMED_LOG_INTERVAL:
            self._malformed_logged = now
            logger.warning(
                "peer %s sent what is no message (%d so far): %.200s",
                peer,
                self.malformed,
                error,
            )


class _SyncCalls:
    """Stands for the call that is being served among those that end when they return.

    The dispatcher sets `event` and `method`, and `running` to ``None``, for each. Most handlers
    never ask for their context, so it is made when one does.
    """

    __slots__ = ("connection", "event", "method", "running")

    method: Method

    def __init__(self, connection: "Connection") -> None:
        self.connection = connection
        self.event: InboundEvent | None = None
        #: An `InboundCall` once a handler has asked for its context. Any, as a type checker takes
        #: what the dispatcher sets for what is there after the handler ran.
        self.running: Any = None

    def end(self) -> None:
        """Stand for no call any more, whatever task or callback a handler has left behind."""
        self.event = None
        self.running = None

    def snapshot(self) -> InboundCall:
        """The call of this moment.

        Raises:
            Error: they are over.
        """
        running: InboundCall | None = self.running
        if running is None:
            if self.event is None:
                raise Error(
                    "the call is over: ask for rpc.context() in the method itself, not in a task "
                    "or callback that it leaves behind"
                )
            _, call_id, _, args, kwargs, deadline = self.event
            running = InboundCall(self.connection, call_id, self.method, args, kwargs, deadline)
            self.running = running
        return running
