"""Carry connections over HTTP: to berryMQ 0.3, and to any other server at such an address.

Such a peer reports nothing by itself, has no heartbeat and no streams, and is not a node. So a
connection counts as up until an answer says otherwise, and messages go one by one.
"""

import asyncio
import uuid
from collections.abc import AsyncGenerator
from typing import Any

from ..endpoint import Endpoint
from ..errors import ProtocolError
from .functions import ExportedFunctions
from .interconnection import IncomingMessages
from .link import Carrier
from .serial_sender import SerialSender

__all__ = ["HTTPKeeper", "HTTPLinkKeeper"]

#: The ttl of a connection is restarted after this part of it.
KEEP_PART = 3


class HTTPKeeper:
    """A `Keeper` of styles 02 and 03: only an answer shows that the peer has forgotten a token."""

    def __init__(self) -> None:
        self._forgotten = asyncio.Event()

    async def keep(self, token: str) -> AsyncGenerator[None, None]:
        self._forgotten.clear()
        yield
        await self._forgotten.wait()

    def forget(self, token: str) -> None:
        self._forgotten.set()


class HTTPLinkKeeper:
    """A `LinkKeeper` of a peer that calls back at this node's own HTTP listener, and is a leaf.

    Args:
        endpoint: where the peer is.
        client: calls the peer.
        ttl: seconds for which each side keeps the connection when the other is gone.
        incoming: has the link.
        functions: take the peer's messages.
        callback: the URL of this node's own listener.
    """

    def __init__(
        self,
        endpoint: str,
        client: Any,
        ttl: float,
        incoming: IncomingMessages,
        functions: ExportedFunctions,
        callback: str,
    ) -> None:
        self._endpoint = endpoint
        self._client = client
        self._ttl = ttl
        self._incoming = incoming
        self._functions = functions
        self._callback = Endpoint.parse(callback)
        self._sender: SerialSender | None = None

    async def register(self) -> str:
        link = self._incoming.link
        token = str(uuid.uuid4())
        self._functions.expect(link, token, self._ttl)
        self._incoming.set_leaf()
        try:
            given: Any = await self._client.rpc.interconnect(
                [self._callback.host, self._callback.port], token, self._ttl
            )
        except BaseException:
            self._functions.close_connection(token)
            raise
        if given != token:
            self._functions.close_connection(token)
            if not isinstance(given, str):
                raise ProtocolError(f"{self._endpoint} answered with {given!r:.100}, not a token")
            self._functions.expect(link, given, self._ttl)
        if self._sender is None:
            self._sender = SerialSender(self._client, self._endpoint, given)
        else:
            self._sender.renew(given)
        # Only batches need `call`, and such a peer gets none.
        link.open(given, Carrier(given, self._client.call, self._sender.notify, False))
        return str(given)

    async def keep(self, token: str) -> AsyncGenerator[None, None]:
        sender = self._sender
        assert sender is not None
        yield
        while not sender.forgotten.is_set():
            try:
                async with asyncio.timeout(self._ttl / KEEP_PART):
                    await sender.forgotten.wait()
            except TimeoutError:
                # The peer may have nothing to send for longer than the ttl.
                self._functions.keep(token)

    def forget(self, token: str) -> None:
        self._functions.close_connection(token)
        if self._sender is not None:
            self._sender.forget()

    async def finish(self, timeout: float) -> None:
        sender = self._sender
        if sender is not None:
            if not sender.forgotten.is_set():
                await sender.drain(timeout)
            sender.close()
