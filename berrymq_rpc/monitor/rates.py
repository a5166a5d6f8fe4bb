"""Rates: how fast counts grow, and how fast they did in the last minute."""

from collections import deque
from collections.abc import Mapping

__all__ = ["HISTORY", "Rates"]

#: Samples of the history of one name.
HISTORY = 60


class Rates:
    """The rates of counts that have names, and the history of each. Nothing here asks for the time.

    Args:
        max_names: of how many names at most. Over it, those are left out that have not grown for
            longest.
        history: how many samples are kept of each.
    """

    def __init__(self, max_names: int, history: int = HISTORY) -> None:
        self._max_names = max_names
        self._history = history
        self._at: float | None = None
        self._counts: dict[str, int] = {}
        #: In the order in which they have grown, those of the last sample last.
        self._rates: dict[str, deque[float]] = {}

    def sample(self, now: float, counts: Mapping[str, int]) -> None:
        """Take the counts as they are now.

        A count that is less than before has begun anew.

        Args:
            now: seconds, by a clock that does not go back.
        """
        before, self._at = self._at, now
        if before is None or now <= before:
            self._counts = dict(counts)
            for name in counts:
                self._rates.setdefault(name, deque(maxlen=self._history))
            self._forget()
            return
        seconds = now - before
        for name, rates in self._rates.items():
            if name not in counts:
                rates.append(0.0)
        for name, count in counts.items():
            grown = count - self._counts.get(name, 0)
            if grown < 0:
                grown = count
            rates = self._rates.get(name, deque(maxlen=self._history))
            rates.append(grown / seconds)
            if grown:
                self._rates.pop(name, None)
                self._rates[name] = rates
            else:
                self._rates.setdefault(name, rates)
        self._counts = dict(counts)
        self._forget()

    def _forget(self) -> None:
        while len(self._rates) > self._max_names:
            del self._rates[next(iter(self._rates))]

    def rate(self, name: str) -> float:
        """Events per second between the last two samples."""
        rates = self._rates.get(name)
        return rates[-1] if rates else 0.0

    def history(self, name: str) -> list[float]:
        """The rates of each pair of samples, the oldest first."""
        return list(self._rates.get(name, ()))

    def __len__(self) -> int:
        return len(self._rates)
