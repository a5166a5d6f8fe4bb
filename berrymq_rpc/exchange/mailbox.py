"""The queue of style 03: messages that wait at a node until a consumer elsewhere asks for them."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any

from ..bus import Message
from ..bus.diagram import DiagramNode
from ..bus.registrations import remote_sink
from ..identifier import Identifier
from .parcel import Packer, Parcel

__all__ = ["MAX_BYTES", "MAX_MESSAGES", "Mailbox"]

logger = logging.getLogger("berrymq_rpc.exchange")

#: Messages kept for a consumer that does not come: some MB of small ones.
MAX_MESSAGES = 10_000

#: Bytes of the same, for large ones: as many as a line keeps.
MAX_BYTES = 64 << 20


class Mailbox:
    """Messages, first in, first out, each for one consumer.

    Any thread may `put`; all else belongs to the event loop on which it was made.

    Args:
        identifier: the messages that are kept, for logs.
        maxsize: how many at most; when one more comes, the oldest is dropped.
        maxbytes: bytes that they may take; over it, the oldest are dropped.
        packer: makes parcels of messages.
        told: called with the mailbox after messages were dropped, once for the 1st, 2nd, 4th,
            8th and so on; in the thread that sent the last one.

    Attributes:
        dropped: how many messages were dropped: too many of them, or no way to send them.
    """

    def __init__(
        self,
        identifier: Identifier,
        maxsize: int = MAX_MESSAGES,
        maxbytes: int = MAX_BYTES,
        *,
        packer: Packer | None = None,
        told: Callable[["Mailbox"], object] | None = None,
    ) -> None:
        self.identifier = identifier
        self.maxsize = maxsize
        self.maxbytes = maxbytes
        self.dropped = 0
        self.is_closed = False
        self._packer = Packer() if packer is None else packer
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._kept: deque[Parcel] = deque()
        #: What the kept ones take.
        self._bytes = 0
        #: How many of the dropped ones no consumer was told of, and how many `told` was not.
        self._untold = 0
        self._tell_at = 1
        # In the order in which they came; a dict, as any of them may leave.
        self._consumers: dict[asyncio.Future[Parcel | None], object] = {}
        self._numbers = count()
        self._is_scheduled = False
        # Reentrant: an object that is collected in the middle of `put` may send a message.
        self._lock = threading.RLock()

    def bus_diagram_nodes(self) -> list[DiagramNode]:
        """How `Bus.show_network` draws it."""
        return [DiagramNode("connection", "queue for other processes")]

    @remote_sink
    def put(self, message: Message) -> None:
        """Keep a message, or hand it to a consumer that waits. From any thread.

        Raises:
            TypeError, ValueError: an argument cannot travel; the message is counted as dropped.
        """
        try:
            parcel = self._packer.pack(message)
        except Exception:
            with self._lock:
                self._count_dropped(1, "a message cannot travel")
            self._tell()
            raise
        with self._lock:
            if self.is_closed:
                return
            parcel.number = next(self._numbers)
            if parcel.size > self.maxbytes:
                # Nobody else's message makes way for one that does not fit anyway.
                self._count_dropped(1, f"a message of {parcel.size:,} bytes is too large")
            else:
                self._kept.append(parcel)
                self._bytes += parcel.size
                self._drop_oldest()
                self._schedule()
        self._tell()

    def take(self) -> Parcel | None:
        """The oldest message, or ``None``."""
        with self._lock:
            return self._pop() if self._kept else None

    async def get(self, timeout: float | None, owner: object = None) -> Parcel | None:
        """Wait for a message; consumers are served in the order in which they came.

        Args:
            timeout: seconds; ``None`` for no limit.
            owner: what to name to `dismiss` it.

        Returns:
            The parcel, or ``None`` when the time is over, it was dismissed or the mailbox closed.
            When cancelled, it leaves the message where it was.
        """
        with self._lock:
            if self.is_closed:
                return None
            if self._kept and not self._consumers:
                return self._pop()
            consumer: asyncio.Future[Parcel | None] = self._loop.create_future()
            self._consumers[consumer] = owner
            self._schedule()
        # No `asyncio.wait`: ten thousand may wait here.
        timer = None
        if timeout is not None:
            timer = self._loop.call_later(timeout, _give_up, consumer)
        try:
            return await consumer
        except asyncio.CancelledError:
            if consumer.done() and not consumer.cancelled():
                parcel = consumer.result()
                if parcel is not None:
                    self.put_back(parcel)
            raise
        finally:
            self._consumers.pop(consumer, None)
            if timer is not None:
                timer.cancel()

    def put_back(self, parcel: Parcel) -> None:
        """Return a message whose consumer went away, to where it came from: before the others."""
        with self._lock:
            if self.is_closed:
                return
            self._untold += parcel.dropped
            parcel.dropped = 0
            place = 0
            # Several may come back, in any order.
            while place < len(self._kept) and self._kept[place].number < parcel.number:
                place += 1
            self._kept.insert(place, parcel)
            self._bytes += parcel.size
            self._drop_oldest()
            self._schedule()
        self._tell()

    def discard(self, parcel: Parcel) -> None:
        """Count a message that cannot be sent."""
        with self._lock:
            self._untold += parcel.dropped
            self._count_dropped(1, f"a message {parcel.id} cannot be sent")
        self._tell()

    def dismiss(self, owner: object) -> None:
        """Let the consumers of one owner go with nothing."""
        with self._lock:
            dismissed = [c for c, whose in self._consumers.items() if whose is owner]
            for consumer in dismissed:
                del self._consumers[consumer]
        for consumer in dismissed:
            _give_up(consumer)

    def message(self, parcel: Parcel) -> Message:
        """The message of a parcel."""
        return self._packer.message(parcel)

    def arguments(self, parcel: Parcel) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The positional and keyword arguments of a parcel's message."""
        return self._packer.arguments(parcel)

    def close(self) -> None:
        """Drop what is kept, and let the consumers go with nothing."""
        with self._lock:
            self.is_closed = True
            if self._kept:
                self._count_dropped(len(self._kept), "closed with messages that nobody got")
            self._kept.clear()
            self._bytes = 0
            consumers = list(self._consumers)
            self._consumers.clear()
        for consumer in consumers:
            _give_up(consumer)
        self._tell()

    def __len__(self) -> int:
        return len(self._kept)

    def __repr__(self) -> str:
        return f"<remote queue {self.identifier}>"

    def _pop(self) -> Parcel:
        parcel = self._kept.popleft()
        self._bytes -= parcel.size
        parcel.dropped, self._untold = self._untold, 0
        return parcel

    def _drop_oldest(self) -> None:
        dropped = 0
        while len(self._kept) > self.maxsize or self._bytes > self.maxbytes:
            self._bytes -= self._kept.popleft().size
            dropped += 1
        if dropped:
            is_long = len(self._kept) >= self.maxsize
            bound = f"{self.maxsize:,} messages" if is_long else f"{self.maxbytes:,} bytes"
            self._count_dropped(dropped, f"full with {bound}")

    def _count_dropped(self, count: int, reason: str) -> None:
        self.dropped += count
        self._untold += count
        # At 1, 2, 4, 8...: a consumer that never comes must not fill the log instead.
        if self.dropped.bit_length() > (self.dropped - count).bit_length():
            logger.warning(
                "remote queue %s: %s, %d dropped so far", self.identifier, reason, self.dropped
            )

    def _tell(self) -> None:
        """Tell of what was dropped, when nothing is locked: whoever hears of it may send."""
        with self._lock:
            if self.dropped < self._tell_at:
                return
            self._tell_at = 1 << self.dropped.bit_length()
        if self._told is not None:
            self._told(self)

    def _schedule(self) -> None:
        if not (self._kept and self._consumers) or self._is_scheduled:
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
            while self._kept and self._consumers:
                consumer = next(iter(self._consumers))
                del self._consumers[consumer]
                # One that was cancelled has yet to learn of it.
                if not consumer.done():
                    consumer.set_result(self._pop())


def _give_up(consumer: "asyncio.Future[Parcel | None]") -> None:
    if not consumer.done():
        consumer.set_result(None)
