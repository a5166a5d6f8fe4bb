"""The one interface between call state and the outside: a `Port` and its `PortHandler`.

A port is one open end of a transport. It has peers, each named by a key that is any hashable
value and is never used again for another peer of the same port. A message is a list of frames
of bytes. What a transport has to keep:

* Messages from one peer arrive whole, once, and in the order in which they were sent, or the
  peer is lost. Between a peer's `PortHandler.peer_lost` and a later
  `PortHandler.peer_connected` there is a new key.
* `Port.send` never blocks and never raises for what a peer did. It queues what cannot leave
  yet; the owner bounds the queue by `Port.queued_bytes`.
* All methods are called, and all the owner's methods are called back, on one event loop.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from ...security import Security

__all__ = ["Buffer", "Key", "Port", "PortHandler", "PortOptions"]

Key: TypeAlias = Hashable
Buffer: TypeAlias = bytes | bytearray | memoryview


class PortOptions(NamedTuple):
    """What a transport is told when a port is opened.

    Args:
        heartbeat: seconds; a peer that is silent for up to twice as long is lost.
        max_frame: bytes; a peer that sends a larger frame is disconnected.
        linger: seconds that a closing port goes on sending what is queued.
        single: a listening port expects one peer, which says nothing before it is called (a plain
            aiozmq.rpc server).
        security: who may come in, and how this side proves who it is.
    """

    heartbeat: float
    max_frame: int
    linger: float = 1.0
    single: bool = False
    security: Security | None = None


class PortHandler(Protocol):
    """Who is told what happens at a port. None of these may raise."""

    def peer_connected(self, key: Key) -> None:
        """A peer is there. A listening port may learn it only from the first message."""

    def message_received(self, key: Key, frames: Sequence[bytes]) -> None:
        """A whole message of one or more frames arrived."""

    def message_refused(self, key: Key, reason: str) -> None:
        """A message arrived from a peer that this port cannot serve. Nothing is kept of either."""

    def read_complete(self) -> None:
        """All that could be read for now was handed over: answers may leave together."""

    def peer_lost(self, key: Key, reason: str) -> None:
        """The peer is gone; nothing sent to this key arrives any more."""


class Port(ABC):
    """One open end of a transport: listening or connecting, with any number of peers."""

    @property
    @abstractmethod
    def endpoints(self) -> tuple[str, ...]:
        """The real addresses, wildcards resolved."""

    @property
    @abstractmethod
    def notices_loss(self) -> bool:
        """Whether the transport finds dead and frozen peers by itself.

        Where it does not, the owner sends pings.
        """

    @abstractmethod
    def send(self, key: Key, frames: Sequence[Buffer]) -> bool:
        """Send or queue one message of one or more frames.

        Buffers other than bytes are copied: they may be changed once this returns.

        Returns:
            Whether the peer is there. The owner has been or will be told of its loss, once;
            never for an unknown key, nor after `close`.
        """

    @abstractmethod
    def queued_bytes(self, key: Key) -> int:
        """Bytes that wait in this process to be sent to the peer."""

    def address(self, key: Key) -> str | None:
        """The host that a peer is at, as an IP address.

        Returns:
            An empty text for a peer that can only be of this host, and ``None`` where it is not
            known.
        """
        return None

    def scheme(self, key: Key) -> str:
        """How a peer may be called back that gives a host and a port: ``"tcp"`` or ``"http"``."""
        return "tcp"

    @abstractmethod
    def disconnect(self, key: Key) -> None:
        """Forget a peer: drop what is queued for it. `PortHandler.peer_lost` is not called.

        A connecting port may come back, with a new key.
        """

    @abstractmethod
    def close(self) -> None:
        """Send what is queued for up to `PortOptions.linger` seconds, then close.

        The owner is not called any more. The address is free once `wait_closed` returned.
        """

    @abstractmethod
    async def wait_closed(self) -> None:
        """Wait until `close` is over. Cancelling it cancels the wait alone."""
