"""How messages of other processes come onto a bus, and how the bus's own leave it: `bus.gateway`.

What connects processes (the package ``exchange``) works with a `Gateway` and needs nothing else of
a bus; programs do not need it.
"""

from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from ..common.start_context import StartContext
from ..common.tracing import Carrier
from ..identifier import Identifier
from .completion import OnEnd, track_route
from .delivery import Delivery
from .diagram import Diagram, DiagramSource
from .durable import DurableQueues
from .message import DeadMessage, Message, OutcomeMessage, RelayedMessage, RetainedMessage
from .registrations import Guard, Receiver, check_callable
from .retained_store import Forgotten, Kept, Share, Stamp
from .retention import Retention, RetentionListener
from .routing_table import FollowListener, Forwarder, Route, RoutingTable

if TYPE_CHECKING:
    import asyncio

__all__ = ["BusGateway", "Gateway", "Later"]

#: Calls a function at a later time, in another thread.
Later: TypeAlias = Callable[[Callable[[], object]], object]


class Gateway(Protocol):
    """What connects a bus with other processes. Any thread may call it."""

    @property
    def durable_queues(self) -> DurableQueues | None:
        """Those of the cluster that the bus belongs to, or ``None``."""

    def set_durable_queues(self, queues: DurableQueues | None) -> None:
        """Set `durable_queues`."""

    def relay(
        self,
        identifier: Identifier | str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        origin: object,
        answer: OnEnd | None = None,
        dead: dict[str, Any] | None = None,
        trace: Carrier | None = None,
    ) -> int:
        """Send a message that came from another process, as `Bus.twitter` does.

        The message's `origin` is set, and no receiver with a local name gets it, by a wildcard of
        the sender either. Its receivers run in a copy of the context in which `set_loop` was
        called last, each message in one of its own.

        Args:
            answer: called as ``answer(result, error)`` when a receiver has run, in the thread where
                it ended; not for queues. `error` is what it raised, or `None`.
            dead: for a message that a queue has given up, what `DeadMessage.dead` is.
            trace: what its sender sent of its trace.

        Returns:
            How many receivers and queues it has reached by now.

        Raises:
            ValueError, TypeError: `identifier` is not an identifier, or is local.
        """

    def answer(
        self,
        callback_identifier: Identifier | str,
        result: Any = None,
        error: BaseException | None = None,
        origin: object = None,
        trace: Carrier | None = None,
    ) -> int:
        """Send an answer of `Bus.talk`, which no forwarder gets.

        Args:
            origin: where it came from; if it is another process, no receiver with a local name
                gets it, and receivers run in a context as in `relay`.
            trace: as for `relay`.

        Returns:
            As `relay`.

        Raises:
            ValueError, TypeError: `callback_identifier` is not an identifier, or it is local and
                the answer came from another process.
        """

    def report(self, error: BaseException, message: Message, receiver: Any, problem: str) -> None:
        """Log an error and hand it to `Bus.on_error`.

        Args:
            problem: what happened, for the log, such as ``"failed"``.
        """

    def add_forwarder(self, forwarder: Forwarder) -> None:
        """Call `forwarder` with each message that is not local.

        Forwarders are called in the sender's thread and before any receiver, so that they get a
        message before those that its receivers send. They do not count as reached, get messages
        without receivers too, and are held strongly. They must not block.
        """

    def remove_forwarder(self, forwarder: Forwarder) -> None:
        """Undo `add_forwarder`; nothing happens if it is not there."""

    def announce(self, identifier: str, kwargs: dict[str, Any], origin: object) -> int:
        """Send an event about this process's own connections or queues.

        It stays in this process, and is not retained. Otherwise it is sent as `relay` does.
        """

    def retained(self, identifier: Identifier | str = "*@*:*") -> list[Kept]:
        """What is retained and matches, the one that changed first first."""

    def retained_as(self, text: str) -> Kept | None:
        """What is retained with exactly this identifier, in its canonical form."""

    def forgotten(self) -> list[Forgotten]:
        """What was forgotten lately, so that no older message of it may come back."""

    def take_retained(
        self,
        identifier: Identifier | str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        origin: object,
        stamp: Stamp,
        *,
        is_late: bool = False,
        answer: OnEnd | None = None,
        later: Later | None = None,
        share: Share | None = None,
        trace: Carrier | None = None,
    ) -> bool:
        """Send a message that another bus has retained, as `relay` does, and retain it here.

        If it is not newer than what is retained here, or was forgotten, nobody gets it.

        Args:
            stamp: the other bus's.
            is_late: whether it was sent before: receivers get it as one that is retained.
            answer: as for `relay`.
            later: called with a function that calls the receivers; ``None`` to call them now.
            share: of the peer that it came from; ``None`` where the bounds of the bus are enough.

        Returns:
            Whether it was newer.

        Raises:
            ValueError, TypeError: `identifier` is not an identifier, or is local.
        """

    def forget(self, identifier: Identifier | str, stamp: Stamp) -> int:
        """Drop what matches and is older, as another bus has done; return how many that were."""

    def add_retention_listener(
        self, listener: RetentionListener, instead_of: Forwarder | None = None
    ) -> None:
        """Tell `listener` what is retained and forgotten from now on, of other buses as well.

        Args:
            instead_of: a forwarder that gets no message that is retained, as `listener` carries
                these.
        """

    def remove_retention_listener(self, listener: RetentionListener) -> None:
        """Undo `add_retention_listener`; nothing happens if it is not there."""

    def add_follow_listener(self, listener: FollowListener) -> None:
        """Call ``listener(parts, is_followed)`` for each identifier that is followed.

        It is called at once for those that are followed now, and later when one gets its first
        receiver or loses its last: in any thread, by garbage collection as well, and while the bus
        is locked. It must not block, raise, or use the bus. `parts` are the namespace or `None`,
        the name and the action.
        """

    def remove_follow_listener(self, listener: FollowListener) -> None:
        """Undo `add_follow_listener`; nothing happens if it is not there."""

    def follow(
        self, identifier: Identifier | str, receiver: Receiver, guard: Guard | None = None
    ) -> None:
        """Let a receiver follow, as `Bus.regist_function` does."""

    def unfollow(self, identifier: Identifier | str, receiver: Receiver) -> int:
        """End a receiver's following, as `Bus.unfollow` does; how many there were."""

    def add_diagram_source(self, source: DiagramSource) -> None:
        """Let `Bus.show_network` and `Bus.show_followers` show connections.

        Args:
            source: called for each diagram, in any thread; returns the connections.
        """

    def remove_diagram_source(self, source: DiagramSource) -> None:
        """Undo `add_diagram_source`; nothing happens if it is not there."""

    def set_loop(self, loop: "asyncio.AbstractEventLoop | None") -> None:
        """Set where ``async def`` receivers run if there is no event loop in the sender's thread.

        It is used while that loop runs, and is held weakly. The context of the caller becomes that
        in which the receivers of other processes' messages begin.
        """


class BusGateway:
    """The gateway of a bus: what comes is delivered in the thread that calls."""

    __slots__ = (
        "_delivery",
        "_diagram",
        "_retention",
        "_routing_table",
        "_start_context",
        "durable_queues",
    )

    def __init__(
        self,
        routing_table: RoutingTable,
        delivery: Delivery,
        diagram: Diagram,
        retention: Retention,
    ) -> None:
        self._routing_table = routing_table
        self._retention = retention
        self._delivery = delivery
        self._diagram = diagram
        self._start_context = StartContext()
        self.durable_queues: DurableQueues | None = None

    def set_durable_queues(self, queues: DurableQueues | None) -> None:
        self.durable_queues = queues

    def relay(
        self,
        identifier: Identifier | str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        origin: object,
        answer: OnEnd | None = None,
        dead: dict[str, Any] | None = None,
        trace: Carrier | None = None,
    ) -> int:
        try:
            route = self._routing_table.relayed_routes[identifier]
        except (KeyError, TypeError):
            route = self._routing_table.find(identifier, relayed=True)
        if not route.calls:
            return 0
        if answer is not None:
            route, _ = track_route(route, answer)
        message = RelayedMessage(route.identifier, args, kwargs, origin)
        if dead is not None:
            message = DeadMessage(route.identifier, args, kwargs, origin, dead)
        return self._context(trace).run(self._delivery.run, route, message)

    def announce(self, identifier: str, kwargs: dict[str, Any], origin: object) -> int:
        try:
            route = self._routing_table.relayed_routes[identifier]
        except KeyError:
            route = self._routing_table.find(identifier, relayed=True)
        message = RelayedMessage(route.identifier, (), kwargs, origin)
        return self._run_receivers(route, message, None)

    def retained(self, identifier: Identifier | str = "*@*:*") -> list[Kept]:
        return self._retention.retained(Identifier(identifier))

    def retained_as(self, text: str) -> Kept | None:
        return self._retention.get(text)

    def forgotten(self) -> list[Forgotten]:
        return self._retention.forgotten()

    def take_retained(
        self,
        identifier: Identifier | str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        origin: object,
        stamp: Stamp,
        *,
        is_late: bool = False,
        answer: OnEnd | None = None,
        later: Later | None = None,
        share: Share | None = None,
        trace: Carrier | None = None,
    ) -> bool:
        def run(route: Route, message: Message) -> None:
            meter = self._delivery.meter
            if meter is not None:
                meter.relayed(str(parsed), is_followed=route.reached > 0)
            if not route.calls:
                return
            if answer is not None:
                route, _ = track_route(route, answer)
            call = partial(self._context(trace).run, self._delivery.run, route, message)
            if later is None:
                call()
            else:
                later(call)

        parsed = Identifier(identifier).require_exportable()
        message: Message = RelayedMessage(parsed, args, kwargs, origin)
        if is_late:
            message = RetainedMessage(message)
        return self._retention.take(parsed, message, stamp, run, share)

    def forget(self, identifier: Identifier | str, stamp: Stamp) -> int:
        return self._retention.forget(Identifier(identifier).require_exportable(), stamp)

    def add_retention_listener(
        self, listener: RetentionListener, instead_of: Forwarder | None = None
    ) -> None:
        self._retention.add_listener(listener, instead_of)

    def remove_retention_listener(self, listener: RetentionListener) -> None:
        self._retention.remove_listener(listener)

    def answer(
        self,
        callback_identifier: Identifier | str,
        result: Any = None,
        error: BaseException | None = None,
        origin: object = None,
        trace: Carrier | None = None,
    ) -> int:
        routes, relayed = self._routing_table.routes, origin is not None
        if relayed:
            routes = self._routing_table.relayed_routes
        try:
            route = routes[callback_identifier]
        except (KeyError, TypeError):
            route = self._routing_table.find(callback_identifier, relayed)
        message = OutcomeMessage(route.identifier, (result,), {}, error, origin)
        if relayed:
            return self._run_receivers(route, message, trace)
        return self._delivery.run(self._receivers_of(route, message), message)

    def _run_receivers(self, route: Route, message: Message, trace: Carrier | None) -> int:
        """Deliver a message in the context of another process's one, but to no forwarder."""
        route = self._receivers_of(route, message)
        return self._context(trace).run(self._delivery.run, route, message)

    def _receivers_of(self, route: Route, message: Message) -> Route:
        """The route without what comes before the receivers, of which the meter counts."""
        if self._delivery.meter is not None:
            # Its place is before the forwarders, too.
            route.calls[0](message)
        return Route(route.identifier, route.receivers, route.reached)

    def _context(self, trace: Carrier | None) -> Context:
        """The context in which the receivers of another process's message begin."""
        context = self._start_context.new()
        if self._delivery.tracing is not None:
            context.run(self._delivery.tracing.receive, trace)
        return context

    def report(self, error: BaseException, message: Message, receiver: Any, problem: str) -> None:
        self._delivery.report(error, message, receiver, problem)

    def add_forwarder(self, forwarder: Forwarder) -> None:
        check_callable(forwarder, "forwarder")
        self._routing_table.add_forwarder(forwarder)

    def remove_forwarder(self, forwarder: Forwarder) -> None:
        self._routing_table.remove_forwarder(forwarder)

    def add_follow_listener(self, listener: FollowListener) -> None:
        self._routing_table.add_follow_listener(listener)

    def remove_follow_listener(self, listener: FollowListener) -> None:
        self._routing_table.remove_follow_listener(listener)

    def follow(
        self, identifier: Identifier | str, receiver: Receiver, guard: Guard | None = None
    ) -> None:
        self._routing_table.follow(Identifier(identifier), receiver, guard)

    def unfollow(self, identifier: Identifier | str, receiver: Receiver) -> int:
        return self._routing_table.unfollow(Identifier(identifier), receiver)

    def add_diagram_source(self, source: DiagramSource) -> None:
        self._diagram.add_source(source)

    def remove_diagram_source(self, source: DiagramSource) -> None:
        self._diagram.remove_source(source)

    def set_loop(self, loop: "asyncio.AbstractEventLoop | None") -> None:
        self._start_context = StartContext()
        self._delivery.async_receivers.set_loop(loop)
