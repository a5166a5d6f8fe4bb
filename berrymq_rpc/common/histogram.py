"""How long things took: counts in fixed buckets, from which percentiles are estimated."""

from bisect import bisect_left
from typing import Any

__all__ = ["BOUNDS", "Histogram"]

#: The upper bounds of the buckets in seconds, six for each power of ten, from 10 µs to 100 s. They
#: are the same everywhere, so that histograms of several processes can be added. A percentile is
#: off by a third of its value at most.
BOUNDS = (
    *(float(f"{step}e{power}") for power in range(-5, 2) for step in (1, 1.5, 2, 3, 5, 7)),
    100.0,
)


class Histogram:
    """Counts seconds in buckets.

    Attributes:
        counts: how many there are in each bucket of `BOUNDS`, and in one more for all above.
        total: their sum in seconds.
        greatest: the greatest of them.
    """

    __slots__ = ("counts", "greatest", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0
        self.greatest = 0.0

    @property
    def count(self) -> int:
        """How many there are in all."""
        return sum(self.counts)

    def add(self, seconds: float) -> None:
        """Count one, from 0 on."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds
        if seconds > self.greatest:
            self.greatest = seconds

    def merge(self, other: "Histogram") -> None:
        """Add what another has counted."""
        self.counts = [
            ours + theirs for ours, theirs in zip(self.counts, other.counts, strict=True)
        ]
        self.total += other.total
        self.greatest = max(self.greatest, other.greatest)

    def percentile(self, share: float) -> float | None:
        """Estimate the seconds that a share of all stay below.

        Between two bounds it is interpolated; it is never more than the greatest that was seen.

        Args:
            share: from 0 to 1, such as 0.99.

        Returns:
            Seconds; ``None`` while nothing was counted.
        """
        number = self.count
        if not number:
            return None
        wanted = share * number
        below = 0
        for index, count in enumerate(self.counts):
            if count and below + count >= wanted:
                least = BOUNDS[index - 1] if index else 0.0
                most = min(BOUNDS[index], self.greatest) if index < len(BOUNDS) else self.greatest
                return min(least + (most - least) * (wanted - below) / count, self.greatest)
            below += count
        return self.greatest

    def snapshot(self) -> dict[str, Any]:
        """Its figures as plain values: ``count``, ``total``, ``greatest``, ``p50``, ``p99``."""
        return {
            "count": self.count,
            "total": self.total,
            "greatest": self.greatest,
            "p50": self.percentile(0.5),
            "p99": self.percentile(0.99),
        }

    def __repr__(self) -> str:
        return f"<Histogram of {self.count}>"
