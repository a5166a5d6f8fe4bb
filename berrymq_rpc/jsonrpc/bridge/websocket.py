"""The WebSocket at ``/ws``: each message is one JSON text, in both directions."""

import asyncio
from functools import partial

from aiohttp import WSMsgType, web

from ...rpc.dispatcher import Dispatcher
from ...runtime.log import Log
from .http_access import offered_protocols
from .listener import ListenerPort, StreamPeer
from .places import Place
from .runtime import BridgeRuntime

__all__ = ["WebSockets"]

logger = Log("berrymq_rpc.jsonrpc.bridge")

#: Seconds between two pings; a peer that does not answer one within half of that is gone.
HEARTBEAT = 20.0

#: Seconds that a peer has to confirm a close.
CLOSE_TIMEOUT = 1.0

#: The subprotocol that this side selects. A browser that offers some, which it has to in order to
#: send a token, fails if none is selected.
PROTOCOL = "jsonrpc"

_GOING_AWAY = 1001


class WebSockets:
    """The WebSockets of one listener.

    Args:
        runtime: of the bridge.
        port: of the listener.
        dispatcher: serves the calls; ``None`` for that of the bridge.
    """

    def __init__(
        self, runtime: BridgeRuntime, port: ListenerPort, dispatcher: Dispatcher | None = None
    ) -> None:
        self._runtime = runtime
        self._connections = runtime.attach(port, dispatcher=dispatcher)
        self._open: set[web.WebSocketResponse] = set()

    def __len__(self) -> int:
        return len(self._open)

    async def serve(
        self, request: web.BaseRequest, place: Place, user: str | None
    ) -> web.StreamResponse:
        """Serve a request for a WebSocket until that is closed.

        Args:
            request: the request.
            place: that of its connection.
            user: who sends it, if that is known.
        """
        if PROTOCOL not in offered_protocols(request.headers):
            # aiohttp logs what is offered in vain, which may be the token alone.
            headers = request.headers.copy()
            headers.popall("Sec-WebSocket-Protocol", None)
            request = request.clone(headers=headers)
        socket = web.WebSocketResponse(
            max_msg_size=self._runtime.max_size,
            heartbeat=HEARTBEAT,
            timeout=CLOSE_TIMEOUT,
            protocols=(PROTOCOL,),
            # Small texts gain nothing, and a compressed one may grow a thousandfold when read.
            compress=False,
        )
        if not socket.can_prepare(request).ok:
            return web.Response(status=426, headers={"Upgrade": "websocket"})
        place.busy()
        await socket.prepare(request)
        place.taken()
        self._open.add(socket)
        peer = StreamPeer(request.remote, "http", place, user)
        self._connections.peer_connected(peer)
        writing = asyncio.ensure_future(peer.write_all(partial(_write, socket)))
        writing.add_done_callback(partial(self._written, request))
        try:
            await self._read(socket, peer, place)
        finally:
            self._open.discard(socket)
            self._connections.peer_lost(peer, "the WebSocket was closed")
            peer.queue.drop()
            writing.cancel()
            await asyncio.wait((writing,))
        return socket

    async def _read(self, socket: web.WebSocketResponse, peer: StreamPeer, place: Place) -> None:
        while True:
            message = await socket.receive()
            place.taken()
            if message.type is WSMsgType.TEXT:
                data: bytes = message.data.encode("utf-8")
            elif message.type is WSMsgType.BINARY:
                data = message.data
            else:
                # Closed by the peer, or by aiohttp after an error.
                return
            await peer.receive(self._connections, data)

    def _written(self, request: web.BaseRequest, writing: "asyncio.Future[None]") -> None:
        if writing.cancelled() or (error := writing.exception()) is None:
            return
        logger.debug("a WebSocket peer at %s: %r", request.remote, error)
        if request.transport is not None:
            # This ends reading.
            request.transport.abort()

    async def close(self) -> None:
        """Close all WebSockets with the code for "going away"."""
        await asyncio.gather(
            *(socket.close(code=_GOING_AWAY, message=b"closing") for socket in list(self._open)),
            return_exceptions=True,
        )


async def _write(socket: web.WebSocketResponse, text: bytes) -> None:
    await socket.send_frame(text, WSMsgType.TEXT)
