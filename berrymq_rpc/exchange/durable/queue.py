"""One durable queue that a queue of the bus has opened."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from ...bus import Empty
from ...errors import NotFoundError, ServiceClosedError
from ...nats.jetstream import JetStream
from .consumer import DurableConsumer
from .delivered import Delivered
from .streams import QueueSettings

__all__ = ["ClusterQueue", "QueueHost"]

T = TypeVar("T")


class QueueHost(Protocol):
    """What an open queue needs of all durable queues of the cluster."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of the connection to NATS."""

    @property
    def thread(self) -> int:
        """The thread in which that runs."""

    @property
    def js(self) -> JetStream:
        """JetStream."""

    async def call(
        self, coroutine: Coroutine[Any, Any, T], on_unclaimed: Callable[[T], object] | None = None
    ) -> T:
        """Run a coroutine on the loop of the connection, from any loop."""

    def run(
        self, coroutine: Coroutine[Any, Any, T], on_unclaimed: Callable[[T], object] | None = None
    ) -> T:
        """Run a coroutine on the loop of the connection, from a thread without a loop."""

    async def declare(self, settings: QueueSettings) -> None:
        """Have the cluster keep the messages of a queue."""

    def stream_of(self, settings: QueueSettings) -> str:
        """The stream that has its messages."""

    def consume(self, settings: QueueSettings) -> DurableConsumer:
        """Begin to take its messages."""

    def forget_kept(self) -> None:
        """Ask JetStream anew which subjects queues keep."""

    def add(self, queue: "ClusterQueue") -> None:
        """Close a queue with the others."""

    def discard(self, queue: "ClusterQueue") -> None:
        """Forget a queue that is closed."""


class ClusterQueue:
    """One open durable queue, as `bus.durable.DurableSource` has it.

    Args:
        host: the durable queues of the cluster.
        settings: what it is declared with.
    """

    def __init__(self, host: QueueHost, settings: QueueSettings) -> None:
        self.settings = settings
        self._host = host
        self._consumer: DurableConsumer | None = None
        self._declaring: asyncio.Lock | None = None
        self._is_closed = False

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    @property
    def fetched(self) -> int:
        return 0 if self._consumer is None else self._consumer.fetched

    @property
    def waiting(self) -> int:
        return 0 if self._consumer is None else self._consumer.waiting

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._host.run(coroutine, _put_back)

    async def ready(self) -> None:
        await self._host.call(self._ready())

    async def _ready(self) -> DurableConsumer:
        if self._is_closed:
            raise ServiceClosedError(
                f"the durable queue {self.settings.name!r} is closed: open a new one"
            )
        if self._consumer is not None:
            return self._consumer
        if self._declaring is None:
            self._declaring = asyncio.Lock()
        async with self._declaring:
            if self._consumer is None:
                await self._host.declare(self.settings)
                if self._is_closed:
                    raise ServiceClosedError(
                        f"the durable queue {self.settings.name!r} was closed while it was declared"
                    )
                self._consumer = self._host.consume(self.settings)
                self._host.add(self)
            return self._consumer

    async def get(self, block: bool, timeout: float | None) -> Delivered:
        return await self._host.call(self._get(block, timeout), _put_back)

    async def _get(self, block: bool, timeout: float | None) -> Delivered:
        if self._is_closed:
            raise Empty
        consumer = await self._ready()
        if not block:
            return await consumer.get_present()
        return await consumer.get(timeout)

    def take_now(self) -> Delivered | None:
        if self._consumer is None or threading.get_ident() != self._host.thread:
            return None
        return self._consumer.take_now()

    def get_nowait(self) -> Delivered:
        if threading.get_ident() != self._host.thread:
            raise RuntimeError(
                "get_nowait() takes what a durable AsyncQueue has at the event loop of its node, "
                "and this is another thread: await queue.get(block=False)"
            )
        if self._is_closed:
            raise Empty
        if self._consumer is None:
            raise RuntimeError("the durable queue is not declared yet: await queue.ready() first")
        return self._consumer.get_nowait()

    async def size(self) -> int:
        return await self._host.call(self._size())

    async def _size(self) -> int:
        await self._ready()
        info = await self._host.js.consumer(self._host.stream_of(self.settings), self.settings.name)
        if info is None:
            raise NotFoundError(
                f"the durable queue {self.settings.name!r} was deleted: open a new one"
            )
        return int(info.get("num_pending", 0)) + int(info.get("num_ack_pending", 0))

    async def delete(self) -> bool:
        return await self._host.call(self._delete())

    async def _delete(self) -> bool:
        self._host.forget_kept()
        stream = self._host.stream_of(self.settings)
        return await self._host.js.delete_consumer(stream, self.settings.name)

    def reset(self) -> None:
        """Pull anew."""
        if self._consumer is not None:
            self._consumer.reset()

    def close(self) -> None:
        if threading.get_ident() == self._host.thread:
            self.end()
        else:
            with suppress(RuntimeError):
                self._host.loop.call_soon_threadsafe(self.end)

    def end(self) -> None:
        """Close it, on the loop of the connection."""
        self._is_closed = True
        if self._consumer is not None:
            self._consumer.close()
        self._host.discard(self)

    async def wait_closed(self) -> None:
        """Wait until what it still does has ended."""
        if self._consumer is not None:
            await self._consumer.wait_closed()

    def __del__(self) -> None:
        if not self._is_closed and self._consumer is not None:
            self.close()


def _put_back(result: object) -> None:
    """Have the next call of `get` take a message whose taker was interrupted as it came."""
    if isinstance(result, Delivered):
        result.put_back()
