"""berryMQ's functions, as a node serves them to peers."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Hashable
from dataclasses import replace
from functools import partial
from typing import Any

from ..bus import Bus, default_bus
from ..bus.retained_store import Share
from ..endpoint import host_key
from ..errors import OverloadedError
from ..identifier import Identifier
from ..rpc import AttrHandler, Peer, context, method
from ..rpc.inbound_call import current
from ..rpc.options import ClientOptions
from ..rpc.validation import check_count
from ..runtime.meter import Meter
from .batch import checked_name, parse_batch
from .consumer import MAX_UNACKNOWLEDGED, Consumer, checked_ack_wait, checked_delay, checked_tries
from .consumers import Consumers
from .dial_back import Allowed, DialBack, Target, allowed_target
from .leases import MAX_LEASES, MAX_TTL, Lease, LeaseTable, TokenError, checked_ttl
from .link import Link
from .mesh import Mesh
from .quota import PEER_SHARE, share_of
from .remote_queue import MAX_BYTES, MAX_MESSAGES, RemoteQueue
from .remote_queues import RemoteQueues
from .served_connections import ServedConnection, ServedConnections
from .status import INVALID_TOKEN, OK, TIMEOUT, UNKNOWN_NUMBER
from .validation import keywords_of, positional_of
from .wills import introduction_of

__all__ = ["MAX_PEER_LINKS", "TTL", "ExportedFunctions"]

#: Interconnections of one peer. One needs one, and several nodes may share a user or an address;
#: with a thousand, each message took a quarter of a second.
MAX_PEER_LINKS = 100

#: Seconds for which a connection may go unused: berryMQ's default.
TTL = 1000.0


class ExportedFunctions(AttrHandler):
    """berryMQ's seven functions, and eight more: serve it with `rpc.start_server`.

    `Node` serves one itself. Everything but the answers documented here reaches the caller as an
    exception: `ValueError` and `TypeError` for invalid arguments, local identifiers among them, and
    `OverloadedError` for a connection over `max_connections`.

    Args:
        bus: where messages are published and come from; ``None`` for the default bus.
        queue_size: messages that a queue keeps at most. The oldest is dropped, counted and logged
            when one more comes.
        queue_bytes: bytes that they may take, packed; over it, the oldest are dropped as well.
        total_queue_bytes: bytes that all queues may take; over it, the oldest of the largest queue
            of the largest peer are dropped. ``None``: so many that one peer's share is one queue.
        max_connections: how many connections there may be at a time. When one more comes, the
            oldest that was never used makes way for it.
        peer_share: the part of `max_connections` and `total_queue_bytes` that one peer may have. A
            peer is a user; without one it is a connection, or for plain HTTP an address.
        max_ttl: seconds; a longer ttl is cut to it.
        max_peer_links: how many interconnections one peer may have here: each message goes to each
            of them.
        max_unacknowledged: messages that a consumer may have got and not acknowledged; then its
            `get` waits.
        callback_allowed: where `interconnect` may call back: ``False``: only to the caller's own
            address; ``True``: anywhere; or further hosts, such as ``{"10.0.0.7"}``.
        client_options: of the clients that call back; ``None`` for the defaults.
        mesh: carries messages between the bus and other nodes; ``None`` for one of its own.
        clock: the time in seconds, for tests.
    """

    #: No call of these is a span: they carry messages, which have spans of their own.
    is_traced = False

    def __init__(
        self,
        bus: Bus | None = None,
        *,
        queue_size: int = MAX_MESSAGES,
        queue_bytes: int = MAX_BYTES,
        total_queue_bytes: int | None = None,
        max_connections: int = MAX_LEASES,
        peer_share: float = PEER_SHARE,
        max_ttl: float = MAX_TTL,
        max_peer_links: int = MAX_PEER_LINKS,
        max_unacknowledged: int = MAX_UNACKNOWLEDGED,
        callback_allowed: Allowed = False,
        client_options: ClientOptions | None = None,
        mesh: Mesh | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_count("queue_size", queue_size)
        check_count("queue_bytes", queue_bytes)
        if total_queue_bytes is None:
            total_queue_bytes = int(queue_bytes / _checked_share(peer_share))
        check_count("total_queue_bytes", total_queue_bytes)
        check_count("max_connections", max_connections)
        check_count("max_peer_links", max_peer_links)
        check_count("max_unacknowledged", max_unacknowledged)
        self._callback_allowed = callback_allowed
        self._client_options = client_options or ClientOptions(dialects="native")
        if mesh is None:
            mesh = Mesh((default_bus if bus is None else bus).gateway)
        self._mesh = mesh
        self._gateway = mesh.gateway
        self._queues = RemoteQueues(
            self._gateway,
            self._mesh.name,
            queue_size,
            queue_bytes,
            total_queue_bytes,
            _checked_share(peer_share),
            self._client_options.translation_table,
        )
        self._max_peer_links = max_peer_links
        self._peer_share = peer_share
        self._consumers = Consumers(self._gateway, self._queues, max_unacknowledged)
        self._clock = clock
        self._connections = ServedConnections(
            self._mesh,
            self._consumers,
            max_connections,
            share_of(max_connections, peer_share),
            checked_ttl(max_ttl),
            _is_caller,
            clock,
        )
        self._leases = self._connections.leases
        #: Tokens by which a call of this node to itself is recognized, and whether one came.
        self._own_tokens: dict[str, bool] = {}

    # -- connecting ------------------------------------------------------------------------

    @method
    async def interconnect(
        self, addr: Any = None, token: Any = None, ttl: float = TTL, node: Any = None
    ) -> str:
        """Style 01: both sides carry all messages to each other.

        Args:
            addr: where the caller can be called back: an endpoint or (host, port). None: messages
                go to it over the connection of this call.
            token: the token that the caller proposes; None for a random one. It stands for the
                connection on both sides.
            ttl: seconds for which the connection may go unused.
            node: the caller's name, if it is a node that takes send_messages. Any other caller gets
                each message by send_message(token, identifier, args, kwargs).

        Returns:
            The token.
        """
        peer = context().peer
        name = None if node is None else checked_name(node)
        if name == self._mesh.name:
            raise ValueError(
                f"this node is {name!r} too: a node cannot be interconnected with itself, nor with "
                "another one of the same name"
            )
        target = None
        if addr is not None:
            target = await allowed_target(addr, peer.address, self._callback_allowed, peer.scheme)
        elif not peer.can_be_called:
            raise ValueError(
                "messages cannot go back over HTTP POST, nor to a REQ socket: give the addr to "
                "call back, or connect by WebSocket, or with a DEALER socket"
            )
        if name is not None:
            await self._connections.check_node(name)
        elif target is not None:
            self._end_former(target, peer.account)
        if self._connections.links_of(peer.account) >= self._max_peer_links:
            raise OverloadedError(f"one peer has max_peer_links={self._max_peer_links:,}")
        served = ServedConnection(None)
        served.takes_batches = name is not None
        added = self._connections.add(served, ttl, token, peer.account, peer.owner)
        self._connections.count_link(served, peer.account)
        link = self._mesh.add_link(
            name or peer.identity,
            has_envelopes=name is not None,
            node=name,
            user=peer.user or peer.key,
        )
        link.send_buffer.share = Share(_holder(peer), self._peer_share)
        served.resource = served.link = link
        if name is None and target is not None:
            link.places = target.places
        if target is None:
            link.on_down = partial(self._connections.report_lost, served, link)
            served.attach(added, peer)
        else:
            self._connections.watch(served, link)
            served.dial_back = DialBack(
                target,
                added,
                link,
                served.takes_batches,
                self._client_options,
                self._own_tokens,
                partial(self.close_connection, added),
                peer.key,
            )
        return added

    @method
    def connect_oneway(self, ttl: float = TTL) -> str:
        """Style 02: the caller only sends. Returns the token for send_message.

        Args:
            ttl: seconds for which the connection may go unused.
        """
        return self._connections.add(ServedConnection(None), ttl, None, _account(), _owner())

    @method
    def connect_via_queue(
        self,
        identifier: str,
        ttl: float = TTL,
        shared: bool = False,
        ack_wait: Any = None,
        tries: Any = None,
    ) -> str:
        """Style 03: a queue of messages that the caller gets. Returns its token.

        Args:
            identifier: the messages to keep, such as ``"job:*"``.
            ttl: seconds for which the connection may go unused.
            shared: whether all callers that ask for a shared queue of this identifier have one
                queue, which gives each message to one of them. Otherwise each queue keeps all
                messages.
            ack_wait: seconds that the caller has to acknowledge each message that it got. What it
                has not acknowledged goes back when they are over, and when the caller is gone.
                None: a message is acknowledged on receipt.
            tries: how often a message is delivered at most; after that it goes to the bus as
                ``dead:NAME``, where NAME is the name in `identifier`, or ``all`` for ``*``. None:
                no limit.
        """
        parsed = Identifier(identifier).require_exportable()
        ack_wait, tries = checked_ack_wait(ack_wait), checked_tries(tries)
        account = _account()
        served = ServedConnection(None)
        # The bound first: what is refused opens no queue.
        token = self._connections.add(served, ttl, None, account, _owner())
        grants = None if current.get() is None else self._mesh.policy.receiving(_user())
        served.consumer = self._consumers.open(
            parsed, bool(shared), ack_wait, tries, account, grants
        )
        served.resource = served.consumer.queue
        return token

    @method
    def close_connection(self, token: Any) -> str:
        """End a connection. Returns "ok" or "invalid token"."""
        if type(token) is str and token in self._own_tokens:
            # The node calls itself.
            self._own_tokens[token] = True
        try:
            # Closed in good order: its will is not published.
            self._mesh.wills.release(self._leases.use(token, self._clock()))
            self._leases.remove(token, self._clock())
        except TokenError:
            return INVALID_TOKEN
        return OK

    @method
    def introduce(self, token: str, envelope: Any, messages: Any = b"", frames: Any = ()) -> Any:
        """Tell who the caller is, and leave its will here. For nodes.

        A will is a message that this node publishes when the caller is lost.

        Args:
            token: from interconnect or connect_oneway.
            envelope: of the caller, with "presence".
            messages, frames: its will, as in send_messages; nothing for none.

        Returns:
            The same about this node: {"envelope", "messages", "frames"}; or "invalid token" or
            "timeout".
        """
        try:
            served = self._leases.use(token, self._clock())
        except TokenError as refused:
            return refused.status
        batch = introduction_of(parse_batch(envelope, messages, frames))
        peer, link = context().peer, served.link
        self._check_name(batch.source[0], link, peer.user or peer.key)
        self._mesh.wills.hold(
            served,
            batch,
            peer.user or peer.key,
            peer.account,
            # By HTTP, nothing is kept alive: only the end of the token tells of its loss.
            is_reached=not peer.can_be_called,
        )
        if link is not None:
            link.send_buffer.takes_presence = True
        data, frames = (mine := self._mesh.wills.introduction()).in_parts(
            in_text=not peer.takes_bytes
        )
        return {"envelope": mine.envelope(), "messages": data, "frames": frames}

    def _check_name(self, name: str, link: Link | None, user: str | None) -> None:
        """Raise `ValueError` for a node that calls itself by the name of another one."""
        others = [other for other in self._mesh.links if other.user != user]
        if (link is not None and link.node != name) or name in (
            self._mesh.name,
            *(other.node for other in others),
        ):
            raise ValueError(f"{name!r} is the name of another node")

    # It waits, so that a closing server ends it at once.
    @method(waits=True)
    async def keep_alive(self, tokens: Any) -> AsyncIterator[dict[str, str]]:
        """Use connections for as long as this stream runs.

        The first item has the status of each token: {token: "ok"}, or why it is not valid. An item
        follows for each that ends. The stream ends when all have. Messages of interconnections go
        to the caller of this.
        """
        if not isinstance(tokens, list | tuple) or not all(isinstance(t, str) for t in tokens):
            raise TypeError("tokens must be an array of text")
        peer = context().peer
        ended = asyncio.Event()
        pinned: list[Lease[ServedConnection]] = []
        try:
            statuses = {}
            for token in dict.fromkeys(tokens):
                try:
                    lease = self._connections.pin(token)
                except TokenError as refused:
                    statuses[token] = refused.status
                    continue
                statuses[token] = OK
                pinned.append(lease)
                lease.value.watchers.add(ended)
                lease.value.attach(token, peer)
                self._connections.restored(lease.value)
            yield statuses
            while pinned:
                await ended.wait()
                ended.clear()
                gone = [lease for lease in pinned if ended not in lease.value.watchers]
                pinned = [lease for lease in pinned if ended in lease.value.watchers]
                if gone:
                    yield {lease.token: INVALID_TOKEN for lease in gone}
        finally:
            for lease in pinned:
                lease.value.watchers.discard(ended)
                self._connections.lost(lease.value, peer)
                self._connections.unpin(lease)

    # -- messages --------------------------------------------------------------------------

    @method
    def send_message(
        self, token: str, identifier: str, args: Any = (), kwargs: Any = None, envelope: Any = None
    ) -> str:
        """Publish a message here. The token of any connection is valid.

        Args:
            token: from any of the functions that connect.
            identifier, args, kwargs: the message.
            envelope: of an interconnection, where the message comes from: {"origin", "epoch",
                "seq"} and "reply_to"; without one it becomes this node's own.

        Returns:
            "ok", "invalid token" or "timeout".
        """
        try:
            served = self._leases.use(token, self._clock())
        except TokenError as refused:
            return refused.status
        link = served.link
        positional, keywords = positional_of(args), keywords_of(kwargs)
        call = current.get()
        trace = None if call is None else call.metadata
        if link is None:
            # A caller that only sends is not a node, so its messages are this node's own.
            if current.get() is not None:
                user = _user()
                self._mesh.require(self._mesh.policy.sending(user), identifier, user)
            self._gateway.relay(identifier, positional, keywords, None, trace=trace)
        else:
            self._mesh.receive_single(link, identifier, positional, keywords, envelope, trace)
        return OK

    @method
    def send_messages(self, token: str, envelope: Any, messages: Any, frames: Any = ()) -> str:
        """Take messages that are to reach all nodes. For interconnected nodes.

        Args:
            token: of an interconnection.
            envelope: where they come from: {"origin", "epoch", "seq", "count"}; None for no
                messages, to learn whether the token is valid and have its ttl restarted.
            messages: bytes: an array in msgpack of [identifier, args[, kwargs[, reply_to]]].
            frames: the long byte strings that were taken out of it.

        In JSON, bytes are text in base64.

        Returns:
            "ok", "invalid token" or "timeout".
        """
        try:
            link = self._link_of(token)
        except TokenError as refused:
            return refused.status
        if envelope is not None:
            self._mesh.receive(link, parse_batch(envelope, messages, frames))
        return OK

    @method
    def ask_retained(self, token: str) -> str:
        """Send what this node retains to the caller, and what it retains or forgets later.

        For interconnected nodes; they call this when a connection is made.

        Args:
            token: of an interconnection.

        Returns:
            "ok", "invalid token" or "timeout".
        """
        try:
            link = self._link_of(token)
        except TokenError as refused:
            return refused.status
        self._mesh.retained.answer(link)
        return OK

    @method
    def send_retained(self, token: str, envelope: Any, messages: Any, frames: Any = ()) -> str:
        """Take what another node retains. For interconnected nodes.

        Args:
            token: of an interconnection.
            envelope: {"retained": [[origin, when, number], ...], "forgotten": [[identifier, when,
                number], ...]}: of each message where it comes from and when it was retained, in
                microseconds since 1970, with a number of the bus that did; and what was forgotten.
            messages, frames: as for send_messages.

        Returns:
            "ok", "invalid token" or "timeout".
        """
        try:
            link = self._link_of(token)
        except TokenError as refused:
            return refused.status
        self._mesh.receive_retained(link, envelope, messages, frames)
        return OK

    @method(waits=True)
    async def get(self, token: str, block: bool = True, timeout: float | None = None) -> Any:
        """Take the oldest message of a queue.

        Args:
            token: from connect_via_queue.
            block: whether to wait for one.
            timeout: seconds to wait; None for no limit.

        Returns:
            {"id", "args", "kwargs"}, "invalid token" or "timeout"; with "redelivered" if the
            message was sent before and its receipt was not confirmed, with "retained" if it was
            sent before the queue was opened and the bus has kept it, with "dropped", a number, if
            the queue has dropped so many messages since the last one that it gave, and with
            "number", for acknowledge, refuse and in_progress, if the queue has an ack_wait.
        """
        seconds = _checked_timeout(timeout)
        if context().is_notification:
            # No one would have the message.
            return TIMEOUT
        try:
            lease = self._connections.pin(token)
        except TokenError as refused:
            return refused.status
        try:
            consumer = lease.value.consumer
            if consumer is None:
                return INVALID_TOKEN
            if block and seconds != 0:
                stored = await consumer.get(seconds)
            else:
                stored = await consumer.take()
        finally:
            self._connections.unpin(lease)
        if stored is not None:
            return self._consumers.hand_over(consumer, stored, context(), self.get)
        return INVALID_TOKEN if lease.value.is_ended else TIMEOUT

    @method
    async def get_nowait(self, token: str) -> Any:
        """Take the oldest message of a queue: get(token, False)."""
        return await self.get(token, False)

    @method
    def acknowledge(self, token: str, number: int) -> str:
        """Forget a message that was worked on.

        Args:
            token: from connect_via_queue, with an ack_wait.
            number: what get has answered with the message.

        Returns:
            "ok", "invalid token", or "unknown number" if it was acknowledged or has gone back.
        """
        return self._settle(token, number, Consumer.acknowledge)

    @method
    def refuse(self, token: str, number: int, delay: float = 0.0) -> str:
        """Let a message go back to the queue. Answers as acknowledge.

        Args:
            token, number: as for acknowledge.
            delay: seconds after which it is there again.
        """
        seconds = checked_delay(delay)
        return self._settle(token, number, lambda it, known: it.refuse(known, seconds))

    @method
    def in_progress(self, token: str, number: int) -> str:
        """Begin the ack_wait of a message again. Arguments and answers as for acknowledge."""
        return self._settle(token, number, Consumer.in_progress)

    def _link_of(self, token: str) -> Link:
        """The link to an interconnected node.

        Raises:
            TokenError: it has no such token, or the token is not that of a node.
        """
        served = self._leases.use(token, self._clock())
        if served.link is None or not served.takes_batches:
            raise TokenError(INVALID_TOKEN)
        return served.link

    def _settle(self, token: Any, number: Any, settle: Callable[[Consumer, Any], bool]) -> str:
        try:
            served = self._leases.use(token, self._clock())
        except TokenError:
            return INVALID_TOKEN
        if served.consumer is None:
            return INVALID_TOKEN
        # Some peers that speak JSON have only floats; hashing a huge int takes its time.
        if not isinstance(number, int | float) or not abs(number) < 2**63:
            return UNKNOWN_NUMBER
        return OK if settle(served.consumer, number) else UNKNOWN_NUMBER

    # -- for the node --------------------------------------------------------------------

    @property
    def leases(self) -> LeaseTable[ServedConnection]:
        """The connections of other processes, by their tokens."""
        return self._leases

    @property
    def mesh(self) -> Mesh:
        """The links to other nodes."""
        return self._mesh

    @property
    def queues(self) -> tuple[RemoteQueue, ...]:
        """The queues that are kept for other processes."""
        return tuple(self._queues)

    def measure(self, meter: Meter) -> None:
        """Have a meter count the calls of the clients that call back from now on."""
        self._client_options = replace(self._client_options, metrics=meter)

    def statistics(self) -> dict[str, int]:
        """Counts: connections, consumers and messages that wait, and dropped messages."""
        parts = [served.resource for served in self._leases.values()]
        links = [resource for resource in parts if isinstance(resource, Link)]
        return {
            "connections": len(self._leases),
            "connections_refused": self._leases.refused,
            "connections_displaced": self._leases.displaced,
            "queues": len(tuple(self._queues)),
            "queue_bytes": self._queues.bytes,
            "consumers_waiting": self._consumers.waiting,
            "messages_unacknowledged": self._consumers.unacknowledged,
            "messages_dead": self._consumers.dead,
            "messages_denied": self._mesh.denied,
            "messages_withheld": self._mesh.withheld,
            "messages_waiting": self._queues.waiting + sum(map(len, links)),
            "messages_dropped": self._queues.dropped
            + self._connections.dropped
            + sum(link.dropped for link in links),
        }

    def expect(self, link: Link, token: str, ttl: float, key: str | None = None) -> None:
        """Let a peer that calls back send messages with a token.

        Args:
            link: the link to it.
            key: the public key that it has to come with.
        """
        served = ServedConnection(None, link)
        served.takes_batches = True
        self._connections.add(served, ttl, token, None, key)

    def remove_key(self, key: str) -> None:
        """End the connections of a key that is not authorized any more, without their wills."""
        for lease in self._leases:
            if lease.owner == key:
                self._mesh.wills.release(lease.value)
        self._leases.remove_key(key)

    def keep(self, token: str) -> None:
        """Use a connection, so that its ttl restarts."""
        with contextlib.suppress(TokenError):
            self._leases.use(token, self._clock())

    def close(self) -> None:
        """End all connections."""
        self._mesh.wills.close()
        self._connections.close()
        self._mesh.stop()

    def _end_former(self, target: Target, account: Hashable) -> None:
        """End a peer's connection with the same place, as it does not number its messages.

        It would pass on to the one what comes by the other.

        Raises:
            ValueError: this node has made that connection itself, or another peer has.
        """
        for token in self._connections.tokens_at(target.places, account):
            # It was restarted, or asks twice.
            self.close_connection(token)
        if self._mesh.leaf_at(target.places) is not None:
            raise ValueError(
                f"there is an interconnection with {target.endpoint}, which does not number its "
                "messages: they would arrive twice"
            )

    async def wait_closed(self) -> None:
        """Wait until the clients that called back are closed."""
        await self._connections.wait_closed()


def _account() -> Hashable:
    """The account of the peer that calls; ``None`` where the program itself does."""
    return None if current.get() is None else context().peer.account


def _holder(peer: Peer) -> Hashable:
    """Who has a share in what is retained, which stays when the peer leaves."""
    host = host_key(peer.address)
    named = peer.user or peer.key
    # Several programs of this host are several peers.
    return named or (peer.account if host in ("", "127") else ("host", host))


def _user() -> str | None:
    """The name of the user that calls, else its public key."""
    peer = context().peer
    return peer.user or peer.key


def _owner() -> Hashable:
    """What the tokens of the peer that calls belong to; ``None`` where the program itself calls."""
    return None if current.get() is None else context().peer.owner


def _is_caller(owner: Hashable) -> bool:
    """Whether the tokens of the peer that calls belong to it, or the program itself calls."""
    return current.get() is None or context().peer.owner == owner


def _checked_share(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1:
        return float(value)
    raise ValueError(f"peer_share must be above 0 and at most 1, not {value!r}")


def _checked_timeout(timeout: Any) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, int | float) and not isinstance(timeout, bool):
        with contextlib.suppress(OverflowError):
            if float(timeout) >= 0:
                return float(timeout)
    raise ValueError("timeout must be a number of seconds from 0 on, or None")
