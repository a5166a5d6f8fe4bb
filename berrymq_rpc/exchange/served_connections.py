"""The connections of other processes, as the side that serves them has them."""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Hashable

from ..errors import OverloadedError
from ..rpc import Peer
from ..runtime.log import Log
from .carrier import Carrier
from .consumer import Consumer
from .consumers import Consumers
from .dial_back import DialBack
from .leases import Lease, LeaseTable
from .link import Link
from .mesh import Mesh
from .remote_queue import RemoteQueue

__all__ = ["ServedConnection", "ServedConnections"]

logger = Log("berrymq_rpc.exchange")


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

    def attach(self, token: str, peer: Peer) -> None:
        """Send an interconnection's messages to this peer, unless it is called back."""
        if isinstance(self.resource, Link) and self.dial_back is None:
            self.resource.open(peer, Carrier.to_peer(peer, token, self.takes_batches))


class ServedConnections:
    """The connections, their leases, and the timer that ends those left unused.

    Args:
        mesh: has the links, and reports which are lost and restored.
        consumers: those of the queues; a connection's consumer ends with it.
        max_connections, max_peer_connections: as `max_leases` and `max_peer_leases` of
            `LeaseTable`.
        max_ttl, may_use: as for `LeaseTable`.
        clock: the time in seconds.

    Attributes:
        leases: the connections by their tokens. Use them there; add, pin and unpin them here.
        dropped: how many messages the links of ended connections have dropped.
    """

    def __init__(
        self,
        mesh: Mesh,
        consumers: Consumers,
        max_connections: int,
        max_peer_connections: int,
        max_ttl: float,
        may_use: Callable[[Hashable], bool],
        clock: Callable[[], float],
    ) -> None:
        self._mesh = mesh
        self._consumers = consumers
        self._clock = clock
        self.leases: LeaseTable[ServedConnection] = LeaseTable(
            self._free, max_connections, max_peer_connections, max_ttl, may_use
        )
        self.dropped = 0
        #: How many interconnections each peer has, by accounts.
        self._links_of = Counter[Hashable]()
        #: Ways back that are being closed.
        self._closing: set[DialBack] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    # -- leases ----------------------------------------------------------------------------

    def add(
        self,
        served: ServedConnection,
        ttl: float,
        token: object = None,
        account: Hashable = None,
        owner: Hashable = None,
    ) -> str:
        """Add a connection; arguments, token and errors as for `LeaseTable.add`."""
        before = self.leases.displaced
        try:
            added = self.leases.add(served, ttl, self._clock(), token, account, owner)
        except OverloadedError as error:
            logger.warning("a connection was refused: %s", error)
            raise
        if self.leases.displaced > before:
            logger.warning("an unused connection has made way for another")
        self._set_timer()
        return added

    def pin(self, token: object) -> Lease[ServedConnection]:
        """Keep a connection in use until `unpin`; raises as `LeaseTable.pin` does."""
        return self.leases.pin(token, self._clock())

    def unpin(self, lease: Lease[ServedConnection]) -> None:
        """Undo one `pin`."""
        self.leases.unpin(lease, self._clock())
        self._set_timer()

    def close(self) -> None:
        """End all connections."""
        self.leases.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._timer_at = math.inf

    async def wait_closed(self) -> None:
        """Wait until the clients that called back are closed."""
        await asyncio.gather(*(closing.wait_closed() for closing in self._closing))

    # -- interconnections ------------------------------------------------------------------

    def links_of(self, account: Hashable) -> int:
        """How many interconnections a peer has."""
        return self._links_of[account]

    def count_link(self, served: ServedConnection, account: Hashable) -> None:
        """Count a connection as an interconnection of a peer, until it ends."""
        served.account = account
        self._links_of[account] += 1

    async def check_node(self, node: str) -> None:
        """Look whether a node of that name is still where it is called back by URL.

        A node that was restarted is to get what was kept for it, though its end may not have been
        noticed yet.
        """
        former = [
            served.dial_back.check()
            for served in self.leases.values()
            if served.dial_back is not None and served.link is not None and served.link.node == node
        ]
        await asyncio.gather(*former)

    def tokens_at(self, places: frozenset[tuple[str, int]], account: Hashable) -> list[str]:
        """The tokens of a peer's interconnections with a place that is one of these."""
        return [
            lease.token
            for lease in self.leases
            if lease.value.link is not None
            and lease.value.account == account
            and lease.value.link.places & places
        ]

    def restored(self, served: ServedConnection) -> None:
        """Report that the peer is there again, if it was lost."""
        self._mesh.wills.reached(served)
        if served.is_lost and isinstance(served.resource, Link):
            served.is_lost = False
            self._mesh.report("restored", endpoint=served.resource.peer, style="01")

    def lost(self, served: ServedConnection, peer: Peer) -> None:
        """Cut an interconnection's link: the peer is gone, or wants no more messages."""
        link = served.resource
        if isinstance(link, Link) and link.cut(peer):
            self.report_lost(served, link)
        if not served.watchers and not (isinstance(link, Link) and link.is_up):
            self._mesh.wills.lost(served)

    def watch(self, served: ServedConnection, link: Link) -> None:
        """Note whether a peer is there by its link, where it is called back."""

        def changed(is_up: bool) -> None:
            if is_up:
                self._mesh.wills.reached(served)
            elif not served.watchers:
                self._mesh.wills.lost(served)

        link.on_change = changed

    def report_lost(self, served: ServedConnection, link: Link) -> None:
        """Report once that the peer is gone."""
        if not served.is_lost:
            served.is_lost = True
            reason = "the peer is gone"
            self._mesh.report("lost", endpoint=link.peer, style="01", reason=reason)

    # --------------------------------------------------------------------------------------

    def _free(self, served: ServedConnection) -> None:
        """Free what a connection has whose lease has ended."""
        served.is_ended = True
        self._mesh.wills.end(served)
        resource = served.resource
        if served.consumer is not None:
            self._consumers.close(served.consumer)
        elif isinstance(resource, Link):
            resource.close()
            self.dropped += resource.dropped
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
        when = self.leases.next_expiry()
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
        self.leases.expire(self._clock())
        self._set_timer()
