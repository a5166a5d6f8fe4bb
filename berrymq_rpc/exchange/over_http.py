"""Connections to nodes over HTTP: to berryMQ 0.3, and to whatever else stands at such an address.

There the peer tells nothing unasked, has no heartbeat and no streams, and knows no nodes. So a
connection counts as up until a call says otherwise, and messages go one by one.
"""

import asyncio
import uuid
from typing import Any
from urllib.parse import urlsplit

from ..errors import ConnectionLostError, ProtocolError
from .connection import Connection, OnewayConnection
from .interconnection import FAREWELL, Interconnection
from .line import Wire
from .pulled_message import PulledMessage
from .queue_connection import QueueConnection
from .sender import Sender

__all__ = ["HTTPInterconnection", "HTTPOnewayConnection", "HTTPQueueConnection"]

#: Of the time to live, the part after which it begins anew.
KEEP_PART = 3


class _OverHTTP(Connection):
    """What they share: nothing tells that the peer has forgotten the token but its answers."""

    _forgotten: asyncio.Event | None = None

    async def _use_token(self, token: str | None) -> None:
        self._forgotten = asyncio.Event()
        self._line_up()
        if self._token == token:
            await self._forgotten.wait()

    def _forget_token(self) -> None:
        super()._forget_token()
        if self._forgotten is not None:
            self._forgotten.set()


class HTTPOnewayConnection(_OverHTTP, OnewayConnection):
    """Style 02."""


class HTTPQueueConnection(_OverHTTP, QueueConnection):
    """Style 03."""

    async def _answer(self, name: str, call: Any) -> Any:
        # What came as this was cancelled is lost: such a peer sends a message once.
        return await call

    def _message(self, answer: Any) -> PulledMessage:
        if isinstance(answer, list | tuple):
            if len(answer) != 3:
                raise ProtocolError(f"{self._endpoint} has answered with no message")
            answer = dict(zip(("id", "args", "kwargs"), answer, strict=True))
        return super()._message(answer)


class HTTPInterconnection(_OverHTTP, Interconnection):
    """Style 01. The peer calls back at this node's own HTTP door; it is a leaf."""

    _sender: Sender | None = None

    async def _register(self) -> str:
        assert self._callback is not None
        token = str(uuid.uuid4())
        self._functions.expect(self._line, token, self._ttl)
        self._is_node = False
        self._incoming.leaf()
        where = urlsplit(self._callback)
        try:
            given: Any = await self._client.rpc.interconnect(
                [where.hostname, where.port], token, self._ttl
            )
        except BaseException:
            self._functions.close_connection(token)
            raise
        if given != token:
            self._functions.close_connection(token)
            if not isinstance(given, str):
                raise ProtocolError(f"{self._endpoint} has given no token, but {given!r:.100}")
            self._functions.expect(self._line, given, self._ttl)
        self._open_line(str(given))
        return str(given)

    def _open_line(self, token: str) -> None:
        if self._sender is None:
            self._sender = Sender(self._client, self._endpoint, token)
        else:
            self._sender.renew(token)
        # Its `call` is for bundles, of which such a peer gets none.
        self._line.open(token, Wire(token, self._client.call, self._sender.notify, False))

    def _line_up(self) -> None:
        # `_open_line` has opened it: a second sender would send what waits a second time.
        Connection._line_up(self)

    async def _use_token(self, token: str | None) -> None:
        sender = self._sender
        assert sender is not None
        assert token is not None
        self._line_up()
        while self._token == token:
            try:
                async with asyncio.timeout(self._ttl / KEEP_PART):
                    await sender.forgotten.wait()
            except TimeoutError:
                # The peer may have nothing to send for longer than it takes.
                self._functions.keep(token)
                continue
            if self._token == token:
                self._forget_token()
            raise ConnectionLostError(f"{self._endpoint} has forgotten the connection")

    async def close(self) -> None:
        sender = self._sender
        if sender is not None:
            if not self.closed and self._is_up:
                await self._line.drain(FAREWELL)
                await sender.drain(FAREWELL)
            sender.close()
        await super().close()
