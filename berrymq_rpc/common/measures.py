"""What runs, in figures: the one source of `statistics`, the live page, ``top`` and ``/metrics``.

`runtime.meter.Meter` is the public class; these are its figures, without threads and clocks.
Clients, servers and buses write here only when they are measured: `metrics=True`, or a `Meter`.
Readers take `Measures.snapshot`, plain values that can be JSON::

    {
      "served": {"add": {"ok": 3, "error": 0, "cancelled": 0, "expired": 0, "refused": 0,
                         "seconds": {"count": 3, "total": ..., "greatest": ...,
                                     "p50": ..., "p99": ...},
                         "rate": 1.5, "history": [0.0, 1.5, ...]}, ...},
      "made": {...},            # calls of this side to others, in the same form
      "messages": {"oven:log": {"published": 5, "relayed": 0, "rate": ..., "history": [...]}, ...},
      "receiver_errors": 0,     # receivers and guards that raised
      "loop_delay": {"count": ..., "total": ..., "greatest": ..., "p50": ..., "p99": ...},
      "names_left_out": 0,      # events under the name "(other)", as there was no place for theirs
      "period": 2.0,            # seconds of each rate in a history, the latest of which is last
    }

Rates are per second.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from sys import maxsize
from typing import Any

from .histogram import Histogram
from .history import PERIOD, History
from .series import Series

__all__ = [
    "CANCELLED",
    "ERROR",
    "EXPIRED",
    "LOCAL",
    "MAX_IDENTIFIERS",
    "MAX_METHODS",
    "OK",
    "OUTCOMES",
    "REFUSED",
    "CallFigures",
    "CallMeter",
    "Measures",
    "MessageFigures",
]

#: How a call may end; these are places in `CallFigures.outcomes`.
OK, ERROR, CANCELLED, EXPIRED, REFUSED = range(5)

#: Their names: a result; an exception of the method; given up by the caller; not answered within
#: its timeout; not begun, as it was not allowed, not found, had wrong arguments, or too many ran.
OUTCOMES = ("ok", "error", "cancelled", "expired", "refused")

#: What the messages are counted under that never leave the process: who sees the figures need not
#: know their identifiers.
LOCAL = "(local)"

#: How many methods and identifiers have figures of their own.
MAX_METHODS = 200
MAX_IDENTIFIERS = 500


class CallFigures:
    """The figures of the calls of a method.

    Attributes:
        outcomes: how many calls ended how, in the order of `OUTCOMES`.
        seconds: how long those took that ran.
        history: how many ended per second.
    """

    __slots__ = ("history", "outcomes", "seconds")

    def __init__(self) -> None:
        self.outcomes = [0] * len(OUTCOMES)
        self.seconds = Histogram()
        self.history = History()

    @property
    def count(self) -> int:
        """How many calls have ended."""
        return sum(self.outcomes)

    def merge(self, other: "CallFigures") -> None:
        """Add another's counts; the history stays this one's."""
        self.outcomes = [
            mine + more for mine, more in zip(self.outcomes, other.outcomes, strict=True)
        ]
        self.seconds.merge(other.seconds)

    def snapshot(self) -> dict[str, Any]:
        """The figures as plain values."""
        return {
            **dict(zip(OUTCOMES, self.outcomes, strict=True)),
            "seconds": self.seconds.snapshot(),
            **_rates(self.history),
        }


class MessageFigures:
    """The figures of the messages of an identifier.

    Attributes:
        published: how many this process sent.
        relayed: how many came from other processes.
        history: both, per second.
    """

    __slots__ = ("history", "published", "relayed")

    def __init__(self) -> None:
        self.published = 0
        self.relayed = 0
        self.history = History()

    @property
    def count(self) -> int:
        """How many messages there were."""
        return self.published + self.relayed

    def merge(self, other: "MessageFigures") -> None:
        """Add another's counts; the history stays this one's."""
        self.published += other.published
        self.relayed += other.relayed

    def snapshot(self) -> dict[str, Any]:
        """The figures as plain values."""
        return {
            "published": self.published,
            "relayed": self.relayed,
            **_rates(self.history),
        }


def _rates(history: History) -> dict[str, Any]:
    rates = history.snapshot()
    return {"rate": rates[-1] if rates else 0.0, "history": rates}


class CallMeter:
    """Counts the calls that one side serves, or those that it makes.

    Args:
        lock: held while something is counted.
        limit: how many methods have figures of their own.
    """

    __slots__ = ("lock", "methods")

    def __init__(self, lock: AbstractContextManager[Any], limit: int) -> None:
        self.lock = lock
        self.methods = Series(CallFigures, limit)

    def ended(self, method: str, outcome: int, seconds: float | None, is_own: bool = True) -> None:
        """Count a call that has ended.

        Args:
            outcome: `OK` or one of the others.
            seconds: how long it took; ``None`` for one that never began.
            is_own: whether this side's program chose the method's name. One that a peer chose gets
                figures of its own only by a call that succeeds: then there is such a method.
        """
        with self.lock:
            figures = self.methods.get(method)
            if figures is None:
                if is_own or outcome == OK:
                    figures = self.methods.find(method, is_own=is_own)
                else:
                    figures = self.methods.other()
            figures.outcomes[outcome] += 1
            if seconds is not None:
                figures.seconds.add(seconds)


class Measures:
    """Counts calls and messages. Whoever is measured writes, any number of readers read.

    Args:
        lock: held while something is counted or read.
        max_methods, max_identifiers: how many have figures of their own; what is over is counted
            together, under ``"(other)"``.

    Attributes:
        served: the calls of peers.
        made: the calls to peers.
        loop_delay: how much later than it wanted a timer of the event loop ran, twice a second.
        receiver_errors: receivers and guards of messages that raised.
    """

    def __init__(
        self,
        lock: AbstractContextManager[Any],
        max_methods: int = MAX_METHODS,
        max_identifiers: int = MAX_IDENTIFIERS,
    ) -> None:
        self._lock = lock
        self.served = CallMeter(lock, max_methods)
        self.made = CallMeter(lock, max_methods)
        self.messages = Series(MessageFigures, max_identifiers)
        self.receiver_errors = 0
        self.loop_delay = Histogram()
        #: When the period began that the histories go on with.
        self._since: float | None = None

    def replace_lock(self, lock: AbstractContextManager[Any]) -> None:
        """Hold another lock from now on: in the child of a fork the old one may stay taken."""
        self._lock = self.served.lock = self.made.lock = lock

    # -- writing -------------------------------------------------------------------------------

    def publisher(self, identifier: str) -> Callable[[object], None]:
        """What counts each message of this process that it is called with."""
        with self._lock:
            self.messages.find(identifier)
            figures = self.messages.get(identifier)
            # Nothing was counted yet.
            self.messages.left_out -= figures is None
        if figures is None:
            return lambda message: self.published(identifier)
        found = figures

        def count(message: object) -> None:
            with self._lock:
                found.published += 1

        return count

    def published(self, identifier: str) -> None:
        """Count a message of this process."""
        with self._lock:
            self.messages.find(identifier).published += 1

    def relayed(self, identifier: str, *, is_followed: bool) -> None:
        """Count a message of another process.

        Args:
            is_followed: whether it has a receiver here: only then its identifier may get figures
                of its own.
        """
        with self._lock:
            messages = self.messages
            figures = (
                messages.find(identifier, is_own=False)
                if is_followed
                else messages.known(identifier)
            )
            figures.relayed += 1

    def receiver_failed(self) -> None:
        """Count a receiver or guard that raised."""
        with self._lock:
            self.receiver_errors += 1

    def delayed(self, seconds: float) -> None:
        """Take a sample of the delay of an event loop."""
        with self._lock:
            self.loop_delay.add(seconds)

    def tick(self, now: float) -> None:
        """Continue the histories, if a period is over. Called now and then.

        Args:
            now: seconds, by a clock that does not go back.
        """
        with self._lock:
            if self._since is None:
                self._since = now
                return
            periods = int((now - self._since) // PERIOD)
            if periods < 1:
                return
            seconds, self._since = now - self._since, now
            for series in (self.served.methods, self.made.methods):
                for _, calls in series.items():
                    calls.history.add(calls.count, periods, seconds)
            for _, messages in self.messages.items():
                messages.history.add(messages.count, periods, seconds)

    def merge(self, other: "Measures") -> None:
        """Add what another has counted; the histories stay this one's."""
        # With one lock at a time, two that add each other never wait for each other.
        other = other.renamed(str)
        with self._lock:
            self.served.methods.merge(other.served.methods)
            self.made.methods.merge(other.made.methods)
            self.messages.merge(other.messages)
            self.receiver_errors += other.receiver_errors
            self.loop_delay.merge(other.loop_delay)

    def renamed(self, rename: Callable[[str], str]) -> "Measures":
        """A copy of the counts under other names, without histories.

        Args:
            rename: answers the name for each; what gets the same one is added up.
        """
        copy = Measures(nullcontext(), maxsize, maxsize)
        with self._lock:
            copy.served.methods.merge(self.served.methods, rename)
            copy.made.methods.merge(self.made.methods, rename)
            copy.messages.merge(self.messages, rename)
            copy.receiver_errors = self.receiver_errors
            copy.loop_delay.merge(self.loop_delay)
        return copy

    # -- reading -------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """All figures as plain values; the form is in the module's docstring."""
        with self._lock:
            return {
                "served": _snapshots(self.served.methods),
                "made": _snapshots(self.made.methods),
                "messages": _snapshots(self.messages),
                "receiver_errors": self.receiver_errors,
                "loop_delay": self.loop_delay.snapshot(),
                "names_left_out": self.names_left_out,
                "period": PERIOD,
            }

    def call_totals(self) -> dict[str, int]:
        """How many calls ended how, by the names in `statistics`."""
        with self._lock:
            served, made = _outcomes(self.served.methods), _outcomes(self.made.methods)
        return {f"calls_{name}": count for name, count in served.items()} | {
            f"calls_made_{name}": count for name, count in made.items()
        }

    def message_totals(self) -> dict[str, int]:
        """How many messages there were, by the names in `statistics`."""
        with self._lock:
            figures = [each for _, each in self.messages.items()]
            return {
                "messages_published": sum(each.published for each in figures),
                "messages_relayed": sum(each.relayed for each in figures),
                "receiver_errors": self.receiver_errors,
            }

    @property
    def names_left_out(self) -> int:
        """How many events were counted under ``"(other)"``."""
        return self.served.methods.left_out + self.made.methods.left_out + self.messages.left_out

    def __repr__(self) -> str:
        served, made = len(self.served.methods), len(self.made.methods)
        return (
            f"<{type(self).__name__}: {served} methods served, {made} called, "
            f"{len(self.messages)} identifiers>"
        )


def _outcomes(series: Series[CallFigures]) -> dict[str, int]:
    totals = [0] * len(OUTCOMES)
    for _, figures in series.items():
        totals = [total + more for total, more in zip(totals, figures.outcomes, strict=True)]
    return dict(zip(OUTCOMES, totals, strict=True))


def _snapshots(series: Series[Any]) -> dict[str, Any]:
    return {name: figures.snapshot() for name, figures in sorted(series.items())}
