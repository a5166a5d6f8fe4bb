"""What a node that gets only some messages has taken of each source: once each, and gaps found.

NATS delivers what one connection publishes in order, but only the subjects that this node
subscribes to: numbers that are left out are no gap. So each record says the number of the source's
message before it on its subject. If the last one that came on that subject is older, some were
missed.

Where two gateways publish a source's messages, the second of each is a duplicate.
"""

from typing import NamedTuple

from ..batch import Source
from ..reorder import MAX_SOURCES

__all__ = ["ClusterOrder", "Progress"]

#: Subjects that are remembered, of all sources together. Each takes some 150 bytes.
MAX_SUBJECTS = 100_000


class Progress(NamedTuple):
    """What to do with messages that came.

    Args:
        skip: how many of them were taken before; all of them if it is their count.
        missed: the first and the last number between which messages of this subject were missed:
            the last one was, others may have been; or ``None``.
    """

    skip: int
    missed: tuple[int, int] | None


class _Source:
    __slots__ = ("last", "since", "state", "subjects")

    def __init__(self) -> None:
        #: A message that came when the subscriptions were in that state; 0 for no state.
        self.since = 0
        self.state = 0
        #: The last number that was taken.
        self.last = 0
        #: The last number that came on each subject.
        self.subjects: dict[str, int] = {}


class ClusterOrder:
    """The last numbers of each source, and of each of its subjects.

    Args:
        max_sources, max_subjects: how many are remembered; over it the source that began first is
            forgotten. A late duplicate of its messages is taken for new then, and a gap is not
            noticed.

    Attributes:
        duplicates: how many messages came that had been taken before.
        missed: how many gaps there were: at least so many messages were missed.
        subjects: how many subjects are remembered, of all sources together.
    """

    def __init__(self, *, max_sources: int = MAX_SOURCES, max_subjects: int = MAX_SUBJECTS) -> None:
        self.duplicates = 0
        self.missed = 0
        self._max_sources = max_sources
        self._max_subjects = max_subjects
        self._sources: dict[Source, _Source] = {}
        #: A number for each set of subscriptions, and whether the server has confirmed this one.
        self._state = 1
        self._is_settled = False
        self.subjects = 0

    def receive(
        self, source: Source, subject: str, first: int, count: int, previous: int
    ) -> Progress:
        """Take messages that have come.

        Args:
            source: who sent them.
            subject: on which they came.
            first, count: the number of the first, and how many they are.
            previous: the number of the source's message before them on this subject, or 0.
        """
        state = self._sources.get(source)
        if state is None:
            state = self.begin(source)
        last = first + count - 1
        seen = state.subjects.get(subject)
        if seen is None:
            self.subjects += 1
            state.subjects[subject] = last
            self._bound(source)
        elif last > seen:
            state.subjects[subject] = last
        skip = min(max(state.last - first + 1, 0), count)
        state.last = max(state.last, last)
        self.duplicates += skip
        if self._is_settled and state.state != self._state:
            state.since, state.state = last, self._state
        elif seen is None and self._is_settled:
            seen = state.since
        if seen is None or seen >= previous or skip:
            return Progress(skip, None)
        self.missed += 1
        return Progress(0, (seen + 1, previous))

    def unsettle(self) -> None:
        """Note that the subscriptions change."""
        self._state += 1
        self._is_settled = False

    def settle(self) -> None:
        """Note that the server has the subscriptions: from now on all that they want comes."""
        self._is_settled = True

    def begin(self, source: Source, last: int = 0) -> "_Source":
        """Take messages of a source from now on.

        Args:
            last: its last number that was taken before.
        """
        state = self._sources[source] = _Source()
        state.last = last
        self._bound(source)
        return state

    def end(self, source: Source) -> int | None:
        """Forget a source; return its last number that was taken, or ``None`` if it is unknown."""
        state = self._sources.pop(source, None)
        if state is None:
            return None
        self.subjects -= len(state.subjects)
        return state.last

    def forget_subject(self, subject: str) -> None:
        """Do not expect to know all messages of a subject any more: it is not subscribed to."""
        for state in self._sources.values():
            if state.subjects.pop(subject, None) is not None:
                self.subjects -= 1

    def forget_subjects(self) -> None:
        """The same for all subjects."""
        for state in self._sources.values():
            state.subjects.clear()
            state.state = 0
        self.subjects = 0

    def taken(self, source: Source) -> int | None:
        """The last number that was taken of a source; ``None`` if it is unknown."""
        state = self._sources.get(source)
        return None if state is None else state.last

    def _bound(self, but: Source) -> None:
        while len(self._sources) > self._max_sources or self.subjects > self._max_subjects:
            oldest = next(iter(self._sources))
            if oldest == but:
                if len(self._sources) == 1:
                    # Its own subjects are too many: the gap of none of them is noticed once.
                    self.subjects = 0
                    self._sources[oldest].subjects.clear()
                    self._sources[oldest].state = 0
                    return
                self._sources[oldest] = self._sources.pop(oldest)
                continue
            self.subjects -= len(self._sources.pop(oldest).subjects)

    def __len__(self) -> int:
        return len(self._sources)
