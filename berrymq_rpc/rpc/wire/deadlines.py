"""Deadlines of calls: which call expires next."""

from collections.abc import Container, Sized
from heapq import heapify, heappop, heappush
from typing import Protocol

__all__ = ["Deadlines"]

#: Entries of ended calls are dropped at once when there are so many more of them than of calls in
#: flight. This keeps the heap's size within a factor of the calls in flight.
SLACK = 256


class _Alive(Container[int], Sized, Protocol):
    """The table of calls in flight."""


class Deadlines:
    """A heap of the deadlines of the calls in `alive`, a table that the session keeps.

    A call that ends leaves its entry behind, which is skipped later: ending a call costs nothing.
    """

    __slots__ = ("_alive", "_heap")

    def __init__(self, alive: _Alive) -> None:
        self._alive = alive
        self._heap: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, when: float, call: int) -> None:
        """Add the deadline of `call`, in seconds of the session's clock."""
        heap = self._heap
        if len(heap) > 2 * len(self._alive) + SLACK:
            alive = self._alive
            heap[:] = [entry for entry in heap if entry[1] in alive]
            heapify(heap)
        heappush(heap, (when, call))

    def next(self) -> float | None:
        """The next deadline of a call in flight; ``None`` without one."""
        heap = self._heap
        while heap and heap[0][1] not in self._alive:
            heappop(heap)
        return heap[0][0] if heap else None

    def due(self, now: float) -> list[int]:
        """Remove and return the calls in flight that expire at `now`, earliest first."""
        heap = self._heap
        found = []
        while heap and heap[0][0] <= now:
            call = heappop(heap)[1]
            if call in self._alive:
                found.append(call)
        return found
