"""The base of all listeners, and the peers and the port of those without ZeroMQ."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Any

from ...rpc.port_connections import PortConnections
from ...rpc.transport.port import Credentials, Key, Port, PortOptions
from ...rpc.turns import TURN
from .places import Place
from .write_queue import WriteQueue

__all__ = [
    "EOF_GRACE",
    "SEND_TIMEOUT",
    "Listener",
    "ListenerPeer",
    "ListenerPort",
    "StreamPeer",
    "certified_user",
    "url_of",
]

#: Seconds that a peer has to read what a socket holds. One that takes longer is frozen or hostile.
SEND_TIMEOUT = 30.0

#: Seconds for which one peer is read in a turn of the event loop.
READ_TIME = TURN / 2

#: Seconds for the calls of a peer that has closed its sending half: it may still read, or be gone.
EOF_GRACE = 1.0


class Listener(ABC):
    """One address at which peers are served.

    Args:
        options: with which it is opened.
    """

    #: The address, with the real port.
    url: str

    def __init__(self, options: PortOptions) -> None:
        self.options = options

    @abstractmethod
    async def close(self, grace: float) -> None:
        """Accept no more peers, send what was answered, and close.

        Args:
            grace: seconds that this may take.
        """


def url_of(scheme: str, address: Sequence[Any]) -> str:
    """The URL of a socket that is bound to this address."""
    host, port = address[0], address[1]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def certified_user(transport: asyncio.BaseTransport | None) -> str | None:
    """The common name in the certificate that a peer has proved to have.

    ``None`` where certificates are not asked for, and for one that has no such name, or several.
    """
    # It is empty if it was not checked.
    certificate = None if transport is None else transport.get_extra_info("peercert")
    names = [
        value
        for name in (certificate or {}).get("subject", ())
        for field, value in name
        if field == "commonName"
    ]
    return names[0] if len(names) == 1 and names[0] else None


class ListenerPeer:
    """One peer of a listener: its key at the port.

    Args:
        address: the IP address that it is at, or ``None`` if that is not known.
        scheme: how it may be called back where it gives ``(host, port)``: ``"tcp"`` or ``"http"``.
        user: who it has proved to be; ``None`` where that is not known.
    """

    def __init__(self, address: str | None, scheme: str, user: str | None = None) -> None:
        self.address = address
        self.scheme = scheme
        self.credentials = None if user is None else Credentials(None, user)

    def send(self, text: bytes) -> bool:
        """Send a text; return whether the peer is connected."""
        raise NotImplementedError

    def queued_bytes(self) -> int:
        """Bytes that wait to be sent to it."""
        return 0

    def disconnect(self) -> None:
        """End the connection."""


class StreamPeer(ListenerPeer):
    """A peer whose texts arrive and leave one after another.

    Args:
        place: of its connection.

    Attributes:
        queue: what waits to be sent to it.
    """

    def __init__(
        self, address: str | None, scheme: str, place: Place, user: str | None = None
    ) -> None:
        super().__init__(address, scheme, user)
        self.queue = WriteQueue(place)
        self._loop = asyncio.get_running_loop()
        #: When others are to be served; ``None`` if it is read for the first time in this turn of
        #: the event loop.
        self._turn_end: float | None = None

    def hand_over(self, connections: PortConnections, text: bytes) -> None:
        """Have a text served."""
        connections.message_received(self, (text,))
        connections.read_complete()

    async def receive(self, connections: PortConnections, text: bytes) -> None:
        """Have a text served, and wait until the next one may be read."""
        self.hand_over(connections, text)
        await self.queue.room()
        # It has left where it is not known any more.
        connection = connections.connections.get(self)
        if connection is not None:
            await connection.served()
        await self.give_way()

    async def give_way(self) -> None:
        """Let others be served, if this peer has been read for long.

        Where the next text has arrived already, reading it does not wait.
        """
        if self._turn_end is None:
            self._turn_end = monotonic() + READ_TIME
            self._loop.call_soon(self._end_turn)
        elif monotonic() > self._turn_end:
            await asyncio.sleep(0)

    def _end_turn(self) -> None:
        self._turn_end = None

    def send(self, text: bytes) -> bool:
        return self.queue.put(text)

    def queued_bytes(self) -> int:
        return self.queue.size

    def disconnect(self) -> None:
        self.queue.drop()

    async def write_all(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Write what comes into the queue until that is closed.

        Raises:
            TimeoutError: the peer does not read.
            Exception: as `write` does.
        """
        queue = self.queue
        while (text := await queue.next()) is not None:
            async with asyncio.timeout(SEND_TIMEOUT):
                await write(text)
            queue.sent(text)


class ListenerPort(Port):
    """The port of a listener: each key is a `ListenerPeer`, which sends the texts."""

    #: The listener's address, once it listens.
    url = ""

    @property
    def endpoints(self) -> tuple[str, ...]:
        return (self.url,)

    @property
    def notices_loss(self) -> bool:
        return True

    def send(self, key: Key, frames: Sequence[Any]) -> bool:
        assert isinstance(key, ListenerPeer)
        return key.send(frames[-1])

    def queued_bytes(self, key: Key) -> int:
        assert isinstance(key, ListenerPeer)
        return key.queued_bytes()

    def address(self, key: Key) -> str | None:
        assert isinstance(key, ListenerPeer)
        return key.address

    def credentials(self, key: Key) -> Credentials | None:
        assert isinstance(key, ListenerPeer)
        return key.credentials

    def scheme(self, key: Key) -> str:
        assert isinstance(key, ListenerPeer)
        return key.scheme

    def disconnect(self, key: Key) -> None:
        assert isinstance(key, ListenerPeer)
        key.disconnect()

    def close(self) -> None:
        """Do nothing: the listener closes its connections."""

    async def wait_closed(self) -> None:
        """Return: there is nothing to wait for."""
