"""berryMQ's functions, as a node serves them to peers."""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from ..bus import Bus, default_bus
from ..identifier import Identifier
from ..rpc import AttrHandler, Peer, context, method
from .bundle import checked_name, read_envelope
from .callback import Allowed, Callback, allowed_endpoint
from .delivery import deliver, keywords_of, positional_of
from .line import Line, Wire
from .mailbox import MAX_BYTES, MAX_MESSAGES, Mailbox
from .mailboxes import Mailboxes
from .parcel import Parcel
from .status import INVALID_TOKEN, OK, TIMEOUT
from .switchboard import Switchboard
from .token_table import MAX_TOKENS, Entry, TokenError, TokenTable

__all__ = ["TTL", "ExportedFunctions", "take_single"]

#: Seconds for which a connection may go unused: berryMQ's default.
TTL = 1000.0


class Served:
    """One connection as the side that serves it has it.

    Attributes:
        part: what ends with the connection: the queue of style 03, or the line to the peer in
            style 01.
        line: the line back to who sends messages with this token, in style 01.
        callback: the way by which a peer is called back that wants to be.
        takes_bundles: whether the peer is a node that numbers its messages.
        is_lost: whether it was told that the peer is gone.
        is_ended: whether its token has ended.
        watchers: set when the connection ends.
    """

    __slots__ = ("callback", "is_ended", "is_lost", "line", "part", "takes_bundles", "watchers")

    def __init__(self, part: Mailbox | Line | None, line: Line | None = None) -> None:
        self.part = part
        self.line = line
        self.callback: Callback | None = None
        self.takes_bundles = False
        self.is_lost = False
        self.is_ended = False
        self.watchers: set[asyncio.Event] = set()


class ExportedFunctions(AttrHandler):
    """berryMQ's seven functions, and two more for nodes: serve it with `rpc.start_server`.

    `Node` serves one itself. Everything but the answers documented here arrives at the caller as
    an exception: `ValueError` and `TypeError` for arguments that are not what they must be, local
    identifiers among them, and `OverloadedError` for a connection too many.

    Args:
        bus: where messages are published and come from; ``None`` for the default bus.
        queue_size: messages that a queue keeps at most. The oldest is dropped, counted and logged
            when one more comes.
        queue_bytes: bytes that they may take, packed; over it, the oldest are dropped as well.
        max_connections: how many connections there may be at a time.
        callback_allowed: where `interconnect` may call back: ``False``: to the caller's own
            address alone; ``True``: anywhere; or further hosts, such as ``{"10.0.0.7"}``.
        switchboard: carries messages between the bus and other nodes; ``None`` for one of its own.
        clock: tells the time in seconds, for tests.
    """

    def __init__(
        self,
        bus: Bus | None = None,
        *,
        queue_size: int = MAX_MESSAGES,
        queue_bytes: int = MAX_BYTES,
        max_connections: int = MAX_TOKENS,
        callback_allowed: Allowed = False,
        switchboard: Switchboard | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        _check_count("queue_size", queue_size)
        _check_count("queue_bytes", queue_bytes)
        _check_count("max_connections", max_connections)
        self._callback_allowed = callback_allowed
        if switchboard is None:
            switchboard = Switchboard((default_bus if bus is None else bus).gateway)
        self._switchboard = switchboard
        self._gateway = switchboard.gateway
        self._mailboxes = Mailboxes(self._gateway, self._switchboard.name, queue_size, queue_bytes)
        self._clock = clock
        self._table: TokenTable[Served] = TokenTable(self._free, max_connections)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        #: Of lines that have ended.
        self._dropped = 0

    # -- connecting ------------------------------------------------------------------------

    @method
    async def interconnect(
        self, addr: Any = None, token: Any = None, ttl: float = TTL, node: Any = None
    ) -> str:
        """Style 01: both sides carry all messages to each other.

        Args:
            addr: where the caller can be called back: an endpoint or (host, port). None: messages
                go to it over the connection of this call.
            token: the token that the caller proposes; None for one of this side's. It stands for
                the connection on both sides.
            ttl: seconds for which the connection may go unused.
            node: the caller's name, if it is a node that takes send_messages. To others, each
                message goes as send_message(token, identifier, args, kwargs).

        Returns:
            The token.
        """
        peer = context().peer
        name = None if node is None else checked_name(node)
        endpoint = None
        if addr is not None:
            endpoint = await allowed_endpoint(
                addr, peer.address, self._callback_allowed, peer.scheme
            )
        elif not peer.can_be_called:
            raise ValueError(
                "messages cannot go back to who posts: give the addr to call back, or come by "
                "WebSocket"
            )
        served = Served(None)
        served.takes_bundles = name is not None
        added = self._add(served, ttl, token)
        line = self._switchboard.line(name or peer.identity, brings=name is not None, node=name)
        served.part = served.line = line
        if endpoint is None:
            line.on_down = partial(self._went_down, served, line)
            _attach(served, added, peer)
        else:
            served.callback = Callback(endpoint, added, line, served.takes_bundles)
        return added

    @method
    def connect_oneway(self, ttl: float = TTL) -> str:
        """Style 02: the caller sends only. Returns the token of send_message.

        Args:
            ttl: seconds for which the connection may go unused.
        """
        return self._add(Served(None), ttl)

    @method
    def connect_via_queue(self, identifier: str, ttl: float = TTL, shared: bool = False) -> str:
        """Style 03: a queue of messages that the caller gets. Returns its token.

        Args:
            identifier: the messages to keep, such as ``"job:*"``.
            ttl: seconds for which the connection may go unused.
            shared: whether all who say so for this identifier have one queue, which gives each
                message to one of them. Otherwise each queue keeps all messages.
        """
        parsed = Identifier(identifier).require_exportable()
        mailbox = self._mailboxes.open(parsed, bool(shared))
        served = Served(mailbox)
        try:
            return self._add(served, ttl)
        except BaseException:
            self._mailboxes.leave(mailbox, served)
            raise

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
                self._tell_restored(entry.value)
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
                self._tell_lost(entry.value, peer)
                self._release(entry)

    # -- messages --------------------------------------------------------------------------

    @method
    def send_message(
        self, token: str, identifier: str, args: Any = (), kwargs: Any = None, envelope: Any = None
    ) -> str:
        """Publish a message here. Any connection's token will do.

        Args:
            token: from any of the functions that connect.
            identifier, args, kwargs: the message.
            envelope: of an interconnection, whose message it is: {"origin", "epoch", "seq"} and
                "reply_to"; without one it becomes this node's own.

        Returns:
            "ok", "invalid token" or "timeout".
        """
        try:
            served = self._table.use(token, self._clock())
        except TokenError as refused:
            return refused.status
        line = served.line
        if line is None:
            # Who only sends is no node, so its messages are this node's own.
            deliver(self._gateway, identifier, args, kwargs, None)
        else:
            take_single(self._switchboard, line, identifier, args, kwargs, envelope)
        return OK

    @method
    def send_messages(self, token: str, envelope: Any, messages: Any, frames: Any = ()) -> str:
        """Take messages of a node, which are to reach all others. For interconnected nodes.

        Args:
            token: of an interconnection.
            envelope: whose they are: {"origin", "epoch", "seq", "count"}.
            messages: bytes: an array in msgpack of [identifier, args[, kwargs[, reply_to]]].
            frames: the long byte strings that were taken out of it.

        Returns:
            "ok", "invalid token" or "timeout".
        """
        try:
            served = self._table.use(token, self._clock())
        except TokenError as refused:
            return refused.status
        if served.line is None or not served.takes_bundles:
            return INVALID_TOKEN
        self._switchboard.take(served.line, read_envelope(envelope, messages, frames))
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
            message was sent before and nobody said that it came, and with "dropped", a number,
            if the queue had to drop so many messages since the last that it gave.
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
            if block and seconds != 0:
                parcel = await mailbox.get(seconds, entry.value)
            else:
                parcel = mailbox.take()
        finally:
            self._release(entry)
        if parcel is not None:
            return self._hand_over(mailbox, parcel)
        return INVALID_TOKEN if entry.value.is_ended else TIMEOUT

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
                self._gateway.report(error, mailbox.message(parcel), self.get, "cannot send")
                return
            parcel.redelivered = parcel.redelivered or not unsent
            mailbox.put_back(parcel)

        call.on_delivery(delivered)
        args, kwargs = mailbox.arguments(parcel)
        answer: dict[str, Any] = {"id": parcel.id, "args": args, "kwargs": kwargs}
        if parcel.redelivered:
            answer["redelivered"] = True
        if parcel.dropped:
            answer["dropped"] = parcel.dropped
        return answer

    # -- the node's own --------------------------------------------------------------------

    def statistics(self) -> dict[str, int]:
        """Counts: connections, messages that wait, and messages that were dropped."""
        parts = [served.part for served in self._table.values()]
        lines = [part for part in parts if isinstance(part, Line)]
        return {
            "connections": len(self._table),
            "messages_waiting": self._mailboxes.waiting + sum(map(len, lines)),
            "messages_dropped": self._mailboxes.dropped
            + self._dropped
            + sum(line.dropped for line in lines),
        }

    def expect(self, line: Line, token: str, ttl: float) -> None:
        """Let a peer that calls back send messages with a token.

        Args:
            line: what carries messages to it.
        """
        served = Served(None, line)
        served.takes_bundles = True
        self._add(served, ttl, token)

    def keep(self, token: str) -> None:
        """Use a connection, so that its time to live begins anew."""
        with contextlib.suppress(TokenError):
            self._table.use(token, self._clock())

    def close(self) -> None:
        """End all connections."""
        self._table.clear()
        self._switchboard.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._timer_at = math.inf

    def _tell_restored(self, served: Served) -> None:
        if served.is_lost and isinstance(served.part, Line):
            served.is_lost = False
            self._switchboard.tell("restored", endpoint=served.part.peer, style="01")

    def _tell_lost(self, served: Served, peer: Peer) -> None:
        """This peer is gone, or does not want messages any more."""
        line = served.part
        if isinstance(line, Line) and line.cut(peer):
            self._went_down(served, line)

    def _went_down(self, served: Served, line: Line) -> None:
        if not served.is_lost:
            served.is_lost = True
            reason = "the peer is gone"
            self._switchboard.tell("lost", endpoint=line.peer, style="01", reason=reason)

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
        served.is_ended = True
        part = served.part
        if isinstance(part, Mailbox):
            self._mailboxes.leave(part, served)
        elif part is not None:
            part.close()
            self._dropped += part.dropped
        if served.callback is not None:
            served.callback.close()
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


def take_single(
    switchboard: Switchboard, line: Line, identifier: Any, args: Any, kwargs: Any, envelope: Any
) -> None:
    """Take a message that came by a line for itself.

    Raises:
        TypeError, ValueError: a part is not what it must be.
        ProtocolError: it cannot be passed on.
    """
    positional, keywords = positional_of(args), keywords_of(kwargs)
    if envelope is None:
        switchboard.receive_single(line, identifier, positional, keywords)
    else:
        switchboard.receive_enclosed(line, identifier, positional, keywords, envelope)


def _attach(served: Served, token: str, peer: Peer) -> None:
    """Let an interconnection's messages go to this peer."""
    if isinstance(served.part, Line) and served.callback is None:
        served.part.open(peer, Wire.to_peer(peer, token, served.takes_bundles))


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
