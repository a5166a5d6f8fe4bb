"""Carry connections over HTTP: to nodes, to berryMQ 0.3, and to any other server with a URL.

Such a peer reports nothing by itself, has no heartbeat and no streams. A node is asked now and then
whether it still knows its token, and gets its messages in batches, each when the one before was
answered. Any other peer counts as up until an answer says otherwise, and gets messages one by one.
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from ..endpoint import Endpoint, split_user
from ..errors import ParametersError, ProtocolError
from ..jsonrpc.items import RPCError
from .carrier import Carrier
from .dial_back import addresses_of
from .functions import ExportedFunctions
from .interconnection import IncomingMessages
from .serial_sender import SerialSender
from .status import OK

__all__ = ["HTTPKeeper", "HTTPLinkKeeper"]

#: The ttl of a connection is restarted after this part of it.
KEEP_PART = 3

#: The error codes that the specification of JSON-RPC reserves: a server that uses one of them for
#: `interconnect` is not of berryMQ 0.3.
RESERVED_CODES = range(-32768, -31999)


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
    """A `LinkKeeper` of a peer that calls back at this node's own HTTP listener.

    Args:
        endpoint: where the peer is.
        client: calls the peer.
        ttl: seconds for which each side keeps the connection when the other is gone.
        incoming: has the link.
        functions: take the peer's messages.
        name: this node's name.
        callback: the URL of this node's own listener.
        heartbeat: seconds after which a node is asked again whether it knows the token.
    """

    def __init__(
        self,
        endpoint: str,
        client: Any,
        ttl: float,
        incoming: IncomingMessages,
        functions: ExportedFunctions,
        name: str,
        callback: str,
        heartbeat: float,
    ) -> None:
        self._endpoint = endpoint
        self._client = client
        self._ttl = ttl
        self._incoming = incoming
        self._functions = functions
        self._name = name
        self._callback = callback
        self._pause = min(heartbeat, ttl / KEEP_PART)
        #: Whether the peer takes messages that are numbered.
        self._is_node = True
        #: Of a peer that does not.
        self._sender: SerialSender | None = None

    async def register(self) -> str:
        link = self._incoming.link
        token = str(uuid.uuid4())
        self._functions.expect(link, token, self._ttl)
        try:
            given = await self._ask_for(token)
            if self._is_node:
                await self._incoming.introduce(self._client.call, str(given), in_text=True)
        except BaseException:
            self._functions.close_connection(token)
            raise
        if given != token:
            self._functions.close_connection(token)
            if not isinstance(given, str):
                raise ProtocolError(f"{self._endpoint} answered with {given!r:.100}, not a token")
            self._functions.expect(link, given, self._ttl)
        if self._is_node:
            link.open(self, Carrier.to_url(self._client, given))
            return str(given)
        if self._sender is None:
            self._sender = SerialSender(self._client, self._endpoint, given)
        else:
            self._sender.renew(given)
        link.open(given, Carrier.to_http(self._client, given, self._sender.notify))
        return str(given)

    async def _ask_for(self, token: str) -> Any:
        if self._is_node:
            try:
                return await self._client.rpc.interconnect(
                    self._callback, token, self._ttl, self._name
                )
            except ParametersError:
                # Its function takes no name, so it is not a node.
                self._is_node = False
            except RPCError as error:
                # berryMQ 0.3 has no codes of errors.
                if error.code in RESERVED_CODES:
                    raise
                self._is_node = False
            self._incoming.set_leaf()
        await self._check_other()
        callback = Endpoint.parse(self._callback)
        return await self._client.rpc.interconnect([callback.host, callback.port], token, self._ttl)

    async def _check_other(self) -> None:
        """Refuse a second link to a peer that would pass on to the one what comes by the other.

        Raises:
            ValueError: there is one, over which the peer is called back.
        """
        link = self._incoming.link
        if link.places:
            return
        endpoint = Endpoint.parse(split_user(self._endpoint)[1])
        assert endpoint.port is not None
        addresses = await addresses_of(endpoint.host)
        places = frozenset((address, endpoint.port) for address in addresses)
        if self._functions.mesh.leaf_at(places) is not None:
            raise ValueError(
                f"{self._endpoint} has interconnected with this node, and does not number its "
                "messages: they would arrive twice"
            )
        link.places = places

    async def keep(self, token: str) -> AsyncGenerator[None, None]:
        if self._is_node:
            async with aclosing(self._keep_node(token)) as confirmations:
                async for _ in confirmations:
                    yield
            return
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

    async def _keep_node(self, token: str) -> AsyncGenerator[None, None]:
        link = self._incoming.link
        down = asyncio.Event()
        link.on_down = down.set
        carrier = Carrier.to_url(self._client, token)
        try:
            while await self._client.call("send_messages", token, None, "") == OK:
                self._functions.keep(token)
                link.open(self, carrier)
                yield
                down.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._pause):
                        await down.wait()
        finally:
            link.cut(self)

    def forget(self, token: str) -> None:
        self._incoming.link.cut(self)
        self._functions.close_connection(token)
        if self._sender is not None:
            self._sender.forget()

    async def finish(self, timeout: float) -> None:
        sender = self._sender
        if sender is not None:
            if not sender.forgotten.is_set():
                await sender.drain(timeout)
            sender.close()
