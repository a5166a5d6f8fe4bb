"""Deadlines of calls: which call's time is over next."""

from collections.abc import Container, Sized
from heapq import heapify, heappop, heappush
from typing import Protocol

__all__ = ["Deadlines"]

#: Entries of calls that have ended are dropped in one go once they outnumber the living by so
#: many, which keeps the heap's size within a factor of the calls in flight.
SLACK = 256


class _Alive(Container[int], Sized, Protocol):
    """The table of calls in flight."""


class Deadlines:
    """A heap of deadlines of the calls in `alive`, a table that its owner keeps.

    A call that ends leaves its entry behind, to be skipped later: ending a call costs nothing.
    """

    __slots__ = ("_alive", "_heap")

    def __init__(self, alive: _Alive) -> None:
        self._alive = alive
        self._heap: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, when: float, call: int) -> None:
        """Note that the time of `call` is over at `when`, in seconds of the owner's clock."""
        heap = self._heap
        if len(heap) > 2 * len(self._alive) + SLACK:
            alive = self._alive
            heap[:] = [entry for entry in heap if entry[1] in alive]
            heapify(heap)
        heappush(heap, (when, call))

    def next(self) -> float | None:
        """When the next living call's time is over; ``None`` without one."""
        heap = self._heap
        while heap and heap[0][1] not in self._alive:
            heappop(heap)
        return heap[0][0] if heap else None

    def due(self, now: float) -> list[int]:
        """Take out the living calls whose time is over at `now`, earliest first."""
        heap = self._heap
        found = []
        while heap and heap[0][0] <= now:
            call = heappop(heap)[1]
            if call in self._alive:
                found.append(call)
        return found
