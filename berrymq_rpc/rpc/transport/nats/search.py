"""Which servers of a service a client opens sessions with, without I/O."""

import random
from collections.abc import Iterable

from .records import Found

__all__ = ["Search"]

#: Seconds that a server that did not answer, or refused, is left alone.
AVOID = 2.0

#: Servers that are remembered.
MAX_KNOWN = 10_000


class Search:
    """Chooses up to `max_servers`, the least loaded first.

    Args:
        max_servers: with how many there is a session at one time.
        chance: decides between servers of the same load.
    """

    def __init__(self, max_servers: int, chance: random.Random | None = None) -> None:
        self.max_servers = max_servers
        self._chance = chance or random.Random()
        #: Loads of servers that have answered and that there is no session with.
        self._known: dict[str, int] = {}
        #: When a server may be tried again.
        self._avoided: dict[str, float] = {}

    def found(self, found: Found) -> None:
        """A server has answered, or said that it has started."""
        if found.server in self._known or len(self._known) < MAX_KNOWN:
            self._known[found.server] = found.load

    def gone(self, server: str) -> None:
        """A server leaves."""
        self._known.pop(server, None)
        self._avoided.pop(server, None)

    def failed(self, server: str, now: float) -> None:
        """A server did not answer, or refused."""
        self._known.pop(server, None)
        # At the end, so that the first is the one that may be tried again soonest.
        self._avoided.pop(server, None)
        self._avoided[server] = now + AVOID
        if len(self._avoided) > MAX_KNOWN:
            del self._avoided[next(iter(self._avoided))]

    def forget(self) -> None:
        """The link to NATS was lost: who is there now is not known."""
        self._known.clear()
        self._avoided.clear()

    def choose(self, present: Iterable[str], now: float) -> list[str]:
        """The servers to open a session with.

        Args:
            present: those that there is a session with, or that one is being opened with.
        """
        taken = set(present)
        free = [
            (load, self._chance.random(), server)
            for server, load in self._known.items()
            if server not in taken and self._avoided.get(server, 0.0) <= now
        ]
        free.sort()
        return [server for *_, server in free[: max(self.max_servers - len(taken), 0)]]
