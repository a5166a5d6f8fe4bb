"""What every transport offers to the RPC: a `Port`, which calls a `PortHandler`.

A port is one open end of a transport. It has peers, each named by a key: any hashable value that
the port never uses for another peer. A message is a list of frames of bytes. A transport
guarantees:

* Messages from one peer arrive whole, once, and in the order in which they were sent, or the
  peer is lost. Between a peer's `PortHandler.peer_lost` and a later
  `PortHandler.peer_connected` there is a new key.
* `Port.send` never blocks and never raises for what a peer did. It queues what cannot be sent yet;
  the handler bounds the queue by `Port.queued_bytes`.
* All methods of the port, and of its handler, are called on one event loop.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from ...errors import AuthenticationError
from ...security import Security

__all__ = [
    "IPC_MODE",
    "MAX_SERVERS",
    "Buffer",
    "Credentials",
    "Key",
    "Port",
    "PortHandler",
    "PortOptions",
]

#: The mode of the file of an ``ipc://`` socket: its owner alone may connect.
IPC_MODE = 0o600

#: Servers of one address that a client connects with: enough that a few may fail, and few enough
#: that a thousand clients are no burden to each.
MAX_SERVERS = 8

Key: TypeAlias = Hashable
Buffer: TypeAlias = bytes | bytearray | memoryview


class Credentials(NamedTuple):
    """Who a peer has proved to be.

    Args:
        key: its public key; ``None`` if it has proved it by a token or a certificate.
        user: its name, if there is one. There is a key or a name.
    """

    key: str | None
    user: str | None = None


class PortOptions(NamedTuple):
    """The options with which a port is opened.

    Args:
        heartbeat: seconds; a peer that is silent for up to twice as long is lost.
        max_frame: bytes; a peer that sends a larger frame is disconnected.
        linger: seconds that a closing port goes on sending what is queued.
        single: a listening port expects one peer, which says nothing before it is called (a plain
            aiozmq.rpc server).
        security: who may connect, and how this side proves who it is; ``None`` for neither.
        ipc_mode: of the file of an ``ipc://`` endpoint that is bound: who on this host may connect.
        connect_timeout: seconds in which a listening port that needs a server of its own, as that
            of NATS, must find it.
        max_servers: of those that listen at one address, with how many a connecting port connects.
        insecure: the user trusts the network.
        serves: whether the peers may call this side.
        avoided_services: the ids of announced servers that a connecting port leaves alone.
    """

    heartbeat: float
    max_frame: int
    linger: float = 1.0
    single: bool = False
    security: Security | None = None
    ipc_mode: int = IPC_MODE
    connect_timeout: float = 5.0
    max_servers: int = MAX_SERVERS
    insecure: bool = False
    serves: bool = True
    avoided_services: Collection[str] = ()


class PortHandler(Protocol):
    """Receives the events of a port. None of its methods may raise."""

    def has_room(self, peers: int) -> bool:
        """Whether a further peer of the port is served; a port may tell one that is not.

        Args:
            peers: how many the port has.
        """

    def peer_connected(self, key: Key) -> None:
        """A peer has connected. A listening port may notice it only by the first message."""

    def message_received(self, key: Key, frames: Sequence[bytes]) -> None:
        """A whole message of one or more frames arrived."""

    def message_refused(self, key: Key, reason: str) -> None:
        """A message arrived from a peer that this port cannot serve. Both are ignored."""

    def authentication_failed(self, error: AuthenticationError) -> None:
        """The peer that a port connects to refused this side, or this side the peer.

        The port tries again, more and more seldom.
        """

    def servers_full(self, reason: str | None) -> None:
        """All servers that a connecting port has found are full; ``None``: there are none now.

        The port tries again.
        """

    def read_complete(self) -> None:
        """All that could be read for now was handed over: answers may be sent together."""

    def peer_lost(self, key: Key, reason: str, *, at_once: bool = False) -> None:
        """The connection to the peer was lost; nothing sent to this key arrives any more.

        Args:
            at_once: whether what it has sent, and that is not served yet, must not be.
        """


class Port(ABC):
    """One open end of a transport: listening or connecting, with any number of peers."""

    @property
    @abstractmethod
    def endpoints(self) -> tuple[str, ...]:
        """The real addresses, with wildcards resolved."""

    @property
    @abstractmethod
    def notices_loss(self) -> bool:
        """Whether the transport finds dead and frozen peers by itself.

        Where it does not, the RPC sends pings.
        """

    @abstractmethod
    def send(self, key: Key, frames: Sequence[Buffer]) -> bool:
        """Send or queue one message of one or more frames.

        Buffers other than bytes are copied: they may be changed once this returns.

        Returns:
            Whether the peer is connected. If not, `PortHandler.peer_lost` was or will be called
            once; never for an unknown key, nor after `close`.
        """

    @abstractmethod
    def queued_bytes(self, key: Key) -> int:
        """Bytes that wait in this process to be sent to the peer."""

    @property
    def has_peers(self) -> bool:
        """Whether its keys are peers, as `Limits.max_peers` counts them.

        Where all who send requests have one key together, they are not.
        """
        return True

    @property
    def trouble(self) -> str | None:
        """Why there is no peer, where the port knows more than that there is none."""
        return None

    def all_queued_bytes(self) -> int:
        """Bytes that wait to be sent to all peers; 0 where the port bounds them by itself."""
        return 0

    def address(self, key: Key) -> str | None:
        """The host of a peer, as an IP address.

        Returns:
            Empty text for a peer that must be on this host, and ``None`` if it is not known.
        """
        return None

    def credentials(self, key: Key) -> Credentials | None:
        """Who a peer has proved to be; ``None`` where that is not asked for, or it has no name."""
        return None

    def scheme(self, key: Key) -> str:
        """The scheme for calling a peer back at a host and port: ``"tcp"`` or ``"http"``."""
        return "tcp"

    def can_be_pushed(self, key: Key) -> bool:
        """Whether a peer takes more than answers.

        A ZeroMQ REQ socket takes whatever comes next for the answer to its request.
        """
        return True

    @abstractmethod
    def disconnect(self, key: Key) -> None:
        """Forget a peer: drop what is queued for it. `PortHandler.peer_lost` is not called.

        A connecting port may come back, with a new key.
        """

    def stop_accepting(self) -> None:
        """Take no new peers, where the transport can tell them of other servers."""

    @property
    def is_drained(self) -> bool:
        """Whether all has arrived that was on its way before `stop_accepting`."""
        return True

    @abstractmethod
    def close(self) -> None:
        """Send what is queued for up to `PortOptions.linger` seconds, then close.

        The handler is not called any more. The address is free once `wait_closed` returned.
        """

    @abstractmethod
    async def wait_closed(self) -> None:
        """Wait until `close` is over. Cancelling it cancels the wait alone."""
