"""A short history of a counter: how fast it grew, for each of the last seconds."""

from collections import deque

__all__ = ["LENGTH", "PERIOD", "History"]

#: Seconds that a rate stands for.
PERIOD = 2.0

#: How many rates are kept: five minutes.
LENGTH = 150


class History:
    """The rates of a counter, the oldest first.

    Attributes:
        rates: per second, one for each `PERIOD`; at most `LENGTH`.
    """

    __slots__ = ("_last", "rates")

    def __init__(self) -> None:
        self.rates: deque[float] = deque(maxlen=LENGTH)
        self._last = 0

    def add(self, count: int, periods: int, seconds: float) -> None:
        """Take the counter as it is now.

        Args:
            count: the counter.
            periods: how many periods have ended since the last time; each gets the mean rate.
            seconds: how many seconds.
        """
        rate = (count - self._last) / seconds
        self._last = count
        self.rates.extend([rate] * min(periods, LENGTH))

    def snapshot(self) -> list[float]:
        """The rates, rounded to a thousandth."""
        return [round(rate, 3) for rate in self.rates]

    def __repr__(self) -> str:
        return f"<History of {len(self.rates)}>"
