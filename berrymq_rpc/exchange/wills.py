"""Wills: what nodes publish for each other when one is lost.

Each node tells its peers who it is when they are connected with, and leaves its will with them.
When one has lost all its connections with a node, and that is not back in time, it asks all other
nodes whether they reach it. If none does, it publishes the will, as a message of the lost node.

Several nodes may do so. A will is taken once in each round: those of one node that are published
before it is heard of again.
"""

import asyncio
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from ..errors import (
    ConnectionLostError,
    NotFoundError,
    ProtocolError,
    RPCTimeoutError,
    ServiceClosedError,
)
from ..identifier import Identifier
from ..jsonrpc.items import RPCError
from ..runtime.log import Log
from .batch import Batch, Presence, PresenceBatch, Source, parse_batch
from .link import Link
from .policy import Policy
from .reorder import MAX_SOURCES
from .router import Router
from .send_buffer import SendBuffer
from .will import MAX_WILL_BYTES, OwnWill
from .will_table import HeldWill, WillTable

__all__ = ["Wills", "introduction_of"]

logger = Log("berrymq_rpc.exchange")
audit = Log("berrymq_rpc.security")

#: What was said about nodes, to recognize what comes twice.
MAX_SAID = 10_000

#: Seconds that a will waits for messages of its node that are held until others have come, and
#: the pause between two looks.
PATIENCE = 5.0
PAUSE = 0.05

#: JSON-RPC's code of a function that is not there.
METHOD_NOT_FOUND = -32601


class Wills:
    """The wills that a node holds, and its own.

    Args:
        router: passes on what is said about nodes.
        policy: what each user may send, by its will too.
        deny: called with a user and an identifier that it may not send.
        own: what this node says about itself; ``None``: it has no will.
        max_bytes: bytes of one will.

    Attributes:
        published: how many wills this node has published.
        table: those that it holds.
    """

    def __init__(
        self,
        router: Router,
        policy: Policy,
        deny: Callable[[str | None, str], object],
        own: OwnWill | None = None,
        max_bytes: int = MAX_WILL_BYTES,
    ) -> None:
        self.published = 0
        #: Called with the identifier of each will that was published here.
        self.on_delivered: Callable[[str], object] = lambda text: None
        self.table = WillTable()
        self.own = OwnWill(router.source, router.codec) if own is None else own
        self._router = router
        self._policy = policy
        self._deny = deny
        self._max_bytes = max_bytes
        self._next = 1
        self._said: dict[tuple[Source, int], None] = {}
        #: By ids: the first round of which no will was taken.
        self._rounds: dict[str, int] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        #: Wills that wait for messages of their nodes.
        self._waiting: set[asyncio.TimerHandle] = set()
        self._cut_off: dict[Hashable, Callable[[], bool]] = {}
        self._is_closed = False

    # -- peers -----------------------------------------------------------------------------

    def introduction(self) -> PresenceBatch:
        """What a peer is told about this node."""
        return self.own.introduction(self.number())

    def hold(
        self,
        way: Hashable,
        batch: PresenceBatch,
        user: str | None = None,
        account: Hashable = None,
        *,
        is_reached: bool = False,
    ) -> None:
        """Take what a peer has told about itself, and hold its will if it has one.

        Args:
            way: the connection with it.
            batch: what it has told.
            user: who it has proved to be.
            account: whose bytes the will takes.
            is_reached: whether nothing else will say that the connection is there. Otherwise that
                is awaited, so that a peer is noticed which is lost at once.

        Raises:
            TypeError, ValueError: it is malformed.
            ProtocolError: the will is.
            OverloadedError: too many wills are held.
        """
        presence = batch.presence
        assert presence is not None
        if self._is_closed:
            raise ServiceClosedError("the node is closing")
        self.table.restarted(presence.node, user)
        taken = self._rounds.get(presence.id, 0)
        if not batch.data:
            self.table.release(way)
        else:
            held = HeldWill(batch, self.identifier_of(batch), user, account)
            held = self.table.hold(way, held, time.monotonic())
            held.round = max(held.round, taken)
            if is_reached:
                self.reached(way)
            self._set_timer()
        if presence.round < taken:
            # It has to know, and so have those that hold its will.
            self._say("here", presence._replace(round=taken, delay=0.0), is_held=True)

    def reached(self, way: Hashable) -> None:
        """Note that a connection is there, or is there again."""
        held = self.table.reached(way)
        self._set_timer()
        if held is not None:
            held.round = max(held.round, self._rounds.get(held.id, 0))
            self._say("here", Presence("here", held.source, held.id, held.round), is_held=True)

    def lost(self, way: Hashable) -> None:
        """Note that a connection does not reach its node any more."""
        self.table.lost(way, time.monotonic())
        self._set_timer()

    def release(self, way: Hashable) -> None:
        """Note that a connection was closed in good order."""
        self.table.release(way)

    def end(self, way: Hashable) -> None:
        """Note that a connection has ended without a word."""
        self.table.end(way, time.monotonic())
        self._set_timer()

    async def introduce(
        self,
        call: Callable[..., Any],
        token: str,
        link: Link | None = None,
        user: str | None = None,
        *,
        in_text: bool = False,
    ) -> None:
        """Tell a peer about this node, and hold the peer's will.

        A peer that knows nothing of wills is left alone.

        Args:
            call: calls one of the peer's functions by name.
            token: of the connection.
            link: in style 01, the link to the peer.
            user: who the peer has to be.
            in_text: whether bytes cannot travel.

        Raises:
            ConnectionLostError, ServiceClosedError, RPCTimeoutError: it has not answered.
        """
        mine = self.introduction()
        try:
            parts = mine.in_parts(in_text=in_text)
            answer = await call("introduce", token, mine.envelope(), *parts)
            if link is None:
                return
            if not isinstance(answer, Mapping):
                raise ProtocolError(f"a node tells about itself, and not {answer!r:.100}")
            theirs = parse_batch(
                answer.get("envelope"), answer.get("messages", b""), answer.get("frames", ())
            )
            link.send_buffer.takes_presence = True
            self.hold(link, introduction_of(theirs), user, link)
        except (ConnectionLostError, ServiceClosedError, RPCTimeoutError):
            raise
        except Exception as error:
            if link is not None and _is_unknown(error):
                link.send_buffer.takes_presence = False
            if self.own.is_there or not _is_unknown(error):
                logger.warning("the peer takes no will: %.200s", error)

    # -- what others say -------------------------------------------------------------------

    def receive(self, send_buffer: SendBuffer, batch: Batch) -> None:
        """Take what another node says about one.

        Args:
            send_buffer: of the link by which it came.

        Raises:
            ProtocolError: it is malformed.
        """
        presence = batch.presence
        assert presence is not None
        if presence.kind == "will":
            self.identifier_of(batch)
            self._take(batch, send_buffer)
            return
        if presence.kind == "node" or batch.source == self._router.source:
            return
        key = batch.source, batch.first
        if key in self._said:
            return
        self._said[key] = None
        if len(self._said) > MAX_SAID:
            del self._said[next(iter(self._said))]
        self._router.put_presence(batch, send_buffer)
        if presence.kind == "lost":
            self._answer(presence)
        elif presence.kind == "bye":
            if (held := self.table.get(presence.id)) is not None:
                self.table.remove(held)
        else:
            self._found(presence)

    def _answer(self, asked: Presence) -> None:
        """Say whether this node is the one that was asked for, or reaches it."""
        own = self._router.source
        if asked.id == self.own.id:
            self._say("here", asked._replace(round=self.own.round))
        elif asked.node[0] == own[0] and asked.node[1] < own[1]:
            # It was restarted since.
            self._say("here", asked._replace(node=own))
        elif (held := self.table.held_for(asked.node)) is not None:
            about = Presence("here", held.source, asked.id, held.round)
            self._say("here", about, is_held=True)

    def heard(self, presence: Presence) -> None:
        """Note the round of a node, as somebody has told it who knows."""
        if presence.id == self.own.id:
            self.own.round = max(self.own.round, presence.round)
        elif (held := self.table.get(presence.id)) is not None:
            self._set_round(presence.id, presence.round)
            held.round = max(held.round, presence.round)

    def round_of(self, id: str) -> int:
        """The first round of a node of which no will was taken here."""
        held = self.table.get(id)
        return max(self._rounds.get(id, 0), 0 if held is None else held.round)

    def _found(self, presence: Presence) -> None:
        """Take it that somebody reaches a node."""
        self.heard(presence)
        held = self.table.get(presence.id)
        if held is None or presence.node[1] > held.source[1]:
            if held is not None:
                # Another run of it is there.
                self.table.remove(held)
            return
        self.table.found(held, time.monotonic(), is_held=presence.is_held)
        self._set_timer()

    def identifier_of(self, batch: Batch) -> str:
        """The identifier of a will.

        Raises:
            ProtocolError: it is malformed, or too large.
        """
        if (size := len(batch.data) + sum(map(len, batch.frames))) > self._max_bytes:
            raise ProtocolError(
                f"a will has {size:,} bytes, and may have {self._max_bytes:,}: see will_bytes"
            )
        (message,) = self._router.unpack(batch)
        if len(message) > 3:
            raise ProtocolError("a will asks for no answer")
        try:
            return str(Identifier(message[0]).require_exportable())
        except ValueError as error:
            raise ProtocolError(str(error)) from None

    # -- a will ----------------------------------------------------------------------------

    def _take(self, batch: Batch, send_buffer: SendBuffer | None) -> None:
        """Take a will that was published: the first one of a round."""
        presence = batch.presence
        assert presence is not None
        id, number = presence.id, presence.round
        if id == self.own.id:
            self.own.round = max(self.own.round, number + 1)
            self._say("here", presence._replace(round=self.own.round))
            return
        if number < self._rounds.get(id, 0):
            return
        self._set_round(id, number + 1)
        held = self.table.get(id)
        if held is not None:
            if held.is_reached:
                # It was lost elsewhere, and is there.
                held.round = number + 1
                self._say("here", presence._replace(round=number + 1), is_held=True)
                return
            self.table.published(held)
        self._deliver(batch, send_buffer, time.monotonic() + PATIENCE)

    def _deliver(self, batch: Batch, send_buffer: SendBuffer | None, deadline: float) -> None:
        """Hand a will to the bus and to other nodes, after the last messages of its node."""
        router = self._router
        is_next = not router.is_behind and not router.reorder.is_holding(batch.source)
        if is_next or self._loop is None or time.monotonic() >= deadline:
            router.deliver_will(send_buffer, batch)
            self.on_delivered(self.identifier_of(batch))
            return
        timer: asyncio.TimerHandle

        def look_again() -> None:
            self._waiting.discard(timer)
            self._deliver(batch, send_buffer, deadline)

        timer = self._loop.call_later(PAUSE, look_again)
        self._waiting.add(timer)

    def _publish(self, held: HeldWill) -> None:
        grants = self._policy.sending(held.user)
        if grants is not None and not grants.covers_text(held.identifier):
            self.table.published(held)
            self._deny(held.user, held.identifier)
            return
        name = held.source[0]
        logger.warning("node %s is lost: its will is published, %.200s", name, held.identifier)
        self.published += 1
        presence = Presence("will", held.source, held.id, held.round)
        # It takes no number: if the node lives after all, its next message has that.
        number = self._router.reorder.taken(held.source) + 1
        self._take(PresenceBatch(presence, held.source, number, held.data, held.frames), None)

    # --------------------------------------------------------------------------------------

    def set_cut_off(self, account: Hashable, is_cut_off: Callable[[], bool]) -> None:
        """Let no time run for the wills of an account while it is this node that is cut off."""
        self._cut_off[account] = is_cut_off

    def start(self) -> None:
        """Begin to work, on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._is_closed = False

    def close(self) -> None:
        """Say that this node closes, and hold no wills any more."""
        if self._loop is None or self._is_closed:
            return
        self._is_closed = True
        self._say("bye", Presence("bye", self._router.source, self.own.id, self.own.round))
        self.forget()

    def forget(self) -> None:
        """Do nothing any more, as in the child of a fork."""
        self.table.clear()
        for timer in (*self._waiting, *([] if self._timer is None else [self._timer])):
            timer.cancel()
        self._waiting.clear()
        self._timer = None

    def _say(self, kind: str, about: Presence, *, is_held: bool = False) -> None:
        """Tell all nodes something about one."""
        presence = about._replace(kind=kind, delay=0.0, is_held=is_held)
        if presence.id == self.own.id:
            presence = presence._replace(round=self.own.round)
        batch = PresenceBatch(presence, self._router.source, self.number())
        self._router.put_presence(batch)

    def number(self) -> int:
        """The number of what this node says next about a node."""
        number = self._next
        self._next += 1
        return number

    def _set_round(self, id: str, number: int) -> None:
        if number <= self._rounds.get(id, 0):
            return
        self._rounds.pop(id, None)
        if len(self._rounds) >= MAX_SOURCES:
            del self._rounds[next(iter(self._rounds))]
        self._rounds[id] = number

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        when = self.table.next_due()
        if when is not None and self._loop is not None and not self._is_closed:
            self._timer = self._loop.call_later(max(0.0, when - time.monotonic()), self._poll)

    def _poll(self) -> None:
        self._timer = None
        now = time.monotonic()
        for held, is_over in self.table.poll(now):
            if (is_cut_off := self._cut_off.get(held.account)) is not None and is_cut_off():
                self.table.restart(held, now)
            elif is_over:
                self._publish(held)
            else:
                self._say("lost", Presence("lost", held.source, held.id, held.round))
        self._set_timer()


def introduction_of(batch: Batch) -> PresenceBatch:
    """Check what a node says about itself.

    Raises:
        TypeError, ValueError: it is malformed, or about another one.
    """
    presence = batch.presence
    if (
        not isinstance(batch, PresenceBatch)
        or presence is None
        or presence.kind != "node"
        or presence.node != batch.source
    ):
        raise ValueError("a node tells about itself")
    return batch


def _is_unknown(error: Exception) -> bool:
    """Whether a peer has no such function."""
    return isinstance(error, NotFoundError) or (
        isinstance(error, RPCError) and error.code == METHOD_NOT_FOUND
    )
