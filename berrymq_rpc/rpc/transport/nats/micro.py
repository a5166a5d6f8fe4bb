"""Plain NATS requests to a service, as messages of one peer; its session is `jsonrpc.micro`'s.

A message that arrives has four frames: what follows the service in the subject, the subject for the
answer, headers and body. One that is sent has the last three.
"""

import asyncio
from collections.abc import Sequence

from ..port import Buffer, Key, Port, PortHandler
from .listener import NatsListener
from .port import is_answerable

__all__ = ["QUEUE_GROUP", "NatsMicroPort"]

#: The queue group of all servers of a service: each request goes to one of them.
QUEUE_GROUP = "q"

#: Seconds for the requests that are on their way when the server closes.
DRAIN = 1.0


class _Clients:
    """The key of all plain clients, while there is a link."""


class NatsMicroPort(Port):
    """Takes the requests at the connection of a listening port.

    Args:
        listener: the port.
        handler: is called on the same event loop.
    """

    def __init__(self, listener: NatsListener, handler: PortHandler) -> None:
        self._listener = listener
        self._connection = listener.connection
        self._handler: PortHandler | None = handler
        self._key: _Clients | None = None
        self._received = False
        self._start = len(listener.service) + 1
        self._subscription = self._connection.subscribe(
            f"{listener.service}.>", self._arrived, QUEUE_GROUP
        )
        listener.companion = self
        #: Ends when all requests have arrived that NATS gave to this side before it stopped.
        self._draining: asyncio.Task[None] | None = None

    @property
    def endpoints(self) -> tuple[str, ...]:
        return ()

    @property
    def notices_loss(self) -> bool:
        return True

    @property
    def has_peers(self) -> bool:
        return False

    @property
    def is_drained(self) -> bool:
        return self._draining is None or self._draining.done()

    def send(self, key: Key, frames: Sequence[Buffer]) -> bool:
        if key is not self._key or key is None:
            return False
        reply, headers, body = frames
        self._connection.publish(
            bytes(reply).decode("utf-8", "surrogateescape"), body, headers=bytes(headers)
        )
        return True

    def queued_bytes(self, key: Key) -> int:
        # NATS takes what it is sent; if not, all of it waits here.
        return self._connection.queued_bytes if key is self._key else 0

    def can_be_pushed(self, key: Key) -> bool:
        return False

    def disconnect(self, key: Key) -> None:
        if key is self._key:
            self._key = None

    def stop_accepting(self) -> None:
        if self._draining is None:
            self._draining = self._connection.loop.create_task(
                self._connection.drain_subscription(self._subscription, DRAIN),
                name="nats requests drain",
            )

    def close(self) -> None:
        if self._draining is None:
            self._connection.unsubscribe(self._subscription)
        self._handler = self._key = None

    async def wait_closed(self) -> None:
        # The listening port closes the connection, which ends the task.
        if self._draining is not None:
            await asyncio.wait({self._draining})

    def lost(self, reason: str) -> None:
        """The link to NATS broke: who asked gets no answer any more."""
        key, self._key = self._key, None
        if key is not None and self._handler is not None:
            self._handler.peer_lost(key, reason, at_once=True)

    def read_complete(self) -> None:
        """All that could be read was handed over."""
        if self._received:
            self._received = False
            if self._handler is not None:
                self._handler.read_complete()

    def _arrived(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        if self._handler is None:
            return
        if reply and not is_answerable(reply):
            self._handler.message_refused(None, "a request that cannot be answered")
            return
        if self._key is None:
            self._key = _Clients()
            self._handler.peer_connected(self._key)
        self._received = True
        name = subject[self._start :].encode("utf-8", "surrogateescape")
        to = reply.encode("utf-8", "surrogateescape")
        self._handler.message_received(self._key, [name, to, headers, payload])
