"""Clients that block until the answer is there."""

import logging
import math
import threading
import time
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any, TypeVar

import zmq

from ...endpoint import Endpoint, endpoint_of
from ...errors import ProtocolError, RPCTimeoutError, ServiceClosedError
from ...rpc.transport.binding import needs_ipv6
from ...rpc.transport.curve import find_refusal_blocking, refused
from ...security import Security
from ..items import RPCError as ErrorObject
from ..items import RPCResponse
from ..protocols.json_codec import MAX_SIZE, TextError, decode, encode
from ..protocols.loose import JSONRPCLoose
from .errors import exception_for
from .socket_owner import SocketOwner

__all__ = [
    "NotifierOnlyPushClient",
    "RPCClient",
    "RPCNotifierClient",
    "RequestMethod",
    "encode_request",
    "first_waits",
    "milliseconds_until",
    "time_is_over",
]

Self = TypeVar("Self", bound="RPCClient")

#: Seconds in which a server lets in a client, or refuses it.
_REFUSAL_TIME = 1.0

#: Seconds after which a first answer is late, and the longest time until a further look at that.
_FIRST_WAIT = 0.5
_LONGEST_WAIT = 16.0

#: Seconds after which a client that gets no answers looks again whether it is refused.
_LOOK_AGAIN = 5.0


class RequestMethod:
    """A method of the server, ready to be called; its attributes are ``name.attribute``."""

    __slots__ = ("client", "method", "notify")

    def __init__(self, method: str, client: "RPCClient", notify: bool = False) -> None:
        self.method = method
        self.client = client
        self.notify = notify

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        if args and kwargs:
            raise ValueError("JSON-RPC takes arguments by position or by name, not both")
        if self.notify:
            return self.client.send_notification(self.method, kwargs or args)
        return self.client.send_request(self.method, kwargs or args)

    def __getattr__(self, name: str) -> "RequestMethod":
        if name.startswith("_"):
            raise AttributeError(name)
        return RequestMethod(f"{self.method}.{name}", self.client, self.notify)


class _Notifier:
    """``client.notify``: its attributes are the server's methods, called one way."""

    __slots__ = ("_client",)

    def __init__(self, client: "RPCClient") -> None:
        self._client = client

    def __getattr__(self, name: str) -> RequestMethod:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._client.get_request_method(name, notify=True)


class RPCClient(SocketOwner):
    """Calls a server from a REQ socket.

    ::

        with RPCClient("tcp://127.0.0.1:57570") as client:
            print(client.echo("Echo?"))

    Any thread may call; one call is under way at a time. After a timeout the client works again.

    Args:
        endpoint: the server's address.
        context: of ZeroMQ; the default is the process's.
        timeout: milliseconds for each call, of sending and of waiting for the answer together;
            ``None`` for no limit. It may be changed later.
        socket_type: of ZeroMQ; the default is the class's.
        logger: the default is ``berrymq_rpc.jsonrpc.zeromq``.
        max_size: bytes of an answer.
        security: who may connect, and how this side proves who it is; ``None`` for neither.

    Raises:
        TypeError, ValueError: `endpoint` is not an address that can be connected to.

    Attributes:
        notify: ``client.notify.NAME(...)`` sends and returns ``None``. From a REQ socket, it waits
            until the server has taken it.

    Calls raise

    * an `RPCError` of `errors` for an error that the server answers;
    * `TimeoutError` (an `RPCTimeoutError`) when the time is over;
    * `AuthenticationError` when the server refuses this side, or this side the server;
    * `ProtocolError` when the answer is malformed;
    * `ServiceClosedError` when the client is closed;
    * `Error` in the child of a fork: the client is its parent's;
    * `ValueError`, `TypeError` for arguments that JSON-RPC cannot carry.
    """

    default_socket_type: int = zmq.REQ
    #: The user's exception classes by error code, called with the message and the data.
    error_code_exceptions: Mapping[int, type[Exception]] | None = None
    request_method_class = RequestMethod

    def __init__(
        self,
        endpoint: str,
        context: zmq.Context[Any] | None = None,
        timeout: int | None = 5000,
        socket_type: int | None = None,
        logger: logging.Logger | None = None,
        *,
        max_size: int = MAX_SIZE,
        security: Security | None = None,
    ) -> None:
        endpoint = endpoint_of(endpoint)
        if endpoint.startswith("tcp://"):
            Endpoint.parse(endpoint).require_port()
        super().__init__(endpoint, socket_type, timeout, context, logger, max_size, security)
        #: Whether the server is at an IPv6 address; ``None`` while that is not known.
        self._by_ipv6: bool | None = None
        self.notify = _Notifier(self)
        self._ids = count(1)
        self._guard = threading.RLock()
        self._is_closed = False
        #: Whether an answer has come so far.
        self._was_answered = False
        #: When a client that gets no answers looks next whether it is refused.
        self._next_look = 0.0
        self._connect()

    def _connect(self) -> None:
        socket = self._new_socket()
        try:
            if self._by_ipv6 is None:
                self._by_ipv6 = needs_ipv6(self.endpoint)
            socket.ipv6 = bool(self._by_ipv6)
            socket.connect(self.endpoint)
        except BaseException:
            socket.close(0)
            self._resources.close()
            raise
        self.socket = socket

    def _reconnect(self) -> None:
        """Replace the socket: drop what was sent on it and what would still arrive."""
        self.socket.close(0)
        self._resources.close()
        self._connect()

    # -- calls -------------------------------------------------------------------------------

    def get_request_method(self, method: str, notify: bool = False) -> RequestMethod:
        """Return a method by its name, which need not be an identifier.

        Args:
            method: its name.
            notify: whether to call it one way.
        """
        return self.request_method_class(method, self, notify)

    def __getattr__(self, name: str) -> RequestMethod:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        # Kept, so that this is called once for each name.
        method = self.__dict__[name] = self.get_request_method(name)
        return method

    def send_request(self, method: str, params: Any) -> Any:
        """Call a method and wait for its result."""
        self._owner.check()
        with self._guard:
            request_id = next(self._ids)
            text = encode_request(method, params, request_id)
            deadline = self._send(text, method)
            try:
                return self._receive(request_id, method, deadline)
            except ErrorObject:
                raise
            except BaseException:
                # The answer may still come, and the next call must not take it for its own.
                self._reconnect()
                raise

    def send_notification(self, method: str, params: Any) -> None:
        """Call a method one way."""
        self._owner.check()
        with self._guard:
            text = encode_request(method, params, None)
            self._look_for_refusal(method)
            deadline = self._send(text, method)
            if self.socket_type != zmq.REQ:
                return
            try:
                # A REP socket has to send something after each message.
                self._taken(method, deadline)
            except ErrorObject:
                raise
            except BaseException:
                self._reconnect()
                raise

    def _send(self, text: bytes, method: str) -> float | None:
        """Send; return the deadline of the call."""
        if self._is_closed:
            raise ServiceClosedError("the client is closed: open a new one")
        deadline = self._deadline()
        try:
            self.socket.send(text, zmq.NOBLOCK)
        except zmq.Again:
            # A server that refuses this side leaves it nobody to send to.
            self._wait_first(zmq.POLLOUT, method, deadline)
            self.socket.setsockopt(zmq.SNDTIMEO, milliseconds_until(deadline))
            try:
                self.socket.send(text)
            except zmq.Again:
                self._check_refused(method)
                raise time_is_over(method, self.endpoint, "sent") from None
        return deadline

    def _deadline(self) -> float | None:
        timeout = self.timeout
        return None if timeout is None or timeout < 0 else time.monotonic() + timeout / 1000

    def _look_for_refusal(self, method: str) -> None:
        """Raise `AuthenticationError` if the server refuses what gets no answer.

        It looks before the first notification, and where there are keys again now and then, as a
        key can be removed.
        """
        now = time.monotonic()
        if self.socket_type == zmq.REQ or now < self._next_look:
            return
        self._check_refused(method)
        self._next_look = math.inf if self.security is None else now + _LOOK_AGAIN

    def _check_refused(self, method: str) -> None:
        """Raise `AuthenticationError` if the server refuses this side."""
        if self._was_answered and self.security is None:
            # Without keys, a server that has let in this side goes on to do so.
            return
        kind = zmq.PUSH if self.socket_type == zmq.PUSH else zmq.DEALER
        reason = find_refusal_blocking(self.endpoint, self.security, _REFUSAL_TIME, kind)
        if reason is not None:
            error = refused(self.security, reason)
            error.method, error.endpoint, error.sent = method, self.endpoint, False
            raise error

    def _wait_first(self, events: int, method: str, deadline: float | None) -> None:
        """Wait for a server that has never answered, and look whether it refuses this side."""
        if self._was_answered:
            return
        for wait in first_waits(deadline):
            if self.socket.poll(int(wait * 1000), events):
                return
            self._check_refused(method)

    def _receive_text(self, method: str, deadline: float | None) -> Any:
        self._wait_first(zmq.POLLIN, method, deadline)
        self.socket.setsockopt(zmq.RCVTIMEO, milliseconds_until(deadline))
        try:
            frames = self.socket.recv_multipart()
        except zmq.Again:
            self._check_refused(method)
            raise time_is_over(method, self.endpoint, "answered") from None
        self._was_answered = True
        text = frames[0] if len(frames) == 1 else b"".join(frames)
        if not text:
            return None
        try:
            return decode(text, self.max_size)
        except TextError as error:
            raise ProtocolError(f"the answer to {method!r}: {error}") from None

    def _receive(self, request_id: int, method: str, deadline: float | None) -> Any:
        while True:
            payload = self._receive_text(method, deadline)
            # The common case, in as few steps as possible.
            if (
                type(payload) is dict
                and payload.get("id") == request_id
                and "result" in payload
                and "error" not in payload
                and "method" not in payload
            ):
                return payload["result"]
            response = _response(payload, method)
            if response.request_id == request_id or response.request_id is None:
                if isinstance(response.result, ErrorObject):
                    raise exception_for(response.result, self.error_code_exceptions)
                if response.request_id is not None:
                    return response.result
            if self.socket_type == zmq.REQ:
                raise ProtocolError(f"{method!r} was answered with the id of another call")

    def _taken(self, method: str, deadline: float | None) -> None:
        payload = self._receive_text(method, deadline)
        if payload is not None:
            result = _response(payload, method).result
            if isinstance(result, ErrorObject):
                raise exception_for(result, self.error_code_exceptions)

    # -- the end -----------------------------------------------------------------------------

    def close(self) -> None:
        """Close the socket, after the call that is under way.

        What is queued is sent for up to a second more, in the background.
        """
        if not self._owner.is_this:
            return
        with self._guard:
            self._is_closed = True
            self.socket.close()
            self._resources.close()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def first_waits(deadline: float | None) -> Iterator[float]:
    """Seconds to wait for a server at first; after each the client looks whether it is refused.

    A server that refuses this side never answers. It is looked at several times: a busy one may not
    say so in time.
    """
    wait = _FIRST_WAIT
    while wait <= _LONGEST_WAIT and (deadline is None or deadline - time.monotonic() > wait):
        yield wait
        wait *= 2


def encode_request(method: str, params: Any, request_id: int | None) -> bytes:
    """The text of a request, or of a notification."""
    # Always with params: servers of jsonrpc2-zeromq refuse a request without.
    payload: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
    if request_id is not None:
        payload["id"] = request_id
    return encode(payload)


def _response(payload: Any, method: str) -> RPCResponse:
    if isinstance(payload, dict) and "method" not in payload:
        # The error for a request whose id could not be read may lack the id.
        item = JSONRPCLoose.payload_to_item({"id": None, **payload})
        if isinstance(item, RPCResponse) and not item.malformed:
            return item
    raise ProtocolError(f"the answer to {method!r} is not a response")


def milliseconds_until(deadline: float | None) -> int:
    """Milliseconds that are left, as ZeroMQ takes them."""
    if deadline is None:
        return -1
    return max(0, round((deadline - time.monotonic()) * 1000))


def time_is_over(method: str, endpoint: str, what: str) -> RPCTimeoutError:
    """Make the exception for a call that was not sent, or not answered, in time."""
    return RPCTimeoutError(f"{method!r} was not {what} by {endpoint} in time")


class RPCNotifierClient(RPCClient):
    """Calls a server and sends it notifications, from a DEALER socket."""

    default_socket_type: int = zmq.DEALER


class NotifierOnlyPushClient(RPCClient):
    """Sends notifications, from a PUSH socket."""

    default_socket_type: int = zmq.PUSH

    def send_request(self, method: str, params: Any) -> Any:
        """Refuse: there would be no answer.

        Raises:
            TypeError: always.
        """
        raise TypeError(f"a PUSH socket gets no answers: call notify.{method}")
