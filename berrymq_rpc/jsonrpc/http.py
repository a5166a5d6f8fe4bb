"""A client of a JSON-RPC server over HTTP."""

import asyncio
import ipaddress
import socket
import ssl as ssl_module
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any, Self
from urllib.parse import unquote

from ..common.tracing import Span, Tracing, installed
from ..endpoint import Endpoint, split_user, without_password
from ..errors import (
    AuthenticationError,
    ConnectionLostError,
    Error,
    OverloadedError,
    ProtocolError,
    RPCTimeoutError,
    ServiceClosedError,
    TooLargeError,
)
from ..rpc.proxy import Namespace
from ..rpc.validation import checked_timeout
from ..runtime.extra import missing_package
from ..runtime.fork import OwnerProcess, leave_loop_in_child
from ..runtime.log import Log
from ..security import Security, checked_security
from .error_objects import to_exception
from .items import RPCError, RPCRequest, RPCResponse
from .protocols import JSONRPC, JSONRPCLoose, JSONRPCv1, JSONRPCv2
from .protocols.base import shown
from .protocols.json_codec import MAX_SIZE, TextError, decode, encode

__all__ = ["HTTPClient", "is_url", "open_http_client"]

logger = Log("berrymq_rpc.jsonrpc.http")

#: Seconds that a server has for an answer, and for a connection to it.
TIMEOUT = 30.0
CONNECT_TIMEOUT = 5.0

#: Connections to the server at one time; further calls wait for one.
MAX_CONNECTIONS = 100

#: Calls in flight, with those that wait for a connection; further ones are refused.
MAX_CALLS = 10_000

#: The path besides ``/`` that berryMQ 0.3 serves, and that a bridge serves for its clients.
LEGACY_PATH = "/JSON"

_PROTOCOLS: Mapping[str, type[JSONRPC]] = {"1.0": JSONRPCv1, "2.0": JSONRPCv2}

#: Exceptions for statuses that come without an answer.
_STATUSES: Mapping[int, type[Error]] = {
    401: AuthenticationError,
    403: AuthenticationError,
    413: TooLargeError,
    503: OverloadedError,
}
_REASONS = {401: "credentials", 403: "permission"}


def is_url(address: object) -> bool:
    """Whether an address is the URL of an HTTP server."""
    return isinstance(address, str) and address.startswith(("http://", "https://"))


def _aiohttp() -> Any:
    try:
        import aiohttp
    except ModuleNotFoundError as error:
        if error.name != "aiohttp":
            raise
        raise missing_package("calls over HTTP need aiohttp", "http", "aiohttp") from None
    return aiohttp


class HTTPClient:
    """A client of one server. Made by `open_http_client`; use it with ``async with``.

    Calls run at the same time, so their order at the server is not known.

    Attributes:
        rpc: the methods of the server: ``await client.rpc.namespace.method(1)``. Arguments go by
            position or by name, and not both.
        notify: the same, one way; in version 1.0, that is a call whose answer is dropped. What the
            server does not take is logged.
        security: how it proves who it is, as `open_http_client` was given it.
    """

    def __init__(
        self,
        url: str,
        session: Any,
        protocol: type[JSONRPC],
        timeout: float | None,
        headers: Mapping[str, str],
        error_table: Mapping[str, type[Exception]] | None,
        max_size: int,
        security: Security | None,
        tasks: set[asyncio.Task[Any]] | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._url = url
        # A query may have a key.
        self._shown = url.partition("?")[0]
        self._session = session
        self._protocol = protocol
        self._timeout = timeout
        self._headers = headers
        self._error_table = error_table
        self._max_size = max_size
        self.security = security
        self._tracing = installed()
        self._ids = count(1)
        self._owner = OwnerProcess("client")
        self._loop = asyncio.get_running_loop() if loop is None else loop
        leave_loop_in_child(self._loop)
        self._tasks: set[asyncio.Task[Any]] = set() if tasks is None else tasks
        self._closing: asyncio.Future[None] | None = None
        self.rpc: Namespace[asyncio.Task[Any]] = Namespace(self._call)
        self.notify: Namespace[None] = Namespace(self._notify)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The server's URL, without its user and its query."""
        return (self._shown,)

    @property
    def timeout(self) -> float | None:
        """Seconds for each call, or ``None``."""
        return self._timeout

    def with_timeout(self, timeout: float | None) -> "HTTPClient":
        """Return a client that shares this one's connections but has another timeout.

        Args:
            timeout: seconds for each call; ``None`` for no limit.
        """
        return HTTPClient(
            self._url,
            self._session,
            self._protocol,
            checked_timeout(timeout),
            self._headers,
            self._error_table,
            self._max_size,
            self.security,
            self._tasks,
            self._loop,
        )

    def call(self, method: str, /, *args: Any, **kwargs: Any) -> "asyncio.Task[Any]":
        """Call a method by its full name, which need not be an identifier.

        Returns:
            A task. Cancelling it closes the connection, so that the server notices.

        Raises:
            TypeError, ValueError: an argument cannot be written; nothing was sent.
            ServiceClosedError: the client is closed.
            OverloadedError: too many calls are in flight.
        """
        return self._call(method, args, kwargs)

    def _call(
        self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> "asyncio.Task[Any]":
        call_id = next(self._ids)
        body = self._body(method, args, kwargs, call_id)
        if self._tracing is None:
            return self._start(method, self._ask(method, body, call_id, self._headers))
        span, headers = self._begin(self._tracing, method)
        try:
            task = self._start(method, self._ask(method, body, call_id, headers))
        except BaseException as error:
            span.end(error)
            raise
        task.add_done_callback(partial(_ended, span))
        return task

    def _begin(self, tracing: Tracing, method: str) -> tuple[Span, Mapping[str, str]]:
        """The span of a call, and the headers that it is sent with."""
        span = tracing.call(method, "jsonrpc")
        span.at(self._shown)
        return span, {**self._headers, **span.carrier}

    def _notify(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Version 1.0 has an id of null for it, for which berryMQ 0.3 sends an answer all the same.
        body = self._body(method, args, kwargs, None)
        headers, span = self._headers, None
        if self._tracing is not None:
            span, headers = self._begin(self._tracing, method)
        try:
            task = self._start(method, self._tell(method, body, headers))
        except BaseException as error:
            if span is not None:
                span.end(error)
            raise
        if span is not None:
            task.add_done_callback(partial(_ended, span))
        task.add_done_callback(partial(self._told, method))

    def _told(self, method: str, task: "asyncio.Task[Any]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("notification %.100r was not delivered: %s", method, error)

    def _body(
        self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], call_id: int | None
    ) -> bytes:
        if args and kwargs:
            raise TypeError("JSON-RPC takes arguments by position or by name, not both")
        request = RPCRequest(method, kwargs or args, call_id)
        return encode(self._protocol.request_payload(request), self._protocol.max_depth)

    def _start(self, method: str, coroutine: Any) -> "asyncio.Task[Any]":
        try:
            self._owner.check()
            if self._session.closed or self._loop.is_closed():
                raise ServiceClosedError(
                    f"the client is closed, {method!r} was not sent: open a new one"
                )
            if len(self._tasks) >= MAX_CALLS:
                raise OverloadedError(
                    f"{MAX_CALLS:,} calls are in flight: {method!r} was not sent. Await some first"
                )
        except Error:
            coroutine.close()
            raise
        task = asyncio.create_task(coroutine, name=f"jsonrpc {method}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _ask(self, method: str, body: bytes, call_id: int, headers: Mapping[str, str]) -> Any:
        status, answer = await self._post(method, body, headers)
        response = self._response(answer)
        error = None if response is None else response.result
        has_error = isinstance(error, RPCError)
        if (status >= 400 and not has_error) or 300 <= status < 400:
            raise self._refused(status, answer)
        if response is None:
            raise ProtocolError(
                f"{self._shown} answered {method!r} with a malformed response: {answer[:100]!r}"
            )
        request_id = response.request_id
        # That of an error is null where the server could not read the request's.
        is_unknown = request_id is None and has_error
        if not is_unknown and (type(request_id) is not int or request_id != call_id):
            raise ProtocolError(
                f"{self._shown} answered {method!r} with the id {shown(request_id)}, not {call_id}"
            )
        if isinstance(error, RPCError):
            raise to_exception(error, self._error_table)
        return response.result

    def _response(self, answer: bytes) -> RPCResponse | None:
        """The response in the body of an answer, or ``None``."""
        try:
            payload = decode(answer, self._max_size)
        except TextError:
            return None
        if not isinstance(payload, dict) or "method" in payload:
            return None
        # Servers may answer in another version than they were called in, and leave out a null id.
        response = JSONRPCLoose.payload_to_response({"id": None, **payload})
        return None if response.malformed else response

    async def _tell(self, method: str, body: bytes, headers: Mapping[str, str]) -> None:
        status, answer = await self._post(method, body, headers)
        if status >= 300:
            raise self._refused(status, answer)

    def _refused(self, status: int, answer: bytes) -> Error:
        """The exception for a status without an answer."""
        reason = answer[:200].decode("utf-8", "replace").strip()
        if 300 <= status < 400:
            reason = "redirects are not followed"
        error = _STATUSES.get(status, ProtocolError)(
            f"{self._shown} answered with status {status}: {reason}"
        )
        if isinstance(error, AuthenticationError):
            error.reason = _REASONS[status]
        return error

    async def _post(
        self, method: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """The status and the body of the response."""
        aiohttp = _aiohttp()
        try:
            async with (
                asyncio.timeout(self._timeout),
                # A redirect would carry the call, and the token with it, to another server.
                self._session.post(
                    self._url, data=body, headers=headers, allow_redirects=False
                ) as response,
            ):
                data: bytes = await response.content.read(self._max_size + 1)
                while data and not response.content.at_eof() and len(data) <= self._max_size:
                    data += await response.content.read(self._max_size + 1 - len(data))
                status: int = response.status
        except aiohttp.ServerTimeoutError as error:
            # A `TimeoutError` as well, which is about the connection alone: there is no other.
            raise ConnectionLostError(f"{self._shown}: {method!r}: {error}") from None
        except TimeoutError:
            raise RPCTimeoutError(
                f"no answer from {method!r} at {self._shown} within {self._timeout} s"
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            if self._session.closed:
                raise ServiceClosedError(f"the client is closed: {method!r} was cut off") from None
            if _is_about_certificates(error):
                raise AuthenticationError(
                    f"{self._shown}: {method!r}: {error}", reason="certificate"
                ) from None
            raise ConnectionLostError(f"{self._shown}: {method!r}: {_problem(error)}") from None
        if len(data) > self._max_size:
            raise TooLargeError(f"{self._shown}: the answer has more than {self._max_size:,} bytes")
        return status, data

    def close(self) -> None:
        """Close the connections; calls in flight fail. See `wait_closed`."""
        if self._loop.is_closed() or not self._owner.is_this:
            return
        for task in list(self._tasks):
            task.cancel()
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._session.close())

    async def wait_closed(self) -> None:
        """Wait until `close` is over."""
        if not self._owner.is_this:
            return
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._closing is not None:
            await asyncio.shield(self._closing)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()
        await self.wait_closed()

    def __repr__(self) -> str:
        return f"<HTTPClient {self._shown}>"


def _ended(span: Span, task: "asyncio.Task[Any]") -> None:
    # To ask by `exception` would count as having seen it.
    span.end(asyncio.CancelledError() if task.cancelled() else task._exception)


def _is_about_certificates(error: BaseException) -> bool:
    """Whether one side has refused the other's certificate, or wants one."""
    # Some versions of aiohttp keep the error of TLS in an attribute, others raise it from there.
    several = (error, error.__cause__, getattr(error, "os_error", None))
    certificate = getattr(error, "certificate_error", None)
    return isinstance(certificate, ssl_module.SSLError) or any(
        # Those of aiohttp are derived from it without being made as one.
        isinstance(each, ssl_module.SSLError)
        and "CERTIFICATE" in str(getattr(each, "reason", None)).upper()
        for each in several
    )


def _problem(error: Exception) -> str:
    """Say why there was no answer, and what to look at."""
    aiohttp = _aiohttp()
    if isinstance(error, aiohttp.ClientSSLError):
        return (
            f"no connection by TLS ({getattr(error, 'os_error', error)}): does the server speak "
            "it? Where it does not, write http://"
        )
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection ({error.os_error}): is the server running, and is the address right?"
    if isinstance(error, aiohttp.ClientResponseError):
        # Without its text, which has the whole URL.
        return "what listens there does not answer as an HTTP server: is the port right?"
    return str(error)


class _Resolver:
    """Resolves every host to one address: an aiohttp ``AbstractResolver``."""

    def __init__(self, address: str) -> None:
        self._address = address
        is_ipv6 = ipaddress.ip_address(address).version == 6
        self._family = socket.AF_INET6 if is_ipv6 else socket.AF_INET

    async def resolve(
        self, host: str, port: int = 0, family: int = socket.AF_INET
    ) -> list[dict[str, Any]]:
        return [
            {
                "hostname": host,
                "host": self._address,
                "port": port,
                "family": self._family,
                "proto": socket.IPPROTO_TCP,
                "flags": socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            }
        ]

    async def close(self) -> None:
        """Do nothing: it holds nothing."""


def _parse(url: str) -> tuple[str, Endpoint]:
    """The user part of a URL, and the rest of it.

    Raises:
        TypeError, ValueError: it is not the URL of an HTTP server.
    """
    if not is_url(url):
        raise ValueError(f"{without_password(str(url))!r} is not a URL: write http://host:port")
    user, rest = split_user(url)
    endpoint = Endpoint.parse(rest)
    if not endpoint.port:
        raise ValueError(f"{rest!r} has no port of a server")
    return user, endpoint


async def open_http_client(
    url: str,
    *,
    timeout: float | None = TIMEOUT,
    connect_timeout: float = CONNECT_TIMEOUT,
    version: str = "2.0",
    token: str | None = None,
    ssl: ssl_module.SSLContext | bool = True,
    error_table: Mapping[str, type[Exception]] | None = None,
    max_size: int = MAX_SIZE,
    max_connections: int = MAX_CONNECTIONS,
    security: Security | None = None,
    address: str | None = None,
) -> HTTPClient:
    """Open a client. The server need not be running yet: calls connect when they have to.

    Redirects are not followed: neither a call nor what proves who calls goes to another server.

    Args:
        url: where calls are posted to, such as ``"http://127.0.0.1:8080"``. With version 1.0, the
            path is ``/JSON`` where the URL has none, as a berryMQ 0.3 server has it. A user and a
            password in it are sent as ``Authorization: Basic ...``, and shown nowhere.
        timeout: seconds for each call; ``None`` waits until the server answers or is lost.
        connect_timeout: seconds for a connection to the server.
        version: of JSON-RPC: ``"2.0"`` or ``"1.0"``.
        token: sent as ``Authorization: Bearer ...``.
        ssl: what to check of a server of ``https://``; ``True`` as usual.
        error_table: remote exceptions to be raised here as these classes, as in `open_client`.
        max_size: bytes that an answer may have.
        max_connections: connections to the server at one time. Further calls wait for one of them,
            while their time runs.
        security: how this side proves who it is; ``None`` for not at all.
        address: the IP address to connect to; ``None`` for any that the URL's host has.

    Raises:
        ModuleNotFoundError: aiohttp is not installed; it comes with the extra ``http``.
        TypeError, ValueError: an argument is invalid.
    """
    aiohttp = _aiohttp()
    if version not in _PROTOCOLS:
        raise ValueError(f"version must be '1.0' or '2.0', not {version!r}")
    if isinstance(max_connections, bool) or not isinstance(max_connections, int):
        raise TypeError(f"max_connections must be a whole number, not {max_connections!r}")
    if max_connections < 1:
        raise ValueError(f"max_connections must be 1 or more, not {max_connections}")
    security = checked_security(security)
    user, endpoint = _parse(url)
    endpoint.require_port()
    if endpoint.path in ("", "/"):
        endpoint = replace(endpoint, path=LEGACY_PATH if version == "1.0" else "/")
    headers = {"Content-Type": "application/json"}
    if token is not None and user:
        raise ValueError("give a token, or a user in the URL, and not both")
    if user and ":" not in user:
        user += ":"
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    elif user:
        headers["Authorization"] = f"Basic {b64encode(unquote(user).encode()).decode()}"
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=max_connections, ssl=ssl, resolver=None if address is None else _Resolver(address)
        ),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout),
        # Calls do not depend on one another.
        cookie_jar=aiohttp.DummyCookieJar(),
    )
    return HTTPClient(
        str(endpoint),
        session,
        _PROTOCOLS[version],
        checked_timeout(timeout),
        headers,
        error_table,
        max_size,
        security,
    )
