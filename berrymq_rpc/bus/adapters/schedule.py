"""When the ticks of an interval are due."""

import math

__all__ = ["Schedule"]


class Schedule:
    """Tick `n` is due `n` intervals after the start. It asks for no time.

    Args:
        start: when it begins.
        seconds: from one tick to the next.

    Attributes:
        count: the number of the last tick that was due, from 1 on.
        skipped: how many ticks were over before they could be sent.
    """

    __slots__ = ("_seconds", "_start", "count", "skipped")

    def __init__(self, start: float, seconds: float) -> None:
        self._start = start
        self._seconds = seconds
        self.count = 0
        self.skipped = 0

    @property
    def due(self) -> float:
        """When the next tick is due."""
        return self._start + (self.count + 1) * self._seconds

    def advance(self, now: float) -> None:
        """Take the tick that is due, and skip those before it.

        Args:
            now: when it is sent. A clock may wake its user a little before the time.
        """
        number = max(self.count + 1, math.floor((now - self._start) / self._seconds))
        self.skipped += number - self.count - 1
        self.count = number
