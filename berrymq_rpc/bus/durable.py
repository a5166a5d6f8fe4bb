"""Durable queues, as the bus knows them: what a cluster keeps, and this process asks it for.

`DurableQueues` is what a node in a cluster offers its bus.
"""

from collections.abc import Callable, Coroutine
from datetime import datetime
from queue import Empty
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from ..common.coroutine_wrapper import CoroutineWrapper
from ..errors import NotFoundError
from ..identifier import Identifier
from .completion import Waiter
from .log import logger
from .message import Message, RelayedMessage

__all__ = [
    "BoundMessage",
    "ConfirmedMessage",
    "DurableBacklog",
    "DurableDelivery",
    "DurableMessage",
    "DurableQueues",
    "DurableSource",
    "Stored",
    "Taking",
    "not_kept",
]

T = TypeVar("T")


class DurableDelivery(Protocol):
    """A message that a durable queue has delivered to this process, and waits to hear about."""

    @property
    def identifier(self) -> Identifier:
        """What it is about."""

    @property
    def args(self) -> tuple[Any, ...]:
        """The positional arguments."""

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword arguments."""

    @property
    def origin(self) -> str:
        """The name of the node that sent it."""

    @property
    def tries(self) -> int:
        """How often it was delivered, this time included."""

    @property
    def dead(self) -> dict[str, Any] | None:
        """What became of it, if another queue has given it up."""

    async def ack(self, confirm: bool) -> bool:
        """Say that the work is done."""

    def nak(self, delay: float) -> Coroutine[Any, Any, bool]:
        """Give it back. What is invalid raises at once, before it is awaited."""

    async def fail(self, error: BaseException) -> bool:
        """Give it back as the work has failed, after a pause that grows with each try."""

    async def in_progress(self) -> bool:
        """Begin its time again."""

    def term(self, reason: str) -> Coroutine[Any, Any, bool]:
        """Have it delivered to nobody any more. As `nak`, what is invalid raises at once."""


class DurableSource(Protocol):
    """An open durable queue. Its coroutines may run on any event loop."""

    @property
    def is_closed(self) -> bool:
        """Whether it was closed, as its node may have been."""

    @property
    def fetched(self) -> int:
        """How many messages are in this process and not taken."""

    @property
    def waiting(self) -> int:
        """How many calls of `get` wait."""

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run one of its coroutines from a thread without an event loop."""

    async def ready(self) -> None:
        """Wait until the cluster keeps its messages."""

    async def get(self, block: bool, timeout: float | None) -> DurableDelivery:
        """Take the next message, or raise `Empty`; without `block` if the cluster has none now."""

    def take_now(self) -> DurableDelivery | None:
        """Take a message if one is here, in this thread; ``None`` if `get` has to be awaited.

        Raises:
            Exception: as `get`, without a message to come.
        """

    def get_nowait(self) -> DurableDelivery:
        """Take a message that is in this process, or raise `Empty`. On the loop of the node."""

    async def size(self) -> int:
        """How many messages the cluster keeps for the queue."""

    async def delete(self) -> bool:
        """Delete the queue."""

    def close(self) -> None:
        """Take no more messages here; those not taken go back."""


class DurableQueues(Protocol):
    """The durable queues of a cluster."""

    def open(
        self,
        identifier: Identifier,
        name: str,
        tries: int,
        ack_wait: float,
        since: datetime | None,
    ) -> DurableSource:
        """Open a queue.

        Raises:
            ValueError, TypeError: an argument is invalid.
        """

    async def reserve(self, identifier: Identifier) -> "Stored | None":
        """Wait for a place among the messages that are to be stored; ``None`` if no queue keeps it.

        On any event loop.
        """


class Stored:
    """The cluster's word on one message that `Bus.publish` sends. Made in a task.

    Attributes:
        is_claimed: whether a node has taken the message.
        on_over: called when it is over, in any thread.
    """

    __slots__ = ("_error", "_is_over", "_waiter", "is_claimed", "on_over")

    def __init__(self, on_over: Callable[[], object]) -> None:
        self._waiter = Waiter()
        self._error: Exception | None = None
        self._is_over = False
        self.is_claimed = False
        self.on_over = on_over

    def end(self, error: Exception | None = None) -> None:
        """Say that the message is stored, or why not. In any thread; a second time is ignored."""
        if not self._is_over:
            self._is_over = True
            self._error = error
            self.on_over()
            self._waiter.wake()

    async def wait(self) -> None:
        """Wait for `end`; raise its error."""
        if not self._is_over:
            await self._waiter.wait()
        if self._error is not None:
            raise self._error


class ConfirmedMessage(Message):
    """A message whose sender waits until the cluster has it."""

    __slots__ = ("stored",)

    def __init__(
        self,
        identifier: Identifier,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        stored: Stored,
    ) -> None:
        super().__init__(identifier, args, kwargs)
        self.stored = stored


class _Delivered(RelayedMessage):
    """What messages of durable queues have in common."""

    __slots__ = ("_delivery", "_is_settled")

    def __init__(self, delivery: DurableDelivery) -> None:
        self._identifier = delivery.identifier
        self._args = delivery.args
        self._kwargs = delivery.kwargs
        self._origin = delivery.origin
        self._delivery = delivery
        self._is_settled = False

    @property
    def redelivered(self) -> bool:
        """Whether it was delivered before, to a consumer that may have handled it."""
        return self._delivery.tries > 1

    @property
    def tries(self) -> int:
        """How often it was delivered, this time included."""
        return self._delivery.tries

    @property
    def dead(self) -> dict[str, Any] | None:
        """For a message that a queue has given up: ``identifier``, ``queue``, ``tries``, ``error``.

        The identifier is that of the message before, `tries` how often it was delivered, and
        `error` what its last consumer raised, or ``None`` if that is not known.
        """
        return self._delivery.dead


class DurableMessage(_Delivered):
    """A message of an `AsyncQueue` that is durable. It comes again unless it is acknowledged::

        async with queue.get() as message:
            await work(message)

    acknowledges it at a good end and refuses it at an exception; what failed comes again after 1 s,
    then 2 s, 4 s and so on, up to 5 minutes.
    """

    __slots__ = ()

    async def ack(self, confirm: bool = False) -> bool:
        """Acknowledge it: the work is done, and it does not come again.

        Args:
            confirm: wait until the server has it. Without it, an acknowledgement that is lost lets
                the message come again.

        Returns:
            Whether it was sent, or with `confirm` whether the server has it.
        """
        self._is_settled = True
        return await self._delivery.ack(confirm)

    async def nak(self, delay: float = 0.0) -> bool:
        """Refuse it: it comes again, to any consumer.

        Args:
            delay: seconds after which it does, a day at most.

        Raises:
            ValueError: `delay` is not a number of seconds from 0 on.
        """
        settling = self._delivery.nak(delay)
        self._is_settled = True
        return await settling

    async def in_progress(self) -> bool:
        """Begin its ``ack_wait`` again, as the work takes longer."""
        return await self._delivery.in_progress()

    async def term(self, reason: str = "") -> bool:
        """Have it delivered to nobody any more, though the work is not done.

        Args:
            reason: for the events of the server.

        Raises:
            TypeError: `reason` is not text.
        """
        settling = self._delivery.term(reason)
        self._is_settled = True
        return await settling

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_settled:
            return
        self._is_settled = True
        if error is None:
            await self._delivery.ack(False)
            return
        try:
            await self._delivery.fail(error)
        except Exception as problem:
            # The exception of the work is the one to raise, and it comes again by itself.
            logger.warning("%s: could not be refused: %r", self.id, problem)


class BoundMessage(_Delivered):
    """A message of a `Queue` that is durable: as `DurableMessage`, with functions that block.

    ::

        with queue.get() as message:
            work(message)
    """

    __slots__ = ("_source",)

    def __init__(self, delivery: DurableDelivery, source: DurableSource) -> None:
        super().__init__(delivery)
        self._source = source

    def ack(self, confirm: bool = False) -> bool:
        """Acknowledge it, as `DurableMessage.ack` does."""
        self._is_settled = True
        return self._source.run(self._delivery.ack(confirm))

    def nak(self, delay: float = 0.0) -> bool:
        """Refuse it, as `DurableMessage.nak` does."""
        settling = self._delivery.nak(delay)
        self._is_settled = True
        return self._source.run(settling)

    def in_progress(self) -> bool:
        """Begin its ``ack_wait`` again, as `DurableMessage.in_progress` does."""
        return self._source.run(self._delivery.in_progress())

    def term(self, reason: str = "") -> bool:
        """Have it delivered to nobody any more, as `DurableMessage.term` does."""
        settling = self._delivery.term(reason)
        self._is_settled = True
        return self._source.run(settling)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_settled:
            return
        if error is None:
            self.ack()
            return
        self._is_settled = True
        try:
            self._source.run(self._delivery.fail(error))
        except Exception as problem:
            logger.warning("%s: could not be refused: %r", self.id, problem)


class Taking(CoroutineWrapper[Message]):
    """What `AsyncQueue.get` returns: to be awaited, or for ``async with`` if it is durable."""

    __slots__ = ("_is_durable", "_message")

    def __init__(self, coroutine: Coroutine[Any, Any, Message], is_durable: bool) -> None:
        super().__init__(coroutine)
        self._is_durable = is_durable
        self._message: DurableMessage | None = None

    async def __aenter__(self) -> DurableMessage:
        if not self._is_durable:
            self._coroutine.close()
            raise ValueError(
                "only messages of a durable queue are acknowledged: give it durable='NAME'"
            )
        message = await self._coroutine
        assert isinstance(message, DurableMessage)
        self._message = message
        return message

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._message is not None:
            await self._message.__aexit__(kind, error, traceback)


class DurableBacklog:
    """What a `Queue` or `AsyncQueue` that is durable has in place of a backlog of its own.

    Args:
        identifier: the messages that are kept.
        source: where they come from.
    """

    #: It has no bound in this process, and drops nothing.
    maxsize = 0
    dropped = 0

    def __init__(self, identifier: Identifier, source: DurableSource) -> None:
        self.identifier = identifier
        self.source = source
        self._queues: set[object] = set()

    @property
    def waiting(self) -> int:
        """How many calls of `get` wait."""
        return self.source.waiting

    def get(self, queue: object, block: bool, timeout: float | None) -> Message:
        """Take the next message, in a thread without an event loop."""
        if self.source.is_closed:
            raise Empty
        return BoundMessage(self.source.run(self.source.get(block, timeout)), self.source)

    async def get_async(self, block: bool, timeout: float | None) -> DurableMessage:
        """Take the next message, on an event loop."""
        delivered = self.source.take_now()
        if delivered is None:
            if self.source.is_closed:
                raise Empty
            delivered = await self.source.get(block, timeout)
        return DurableMessage(delivered)

    def get_nowait(self) -> DurableMessage:
        """Take a message that is in this process, on the event loop of the node."""
        return DurableMessage(self.source.get_nowait())

    @property
    def queues(self) -> "set[object]":
        """The queue, until it is closed."""
        return set() if self.source.is_closed else self._queues

    def join(self, queue: object) -> None:
        """Open it."""
        self._queues.add(queue)

    def leave(self, queue: object) -> None:
        """Close it."""
        if queue in self._queues:
            self._queues.discard(queue)
            self.source.close()

    def __len__(self) -> int:
        return self.source.fetched


def not_kept(identifier: Identifier, has_cluster: bool = True) -> NotFoundError:
    """The error for a message that is to be stored, and that no durable queue keeps."""
    advice = (
        f"open one first, with Queue({str(identifier)!r}, durable=NAME)"
        if has_cluster
        else "the bus has no cluster, which Node(cluster=...) gives it"
    )
    return NotFoundError(f"no durable queue keeps {str(identifier)!r}: {advice}")
