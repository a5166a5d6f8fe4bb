"""The queue of texts to send to one peer of a listener."""

import asyncio
from collections import deque

from .places import Place

__all__ = ["ROOM", "WriteQueue"]

#: Bytes that may wait before a subscription pauses, and reading from the peer. A socket holds some
#: hundred KiB more. Answers are never refused.
ROOM = 256 << 10


class WriteQueue:
    """Texts on their way to a peer, first in, first out. Belongs to one event loop.

    Args:
        place: of the connection, which counts the bytes.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._texts: deque[bytes] = deque()
        self._size = 0
        self._is_closed = False
        self._filled = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    @property
    def size(self) -> int:
        """Bytes that wait, with those of the text that is being sent."""
        return self._size

    def put(self, text: bytes) -> bool:
        """Add a text; return whether the peer is connected."""
        if self._is_closed:
            return False
        self._texts.append(text)
        self._size += len(text)
        self._filled.set()
        self._is_empty.clear()
        if self._size > ROOM:
            self._has_room.clear()
        self._place.resize(len(text))
        return True

    async def next(self) -> bytes | None:
        """Wait for the next text to send; ``None`` once it is closed and empty."""
        while not self._texts:
            if self._is_closed:
                return None
            self._filled.clear()
            await self._filled.wait()
        return self._texts.popleft()

    def sent(self, text: bytes) -> None:
        """Count the text that `next` returned as sent."""
        # Nothing of it counts any more where the queue was dropped meanwhile.
        size = min(len(text), self._size)
        self._size -= size
        self._place.resize(-size)
        if self._size <= ROOM:
            self._has_room.set()
        if not self._texts:
            self._is_empty.set()

    async def room(self) -> None:
        """Wait until there is room for more, or it is closed."""
        await self._has_room.wait()

    async def drained(self) -> None:
        """Wait until all was sent."""
        await self._is_empty.wait()

    def close(self) -> None:
        """Accept nothing more; what is queued is still sent."""
        self._is_closed = True
        self._filled.set()
        self._has_room.set()

    def drop(self) -> None:
        """Accept nothing more and discard the queue: the peer is gone."""
        self._texts.clear()
        self._place.resize(-self._size)
        self._size = 0
        self._is_empty.set()
        self.close()
