"""The queue of style 03: messages that wait at a node until a consumer elsewhere asks for them."""

import asyncio
import logging
import threading
from collections import deque
from itertools import count

from ..bus import Message
from ..identifier import Identifier

__all__ = ["MAXIMUM_MESSAGES", "Mailbox", "Parcel"]

logger = logging.getLogger("berrymq_rpc.exchange")

#: Messages kept for a consumer that does not come: some MB of small ones.
MAXIMUM_MESSAGES = 10_000


class Parcel:
    """A message on its way to one consumer.

    Attributes:
        number: its place among all that came into the mailbox.
        redelivered: whether it was sent to a consumer before, who did not say that it came.
    """

    __slots__ = ("message", "number", "redelivered")

    def __init__(self, message: Message, number: int) -> None:
        self.message = message
        self.number = number
        self.redelivered = False


class Mailbox:
    """Messages, first in, first out, each for one consumer.

    Any thread may `put`; all else belongs to the event loop on which it was made.

    Args:
        identifier: the messages that are kept, for logs.
        maxsize: how many at most; when one more comes, the oldest is dropped.

    Attributes:
        dropped: how many messages were dropped: too many of them, or no way to send them.
    """

    def __init__(self, identifier: Identifier, maxsize: int = MAXIMUM_MESSAGES) -> None:
        self.identifier = identifier
        self.maxsize = maxsize
        self.dropped = 0
        self.is_closed = False
        self._loop = asyncio.get_running_loop()
        self._kept: deque[Parcel] = deque()
        # In the order in which they came; a dict, as any of them may leave.
        self._consumers: dict[asyncio.Future[Parcel | None], None] = {}
        self._numbers = count()
        self._is_scheduled = False
        # Reentrant: an object that is collected in the middle of `put` may send a message.
        self._lock = threading.RLock()

    def put(self, message: Message) -> None:
        """Keep a message, or hand it to a consumer that waits. From any thread."""
        with self._lock:
            if self.is_closed:
                return
            overflow = len(self._kept) >= self.maxsize
            if overflow:
                self._kept.popleft()
            self._kept.append(Parcel(message, next(self._numbers)))
            if overflow:
                self._count_dropped()
            self._schedule()

    def take(self) -> Parcel | None:
        """The oldest message, or ``None``."""
        with self._lock:
            return self._kept.popleft() if self._kept else None

    async def get(self, timeout: float | None) -> Parcel | None:
        """Wait for a message; consumers are served in the order in which they came.

        Args:
            timeout: seconds; ``None`` for no limit.

        Returns:
            The parcel, or ``None`` when the time is over or the mailbox closed. When cancelled,
            it leaves the message where it was.
        """
        consumer: asyncio.Future[Parcel | None] = self._loop.create_future()
        with self._lock:
            if self.is_closed:
                return None
            if self._kept and not self._consumers:
                return self._kept.popleft()
            self._consumers[consumer] = None
            self._schedule()
        try:
            await asyncio.wait((consumer,), timeout=timeout)
        except asyncio.CancelledError:
            parcel = consumer.result() if consumer.done() else None
            if parcel is not None:
                self.put_back(parcel)
            raise
        finally:
            self._consumers.pop(consumer, None)
        return consumer.result() if consumer.done() else None

    def put_back(self, parcel: Parcel) -> None:
        """Return a message whose consumer went away, to where it came from: before the others."""
        with self._lock:
            if self.is_closed:
                return
            if len(self._kept) >= self.maxsize:
                # It is the oldest.
                self._count_dropped()
                return
            place = 0
            # Several may come back, in any order.
            while place < len(self._kept) and self._kept[place].number < parcel.number:
                place += 1
            self._kept.insert(place, parcel)
            self._schedule()

    def discard(self, parcel: Parcel) -> None:
        """Count a message that cannot be sent."""
        with self._lock:
            self._count_dropped(f"{parcel.message!r} cannot be sent")

    def close(self) -> None:
        """Drop what is kept, and let the consumers go with nothing."""
        with self._lock:
            self.is_closed = True
            self._kept.clear()
            consumers = list(self._consumers)
            self._consumers.clear()
        for consumer in consumers:
            consumer.set_result(None)

    def __len__(self) -> int:
        return len(self._kept)

    def _count_dropped(self, reason: str = "") -> None:
        self.dropped += 1
        # At 1, 2, 4, 8...: a consumer that never comes must not fill the log instead.
        if self.dropped.bit_count() == 1:
            logger.warning(
                "remote queue %s: %s, %d dropped so far",
                self.identifier,
                reason or f"full with {self.maxsize:,} messages",
                self.dropped,
            )

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
                consumer.set_result(self._kept.popleft())
