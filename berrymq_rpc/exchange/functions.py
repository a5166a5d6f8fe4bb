"""berryMQ's functions, as a node serves them to peers."""

import asyncio
import contextlib
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Hashable
from functools import partial
from typing import Any

from ..bus import Bus, default_bus
from ..errors import OverloadedError
from ..identifier import Identifier
from ..rpc import AttrHandler, Peer, context, method
from ..rpc.inbound_call import current
from ..rpc.options import ClientOptions
from ..runtime.log import Log
from .batch import checked_name, parse_batch
from .consumer import MAX_UNACKNOWLEDGED, Consumer, checked_ack_wait, checked_delay, checked_tries
from .consumers import Consumers
from .dial_back import Allowed, DialBack, Target, allowed_target
from .leases import MAX_LEASES, MAX_TTL, Lease, LeaseTable, TokenError, checked_ttl
from .link import Carrier, Link
from .mesh import Mesh
from .quota import PEER_SHARE, share_of
from .remote_queue import MAX_BYTES, MAX_MESSAGES, RemoteQueue
from .remote_queues import RemoteQueues
from .status import INVALID_TOKEN, OK, TIMEOUT, UNKNOWN_NUMBER
from .validation import keywords_of, positional_of

__all__ = ["MAX_PEER_LINKS", "TTL", "ExportedFunctions"]

logger = Log("berrymq_rpc.exchange")

#: Interconnections of one peer. One needs one, and several nodes may share a user or an address;
#: with a thousand, each message took a quarter of a second.
MAX_PEER_LINKS = 100

#: Seconds for which a connection may go unused: berryMQ's default.
TTL = 1000.0


class ServedConnection:
    """One connection, as the side that serves it has it.

    Attributes:
        account: of the peer, in style 01, where it has connected to this side.
        resource: what ends with the connection: the queue of style 03, or the link to the peer in
            style 01.
        consumer: what it has got from the queue, in style 03.
        link: the link that messages with this token come by, in style 01.
        dial_back: the way to a peer that wants to be called back.
        takes_batches: whether the peer is a node that numbers its messages.
        is_lost: whether it was reported that the peer is gone.
        is_ended: whether its lease has ended.
        watchers: set when the connection ends.
    """

    __slots__ = (
        "account",
        "consumer",
        "dial_back",
        "is_ended",
        "is_lost",
        "link",
        "resource",
        "takes_batches",
        "watchers",
    )

    def __init__(self, resource: RemoteQueue | Link | None, link: Link | None = None) -> None:
        self.account: Hashable = None
        self.resource = resource
        self.consumer: Consumer | None = None
        self.link = link
        self.dial_back: DialBack | None = None
        self.takes_batches = False
        self.is_lost = False
        self.is_ended = False
        self.watchers: set[asyncio.Event] = set()


class ExportedFunctions(AttrHandler):
    """berryMQ's seven functions, and five more: serve it with `rpc.start_server`.

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
        _check_count("queue_size", queue_size)
        _check_count("queue_bytes", queue_bytes)
        if total_queue_bytes is None:
            total_queue_bytes = int(queue_bytes / _checked_share(peer_share))
        _check_count("total_queue_bytes", total_queue_bytes)
        _check_count("max_connections", max_connections)
        _check_count("max_peer_links", max_peer_links)
        _check_count("max_unacknowledged", max_unacknowledged)
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
        #: How many interconnections each peer has, by accounts.
        self._links_of = Counter[Hashable]()
        self._consumers = Consumers(self._gateway, self._queues, max_unacknowledged)
        self._clock = clock
        self._leases: LeaseTable[ServedConnection] = LeaseTable(
            self._free,
            max_connections,
            share_of(max_connections, peer_share),
            checked_ttl(max_ttl),
            _is_caller,
        )
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        #: Tokens by which a call of this node to itself is recognized, and whether one came.
        self._own_tokens: dict[str, bool] = {}
        #: Ways back that are being closed.
        self._closing: set[DialBack] = set()
        #: Messages that closed links have dropped.
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
            await self._check_former(name)
        elif target is not None:
            self._end_former(target, peer.account)
        if self._links_of[peer.account] >= self._max_peer_links:
            raise OverloadedError(f"one peer has max_peer_links={self._max_peer_links:,}")
        served = ServedConnection(None)
        served.takes_batches = name is not None
        added = self._add(served, ttl, token, peer.account, peer.owner)
        served.account = peer.account
        self._links_of[served.account] += 1
        link = self._mesh.add_link(
            name or peer.identity,
            has_envelopes=name is not None,
            node=name,
            user=peer.user or peer.key,
        )
        served.resource = served.link = link
        if name is None and target is not None:
            link.places = target.places
        if target is None:
            link.on_down = partial(self._report_lost, served, link)
            _attach(served, added, peer)
        else:
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
        return self._add(ServedConnection(None), ttl, None, _account(), _owner())

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
        token = self._add(served, ttl, None, account, _owner())
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
            self._leases.remove(token, self._clock())
        except TokenError:
            return INVALID_TOKEN
        return OK

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
                    lease = self._pin(token)
                except TokenError as refused:
                    statuses[token] = refused.status
                    continue
                statuses[token] = OK
                pinned.append(lease)
                lease.value.watchers.add(ended)
                _attach(lease.value, token, peer)
                self._restored(lease.value)
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
                self._lost(lease.value, peer)
                self._unpin(lease)

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
        if link is None:
            # A caller that only sends is not a node, so its messages are this node's own.
            if current.get() is not None:
                user = _user()
                self._mesh.require(self._mesh.policy.sending(user), identifier, user)
            self._gateway.relay(identifier, positional, keywords, None)
        else:
            self._mesh.receive_single(link, identifier, positional, keywords, envelope)
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
            served = self._leases.use(token, self._clock())
        except TokenError as refused:
            return refused.status
        if served.link is None or not served.takes_batches:
            return INVALID_TOKEN
        if envelope is not None:
            self._mesh.receive(served.link, parse_batch(envelope, messages, frames))
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
            message was sent before and its receipt was not confirmed, with "dropped", a
            number, if the queue has dropped so many messages since the last one that it gave, and
            with "number", for acknowledge, refuse and in_progress, if the queue has an ack_wait.
        """
        seconds = _checked_timeout(timeout)
        if context().is_notification:
            # No one would have the message.
            return TIMEOUT
        try:
            lease = self._pin(token)
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
            self._unpin(lease)
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
            + self._dropped
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
        self._add(served, ttl, token, None, key)

    def remove_key(self, key: str) -> None:
        """End the connections of a key that is not authorized any more."""
        self._leases.remove_key(key)

    def keep(self, token: str) -> None:
        """Use a connection, so that its ttl restarts."""
        with contextlib.suppress(TokenError):
            self._leases.use(token, self._clock())

    def close(self) -> None:
        """End all connections."""
        self._leases.clear()
        self._mesh.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._timer_at = math.inf

    async def _check_former(self, node: str) -> None:
        """Look whether a node of that name is still where it is called back by URL.

        A node that was restarted is to get what was kept for it, though its end may not have been
        noticed yet.
        """
        former = [
            served.dial_back.check()
            for served in self._leases.values()
            if served.dial_back is not None and served.link is not None and served.link.node == node
        ]
        await asyncio.gather(*former)

    def _end_former(self, target: Target, account: Hashable) -> None:
        """End a peer's connection with the same place, as it does not number its messages.

        It would pass on to the one what comes by the other.

        Raises:
            ValueError: this node has made that connection itself, or another peer has.
        """
        for lease in self._leases:
            served = lease.value
            if (
                served.link is not None
                and served.account == account
                and served.link.places & target.places
            ):
                # It was restarted, or asks twice.
                self.close_connection(lease.token)
        if self._mesh.leaf_at(target.places) is not None:
            raise ValueError(
                f"there is an interconnection with {target.endpoint}, which does not number its "
                "messages: they would arrive twice"
            )

    async def wait_closed(self) -> None:
        """Wait until the clients that called back are closed."""
        await asyncio.gather(*(closing.wait_closed() for closing in self._closing))

    def _restored(self, served: ServedConnection) -> None:
        if served.is_lost and isinstance(served.resource, Link):
            served.is_lost = False
            self._mesh.report("restored", endpoint=served.resource.peer, style="01")

    def _lost(self, served: ServedConnection, peer: Peer) -> None:
        """The peer is gone, or wants no more messages."""
        link = served.resource
        if isinstance(link, Link) and link.cut(peer):
            self._report_lost(served, link)

    def _report_lost(self, served: ServedConnection, link: Link) -> None:
        if not served.is_lost:
            served.is_lost = True
            reason = "the peer is gone"
            self._mesh.report("lost", endpoint=link.peer, style="01", reason=reason)

    # -- leases ----------------------------------------------------------------------------

    def _add(
        self,
        served: ServedConnection,
        ttl: float,
        token: Any = None,
        account: Hashable = None,
        owner: Hashable = None,
    ) -> str:
        before = self._leases.displaced
        try:
            added = self._leases.add(served, ttl, self._clock(), token, account, owner)
        except OverloadedError as error:
            logger.warning("a connection was refused: %s", error)
            raise
        if self._leases.displaced > before:
            logger.warning("an unused connection has made way for another")
        self._set_timer()
        return added

    def _pin(self, token: Any) -> Lease[ServedConnection]:
        return self._leases.pin(token, self._clock())

    def _unpin(self, lease: Lease[ServedConnection]) -> None:
        self._leases.unpin(lease, self._clock())
        self._set_timer()

    def _free(self, served: ServedConnection) -> None:
        """Free what a connection has whose lease has ended."""
        served.is_ended = True
        resource = served.resource
        if served.consumer is not None:
            self._consumers.close(served.consumer)
        elif isinstance(resource, Link):
            resource.close()
            self._dropped += resource.dropped
        if served.account is not None:
            self._links_of[served.account] -= 1
            if not self._links_of[served.account]:
                del self._links_of[served.account]
        if served.dial_back is not None:
            served.dial_back.close()
            self._closing.add(served.dial_back)
            self._closing = {closing for closing in self._closing if not closing.is_closed}
        watchers, served.watchers = served.watchers, set()
        for watcher in watchers:
            watcher.set()

    def _set_timer(self) -> None:
        when = self._leases.next_expiry()
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
        self._leases.expire(self._clock())
        self._set_timer()


def _attach(served: ServedConnection, token: str, peer: Peer) -> None:
    """Send an interconnection's messages to this peer."""
    if isinstance(served.resource, Link) and served.dial_back is None:
        served.resource.open(peer, Carrier.to_peer(peer, token, served.takes_batches))


def _account() -> Hashable:
    """The account of the peer that calls; ``None`` where the program itself does."""
    return None if current.get() is None else context().peer.account


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


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number above 0, not {value!r}")


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
