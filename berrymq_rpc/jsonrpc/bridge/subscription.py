"""Messages of a bus that a peer has asked to be sent, as they come."""

import asyncio
import logging
import uuid
from typing import TYPE_CHECKING, Any

from ...bus import AsyncQueue, Bus
from ...identifier import Identifier
from ..items import RPCRequest
from ..protocols.text import encode
from ..protocols.version2 import JSONRPCv2

if TYPE_CHECKING:
    from .peer import Peer

__all__ = ["MAX_SUBSCRIPTIONS", "QUEUE_SIZE", "Subscription", "Subscriptions"]

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
        dropped: how many messages were not sent, as too many waited or they cannot be written.
    """

    def __init__(self, identifier: Identifier, bus: Bus, queue_size: int) -> None:
        self.id = uuid.uuid4().hex
        self.unwritable = 0
        self._queue = AsyncQueue(identifier, maxsize=queue_size, bus=bus)
        self._task: asyncio.Task[None] | None = None

    @property
    def dropped(self) -> int:
        """How many messages were not sent."""
        return self._queue.dropped + self.unwritable

    def start(self, peer: "Peer") -> None:
        """Send what comes."""
        self._task = asyncio.create_task(self._run(peer), name=f"subscription {self.id}")

    def close(self) -> None:
        """Send nothing more."""
        self._queue.close()
        if self._task is not None:
            self._task.cancel()

    async def _run(self, peer: "Peer") -> None:
        told = 0
        async for message in self._queue:
            # What is local stays here, whatever wildcards the peer has given.
            if message.name.startswith("_"):
                continue
            await peer.room()
            params: dict[str, Any] = {
                "subscription": self.id,
                "id": message.id,
                "args": message.args,
                "kwargs": message.kwargs,
            }
            dropped = self.dropped
            if dropped > told:
                params["dropped"] = dropped - told
            request = RPCRequest("message", params, None)
            try:
                text = encode(JSONRPCv2.request_payload(request))
            except Exception as error:
                self.unwritable += 1
                if self.unwritable.bit_count() == 1:
                    logger.warning(
                        "message %s cannot be written for a subscriber (%d so far): %s",
                        message.id,
                        self.unwritable,
                        error,
                    )
                continue
            if not peer.push(text):
                return
            told = dropped


class Subscriptions:
    """What the bridge's methods ``subscribe`` and ``unsubscribe`` do.

    Args:
        bus: whose messages these are.
        queue_size: messages that are kept for one subscription.
    """

    def __init__(self, bus: Bus, queue_size: int = QUEUE_SIZE) -> None:
        self._bus = bus
        self._queue_size = queue_size

    def subscribe(self, peer: "Peer", identifier: str) -> str:
        """Have messages sent as notifications of the method "message".

        Their params are {"subscription", "id", "args", "kwargs"}, and "dropped" where messages
        were dropped before this one, as the peer did not read fast enough.

        Args:
            identifier: which messages, such as "job:*".

        Returns:
            The subscription's id, for unsubscribe.
        """
        parsed = Identifier(identifier)
        if parsed.is_local:
            raise ValueError(f"{str(parsed)!r} is local: it never leaves its process")
        subscription = Subscription(parsed, self._bus, self._queue_size)
        try:
            peer.subscribe(subscription, MAX_SUBSCRIPTIONS)
        except BaseException:
            subscription.close()
            raise
        return subscription.id

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
