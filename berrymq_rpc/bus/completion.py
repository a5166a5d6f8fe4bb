"""The end of all receivers of a message, for one who waits for it on an event loop."""

import threading
from typing import Any

from .arrival import Arrival

__all__ = ["Completion"]


class Completion:
    """Counts the receivers that have ended, in any thread. Made and awaited in a task."""

    __slots__ = ("_arrival", "_ended", "_expected", "_lock")

    def __init__(self) -> None:
        self._arrival = Arrival()
        self._ended = 0
        self._expected: int | None = None
        # Reentrant: garbage collection may end a receiver at any point.
        self._lock = threading.RLock()

    def ended(self, result: Any, error: BaseException | None) -> None:
        """One more has ended."""
        with self._lock:
            self._ended += 1
            is_complete = self._ended == self._expected
        if is_complete:
            self._arrival.wake()

    async def wait(self, expected: int) -> None:
        """Wait until so many have ended."""
        with self._lock:
            self._expected = expected
            is_complete = self._ended >= expected
        if not is_complete:
            await self._arrival.wait()
