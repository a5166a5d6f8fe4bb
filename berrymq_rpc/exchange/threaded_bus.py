"""A gateway that calls receivers on a thread of their own, for a node without asyncio."""

import asyncio
from functools import partial
from typing import Any

from ..bus import Message
from ..bus.completion import OnEnd
from ..bus.diagram import DiagramSource
from ..bus.durable import DurableQueues
from ..bus.gateway import Gateway, Later
from ..bus.registrations import Guard, Receiver
from ..bus.retained_store import Forgotten, Kept, Share, Stamp
from ..bus.retention import RetentionListener
from ..bus.routing_table import FollowListener, Forwarder
from ..common.sizes import approximate_size
from ..common.tracing import Carrier
from ..identifier import Identifier
from ..runtime.worker_thread import WorkerThread

__all__ = ["ThreadedBus"]

#: Bytes that a waiting message takes in addition to its arguments.
OVERHEAD = 500


class ThreadedBus(Gateway):
    """A `Gateway` that publishes messages on a thread of their own.

    So a receiver may wait for the node. Identifiers are checked at once.

    Args:
        gateway: of the bus.
        thread: calls the receivers.
    """

    def __init__(self, gateway: Gateway, thread: WorkerThread) -> None:
        self._gateway = gateway
        self._thread = thread
        #: What the node has registered on the bus.
        self._forwarders: dict[Forwarder, None] = {}
        self._follow_listeners: dict[FollowListener, None] = {}
        self._retention_listeners: dict[RetentionListener, None] = {}
        self._followings: dict[tuple[Identifier, Receiver], None] = {}

    @property
    def durable_queues(self) -> DurableQueues | None:
        return self._gateway.durable_queues

    def set_durable_queues(self, queues: DurableQueues | None) -> None:
        self._gateway.set_durable_queues(queues)

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
        parsed = Identifier(identifier).require_exportable()
        self._thread.put(
            partial(self._gateway.relay, parsed, args, kwargs, origin, answer, dead, trace),
            OVERHEAD + approximate_size(args) + (approximate_size(kwargs) if kwargs else 0),
        )
        return 0

    def announce(self, identifier: str, kwargs: dict[str, Any], origin: object) -> int:
        self._thread.put(
            partial(self._gateway.announce, identifier, kwargs, origin),
            OVERHEAD + approximate_size(kwargs),
        )
        return 0

    def answer(
        self,
        callback_identifier: Identifier | str,
        result: Any = None,
        error: BaseException | None = None,
        origin: object = None,
        trace: Carrier | None = None,
    ) -> int:
        parsed = Identifier(callback_identifier)
        self._thread.put(
            partial(self._gateway.answer, parsed, result, error, origin, trace),
            OVERHEAD + approximate_size((result, error)),
        )
        return 0

    def retained(self, identifier: Identifier | str = "*@*:*") -> list[Kept]:
        return self._gateway.retained(identifier)

    def retained_as(self, text: str) -> Kept | None:
        return self._gateway.retained_as(text)

    def forgotten(self) -> list[Forgotten]:
        return self._gateway.forgotten()

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
        size = OVERHEAD + approximate_size(args) + (approximate_size(kwargs) if kwargs else 0)
        return self._gateway.take_retained(
            identifier,
            args,
            kwargs,
            origin,
            stamp,
            is_late=is_late,
            answer=answer,
            later=lambda call: self._thread.put(call, size),
            share=share,
            trace=trace,
        )

    def forget(self, identifier: Identifier | str, stamp: Stamp) -> int:
        return self._gateway.forget(identifier, stamp)

    def report(self, error: BaseException, message: Message, receiver: Any, problem: str) -> None:
        self._gateway.report(error, message, receiver, problem)

    def set_loop(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._gateway.set_loop(loop)

    def add_diagram_source(self, source: DiagramSource) -> None:
        self._gateway.add_diagram_source(source)

    def remove_diagram_source(self, source: DiagramSource) -> None:
        self._gateway.remove_diagram_source(source)

    # -- what the node has on the bus ------------------------------------------------------

    def add_forwarder(self, forwarder: Forwarder) -> None:
        self._gateway.add_forwarder(forwarder)
        self._forwarders[forwarder] = None

    def remove_forwarder(self, forwarder: Forwarder) -> None:
        self._gateway.remove_forwarder(forwarder)
        self._forwarders.pop(forwarder, None)

    def add_retention_listener(
        self, listener: RetentionListener, instead_of: Forwarder | None = None
    ) -> None:
        self._gateway.add_retention_listener(listener, instead_of)
        self._retention_listeners[listener] = None

    def remove_retention_listener(self, listener: RetentionListener) -> None:
        self._gateway.remove_retention_listener(listener)
        self._retention_listeners.pop(listener, None)

    def add_follow_listener(self, listener: FollowListener) -> None:
        self._gateway.add_follow_listener(listener)
        self._follow_listeners[listener] = None

    def remove_follow_listener(self, listener: FollowListener) -> None:
        self._gateway.remove_follow_listener(listener)
        self._follow_listeners.pop(listener, None)

    def follow(
        self, identifier: Identifier | str, receiver: Receiver, guard: Guard | None = None
    ) -> None:
        self._gateway.follow(identifier, receiver, guard)
        self._followings[Identifier(identifier), receiver] = None

    def unfollow(self, identifier: Identifier | str, receiver: Receiver) -> int:
        self._followings.pop((Identifier(identifier), receiver), None)
        return self._gateway.unfollow(identifier, receiver)

    def detach(self) -> None:
        """Remove everything of the node from the bus, in the child of a fork."""
        self.set_durable_queues(None)
        for forwarder in list(self._forwarders):
            self.remove_forwarder(forwarder)
        for listener in list(self._follow_listeners):
            self.remove_follow_listener(listener)
        for carrier in list(self._retention_listeners):
            self.remove_retention_listener(carrier)
        for identifier, receiver in list(self._followings):
            self.unfollow(identifier, receiver)
