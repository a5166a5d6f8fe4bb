"""The lease table: the tokens of a node's connections, and how long each may stay unused.

::

    add --> live --unused for its ttl--> expired --asked for once: "timeout"--> unknown
             |                              |                            "invalid token"
             +-----------remove-------------+---------------------------------> unknown

A pinned lease (pinned by a waiting ``get``, for example) is in use, and does not expire. Nothing
here asks for the time: it is passed in as ``now``, in seconds of any monotonic clock.
"""

import heapq
import math
import uuid
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, Generic, TypeVar

from ..errors import OverloadedError
from .status import INVALID_TOKEN, TIMEOUT

__all__ = [
    "MAX_LEASES",
    "MAX_TOKEN_LENGTH",
    "Lease",
    "LeaseTable",
    "TokenError",
    "checked_ttl",
]

Value = TypeVar("Value")

#: As many as a server has peers by default (`rpc.Limits.max_peers`).
MAX_LEASES = 10_000

#: Characters. A caller chooses its own with `interconnect`; a UUID has 36.
MAX_TOKEN_LENGTH = 100

#: Timers of ended leases that the heap may hold before it is cleaned.
SPARE_TIMERS = 64


class TokenError(Exception):
    """No live lease has this token.

    Args:
        status: what to answer: ``"invalid token"`` or ``"timeout"``.
    """

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


class Lease(Generic[Value]):
    """One token and the value that it stands for.

    Attributes:
        expires: when it will have been unused for too long, unless it is pinned.
        pins: how many users hold on to it.
    """

    __slots__ = ("expires", "is_timed", "pins", "token", "ttl", "value")

    def __init__(self, token: str, value: Value, ttl: float, now: float) -> None:
        self.token = token
        self.value = value
        self.ttl = ttl
        self.expires = now + ttl
        self.pins = 0
        self.is_timed = False


class LeaseTable(Generic[Value]):
    """Tokens, each with a value that is freed when its lease expires or is removed.

    Args:
        free: called once with each value whose lease has ended.
        maximum: how many leases there may be at a time; as many expired tokens are remembered.
    """

    def __init__(self, free: Callable[[Value], object], maximum: int = MAX_LEASES) -> None:
        self.maximum = maximum
        self._free = free
        self._leases: dict[str, Lease[Value]] = {}
        # In the order of their expiry.
        self._expired: dict[str, None] = {}
        # At most one for each live lease. When it is due and the lease was used since, the lease
        # gets another: so a use costs no change of the heap.
        self._timers: list[tuple[float, int, Lease[Value]]] = []
        self._numbers = count()

    def add(self, value: Value, ttl: float, now: float, token: object = None) -> str:
        """Add a value.

        Args:
            ttl: seconds for which the token may go unused.
            token: the token that the caller proposes; ``None`` for a random one.

        Returns:
            The token.

        Raises:
            ValueError: `ttl` or `token` is invalid, or the token is in use or was until lately.
            OverloadedError: there are too many leases.
        """
        ttl = checked_ttl(ttl)
        self.expire(now)
        if len(self._leases) >= self.maximum:
            raise OverloadedError(f"max_connections={self.maximum:,} is reached")
        if token is None:
            # uuid1 would reveal this host and the time, and the next one could be guessed.
            token = str(uuid.uuid4())
        elif not isinstance(token, str) or not 0 < len(token) <= MAX_TOKEN_LENGTH:
            raise ValueError(f"a token must be text of 1 to {MAX_TOKEN_LENGTH} characters")
        elif token in self._leases or token in self._expired:
            raise ValueError("this token is in use: propose another, or None")
        lease = Lease(token, value, ttl, now)
        self._leases[token] = lease
        self._set_timer(lease)
        return token

    def use(self, token: object, now: float) -> Value:
        """Return the value of a token, and restart its ttl.

        Raises:
            TokenError: the token is not live.
        """
        lease = self._live(token, now)
        lease.expires = now + lease.ttl
        return lease.value

    def pin(self, token: object, now: float) -> Lease[Value]:
        """Keep a lease in use until `unpin`. Raises as `use` does."""
        lease = self._live(token, now)
        lease.pins += 1
        return lease

    def unpin(self, lease: Lease[Value], now: float) -> None:
        """Undo one `pin`; the ttl restarts. The lease may have been removed meanwhile."""
        lease.pins -= 1
        lease.expires = now + lease.ttl
        if not lease.pins and not lease.is_timed and self._is_live(lease):
            self._set_timer(lease)

    def remove(self, token: object, now: float) -> None:
        """End a lease, pinned or not.

        Raises:
            TokenError: the token is not live.
        """
        lease = self._live(token, now)
        del self._leases[lease.token]
        if len(self._timers) > 2 * len(self._leases) + SPARE_TIMERS:
            self._timers = [timer for timer in self._timers if self._is_live(timer[2])]
            heapq.heapify(self._timers)
        self._free(lease.value)

    def clear(self) -> None:
        """End all leases."""
        leases = list(self._leases.values())
        self._leases.clear()
        self._expired.clear()
        self._timers.clear()
        for lease in leases:
            self._free(lease.value)

    def expire(self, now: float) -> None:
        """End the leases that have been unused for too long."""
        while self._timers and self._timers[0][0] <= now:
            _, _, lease = heapq.heappop(self._timers)
            lease.is_timed = False
            if lease.pins or not self._is_live(lease):
                continue
            if lease.expires > now:
                self._set_timer(lease)
                continue
            del self._leases[lease.token]
            self._expired[lease.token] = None
            if len(self._expired) > self.maximum:
                del self._expired[next(iter(self._expired))]
            self._free(lease.value)

    def next_expiry(self) -> float | None:
        """The time before which `expire` has nothing to do, or ``None`` for never."""
        return self._timers[0][0] if self._timers else None

    def values(self) -> list[Value]:
        """The values of all live leases."""
        return [lease.value for lease in self._leases.values()]

    @property
    def timers(self) -> int:
        """How many timers there are, those of ended leases included."""
        return len(self._timers)

    def __iter__(self) -> Iterator[Lease[Value]]:
        """The live leases."""
        return iter(list(self._leases.values()))

    def __len__(self) -> int:
        return len(self._leases)

    def _live(self, token: object, now: float) -> Lease[Value]:
        self.expire(now)
        if not isinstance(token, str):
            raise TokenError(INVALID_TOKEN)
        lease = self._leases.get(token)
        if lease is not None:
            return lease
        if token in self._expired:
            del self._expired[token]
            raise TokenError(TIMEOUT)
        raise TokenError(INVALID_TOKEN)

    def _is_live(self, lease: Lease[Value]) -> bool:
        return self._leases.get(lease.token) is lease

    def _set_timer(self, lease: Lease[Value]) -> None:
        lease.is_timed = True
        heapq.heappush(self._timers, (lease.expires, next(self._numbers), lease))


def checked_ttl(ttl: Any) -> float:
    """Return the ttl in seconds.

    Raises:
        ValueError: it is not a finite number above 0.
    """
    if isinstance(ttl, int | float) and not isinstance(ttl, bool):
        try:
            seconds = float(ttl)
        except OverflowError:
            seconds = math.inf
        if 0 < seconds < math.inf:
            return seconds
    raise ValueError("ttl must be a number of seconds above 0")
