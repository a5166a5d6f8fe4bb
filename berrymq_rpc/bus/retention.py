"""Retained messages: who follows late hears the last message of each identifier at once.

Where something is retained, a route begins with a `Keeper`. It keeps the message while the routing
table is locked. So a receiver that begins to follow at that moment either is reached by the message
itself, or finds it among those that are retained: once in any case. What it has missed because the
route was looked up before, it gets as a retained message.
"""

import secrets
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from ..common.sizes import approximate_size
from ..identifier import Identifier
from .catch_up import CatchUp
from .delivery import Delivery
from .log import logger
from .message import Message, RetainedMessage, identifier_of, parts_of
from .registrations import Receiver, Registration
from .retained_store import Forgotten, Kept, RetainedStore, Share, Stamp
from .routing_table import Forwarder, Route, RoutingTable, Work

__all__ = ["MAX_AHEAD", "Retention", "RetentionListener"]

#: Bytes of a retained message beside its arguments.
OVERHEAD = 500

#: Seconds by which the clock of another bus may be ahead of this one's. What is further in the
#: future is not retained, as nothing could replace it.
MAX_AHEAD = 86_400


class RetentionListener(Protocol):
    """What carries retained messages to other processes."""

    def note(self, change: Kept | Forgotten) -> None:
        """Put a change aside, in the order of all. Called while the bus is locked."""

    def forward_noted(self, message: Message | None = None) -> None:
        """Carry what was noted. Called in any thread, and before receivers are; must not block.

        Args:
            message: the one that was sent, if one was.
        """


class Keeper:
    """Keeps the messages of a route.

    Args:
        found: the registrations that the route reaches.
        relayed: whether it is for messages of other processes.
    """

    __slots__ = ("found", "generation", "relayed", "retention")

    def __init__(
        self, retention: "Retention", found: list[Registration], relayed: bool, generation: int
    ) -> None:
        self.retention = retention
        self.found = found
        self.relayed = relayed
        self.generation = generation

    def __call__(self, message: Message) -> None:
        self.retention.keep(self, message)


class Keeping(Work):
    """One message that is sent on this bus, and kept."""

    __slots__ = ("_keeper", "_late", "_message", "_retention", "_size", "dropped")

    def __init__(self, retention: "Retention", keeper: Keeper, message: RetainedMessage) -> None:
        super().__init__()
        self.dropped = 0
        self._retention = retention
        self._keeper = keeper
        self._message = message
        self._size = size_of(message)
        self._late: list[Registration] = []

    def run(self) -> bool:
        retention, keeper = self._retention, self._keeper
        identifier = identifier_of(self._message)
        kept = Kept(identifier, self._message, retention.next_stamp(), self._size)
        self.dropped = retention.put(kept)
        if keeper.generation != retention.table.generation:
            known = set(keeper.found)
            self._late = [
                each
                for each in retention.table.matching(identifier, keeper.relayed)
                if each not in known
            ]
        return False

    def finish(self) -> None:
        retention = self._retention
        retention.report_dropped(self.dropped)
        if self.is_left:
            retention.forward_noted(self._message)
        if self._late:
            calls = tuple(map(retention.table.call_of, self._late))
            route = Route(identifier_of(self._message), calls, len(calls))
            retention.delivery.run(route, self._message)


class Taking(Work):
    """One message that another bus has retained.

    Args:
        known: what this bus has, if that is the same message, retained by several buses at times
            of their own: receivers have heard it.

    Attributes:
        is_news: whether it was newer than what was known.
        route: whom it reaches; ``None`` for nobody.
    """

    __slots__ = (
        "_is_live",
        "_kept",
        "_known",
        "_message",
        "_retention",
        "_run",
        "_share",
        "dropped",
        "is_news",
        "route",
    )

    def __init__(
        self,
        retention: "Retention",
        kept: Kept,
        message: Message,
        run: Callable[[Route, Message], object],
        share: Share | None,
        known: Kept | None,
    ) -> None:
        super().__init__()
        self.is_news = False
        self._known = known
        self._run = run
        self._share = share
        self.dropped = 0
        self.route: Route | None = None
        self._retention = retention
        self._kept = kept
        self._message = message
        #: One that was sent before is outdated, or of the same age, as a rule.
        self._is_live = message is not kept.message

    def run(self) -> bool:
        retention, kept = self._retention, self._kept
        table = retention.table
        if not retention.store.is_newer(kept.identifier, kept.stamp):
            known = retention.store.get(str(kept.identifier))
            if self._is_live and (known is None or known.stamp != kept.stamp):
                retention.store.outdated += 1
            return False
        self.is_news = True
        table.retention = retention
        is_new = not retention.store.wants(kept.identifier)
        retention.see(kept.stamp)
        if self._known is None or retention.store.get(str(kept.identifier)) is not self._known:
            found = table.matching(kept.identifier, True)
            calls = tuple(map(table.call_of, found))
            self.route = Route(kept.identifier, calls, len(calls))
        self.dropped = retention.put(kept, self._share)
        # This bus has to keep its own messages of this identifier now.
        return is_new

    def finish(self) -> None:
        self._retention.report_dropped(self.dropped)
        if self.route is not None:
            self._run(self.route, self._message)


class Forgetting(Work):
    """The end of retained messages."""

    __slots__ = ("_identifier", "_retention", "_stamp", "count")

    def __init__(self, retention: "Retention", identifier: Identifier, stamp: Stamp | None) -> None:
        super().__init__()
        self.count = 0
        self._retention = retention
        self._identifier = identifier
        self._stamp = stamp

    def run(self) -> bool:
        retention, stamp = self._retention, self._stamp
        if stamp is None:
            stamp = retention.next_stamp()
        else:
            retention.see(stamp)
        forgotten = Forgotten(self._identifier, stamp)
        is_news = retention.store.is_news(forgotten)
        self.count = retention.store.forget(forgotten)
        if is_news and not self._identifier.is_local:
            retention.note(forgotten)
        # What is not wanted any more needs no keeper.
        return bool(self.count)

    def finish(self) -> None:
        self._retention.forward_noted(None)


class Retention:
    """What a bus retains, and who has still to hear of it.

    Args:
        table: the registrations of the bus. It refers to this once something is retained.
        delivery: calls receivers.
        store: what is retained.
    """

    def __init__(self, table: RoutingTable, delivery: Delivery, store: RetainedStore) -> None:
        self.table = table
        self.delivery = delivery
        self.store = store
        #: The registrations that have not heard everything.
        self._catching_up: dict[Registration, CatchUp] = {}
        self._listeners: dict[RetentionListener, Forwarder | None] = {}
        self._last = 0
        #: Two buses must not have the same stamp.
        self._bus = secrets.randbits(62)

    # -- for the bus -------------------------------------------------------------------------

    def retain(self, identifier: Identifier) -> None:
        """As `Bus.retain`."""

        def want() -> None:
            self.store.want(identifier)
            self.table.retention = self

        self.table.change(want)

    def retained(self, identifier: Identifier) -> list[Kept]:
        """What matches, that which changed first first."""
        return self.table.read(lambda: self.store.find(identifier))

    def get(self, text: str) -> Kept | None:
        """The message with exactly this identifier."""
        return self.table.read(lambda: self.store.get(text))

    def forgotten(self) -> list[Forgotten]:
        """What was forgotten, so that no older message of it may come back."""
        return self.table.read(self.store.forgotten)

    def forget(self, identifier: Identifier, stamp: Stamp | None = None) -> int:
        """As `Bus.forget`.

        Args:
            stamp: from another bus, which has forgotten what is older than this.
        """
        work = Forgetting(self, identifier, stamp)
        self.table.do(work)
        return work.count

    def take(
        self,
        identifier: Identifier,
        message: Message,
        stamp: Stamp,
        run: Callable[[Route, Message], object],
        share: Share | None = None,
    ) -> bool:
        """Take a message that another bus has retained; return whether it was newer.

        Args:
            message: what receivers get.
            run: delivers it.
            share: of the peer that it came from.
        """
        retained = message if isinstance(message, RetainedMessage) else RetainedMessage(message)
        kept = Kept(identifier, retained, stamp, size_of(message))
        known: Kept | None = None
        if retained is message:
            known = self.get(str(identifier))
            if known is not None and not _is_same(known.message, message):
                known = None
        work = Taking(self, kept, message, run, share, known)
        self.table.do(work)
        return work.is_news

    def add_listener(self, listener: RetentionListener, instead_of: Forwarder | None) -> None:
        """As `Gateway.add_retention_listener`."""
        self.table.change(lambda: self._listeners.update({listener: instead_of}))

    def remove_listener(self, listener: RetentionListener) -> None:
        """Undo `add_listener`; nothing happens if it is not there."""
        self.table.change(lambda: self._listeners.pop(listener, None))

    # -- for the routing table, while it is locked ---------------------------------------------

    def forwarders(
        self,
        identifier: Identifier,
        found: list[Registration],
        relayed: bool,
        forwarders: tuple[Receiver, ...],
    ) -> tuple[Receiver, ...]:
        """What a route begins with."""
        if not self.store.wants(identifier):
            return forwarders
        keeper = Keeper(self, found, relayed, self.table.generation)
        if identifier.is_local:
            return (keeper,)
        replaced = self._listeners.values()
        left = [forwarder for forwarder in forwarders if forwarder not in replaced]
        noted = [listener.forward_noted for listener in self._listeners]
        return (keeper, *noted, *left)

    def substitute(self, registration: Registration) -> Receiver | None:
        """What is called instead of a registration that has not heard everything."""
        catch_up = self._catching_up.get(registration)
        return None if catch_up is None else catch_up.call

    def join(self, registration: Registration) -> Callable[[], object] | None:
        """Return what lets a new registration hear what is retained, if anything is."""
        is_local = registration.identifier.is_local
        retained = [
            kept.message
            for kept in self.store.find(registration.identifier)
            if not is_local or kept.message.origin is None
        ]
        if not retained:
            return None
        catch_up = CatchUp(registration, self.table, retained)
        self._catching_up[registration] = catch_up
        return partial(self._catch_up, catch_up)

    def next_stamp(self) -> Stamp:
        """The stamp of a message of this bus: greater than all that it has seen."""
        self._last = max(self._last + 1, time.time_ns() // 1000)
        return self._last, self._bus

    def see(self, stamp: Stamp) -> None:
        """Make later stamps greater than that of another bus."""
        self._last = max(self._last, stamp[0])

    def put(self, kept: Kept, share: Share | None = None) -> int:
        """Keep a message, and note it for other processes; return how many were dropped."""
        dropped = self.store.put(kept, share)
        if not kept.identifier.is_local:
            self.note(kept)
        return dropped

    def note(self, change: Kept | Forgotten) -> None:
        """Note a change for other processes."""
        for listener in self._listeners:
            listener.note(change)

    # -- afterwards ----------------------------------------------------------------------------

    def keep(self, keeper: Keeper, message: Message) -> None:
        """Keep a message that is sent on this bus."""
        self.table.do(Keeping(self, keeper, RetainedMessage(message)))

    def _catch_up(self, catch_up: CatchUp) -> None:
        registration = catch_up.registration
        try:
            catch_up.run(self.delivery)
        finally:
            self.table.change(lambda: self._catching_up.pop(registration, None))

    def forward_noted(self, message: Message | None) -> None:
        """Have listeners carry what was noted."""
        for listener in tuple(self._listeners):
            listener.forward_noted(message)

    def report_dropped(self, dropped: int) -> None:
        """Log that messages were dropped because of a bound."""
        if dropped:
            logger.warning(
                "retained: over max_retained=%d or max_retained_bytes=%d: %d messages dropped so "
                "far, the one that changed first each time",
                self.store.max_messages,
                self.store.max_bytes,
                self.store.dropped,
            )


def _is_same(one: Message, other: Message) -> bool:
    """Whether two messages with one identifier have the same origin and the same arguments."""
    if one.origin is None or one.origin != other.origin:
        return False
    (_, args, kwargs), (_, other_args, other_kwargs) = parts_of(one), parts_of(other)
    if len(args) != len(other_args) or kwargs.keys() != other_kwargs.keys():
        return False
    pairs = [*zip(args, other_args, strict=True), *((kwargs[k], other_kwargs[k]) for k in kwargs)]
    try:
        return all(type(value) is type(another) and value == another for value, another in pairs)
    except Exception:
        # Values of classes of the user's own, and arrays, may not be comparable.
        return False


def size_of(message: Message) -> int:
    """About how many bytes a message takes."""
    text, args, kwargs = parts_of(message)
    size: int = OVERHEAD + len(text) + approximate_size(args)
    return size + approximate_size(kwargs) if kwargs else size


def is_acceptable(stamp: Any, now: float) -> bool:
    """Whether what a peer sent is a stamp, and not too far in the future.

    Args:
        now: seconds since 1970.
    """
    match stamp:
        case (int(when), int(number)) | [int(when), int(number)]:
            return 0 <= when <= (now + MAX_AHEAD) * 10**6 and 0 <= number < 1 << 62
        case _:
            return False
