"""The lease table: the tokens of a node's connections, and how long each may stay unused.

::

    add --> live --unused for its ttl--> expired --asked for once: "timeout"--> unknown
             |                              |                            "invalid token"
             +-----------remove-------------+---------------------------------> unknown

When all places are taken, the lease that was opened first and never used makes way; so it is with
the places of one peer. A pinned lease (pinned by a waiting ``get``, for example) is in use, and
does not expire. Nothing here asks for the time: it is passed in as ``now``, in seconds of any
monotonic clock.
"""

import heapq
import uuid
from collections.abc import Callable, Hashable, Iterator
from itertools import count
from typing import Any, Generic, TypeVar

from ..errors import OverloadedError
from .status import INVALID_TOKEN, TIMEOUT

__all__ = [
    "MAX_LEASES",
    "MAX_TOKEN_LENGTH",
    "MAX_TTL",
    "Lease",
    "LeaseTable",
    "TokenError",
    "checked_ttl",
]

Value = TypeVar("Value")

#: As many as a server has peers by default (`rpc.Limits.max_peers`).
MAX_LEASES = 10_000

#: Seconds for which a token may go unused at most: what a peer leaves behind is gone in a day.
MAX_TTL = 86400.0

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
        account: what tells its peer from others; ``None`` for this side itself.
        owner: the public key or the user that it belongs to; ``None`` for whoever knows the token.
        is_used: whether it was used since it was added.
    """

    __slots__ = (
        "account",
        "expires",
        "is_timed",
        "is_used",
        "owner",
        "pins",
        "token",
        "ttl",
        "value",
    )

    def __init__(
        self,
        token: str,
        value: Value,
        ttl: float,
        now: float,
        account: Hashable = None,
        owner: Hashable = None,
    ) -> None:
        self.token = token
        self.value = value
        self.ttl = ttl
        self.expires = now + ttl
        self.pins = 0
        self.account = account
        self.owner = owner
        self.is_used = account is None
        self.is_timed = False


class Places(Generic[Value]):
    """The leases of one peer: how many, and those never used, the oldest first."""

    __slots__ = ("taken", "unused")

    def __init__(self) -> None:
        self.taken = 0
        self.unused: dict[str, Lease[Value]] = {}


class LeaseTable(Generic[Value]):
    """Tokens, each with a value that is freed when its lease expires or is removed.

    Args:
        free: called once with each value whose lease has ended.
        max_leases: how many leases there may be at a time; as many expired tokens are remembered.
        max_peer_leases: how many of them one peer may have; ``None`` for no bound of its own.
        max_ttl: seconds; a longer ttl is cut to it.
        may_use: called with the owner of a lease: whether that is who asks.

    Attributes:
        refused: how many leases were refused, as all places were taken.
        displaced: how many unused leases have made way for others.
    """

    def __init__(
        self,
        free: Callable[[Value], object],
        max_leases: int = MAX_LEASES,
        max_peer_leases: int | None = None,
        max_ttl: float = MAX_TTL,
        may_use: Callable[[Hashable], bool] = lambda owner: True,
    ) -> None:
        self.max_leases = max_leases
        self.max_peer_leases = max_leases if max_peer_leases is None else max_peer_leases
        self.max_ttl = max_ttl
        self.refused = 0
        self.displaced = 0
        self._free = free
        self._may_use = may_use
        #: Those of each peer, by accounts.
        self._places: dict[Hashable, Places[Value]] = {}
        #: Those never used, the oldest first.
        self._unused: dict[str, Lease[Value]] = {}
        self._leases: dict[str, Lease[Value]] = {}
        # In the order of their expiry.
        self._expired: dict[str, None] = {}
        # At most one for each live lease. When it is due and the lease was used since, the lease
        # gets another: so a use costs no change of the heap.
        self._timers: list[tuple[float, int, Lease[Value]]] = []
        self._numbers = count()

    def add(
        self,
        value: Value,
        ttl: float,
        now: float,
        token: object = None,
        account: Hashable = None,
        owner: Hashable = None,
    ) -> str:
        """Add a value.

        Args:
            ttl: seconds for which the token may go unused.
            token: the token that the caller proposes; ``None`` for a random one.
            account: what tells the peer from others; ``None`` for this side itself, which has no
                bound of its own.
            owner: the public key or the user that it belongs to; others are told that the token
                is invalid.

        Returns:
            The token.

        Raises:
            ValueError: `ttl` or `token` is invalid, or the token is in use or was until lately.
            OverloadedError: there are too many leases, and all were used.
        """
        ttl = checked_ttl(ttl, self.max_ttl)
        self.expire(now)
        if token is None:
            # uuid1 would reveal this host and the time, and the next one could be guessed.
            token = str(uuid.uuid4())
        elif not isinstance(token, str) or not 0 < len(token) <= MAX_TOKEN_LENGTH:
            raise ValueError(f"a token must be text of 1 to {MAX_TOKEN_LENGTH} characters")
        elif token in self._leases or token in self._expired:
            raise ValueError("this token is in use: propose another, or None")
        self._make_room(account)
        lease = Lease(token, value, ttl, now, account, owner)
        self._leases[token] = lease
        if account is not None:
            places = self._places.setdefault(account, Places())
            places.taken += 1
            places.unused[token] = self._unused[token] = lease
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
        self._forget(lease)
        if len(self._timers) > 2 * len(self._leases) + SPARE_TIMERS:
            self._timers = [timer for timer in self._timers if self._is_live(timer[2])]
            heapq.heapify(self._timers)
        self._free(lease.value)

    def remove_key(self, key: str) -> None:
        """End all leases that belong to a key."""
        for lease in self:
            if lease.owner == key:
                self._forget(lease)
                self._free(lease.value)

    def clear(self) -> None:
        """End all leases."""
        leases = list(self._leases.values())
        self._leases.clear()
        self._places.clear()
        self._unused.clear()
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
            self._forget(lease)
            self._expired[lease.token] = None
            if len(self._expired) > self.max_leases:
                del self._expired[next(iter(self._expired))]
            self._free(lease.value)

    def next_expiry(self) -> float | None:
        """The time before which `expire` has nothing to do, or ``None`` for never."""
        return self._timers[0][0] if self._timers else None

    def values(self) -> list[Value]:
        """The values of all live leases."""
        return [lease.value for lease in self._leases.values()]

    @property
    def peers(self) -> int:
        """How many peers have leases."""
        return len(self._places)

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
            if lease.owner is not None and not self._may_use(lease.owner):
                raise TokenError(INVALID_TOKEN)
            if not lease.is_used:
                self._count_used(lease)
            return lease
        if token in self._expired:
            del self._expired[token]
            raise TokenError(TIMEOUT)
        raise TokenError(INVALID_TOKEN)

    def _make_room(self, account: Hashable) -> None:
        """Have an unused lease make way if there is no place.

        Raises:
            OverloadedError: all were used.
        """
        places = None if account is None else self._places.get(account)
        if places is not None and places.taken >= self.max_peer_leases:
            self._displace(
                places.unused,
                f"one peer has {self.max_peer_leases:,} of max_connections={self.max_leases:,}",
            )
        if len(self._leases) >= self.max_leases:
            self._displace(self._unused, f"max_connections={self.max_leases:,} is reached")

    def _displace(self, unused: dict[str, Lease[Value]], problem: str) -> None:
        lease = next(iter(unused.values()), None)
        if lease is None:
            self.refused += 1
            raise OverloadedError(problem)
        self.displaced += 1
        self._forget(lease)
        self._free(lease.value)

    def _count_used(self, lease: Lease[Value]) -> None:
        lease.is_used = True
        del self._unused[lease.token]
        del self._places[lease.account].unused[lease.token]

    def _forget(self, lease: Lease[Value]) -> None:
        del self._leases[lease.token]
        if lease.account is None:
            return
        if not lease.is_used:
            self._count_used(lease)
        places = self._places[lease.account]
        places.taken -= 1
        if not places.taken:
            del self._places[lease.account]

    def _is_live(self, lease: Lease[Value]) -> bool:
        return self._leases.get(lease.token) is lease

    def _set_timer(self, lease: Lease[Value]) -> None:
        lease.is_timed = True
        heapq.heappush(self._timers, (lease.expires, next(self._numbers), lease))


def checked_ttl(ttl: Any, longest: float = MAX_TTL) -> float:
    """Return the ttl in seconds, cut to `longest`.

    Raises:
        ValueError: it is not a number above 0.
    """
    # Not NaN either, which is not above anything.
    if isinstance(ttl, int | float) and not isinstance(ttl, bool) and ttl > 0:
        return longest if ttl > longest else float(ttl)
    raise ValueError("ttl must be a number of seconds above 0")
