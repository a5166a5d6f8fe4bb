"""Queues that a node keeps for other processes (style 03): messages wait until a consumer asks.

`RemoteQueue` is one queue; `RemoteQueues` opens them on a bus and knows which of them are shared.
"""

import asyncio
import heapq
import threading
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from ..bus import Message
from ..bus.diagram import DiagramNode
from ..bus.gateway import Gateway
from ..bus.registrations import remote_sink
from ..common.tally import Tally
from ..identifier import Identifier
from ..runtime.log import Log
from .stored_message import MessagePacker, StoredMessage

__all__ = ["MAX_BYTES", "MAX_MESSAGES", "RemoteQueue", "RemoteQueues"]

logger = Log("berrymq_rpc.exchange")

#: The event that reports dropped messages on the bus.
DROPPED = "queue:dropped"

#: Messages kept while no consumer asks: some MB of small ones.
MAX_MESSAGES = 10_000

#: Bytes of the same, for large ones: as many as a link keeps.
MAX_BYTES = 64 << 20


class RemoteQueue:
    """Messages, first in, first out, each for one consumer.

    Any thread may `put`; everything else belongs to the event loop on which it was made.

    Args:
        identifier: the messages that it keeps, for logs.
        maxsize: how many at most; when one more comes, the oldest is dropped.
        maxbytes: bytes that they may take; over it, the oldest are dropped.
        packer: packs and unpacks the messages.
        on_dropped: called with the queue after messages were dropped, when their number has
            reached 1, 2, 4, 8 and so on; in the thread that sent the last one.
    """

    def __init__(
        self,
        identifier: Identifier,
        maxsize: int = MAX_MESSAGES,
        maxbytes: int = MAX_BYTES,
        *,
        packer: MessagePacker | None = None,
        on_dropped: Callable[["RemoteQueue"], object] | None = None,
    ) -> None:
        self.identifier = identifier
        self.maxsize = maxsize
        self.maxbytes = maxbytes
        self.is_closed = False
        self._packer = MessagePacker() if packer is None else packer
        self._on_dropped = on_dropped
        self._loop = asyncio.get_running_loop()
        self._kept: deque[StoredMessage] = deque()
        #: A heap of those that came back, by their numbers: all are older than those in `_kept`.
        self._returned: list[tuple[int, StoredMessage]] = []
        #: Those that come back later, and what will bring them.
        self._delayed: dict[StoredMessage, asyncio.TimerHandle] = {}
        #: How many consumers have got and may still give back.
        self._held = 0
        #: What all these take.
        self._bytes = 0
        self._dropped = Tally()
        #: Why messages were dropped, if that is to be logged, and whether to call `on_dropped`.
        self._reason = ""
        self._report_due = False
        #: How many dropped messages no consumer has been informed of.
        self._dropped_since = 0
        # In the order in which they came; a dict, as any of them may leave.
        self._consumers: dict[asyncio.Future[StoredMessage | None], None] = {}
        #: The same by their owners, of which there may be thousands.
        self._owners: dict[object, set[asyncio.Future[StoredMessage | None]]] = {}
        self._numbers = count()
        self._is_scheduled = False
        # Reentrant: an object that is garbage-collected during `put` may send a message.
        self._lock = threading.RLock()

    @property
    def bytes(self) -> int:
        """Bytes that the messages take, those that consumers may still give back included."""
        return self._bytes

    @property
    def consumers(self) -> int:
        """How many consumers wait for a message."""
        return len(self._consumers)

    @property
    def dropped(self) -> int:
        """How many messages were dropped: too many of them, or impossible to send."""
        return self._dropped.count

    def bus_diagram_nodes(self) -> list[DiagramNode]:
        """How `Bus.show_network` draws it."""
        return [DiagramNode("connection", "queue for other processes")]

    @remote_sink
    def put(self, message: Message) -> None:
        """Keep a message, or hand it to a waiting consumer. From any thread.

        Raises:
            TypeError, ValueError: an argument cannot be packed; the message counts as dropped.
        """
        try:
            stored = self._packer.pack(message)
        except Exception:
            with self._lock:
                self._count_dropped(1, "a message cannot be packed")
            self._report_dropped(message)
            raise
        with self._lock:
            if self.is_closed:
                return
            stored.number = next(self._numbers)
            if stored.size > self.maxbytes:
                # No other message makes way for one that does not fit anyway.
                self._count_dropped(1, f"a message of {stored.size:,} bytes is too large")
            else:
                self._kept.append(stored)
                self._bytes += stored.size
                self._drop_oldest()
                self._schedule()
        self._report_dropped(message)

    def take(self) -> StoredMessage | None:
        """Take the oldest message, or ``None``."""
        with self._lock:
            return self._pop() if self._kept or self._returned else None

    async def get(self, timeout: float | None, owner: object = None) -> StoredMessage | None:
        """Wait for a message; consumers are served in the order in which they came.

        Args:
            timeout: seconds; ``None`` for no limit.
            owner: what `dismiss` names it by.

        Returns:
            The message, or ``None`` when the time is over, the consumer was dismissed or the queue
            closed. When cancelled, it leaves the message where it was.
        """
        with self._lock:
            if self.is_closed:
                return None
            if (self._kept or self._returned) and not self._consumers:
                return self._pop()
            consumer: asyncio.Future[StoredMessage | None] = self._loop.create_future()
            self._consumers[consumer] = None
            owned = self._owners.setdefault(owner, set())
            owned.add(consumer)
            self._schedule()
        # No `asyncio.wait`: ten thousand may wait here.
        timer = None
        if timeout is not None:
            timer = self._loop.call_later(timeout, _give_up, consumer)
        try:
            return await consumer
        except asyncio.CancelledError:
            if consumer.done() and not consumer.cancelled():
                stored = consumer.result()
                if stored is not None:
                    self.put_back(stored)
            raise
        finally:
            self._consumers.pop(consumer, None)
            owned.discard(consumer)
            if not owned:
                self._owners.pop(owner, None)
            if timer is not None:
                timer.cancel()

    def hold(self, stored: StoredMessage) -> None:
        """Count a message that a consumer has got, until `release`, as one of the queue's."""
        with self._lock:
            self._held += 1
            self._bytes += stored.size

    def release(self, stored: StoredMessage) -> None:
        """Undo one `hold`."""
        with self._lock:
            self._held -= 1
            self._bytes -= stored.size

    def put_back(self, stored: StoredMessage, delay: float = 0.0) -> None:
        """Return a message to its old place, before newer ones.

        Args:
            delay: seconds after which it is there; it counts as one of the queue's meanwhile.
        """
        with self._lock:
            self._dropped_since += stored.dropped
            stored.dropped = 0
            if self.is_closed:
                self._count_dropped(1, "closed before a message came back")
            elif delay > 0:
                timer = self._loop.call_later(delay, self._delay_over, stored)
                self._delayed[stored] = timer
                self._bytes += stored.size
            else:
                self._return(stored)
        self._report_dropped()

    def _delay_over(self, stored: StoredMessage) -> None:
        with self._lock:
            del self._delayed[stored]
            self._bytes -= stored.size
            self._return(stored)
        self._report_dropped()

    def _return(self, stored: StoredMessage) -> None:
        # Several may come back, in any order.
        heapq.heappush(self._returned, (stored.number, stored))
        self._bytes += stored.size
        self._drop_oldest()
        self._schedule()

    def discard(self, stored: StoredMessage, reason: str | None = None) -> None:
        """Count a message as dropped.

        Args:
            reason: for the log; ``None``: it cannot be sent.
        """
        with self._lock:
            self._dropped_since += stored.dropped
            self._count_dropped(1, reason or f"a message {stored.id} cannot be sent")
        self._report_dropped()

    def dismiss(self, owner: object) -> None:
        """End the waiting of one owner's consumers, without a message."""
        with self._lock:
            dismissed = self._owners.pop(owner, set())
            for consumer in dismissed:
                self._consumers.pop(consumer, None)
        for consumer in dismissed:
            _give_up(consumer)

    def message(self, stored: StoredMessage) -> Message:
        """Unpack a stored message."""
        return self._packer.message(stored)

    def arguments(self, stored: StoredMessage) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Unpack the positional and keyword arguments of a stored message."""
        return self._packer.arguments(stored)

    def close(self) -> None:
        """Drop what is kept, and end the waiting of all consumers without a message."""
        with self._lock:
            self.is_closed = True
            if len(self):
                self._count_dropped(len(self), "closed with messages left")
            self._kept.clear()
            self._returned.clear()
            for timer in self._delayed.values():
                timer.cancel()
            self._delayed.clear()
            self._bytes = 0
            consumers = list(self._consumers)
            self._consumers.clear()
        for consumer in consumers:
            _give_up(consumer)
        self._report_dropped()

    def __len__(self) -> int:
        return len(self._returned) + len(self._kept) + len(self._delayed)

    def __repr__(self) -> str:
        return f"<remote queue {self.identifier}>"

    def _pop(self) -> StoredMessage:
        stored = self._pop_oldest()
        stored.dropped, self._dropped_since = self._dropped_since, 0
        return stored

    def _pop_oldest(self) -> StoredMessage:
        stored = heapq.heappop(self._returned)[1] if self._returned else self._kept.popleft()
        self._bytes -= stored.size
        return stored

    def _drop_oldest(self) -> None:
        dropped = 0
        # What consumers hold or is delayed cannot make way.
        while (self._kept or self._returned) and (
            len(self) + self._held > self.maxsize or self._bytes > self.maxbytes
        ):
            self._pop_oldest()
            dropped += 1
        if dropped:
            is_long = len(self) + self._held >= self.maxsize
            bound = f"{self.maxsize:,} messages" if is_long else f"{self.maxbytes:,} bytes"
            self._count_dropped(dropped, f"full with {bound}")

    def _count_dropped(self, count: int, reason: str) -> None:
        self._dropped_since += count
        self._report_due |= self._dropped.add(count)
        self._reason = reason

    def _report_dropped(self, message: Message | None = None) -> None:
        """Log what was dropped, and call `on_dropped` if it is due.

        Nothing is locked, as both may send messages.

        Args:
            message: what came. A report is not reported: queues that keep all messages would
                report to each other without end.
        """
        if not self._reason:
            return
        with self._lock:
            reason, self._reason = self._reason, ""
            is_due, self._report_due = self._report_due, False
        if reason:
            logger.warning(
                "remote queue %s: %s, %d dropped so far", self.identifier, reason, self.dropped
            )
        is_report = message is not None and message.id == DROPPED
        if is_due and not is_report and self._on_dropped is not None:
            self._on_dropped(self)

    def _schedule(self) -> None:
        if self._is_scheduled or not (self._consumers and (self._kept or self._returned)):
            return
        self._is_scheduled = True
        try:
            self._loop.call_soon_threadsafe(self._hand_out)
        except RuntimeError:
            # The loop was closed while another thread sent its last message.
            self.is_closed = True

    def _hand_out(self) -> None:
        with self._lock:
            self._is_scheduled = False
            while self._consumers and (self._kept or self._returned):
                consumer = next(iter(self._consumers))
                del self._consumers[consumer]
                # A cancelled one has not run since.
                if not consumer.done():
                    consumer.set_result(self._pop())


def _give_up(consumer: "asyncio.Future[StoredMessage | None]") -> None:
    if not consumer.done():
        consumer.set_result(None)


class RemoteQueues:
    """Opens queues on a bus, and closes each when its last owner leaves.

    Args:
        gateway: of the bus whose messages are kept.
        origin: the origin of events about the queues on the bus.
        maxsize, maxbytes: the bounds of each queue.
    """

    def __init__(self, gateway: Gateway, origin: str, maxsize: int, maxbytes: int) -> None:
        self._gateway = gateway
        self._origin = origin
        self._maxsize = maxsize
        self._maxbytes = maxbytes
        self._packer = MessagePacker()
        #: How many connections have each queue.
        self._owners: dict[RemoteQueue, int] = {}
        self._shared: dict[Identifier, RemoteQueue] = {}
        #: Messages that closed queues have dropped.
        self._dropped = 0

    def open(self, identifier: Identifier, shared: bool) -> RemoteQueue:
        """Open a queue that follows `identifier` from now on.

        Args:
            shared: whether it is the one queue of all who ask for a shared one of this identifier.
        """
        queue = self._shared.get(identifier) if shared else None
        if queue is None:
            queue = RemoteQueue(
                identifier,
                self._maxsize,
                self._maxbytes,
                packer=self._packer,
                on_dropped=self._report_dropped,
            )
            # Local messages stay here, whatever wildcards the queue has.
            self._gateway.follow(identifier, queue.put, _is_exportable)
            if shared:
                self._shared[identifier] = queue
        self._owners[queue] = self._owners.get(queue, 0) + 1
        return queue

    def leave(self, queue: RemoteQueue, owner: object) -> None:
        """Undo one `open`.

        Args:
            owner: the owner whose `RemoteQueue.get` ends now, without a message.
        """
        self._owners[queue] -= 1
        if self._owners[queue]:
            queue.dismiss(owner)
            return
        del self._owners[queue]
        if self._shared.get(queue.identifier) is queue:
            del self._shared[queue.identifier]
        self._gateway.unfollow(queue.identifier, queue.put)
        queue.close()
        self._dropped += queue.dropped

    @property
    def waiting(self) -> int:
        """How many messages wait in all queues."""
        return sum(map(len, self._owners))

    @property
    def dropped(self) -> int:
        """How many messages all queues have dropped, closed ones included."""
        return self._dropped + sum(queue.dropped for queue in self._owners)

    def __iter__(self) -> Iterator[RemoteQueue]:
        return iter(self._owners)

    def _report_dropped(self, queue: RemoteQueue) -> None:
        about = {"identifier": str(queue.identifier), "count": queue.dropped}
        # As `Router.report` does it: no other node gets it.
        self._gateway.relay(DROPPED, (), about, self._origin)


def _is_exportable(message: Message) -> bool:
    return not message.name.startswith("_")
