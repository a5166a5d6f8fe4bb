"""What a node of a cluster subscribes to: what its bus follows, or all if it is a gateway."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable

from ...bus.routing_table import Parts
from ...identifier import WILDCARD
from ...nats.connection import Connection, Subscription
from ..durable.streams import DEAD, dead_subjects
from ..mesh import Mesh
from ..send_buffer import SendBuffer
from ..subject import all_subjects, patterns_of
from .intake import ClusterIntake

__all__ = ["CONFIRM_TIMEOUT", "ClusterInterest"]

#: Seconds that the server has to confirm what was published or subscribed to.
CONFIRM_TIMEOUT = 5.0

#: Seconds between two attempts to ask it while there is none.
PAUSE = 1.0


class ClusterInterest:
    """The subscriptions of a node. All of them have one queue group.

    Args:
        connection: to NATS.
        namespace: of the cluster.
        group: the queue group.
        mesh: with links, the node is a gateway.
        send_buffer: by which the mesh knows the cluster.
        intake: takes what comes, and learns which messages do.
        on_subscribed: called with each pattern that is subscribed to from then on.
    """

    def __init__(
        self,
        connection: Connection,
        namespace: str,
        group: str,
        mesh: Mesh,
        send_buffer: SendBuffer,
        intake: ClusterIntake,
        on_subscribed: Callable[[str], object],
    ) -> None:
        self._on_subscribed = on_subscribed
        self._connection = connection
        self._namespace = namespace
        self._group = group
        self._mesh = mesh
        self._send_buffer = send_buffer
        self._intake = intake
        self._order = intake.order
        self._loop = connection.loop
        self._thread = threading.get_ident()
        self._dead: Subscription | None = None
        #: How many identifiers that are followed match dead letters.
        self._dead_followed = 0
        #: Changes of what is followed, in the order in which they were made.
        self._changes: deque[tuple[Parts, bool]] = deque()
        self._will_update = False
        #: How many identifiers that are followed need each pattern.
        self._needed: dict[str, int] = {}
        self._subscriptions: dict[str, Subscription] = {}
        #: Whether subscriptions have changed since the server was asked for a confirmation.
        self._has_changed = False
        self._settling: asyncio.Task[None] | None = None
        #: Of all messages, while this node is a gateway or becomes one.
        self._all: Subscription | None = None
        self._switch: asyncio.Task[None] | None = None
        self._is_closed = False

    def close(self) -> None:
        """Change nothing any more."""
        self._is_closed = True
        self._changes.clear()
        for task in (self._switch, self._settling):
            if task is not None:
                task.cancel()

    async def wait_closed(self) -> None:
        """Wait until what it still did has ended."""
        tasks = [task for task in (self._switch, self._settling) if task is not None]
        if tasks:
            await asyncio.wait(tasks)

    async def settled(self, timeout: float | None) -> None:
        """Wait until the server was told what is followed now, or the time is over."""
        if self._will_update:
            self.update()
        if self._switch is not None:
            await asyncio.wait((self._switch,), timeout=timeout)

    def followed(self, parts: Parts, is_followed: bool) -> None:
        """Note a change of what is followed, as a `FollowListener`."""
        if self._is_closed or parts[1].startswith("_"):
            return
        self._changes.append((parts, is_followed))
        if self._will_update:
            return
        self._will_update = True
        try:
            if threading.get_ident() == self._thread:
                self._loop.call_soon(self.update)
            else:
                self._loop.call_soon_threadsafe(self.update)
        except RuntimeError:
            # The loop was closed, and the node was not.
            self._changes.clear()

    def update(self) -> None:
        """Subscribe to what is followed now."""
        self._will_update = False
        if self._is_closed:
            return
        touched: set[str] = set()
        while self._changes:
            parts, is_followed = self._changes.popleft()
            if parts[1] in (DEAD, WILDCARD) and parts[0] in (None, WILDCARD):
                self._dead_followed += 1 if is_followed else -1
            for pattern in patterns_of(self._namespace, parts):
                self._needed[pattern] = self._needed.get(pattern, 0) + (1 if is_followed else -1)
                touched.add(pattern)
        if self._dead_followed and self._dead is None:
            self._dead = self._connection.subscribe(
                dead_subjects(self._namespace), self._intake.receive_dead, self._group
            )
        elif not self._dead_followed and self._dead is not None:
            self._connection.unsubscribe(self._dead)
            self._dead = None
        for pattern in touched:
            if not self._needed[pattern]:
                del self._needed[pattern]
            if self._all is None:
                self._set_subscribed(pattern)
        if self._has_changed and self._settling is None:
            self._settling = self._loop.create_task(
                self._settle(), name=f"subscriptions of {self!r}"
            )

    async def _settle(self) -> None:
        """Wait until the server has the subscriptions."""
        while self._has_changed:
            self._has_changed = False
            while not await self._connection.flush(CONFIRM_TIMEOUT):
                # There is no link: a new one has the subscriptions from its beginning.
                await asyncio.sleep(PAUSE)
        self._order.settle()
        self._settling = None

    def _set_subscribed(self, pattern: str) -> None:
        if (pattern in self._needed) == (pattern in self._subscriptions):
            return
        self._has_changed = True
        self._order.unsettle()
        if pattern in self._needed:
            self._subscriptions[pattern] = self._subscribe(pattern)
            return
        self._connection.unsubscribe(self._subscriptions.pop(pattern))
        # What is published from now on is not missed.
        if "*" in pattern:
            self._order.forget_subjects()
        else:
            self._order.forget_subject(pattern)

    @property
    def patterns(self) -> tuple[str, ...]:
        """What is subscribed to."""
        if self._all is not None:
            return (all_subjects(self._namespace),)
        return tuple(self._subscriptions)

    def _subscribe(self, pattern: str) -> Subscription:
        self._on_subscribed(pattern)
        return self._connection.subscribe(pattern, self._intake.receive, self._group)

    def links_changed(self) -> None:
        """Become a gateway with the mesh's first link, and none with the last one."""
        if self._switch is None and bool(self._mesh.links) != self._intake.is_whole:
            self._switch = self._loop.create_task(self._change_scope(), name=f"scope of {self!r}")

    async def _change_scope(self) -> None:
        """Subscribe to all messages, or to what is followed only, as the node has links or not."""
        while (wanted := bool(self._mesh.links)) != self._intake.is_whole:
            if wanted:
                if self._all is None:
                    self._all = self._subscribe(all_subjects(self._namespace))
            else:
                for pattern in self._needed:
                    self._set_subscribed(pattern)
            while not await self._connection.flush(CONFIRM_TIMEOUT):
                # There is no link: a new one has the subscriptions from its beginning.
                await asyncio.sleep(PAUSE)
            self._intake.is_whole = wanted
            # From here on all that comes was subscribed to in the new way.
            if wanted:
                for subscription in self._subscriptions.values():
                    self._connection.unsubscribe(subscription)
                self._subscriptions.clear()
                self._mesh.router.reorder.add_link(self._send_buffer)
            else:
                assert self._all is not None
                subscription, self._all = self._all, None
                self._order.forget_subjects()
                for pattern in {*self._needed, *self._subscriptions}:
                    self._set_subscribed(pattern)
                self._connection.unsubscribe(subscription)
                self.update()
                self._mesh.leave_order(self._send_buffer)
        self._switch = None

    def __repr__(self) -> str:
        return f"<ClusterInterest of {self._namespace}>"
