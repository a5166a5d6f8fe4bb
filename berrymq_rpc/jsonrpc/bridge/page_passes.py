"""Passes for the WebSocket of a page: some browsers send no password with a WebSocket.

The page asks for one, with the password, and shows it as its next WebSocket's token.
"""

import secrets
from collections.abc import Callable, Iterable
from time import monotonic

from .http_access import BEARER_PROTOCOL

__all__ = ["MAX_PASSES", "TTL", "Passes"]

#: Passes that were not used yet; the oldest makes way.
MAX_PASSES = 1000

#: Seconds for which a pass can be used, once.
TTL = 30.0


class Passes:
    """Gives passes out, and knows whose each is.

    Args:
        clock: seconds that do not go back.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        #: The user and the end of each, in the order in which they were given out.
        self._issued: dict[str, tuple[str | None, float]] = {}

    def issue(self, user: str | None) -> str:
        """Give a pass to a user, who may have no name."""
        while len(self._issued) >= MAX_PASSES:
            del self._issued[next(iter(self._issued))]
        issued = secrets.token_urlsafe(32)
        self._issued[issued] = user, self._clock() + TTL
        return issued

    def redeem(self, protocols: Iterable[str]) -> tuple[str | None] | None:
        """Take a pass back: its user, or ``None`` if no valid one is among the subprotocols."""
        for protocol in protocols:
            # Random as they are, comparing them one by one tells nothing of use.
            found = self._issued.pop(protocol.removeprefix(BEARER_PROTOCOL), None)
            if found is not None:
                user, end = found
                return (user,) if self._clock() < end else None
        return None
