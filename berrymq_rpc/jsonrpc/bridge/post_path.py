"""The paths that HTTP clients post to: each connection is a peer that can only be answered.

Where its requests come from several users, it is one for each of them.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

from aiohttp import web

from ...common.tracing import TRACE_FIELDS
from ...rpc.dispatcher import Dispatcher
from ..message import IncomingMessage
from .listener import ListenerPeer, ListenerPort
from .runtime import BridgeRuntime

__all__ = ["PostPath"]


class _PostPeer(ListenerPeer):
    """A client that posts one request after another over one connection."""

    _answer: bytes | None = None
    _waiting: asyncio.Future[bytes] | None = None

    def send(self, text: bytes) -> bool:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(text)
        else:
            self._answer = text
        return True

    async def answer(self) -> bytes:
        """The answer to the request that was received last; empty if there is none."""
        answer, self._answer = self._answer, None
        if answer is None:
            # The method goes on.
            self._waiting = asyncio.get_running_loop().create_future()
            answer = await self._waiting
        return answer


class PostPath:
    """A path that clients post to.

    Args:
        runtime: of the bridge.
        port: of the listener.
        message_type: reads the texts.
        dispatcher: serves the calls; ``None`` for that of the bridge.
    """

    def __init__(
        self,
        runtime: BridgeRuntime,
        port: ListenerPort,
        message_type: type[IncomingMessage],
        dispatcher: Dispatcher | None = None,
    ) -> None:
        self._runtime = runtime
        self._connections = runtime.attach(
            port, posts=True, message_type=message_type, dispatcher=dispatcher
        )
        #: The headers that are metadata of the calls, if any are.
        self._headers = None if runtime.dispatcher.tracing is None else TRACE_FIELDS
        #: By connections, and by users: a proxy may send the requests of several by one.
        self._peers: dict[Any, dict[str | None, _PostPeer]] = {}

    async def ask(
        self, request: web.BaseRequest, body: bytes, host: str, user: str | None
    ) -> bytes:
        """The answer to a body; empty if there is none.

        Args:
            request: whose body it is.
            body: the text.
            host: what counts as the client's host.
            user: who sends it, if that is known.
        """
        peer = self._peers.get(request.protocol, {}).get(user)
        if peer is None:
            peer = self._new_peer(request, host, user)
        message = (body,) if self._headers is None else (body, *_named(request, self._headers))
        self._connections.message_received(peer, message)
        self._connections.read_complete()
        return await peer.answer()

    def _new_peer(self, request: web.BaseRequest, host: str, user: str | None) -> _PostPeer:
        peer = _PostPeer(request.remote, "http", user)
        self._connections.peer_connected(peer)
        self._runtime.host_calls.add(host, self._connections.connections[peer])
        if request.transport is None:
            # The peer has left already, and no event will report it.
            asyncio.get_running_loop().call_soon(self._runtime.hang_up, self._connections, peer)
        else:
            self._peers.setdefault(request.protocol, {})[user] = peer
        return peer

    def connection_lost(self, protocol: Any) -> None:
        """Note that a connection was closed."""
        for peer in self._peers.pop(protocol, {}).values():
            self._runtime.hang_up(self._connections, peer)


def _named(request: web.BaseRequest, names: tuple[str, ...]) -> Iterator[bytes]:
    """The names and values of those headers that a request has."""
    for name in names:
        value = request.headers.get(name)
        if value is not None:
            yield name.encode()
            yield value.encode("utf-8", "replace")
