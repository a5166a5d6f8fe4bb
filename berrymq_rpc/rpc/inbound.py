"""The calls of one peer that this side serves: which run, which wait, and their answers."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import replace
from time import monotonic
from typing import Any, TypeAlias

from ..common.awaitable import PLAIN, is_awaitable
from ..common.measures import CANCELLED, ERROR, EXPIRED, OK
from ..errors import (
    Error,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    RPCTimeoutError,
    ServiceClosedError,
)
from ..runtime.log import Log
from .call_bytes import MESSAGE, CallBytes
from .connection import Connection
from .context import Context as CallContext
from .dispatcher import Dispatcher, call_back, outcome_of_refusal
from .inbound_call import InboundCall, Returned, SyncCalls, current, warn_slow
from .method import Kind, Method
from .peer import Peer
from .turns import MAX_STARTED, MIN_STARTED, TURN
from .wire.native_session import FIRST_WINDOW
from .wire.record import ACKNOWLEDGE, CALL, CANCEL, CREDIT, GOODBYE, NOTIFY, InboundEvent

__all__ = ["Inbound"]

logger = Log("berrymq_rpc.rpc")

#: Answers that leave before the rest of a message is served, so that the peer works on them
#: meanwhile. With 100 calls in flight, 50 gave 179,000 calls/s, 34 170,000, 25 157,000, and all
#: at the end 142,000 (benchmarks/rpc.py, two cores).
PIPELINED = 50

#: Bytes of long answers that leave before the rest of a message is served: what a peer that does
#: not read may have in excess of the bound.
PIPELINED_BYTES = 256 << 10

#: Seconds after which a stalled peer is looked at again.
CONGESTION_PAUSE = 0.002

#: Stands for a method that is not called at once: no number of arguments fits.
_NOT_SIMPLE: tuple[Any, Any, int, float] = (None, None, 1, 0)


#: The context and the call of a plain function that has returned what has to be awaited.
Begun: TypeAlias = tuple[Context, InboundCall]


class Inbound:
    """Serves the calls that come by one connection.

    A plain function is called at once, as its message is read (`dispatch`). What runs on is an
    `InboundCall`; it holds a slot of the peer's window, and where there is none it waits in the
    queue. A peer is stalled while its turn is over (`turns`) or it does not read its answers: what
    it asks waits as well.

    Args:
        connection: where the answers go; its `inbound` is set.
        dispatcher: what is shared with the other peers: the methods, the bounds, the counts.
    """

    __slots__ = (
        "_congested_timer",
        "_is_admitting",
        "_peer",
        "call_bytes",
        "connection",
        "dispatcher",
        "in_flight",
        "loop",
        "max_started",
        "message_bytes",
        "needs_turn",
        "queue",
        "running",
        "session",
        "slow_handler",
        "spent",
        "stalled",
        "started",
        "unacknowledged",
        "waiting",
    )

    def __init__(self, connection: Connection, dispatcher: Dispatcher) -> None:
        self.connection = connection
        self.session = connection.session
        self.session.report_dropped = dispatcher.drop_notification
        self.session.report_expired = dispatcher.call_expired
        self.loop = connection.loop
        self.dispatcher = dispatcher
        self.slow_handler = dispatcher.slow_handler
        #: Calls that run, by id; notifications by their `InboundCall`.
        self.running: dict[Any, InboundCall] = {}
        #: How many of them hold a slot of the window, and how many do not.
        self.in_flight = 0
        self.waiting = 0
        #: Calls that wait for a slot, of a peer that knows no window or has not heard of it yet,
        #: by id; and notifications, by an object of their own.
        self.queue: OrderedDict[Any, tuple[InboundEvent, Method, int, Begun | None]] = OrderedDict()
        #: What a peer has asked whose turn is over, or that does not read its answers, by id as in
        #: `queue`; ``None`` while there is nothing.
        self.stalled: OrderedDict[Any, tuple[InboundEvent, int]] | None = None
        #: Whether it is only the turn that `stalled` waits for.
        self.needs_turn = False
        self._congested_timer: asyncio.TimerHandle | None = None
        #: What both take together, and the messages that wait to be read.
        self.call_bytes = CallBytes(dispatcher)
        #: Bytes of the message that is being served.
        self.message_bytes = 0
        #: Ids of the calls that were started since the last flush, ``None`` for a notification.
        self.started: list[Any] = []
        #: How many may be started in a turn, by the seconds that their steps took in the last.
        self.max_started = MAX_STARTED
        self.spent = 0.0
        #: Calls whose result the peer has not acknowledged yet, where the handler wants to know.
        self.unacknowledged: dict[Any, InboundCall] = {}
        #: Whether calls in the queue are being started.
        self._is_admitting = False
        self._peer: Peer | None = None
        connection.inbound = self
        connection.new_call = dispatcher.new_call

    @property
    def peer(self) -> Peer:
        """Who calls."""
        if self._peer is None:
            self._peer = Peer(self.connection, tracing=self.dispatcher.peer_tracing)
        return self._peer

    @property
    def dialect(self) -> str:
        """What the peer speaks."""
        return self.session.dialect

    @property
    def stream_credit(self) -> int:
        """Items that a stream may send before the peer asks for more."""
        return self.session.stream_credit

    @property
    def in_progress(self) -> int:
        """How many calls run or wait for their turn."""
        waiting = len(self.queue) + len(self.stalled or ()) + self.connection.is_behind
        return len(self.running) + waiting

    # -- calls ---------------------------------------------------------------------------

    def dispatch(self, events: Sequence[InboundEvent], now: float, end: float) -> None:
        """Serve what one message asked for, until the peer's turn ends.

        The rest waits for the next turn; and what a peer asks that does not read its answers,
        until it has. Both are bounded.

        Args:
            now, end: the time, and when the turn ends, by the monotonic clock.

        Raises:
            KeyboardInterrupt: a handler raised it; it was answered.
        """
        dispatcher = self.dispatcher
        find_simple = dispatcher.simple.get
        slow_handler = self.slow_handler
        session = self.session
        answered = controls = 0
        is_blocked = self._is_blocked()
        frame = SyncCalls(self)
        meter = dispatcher.meter
        #: How the call has ended that is being served; ``None`` if it runs on.
        outcome: int | None = OK
        start_context = dispatcher.start_context
        context = start_context.new()
        context.run(current.set, frame)
        new_context = start_context.copier(context)
        try:
            for event in events:
                kind, call_id, name, args, kwargs, _, _ = event
                if kind != NOTIFY and kind != CALL:
                    controls += 1
                    self._control(kind, call_id, args)
                    continue
                if is_blocked:
                    self._stall(event, len(events))
                    continue
                # The common case in as few steps as there can be; all others by the long way.
                method, function, least, most = find_simple(name, _NOT_SIMPLE)
                if kwargs or not least <= len(args) <= most:
                    found = self._find(event, len(events))
                    if found is None:
                        now = monotonic()
                        if now > end or len(self.started) >= self.max_started:
                            is_blocked = True
                        continue
                    method, function = found, found.function
                frame.event = event
                frame.method = method
                frame.call = None
                own = new_context()
                run = own.run
                value = None
                try:
                    value = run(function, *args, **kwargs) if kwargs else run(function, *args)
                    if call_id is None or frame.call is not None:
                        if type(value) not in PLAIN and is_awaitable(value):
                            outcome = None
                            self._await(event, frame, value, own, len(events))
                            is_blocked = len(self.started) >= self.max_started
                        elif frame.call is not None and not self._answer(frame.call, value):
                            outcome = ERROR
                    else:
                        session.result(call_id, value)
                except BaseException as error:
                    if (
                        type(value) not in PLAIN
                        and isinstance(error, Exception)
                        and is_awaitable(value)
                    ):
                        # It could not be packed, as it has to be awaited first.
                        outcome = None
                        self._await(event, frame, value, own, len(events))
                        is_blocked = len(self.started) >= self.max_started
                    elif dispatcher.is_left:
                        raise
                    else:
                        outcome = ERROR
                        dispatcher.log_error(name, error, answered=call_id is not None)
                        if frame.call is not None:
                            self._answer_error(frame.call, error)
                        elif call_id is not None:
                            session.error(call_id, dispatcher.describe(error))
                        if isinstance(error, KeyboardInterrupt):
                            self.connection.flush()
                            raise
                ended = monotonic()
                if ended - now > slow_handler:
                    warn_slow(method, ended - now)
                if meter is not None:
                    if outcome is not None:
                        meter.served.ended(name, outcome, ended - now, name in dispatcher.methods)
                    outcome = OK
                now = ended
                if now > end:
                    is_blocked = True
                if call_id is None:
                    continue
                answered += 1
                if answered >= PIPELINED:
                    answered = 0
                    self.connection.flush()
                    now = monotonic()
                if session.large_bytes > PIPELINED_BYTES:
                    self.connection.flush()
                    is_blocked = is_blocked or self._is_blocked()
        finally:
            frame.end()
            dispatcher.calls += len(events) - controls

    def _find(self, event: InboundEvent, count: int) -> Method | None:
        """The method to call at once; one that does not end at once is started here."""
        _, call_id, name, args, kwargs, _, _ = event
        try:
            method = self.dispatcher.find(name)
            if method.allow is not None or self.dispatcher.authorize is not None:
                self._authorize(event, method)
            signature = method.signature
            if kwargs or not signature.minimum <= len(args) <= signature.maximum:
                signature.check(args, kwargs)
        except Error as error:
            self._refuse(call_id, name, error)
            return None
        if method.kind is Kind.SYNC:
            return method
        self._admit(event, method, MESSAGE + self.message_bytes // count)
        return None

    def _await(
        self, event: InboundEvent, frame: SyncCalls, value: Any, context: Context, count: int
    ) -> None:
        """Await what a plain function has returned: its call runs on."""
        _, call_id, _, _, _, deadline, metadata = event
        method = replace(frame.method, function=Returned(value), kind=Kind.COROUTINE)
        call: InboundCall | None = frame.call
        if call is None:
            call = InboundCall(self, call_id, method, (), {}, deadline, metadata)
        else:
            # Its handler has asked for it, and may have set `on_delivery`.
            call.method, call.arguments = method, ((), {})
        self._admit(event, method, MESSAGE + self.message_bytes // count, (context, call))

    def _authorize(self, event: InboundEvent, method: Method) -> None:
        """Raise `PermissionDeniedError` if this peer may not call the method."""
        user = self.peer.user
        allowed: object = method.allow is None or user in method.allow
        authorize = self.dispatcher.authorize
        if allowed and authorize is not None:
            _, call_id, _, args, kwargs, deadline, metadata = event
            call = InboundCall(self, call_id, method, args, kwargs, deadline, metadata)
            try:
                own = self.dispatcher.start_context.new()
                allowed = own.run(authorize, CallContext(call), method.name)
            except Exception:
                logger.exception("authorize=%r failed: the call is refused", authorize)
                allowed = False
        # What is awaitable is true, and has decided nothing.
        if allowed is not True:
            name = repr(method.name)
            raise PermissionDeniedError(
                f"a caller without a name may not call {name}: connect as a user whom the server "
                "knows by a key, a certificate or a token"
                if user is None
                else f"the user {user!r} may not call {name}: allow= of the method, or authorize= "
                "of the server, decides"
            )

    def _refuse(self, call_id: Any, name: str, error: BaseException) -> None:
        closing = self.dispatcher.closing
        if call_id is None:
            self.dispatcher.drop_notification(name, error)
            return
        self.dispatcher.count(name, outcome_of_refusal(error), None)
        if closing is not None and isinstance(error, ServiceClosedError):
            self.session.closed(call_id, closing, began=False)
        else:
            self.session.error(call_id, self.dispatcher.describe(error))

    def _control(self, kind: int, call_id: Any, args: Any) -> None:
        if kind == CANCEL:
            call = self.running.get(call_id)
            if call is not None:
                call.cancel()
            elif not self._take_back(call_id):
                self._delivered(call_id, False)
        elif kind == CREDIT:
            call = self.running.get(call_id)
            if call is not None:
                call.add_credit(args[0])
        elif kind == ACKNOWLEDGE:
            self._delivered(call_id, True)
        elif kind == GOODBYE:
            self.connection.peer_closing()

    # -- what waits for the peer -----------------------------------------------------------

    def is_congested(self) -> bool:
        """Whether the peer does not read, and the bound on what is queued for it is reached."""
        return self.connection.is_congested()

    def _is_blocked(self) -> bool:
        """Whether the peer's calls wait, or are refused as this side is closing."""
        return (
            self.dispatcher.closing is not None
            or self.stalled is not None
            or len(self.started) >= self.max_started
            or self.connection.is_congested()
        )

    def _stall(self, event: InboundEvent, count: int) -> None:
        """Have a call wait for the peer, up to a bound; refuse it if this side closes."""
        dispatcher = self.dispatcher
        _, call_id, name, *_ = event
        if dispatcher.closing is not None:
            self._refuse(call_id, name, ServiceClosedError(dispatcher.closing))
            return
        if self.stalled is None:
            self.stalled = OrderedDict()
            self._wait()
        cost = MESSAGE + self.message_bytes // count
        if call_id in self.stalled or call_id in self.running:
            self._refuse(call_id, name, ProtocolError(f"the id {call_id} is in use"))
        elif not self.call_bytes.has_room(cost):
            self._refuse(call_id, name, self._no_room())
        else:
            self.stalled[object() if call_id is None else call_id] = (event, cost)
            self.call_bytes.hold(cost)

    def _wait(self) -> None:
        """Have what is stalled looked at again."""
        if self.connection.is_congested():
            self._congested_timer = self.loop.call_later(CONGESTION_PAUSE, self._look_again)
        else:
            self.needs_turn = True

    def _look_again(self) -> None:
        self._congested_timer = None
        if self.stalled is not None:
            self._wait()
            if self.needs_turn:
                self.connection.fall_behind()

    def resume(self, end: float) -> None:
        """Serve what is stalled until `end`, as far as the peer has read its answers."""
        stalled = self.stalled
        self.needs_turn = False
        if stalled is None:
            return
        if self.spent > TURN:
            self.max_started = max(MIN_STARTED, self.max_started // 2)
        else:
            self.max_started = min(MAX_STARTED, self.max_started * 2)
        self.spent = 0.0
        # Out of the way of `dispatch`, which puts there what it does not serve.
        self.stalled = None
        try:
            while stalled and not self._is_blocked():
                self._serve_stalled(stalled, end)
        finally:
            if stalled:
                self._stall_again(stalled)

    def _stall_again(self, later: OrderedDict[Any, tuple[InboundEvent, int]]) -> None:
        """Put back what came after what `dispatch` has stalled just now."""
        if self.stalled is None:
            self.stalled = later
            self._wait()
        else:
            self.stalled.update(later)

    def _serve_stalled(
        self, stalled: OrderedDict[Any, tuple[InboundEvent, int]], end: float
    ) -> None:
        """Serve some of what was stalled."""
        now = monotonic()
        events: list[InboundEvent] = []
        self.message_bytes = 0
        while stalled and len(events) < MAX_STARTED:
            _, (event, cost) = stalled.popitem(last=False)
            self.call_bytes.hold(-cost)
            if not self._is_late(event, now):
                events.append(event)
                self.message_bytes += cost - MESSAGE
        # They were counted when they came.
        self.dispatcher.calls -= len(events)
        self.dispatch(events, now, end)

    def refuse(self, events: Sequence[InboundEvent]) -> list[InboundEvent]:
        """Refuse the calls of a message that there was no room for, and return the rest of it."""
        error = self._no_room()
        rest = []
        for event in events:
            kind, call_id, name, *_ = event
            if kind in (CALL, NOTIFY):
                self._refuse(call_id, name, error)
            else:
                rest.append(event)
        self.dispatcher.calls += len(events) - len(rest)
        return rest

    def _no_room(self) -> OverloadedError:
        return self.call_bytes.no_room(is_congested=self.connection.is_congested())

    def wait_for_turn(self) -> None:
        """Have the connection take a turn."""
        self.dispatcher.turns.add(self.connection)

    def _is_late(self, event: InboundEvent, now: float) -> bool:
        """Whether a call waited past its deadline; if so, it is answered."""
        _, call_id, name, args, kwargs, deadline, _ = event
        if deadline is None or deadline > now:
            return False
        self.dispatcher.table.call_expired(name, args, kwargs)
        error = RPCTimeoutError("the caller's deadline passed before the call's turn came")
        self._refuse(call_id, name, error)
        return True

    # -- calls that run on ---------------------------------------------------------------

    def _admit(
        self, event: InboundEvent, method: Method, cost: int, begun: Begun | None = None
    ) -> None:
        """Start what does not end at once, queue it, or refuse it."""
        dispatcher = self.dispatcher
        limits = dispatcher.limits
        _, call_id, name, *_ = event
        if call_id is None and method.kind is Kind.STREAM:
            dispatcher.drop_notification(name, "a stream needs a reader")
        elif method.kind is Kind.STREAM and not self.session.reads_streams:
            kind = self.session.peer_kind
            refused = TypeError(
                f"{name!r} is a stream, which {kind} does not support: call a method that returns "
                "a list, or use rpc.open_client or rpc.SyncClient"
            )
            self._refuse(call_id, name, refused)
        elif call_id is not None and (call_id in self.running or call_id in self.queue):
            self._refuse(call_id, name, ProtocolError(f"the id {call_id} is in use"))
        elif method.waits or method.kind is Kind.STREAM:
            if self.waiting >= limits.max_waiting:
                error = OverloadedError(
                    f"max_waiting={limits.max_waiting:,} is reached: so many streams and waiting "
                    "calls of this peer are open. End some first, or raise it in limits= of the "
                    "server"
                )
                self._refuse(call_id, name, error)
            elif dispatcher.waiting >= limits.max_all_waiting:
                error = OverloadedError(
                    f"max_all_waiting={limits.max_all_waiting:,} is reached: so many streams and "
                    "waiting calls of all peers are open. Try again later, or raise it in limits= "
                    "there"
                )
                self._refuse(call_id, name, error)
            else:
                self._start(event, method, begun)
        elif self.in_flight < limits.window and not self.queue:
            if dispatcher.in_flight >= limits.max_in_flight:
                error = OverloadedError(
                    f"max_in_flight={limits.max_in_flight:,} is reached: so many calls of all "
                    "peers are running. Try again later, or raise it in limits= of the server"
                )
                self._refuse(call_id, name, error)
            else:
                self._start(event, method, begun)
        elif call_id is not None and self.session.keeps_window and len(self.queue) >= FIRST_WINDOW:
            error = OverloadedError(f"window={limits.window:,} calls are in flight")
            self._refuse(call_id, name, error)
        elif not self.call_bytes.has_room(cost):
            self._refuse(call_id, name, self._no_room())
        else:
            self.queue[object() if call_id is None else call_id] = (event, method, cost, begun)
            self.call_bytes.hold(cost)

    def _start(self, event: InboundEvent, method: Method, begun: Begun | None) -> None:
        _, call_id, _, args, kwargs, deadline, metadata = event
        if begun is None:
            context = self.dispatcher.start_context.new()
            call = InboundCall(self, call_id, method, args, kwargs, deadline, metadata)
        else:
            context, call = begun
        self.running[call if call_id is None else call_id] = call
        # It is reported as accepted, unless it ends before the next flush.
        self.started.append(call_id)
        if call.holds_slot:
            self.in_flight += 1
            self.dispatcher.in_flight += 1
        else:
            self.waiting += 1
            self.dispatcher.waiting += 1
        if self.dispatcher.meter is not None:
            call.began = monotonic()
        try:
            executor = self.dispatcher.executor_for(method)
            context.run(call.start, self.loop, executor)
        except Exception as error:
            # A decorated coroutine function may raise when it is called, and not when awaited.
            self.failed(call, error)

    def report_accepted(self) -> None:
        """Tell the peer which of the calls in `started` run on."""
        running = [call_id for call_id in self.started if call_id in self.running]
        self.started.clear()
        if running:
            released = [call_id for call_id in running if not self.running[call_id].holds_slot]
            self.session.accepted(running, released)

    def _ended(self, call: InboundCall) -> bool:
        """Remove a call from the tables; return whether it may still be answered."""
        if call.timer is not None:
            call.timer.cancel()
        # Both hold it too, by their contexts: without a cycle, all are freed now.
        call.task = call.timer = None
        if call.holds_slot:
            self.in_flight -= 1
            self.dispatcher.in_flight -= 1
        else:
            self.waiting -= 1
            self.dispatcher.waiting -= 1
        if self.queue and not self._is_admitting:
            # A call that fails as it starts ends within this loop, which goes on.
            self._is_admitting = True
            try:
                self._admit_queued()
            finally:
                self._is_admitting = False
        return self.running.pop(call if call.id is None else call.id, None) is not None

    def _admit_queued(self) -> None:
        """Give the free slots to the calls that wait for one."""
        dispatcher = self.dispatcher
        limits = dispatcher.limits
        while (
            self.queue
            and self.in_flight < limits.window
            # With nothing in flight, no call of this peer would end and start the next one later.
            and (dispatcher.in_flight < limits.max_in_flight or not self.in_flight)
        ):
            _, (event, method, cost, begun) = self.queue.popitem(last=False)
            self.call_bytes.hold(-cost)
            if not self._is_late(event, monotonic()):
                self._start(event, method, begun)

    def _take_back(self, call_id: Any) -> bool:
        """Drop a queued call; return whether there was one."""
        if call_id in self.queue:
            event, _, cost, _ = self.queue.pop(call_id)
        elif self.stalled is not None and call_id in self.stalled:
            event, cost = self.stalled.pop(call_id)
        else:
            return False
        self.call_bytes.hold(-cost)
        self._refuse(call_id, event[2], asyncio.CancelledError())
        return True

    # -- answers -------------------------------------------------------------------------

    def send_item(self, call: InboundCall, item: Any) -> None:
        """Send an item of a stream. Raises as `Session.item` does."""
        self.session.item(call.id, item)
        self.connection.schedule_flush()

    def finished(self, call: InboundCall, value: Any) -> None:
        """A call ended with a result."""
        if self._ended(call):
            outcome = OK
            if call.cancelled:
                self._answer_error(call, self._reason(call, asyncio.CancelledError()))
                outcome = EXPIRED if call.expired else CANCELLED
            elif not self._answer(call, value):
                outcome = ERROR
            self._count(call, outcome)
            self.connection.schedule_flush()

    def failed(self, call: InboundCall, error: BaseException) -> None:
        """A call ended with an exception."""
        if self.dispatcher.is_left:
            if not isinstance(error, asyncio.CancelledError | GeneratorExit):
                self.loop.call_soon(_raise, error)
            return
        self.dispatcher.log_error(call.method.name, error, answered=call.id is not None)
        if self._ended(call):
            outcome = ERROR
            if isinstance(error, asyncio.CancelledError):
                outcome = EXPIRED if call.expired else CANCELLED
                error = self._reason(call, error)
            self._count(call, outcome)
            self._answer_error(call, error)
            self.connection.schedule_flush()
            if isinstance(error, KeyboardInterrupt):
                # The event loop is about to end.
                self.connection.flush()

    def _count(self, call: InboundCall, outcome: int) -> None:
        """Count a call that ran and has ended, if something counts them."""
        if self.dispatcher.meter is not None:
            seconds = None if call.began is None else monotonic() - call.began
            self.dispatcher.count(call.method.name, outcome, seconds)

    def _reason(self, call: InboundCall, error: BaseException) -> BaseException:
        """Make the error that the caller of a cancelled call gets."""
        if call.expired:
            return RPCTimeoutError("the caller's deadline passed while the method ran")
        if self.dispatcher.closing is not None:
            return ServiceClosedError(self.dispatcher.closing)
        return error

    def _answer(self, call: InboundCall, value: Any) -> bool:
        """Send a result; one that cannot be sent is answered with the error that says so.

        Returns:
            Whether it can be sent.
        """
        session = self.session
        if call.id is None:
            call_back(call.on_delivery, False)
            return True
        try:
            if call.is_stream:
                session.end(call.id)
                return True
            wants = call.on_delivery is not None and session.acknowledges
            session.result(call.id, value, acknowledge=wants)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            # A value may run code of its own while it is packed, and that may raise anything.
            self.dispatcher.log_error(call.method.name, error, answered=True)
            self._answer_error(call, error)
            return False
        if call.on_delivery is not None:
            if wants:
                self.unacknowledged[call.id] = call
            else:
                call_back(call.on_delivery, True)
        return True

    def _answer_error(self, call: InboundCall, error: BaseException) -> None:
        """Send an exception as the answer."""
        closing = self.dispatcher.closing
        if call.id is None:
            pass
        elif closing is not None and isinstance(error, ServiceClosedError):
            self.session.closed(call.id, closing, began=True)
        else:
            self.session.error(call.id, self.dispatcher.describe(error))
        call_back(call.on_delivery, False)

    def _delivered(self, call_id: Any, delivered: bool) -> None:
        call = self.unacknowledged.pop(call_id, None)
        if call is not None:
            call_back(call.on_delivery, delivered)

    def report_malformed(self, error: Exception) -> None:
        """Count a message that could not be read, and log some of them."""
        self.dispatcher.log_malformed(self.connection.identity, error)

    # -- the end -------------------------------------------------------------------------

    def tasks(self) -> list["asyncio.Future[Any]"]:
        """The tasks and threads of the calls that run."""
        return [call.task for call in self.running.values() if call.task is not None]

    def stop_waiting(self) -> None:
        """End what waits for something that may not come, as this side closes."""
        events = [event for event, *_ in self.queue.values()]
        events += [event for event, _ in (self.stalled or {}).values()]
        self._forget_queue()
        for _, call_id, name, *_ in events:
            self._refuse(call_id, name, ServiceClosedError(self.dispatcher.closing))
        for call in list(self.running.values()):
            if call.method.waits:
                call.cancel()

    def cancel_waiting(self, waits: Callable[[Method], bool]) -> None:
        """Cancel the calls that run and only wait for something to come.

        Args:
            waits: says it of a method.
        """
        for call in list(self.running.values()):
            if waits(call.method):
                call.cancel()

    def cancel_calls(self) -> None:
        """Cancel the calls that run, and let the notifications go on."""
        for call in list(self.running.values()):
            if call.id is not None:
                call.cancel()

    def stop(self) -> None:
        """Cancel what runs for the peer, and drop what waits."""
        if self.dispatcher.meter is not None:
            waiting = [
                event for event, *_ in (*self.queue.values(), *(self.stalled or {}).values())
            ]
            for event in waiting:
                self.dispatcher.count(event[2], CANCELLED, None)
        self._forget_queue()
        for call in list(self.running.values()):
            call.cancel()

    def leaving(self) -> None:
        """The peer is gone, and what it sent before is not served yet: drop its calls."""
        self.cancel_calls()
        waiting: tuple[OrderedDict[Any, Any], ...] = (self.queue, self.stalled or OrderedDict())
        for calls in waiting:
            for call_id, (event, *_) in list(calls.items()):
                if event[0] == CALL:
                    self.dispatcher.count(event[2], CANCELLED, None)
                    del calls[call_id]

    def lost(self) -> None:
        """The peer is gone: stop its calls; no answer of them will be acknowledged."""
        self.stop()
        self.call_bytes.release_all()
        unacknowledged = list(self.unacknowledged.values())
        self.unacknowledged.clear()
        for call in unacknowledged:
            call_back(call.on_delivery, False)

    def _forget_queue(self) -> None:
        self.queue.clear()
        self.stalled = None
        self.needs_turn = False
        self.call_bytes.clear()
        if self._congested_timer is not None:
            self._congested_timer.cancel()
            self._congested_timer = None


def _raise(error: BaseException) -> None:
    """Raise out of the event loop, and not by way of a task, which would log it too."""
    raise error
