"""The tokens of a node's connections, and how long each may go unused.

::

    add --> live --unused for its ttl--> expired --asked for once: "timeout"--> unknown
             |                              |                            "invalid token"
             +-----------remove-------------+---------------------------------> unknown

A token that is held (by a ``get`` that waits, for one) is in use, and does not expire. Nothing
here asks for the time: it is passed in as ``now``, in seconds of any clock that never goes back.
"""

import heapq
import math
import uuid
from collections.abc import Callable
from itertools import count
from typing import Any, Generic, TypeVar

from ..errors import OverloadedError
from .status import INVALID_TOKEN, TIMEOUT

__all__ = [
    "MAX_TOKENS",
    "MAX_TOKEN_LENGTH",
    "Entry",
    "TokenError",
    "TokenTable",
    "checked_ttl",
]

Value = TypeVar("Value")

#: As many as a server has peers by default (`rpc.Limits.max_peers`).
MAX_TOKENS = 10_000

#: Characters. A caller chooses its own with `interconnect`; a UUID has 36.
MAX_TOKEN_LENGTH = 100

#: Entries of the heap that may belong to tokens that are gone, before they are sought out.
SPARE_TIMERS = 64


class TokenError(Exception):
    """There is no live connection of this token.

    Args:
        status: what to answer: ``"invalid token"`` or ``"timeout"``.
    """

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


class Entry(Generic[Value]):
    """One token and what it stands for.

    Attributes:
        expires: when it will have been unused for too long, unless it is held.
        holders: how many uses of it go on.
    """

    __slots__ = ("expires", "holders", "is_timed", "token", "ttl", "value")

    def __init__(self, token: str, value: Value, ttl: float, now: float) -> None:
        self.token = token
        self.value = value
        self.ttl = ttl
        self.expires = now + ttl
        self.holders = 0
        self.is_timed = False


class TokenTable(Generic[Value]):
    """Tokens, each with a value that is freed when the token expires or is removed.

    Args:
        free: called once with each value whose token has ended.
        maximum: how many tokens there may be at a time; as many that have expired are remembered.
    """

    def __init__(self, free: Callable[[Value], object], maximum: int = MAX_TOKENS) -> None:
        self.maximum = maximum
        self._free = free
        self._entries: dict[str, Entry[Value]] = {}
        # In the order in which they expired.
        self._expired: dict[str, None] = {}
        # One for each live token at most. When it is due, the token may have been used since, and
        # gets another: so a use costs no change of the heap.
        self._timers: list[tuple[float, int, Entry[Value]]] = []
        self._numbers = count()

    def add(self, value: Value, ttl: float, now: float, token: object = None) -> str:
        """Add a value.

        Args:
            ttl: seconds for which the token may go unused.
            token: the text that the caller wishes for; ``None`` for a random one.

        Returns:
            The token.

        Raises:
            ValueError: `ttl` or `token` is none, or the token is in use or was until lately.
            OverloadedError: there are too many.
        """
        ttl = checked_ttl(ttl)
        self.expire(now)
        if len(self._entries) >= self.maximum:
            raise OverloadedError(f"max_connections={self.maximum:,} is reached")
        if token is None:
            # uuid1 would tell this host and the time, and the next one could be guessed.
            token = str(uuid.uuid4())
        elif not isinstance(token, str) or not 0 < len(token) <= MAX_TOKEN_LENGTH:
            raise ValueError(f"a token is a text of 1 to {MAX_TOKEN_LENGTH} characters")
        elif token in self._entries or token in self._expired:
            raise ValueError("this token is in use: propose another, or None")
        entry = Entry(token, value, ttl, now)
        self._entries[token] = entry
        self._set_timer(entry)
        return token

    def use(self, token: object, now: float) -> Value:
        """The value of a token, which begins its ttl anew.

        Raises:
            TokenError: the token is not live.
        """
        entry = self._live(token, now)
        entry.expires = now + entry.ttl
        return entry.value

    def hold(self, token: object, now: float) -> Entry[Value]:
        """Use a token until `release`. Raises as `use` does."""
        entry = self._live(token, now)
        entry.holders += 1
        return entry

    def release(self, entry: Entry[Value], now: float) -> None:
        """Undo one `hold`; the ttl begins anew. The token may have been removed meanwhile."""
        entry.holders -= 1
        entry.expires = now + entry.ttl
        if not entry.holders and not entry.is_timed and self._is_live(entry):
            self._set_timer(entry)

    def remove(self, token: object, now: float) -> None:
        """End a token, held or not.

        Raises:
            TokenError: the token is not live.
        """
        entry = self._live(token, now)
        del self._entries[entry.token]
        if len(self._timers) > 2 * len(self._entries) + SPARE_TIMERS:
            self._timers = [timer for timer in self._timers if self._is_live(timer[2])]
            heapq.heapify(self._timers)
        self._free(entry.value)

    def clear(self) -> None:
        """End all tokens."""
        entries = list(self._entries.values())
        self._entries.clear()
        self._expired.clear()
        self._timers.clear()
        for entry in entries:
            self._free(entry.value)

    def expire(self, now: float) -> None:
        """End the tokens that have been unused for too long."""
        while self._timers and self._timers[0][0] <= now:
            _, _, entry = heapq.heappop(self._timers)
            entry.is_timed = False
            if entry.holders or not self._is_live(entry):
                continue
            if entry.expires > now:
                self._set_timer(entry)
                continue
            del self._entries[entry.token]
            self._expired[entry.token] = None
            if len(self._expired) > self.maximum:
                del self._expired[next(iter(self._expired))]
            self._free(entry.value)

    def next_expiry(self) -> float | None:
        """The time before which `expire` has nothing to do, or ``None`` for never."""
        return self._timers[0][0] if self._timers else None

    def values(self) -> list[Value]:
        """What all live tokens stand for."""
        return [entry.value for entry in self._entries.values()]

    def __len__(self) -> int:
        return len(self._entries)

    def _live(self, token: object, now: float) -> Entry[Value]:
        self.expire(now)
        if not isinstance(token, str):
            raise TokenError(INVALID_TOKEN)
        entry = self._entries.get(token)
        if entry is not None:
            return entry
        if token in self._expired:
            del self._expired[token]
            raise TokenError(TIMEOUT)
        raise TokenError(INVALID_TOKEN)

    def _is_live(self, entry: Entry[Value]) -> bool:
        return self._entries.get(entry.token) is entry

    def _set_timer(self, entry: Entry[Value]) -> None:
        entry.is_timed = True
        heapq.heappush(self._timers, (entry.expires, next(self._numbers), entry))


def checked_ttl(ttl: Any) -> float:
    """The ttl as seconds.

    Raises:
        ValueError: it is no finite number above 0.
    """
    if isinstance(ttl, int | float) and not isinstance(ttl, bool):
        try:
            seconds = float(ttl)
        except OverflowError:
            seconds = math.inf
        if 0 < seconds < math.inf:
            return seconds
    raise ValueError("ttl is a number of seconds above 0")
