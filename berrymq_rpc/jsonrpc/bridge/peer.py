"""One peer of a listener: its texts in, the texts for it out, whatever carries them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ...common.tally import Tally
from ...errors import Error, OverloadedError, ServiceClosedError
from ...rpc.method import Method
from ...rpc.wire.codec import Codec
from ...rpc.wire.exception_codec import describe as describe_failure
from ..error_objects import to_error
from ..message import IncomingMessage, IncomingRequest
from .subscription import Subscription
from .target import Target

__all__ = ["Desk", "OwnMethod", "Peer"]

logger = logging.getLogger("berrymq_rpc.jsonrpc.bridge")

#: Seconds between two looks whether a peer without an `Outbox` has read what waits for it.
CONGESTION_PAUSE = 0.01

_codec = Codec()


@dataclass(frozen=True, slots=True)
class OwnMethod:
    """A method of the bridge's own, which is called with the peer before the other arguments.

    Args:
        method: what it is to those who call it.
        function: what to call; its result may be a coroutine.
        needs_push: whether it is of use only to peers that can be sent something unasked.
    """

    method: Method
    function: Callable[..., Any]
    needs_push: bool

    @classmethod
    def of(
        cls, name: str, function: Callable[..., Any], *, needs_push: bool = False
    ) -> "OwnMethod":
        """The method of that name, of a function with the peer as its first argument."""
        others = partial(function, None)
        others.__doc__ = function.__doc__
        return cls(Method.of(name, others), function, needs_push)


class Desk:
    """What the peers of all listeners share.

    Args:
        target: serves their calls.
        own: the bridge's own methods by name; they come before the target's.
        max_size: bytes of a text from a peer, and of the text that answers it.
        max_depth: levels of arrays and objects inside one another.
        max_batch: requests in a batch.
        max_peers: peers at one time, of all listeners.
    """

    def __init__(
        self,
        target: Target,
        own: dict[str, OwnMethod],
        *,
        max_size: int,
        max_depth: int,
        max_batch: int,
        max_peers: int,
    ) -> None:
        self.target = target
        self.own = own
        self.max_size = max_size
        self.max_depth = max_depth
        self.max_batch = max_batch
        self.max_peers = max_peers
        self.peers: set[Peer] = set()
        #: What is counted for `Bridge.statistics`.
        self.served = 0
        self.malformed = Tally()
        self.refused = Tally()
        self.dropped = 0

    def is_full(self) -> bool:
        """Whether a further peer is turned away; it is counted then."""
        if len(self.peers) < self.max_peers:
            return False
        if self.refused.add():
            logger.warning(
                "max_peers=%d is reached: %d turned away so far",
                self.max_peers,
                self.refused.count,
            )
        return True

    def turn_away(self, text: bytes, done: Callable[[bytes], object]) -> None:
        """Answer what a peer too many asks, and keep nothing of it."""
        inquiry = IncomingMessage(text, max_size=self.max_size, max_depth=self.max_depth, done=done)
        error = OverloadedError(f"max_peers={self.max_peers:,} is reached")
        for asked in inquiry.calls:
            if not asked.is_notification:
                asked.error(to_error(describe_failure(error, _codec)))

    @property
    def in_progress(self) -> int:
        """Calls that are not answered yet."""
        return sum(peer.in_progress for peer in self.peers)


class Peer:
    """One peer.

    Args:
        desk: what it has come to.
        address: the IP address that it is at; an empty text for this host, ``None`` if unknown.
        scheme: how it may be called back where it gives ``(host, port)``: ``"tcp"`` or ``"http"``.
        send: sends it a text that it has not asked for, and says whether it is there; ``None`` for
            a peer that can only be answered.
        queued: how many bytes wait to be sent to it.
        room: waits until there is room for more of them.
    """

    def __init__(
        self,
        desk: Desk,
        *,
        address: str | None,
        scheme: str = "tcp",
        send: Callable[[bytes], bool] | None = None,
        queued: Callable[[], int] | None = None,
        room: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.desk = desk
        self.address = address
        self.scheme = scheme
        self.subscriptions: dict[str, Subscription] = {}
        self._send = send
        self._queued = queued
        self._room = room
        self._link = desk.target.link(self)
        self._tasks: dict[asyncio.Future[Any], IncomingRequest] = {}
        self._is_lost = False
        desk.peers.add(self)

    @property
    def can_be_pushed(self) -> bool:
        """Whether it can be sent what it has not asked for."""
        return self._send is not None

    @property
    def in_progress(self) -> int:
        """Calls of its that are not answered yet."""
        return self._link.in_progress + len(self._tasks)

    # -- what arrives ----------------------------------------------------------------------

    def receive(self, text: bytes, done: Callable[[bytes], object]) -> IncomingMessage:
        """Take one text. Never raises for what is in it.

        Args:
            text: as it came.
            done: is given the text that answers it; not called when there is nothing to answer.

        Raises:
            KeyboardInterrupt: a handler raised it; it was answered.
        """
        desk = self.desk
        inquiry = IncomingMessage(
            text,
            max_size=desk.max_size,
            max_depth=desk.max_depth,
            max_batch=desk.max_batch,
            done=done,
        )
        desk.malformed.add(inquiry.malformed)
        if inquiry.responses:
            self._link.take(inquiry.responses)
        calls = inquiry.calls
        if calls:
            desk.served += len(calls)
            own = desk.own
            theirs = []
            for asked in calls:
                method = own.get(asked.method)
                if method is None:
                    theirs.append(asked)
                else:
                    self._serve_own(method, asked)
            if theirs:
                self._link.serve(theirs, len(text))
        return inquiry

    def _serve_own(self, method: OwnMethod, asked: IncomingRequest) -> None:
        try:
            method.method.signature.check(asked.args, asked.kwargs)
            if method.needs_push and not self.can_be_pushed:
                raise Error(
                    f"{asked.method} is for peers that can be sent messages: use /ws, TCP or ZeroMQ"
                )
            result = method.function(self, *asked.args, **asked.kwargs)
            if not asyncio.iscoroutine(result):
                self._answer(asked, result)
                return
        except Exception as error:
            self._fail(asked, error)
            return
        task = asyncio.ensure_future(result)
        self._tasks[task] = asked
        task.add_done_callback(self._own_ended)

    def _own_ended(self, task: "asyncio.Future[Any]") -> None:
        asked = self._tasks.pop(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._answer(asked, task.result())
        elif isinstance(error, Exception):
            self._fail(asked, error)

    def _answer(self, asked: IncomingRequest, result: Any) -> None:
        if asked.is_notification:
            return
        try:
            asked.result(result)
        except Exception as error:
            self._fail(asked, error)

    def _fail(self, asked: IncomingRequest, error: Exception) -> None:
        if asked.is_notification:
            logger.warning("notification %.100r failed: %s", asked.method, error)
        else:
            asked.error(to_error(describe_failure(error, _codec)))

    # -- what is sent ----------------------------------------------------------------------

    def push(self, text: bytes) -> bool:
        """Send it a text that it has not asked for; whether it is there."""
        return self._send is not None and not self._is_lost and self._send(text)

    def queued_bytes(self) -> int:
        """Bytes that wait to be sent to it."""
        return 0 if self._queued is None else self._queued()

    async def room(self) -> None:
        """Wait until there is room for more."""
        if self._room is not None:
            await self._room()

    # -- subscriptions ---------------------------------------------------------------------

    def subscribe(self, subscription: Subscription, limit: int) -> None:
        """Keep a subscription until it or the peer ends.

        Raises:
            OverloadedError: it has `limit` of them.
            ServiceClosedError: it has gone.
        """
        if self._is_lost:
            raise ServiceClosedError("the connection was closed")
        if len(self.subscriptions) >= limit:
            raise OverloadedError(f"{limit} subscriptions are as many as one peer may have")
        self.subscriptions[subscription.id] = subscription
        subscription.start(self)

    # -- the end ---------------------------------------------------------------------------

    def stop_waiting(self) -> None:
        """End what waits for something that need not come, as this side closes."""
        self._link.stop_waiting()

    def lost(self, reason: str) -> None:
        """It is gone: stop what runs for it. Can be called again."""
        if self._is_lost:
            return
        self._is_lost = True
        self.desk.peers.discard(self)
        for subscription in self.subscriptions.values():
            subscription.close()
            self.desk.dropped += subscription.dropped
        self.subscriptions.clear()
        for task in list(self._tasks):
            task.cancel()
        self._link.close(reason)

    def left(self) -> None:
        """It has gone: stop what it waits for, and let its notifications end by themselves."""
        self._link.cancel_calls()
        self._settle()

    def _settle(self) -> None:
        if self.in_progress and not self._is_lost:
            asyncio.get_running_loop().call_later(CONGESTION_PAUSE, self._settle)
        else:
            self.lost("the connection was closed")
