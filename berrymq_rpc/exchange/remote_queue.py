"""A queue that a node keeps for other processes (style 03): messages wait until a consumer asks."""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

from ..bus import Message
from ..bus.diagram import DiagramNode
from ..bus.registrations import remote_sink
from ..common.tally import Tally
from ..identifier import Identifier
from ..runtime.log import Log
from .quota import AllBytes, PeerBytes
from .stored_message import MessagePacker, StoredMessage

__all__ = ["DROPPED", "MAX_BYTES", "MAX_MESSAGES", "RemoteQueue"]

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
        max_messages: how many at most; when one more comes, the oldest is dropped.
        max_bytes: bytes that they may take; over it, the oldest are dropped.
        bytes_of_peer: the bytes of all queues of the same peer; ``None``: there is only this one.
        packer: packs and unpacks the messages.
        on_dropped: called with the queue after messages were dropped, when their number has
            reached 1, 2, 4, 8 and so on; in the thread that sent the last one.
    """

    def __init__(
        self,
        identifier: Identifier,
        max_messages: int = MAX_MESSAGES,
        max_bytes: int = MAX_BYTES,
        *,
        bytes_of_peer: PeerBytes | None = None,
        packer: MessagePacker | None = None,
        on_dropped: Callable[["RemoteQueue"], object] | None = None,
    ) -> None:
        self.identifier = identifier
        self.max_messages = max_messages
        self.max_bytes = max_bytes
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
        #: What all these take, and the part of it that is held or delayed: it cannot make way.
        self._bytes = 0
        self._fixed = 0
        if bytes_of_peer is None:
            bytes_of_peer = PeerBytes(max_bytes, AllBytes(max_bytes))
        self._of_peer = bytes_of_peer
        self._of_all = bytes_of_peer.of_all
        self._of_peer.members[self] = None
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
        # One of all queues, as one may have to make way for another.
        self._lock = self._of_all.lock

    @property
    def bytes(self) -> int:
        """Bytes that the messages take, those that consumers may still give back included."""
        return self._bytes

    @property
    def movable(self) -> int:
        """Bytes of the messages that can make way for others."""
        return self._bytes - self._fixed

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
        stored.retained = message.retained
        victims: Iterable[RemoteQueue] = ()
        with self._lock:
            if self.is_closed:
                return
            stored.number = next(self._numbers)
            if stored.size > self.max_bytes or stored.size > self._of_peer.limit:
                # No other message makes way for one that does not fit anyway.
                self._count_dropped(1, f"a message of {stored.size:,} bytes is too large")
            else:
                self._kept.append(stored)
                self._count(stored.size)
                victims = self._make_room()
                self._schedule()
        self._report_dropped(message, victims)

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
            self._count(stored.size, is_fixed=True)

    def release(self, stored: StoredMessage) -> None:
        """Undo one `hold`."""
        with self._lock:
            self._held -= 1
            self._count(-stored.size, is_fixed=True)

    def put_back(self, stored: StoredMessage, delay: float = 0.0) -> None:
        """Return a message to its old place, before newer ones.

        Args:
            delay: seconds after which it is there; it counts as one of the queue's meanwhile.
        """
        victims: Iterable[RemoteQueue] = ()
        with self._lock:
            self._dropped_since += stored.dropped
            stored.dropped = 0
            if self.is_closed:
                self._count_dropped(1, "closed before a message came back")
            elif delay > 0:
                timer = self._loop.call_later(delay, self._delay_over, stored)
                self._delayed[stored] = timer
                self._count(stored.size, is_fixed=True)
            else:
                victims = self._return(stored)
        self._report_dropped(victims=victims)

    def _delay_over(self, stored: StoredMessage) -> None:
        with self._lock:
            del self._delayed[stored]
            self._count(-stored.size, is_fixed=True)
            victims = self._return(stored)
        self._report_dropped(victims=victims)

    def _return(self, stored: StoredMessage) -> "Iterable[RemoteQueue]":
        # Several may come back, in any order.
        heapq.heappush(self._returned, (stored.number, stored))
        self._count(stored.size)
        victims = self._make_room()
        self._schedule()
        return victims

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
            # Nothing is held any more.
            self._count(-self._fixed, is_fixed=True)
            self._count(-self._bytes)
            self._of_peer.members.pop(self, None)
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
        self._count(-stored.size)
        return stored

    def _count(self, size: int, is_fixed: bool = False) -> None:
        """Add to the bytes of this queue, of all of its peer, and of all of all peers."""
        of_peer, of_all = self._of_peer, self._of_all
        self._bytes += size
        of_peer.bytes += size
        of_all.bytes += size
        if is_fixed:
            self._fixed += size
            of_peer.fixed += size
            of_all.fixed += size

    def _make_room(self) -> "Iterable[RemoteQueue]":
        """Drop the oldest messages where a bound is reached; return the other queues that did."""
        if (
            len(self._kept) + len(self._returned) + len(self._delayed) + self._held
            > self.max_messages
            or self._bytes > self.max_bytes
        ):
            self._drop_oldest()
        if self._of_peer.bytes <= self._of_peer.limit and self._of_all.bytes <= self._of_all.limit:
            return ()
        victims = set(self._of_all.make_room(self, self._of_peer))
        return [queue for queue in victims if isinstance(queue, RemoteQueue) and queue is not self]

    def drop(self, whose: str, limit: int) -> bool:
        """Drop the oldest message, as queues take too much together; return whether there was one.

        Args:
            whose: whose queues, for the log.
            limit: how much they may take.
        """
        if not (self._kept or self._returned):
            return False
        self._pop_oldest()
        self._count_dropped(1, f"{whose} are full with {limit:,} bytes")
        return True

    def move(self, bytes_of_peer: PeerBytes) -> None:
        """Let it count for another peer: the one for which it was opened has left it."""
        with self._lock:
            size, fixed = self._bytes, self._fixed
            self._count(-fixed, is_fixed=True)
            self._count(fixed - size)
            del self._of_peer.members[self]
            self._of_peer = bytes_of_peer
            bytes_of_peer.members[self] = None
            self._count(fixed, is_fixed=True)
            self._count(size - fixed)

    def _drop_oldest(self) -> None:
        dropped = 0
        # What consumers hold or is delayed cannot make way.
        while (self._kept or self._returned) and (
            len(self) + self._held > self.max_messages or self._bytes > self.max_bytes
        ):
            self._pop_oldest()
            dropped += 1
        if dropped:
            is_long = len(self) + self._held >= self.max_messages
            bound = f"{self.max_messages:,} messages" if is_long else f"{self.max_bytes:,} bytes"
            self._count_dropped(dropped, f"full with {bound}")

    def _count_dropped(self, count: int, reason: str) -> None:
        self._dropped_since += count
        self._of_all.dropped += count
        self._report_due |= self._dropped.add(count)
        self._reason = reason

    def _report_dropped(
        self, message: Message | None = None, victims: "Iterable[RemoteQueue]" = ()
    ) -> None:
        """Log what was dropped here and in other queues, and call `on_dropped` where it is due.

        Nothing is locked, as both may send messages.

        Args:
            message: what came. A report is not reported: queues that keep all messages would
                report to each other without end.
            victims: the other queues.
        """
        if self._reason:
            self._log_dropped(message)
        for queue in victims:
            queue._report_dropped(message)

    def _log_dropped(self, message: Message | None) -> None:
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
