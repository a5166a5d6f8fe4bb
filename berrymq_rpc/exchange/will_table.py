"""The will table: the wills that peers have left with this node, and when each is due.

::

    held --all ways lost--> lost --not back in time--> asked --nobody has it--> published
     ^                       |                           |                          |
     +----a way is back------+--------somebody has it----+-------a way is back------+

A way is a connection with the node. While one of them reaches it, nothing is due. A way that is
closed in good order takes the will with it if there is no other.

Nothing here asks for the time: it is passed in as ``now``, in seconds.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from ..errors import OverloadedError
from .batch import PresenceBatch, Source

__all__ = ["ASK", "MAX_BYTES", "Due", "HeldWill", "WillTable"]

#: Seconds that other nodes have to say that they reach a node which is lost here.
ASK = 0.5

#: Seconds after which they are asked again, at least, where it was the node itself that answered.
ASK_AGAIN = 5.0

#: Seconds in which a connection is kept alive from its beginning on.
FIRST_PATIENCE = 5.0

#: Bytes of all wills.
MAX_BYTES = 64 << 20

#: Bytes that a will takes in addition, as an object.
OVERHEAD = 1000


class HeldWill:
    """The will of one node.

    Attributes:
        source: the node.
        id: what it is known by.
        round: how many of its wills were published before.
        delay: seconds that it has to come back.
        data, frames: the will, packed.
        identifier: of the will.
        user: who left it.
        account: whose bytes it takes.
        ways: the connections with the node, and whether each reaches it.
        lost_at: when it was lost, if its time is running.
        asked_at: when other nodes were asked whether they reach it, since then.
        is_published: whether its will was published, and it has not come back since.
    """

    __slots__ = (
        "account",
        "asked_at",
        "data",
        "delay",
        "frames",
        "id",
        "identifier",
        "is_published",
        "lost_at",
        "round",
        "source",
        "user",
        "ways",
    )

    def __init__(
        self, batch: PresenceBatch, identifier: str, user: str | None, account: Hashable
    ) -> None:
        presence = batch.presence
        assert presence is not None
        self.source: Source = presence.node
        self.id = presence.id
        self.round = presence.round
        self.delay = presence.delay
        self.data = batch.data
        self.frames: Sequence[bytes] = batch.frames
        self.identifier = identifier
        self.user = user
        self.account = account
        self.ways: dict[Hashable, bool] = {}
        self.lost_at: float | None = None
        self.asked_at: float | None = None
        self.is_published = False

    @property
    def is_reached(self) -> bool:
        """Whether there is a connection with the node now."""
        return any(self.ways.values())

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return len(self.data) + sum(map(len, self.frames)) + OVERHEAD

    @property
    def due(self) -> float | None:
        """When something is to be done about it; ``None`` for never."""
        if self.lost_at is None:
            return None
        if self.asked_at is None:
            return self.lost_at + max(0.0, self.delay - ASK)
        return max(self.lost_at + self.delay, self.asked_at + ASK)


class Due(NamedTuple):
    """What is to be done about a will now.

    Args:
        held: the will.
        is_over: whether to publish it; otherwise other nodes are to be asked.
    """

    held: HeldWill
    is_over: bool


class WillTable:
    """The wills, by what their nodes are known by.

    Args:
        max_bytes: bytes that all may take.
        max_account_bytes: bytes that those of one account may take.

    Attributes:
        refused: how many were refused, as there was no room.
    """

    def __init__(
        self, max_bytes: int = MAX_BYTES, max_account_bytes: int = MAX_BYTES // 10
    ) -> None:
        self.refused = 0
        self._max_bytes = max_bytes
        self._max_account_bytes = max_account_bytes
        self._wills: dict[str, HeldWill] = {}
        self._of_way: dict[Hashable, HeldWill] = {}
        #: Those whose time is running.
        self._lost: dict[str, HeldWill] = {}
        self._bytes = Counter[Hashable]()
        self._total = 0

    def hold(self, way: Hashable, will: HeldWill, now: float) -> HeldWill:
        """Keep the will of a node that is to be reached by a way, within `FIRST_PATIENCE`.

        Args:
            way: the connection.
            will: a new one; if the node has left one already, only the way is added to that.

        Returns:
            The one that is kept.

        Raises:
            ValueError: it is said to be of another node than before.
            OverloadedError: there is no room.
        """
        known = self._wills.get(will.id)
        if known is not None and (known.source, known.user) != (will.source, will.user):
            raise ValueError("this id is of another node")
        former = self._of_way.get(way)
        if former is not None and former is not known:
            self.release(way)
        if known is None:
            self._make_room(will)
            self._wills[will.id] = known = will
        known.round = max(known.round, will.round)
        known.ways.setdefault(way, False)
        self._of_way[way] = known
        if not known.is_reached and not known.is_published and known.lost_at is None:
            self._begin(known, now + FIRST_PATIENCE)
        return known

    def reached(self, way: Hashable) -> HeldWill | None:
        """Note that a way reaches its node; return the will if that had been published."""
        held = self._of_way.get(way)
        if held is None:
            return None
        held.ways[way] = True
        self._stop(held)
        was_published, held.is_published = held.is_published, False
        return held if was_published else None

    def lost(self, way: Hashable, now: float) -> None:
        """Note that a way does not reach its node any more."""
        held = self._of_way.get(way)
        if held is None or not held.ways[way]:
            return
        held.ways[way] = False
        if not held.is_reached and not held.is_published:
            self._begin(held, now)

    def release(self, way: Hashable) -> None:
        """Forget a way that was closed in good order, and the will if it was the last."""
        held = self._of_way.pop(way, None)
        if held is None:
            return
        del held.ways[way]
        if not held.ways:
            self.remove(held)

    def end(self, way: Hashable, now: float) -> None:
        """Forget a way that has ended without a word: it is lost for good."""
        self.lost(way, now)
        held = self._of_way.pop(way, None)
        if held is not None:
            del held.ways[way]
            self._remove_idle(held)

    def get(self, id: str) -> HeldWill | None:
        """The will of the node that is known by `id`."""
        return self._wills.get(id)

    def held_for(self, source: Source) -> HeldWill | None:
        """The will of a node that is reached, which is this one or was started after it."""
        for held in self._wills.values():
            if held.source[0] == source[0] and held.source[1] >= source[1] and held.is_reached:
                return held
        return None

    def restarted(self, source: Source, user: str | None) -> None:
        """Remove the wills of a node's former runs: it is back."""
        for held in list(self._wills.values()):
            name, epoch = held.source
            if name == source[0] and epoch < source[1] and held.user == user:
                self.remove(held)

    def remove(self, held: HeldWill) -> None:
        """Forget a will."""
        if self._wills.get(held.id) is not held:
            return
        del self._wills[held.id]
        self._lost.pop(held.id, None)
        for way in held.ways:
            self._of_way.pop(way, None)
        self._total -= held.size
        self._bytes[held.account] -= held.size
        if not self._bytes[held.account]:
            del self._bytes[held.account]

    def found(self, held: HeldWill, now: float, *, is_held: bool) -> None:
        """Note that another node reaches a node that is lost here.

        Args:
            is_held: whether that one will publish the will when the time comes.
        """
        if held.lost_at is None:
            return
        if is_held:
            self._stop(held)
            self._remove_idle(held)
        else:
            held.lost_at = now + max(0.0, ASK_AGAIN - held.delay)
            held.asked_at = None

    def restart(self, held: HeldWill, now: float) -> None:
        """Let the time of a lost node begin now."""
        self._begin(held, now)

    def published(self, held: HeldWill) -> None:
        """Note that the will was published, here or by another node."""
        held.is_published = True
        self._stop(held)
        self._remove_idle(held)

    def poll(self, now: float) -> list[Due]:
        """What is to be done now."""
        due: list[Due] = []
        for held in list(self._lost.values()):
            when = held.due
            if when is None or when > now:
                continue
            is_over = held.asked_at is not None
            if not is_over:
                held.asked_at = now
            due.append(Due(held, is_over))
        return due

    def next_due(self) -> float | None:
        """The time before which `poll` has nothing; ``None`` for never."""
        return min((held.due for held in self._lost.values() if held.due is not None), default=None)

    def clear(self) -> None:
        """Forget all."""
        self._wills.clear()
        self._of_way.clear()
        self._lost.clear()
        self._bytes.clear()
        self._total = 0

    def __len__(self) -> int:
        return len(self._wills)

    def _make_room(self, will: HeldWill) -> None:
        of_account = self._bytes[will.account] + will.size
        if of_account > self._max_account_bytes or self._total + will.size > self._max_bytes:
            self.refused += 1
            raise OverloadedError("too many wills are held here")
        self._bytes[will.account] = of_account
        self._total += will.size

    def _begin(self, held: HeldWill, now: float) -> None:
        held.lost_at, held.asked_at = now, None
        self._lost[held.id] = held

    def _stop(self, held: HeldWill) -> None:
        held.lost_at = held.asked_at = None
        self._lost.pop(held.id, None)

    def _remove_idle(self, held: HeldWill) -> None:
        """Forget a will that no way is left for, and whose time is not running."""
        if not held.ways and held.lost_at is None:
            self.remove(held)
