"""Messages that a peer has asked to be sent, as they come."""

import asyncio
import logging
import uuid
from typing import TYPE_CHECKING, Any

from ...bus import Bus
from ...common.tally import Tally
from ...errors import NotFoundError
from ...identifier import Identifier
from ...rpc import Client
from ..items import RPCRequest
from ..protocols.json_codec import encode
from ..protocols.version2 import JSONRPCv2
from .source import BusSource, RemoteSource, Source

if TYPE_CHECKING:
    from .peer import Peer

__all__ = [
    "MAX_SUBSCRIPTIONS",
    "QUEUE_SIZE",
    "RemoteSubscriptions",
    "Subscription",
    "Subscriptions",
]

logger = logging.getLogger("berrymq_rpc.jsonrpc.bridge")

#: Messages that are kept for one subscription of a peer that does not read: a second of a busy
#: bus. The oldest goes first.
QUEUE_SIZE = 1000

#: Subscriptions of one peer: each is a queue and a task.
MAX_SUBSCRIPTIONS = 100


class Subscription:
    """One subscription. It ends when it is closed, or its peer is gone.

    Attributes:
        id: what the peer knows it by.
    """

    def __init__(self, source: Source) -> None:
        self.id = uuid.uuid4().hex
        self._source = source
        self._unwritable = Tally()
        self._task: asyncio.Task[None] | None = None

    @property
    def dropped(self) -> int:
        """How many messages were not sent, as too many waited or they cannot be written."""
        return self._source.dropped + self._unwritable.count

    def start(self, peer: "Peer") -> None:
        """Send what comes."""
        self._task = asyncio.create_task(self._run(peer), name=f"subscription {self.id}")

    def close(self) -> None:
        """Send nothing more."""
        self._source.close()
        if self._task is not None:
            self._task.cancel()

    async def _run(self, peer: "Peer") -> None:
        told = 0
        try:
            while (sent := await self._source.next()) is not None:
                await peer.room()
                params: dict[str, Any] = {
                    "subscription": self.id,
                    "id": sent.id,
                    "args": sent.args,
                    "kwargs": sent.kwargs,
                }
                dropped = self.dropped
                if dropped > told:
                    params["dropped"] = dropped - told
                text = self._text(params, peer.desk.max_depth)
                if text is None:
                    continue
                if not peer.push(text):
                    return
                told = dropped
        except Exception:
            logger.exception("a subscription to messages has ended")

    def _text(self, params: dict[str, Any], max_depth: int) -> bytes | None:
        payload = JSONRPCv2.request_payload(RPCRequest("message", params, None))
        try:
            return encode(payload, max_depth)
        except Exception as error:
            if self._unwritable.add():
                logger.warning(
                    "message %s cannot be written for a subscriber (%d so far): %s",
                    params["id"],
                    self._unwritable.count,
                    error,
                )
            return None


def _start(peer: "Peer", source: Source) -> str:
    subscription = Subscription(source)
    try:
        peer.subscribe(subscription, MAX_SUBSCRIPTIONS)
    except BaseException:
        subscription.close()
        raise
    return subscription.id


class Subscriptions:
    """What the bridge's methods ``subscribe`` and ``unsubscribe`` do before a node.

    Args:
        bus: whose messages these are.
        queue_size: messages that are kept for one subscription.
    """

    def __init__(self, bus: Bus, queue_size: int = QUEUE_SIZE) -> None:
        self._bus = bus
        self._queue_size = queue_size

    def subscribe(self, peer: "Peer", identifier: str) -> Any:
        """Have messages sent as notifications of the method "message".

        Their params are {"subscription", "id", "args", "kwargs"}, and "dropped" where messages
        were dropped before this one, as the peer did not read fast enough.

        Args:
            identifier: which messages, such as "job:*".

        Returns:
            The subscription's id, for unsubscribe.
        """
        exportable = Identifier(identifier).require_exportable()
        return _start(peer, BusSource(exportable, self._bus, self._queue_size))

    def unsubscribe(self, peer: "Peer", id: str) -> bool:
        """End a subscription.

        Args:
            id: from subscribe.

        Returns:
            True.
        """
        # It came from the peer, and may be anything.
        key: Any = id
        subscription = peer.subscriptions.pop(key, None) if isinstance(key, str) else None
        if subscription is None:
            raise ValueError("there is no subscription of that id")
        subscription.close()
        peer.desk.dropped += subscription.dropped
        return True


class RemoteSubscriptions(Subscriptions):
    """The same before a remote server, which may be a node or not.

    Args:
        client: is connected to it.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def subscribe(self, peer: "Peer", identifier: str) -> str:
        source = RemoteSource(Identifier(identifier).require_exportable(), self._client)
        try:
            await source.open()
        except NotFoundError:
            raise NotFoundError("no method 'subscribe': the server is no node") from None
        return _start(peer, source)

    subscribe.__doc__ = Subscriptions.subscribe.__doc__
