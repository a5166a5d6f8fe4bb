"""Which receivers a message reaches: the registrations of a bus, and the routes found in them.

The receivers of an identifier are looked up once, in the `SubscriptionIndex`, and kept as a `Route`
under the text that was sent; to find the route again takes no lock. Each change of the
registrations discards all routes. So a message reaches those who followed when it was sent,
whatever its receivers change.

Changes are put into a queue, and the thread that holds the lock makes them. The reason is garbage
collection: it ends registrations, and runs ``__del__`` methods that may use the bus, in any thread
and between any two instructions, those of a change included. Then the thread that asks for a change
holds the lock already, and the change is made when the interrupted one is complete.
"""

import itertools
import threading
import types
import weakref
from collections import deque
from collections.abc import Callable
from operator import attrgetter
from typing import Protocol, TypeAlias, TypeVar

from ..common.measures import LOCAL, Measures
from ..identifier import Identifier
from .message import Message
from .registrations import (
    ClassMethodRegistration,
    FunctionRegistration,
    Guard,
    MethodRegistration,
    Receiver,
    Registration,
    check_receiver,
    receiver_key,
)
from .subscription_index import FollowListener, Parts, SubscriptionIndex

__all__ = [
    "MAX_ROUTES",
    "FollowListener",
    "Forwarder",
    "LateJoins",
    "Parts",
    "Route",
    "RoutingTable",
    "SubscriptionIndex",
    "Work",
]

# Routes kept. One takes some 400 bytes, so all of them a few MB; a program that makes up an
# identifier for each message (``"user-7125:login"``) must not keep them all.
MAX_ROUTES = 10_000

Forwarder: TypeAlias = Callable[[Message], object]


class Route:
    """What is called with a message of one identifier.

    Attributes:
        identifier: the identifier, parsed.
        calls: what is called with the message, forwarders first.
        reached: how many of the calls are receivers, and not forwarders.
    """

    __slots__ = ("calls", "identifier", "reached")

    def __init__(self, identifier: Identifier, calls: tuple[Receiver, ...], reached: int) -> None:
        self.identifier = identifier
        self.calls = calls
        self.reached = reached

    @property
    def forwarders(self) -> tuple[Receiver, ...]:
        """The calls that come first, and do not count."""
        return self.calls[: len(self.calls) - self.reached]

    @property
    def receivers(self) -> tuple[Receiver, ...]:
        """The calls that count."""
        return self.calls[len(self.calls) - self.reached :]


Read = TypeVar("Read")

Routes: TypeAlias = dict[str | Identifier, Route]


class LateJoins(Protocol):
    """What is retained, and who has still to hear of it. Called while the table is locked."""

    def forwarders(
        self,
        identifier: Identifier,
        found: list[Registration],
        relayed: bool,
        forwarders: tuple[Receiver, ...],
    ) -> tuple[Receiver, ...]:
        """What a route begins with, instead of the table's forwarders."""

    def substitute(self, registration: Registration) -> Receiver | None:
        """What is called instead of a registration that has not heard everything."""

    def join(self, registration: Registration) -> Callable[[], object] | None:
        """Return what lets a new registration hear what is retained, if anything is."""


class Work:
    """A change that leaves something to do when the table is not locked any more.

    Attributes:
        is_done: whether `run` has returned.
        is_left: whether the thread that asked for it leaves `finish` to the one that makes it.
    """

    __slots__ = ("is_done", "is_left")

    def __init__(self) -> None:
        self.is_done = False
        self.is_left = False

    def run(self) -> bool:
        """Make the change, while the table is locked; return whether it changes routes."""
        raise NotImplementedError

    def finish(self) -> None:
        """Do the rest, which may call receivers."""
        raise NotImplementedError


class Joining(Work):
    """The beginning of a registration, which hears what is retained."""

    __slots__ = ("_hear", "_registration", "_table")

    def __init__(self, table: "RoutingTable", registration: Registration) -> None:
        super().__init__()
        self._table = table
        self._registration = registration
        self._hear: Callable[[], object] | None = None

    def run(self) -> bool:
        table = self._table
        if table.add(self._registration) and table.retention is not None:
            self._hear = table.retention.join(self._registration)
        return True

    def finish(self) -> None:
        if self._hear is not None:
            self._hear()


class RoutingTable:
    """The registrations and forwarders of a bus. Safe for any number of threads.

    Attributes:
        routes: the routes found so far, by what was sent.
        relayed_routes: the same for messages from other processes, which reach no local name.
        retention: what is retained; ``None`` while nothing is.
        meter: counts the messages; ``None`` while nothing does. Its place in a route is before the
            forwarders.
        generation: how often the registrations have changed.
    """

    def __init__(self) -> None:
        self.routes: Routes = {}
        self.relayed_routes: Routes = {}
        self.retention: LateJoins | None = None
        self.meter: Measures | None = None
        self.generation = 0
        self._index: SubscriptionIndex[Registration] = SubscriptionIndex()
        self._call: Callable[[Registration], Receiver] = attrgetter("call")
        self._forwarders: tuple[Forwarder, ...] = ()
        self._numbers = itertools.count()
        self._lock = threading.RLock()
        self._changes: deque[Callable[[], object] | Work] = deque()
        #: Done, and left to the thread that did it to finish.
        self._left: deque[Work] = deque()
        self._busy = False
        self._on_collected = _remover(weakref.ref(self))

    def follow(self, identifier: Identifier, receiver: Receiver, guard: Guard | None) -> None:
        """Let a receiver follow. Arguments and exceptions are those of `Bus.regist_function`."""
        check_receiver(receiver)
        number = next(self._numbers)
        registration: Registration
        if isinstance(receiver, types.MethodType):
            of_class = issubclass(type(receiver.__self__), type)
            kind = ClassMethodRegistration if of_class else MethodRegistration
            registration = kind(receiver, identifier, guard, number, self._on_collected)
        else:
            registration = FunctionRegistration(receiver, identifier, guard, number)
        self.do(Joining(self, registration))

    def add(self, registration: Registration) -> bool:
        """Add a registration, within a change; ``False`` if it is there already."""
        return self._index.add(registration)

    def unfollow(self, identifier: Identifier, receiver: Receiver) -> int:
        """Remove a receiver's registrations for an identifier; how many there were."""
        key = receiver_key(receiver)
        removed: list[int] = []
        self.change(lambda: removed.append(self._index.remove(identifier, key)))
        return sum(removed)

    def discard(self, registration: Registration) -> None:
        """Remove a registration whose object is gone. Called by garbage collection."""
        # It must not wait for a thread that may itself wait for what this one holds.
        self.change(lambda: self._index.discard(registration), blocking=False)

    def add_forwarder(self, forwarder: Forwarder) -> None:
        """Put a forwarder after the present ones."""

        def add() -> None:
            self._forwarders = (*self._forwarders, forwarder)

        self.change(add)

    def remove_forwarder(self, forwarder: Forwarder) -> None:
        """Remove a forwarder, if it is there."""

        def remove() -> None:
            self._forwarders = tuple(kept for kept in self._forwarders if kept != forwarder)

        self.change(remove)

    def add_follow_listener(self, listener: FollowListener) -> None:
        """Report each identifier that is followed now, and then every change of them."""

        def add() -> None:
            for parts in self._index.identifiers():
                listener(parts, True)
            self._index.follow_listeners += (listener,)

        self.change(add)

    def remove_follow_listener(self, listener: FollowListener) -> None:
        """Undo `add_follow_listener`; nothing happens if it is not there."""

        def remove() -> None:
            self._index.follow_listeners = tuple(
                kept for kept in self._index.follow_listeners if kept != listener
            )

        self.change(remove)

    def set_call(self, call: Callable[[Registration], Receiver]) -> None:
        """Set how registrations are called: by what `call` returns for each."""

        def change() -> None:
            self._call = call

        self.change(change)

    def measure(self, meter: Measures) -> None:
        """Have a meter count the messages from now on."""

        def change() -> None:
            self.meter = meter

        self.change(change)

    def find(self, sent: Identifier | str, relayed: bool = False) -> Route:
        """Look up the route of what was sent, and keep it for the next time.

        Raises:
            ValueError, TypeError: it is not an identifier, or it was relayed and is local.
        """
        identifier = Identifier(sent)
        if relayed and identifier.is_local:
            raise ValueError(f"{str(identifier)!r} is local: no other process may send it")
        with self._lock:
            # Not a context manager: a program may make up an identifier for each message.
            interrupted, self._busy = self._busy, True
            try:
                found = self.matching(identifier, relayed)
                forwarders: tuple[Receiver, ...] = ()
                if not identifier.is_local:
                    forwarders = self._forwarders
                retention = self.retention
                if retention is None:
                    calls = (*forwarders, *map(self._call, found))
                else:
                    forwarders = retention.forwarders(identifier, found, relayed, forwarders)
                    calls = (*forwarders, *map(self.call_of, found))
                if self.meter is not None:
                    calls = (_counter(self.meter, identifier, len(found), relayed), *calls)
                route = Route(identifier, calls, len(found))
                routes = self.relayed_routes if relayed else self.routes
                if len(routes) >= MAX_ROUTES:
                    routes.clear()
                routes[sent] = route
            finally:
                self._busy = interrupted
        if self._changes:
            self._make_changes(blocking=False)
        return route

    def matching(self, identifier: Identifier, relayed: bool) -> list[Registration]:
        """Who follows what a message has as its identifier; while the table is locked."""
        found = self._index.find(identifier)
        return [item for item in found if not item.identifier.is_local] if relayed else found

    def call_of(self, registration: Registration) -> Receiver:
        """How a registration is called now."""
        retention = self.retention
        substitute = None if retention is None else retention.substitute(registration)
        return self._call(registration) if substitute is None else substitute

    def later_call_of(self, registration: Registration) -> Receiver:
        """How a registration is called that has caught up."""
        return self._call(registration)

    def registrations(self) -> list[Registration]:
        """All registrations, oldest first."""
        return self.read(self._index.all)

    def read(self, read: Callable[[], Read]) -> Read:
        """Return what `read` does while nothing changes."""
        with self._lock:
            interrupted, self._busy = self._busy, True
            try:
                found = read()
            finally:
                self._busy = interrupted
        if self._changes:
            self._make_changes(blocking=False)
        return found

    def statistics(self) -> dict[str, int]:
        """Counts, for `Bus.statistics`."""
        return {
            "registrations": len(self._index),
            "routes_cached": len(self.routes) + len(self.relayed_routes),
            "changes_waiting": len(self._changes),
        }

    def __len__(self) -> int:
        return len(self._index)

    def change(self, change: Callable[[], object], blocking: bool = True) -> None:
        """Make a change of the registrations; when this returns, it is in force."""
        self._changes.append(change)
        self._make_changes(blocking)

    def do(self, work: Work) -> None:
        """Make a change, and then do what it leaves to do."""
        self._changes.append(work)
        self._make_changes(blocking=True)
        if work.is_done:
            work.finish()
        else:
            # It is made when what this thread was interrupted in is complete.
            work.is_left = True

    def _make_changes(self, blocking: bool) -> None:
        """Make the changes that wait, or leave them to the thread that holds the lock."""
        while self._lock.acquire(blocking):
            try:
                if self._busy:
                    # This thread was interrupted in the middle of a change or a lookup.
                    return
                self._busy = True
                generation = self.generation
                try:
                    while self._changes:
                        self._make(self._changes.popleft())
                finally:
                    self._busy = False
                    if self.generation != generation:
                        self.routes, self.relayed_routes = {}, {}
            finally:
                self._lock.release()
            while self._left:
                try:
                    left = self._left.popleft()
                except IndexError:
                    # Another thread was faster.
                    break
                left.finish()
            # Another thread may have added a change, and left without the lock.
            if not self._changes:
                return

    def _make(self, change: Callable[[], object] | Work) -> None:
        is_changed = True
        try:
            if isinstance(change, Work):
                is_changed = change.run()
                change.is_done = True
                if change.is_left:
                    self._left.append(change)
            else:
                change()
        finally:
            # Afterwards, as a lookup that comes in the middle of it may not see all of it.
            self.generation += is_changed


def _counter(meter: Measures, identifier: Identifier, found: int, relayed: bool) -> Receiver:
    """What counts the messages of a route."""
    name = LOCAL if identifier.is_local else str(identifier)

    def count_relayed(message: Message) -> None:
        meter.relayed(name, is_followed=found > 0)

    return count_relayed if relayed else meter.publisher(name)


def _remover(reference: "weakref.ref[RoutingTable]") -> Callable[[MethodRegistration], None]:
    """What removes a registration when its object is gone; it does not keep the table alive."""

    def on_collected(registration: MethodRegistration) -> None:
        table = reference()
        if table is not None:
            table.discard(registration)

    return on_collected
