"""The methods ``subscribe`` and ``unsubscribe`` of a bridge, and the messages that they send."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Callable
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
from ...runtime.log import Log
from .bus_source import BusSource, MessageSizes
from .message_source import MessageSource, RemoteSource
from .write_queue import ROOM

__all__ = [
    "MAX_PEER_SUBSCRIPTIONS",
    "MAX_SUBSCRIPTIONS",
    "QUEUE_BYTES",
    "QUEUE_SIZE",
    "RemoteSubscriptions",
    "Subscription",
    "SubscriptionBounds",
    "Subscriptions",
]

logger = Log("berrymq_rpc.jsonrpc.bridge")

#: Messages that are kept for one subscription of a peer that does not read: those of a second on a
#: busy bus. The oldest are dropped first.
QUEUE_SIZE = 1000

#: Bytes of the messages that are kept for all subscriptions of one connection, and how many
#: connections' worth all of them together may take.
QUEUE_BYTES = 32 << 20
PEERS_OF_ALL = 10

#: Seconds between two checks whether a peer has read what is queued for it.
CONGESTION_PAUSE = 0.01

#: Subscriptions of all peers, and of one connection: each is a queue and a task, some 5 KB. One
#: host may have a tenth of all.
MAX_SUBSCRIPTIONS = 20_000
MAX_PEER_SUBSCRIPTIONS = 100


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


class Subscription:
    """One subscription. It ends when it is closed, or its peer is gone.

    Args:
        source: where its messages come from.
        connection: that of the peer.
        host: what counts as the host of the peer; see `places.host_key`.

    Attributes:
        id: names it to the peer.
    """

    def __init__(self, source: MessageSource, connection: Connection, host: str) -> None:
        self.id = uuid.uuid4().hex
        self.connection = connection
        self.host = host
        self._source = source
        self._unwritable = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def dropped(self) -> int:
        """How many messages were dropped because too many waited, or could not be written."""
        return self._source.dropped + self._unwritable

    def start(self, on_ended: Callable[["Subscription"], object]) -> None:
        """Send the messages as they come.

        Args:
            on_ended: called when no more will be sent, unless it was closed.
        """
        self._task = asyncio.create_task(self._run(on_ended), name=f"subscription {self.id}")

    def close(self) -> None:
        """Stop sending."""
        self._source.close()
        if self._task is not None:
            self._task.cancel()

    async def _run(self, on_ended: Callable[["Subscription"], object]) -> None:
        try:
            await self._send()
        except Exception:
            logger.exception("a subscription failed")
        on_ended(self)

    async def _send(self) -> None:
        connection = self.connection
        reported = 0
        while (sent := await self._source.next()) is not None:
            await _room(connection)
            params: dict[str, Any] = {
                "subscription": self.id,
                "id": sent.id,
                "args": sent.args,
                "kwargs": sent.kwargs,
            }
            dropped = self.dropped
            if dropped > reported:
                params["dropped"] = dropped - reported
            try:
                connection.notify("message", (), params)
            except ServiceClosedError:
                return
            except Exception as error:
                self._count_unwritable(sent.id, error)
                continue
            reported = dropped
            connection.flush()

    def _count_unwritable(self, identifier: str, error: Exception) -> None:
        self._unwritable += 1
        logger.warning(
            "message %s cannot be encoded for a subscriber (%d so far): %s",
            identifier,
            self._unwritable,
            error,
        )


async def _room(connection: Connection) -> None:
    """Wait until the peer has read most of what was sent to it."""
    port = connection.port
    assert port is not None
    while port.queued_bytes(connection.key) > ROOM:
        await asyncio.sleep(CONGESTION_PAUSE)


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


class Subscriptions:
    """``subscribe`` and ``unsubscribe`` for the bus of a node.

    Args:
        bus: whose messages these are.
        bounds: how many there may be.
        queue_size: messages that are kept for one subscription.
        queue_bytes: bytes of the messages that are kept for all subscriptions of one connection;
            those of all connections together may take ten times as many.
        may_receive: says what a user may get, as `Node.may_receive` does.

    Attributes:
        refused: how many were refused, as there were too many.
    """

    def __init__(
        self,
        bus: Bus,
        bounds: SubscriptionBounds,
        queue_size: int = QUEUE_SIZE,
        queue_bytes: int = QUEUE_BYTES,
        may_receive: Callable[[str | None], Grants | None] = lambda user: None,
    ) -> None:
        self._init(bounds)
        self._may_receive = may_receive
        self._bus = bus
        self._queue_size = queue_size
        self._queue_bytes = queue_bytes
        self._of_all = AllBytes(queue_bytes * PEERS_OF_ALL)
        self._sizes = MessageSizes()

    def _init(self, bounds: SubscriptionBounds) -> None:
        self._bounds = bounds
        self._of: dict[Connection, dict[str, Subscription]] = {}
        self._hosts = Counter[str]()
        self._of_all = AllBytes(0)
        self._of_peers: dict[Connection, PeerBytes] = {}
        self.refused = 0
        #: How many messages ended subscriptions dropped.
        self._dropped = 0

    @property
    def count(self) -> int:
        """How many there are."""
        return self._hosts.total()

    @property
    def bytes(self) -> int:
        """Bytes of the messages that are kept."""
        return self._of_all.bytes

    @property
    def dropped(self) -> int:
        """How many messages were dropped."""
        open_ones = [each for of_peer in self._of.values() for each in of_peer.values()]
        return self._dropped + sum(subscription.dropped for subscription in open_ones)

    def subscribe(self, identifier: str) -> Any:
        """Have messages sent as notifications of the method "message".

        Their params are {"subscription", "id", "args", "kwargs"}, and "dropped" where messages
        were dropped before this one, as the peer did not read fast enough.

        Args:
            identifier: which messages, such as "job:*".

        Returns:
            The subscription's id, for unsubscribe.
        """
        connection = _subscriber()
        exportable = _exportable(identifier)
        host = self._checked_host(connection)
        of_peer = self._of_peers.get(connection)
        if of_peer is None:
            of_peer = self._of_peers[connection] = PeerBytes(self._queue_bytes, self._of_all)
        grants = self._may_receive(_user_of(connection))
        source = BusSource(exportable, self._bus, self._queue_size, of_peer, self._sizes, grants)
        subscription = self._add(Subscription(source, connection, host))
        subscription.start(self._end)
        return subscription.id

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
            self._forget_bytes(subscription.connection)

    def _forget_bytes(self, connection: Connection) -> None:
        of_peer = self._of_peers.pop(connection, None)
        if of_peer is not None:
            with self._of_all.lock:
                self._of_all.members.pop(of_peer, None)


class RemoteSubscriptions(Subscriptions):
    """The same for a client of a remote server, which may be a node or not.

    Args:
        client: is connected to it.
        bounds: how many there may be, with those that are being opened.
    """

    def __init__(self, client: Client, bounds: SubscriptionBounds) -> None:
        self._init(bounds)
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
