"""Talk to a peer in frames, over any transport: what arrives is a queue of events."""

import asyncio
from collections.abc import AsyncIterator, Hashable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from ...errors import AuthenticationError
from ...rpc.transport import transport_for
from ...rpc.transport.port import Port, PortHandler, PortOptions
from ...security import Security

__all__ = ["Conversation", "Lost", "Refused", "conversation"]

#: Seconds and bytes of the port, which lives for some seconds and gets small messages.
HEARTBEAT = 2.0
MAX_FRAME = 1 << 20


class Refused(NamedTuple):
    """The peer refused this side, or this side the peer."""

    error: AuthenticationError


class Lost(NamedTuple):
    """The connection was lost."""

    reason: str


class Conversation(PortHandler):
    """The events of a port with one peer.

    Attributes:
        port: set once it is open.
        key: the peer's; ``None`` until it has connected.
    """

    port: Port

    def __init__(self) -> None:
        self.key: Hashable | None = None
        self._events: asyncio.Queue[list[bytes] | Refused | Lost | None] = asyncio.Queue()

    async def connected(self, timeout: float) -> Refused | Lost | None:
        """Wait for the peer; return why it is not there, or ``None``.

        Raises:
            TimeoutError: nothing happened in time.
        """
        event = await self._next(timeout)
        return event if isinstance(event, Refused | Lost) else None

    async def ask(self, frames: Sequence[bytes], timeout: float) -> list[bytes] | Refused | Lost:
        """Send a message, and return the next one, or why there is none.

        Raises:
            TimeoutError: nothing came in time.
        """
        self.port.send(self.key, frames)
        return await self.next(timeout)

    async def next(self, timeout: float) -> list[bytes] | Refused | Lost:
        """Return the next message.

        Raises:
            TimeoutError: nothing came in time.
        """
        async with asyncio.timeout(timeout):
            while True:
                event = await self._events.get()
                if event is not None:
                    return event

    async def _next(self, timeout: float) -> list[bytes] | Refused | Lost | None:
        async with asyncio.timeout(timeout):
            return await self._events.get()

    # -- of the port -------------------------------------------------------------------------

    def has_room(self, peers: int) -> bool:
        return True

    def peer_connected(self, key: Hashable) -> None:
        self.key = key
        self._events.put_nowait(None)

    def message_received(self, key: Hashable, frames: Sequence[bytes]) -> None:
        self._events.put_nowait(list(map(bytes, frames)))

    def message_refused(self, key: Hashable, reason: str) -> None:
        self._events.put_nowait(Lost(reason))

    def authentication_failed(self, error: AuthenticationError) -> None:
        self._events.put_nowait(Refused(error))

    def servers_full(self, reason: str | None) -> None:
        self._events.put_nowait(Lost(reason or "there is no server"))

    def read_complete(self) -> None:
        """Nothing waits for that."""

    def peer_lost(self, key: Hashable, reason: str, *, at_once: bool = False) -> None:
        self.key = None
        self._events.put_nowait(Lost(reason))


@asynccontextmanager
async def conversation(
    endpoint: str, security: Security | None, timeout: float
) -> AsyncIterator[Conversation]:
    """A conversation with the server at an endpoint, for as long as this is entered."""
    talk = Conversation()
    options = PortOptions(
        HEARTBEAT, MAX_FRAME, linger=0.0, security=security, connect_timeout=timeout, serves=False
    )
    talk.port = await transport_for(endpoint).dial(endpoint, talk, options)
    try:
        yield talk
    finally:
        talk.port.close()
        await talk.port.wait_closed()
