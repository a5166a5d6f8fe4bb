"""The reorder buffer: take each message once and in its source's order, whatever its route.

Each link delivers the messages of a source in order, but one link may be ahead of another: a link
that was just opened begins where the peer is then, while earlier messages are still travelling
elsewhere. So a message that comes before its turn is held, until one of these is true:

* the missing ones have come,
* no link can deliver them: all have delivered later ones of the same source,
* the source has made no progress for `patience` seconds (`first_patience` for a new source),
* too much is held.

In all cases but the first the missing ones are a gap, which is returned to the caller. Those that a
link withholds, as this node may not get them, are no gap, and are waited for only while a link that
brings messages of this source may bring them: all links may in the first `first_patience` seconds
of a source. What comes after its turn is a duplicate, or counts as one.

Nothing here asks for the time: it is passed in as ``now``, in seconds.
"""

import heapq
from collections.abc import Hashable, Iterable
from itertools import count
from typing import NamedTuple, TypeAlias

from .batch import Batch, Source

__all__ = ["MAX_SOURCES", "Gap", "InOrder", "Outcome", "ReorderBuffer"]

#: Sources that are remembered. Each takes some 500 bytes, and 100 for each link.
MAX_SOURCES = 10_000

#: Messages and bytes that are held at most, over all sources.
MAX_HELD = 100_000
MAX_HELD_BYTES = 64 << 20

#: Seconds. Missing messages are rare: a longer time costs nothing, a shorter one loses what a busy
#: machine delays.
PATIENCE = 5.0

#: Seconds. A node that joins late misses the beginning of each source, and receives the rest after
#: this time at the latest.
FIRST_PATIENCE = 1.0


class InOrder(NamedTuple):
    """A batch that is next in its source's order.

    Args:
        batch: the batch.
        link: the link that delivered it.
        skip: how many of its messages were taken before.
    """

    batch: Batch
    link: Hashable
    skip: int


class Gap(NamedTuple):
    """Messages of a source that were missed: nothing waits for them any more."""

    source: Source
    first: int
    last: int


Outcome: TypeAlias = InOrder | Gap
#: The number of the first message, the place among all, when and by which link it came, and what.
_Held: TypeAlias = tuple[int, int, float, Batch, Hashable]


class _Stream:
    """The progress of one source."""

    __slots__ = ("began", "firsts", "heard", "held", "moved", "next", "reached")

    def __init__(self) -> None:
        #: The number whose turn it is.
        self.next = 1
        #: A heap, by the number of the first message.
        self.held: list[_Held] = []
        #: The last number of each held batch, by its first.
        self.firsts: dict[int, int] = {}
        #: The last number that each link has delivered.
        self.reached: dict[Hashable, int] = {}
        self.heard = 0.0
        #: When its first message came.
        self.began = 0.0
        #: When a message was last taken in its turn.
        self.moved = 0.0


class ReorderBuffer:
    """What was taken from each source, and what is held until its turn.

    Args:
        max_sources: sources that are remembered. Over it, the sources that were idle for longest
            are forgotten, and a late duplicate of theirs is taken for new.
        patience, first_patience: seconds that a message waits for those before it.
        max_held, max_held_bytes: what may wait, over all sources.

    Attributes:
        duplicates: how many messages came that had been taken or missed before.
        missed: how many messages were missed.
    """

    def __init__(
        self,
        *,
        max_sources: int = MAX_SOURCES,
        patience: float = PATIENCE,
        first_patience: float = FIRST_PATIENCE,
        max_held: int = MAX_HELD,
        max_held_bytes: int = MAX_HELD_BYTES,
    ) -> None:
        self.duplicates = 0
        self.missed = 0
        self._max_sources = max_sources
        self._patience = patience
        self._first_patience = first_patience
        self._max_held = max_held
        self._max_held_bytes = max_held_bytes
        self._streams: dict[Source, _Stream] = {}
        #: Those with messages on hold.
        self._gaps: dict[Source, _Stream] = {}
        self._held = 0
        self._held_bytes = 0
        self._links: set[Hashable] = set()
        self._order = count()

    # -- links -----------------------------------------------------------------------------

    def add_link(self, link: Hashable) -> None:
        """Expect messages from a link from now on."""
        self._links.add(link)

    def remove_link(self, link: Hashable, now: float) -> list[Outcome]:
        """Expect no more from a link; return what becomes of messages that waited for it."""
        self._links.discard(link)
        for stream in self._streams.values():
            stream.reached.pop(link, None)
        return self._settle(list(self._gaps), now)

    def renew_link(self, link: Hashable) -> None:
        """Forget what a link has delivered, as another process may be at its other end."""
        for stream in self._streams.values():
            stream.reached.pop(link, None)

    # -- messages --------------------------------------------------------------------------

    def receive(self, link: Hashable, batch: Batch, now: float) -> list[Outcome]:
        """Take a batch that has arrived; return what is to be done now, in this order."""
        source = batch.source
        stream = self._streams.get(source)
        if stream is None:
            stream = self._begin(source, now)
        stream.heard = now
        first, last = batch.first, batch.first + batch.count - 1
        if link in self._links and last > stream.reached.get(link, 0):
            stream.reached[link] = last
        due = stream.next
        if first <= due <= last and not stream.held:
            # The common case.
            stream.next = last + 1
            stream.moved = now
            self.duplicates += due - first
            return [InOrder(batch, link, due - first)]
        if last < due:
            self.duplicates += batch.count
            # It may have been the last link that could have delivered the missing ones.
            return self._settle((source,), now) if stream.held else []
        if first > due:
            if stream.firsts.get(first, 0) >= last:
                self.duplicates += batch.count
                return self._settle((source,), now)
            stream.firsts[first] = last
            self._gaps[source] = stream
            heapq.heappush(stream.held, (first, next(self._order), now, batch, link))
            self._held += batch.count
            self._held_bytes += batch.size
            return self._settle((source,), now)
        stream.next = last + 1
        stream.moved = now
        self.duplicates += due - first
        return [InOrder(batch, link, due - first), *self._settle((source,), now)]

    def join(self, source: Source, first: int, now: float) -> None:
        """Take a source's messages from a number on: those before it are not missed.

        It changes nothing where messages are held, or later ones were taken.
        """
        stream = self._streams.get(source)
        if stream is None:
            stream = self._begin(source, now)
        if not stream.held and stream.next < first:
            stream.next = first
            stream.moved = now

    def expire(self, now: float) -> list[Outcome]:
        """Stop waiting for messages that have not arrived in time."""
        due = [source for source, stream in self._gaps.items() if self._deadline(stream) <= now]
        return self._settle(due, now)

    def next_expiry(self) -> float | None:
        """The time before which `expire` has nothing to do, or ``None`` for never."""
        return min(map(self._deadline, self._gaps.values()), default=None)

    def taken(self, source: Source) -> int:
        """Return the number up to which a source's messages were taken or missed."""
        stream = self._streams.get(source)
        return 0 if stream is None else stream.next - 1

    def is_holding(self, source: Source) -> bool:
        """Whether messages of a source wait for others."""
        return source in self._gaps

    @property
    def held(self) -> int:
        """How many messages wait for others."""
        return self._held

    @property
    def held_bytes(self) -> int:
        """Bytes that these take."""
        return self._held_bytes

    def __len__(self) -> int:
        return len(self._streams)

    # -- what is held ----------------------------------------------------------------------

    def _settle(self, sources: Iterable[Source], now: float) -> list[Outcome]:
        """Take the held batches that need not wait any more."""
        outcomes: list[Outcome] = []
        for source in sources:
            stream = self._gaps.get(source)
            if stream is None:
                continue
            while stream.held:
                first = stream.held[0][0]
                if first > stream.next:
                    if not self._is_lost(stream, first - 1, now):
                        break
                    # What this node may not get is not missed.
                    missed = first - _withheld(stream)
                    if stream.next < missed:
                        outcomes.append(Gap(source, stream.next, missed - 1))
                        self.missed += missed - stream.next
                    stream.next = first
                outcomes += self._release(stream)
            else:
                del self._gaps[source]
        return outcomes

    def _release(self, stream: _Stream) -> list[Outcome]:
        """Take the first held batch, whose turn it is or was."""
        first, _, _, batch, link = heapq.heappop(stream.held)
        stream.firsts.pop(first, None)
        self._held -= batch.count
        self._held_bytes -= batch.size
        skip = min(stream.next - first, batch.count)
        self.duplicates += skip
        if skip == batch.count:
            return []
        stream.next = first + batch.count
        return [InOrder(batch, link, skip)]

    def _is_lost(self, stream: _Stream, last: int, now: float) -> bool:
        """Whether to stop waiting for the messages up to `last`."""
        if (
            self._deadline(stream) <= now
            or self._held > self._max_held
            or self._held_bytes > self._max_held_bytes
            # Sources with held messages are not forgotten, so there must not be more of them.
            or len(self._streams) > self._max_sources
        ):
            return True
        reached = stream.reached
        return all(reached.get(link, 0) > last for link in self._links)

    def _deadline(self, stream: _Stream) -> float:
        """The time until which the next held message waits."""
        first, _, came, _, _ = stream.held[0]
        patience = self._first_patience if stream.next == 1 else self._patience
        deadline = max(stream.moved, came) + patience
        if _withheld(stream) >= first - stream.next:
            # By then, the links that bring messages of this source have shown it.
            return min(deadline, stream.began + self._first_patience)
        return deadline

    def _begin(self, source: Source, now: float) -> _Stream:
        """Make the progress of a source that is new."""
        if len(self._streams) >= self._max_sources:
            self._forget()
        stream = self._streams[source] = _Stream()
        stream.moved = stream.began = now
        return stream

    def _forget(self) -> None:
        """Forget a tenth of the sources: those that were idle for longest."""
        idle = [
            (stream.heard, source) for source, stream in self._streams.items() if not stream.held
        ]
        for _, source in heapq.nsmallest(max(1, self._max_sources // 10), idle):
            del self._streams[source]


def _withheld(stream: _Stream) -> int:
    """How many messages before the first held one no link that brings some will bring.

    Its own link withholds them; if another one is behind, they may still come by that.
    """
    first, _, _, batch, _ = stream.held[0]
    if batch.withheld and all(reached >= first for reached in stream.reached.values()):
        return batch.withheld
    return 0
