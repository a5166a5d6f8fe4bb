"""A server that sends notifications to its subscribers."""

import logging
import sys
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import zmq

from ...errors import OverloadedError, ServiceClosedError
from ...rpc.transport.curve import credentials_of
from ...rpc.transport.port import Credentials
from ...security import CurveServer
from ..items import RPCRequest
from ..message import IncomingRequest
from ..protocols.base import JSONRPC
from ..protocols.json_codec import decode, encode
from ..protocols.version1 import JSONRPCv1
from ..protocols.version2 import JSONRPCv2
from .errors import ServerError
from .server import RPCNotificationServer

__all__ = ["Subscriber", "SubscriptionServer"]

#: Subscribers at one time. One that is gone is removed when something is sent to it.
MAX_SUBSCRIBERS = 10_000

#: Notifications that may wait for the server's thread.
MAX_WAITING = 100_000

#: Milliseconds: a frozen subscriber, or one whose host is gone, is noticed within the sum.
_HEARTBEAT_INTERVAL = 1000
_HEARTBEAT_TIMEOUT = 3000


class Subscriber(NamedTuple):
    """One client of one server.

    Args:
        route: the frames before the text.
        key: the public key that it has proved to be its own; ``None`` where there are no keys.
    """

    route: tuple[bytes, ...]
    key: str | None = None


class SubscriptionServer(RPCNotificationServer):
    """Sends notifications to clients that subscribed, at a ROUTER socket.

    ::

        class Weather(SubscriptionServer):
            def handle_watch_method(self, town):
                self.watchers[town].append(self.subscriber)

        server.notify(server.watchers["Kyoto"][0], "rain", 3.5)
        server.publish("sunset")

    A client is a subscriber from when a handler that it called reads `subscriber`. The method
    ``subscribe`` does so, and ``unsubscribe`` ends it; a class may have its own instead. `notify`
    and `publish` may be called by any thread. `NotificationReceiverClient` is the client. A client
    whose key is removed is a subscriber no longer, and what is sent to it is dropped and counted.
    Args and errors are those of `RPCServer`.
    """

    def __init__(
        self,
        endpoint: str,
        context: zmq.Context[Any] | None = None,
        timeout: int | None = 1000,
        socket_type: int | None = None,
        logger: logging.Logger | None = None,
        **options: Any,
    ) -> None:
        #: The recipients of `publish`, the oldest first, each with the version that it speaks.
        self._subscribers: dict[Subscriber, type[JSONRPC]] = {}
        #: The same as a tuple, which what is published shares.
        self._all: tuple[Subscriber, ...] = ()
        #: The recipients, whether only those that still subscribe, and the text in version 2.0.
        self._waiting: deque[tuple[Sequence[Subscriber], bool, bytes]] = deque()
        self._asking: Subscriber | None = None
        #: The last frame of the message that is being served.
        self._frame: Any = None
        #: The version of the request that a handler serves.
        self._version: type[JSONRPC] = JSONRPCv2
        self._guard = threading.Lock()
        #: Keys removed since the last turn.
        self._removed_keys: deque[str] = deque()
        super().__init__(endpoint, context, timeout, socket_type, logger, **options)
        if isinstance(self.security, CurveServer):
            self._resources.callback(self.security.authorization.add_listener(self._key_removed))

    def _new_socket(self) -> Any:
        socket = super()._new_socket()
        socket.heartbeat_ivl = _HEARTBEAT_INTERVAL
        socket.heartbeat_timeout = _HEARTBEAT_TIMEOUT
        return socket

    # -- subscribers -----------------------------------------------------------------------

    @property
    def subscriber(self) -> Subscriber:
        """The client whose request the handler serves; reading it makes the client a subscriber.

        Raises:
            RuntimeError: not called by a handler.
            ServerError: there are too many subscribers, or the client has a REQ socket, which would
                take a notification for the answer to a request.
        """
        asking = self._asking
        if asking is None or threading.get_ident() != self._serving_thread:
            raise RuntimeError("subscriber can only be read inside a handler")
        if self._frame.get("Socket-Type") == "REQ":
            raise ServerError("a REQ socket cannot take notifications: subscribe with a DEALER")
        with self._guard:
            if asking not in self._subscribers:
                if len(self._subscribers) >= MAX_SUBSCRIBERS:
                    raise ServerError(f"there are {MAX_SUBSCRIBERS:,} subscribers already")
                self._all = (*self._all, asking)
            self._subscribers[asking] = self._version
        return asking

    @property
    def subscribers(self) -> tuple[Subscriber, ...]:
        """The recipients of `publish`."""
        return self._all

    def forget(self, subscriber: Subscriber) -> None:
        """Remove a subscriber, if it is one."""
        with self._guard:
            if subscriber in self._subscribers:
                del self._subscribers[subscriber]
                self._all = tuple(self._subscribers)

    def _key_removed(self, key: str) -> None:
        """Any thread may call it."""
        self._removed_keys.append(key)
        self._waker.wake()

    def _forget_removed(self) -> None:
        """Keep nothing for clients whose keys were removed."""
        assert self._queues is not None
        while self._removed_keys:
            key = self._removed_keys.popleft()
            for subscriber in self._all:
                if subscriber.key == key:
                    self.forget(subscriber)
                    self._queues.drop(subscriber.route[0], "the peer's key was removed")

    def handle_subscribe_method(self) -> bool:
        """Make the caller a subscriber."""
        return bool(self.subscriber)

    def handle_unsubscribe_method(self) -> bool:
        """End the caller's subscription."""
        self.forget(self.subscriber)
        return True

    # -- sending -----------------------------------------------------------------------------

    def notify(self, subscriber: Subscriber, name: str, /, *args: Any, **kwargs: Any) -> None:
        """Send a notification to one subscriber; it is dropped and counted if that is gone.

        Args:
            subscriber: what a handler read as `subscriber`.
            name: the notification; the client's ``handle_NAME_notification`` is called.

        Raises:
            TypeError: there are arguments by position and by name.
            TypeError, ValueError: an argument has no form in JSON.
            OverloadedError: too many wait to be sent.
            ServiceClosedError: the server was stopped.
        """
        self._enqueue((subscriber,), False, name, args, kwargs)

    def publish(self, name: str, /, *args: Any, **kwargs: Any) -> None:
        """Send a notification to all present subscribers.

        Arguments and errors are those of `notify`.
        """
        self._enqueue(self._all, True, name, args, kwargs)

    def _enqueue(
        self,
        to: Sequence[Subscriber],
        is_published: bool,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        if args and kwargs:
            raise TypeError("JSON-RPC takes arguments by position or by name, not both")
        # Always with params: receivers of jsonrpc2-zeromq end without.
        text = encode({"jsonrpc": "2.0", "method": name, "params": kwargs or args})
        self._owner.check()
        if self.should_stop or sys.is_finalizing():
            raise ServiceClosedError("the server was stopped: its subscribers are gone")
        if len(self._waiting) >= MAX_WAITING:
            raise OverloadedError(
                f"{MAX_WAITING:,} notifications wait to be sent: send fewer a second"
            )
        if not to:
            return
        self._waiting.append((to, is_published, text))
        if threading.get_ident() != self._serving_thread:
            self._waker.wake()

    def _receive(self) -> list[bytes]:
        frames = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
        self._frame = frames[-1]
        self._check_key(frames[-1])
        return [frame.bytes for frame in frames]

    def _turn(self) -> None:
        super()._turn()
        self._forget_removed()
        self._send_waiting()

    def _send_waiting(self) -> None:
        assert self._queues is not None
        while self._waiting:
            to, is_published, text = self._waiting.popleft()
            texts: dict[type[JSONRPC], bytes] = {JSONRPCv2: text}
            for subscriber in to:
                version = self._subscribers.get(subscriber)
                if is_published and version is None:
                    continue
                if self._is_removed(Credentials(subscriber.key)):
                    self._queues.drop(subscriber.route[0], "the peer's key was removed", 1)
                    continue
                if version is JSONRPCv1 and JSONRPCv1 not in texts:
                    texts[JSONRPCv1] = _as_version1(text)
                if not self._queues.send([*subscriber.route, texts[version or JSONRPCv2]]):
                    self.forget(subscriber)

    def _run_request(self, request: IncomingRequest) -> None:
        self._version = request.protocol
        super()._run_request(request)

    def _answer(self, route: Sequence[bytes], payload: bytes) -> bytes:
        credentials = None if self.security is None else credentials_of(self._frame)
        key = None if credentials is None else credentials.key
        self._asking = Subscriber(tuple(route), key)
        try:
            return super()._answer(route, payload)
        finally:
            self._asking = None


def _as_version1(text: bytes) -> bytes:
    """The same notification in version 1.0, where named arguments are one object."""
    payload = decode(text)
    params = payload["params"]
    args = params if isinstance(params, list) else [params]
    return encode(JSONRPCv1.request_payload(RPCRequest(payload["method"], args, None)))
