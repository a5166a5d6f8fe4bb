"""The HTTP listener: POST at ``/``, a WebSocket at ``/ws``, and berryMQ 0.3 at ``/JSON``.

======  =====================================================================================
status  when
======  =====================================================================================
200     there is an answer, an error object included
204     there is none: the text was of notifications alone
401     the token is missing or wrong
403     the host is none of this server's, or the page may not use it
404     another path
405     another method than POST (or GET at ``/ws``)
408     the body did not come in time
413     the body is larger than it may be
415     it is not said to be JSON in UTF-8, or is compressed
426     at ``/ws``: it is no request for a WebSocket
503     as many peers as there may be, or the listener is closing
======  =====================================================================================
"""

import asyncio
import logging
import ssl as ssl_module
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from .berrymq03 import read_legacy_request
from .http_access import Access, Refusal, is_json
from .listener import SEND_TIMEOUT, Listener
from .peer import Desk, Peer
from .websocket import WebSockets

__all__ = ["HTTPListener"]

logger = logging.getLogger("berrymq_rpc.jsonrpc.bridge")

#: Seconds for a body that does not come with its head; and for the head of a request, and between
#: two of one connection.
BODY_TIMEOUT = 30.0
IDLE_TIMEOUT = 75.0

#: Bytes of a head: a line of it, and all its fields.
MAX_HEAD = 8190

#: Bytes of an answer that a socket takes at once, as good as always.
SMALL = 64 << 10

#: Connections that wait for the system to hand them over.
BACKLOG = 1024

_HEADERS = {"Content-Type": "application/json", "X-Content-Type-Options": "nosniff"}


class _Server(web.Server):
    """Keeps a `Peer` for each connection, and bounds how many there are."""

    def __init__(self, desk: Desk, handler: Any, **kwargs: Any) -> None:
        super().__init__(handler, **kwargs)
        self._desk = desk
        self._peers: dict[Any, Peer] = {}

    def peer(self, request: web.BaseRequest) -> Peer:
        """The peer that the request is of."""
        protocol = request.protocol
        peer = self._peers.get(protocol)
        if peer is None:
            peer = Peer(self._desk, address=request.remote, scheme="http")
            if request.transport is None:
                # It has gone already, and nothing will say so again.
                asyncio.get_running_loop().call_soon(peer.left)
            else:
                self._peers[protocol] = peer
        return peer

    def connection_made(self, handler: Any, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if len(self._connections) > self._desk.max_peers:
            self._desk.refused.add()
            transport.abort()

    def connection_lost(self, handler: Any, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        peer = self._peers.pop(handler, None)
        if peer is not None:
            peer.left()


class HTTPListener(Listener):
    """Serves peers that speak HTTP. Made by `open`."""

    def __init__(self, desk: Desk, access: Access) -> None:
        self._desk = desk
        self._access = access
        self._web_sockets = WebSockets(desk)
        self._server: _Server | None = None
        self._runner: web.ServerRunner | None = None
        self._site: web.TCPSite | None = None
        self._is_closing = False
        #: Requests that are being served, WebSockets included.
        self._serving = 0
        self._idle = asyncio.Event()

    async def open(self, host: str, port: int, ssl: ssl_module.SSLContext | None) -> None:
        """Begin to listen.

        Raises:
            OSError: the address cannot be bound.
        """
        max_size = self._desk.max_size
        loop = asyncio.get_running_loop()

        def make_request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> Any:
            return web.BaseRequest(
                message, payload, protocol, writer, task, loop, client_max_size=max_size
            )

        self._server = _Server(
            self._desk,
            self._handle,
            request_factory=make_request,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=IDLE_TIMEOUT,
            lingering_time=1.0,
            max_line_size=MAX_HEAD,
            max_field_size=MAX_HEAD,
            auto_decompress=False,
        )
        self._runner = web.ServerRunner(self._server, shutdown_timeout=0.1)
        await self._runner.setup()
        try:
            self._site = web.TCPSite(self._runner, host, port, ssl_context=ssl, backlog=BACKLOG)
            await self._site.start()
        except BaseException:
            await self._runner.cleanup()
            raise
        bound = self._runner.addresses[0]
        name = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        self.url = f"{'https' if ssl else 'http'}://{name}:{bound[1]}"

    async def close(self, grace: float) -> None:
        self._is_closing = True
        if not self._serving:
            self._idle.set()
        if self._site is not None:
            await self._site.stop()
        await self._web_sockets.close()
        try:
            async with asyncio.timeout(grace):
                await self._idle.wait()
        except TimeoutError:
            logger.info("%s: %d requests did not end in time", self.url, self._serving)
        if self._runner is not None:
            await self._runner.cleanup()

    # -- requests --------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        refused = self._refused(request, path)
        if refused is not None:
            return refused
        self._serving += 1
        try:
            if path == "/ws":
                return await self._web_sockets.serve(request)
            content = request.content
            # As good as always, the body has come with the head.
            body = content.read_nowait() if content.is_eof() else await self._rest(request)
            if isinstance(body, web.Response):
                return body
            if len(body) > self._desk.max_size:
                return _too_large(self._desk.max_size)
            answer = await self._ask(request, body, path != "/")
            if not answer:
                return web.Response(status=204)
            response = web.Response(body=answer, headers=_HEADERS)
            if len(answer) > SMALL:
                await _send(request, response)
            return response
        finally:
            self._serving -= 1
            if self._is_closing and not self._serving:
                self._idle.set()

    def _refused(self, request: web.BaseRequest, path: str) -> web.Response | None:
        """What answers a request that is not served; by its head alone."""
        if self._is_closing:
            return _refusal(Refusal(503, "the server is closing"))
        headers = request.headers
        refusal = self._access.refusal(headers)
        if refusal is not None:
            return _refusal(refusal)
        if path == "/ws":
            if request.method != "GET":
                return _refusal(Refusal(405, "ask for a WebSocket by GET"), {"Allow": "GET"})
            return None
        if path not in ("/", "/JSON"):
            return _refusal(Refusal(404, "calls go to /, and a WebSocket is at /ws"))
        if request.method != "POST":
            return _refusal(Refusal(405, "calls go by POST"), {"Allow": "POST"})
        content_type = headers.get("Content-Type", "")
        # What most clients send is compared as it is.
        if content_type != "application/json" and not is_json(content_type, or_xml=path != "/"):
            return _refusal(Refusal(415, "the content type is application/json"))
        if "Content-Encoding" in headers:
            return _refusal(Refusal(415, "the body is not compressed"))
        length = request.content_length
        if length is not None and length > self._desk.max_size:
            return _too_large(self._desk.max_size)
        return None

    async def _rest(self, request: web.BaseRequest) -> bytes | web.Response:
        """A body that comes after its head."""
        try:
            async with asyncio.timeout(BODY_TIMEOUT):
                return await request.read()
        except web.HTTPRequestEntityTooLarge:
            return _too_large(self._desk.max_size)
        except TimeoutError:
            response = _refusal(Refusal(408, f"the body did not come in {BODY_TIMEOUT:g} s"))
            response.force_close()
            return response

    async def _ask(self, request: web.BaseRequest, body: bytes, is_elder: bool) -> bytes:
        """What answers a body; empty if nothing does."""
        assert self._server is not None
        desk = self._desk
        elder = read_legacy_request(body, desk.max_size, desk.max_depth) if is_elder else None
        text = body if elder is None else elder.text
        answers: list[bytes] = []
        inquiry = self._server.peer(request).receive(text, answers.append)
        if not answers:
            if inquiry.is_answered:
                return b""
            # A handler that goes on: its answer wakes this request.
            answered = asyncio.Event()

            def done(answer: bytes) -> None:
                answers.append(answer)
                answered.set()

            inquiry.done = done
            await answered.wait()
        return answers[0] if elder is None else elder.answer(answers[0])


async def _send(request: web.BaseRequest, response: web.Response) -> None:
    """Send an answer that a socket may not take at once, to a client that may not read it."""
    try:
        async with asyncio.timeout(SEND_TIMEOUT):
            await response.prepare(request)
            await response.write_eof()
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()


def _refusal(refusal: Refusal, headers: Mapping[str, str] | None = None) -> web.Response:
    if refusal.status == 401:
        headers = {"WWW-Authenticate": "Bearer"}
    return web.Response(status=refusal.status, text=refusal.reason + "\n", headers=headers)


def _too_large(max_size: int) -> web.Response:
    response = _refusal(Refusal(413, f"a body has at most {max_size:,} bytes"))
    # The rest of it is not read.
    response.force_close()
    return response
