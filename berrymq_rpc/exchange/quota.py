"""How many bytes the queues of one peer may take, and those of all peers together."""

import threading
from collections.abc import Iterator
from operator import attrgetter
from typing import Generic, Protocol, TypeVar

__all__ = ["PEER_SHARE", "AllBytes", "PeerBytes", "Quota", "share_of"]

#: The part of all places and bytes that one peer may have: ten peers that behave badly are needed
#: to take all, and one may still have a thousand connections of ten thousand.
PEER_SHARE = 0.1


def share_of(whole: int, share: float) -> int:
    """What one peer may have of `whole`: at least one."""
    return max(1, int(whole * share))


class Member(Protocol):
    """What takes bytes: a queue, or all queues of one peer.

    Attributes:
        movable: bytes that can make way for others.
    """

    @property
    def movable(self) -> int: ...


class QueueLike(Member, Protocol):
    """A queue, as its bytes are counted."""

    def drop(self, whose: str, limit: int) -> bool:
        """Drop the oldest message, if there is one that can make way."""


M = TypeVar("M", bound=Member)


class Quota(Generic[M]):
    """The bytes of several members, with a bound on all of them together.

    It adds up; the members change `bytes` and `fixed` as they change their own.

    Args:
        limit: how many bytes at most.

    Attributes:
        bytes: what the members take now.
        fixed: the part of it that cannot make way.
        members: the members, as the keys.
    """

    __slots__ = ("_largest", "bytes", "fixed", "limit", "members")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self.fixed = 0
        self.members: dict[M, None] = {}
        self._largest: M | None = None

    @property
    def movable(self) -> int:
        """Bytes that can make way for others."""
        return self.bytes - self.fixed

    @property
    def is_over(self) -> bool:
        """Whether something has to make way."""
        return self.bytes > self.limit

    def victim(self, newest: M | None) -> M:
        """The member that has to make way: one that has at least as much as the members on average.

        Args:
            newest: the member that has just grown; it is taken if it has so much. ``None``: none
                of these.
        """
        average = self.movable / len(self.members)
        if newest is not None and newest.movable >= average:
            return newest
        largest = self._largest
        if largest is None or largest not in self.members or largest.movable < average:
            # There is one with so much, as it is the average; it remains for some time.
            largest = self._largest = max(self.members, key=attrgetter("movable"))
        return largest


class PeerBytes(Quota[QueueLike]):
    """What the queues of one peer take.

    Attributes:
        of_all: what the queues of all peers take.
        opened: how many queues the peer has opened, shared ones that count for another included.
    """

    __slots__ = ("of_all", "opened")

    def __init__(self, limit: int, of_all: "AllBytes") -> None:
        super().__init__(limit)
        self.of_all = of_all
        self.opened = 0
        of_all.members[self] = None


class AllBytes(Quota[PeerBytes]):
    """What the queues of all peers take.

    Attributes:
        lock: held while anything about the queues changes.
        dropped: how many messages all of them have dropped so far.
    """

    __slots__ = ("dropped", "lock")

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        # Reentrant: an object that is garbage-collected during `put` may send a message.
        self.lock = threading.RLock()
        self.dropped = 0

    def make_room(self, newest: QueueLike, of_peer: PeerBytes) -> Iterator[QueueLike]:
        """Drop messages until all bounds are kept; yield the queues that did.

        Args:
            newest: the queue that has just grown.
            of_peer: its peer's.
        """
        while of_peer.is_over:
            victim = of_peer.victim(newest)
            if not victim.drop("the queues of its peer", of_peer.limit):
                break
            yield victim
        while self.is_over:
            peer = self.victim(of_peer)
            victim = peer.victim(newest if peer is of_peer else None)
            if not victim.drop("all queues", self.limit):
                break
            yield victim
