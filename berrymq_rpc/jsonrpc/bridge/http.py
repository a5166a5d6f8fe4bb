"""The HTTP listener: POST at ``/``, a WebSocket at ``/ws``, and berryMQ 0.3 at ``/JSON``.

With a page, there is something to GET as well (`page`).

======  =====================================================================================
status  when
======  =====================================================================================
200     there is an answer, an error object included
204     there is no answer: the text had notifications alone (or `notification_status`); or a page
        of another origin is allowed to post
304     the client has this file of the page
401     the token is missing or wrong
403     the host is not one of this server's, or the page may not use it
404     another path
405     another method than POST (or GET at ``/ws``)
408     the body did not arrive in time
413     the body is larger than it may be
415     the content type is not JSON in UTF-8, or the body is compressed
417     it expects something else than ``100-continue``
426     at ``/ws``: it is not a request for a WebSocket
503     `max_peers` or another bound of the bridge is reached, or the listener is closing
======  =====================================================================================

A client that sends ``Expect: 100-continue`` waits with its body for the status 100, which it gets
if its head is in order.
"""

import asyncio
import ssl as ssl_module
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aiohttp import HttpVersion11, web

from ...runtime.log import Log
from ..message import IncomingMessage
from .acceptor import REFUSAL_TIMEOUT, Acceptor
from .berrymq03 import LegacyMessage
from .http_access import CHALLENGES, Access, Refusal, is_json, is_utf8, offered_protocols
from .listener import SEND_TIMEOUT, Listener, ListenerPort, certified_user, url_of
from .observation import METRICS_PATH, Observation
from .page import PAGE_WEBSOCKET, Page
from .places import Place
from .post_path import PostPath
from .runtime import BridgeRuntime
from .websocket import WebSockets

__all__ = ["HTTPListener"]

logger = Log("berrymq_rpc.jsonrpc.bridge")
audit = Log("berrymq_rpc.security")

#: Seconds for a body that does not arrive with its head; and for the head of a request, and between
#: two requests of one connection.
BODY_TIMEOUT = 30.0
IDLE_TIMEOUT = 75.0

#: Bytes of a head: a line of it, and all its fields.
MAX_HEAD = 8190

#: Bytes of an answer that a socket almost always takes at once.
SMALL = 64 << 10

#: Where clients of berryMQ 0.3 post to, and where the WebSocket is.
LEGACY_PATH = "/JSON"
WEBSOCKET_PATH = "/ws"

#: How a page is asked for.
_GET = ("GET", "HEAD")

_HEADERS = {"Content-Type": "application/json", "X-Content-Type-Options": "nosniff"}


class _Protocol(web.RequestHandler):
    """One connection, whose malformed requests are not quoted: they may hold a token.

    Attributes:
        place: that of the connection.
        user: that of its certificate, if it has one.
    """

    place: Place
    user: str | None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.place.evict = self._evict
        self.user = certified_user(transport)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.place.release()

    def data_received(self, data: bytes) -> None:
        self.place.received(len(data))
        super().data_received(data)

    def _evict(self) -> None:
        """Close the connection, and say so to a client that has begun to send a request."""
        transport: Any = self.transport
        if transport is None:
            return
        if self.place.is_idle and self.place.has_partial_text:
            transport.write(_busy("the server has too much to do"))
            # What it still sends is dropped, as it would not read the response otherwise.
            self.close()
            self._loop.call_later(REFUSAL_TIMEOUT, transport.abort)
        else:
            transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status >= 500:
            return super().handle_error(request, status, exc, message)
        logger.warning("malformed HTTP request from %s: %s", request.remote, type(exc).__name__)
        response = _refusal(Refusal(status, "the request is malformed"))
        response.force_close()
        return response


class _Server(web.Server):
    """Makes the protocols of connections, and reports the end of each."""

    def __init__(self, paths: Iterable[PostPath], handler: Any, **kwargs: Any) -> None:
        super().__init__(handler, **kwargs)
        self._paths = tuple(paths)

    def new_protocol(self, place: Place) -> _Protocol:
        """Make the protocol of a connection that has this place."""
        protocol = _Protocol(self, loop=self._loop, **self._kwargs)
        protocol.place = place
        return protocol

    def connection_lost(self, handler: Any, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        for path in self._paths:
            path.connection_lost(handler)


class HTTPListener(Listener):
    """Serves peers that speak HTTP. Made by `open`.

    Args:
        path: where clients post to.
        notification_status: of the response where there is no answer.
        require_content_type: whether to refuse what does not say that it is JSON.
        page: makes the page, for this listener's port; ``None`` for no page.
        observation: its health, and its metrics.
    """

    def __init__(
        self,
        runtime: BridgeRuntime,
        access: Access,
        *,
        path: str = "/",
        notification_status: int = 204,
        require_content_type: bool = True,
        page: Callable[[ListenerPort], Page] | None = None,
        observation: Observation,
    ) -> None:
        super().__init__(runtime.port_options)
        self._runtime = runtime
        self._access = access
        self._path = path
        self._notification_status = notification_status
        self._require_content_type = require_content_type
        self._observation = observation
        self._port = ListenerPort()
        self._paths = {
            path: PostPath(runtime, self._port, IncomingMessage),
            LEGACY_PATH: PostPath(runtime, self._port, LegacyMessage),
        }
        self._web_sockets = {WEBSOCKET_PATH: WebSockets(runtime, self._port)}
        self._page = None if page is None else page(self._port)
        if self._page is not None:
            self._web_sockets[PAGE_WEBSOCKET] = self._page.web_sockets
        self._runner: web.ServerRunner | None = None
        self._acceptor: Acceptor | None = None
        self._is_closing = False
        #: Requests that are being served, WebSockets included.
        self._serving = 0
        self._idle = asyncio.Event()

    async def open(self, host: str, port: int, ssl: ssl_module.SSLContext | None) -> None:
        """Begin to listen.

        Raises:
            OSError: the address cannot be bound.
        """
        max_size = self.options.max_frame
        loop = asyncio.get_running_loop()

        def make_request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> Any:
            return web.BaseRequest(
                message, payload, protocol, writer, task, loop, client_max_size=max_size
            )

        server = _Server(
            (*self._paths.values(), *([] if self._page is None else [self._page.state_path])),
            self._handle,
            request_factory=make_request,
            handler_cancellation=True,
            access_log=None,
            # With the rate of all logs.
            logger=Log("aiohttp.server"),
            keepalive_timeout=IDLE_TIMEOUT,
            lingering_time=1.0,
            max_line_size=MAX_HEAD,
            max_field_size=MAX_HEAD,
            auto_decompress=False,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await self._runner.setup()
        runtime = self._runtime
        self._acceptor = Acceptor(
            runtime.places,
            runtime.handshakes,
            server.new_protocol,
            on_refused=runtime.connection_refused,
            refusal=_busy,
            ssl=ssl,
        )
        try:
            address = await self._acceptor.open(host, port)
        except BaseException:
            await self._runner.cleanup()
            raise
        self.url = url_of("https" if ssl else "http", address)
        self._port.url = self.url

    async def close(self, grace: float) -> None:
        self._is_closing = True
        if not self._serving:
            self._idle.set()
        if self._acceptor is not None:
            self._acceptor.close()
        await asyncio.gather(*(each.close() for each in self._web_sockets.values()))
        try:
            async with asyncio.timeout(grace):
                await self._idle.wait()
        except TimeoutError:
            logger.info(
                "%s: %d requests were still running at the end of the grace period",
                self.url,
                self._serving,
            )
        if self._acceptor is not None:
            await self._acceptor.wait_closed()
        if self._runner is not None:
            await self._runner.cleanup()

    # -- requests --------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        protocol = request.protocol
        assert isinstance(protocol, _Protocol)
        headers = request.headers
        shared = self._access.shared(headers)
        found = self._by_head(request, path, protocol.user)
        if isinstance(found, web.Response):
            response = found
            response.headers.update(shared)
            if "Expect" in headers:
                # Only the client knows whether it still sends its body.
                response.force_close()
            return response
        self._serving += 1
        try:
            if path in self._web_sockets:
                return await self._web_sockets[path].serve(request, protocol.place, found)
            if self._page is not None and request.method in _GET:
                protocol.place.busy()
                response = await self._page.get(request, path, protocol.place, found)
                response.headers.update(shared)
                return response
            content = request.content
            # Almost always, the body has arrived with the head.
            body = content.read_nowait() if content.is_eof() else await self._rest(request)
            if not isinstance(body, web.Response) and len(body) > self._runtime.max_size:
                body = _too_large(self._runtime.max_size)
            if isinstance(body, web.Response):
                body.headers.update(shared)
                return body
            protocol.place.busy()
            reason = self._runtime.host_calls.refusal(protocol.place.host)
            if reason is not None:
                return _refusal(Refusal(503, reason), {"Retry-After": "1"} | shared)
            answer = await self._paths[path].ask(request, body, protocol.place.host, found)
            if not answer:
                return web.Response(status=self._notification_status, headers=shared)
            response = web.Response(body=answer, headers=_HEADERS | shared if shared else _HEADERS)
            if len(answer) > SMALL:
                await _send(request, response, protocol.place)
            return response
        finally:
            protocol.place.taken()
            protocol.place.idle()
            self._serving -= 1
            if self._is_closing and not self._serving:
                self._idle.set()

    def _by_head(
        self, request: web.BaseRequest, path: str, certified: str | None
    ) -> web.Response | str | None:
        """The response that follows from the head alone.

        A request that is served has the name of its user instead, or ``None``.

        Args:
            request: the request.
            path: its path.
            certified: the user of the connection's certificate.
        """
        health = self._observation.health(request.method, path, is_closing=self._is_closing)
        if health is not None:
            return health
        if self._is_closing:
            return _refusal(Refusal(503, "the server is closing"))
        headers = request.headers
        permission = self._access.preflight(request.method, headers)
        refusal = self._access.refusal(headers)
        if refusal is not None:
            return _refusal(refusal)
        user = None if permission else self._access.user(headers)
        page = self._page
        if isinstance(user, Refusal) and path == PAGE_WEBSOCKET and page is not None:
            passed = page.passes.redeem(offered_protocols(headers))
            if passed is not None:
                (user,) = passed
        if isinstance(user, Refusal):
            self._runtime.tokens_refused += 1
            audit.warning("a token from %s refused at %s", request.remote, self.url)
            return _refusal(user)
        if user is None:
            user = certified
        metrics = self._observation.metrics(request.method, path, headers)
        if metrics is not None:
            return metrics
        if path in self._web_sockets and request.method != "GET":
            return _refusal(Refusal(405, "a WebSocket is opened with GET"), {"Allow": "GET"})
        if path == PAGE_WEBSOCKET and page is not None:
            return user
        if page is not None and request.method in _GET and page.has(path):
            return user
        if page is not None and not page.may_write and self._access.is_own_page(headers):
            # It has a WebSocket of its own, for what it may do.
            return _refusal(Refusal(403, "the page of this address may look only"))
        if path == WEBSOCKET_PATH:
            return user
        if path not in self._paths:
            where = f"calls are posted to {self._path}, and the WebSocket is at {WEBSOCKET_PATH}"
            if path == METRICS_PATH:
                where = "there are no metrics without --metrics, or serve_http(metrics=True)"
            return _refusal(Refusal(404, where))
        if permission:
            return web.Response(status=204, headers=permission)
        if request.method != "POST":
            return _refusal(Refusal(405, "calls are made with POST"), {"Allow": "POST"})
        return self._by_fields(request, path) or user

    def _by_fields(self, request: web.BaseRequest, path: str) -> web.Response | None:
        """The same for a POST to a path that there is, by what it says of its body."""
        headers = request.headers
        content_type = headers.get("Content-Type", "")
        # The common case, without parsing.
        if content_type != "application/json":
            if not self._require_content_type and "Origin" not in headers:
                if not is_utf8(content_type):
                    return _refusal(Refusal(415, "the body must be in UTF-8"))
            elif not is_json(content_type, or_xml=path == LEGACY_PATH):
                return _refusal(Refusal(415, "the content type must be application/json"))
        if "Content-Encoding" in headers:
            return _refusal(Refusal(415, "the body must not be compressed"))
        if headers.get("Expect", "100-continue").lower() != "100-continue":
            return _refusal(Refusal(417, "only 100-continue can be expected"))
        length = request.content_length
        if length is not None and length > self._runtime.max_size:
            return _too_large(self._runtime.max_size)
        return None

    async def _rest(self, request: web.BaseRequest) -> bytes | web.Response:
        """Read a body that arrives after its head."""
        try:
            async with asyncio.timeout(BODY_TIMEOUT):
                if "Expect" in request.headers and request.version >= HttpVersion11:
                    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    # It is not a part of the response.
                    request.writer.output_size = 0
                return await request.read()
        except web.HTTPRequestEntityTooLarge:
            return _too_large(self._runtime.max_size)
        except TimeoutError:
            response = _refusal(Refusal(408, f"the body did not arrive within {BODY_TIMEOUT:g} s"))
            response.force_close()
            return response


async def _send(request: web.BaseRequest, response: web.Response, place: Place) -> None:
    """Send a large answer, within the time that a client has to read it."""
    size = response.content_length or 0
    place.resize(size)
    try:
        async with asyncio.timeout(SEND_TIMEOUT):
            await response.prepare(request)
            await response.write_eof()
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
    finally:
        place.resize(-size)


def _busy(reason: str) -> bytes:
    """The whole response to a client that is refused before its request was read."""
    return (
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(reason) + 1}\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
        f"{reason}\n"
    ).encode("ascii")


def _refusal(refusal: Refusal, headers: Mapping[str, str] | None = None) -> web.Response:
    response = web.Response(status=refusal.status, text=refusal.reason + "\n", headers=headers)
    if refusal.status == 401:
        for challenge in CHALLENGES:
            response.headers.add("WWW-Authenticate", challenge)
    return response


def _too_large(max_size: int) -> web.Response:
    response = _refusal(Refusal(413, f"a body has at most {max_size:,} bytes"))
    # The rest of the body is not read.
    response.force_close()
    return response
