"""A queue that is bounded in items and in bytes."""

from collections import deque
from collections.abc import Iterator
from enum import Enum
from typing import Generic, TypeVar

__all__ = ["Bounded", "Overflow"]

T = TypeVar("T")


class Overflow(Enum):
    """What becomes of an item that a full buffer has no room for."""

    #: The oldest items make room for it, and are counted as dropped.
    DROP_OLDEST = "drop oldest"
    #: It is not taken, and its sender learns it.
    REFUSE = "refuse"
    #: The caller that puts it in waits for room.
    BLOCK = "block"
    #: The caller that puts it in does the work for it.
    CALLER_RUNS = "caller runs"


class Bounded(Generic[T]):
    """Items with their sizes, first in, first out.

    It has neither threads nor an event loop: for `Overflow.BLOCK` and `Overflow.CALLER_RUNS` it
    says only that there is no room, as for `Overflow.REFUSE`, and its user waits or does the work.

    Args:
        max_items: how many items at most; 0 for any number.
        max_bytes: bytes of all sizes together; 0 for any number.
        overflow: what becomes of an item over a bound.

    Attributes:
        bytes: what the items take together.
        dropped: how many items made room for newer ones.
    """

    __slots__ = ("_items", "bytes", "dropped", "max_bytes", "max_items", "overflow")

    def __init__(
        self, max_items: int = 0, max_bytes: int = 0, overflow: Overflow = Overflow.DROP_OLDEST
    ) -> None:
        self.max_items = max_items
        self.max_bytes = max_bytes
        self.overflow = overflow
        self.bytes = 0
        self.dropped = 0
        self._items: deque[tuple[T, int]] = deque()

    def put(self, item: T, size: int = 0) -> bool:
        """Add an item; return whether it was taken.

        With `Overflow.DROP_OLDEST` it always is, whatever its size, and older ones go.
        """
        if self.overflow is not Overflow.DROP_OLDEST and not self.has_room(size):
            return False
        items = self._items
        items.append((item, size))
        self.bytes += size
        if self.overflow is Overflow.DROP_OLDEST:
            while len(items) > 1 and self._is_over():
                self.bytes -= items.popleft()[1]
                self.dropped += 1
        return True

    def has_room(self, size: int = 0) -> bool:
        """Whether one more item of that size is within the bounds."""
        return not (
            (self.max_items and len(self._items) >= self.max_items)
            or (self.max_bytes and self.bytes + size > self.max_bytes)
        )

    def get(self) -> T:
        """Take the oldest item.

        Raises:
            IndexError: there is none.
        """
        item, size = self._items.popleft()
        self.bytes -= size
        return item

    def peek(self) -> T:
        """The oldest item, which stays.

        Raises:
            IndexError: there is none.
        """
        return self._items[0][0]

    def clear(self) -> int:
        """Forget all items; return how many there were."""
        count = len(self._items)
        self._items.clear()
        self.bytes = 0
        return count

    def _is_over(self) -> bool:
        return bool(
            (self.max_items and len(self._items) > self.max_items)
            or (self.max_bytes and self.bytes > self.max_bytes)
        )

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        return (item for item, _ in self._items)
