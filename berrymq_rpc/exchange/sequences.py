"""Which messages are new, and in which order they are taken, whatever ways they came by.

Each line brings the messages of a source in order, but one line may be ahead of another: a line
that was just opened begins where the peer is then, while what was sent before is still on its way
elsewhere. So a message that comes before its turn is held, until one of these is true:

* the missing ones have come,
* no line can bring them: all have brought later ones of the same source,
* the source has not got on for `patience` seconds (`first_patience` for one that is not known yet),
* too much is held.

In all cases but the first they count as missed, and the caller is told. What comes after its turn
is a double, or counts as one.

Nothing here asks for the time: it is passed in as ``now``, in seconds.
"""

import heapq
from collections.abc import Hashable, Iterable
from itertools import count
from typing import NamedTuple, TypeAlias

from .bundle import Bundle, Source

__all__ = ["MAX_SOURCES", "Arrival", "Missed", "Outcome", "Sequences"]

#: Sources that are remembered. One takes some 500 bytes, and 100 for each line.
MAX_SOURCES = 10_000

#: Messages and bytes that are held at most, of all sources.
MAX_HELD = 100_000
MAX_HELD_BYTES = 64 << 20

#: Seconds. Missing messages are rare: longer costs nobody anything, shorter loses what a busy
#: machine holds up.
PATIENCE = 5.0

#: Seconds. Whoever joins late misses the beginning of each source, and hears the rest after this
#: at the latest.
FIRST_PATIENCE = 1.0


class Arrival(NamedTuple):
    """A bundle whose turn it is.

    Args:
        bundle: the bundle.
        line: by which it came.
        skip: how many of its messages came before.
    """

    bundle: Bundle
    line: Hashable
    skip: int


class Missed(NamedTuple):
    """Messages of a source that will not be taken any more."""

    source: Source
    first: int
    last: int


Outcome: TypeAlias = Arrival | Missed
#: The number of its first message, its place among all, when it came, and by which line.
_Held: TypeAlias = tuple[int, int, float, Bundle, Hashable]


class _Stream:
    """How far one source has come."""

    __slots__ = ("firsts", "heard", "held", "moved", "next", "reached")

    def __init__(self) -> None:
        #: The number whose turn it is.
        self.next = 1
        #: A heap, by the number of the first message.
        self.held: list[_Held] = []
        #: The last number of what is held, by the first.
        self.firsts: dict[int, int] = {}
        #: The last number that each line has brought.
        self.reached: dict[Hashable, int] = {}
        self.heard = 0.0
        #: When a message was taken whose turn it was.
        self.moved = 0.0


class Sequences:
    """What was taken from each source, and what waits for its turn.

    Args:
        maximum: sources that are remembered; of more, those that were not heard of for longest are
            forgotten, and a double of theirs that still comes is taken for new.
        patience, first_patience: seconds that a message waits for those before it.
        maximum_held, maximum_held_bytes: what may wait, of all sources.

    Attributes:
        doubles: how many messages came that had been taken or missed.
        missed: how many were missed.
    """

    def __init__(
        self,
        *,
        maximum: int = MAX_SOURCES,
        patience: float = PATIENCE,
        first_patience: float = FIRST_PATIENCE,
        maximum_held: int = MAX_HELD,
        maximum_held_bytes: int = MAX_HELD_BYTES,
    ) -> None:
        self.doubles = 0
        self.missed = 0
        self._maximum = maximum
        self._patience = patience
        self._first_patience = first_patience
        self._maximum_held = maximum_held
        self._maximum_held_bytes = maximum_held_bytes
        self._streams: dict[Source, _Stream] = {}
        #: Those with messages that are held.
        self._gaps: dict[Source, _Stream] = {}
        self._held = 0
        self._held_bytes = 0
        self._lines: set[Hashable] = set()
        self._order = count()

    # -- lines -----------------------------------------------------------------------------

    def add_line(self, line: Hashable) -> None:
        """A line may bring messages from now on."""
        self._lines.add(line)

    def remove_line(self, line: Hashable, now: float) -> list[Outcome]:
        """A line will bring no more; what becomes of messages that waited for it."""
        self._lines.discard(line)
        for stream in self._streams.values():
            stream.reached.pop(line, None)
        return self._settle(list(self._gaps), now)

    def renew_line(self, line: Hashable) -> None:
        """What comes by a line begins anew, as another process may be at its other end."""
        for stream in self._streams.values():
            stream.reached.pop(line, None)

    # -- messages --------------------------------------------------------------------------

    def receive(self, line: Hashable, bundle: Bundle, now: float) -> list[Outcome]:
        """Take a bundle that has arrived; what is to be done now, in this order."""
        source = bundle.source
        stream = self._streams.get(source)
        if stream is None:
            if len(self._streams) >= self._maximum:
                self._forget()
            stream = self._streams[source] = _Stream()
            stream.moved = now
        stream.heard = now
        first, last = bundle.first, bundle.first + bundle.count - 1
        if line in self._lines and last > stream.reached.get(line, 0):
            stream.reached[line] = last
        due = stream.next
        if first <= due <= last and not stream.held:
            # All as it should be.
            stream.next = last + 1
            stream.moved = now
            self.doubles += due - first
            return [Arrival(bundle, line, due - first)]
        if last < due:
            self.doubles += bundle.count
            # It may have been the last line from which the missing ones could come.
            return self._settle((source,), now) if stream.held else []
        if first > due:
            if stream.firsts.get(first, 0) >= last:
                self.doubles += bundle.count
                return self._settle((source,), now)
            stream.firsts[first] = last
            self._gaps[source] = stream
            heapq.heappush(stream.held, (first, next(self._order), now, bundle, line))
            self._held += bundle.count
            self._held_bytes += bundle.size
            return self._settle((source,), now)
        stream.next = last + 1
        stream.moved = now
        self.doubles += due - first
        return [Arrival(bundle, line, due - first), *self._settle((source,), now)]

    def expire(self, now: float) -> list[Outcome]:
        """Wait no longer for what has not come in time."""
        due = [source for source, stream in self._gaps.items() if self._deadline(stream) <= now]
        return self._settle(due, now)

    def next_expiry(self) -> float | None:
        """The time before which `expire` has nothing to do, or ``None`` for never."""
        return min(map(self._deadline, self._gaps.values()), default=None)

    def taken(self, source: Source) -> int:
        """The number up to which a source's messages were taken or missed."""
        stream = self._streams.get(source)
        return 0 if stream is None else stream.next - 1

    @property
    def held(self) -> int:
        """How many messages wait for others."""
        return self._held

    def __len__(self) -> int:
        return len(self._streams)

    # -- what is held ----------------------------------------------------------------------

    def _settle(self, sources: Iterable[Source], now: float) -> list[Outcome]:
        """Take what is held and need not wait any more."""
        outcomes: list[Outcome] = []
        for source in sources:
            stream = self._gaps.get(source)
            if stream is None:
                continue
            while stream.held:
                first = stream.held[0][0]
                if first > stream.next:
                    if not self._gives_up(stream, first - 1, now):
                        break
                    outcomes.append(Missed(source, stream.next, first - 1))
                    self.missed += first - stream.next
                    stream.next = first
                outcomes += self._release(stream)
            else:
                del self._gaps[source]
        return outcomes

    def _release(self, stream: _Stream) -> list[Outcome]:
        """Take the first that is held, whose turn it is or was."""
        first, _, _, bundle, line = heapq.heappop(stream.held)
        stream.firsts.pop(first, None)
        self._held -= bundle.count
        self._held_bytes -= bundle.size
        skip = min(stream.next - first, bundle.count)
        self.doubles += skip
        if skip == bundle.count:
            return []
        stream.next = first + bundle.count
        return [Arrival(bundle, line, skip)]

    def _gives_up(self, stream: _Stream, last: int, now: float) -> bool:
        """Whether the messages up to `last` are not waited for any more."""
        if (
            self._deadline(stream) <= now
            or self._held > self._maximum_held
            or self._held_bytes > self._maximum_held_bytes
            # Those with something to wait for are not forgotten, so there must not be more.
            or len(self._streams) > self._maximum
        ):
            return True
        reached = stream.reached
        return all(reached.get(line, 0) > last for line in self._lines)

    def _deadline(self, stream: _Stream) -> float:
        """Until when the next message that is held waits."""
        patience = self._first_patience if stream.next == 1 else self._patience
        return max(stream.moved, stream.held[0][2]) + patience

    def _forget(self) -> None:
        """Forget a tenth of the sources: those that were not heard of for longest."""
        idle = [
            (stream.heard, source) for source, stream in self._streams.items() if not stream.held
        ]
        for _, source in heapq.nsmallest(max(1, self._maximum // 10), idle):
            del self._streams[source]
