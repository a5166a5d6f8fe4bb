"""berryMQ's functions, as a node serves them to peers."""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from ..bus import Bus, Message, default_bus
from ..rpc import AttrHandler, Peer, context, method
from .delivery import deliver, travelling
from .forwarding import Forwarding
from .mailbox import MAXIMUM_MESSAGES, Mailbox, Parcel
from .status import INVALID_TOKEN, OK, TIMEOUT
from .token_table import MAXIMUM_TOKENS, Entry, TokenError, TokenTable

__all__ = ["TTL", "ExportedFunctions"]

#: Seconds for which a connection may go unused: berryMQ's default.
TTL = 1000.0


class Served:
    """One connection as the side that serves it has it.

    Attributes:
        part: the queue of style 03, or what carries messages to the peer in style 01.
        watchers: set when the connection ends.
    """

    __slots__ = ("part", "watchers")

    def __init__(self, part: Mailbox | Forwarding | None) -> None:
        self.part = part
        self.watchers: set[asyncio.Event] = set()


class ExportedFunctions(AttrHandler):
    """berryMQ's seven functions, and an eighth for nodes: serve it with `rpc.start_server`.

    `Node` serves one itself. Everything but the answers documented here arrives at the caller as
    an exception: `ValueError` and `TypeError` for arguments that are not what they must be, local
    identifiers among them, and `OverloadedError` for a connection too many.

    Args:
        bus: where messages are published and come from; ``None`` for the default bus.
        queue_size: messages that a queue keeps at most. The oldest is dropped, counted and logged
            when one more comes.
        max_connections: how many connections there may be at a time.
        clock: tells the time in seconds, for tests.
    """

    def __init__(
        self,
        bus: Bus | None = None,
        *,
        queue_size: int = MAXIMUM_MESSAGES,
        max_connections: int = MAXIMUM_TOKENS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        _check_count("queue_size", queue_size)
        _check_count("max_connections", max_connections)
        self._bus = default_bus if bus is None else bus
        self._queue_size = queue_size
        self._clock = clock
        self._table: TokenTable[Served] = TokenTable(self._free, max_connections)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        #: Of connections that have ended.
        self._dropped = 0

    # -- connecting ------------------------------------------------------------------------

    @method
    def interconnect(self, addr: Any = None, token: Any = None, ttl: float = TTL) -> str:
        """Style 01: both sides carry all messages of their own to each other.

        Args:
            addr: None: messages go to the caller over the connection of this call, as
                notifications of send_message(token, identifier, args, kwargs).
            token: the token that the caller proposes; None for one of this side's.
            ttl: seconds for which the connection may go unused.

        Returns:
            The token.
        """
        if addr is not None:
            raise ValueError(
                "addr must be None: this node carries messages to the caller over the caller's "
                "own connection, and does not call back"
            )
        peer = context().peer
        served = Served(None)
        added = self._add(served, ttl, token)
        served.part = Forwarding(self._bus, peer.identity)
        _attach(served, added, peer)
        return added

    @method
    def connect_oneway(self, ttl: float = TTL) -> str:
        """Style 02: the caller sends only. Returns the token of send_message.

        Args:
            ttl: seconds for which the connection may go unused.
        """
        return self._add(Served(None), ttl)

    @method
    def connect_via_queue(self, identifier: str, ttl: float = TTL) -> str:
        """Style 03: a queue of messages that the caller gets. Returns its token.

        Args:
            identifier: the messages to keep, such as ``"job:*"``.
            ttl: seconds for which the connection may go unused.
        """
        parsed = travelling(identifier)
        mailbox = Mailbox(parsed, self._queue_size)
        token = self._add(Served(mailbox), ttl)
        # What is local stays here, whatever wildcards the queue has.
        self._bus.regist_method(parsed, mailbox.put, _may_leave)
        return token

    @method
    def close_connection(self, token: str) -> str:
        """End a connection. Returns "ok" or "invalid token"."""
        try:
            self._table.remove(token, self._clock())
        except TokenError:
            return INVALID_TOKEN
        return OK

    # A stream that waits: so a server that closes ends it at once.
    @method(waits=True)
    async def keep_alive(self, tokens: Any) -> AsyncIterator[dict[str, str]]:
        """Use connections for as long as this stream runs.

        The first item tells of each token whether it is valid: {token: "ok"}, or the status. An
        item follows for each that ends. The stream ends when all have. What interconnections
        carry goes to the caller of this.
        """
        if not isinstance(tokens, list | tuple) or not all(isinstance(t, str) for t in tokens):
            raise TypeError("tokens is an array of text")
        peer = context().peer
        ended = asyncio.Event()
        held: list[Entry[Served]] = []
        try:
            statuses = {}
            for token in dict.fromkeys(tokens):
                try:
                    entry = self._hold(token)
                except TokenError as refused:
                    statuses[token] = refused.status
                    continue
                statuses[token] = OK
                held.append(entry)
                entry.value.watchers.add(ended)
                _attach(entry.value, token, peer)
            yield statuses
            while held:
                await ended.wait()
                ended.clear()
                gone = [entry for entry in held if ended not in entry.value.watchers]
                held = [entry for entry in held if ended in entry.value.watchers]
                if gone:
                    yield {entry.token: INVALID_TOKEN for entry in gone}
        finally:
            for entry in held:
                entry.value.watchers.discard(ended)
                if isinstance(entry.value.part, Forwarding):
                    entry.value.part.cut(peer)
                self._release(entry)

    # -- messages --------------------------------------------------------------------------

    @method
    def send_message(self, token: str, identifier: str, args: Any = (), kwargs: Any = None) -> str:
        """Publish a message here. Any connection's token will do.

        Returns:
            "ok", "invalid token" or "timeout".
        """
        try:
            served = self._table.use(token, self._clock())
        except TokenError as refused:
            return refused.status
        # A caller that only sends is no node, so its messages are this node's own.
        origin = served.part.name if isinstance(served.part, Forwarding) else None
        deliver(self._bus, identifier, args, kwargs, origin)
        return OK

    @method(waits=True)
    async def get(self, token: str, block: bool = True, timeout: float | None = None) -> Any:
        """Take the oldest message of a queue.

        Args:
            token: from connect_via_queue.
            block: whether to wait for one.
            timeout: seconds to wait; None for as long as it takes.

        Returns:
            {"id", "args", "kwargs"}, "invalid token" or "timeout"; with "redelivered" if the
            message was sent before and nobody said that it came.
        """
        seconds = _checked_timeout(timeout)
        try:
            entry = self._hold(token)
        except TokenError as refused:
            return refused.status
        try:
            mailbox = entry.value.part
            if not isinstance(mailbox, Mailbox):
                return INVALID_TOKEN
            parcel = await mailbox.get(seconds) if block and seconds != 0 else mailbox.take()
        finally:
            self._release(entry)
        if parcel is not None:
            return self._hand_over(mailbox, parcel)
        return INVALID_TOKEN if mailbox.is_closed else TIMEOUT

    @method
    async def get_nowait(self, token: str) -> Any:
        """Take the oldest message of a queue: get(token, False)."""
        return await self.get(token, False)

    def _hand_over(self, mailbox: Mailbox, parcel: Parcel) -> dict[str, Any]:
        """The answer that has a message; it goes back if the caller does not receive it."""
        call = context()
        server = asyncio.current_task()

        def delivered(arrived: bool) -> None:
            if arrived:
                return
            # Told in the very step of the task that answers, the answer has never left.
            unsent = asyncio.current_task() is server
            if unsent and not call.cancelled:
                # It cannot be packed. Put back, it would be in everybody's way for ever.
                mailbox.discard(parcel)
                error = ValueError("the arguments cannot travel")
                self._bus.report(error, parcel.message, self.get, "cannot send")
                return
            parcel.redelivered = parcel.redelivered or not unsent
            mailbox.put_back(parcel)

        call.on_delivery(delivered)
        message = parcel.message
        answer: dict[str, Any] = {"id": message.id, "args": message.args, "kwargs": message.kwargs}
        if parcel.redelivered:
            answer["redelivered"] = True
        return answer

    # -- the node's own --------------------------------------------------------------------

    def statistics(self) -> dict[str, int]:
        """Counts: connections, messages that wait, and messages that were dropped."""
        parts = [served.part for served in self._table.values() if served.part is not None]
        return {
            "connections": len(self._table),
            "messages_waiting": sum(map(len, parts)),
            "messages_dropped": self._dropped + sum(map(_lost_by, parts)),
        }

    def close(self) -> None:
        """End all connections."""
        self._table.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._timer_at = math.inf

    # -- tokens ----------------------------------------------------------------------------

    def _add(self, served: Served, ttl: float, token: Any = None) -> str:
        added = self._table.add(served, ttl, self._clock(), token)
        self._set_timer()
        return added

    def _hold(self, token: Any) -> Entry[Served]:
        return self._table.hold(token, self._clock())

    def _release(self, entry: Entry[Served]) -> None:
        self._table.release(entry, self._clock())
        self._set_timer()

    def _free(self, served: Served) -> None:
        """Called by the table for a connection whose token has ended."""
        part = served.part
        if isinstance(part, Mailbox):
            self._bus.unfollow(part.identifier, part.put)
        if part is not None:
            part.close()
            self._dropped += _lost_by(part)
        watchers, served.watchers = served.watchers, set()
        for watcher in watchers:
            watcher.set()

    def _set_timer(self) -> None:
        when = self._table.next_expiry()
        if when is None or when >= self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = when
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(0.0, when - self._clock()), self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._timer_at = math.inf
        self._table.expire(self._clock())
        self._set_timer()


def _attach(served: Served, token: str, peer: Peer) -> None:
    """Let an interconnection's messages go to this peer."""
    if isinstance(served.part, Forwarding):
        served.part.open(peer, partial(peer.notify.send_message, token))


def _lost_by(part: Mailbox | Forwarding) -> int:
    return part.dropped if isinstance(part, Mailbox) else part.dropped + part.refused


def _may_leave(message: Message) -> bool:
    return not message.name.startswith("_")


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number above 0, not {value!r}")


def _checked_timeout(timeout: Any) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, int | float) and not isinstance(timeout, bool):
        with contextlib.suppress(OverflowError):
            if float(timeout) >= 0:
                return float(timeout)
    raise ValueError("timeout is a number of seconds from 0 on, or None")
