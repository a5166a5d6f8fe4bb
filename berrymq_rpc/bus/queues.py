"""Pull: queues keep messages until a thread (`Queue`) or a task (`AsyncQueue`) asks for them."""

import weakref
from collections.abc import Iterator
from datetime import datetime
from queue import Empty
from types import TracebackType
from typing import Self, cast

from ..identifier import Identifier
from .backlog import Backlog, Backlogs, check_maxsize
from .bus import Bus
from .default import default_bus
from .durable import DurableBacklog, DurableSource, Taking
from .message import Message

__all__ = [
    "ACK_WAIT",
    "TRIES",
    "AsyncQueue",
    "Backlog",
    "BaseQueue",
    "Empty",
    "Queue",
    "exchange_backlogs",
]

#: How often a message of a durable queue is delivered, and the seconds that a consumer has for it.
TRIES = 5
ACK_WAIT = 30.0


_backlogs: weakref.WeakKeyDictionary[Bus, Backlogs] = weakref.WeakKeyDictionary()


def exchange_backlogs(bus: Bus, backlogs: Backlogs | None) -> Backlogs | None:
    """Set the backlogs of a bus, none for it to begin anew, and return those that it had."""
    had = _backlogs.pop(bus, None)
    if backlogs is not None:
        _backlogs[bus] = backlogs
    return had


class BaseQueue:
    """What queues of threads and of coroutines have in common."""

    def __init__(
        self,
        identifier: Identifier | str,
        shared: bool = False,
        maxsize: int = 0,
        bus: Bus | None = None,
        *,
        durable: str | None = None,
        tries: int = TRIES,
        ack_wait: float = ACK_WAIT,
        since: datetime | None = None,
    ) -> None:
        maxsize = check_maxsize(maxsize)
        self._bus = default_bus if bus is None else bus
        self._shared = bool(shared)
        self._backlogs: Backlogs | None = None
        self._backlog: Backlog | DurableBacklog
        if durable is not None:
            if shared or maxsize:
                raise ValueError("a durable queue is shared and has no maxsize: leave these out")
            self._backlog = _open_durable(
                self._bus, Identifier(identifier), durable, tries, ack_wait, since
            )
            self._backlog.join(self)
            return
        if (tries, ack_wait, since) != (TRIES, ACK_WAIT, None):
            raise ValueError("tries, ack_wait and since are for a durable queue: give durable=")
        self._backlogs = _backlogs.setdefault(self._bus, Backlogs())
        self._backlog = self._backlogs.open(
            self._bus, self, Identifier(identifier), self._shared, maxsize
        )

    @property
    def identifier(self) -> Identifier:
        """Which messages it keeps."""
        return self._backlog.identifier

    @property
    def shared(self) -> bool:
        """Whether it shares its messages."""
        return self._shared

    @property
    def maxsize(self) -> int:
        """How many messages are kept at most; 0 for any number."""
        return self._backlog.maxsize

    @property
    def dropped(self) -> int:
        """How many messages were dropped because the queue was full."""
        return self._backlog.dropped

    @property
    def waiting(self) -> int:
        """How many threads and coroutines wait in `get`; of all queues, if it is shared."""
        return self._backlog.waiting

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self not in self._backlog.queues

    def get_nowait(self) -> Message:
        """Take the oldest message, or raise `Empty`."""
        return self._backlog.get(self, False, None)

    def qsize(self) -> int:
        """How many messages are kept here; another thread may change that at once.

        Of a durable queue, those that have come to this process and are not taken.
        """
        return len(self._backlog)

    def empty(self) -> bool:
        """Whether no message is kept here; another thread may change that at once."""
        return not len(self._backlog)

    def full(self) -> bool:
        """Whether the next message makes the oldest drop; another thread may change that."""
        return 0 < self.maxsize <= len(self._backlog)

    def close(self) -> None:
        """Keep no further messages, and end each `get` that waits. Can be called again.

        What is there can still be taken, without waiting; of shared queues only once all of them
        are closed, as it is for the others until then. A durable queue is kept by the cluster, for
        the next one that has its name.
        """
        if isinstance(self._backlog, DurableBacklog):
            self._backlog.leave(self)
        elif self._backlogs is not None:
            self._backlogs.close(self._bus, self, self._backlog)

    @property
    def _source(self) -> DurableSource:
        """The durable queue in the cluster.

        Raises:
            ValueError: it is not durable.
        """
        if isinstance(self._backlog, DurableBacklog):
            return self._backlog.source
        raise ValueError("this queue is not durable: give it durable='NAME'")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{self.qsize()} waiting"
        return f"<{type(self).__name__} {self.identifier} {state}>"


class Queue(BaseQueue):
    """Keeps the messages of an identifier until they are asked for: first in, first out.

    Any number of threads may use it. It keeps messages until it is closed or no reference to it is
    left. It is a context manager that closes it, and an iterator of its messages that ends when it
    was closed and is empty.

    Args:
        identifier: which messages to keep.
        shared: whether it shares its messages with all shared queues of this identifier on this
            bus: each message is given out once. Otherwise each queue gets all messages.
        maxsize: how many messages to keep at most; when one more comes, the oldest is dropped,
            counted and, at a bounded rate, logged. 0 for any number.
        bus: the bus to follow; `None` for the default one.
        durable: the name of a queue in the cluster of the bus's node, 1 to 64 letters, digits,
            ``_`` and ``-``. All queues of that name, in all processes, share its messages, which
            are kept while none is open as well. Each is delivered again until it is acknowledged;
            see `bus.durable.BoundMessage`. ``None`` for a queue in this process alone.
        tries: how often each message of a durable queue is delivered at most. After that it moves
            to ``dead:NAME``, which is kept for 30 days.
        ack_wait: seconds that a consumer of a durable queue has to acknowledge a message, a day at
            most.
        since: begin a new durable queue with what was sent since then, if the cluster keeps that
            (`Durable.keep`). ``None`` begins with what is sent from now on.

    With `durable`, the constructor waits until the cluster keeps the queue's messages.

    Raises:
        ValueError: `identifier` is not an identifier, `maxsize` is negative, or queues that share
            the messages have another `maxsize`; or of a durable queue: the bus has no cluster, or
            the queue exists with other settings, which the text names.
        TypeError: `identifier` is not text, or `maxsize` not an integer.
        NotFoundError: JetStream is not enabled at the NATS server.
        RuntimeError: a durable queue would block the event loop that runs in this thread: use
            `AsyncQueue`.
    """

    def __init__(
        self,
        identifier: Identifier | str,
        shared: bool = False,
        maxsize: int = 0,
        bus: Bus | None = None,
        *,
        durable: str | None = None,
        tries: int = TRIES,
        ack_wait: float = ACK_WAIT,
        since: datetime | None = None,
    ) -> None:
        super().__init__(
            identifier,
            shared,
            maxsize,
            bus,
            durable=durable,
            tries=tries,
            ack_wait=ack_wait,
            since=since,
        )
        if durable is not None:
            try:
                self._source.run(self._source.ready())
            except BaseException:
                self.close()
                raise

    def size(self) -> int:
        """How many messages the cluster keeps for a durable queue, those being worked on included.

        Raises:
            ValueError: it is not durable.
            NotFoundError: it was deleted.
            ConnectionLostError: there is no NATS server now.
        """
        return self._source.run(self._source.size())

    def delete(self) -> bool:
        """Delete a durable queue in the cluster, with what it keeps, and close this one.

        Returns:
            Whether it was still there.

        Raises:
            ValueError: it is not durable.
            ConnectionLostError: there is no NATS server now.
        """
        deleted = self._source.run(self._source.delete())
        self.close()
        return deleted

    def get(self, block: bool = True, timeout: float | None = None) -> Message:
        """Take the oldest message.

        Args:
            block: whether to wait for one.
            timeout: how long to wait, in seconds; `None` for as long as it takes.

        Raises:
            Empty: there is none and it does not wait, its time is over, or the queue is closed.
            ValueError: `timeout` is negative.
        """
        if block:
            _check_timeout(timeout)
        return self._backlog.get(self, block, timeout if block else None)

    def __iter__(self) -> Iterator[Message]:
        while True:
            try:
                message = self.get()
            except Empty:
                return
            yield message


class AsyncQueue(BaseQueue):
    """A `Queue` whose messages are awaited: ``await queue.get()``, ``async for message in queue``.

    Messages may be sent from any thread, and any number of tasks, on any event loops, may wait.
    Shared queues share their messages with those of class `Queue`. Arguments and exceptions are
    those of `Queue`. It is a context manager, with or without ``async``, that closes it.
    """

    def get(self, block: bool = True, timeout: float | None = None) -> Taking:
        """Take the oldest message, as `Queue.get` does: ``await queue.get()``.

        If it is cancelled, none is taken. Of a durable queue, which the first `get` declares,
        ``async with queue.get() as message:`` acknowledges the message at a good end, and refuses
        it at an exception.
        """
        if isinstance(self._backlog, DurableBacklog):
            if block:
                _check_timeout(timeout)
            return Taking(self._backlog.get_async(block, timeout if block else None), True)
        # Not wrapped: a plain coroutine takes less time.
        return cast(Taking, self._get(self._backlog, block, timeout))

    def get_nowait(self) -> Message:
        """Take the oldest message, or raise `Empty`.

        Of a durable queue, one that is in this process; if none is, one is asked for, so that a
        later call finds it. ``await queue.get(block=False)`` asks the cluster.

        Raises:
            RuntimeError: it is durable, and this is not the event loop of its node, or `ready` was
                not awaited yet.
        """
        if isinstance(self._backlog, DurableBacklog):
            return self._backlog.get_nowait()
        return super().get_nowait()

    async def ready(self) -> None:
        """Wait until the cluster keeps the messages of a durable queue.

        Raises:
            ValueError: it is not durable, or exists with other settings, which the text names.
            NotFoundError: JetStream is not enabled at the NATS server.
            ConnectionLostError: there is no NATS server now.
        """
        await self._source.ready()

    async def size(self) -> int:
        """How many messages the cluster keeps, as `Queue.size`."""
        return await self._source.size()

    async def delete(self) -> bool:
        """Delete a durable queue in the cluster, as `Queue.delete`."""
        deleted = await self._source.delete()
        self.close()
        return deleted

    async def _get(self, backlog: Backlog, block: bool, timeout: float | None) -> Message:
        if not block:
            return self.get_nowait()
        _check_timeout(timeout)
        if timeout is None:
            return await backlog.wait(self)
        import asyncio

        try:
            async with asyncio.timeout(timeout):
                return await backlog.wait(self)
        except TimeoutError:
            # One may have come in the very moment.
            return self.get_nowait()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        try:
            return await self.get()
        except Empty:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _open_durable(
    bus: Bus,
    identifier: Identifier,
    name: str,
    tries: int,
    ack_wait: float,
    since: datetime | None,
) -> DurableBacklog:
    queues = bus.gateway.durable_queues
    if queues is None:
        raise ValueError(
            "a durable queue is kept by a cluster: start a Node(cluster='nats://...') on this bus "
            "first"
        )
    identifier = identifier.require_exportable()
    return DurableBacklog(identifier, queues.open(identifier, name, tries, ack_wait, since))


def _check_timeout(timeout: float | None) -> None:
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout must be a number of seconds from 0 on, not {timeout}")
