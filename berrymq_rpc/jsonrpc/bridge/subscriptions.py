"""The methods ``subscribe`` and ``unsubscribe`` of a bridge."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from ...bus import Bus
from ...endpoint import host_key
from ...errors import (
    Error,
    NotFoundError,
    OverloadedError,
    ParametersError,
    ServiceClosedError,
)
from ...exchange.policy import Grants
from ...exchange.quota import AllBytes, PeerBytes
from ...identifier import Identifier
from ...rpc import Client
from ...rpc.connection import Connection
from ...rpc.inbound import Inbound
from ...rpc.inbound_call import current
from ...rpc.wire.session import State
from .bus_source import BusSource, MessageSizes
from .message_source import RemoteSource
from .subscription import Subscription

__all__ = [
    "MAX_PEER_SUBSCRIPTIONS",
    "MAX_SUBSCRIPTIONS",
    "QUEUE_BYTES",
    "QUEUE_SIZE",
    "BusSubscriptions",
    "ClusterSubscriptions",
    "RemoteSubscriptions",
    "SubscriptionBounds",
    "Subscriptions",
]

#: Messages that are kept for one subscription of a peer that does not read: those of a second on a
#: busy bus. The oldest are dropped first.
QUEUE_SIZE = 1000

#: Bytes of the messages that are kept for all subscriptions of one connection, and how many
#: connections' worth all of them together may take.
QUEUE_BYTES = 32 << 20
PEERS_OF_ALL = 10

#: Subscriptions of all peers, and of one connection: each is a queue and a task, some 5 KB. One
#: host may have a tenth of all.
MAX_SUBSCRIPTIONS = 20_000
MAX_PEER_SUBSCRIPTIONS = 100


#: Seconds that the answer to a subscription waits at most for the NATS server to know of it.
SETTLE_TIMEOUT = 2.0


class SubscriptionBounds(NamedTuple):
    """How many subscriptions there may be.

    Args:
        all: of all peers.
        host: of the peers of one host.
        peer: of one connection.
    """

    all: int
    host: int
    peer: int


def _subscriber() -> Connection:
    """The connection of the peer that calls.

    Raises:
        Error: it cannot be sent messages.
    """
    call = current.get()
    assert call is not None
    inbound = call.snapshot().inbound
    assert isinstance(inbound, Inbound)
    connection = inbound.connection
    if not connection.session.can_be_pushed:
        raise Error(
            "subscriptions need a connection that can push messages: use /ws, TCP, or ZeroMQ with "
            "a DEALER socket"
        )
    return connection


def _user_of(connection: Connection) -> str | None:
    """The name of a peer's user, else its public key."""
    port = connection.port
    credentials = None if port is None else port.credentials(connection.key)
    return None if credentials is None else credentials.user or credentials.key


def _exportable(identifier: Any) -> Identifier:
    """The identifier that a peer has sent.

    Raises:
        ParametersError: it is not one, or stays in its process.
    """
    try:
        return Identifier(identifier).require_exportable()
    except (TypeError, ValueError) as error:
        raise ParametersError(str(error)) from None


class Subscriptions(ABC):
    """``subscribe`` and ``unsubscribe``, and the subscriptions of all peers.

    Args:
        bounds: how many there may be.

    Attributes:
        refused: how many were refused, as there were too many.
    """

    def __init__(self, bounds: SubscriptionBounds) -> None:
        self._bounds = bounds
        self._of: dict[Connection, dict[str, Subscription]] = {}
        self._hosts = Counter[str]()
        self.refused = 0
        #: How many messages ended subscriptions dropped.
        self._dropped = 0

    @property
    def count(self) -> int:
        """How many there are."""
        return self._hosts.total()

    @property
    def dropped(self) -> int:
        """How many messages were dropped."""
        open_ones = [each for of_peer in self._of.values() for each in of_peer.values()]
        return self._dropped + sum(subscription.dropped for subscription in open_ones)

    @property
    def bytes(self) -> int:
        """Bytes of the messages that are kept here."""
        return 0

    @abstractmethod
    def subscribe(self, identifier: str) -> Any:
        """Have messages sent as notifications of the method "message".

        Their params are {"subscription", "id", "args", "kwargs"}, "retained": true where a message
        was sent before and the bus has kept it, and "dropped" where messages were dropped before
        this one, as the peer did not read fast enough.

        Args:
            identifier: which messages, such as "job:*".

        Returns:
            The subscription's id, for unsubscribe.
        """

    def _checked_host(self, connection: Connection) -> str:
        """Check whether a peer may have one more, before anything is opened for it.

        Returns:
            What counts as its host.

        Raises:
            ServiceClosedError: it has left.
            OverloadedError: there are too many.
        """
        if connection.session.state is State.LOST or connection.port is None:
            raise ServiceClosedError("the connection was closed")
        host = host_key(connection.port.address(connection.key))
        counts = (
            ("one peer", len(self._of.get(connection, ())), self._bounds.peer),
            ("one host", self._hosts[host], self._bounds.host),
            ("all peers together", self.count, self._bounds.all),
        )
        for who, count, bound in counts:
            if count >= bound:
                self.refused += 1
                raise OverloadedError(f"{who} may have {bound:,} subscriptions")
        return host

    def _add(self, subscription: Subscription) -> Subscription:
        self._of.setdefault(subscription.connection, {})[subscription.id] = subscription
        self._hosts[subscription.host] += 1
        return subscription

    def unsubscribe(self, id: str) -> bool:
        """End a subscription.

        Args:
            id: from subscribe.

        Returns:
            True.
        """
        # It comes from the peer, and may have any type.
        key: Any = id
        if not isinstance(key, str):
            raise ParametersError(f"a subscription's id must be text, not {type(key).__name__}")
        subscription = self._of.get(_subscriber(), {}).get(key)
        if subscription is None:
            raise ValueError("there is no subscription with that id")
        self._end(subscription)
        return True

    def connection_lost(self, connection: Connection) -> None:
        """End the subscriptions of a peer that has gone."""
        for subscription in list(self._of.get(connection, {}).values()):
            self._end(subscription)

    def _end(self, subscription: Subscription) -> None:
        """Close a subscription, and forget it. Can be called again."""
        of_peer = self._of.get(subscription.connection, {})
        if of_peer.pop(subscription.id, None) is None:
            return
        if not of_peer:
            del self._of[subscription.connection]
        self._hosts[subscription.host] -= 1
        if not self._hosts[subscription.host]:
            del self._hosts[subscription.host]
        self._dropped += subscription.dropped
        subscription.close()
        if not of_peer:
            self._peer_ended(subscription.connection)

    def _peer_ended(self, connection: Connection) -> None:
        """The last subscription of a peer has ended."""


class BusSubscriptions(Subscriptions):
    """Those for the bus of a node.

    Args:
        bus: whose messages these are.
        bounds: how many there may be.
        queue_size: messages that are kept for one subscription.
        queue_bytes: bytes of the messages that are kept for all subscriptions of one connection;
            those of all connections together may take ten times as many.
        may_receive: says what a user may get, as `Node.may_receive` does.
    """

    def __init__(
        self,
        bus: Bus,
        bounds: SubscriptionBounds,
        queue_size: int,
        queue_bytes: int,
        may_receive: Callable[[str | None], Grants | None],
    ) -> None:
        super().__init__(bounds)
        self._may_receive = may_receive
        self._bus = bus
        self._queue_size = queue_size
        self._queue_bytes = queue_bytes
        self._of_all = AllBytes(queue_bytes * PEERS_OF_ALL)
        self._of_peers: dict[Connection, PeerBytes] = {}
        self._sizes = MessageSizes()

    @property
    def bytes(self) -> int:
        return self._of_all.bytes

    def subscribe(self, identifier: str) -> Any:
        subscription = self._collect(identifier)
        subscription.start(self._end)
        return subscription.id

    def _collect(self, identifier: str) -> Subscription:
        """Make a subscription of the peer that calls, which keeps messages from now on."""
        connection = _subscriber()
        exportable = _exportable(identifier)
        host = self._checked_host(connection)
        of_peer = self._of_peers.get(connection)
        if of_peer is None:
            of_peer = self._of_peers[connection] = PeerBytes(self._queue_bytes, self._of_all)
        grants = self._may_receive(_user_of(connection))
        source = BusSource(exportable, self._bus, self._queue_size, of_peer, self._sizes, grants)
        return self._add(Subscription(source, connection, host))

    subscribe.__doc__ = Subscriptions.subscribe.__doc__

    def _peer_ended(self, connection: Connection) -> None:
        of_peer = self._of_peers.pop(connection, None)
        if of_peer is not None:
            with self._of_all.lock:
                self._of_all.members.pop(of_peer, None)


class ClusterSubscriptions(BusSubscriptions):
    """Those for the bus of a node in a cluster.

    Args:
        settle: waits until other nodes know what is followed, as `Node.settle` does.
    """

    def __init__(self, settle: Callable[[float], Awaitable[bool]], *args: Any) -> None:
        super().__init__(*args)
        self._settle = settle

    async def subscribe(self, identifier: str) -> str:
        subscription = self._collect(identifier)
        try:
            await self._settle(SETTLE_TIMEOUT)
        except BaseException:
            self._end(subscription)
            raise
        subscription.start(self._end)
        return subscription.id

    subscribe.__doc__ = Subscriptions.subscribe.__doc__


class RemoteSubscriptions(Subscriptions):
    """Those for a client of a remote server, which may be a node or not.

    Args:
        client: is connected to it.
        bounds: how many there may be, with those that are being opened.
    """

    def __init__(self, client: Client, bounds: SubscriptionBounds) -> None:
        super().__init__(bounds)
        self._client = client

    async def subscribe(self, identifier: str) -> str:
        connection = _subscriber()
        source = RemoteSource(_exportable(identifier), self._client)
        host = self._checked_host(connection)
        # It counts from now on: others may ask while the queue is opened.
        subscription = self._add(Subscription(source, connection, host))
        try:
            await source.open()
        except NotFoundError:
            self._end(subscription)
            raise NotFoundError("no method 'subscribe': the server is not a node") from None
        except BaseException:
            self._end(subscription)
            raise
        subscription.start(self._end)
        return subscription.id

    subscribe.__doc__ = Subscriptions.subscribe.__doc__
