"""A server that sends notifications back to those who subscribed."""

import logging
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import zmq

from ...errors import OverloadedError, ServiceClosedError
from ..protocols.json_codec import encode
from .errors import ServerError
from .server import RPCNotificationServer

__all__ = ["Subscriber", "SubscriptionServer"]

#: Subscribers at one time. They are forgotten when they are gone, which shows when something is
#: sent to them.
MAX_SUBSCRIBERS = 10_000

#: Notifications that wait for the thread of a server that does not run, or is busy.
MAX_WAITING = 100_000

#: Milliseconds: a subscriber whose host is gone, or that is frozen, is noticed within the sum.
_HEARTBEAT_INTERVAL = 1000
_HEARTBEAT_TIMEOUT = 3000


class Subscriber(NamedTuple):
    """The way to one client; it means something to its own server alone.

    Args:
        route: the frames before the text.
    """

    route: tuple[bytes, ...]


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
    and `publish` may be called by any thread. `NotificationReceiverClient` is the client. Args and
    errors are those of `RPCServer`.
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
        #: Those to whom `publish` sends, in the order in which they came.
        self._subscribers: dict[Subscriber, None] = {}
        #: The same, shared by what is published until it changes.
        self._all: tuple[Subscriber, ...] = ()
        #: To whom, whether only to those who are subscribers still, and what.
        self._waiting: deque[tuple[Sequence[Subscriber], bool, bytes]] = deque()
        self._asking: Subscriber | None = None
        self._guard = threading.Lock()
        super().__init__(endpoint, context, timeout, socket_type, logger, **options)

    def _new_socket(self) -> Any:
        socket = super()._new_socket()
        socket.heartbeat_ivl = _HEARTBEAT_INTERVAL
        socket.heartbeat_timeout = _HEARTBEAT_TIMEOUT
        return socket

    # -- who ---------------------------------------------------------------------------------

    @property
    def subscriber(self) -> Subscriber:
        """The client whose request the handler serves; reading it makes the client a subscriber.

        Raises:
            RuntimeError: no handler runs in this thread.
            ServerError: there are too many subscribers.
        """
        asking = self._asking
        if asking is None or threading.get_ident() != self._serving_thread:
            raise RuntimeError("there is a subscriber inside a handler alone")
        with self._guard:
            if asking not in self._subscribers:
                if len(self._subscribers) >= MAX_SUBSCRIBERS:
                    raise ServerError(f"there are {MAX_SUBSCRIBERS:,} subscribers already")
                self._subscribers[asking] = None
                self._all = tuple(self._subscribers)
        return asking

    @property
    def subscribers(self) -> tuple[Subscriber, ...]:
        """Those to whom `publish` sends."""
        return self._all

    def forget(self, subscriber: Subscriber) -> None:
        """Take one out of those to whom `publish` sends, if it is there."""
        with self._guard:
            if subscriber in self._subscribers:
                del self._subscribers[subscriber]
                self._all = tuple(self._subscribers)

    def handle_subscribe_method(self) -> bool:
        """Make the caller a subscriber."""
        return bool(self.subscriber)

    def handle_unsubscribe_method(self) -> bool:
        """Make the caller a subscriber no more."""
        self.forget(self.subscriber)
        return True

    # -- sending -----------------------------------------------------------------------------

    def notify(self, subscriber: Subscriber, name: str, /, *args: Any, **kwargs: Any) -> None:
        """Send a notification to one subscriber. It is dropped and counted if that one is gone.

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
        """Send a notification to all subscribers of this moment.

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
            raise TypeError("JSON-RPC takes arguments by position or by name, and not both")
        # Always with params: receivers of jsonrpc2-zeromq end without.
        text = encode({"jsonrpc": "2.0", "method": name, "params": kwargs or args})
        if self.should_stop:
            raise ServiceClosedError("the server was stopped")
        if len(self._waiting) >= MAX_WAITING:
            raise OverloadedError(f"{MAX_WAITING:,} notifications wait to be sent")
        if not to:
            return
        self._waiting.append((to, is_published, text))
        if threading.get_ident() != self._serving_thread:
            self._waker.wake()

    def _turn(self) -> None:
        super()._turn()
        self._send_waiting()

    def _send_waiting(self) -> None:
        assert self._outbox is not None
        while self._waiting:
            to, is_published, text = self._waiting.popleft()
            for subscriber in to:
                if is_published and subscriber not in self._subscribers:
                    continue
                if not self._outbox.send([*subscriber.route, text]):
                    self.forget(subscriber)

    def _answer(self, route: Sequence[bytes], payload: bytes) -> bytes:
        self._asking = Subscriber(tuple(route))
        try:
            return super()._answer(route, payload)
        finally:
            self._asking = None
