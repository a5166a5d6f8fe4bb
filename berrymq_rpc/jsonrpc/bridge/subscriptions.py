"""The methods ``subscribe`` and ``unsubscribe`` of a bridge, and the messages that they send."""

import asyncio
import uuid
from collections import defaultdict
from typing import Any

from ...bus import Bus
from ...errors import (
    Error,
    NotFoundError,
    OverloadedError,
    ParametersError,
    ServiceClosedError,
)
from ...identifier import Identifier
from ...rpc import Client
from ...rpc.connection import Connection
from ...rpc.inbound import Inbound
from ...rpc.inbound_call import current
from ...rpc.wire.session import State
from ...runtime.log import Log
from .message_source import BusSource, MessageSource, RemoteSource
from .write_queue import ROOM

__all__ = [
    "MAX_SUBSCRIPTIONS",
    "QUEUE_SIZE",
    "RemoteSubscriptions",
    "Subscription",
    "Subscriptions",
]

logger = Log("berrymq_rpc.jsonrpc.bridge")

#: Messages that are kept for one subscription of a peer that does not read: those of a second on a
#: busy bus. The oldest are dropped first.
QUEUE_SIZE = 1000

#: Seconds between two checks whether a peer has read what is queued for it.
CONGESTION_PAUSE = 0.01

#: Subscriptions of one peer: each is a queue and a task.
MAX_SUBSCRIPTIONS = 100


class Subscription:
    """One subscription. It ends when it is closed, or its peer is gone.

    Attributes:
        id: names it to the peer.
    """

    def __init__(self, source: MessageSource) -> None:
        self.id = uuid.uuid4().hex
        self._source = source
        self._unwritable = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def dropped(self) -> int:
        """How many messages were dropped because too many waited, or could not be written."""
        return self._source.dropped + self._unwritable

    def start(self, connection: Connection) -> None:
        """Send the messages as they come."""
        self._task = asyncio.create_task(self._run(connection), name=f"subscription {self.id}")

    def close(self) -> None:
        """Stop sending."""
        self._source.close()
        if self._task is not None:
            self._task.cancel()

    async def _run(self, connection: Connection) -> None:
        reported = 0
        try:
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
        except Exception:
            logger.exception("a subscription failed")

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
        queue_size: messages that are kept for one subscription.
    """

    def __init__(self, bus: Bus, queue_size: int = QUEUE_SIZE) -> None:
        self._init()
        self._bus = bus
        self._queue_size = queue_size

    def _init(self) -> None:
        self._of: defaultdict[Connection, dict[str, Subscription]] = defaultdict(dict)
        #: How many messages ended subscriptions dropped.
        self._dropped = 0

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
        source = BusSource(_exportable(identifier), self._bus, self._queue_size)
        return self._start(connection, source)

    def _start(self, connection: Connection, source: MessageSource) -> str:
        subscription = Subscription(source)
        try:
            if connection.session.state is State.LOST:
                raise ServiceClosedError("the connection was closed")
            if len(self._of[connection]) >= MAX_SUBSCRIPTIONS:
                raise OverloadedError(f"one peer may have {MAX_SUBSCRIPTIONS} subscriptions")
        except BaseException:
            subscription.close()
            raise
        self._of[connection][subscription.id] = subscription
        subscription.start(connection)
        return subscription.id

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
        connection = _subscriber()
        subscription = self._of[connection].pop(key, None)
        if subscription is None:
            raise ValueError("there is no subscription with that id")
        self._end(subscription)
        return True

    def connection_lost(self, connection: Connection) -> None:
        """End the subscriptions of a peer that has gone."""
        for subscription in self._of.pop(connection, {}).values():
            self._end(subscription)

    def _end(self, subscription: Subscription) -> None:
        subscription.close()
        self._dropped += subscription.dropped


class RemoteSubscriptions(Subscriptions):
    """The same for a client of a remote server, which may be a node or not.

    Args:
        client: is connected to it.
    """

    def __init__(self, client: Client) -> None:
        self._init()
        self._client = client

    async def subscribe(self, identifier: str) -> str:
        connection = _subscriber()
        source = RemoteSource(_exportable(identifier), self._client)
        try:
            await source.open()
        except NotFoundError:
            raise NotFoundError("no method 'subscribe': the server is not a node") from None
        return self._start(connection, source)

    subscribe.__doc__ = Subscriptions.subscribe.__doc__
