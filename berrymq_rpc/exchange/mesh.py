"""The mesh: a node's router and its links on an event loop, and what wakes them when."""

import asyncio
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from ..bus.diagram import DiagramNode
from ..bus.gateway import Gateway
from ..common.tracing import Carrier
from ..errors import PermissionDeniedError, ProtocolError
from ..identifier import Identifier
from ..rpc import Limits
from ..runtime.fork import call_in_child
from ..runtime.log import Log
from .batch import Batch, packed_parts
from .link import Link
from .message_filter import FilteredSendBuffer
from .policy import Grants, Policy
from .reorder import FIRST_PATIENCE
from .retained_exchange import RetainedExchange
from .router import Router
from .send_buffer import MAX_BYTES, MAX_MESSAGES, SendBuffer
from .traced_router import router_type
from .will import MAX_WILL_BYTES, WILL_DELAY, OwnWill
from .wills import Wills

__all__ = ["Attachment", "Mesh"]

audit = Log("berrymq_rpc.security")

#: Characters of the identifier of a refused message in logs and events.
MAX_EXAMPLE = 200

#: What a link carries in both directions.
ALL = "*@*:*"


class Attachment(Protocol):
    """What connects a mesh with other nodes besides its links: a cluster."""

    @property
    def send_buffer(self) -> SendBuffer:
        """Where the router puts messages for it."""

    @property
    def place(self) -> str:
        """Its address, for the diagram of the bus."""

    @property
    def withheld(self) -> int:
        """How many messages were left out for it."""

    def flush(self) -> None:
        """Send what may be sent now."""

    def links_changed(self) -> None:
        """Note that the mesh has got its first link, or has lost its last one."""

    def forget(self) -> None:
        """Do nothing any more, in the child of a fork: the connection is the parent's."""


class Mesh:
    """The links of a node, and the router that fills them. A `LinkHost` to each link.

    Args:
        gateway: of the bus that messages come from, and that those of other nodes go to.
        name: the node's; ``None`` for a random one.
        limits: the bounds of a message.
        translation_table: for values of the user's own, as for `rpc.open_client`.
        max_messages, max_bytes: the bounds of each link's send buffer.
        policy: what each user may send and get; ``None`` for everything.
        will, will_delay, will_bytes: as for `Node`.

    Attributes:
        wills: those that this node holds, and its own.
        policy: the same.
        denied: how many messages came whose senders may not send them.
    """

    def __init__(
        self,
        gateway: Gateway,
        name: str | None = None,
        *,
        limits: Limits | None = None,
        translation_table: Mapping[int, Any] | None = None,
        max_messages: int = MAX_MESSAGES,
        max_bytes: int = MAX_BYTES,
        policy: Policy | None = None,
        will: Sequence[Any] | None = None,
        will_delay: float = WILL_DELAY,
        will_bytes: int = MAX_WILL_BYTES,
    ) -> None:
        self.policy = Policy() if policy is None else policy
        self.denied = 0
        #: How many messages were withheld from links that are closed.
        self._withheld = 0
        self.router: Router = router_type()(
            gateway,
            name,
            epoch=time.time_ns() // 1000,
            limits=limits,
            translation_table=translation_table,
            wake=self._wake_from_any_thread,
        )
        self.wills = Wills(
            self.router,
            self.policy,
            self._deny_will,
            OwnWill(self.router.source, self.router.codec, will, will_delay, will_bytes),
            will_bytes,
        )
        self.gateway = gateway
        self.retained = RetainedExchange(gateway, self.router.codec, self)
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._links: dict[Link, None] = {}
        self._attachment: Attachment | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._timer: asyncio.TimerHandle | None = None
        #: Whether `_go_on` will be called.
        self._will_go_on = False

    @property
    def name(self) -> str:
        """The node's name: the origin of what is sent on its bus."""
        return self.router.name

    @property
    def links(self) -> tuple[Link, ...]:
        """All links."""
        return tuple(self._links)

    def start(self) -> None:
        """Begin to number the bus's messages, on the running event loop."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.get_ident()
            self.wills.start()
            self.gateway.add_forwarder(self.router.forward)
            self.gateway.add_retention_listener(self.router, instead_of=self.router.forward)
            self.gateway.add_diagram_source(self.diagram_nodes)
            call_in_child(self._forget_links)

    def _forget_links(self) -> None:
        """Have nothing to do with the links in the child of a fork: they are the parent's."""
        self.router.forget_links()
        self.wills.forget()
        self._links.clear()
        attachment, self._attachment = self._attachment, None
        if attachment is not None:
            attachment.forget()

    def stop(self) -> None:
        """Close all links, and leave the bus."""
        if self._loop is None:
            return
        self.wills.close()
        self._leave_bus()
        for link in self.links:
            link.close()
        while self.router.is_behind:
            self.router.go_on()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._loop = None

    def diagram_nodes(self) -> list[DiagramNode]:
        """The links, for the diagram of the bus. From any thread."""
        peers = [link.peer for link in self.links]
        if self._attachment is not None:
            peers.append(self._attachment.place)
        return [DiagramNode("connection", peer, (ALL,), (ALL,)) for peer in peers]

    # -- a cluster -------------------------------------------------------------------------

    def attach(self, attachment: Attachment) -> None:
        """Send all messages to a cluster as well, from now on."""
        self.start()
        self._attachment = attachment
        self.router.add(attachment.send_buffer, has_envelopes=False)
        attachment.links_changed()

    def detach(self) -> None:
        """Undo `attach`."""
        attachment, self._attachment = self._attachment, None
        if attachment is not None:
            self._withheld += attachment.withheld
            self.router.remove(attachment.send_buffer, time.monotonic())
            if self.router.is_behind:
                self._plan_to_go_on()

    def leave_order(self, send_buffer: SendBuffer) -> None:
        """Do not wait any more for messages that a cluster may bring."""
        self.router.set_leaf(send_buffer, time.monotonic())
        if self.router.is_behind:
            self._plan_to_go_on()

    def _links_changed(self) -> None:
        if self._attachment is not None:
            self._attachment.links_changed()

    # -- links -----------------------------------------------------------------------------

    def add_link(
        self,
        peer: str,
        *,
        has_envelopes: bool = True,
        node: str | None = None,
        user: str | None = None,
    ) -> Link:
        """Make a link, to which messages go from now on.

        Args:
            peer: what to call the other side.
            has_envelopes: whether the peer is a node, whose messages have envelopes.
            node: the peer's name, if it is known. If a link to a node of that name is down, it is
                closed, and what waited for it goes here: the node was restarted.
            user: who proved to be the peer: its user, or its key. A link of another one is left
                alone, whatever name the peer gives itself.
        """
        self.start()
        former = self._former(node, user) if node is not None else None
        if former is None:
            send_buffer = self._new_send_buffer(user)
            self.router.add(send_buffer, has_envelopes=has_envelopes)
        else:
            send_buffer = former.give_up()
            del self._links[former]
        link = Link(self, peer, send_buffer)
        link.node = node
        link.user = user
        if former is None:
            link.filter = self.router.new_filter(self.policy.sending(user))
        else:
            # It knows which messages it has left out last.
            link.filter = former.filter
        link.is_leaf = send_buffer.is_to_leaf = not has_envelopes
        self._links[link] = None
        self._links_changed()
        return link

    def _new_send_buffer(self, user: str | None) -> SendBuffer:
        message_filter = self.router.new_filter(self.policy.receiving(user))
        if message_filter is None:
            return SendBuffer(self._max_messages, self._max_bytes)
        return FilteredSendBuffer(self._max_messages, self._max_bytes, message_filter)

    def _former(self, node: str, user: str | None) -> Link | None:
        for link in self._links:
            if link.node == node and link.user == user and not link.is_up:
                return link
        return None

    async def drain(self, timeout: float) -> None:
        """Wait until all reachable peers have acknowledged everything, or the time is over."""
        waiting = [link.drain(timeout) for link in self._links if link.is_up]
        if waiting:
            await asyncio.gather(*waiting)

    def leaf_at(self, places: Collection[tuple[str, int]]) -> Link | None:
        """Find the link to a leaf that listens at one of these addresses and ports."""
        for link in self._links:
            if not link.places.isdisjoint(places):
                return link
        return None

    def set_leaf(self, link: Link) -> None:
        """Expect no envelopes from a link's peer: no missed message can come by it."""
        link.is_leaf = link.send_buffer.is_to_leaf = True
        self.router.set_leaf(link.send_buffer, time.monotonic())

    # -- messages --------------------------------------------------------------------------

    def receive(self, link: Link, batch: Batch) -> None:
        """Take a batch.

        Raises:
            ProtocolError: its messages are malformed.
            ValueError: the peer is not a node, so it cannot speak for any.
        """
        if link.is_leaf:
            raise ValueError(
                "an envelope says which node a message is from, and comes from nodes alone: give "
                "interconnect the name of yours, or leave the envelope out"
            )
        if batch.presence is not None:
            self._receive_presence(link, batch)
            return
        batches = [batch]
        if link.filter is not None:
            filtered = self.router.permitted(link.filter, batch)
            batches = filtered.parts
            if filtered.left_out:
                self._deny(link, filtered.left_out, filtered.example)
        self.take(link.send_buffer, batches)

    def _receive_presence(self, link: Link, batch: Batch) -> None:
        """Take what is said about a node: a will is a message, which the peer may not send."""
        if batch.data and link.filter is not None:
            identifier = self.wills.identifier_of(batch)
            if not link.filter.grants.covers_text(identifier):
                self._deny(link, 1, identifier)
                return
        self.wills.receive(link.send_buffer, batch)

    def take(self, send_buffer: SendBuffer, batches: list[Batch]) -> None:
        """Take batches of messages that the sender may send.

        Args:
            send_buffer: of the link by which they came.

        Raises:
            ProtocolError: their messages are malformed.
        """
        router = self.router
        try:
            for each in batches:
                router.receive(send_buffer, each, time.monotonic())
        finally:
            if router.is_behind:
                self._plan_to_go_on()
            if self._timer is None and router.reorder.held:
                self._set_timer()

    def _plan_to_go_on(self) -> None:
        """Have what is in order handed to the bus, some at a time."""
        if not self._will_go_on and self._loop is not None:
            self._will_go_on = True
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._will_go_on = False
        self.router.go_on()
        if self.router.is_behind:
            self._plan_to_go_on()

    def receive_single(
        self,
        link: Link,
        identifier: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        envelope: Any,
        trace: Carrier | None = None,
    ) -> None:
        """Take one message; this node becomes its origin if it has no envelope.

        Args:
            trace: metadata of the call that brought it, where it has no envelope.

        Raises:
            TypeError, ValueError: a part is invalid.
            ProtocolError: it cannot be passed on.
            PermissionDeniedError: the peer may not send it.
        """
        if envelope is None:
            if link.filter is not None:
                self.require(link.filter.grants, identifier, link.user)
            self.router.publish(link.send_buffer, identifier, args, kwargs, trace)
            return
        batch = self.router.enclosed(identifier, args, kwargs, envelope)
        self.receive(link, batch)
        if link.filter is not None and not link.filter.grants.covers_text(str(identifier)):
            raise _not_permitted(identifier, link.user)

    def require(self, grants: Grants | None, identifier: Any, user: str | None) -> None:
        """Refuse a message that a user may not send.

        Args:
            grants: what it may send; ``None`` for everything.
            user: for the error.

        Raises:
            TypeError, ValueError: `identifier` is invalid.
            PermissionDeniedError: it may not.
        """
        if grants is not None and not grants.covers(Identifier(identifier).require_exportable()):
            self.denied += 1
            raise _not_permitted(identifier, user)

    def _deny(self, link: Link, count: int, example: str) -> None:
        """Count and report messages that a link's peer may not send."""
        self.denied += count
        link.unreported_refusals += count
        if not link.refusals.admit(time.monotonic()):
            return
        count, link.unreported_refusals = link.unreported_refusals, 0
        # It may be of any length.
        example = example[:MAX_EXAMPLE]
        audit.warning(
            "%d messages of %s by %s refused, such as %s: not allowed",
            count,
            link.user,
            link.peer,
            example,
        )
        self.report("refused", endpoint=link.peer, user=link.user, count=count, example=example)

    def _deny_will(self, user: str | None, identifier: str) -> None:
        """Count and report the will of a lost node whose user may not send it."""
        self.denied += 1
        example = identifier[:MAX_EXAMPLE]
        audit.warning("the will of %s was refused, %s: not allowed", user, example)
        self.report("refused", endpoint=None, user=user, count=1, example=example)

    @property
    def withheld(self) -> int:
        """How many messages were left out for nodes that may not get them."""
        attached = 0 if self._attachment is None else self._attachment.withheld
        return self._withheld + attached + sum(_withheld_of(link) for link in self._links)

    # -- for links -------------------------------------------------------------------------

    @property
    def lock(self) -> threading.RLock:
        return self.router.lock

    def wake(self) -> None:
        if self._loop is not None:
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        self.router.rest()
        self.router.collect()
        forgotten = self.router.forgotten
        if forgotten:
            self.retained.offer([forgotten.popleft() for _ in range(len(forgotten))])
        for link in self.links:
            link.flush()
        if self._attachment is not None:
            self._attachment.flush()

    def feed(self, link: Link) -> None:
        with self.lock:
            self.retained.feed(link)

    def receiving(self, user: str | None) -> Grants | None:
        """What a user may get; ``None`` for everything."""
        return self.policy.receiving(user)

    def deny(self, link: Link, count: int, example: str) -> None:
        """Count and report messages that a link's peer may not send."""
        self._deny(link, count, example)

    def receive_retained(self, link: Link, envelope: Any, data: Any, frames: Any) -> None:
        """Take what a peer retains.

        Raises:
            TypeError, ValueError: a part is invalid, or the peer is not a node.
            ProtocolError: the messages are malformed.
        """
        if link.is_leaf:
            raise ValueError("only a node retains messages for others")
        data, frames = packed_parts(data, frames)
        try:
            self.retained.receive(link, envelope, data, frames, link.send_buffer.share)
        except ProtocolError as error:
            self.router.count_malformed(error)
            raise

    def unpack(self, batch: Batch) -> tuple[tuple[Any, ...], ...]:
        return self.router.unpack(batch)

    def renew(self, link: Link) -> None:
        self.router.reorder.renew_link(link.send_buffer)

    def discard(self, link: Link) -> None:
        self.wills.release(link)
        if link in self._links:
            del self._links[link]
            self._withheld += _withheld_of(link)
            self.router.remove(link.send_buffer, time.monotonic())
            if self.router.is_behind:
                self._plan_to_go_on()
            self._links_changed()

    def report(self, action: str, **about: Any) -> None:
        self.router.report(action, **about)

    # -- time ------------------------------------------------------------------------------

    def _wake_from_any_thread(self) -> None:
        """Have `flush` called soon, for the router."""
        loop = self._loop
        if loop is None:
            return
        try:
            if threading.get_ident() == self._thread:
                loop.call_soon(self.flush)
            else:
                loop.call_soon_threadsafe(self.flush)
        except RuntimeError:
            # The loop was closed, and the node was not.
            self._leave_bus()

    def _leave_bus(self) -> None:
        self.gateway.remove_retention_listener(self.router)
        self.gateway.remove_forwarder(self.router.forward)
        self.gateway.remove_diagram_source(self.diagram_nodes)

    def _set_timer(self) -> None:
        when = self.router.reorder.next_expiry()
        if when is not None and self._loop is not None:
            # Later messages may have less time.
            delay = min(max(0.0, when - time.monotonic()), FIRST_PATIENCE)
            self._timer = self._loop.call_later(delay, self._expire)

    def _expire(self) -> None:
        self._timer = None
        self.router.expire(time.monotonic())
        if self.router.is_behind:
            self._plan_to_go_on()
        self._set_timer()


def _withheld_of(link: Link) -> int:
    buffer = link.send_buffer
    return buffer.withheld if isinstance(buffer, FilteredSendBuffer) else 0


def _not_permitted(identifier: object, user: str | None) -> PermissionDeniedError:
    who = "a caller without a name" if user is None else f"the user {user!r}"
    return PermissionDeniedError(f"{who} may not send {str(identifier)[:MAX_EXAMPLE]!r}")
