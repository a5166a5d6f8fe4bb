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
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import TypeAlias

from ..identifier import WILDCARD, Identifier
from .message import Message
from .registrations import (
    ClassMethodRegistration,
    FunctionRegistration,
    Guard,
    MethodRegistration,
    Receiver,
    ReceiverKey,
    Registration,
    check_receiver,
    receiver_key,
)

__all__ = [
    "MAX_ROUTES",
    "FollowListener",
    "Forwarder",
    "Parts",
    "Route",
    "RoutingTable",
    "SubscriptionIndex",
]

# Routes kept. One takes some 400 bytes, so all of them a few MB; a program that makes up an
# identifier for each message (``"user-7125:login"``) must not keep them all.
MAX_ROUTES = 10_000

Forwarder: TypeAlias = Callable[[Message], object]

#: Namespace, name and action of an identifier.
Parts: TypeAlias = tuple[str | None, str, str]

#: Called as ``listener(parts, is_followed)`` when an identifier gets its first registration, and
#: when it loses its last one.
FollowListener: TypeAlias = Callable[[Parts, bool], object]


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


Routes: TypeAlias = dict[str | Identifier, Route]


class RoutingTable:
    """The registrations and forwarders of a bus. Safe for any number of threads.

    Attributes:
        routes: the routes found so far, by what was sent.
        relayed_routes: the same for messages from other processes, which reach no local name.
    """

    def __init__(self) -> None:
        self.routes: Routes = {}
        self.relayed_routes: Routes = {}
        self._index = SubscriptionIndex()
        self._call: Callable[[Registration], Receiver] = attrgetter("call")
        self._forwarders: tuple[Forwarder, ...] = ()
        self._numbers = itertools.count()
        self._lock = threading.RLock()
        self._changes: deque[Callable[[], object]] = deque()
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
        self._change(lambda: self._index.add(registration))

    def unfollow(self, identifier: Identifier, receiver: Receiver) -> int:
        """Remove a receiver's registrations for an identifier; how many there were."""
        key = receiver_key(receiver)
        removed: list[int] = []
        self._change(lambda: removed.append(self._index.remove(identifier, key)))
        return sum(removed)

    def discard(self, registration: Registration) -> None:
        """Remove a registration whose object is gone. Called by garbage collection."""
        # It must not wait for a thread that may itself wait for what this one holds.
        self._change(lambda: self._index.discard(registration), blocking=False)

    def add_forwarder(self, forwarder: Forwarder) -> None:
        """Put a forwarder after the present ones."""

        def add() -> None:
            self._forwarders = (*self._forwarders, forwarder)

        self._change(add)

    def remove_forwarder(self, forwarder: Forwarder) -> None:
        """Remove a forwarder, if it is there."""

        def remove() -> None:
            self._forwarders = tuple(kept for kept in self._forwarders if kept != forwarder)

        self._change(remove)

    def add_follow_listener(self, listener: FollowListener) -> None:
        """Report each identifier that is followed now, and then every change of them."""

        def add() -> None:
            for parts in self._index.identifiers():
                listener(parts, True)
            self._index.follow_listeners += (listener,)

        self._change(add)

    def remove_follow_listener(self, listener: FollowListener) -> None:
        """Undo `add_follow_listener`; nothing happens if it is not there."""

        def remove() -> None:
            self._index.follow_listeners = tuple(
                kept for kept in self._index.follow_listeners if kept != listener
            )

        self._change(remove)

    def set_call(self, call: Callable[[Registration], Receiver]) -> None:
        """Set how registrations are called: by what `call` returns for each."""

        def change() -> None:
            self._call = call

        self._change(change)

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
                found = self._index.find(identifier)
                if relayed:
                    found = [item for item in found if not item.identifier.is_local]
                calls = tuple(map(self._call, found))
                if not identifier.is_local:
                    calls = (*self._forwarders, *calls)
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

    def registrations(self) -> list[Registration]:
        """All registrations, oldest first."""
        with self._lock:
            interrupted, self._busy = self._busy, True
            try:
                found = self._index.all()
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

    def _change(self, change: Callable[[], object], blocking: bool = True) -> None:
        """Make a change of the registrations; when this returns, it is in force."""
        self._changes.append(change)
        self._make_changes(blocking)

    def _make_changes(self, blocking: bool) -> None:
        """Make the changes that wait, or leave them to the thread that holds the lock."""
        while self._lock.acquire(blocking):
            try:
                if self._busy:
                    # This thread was interrupted in the middle of a change or a lookup.
                    return
                self._busy = True
                try:
                    while self._changes:
                        self._changes.popleft()()
                finally:
                    self._busy = False
                    self.routes, self.relayed_routes = {}, {}
            finally:
                self._lock.release()
            # Another thread may have added a change, and left without the lock.
            if not self._changes:
                return


def _remover(reference: "weakref.ref[RoutingTable]") -> Callable[[MethodRegistration], None]:
    """What removes a registration when its object is gone; it does not keep the table alive."""

    def on_collected(registration: MethodRegistration) -> None:
        table = reference()
        if table is not None:
            table.discard(registration)

    return on_collected


#: Parts at some of the positions.
SomeParts: TypeAlias = tuple[str | None, ...]

# The registrations of one receiver for one identifier differ in their guards only.
Bucket: TypeAlias = dict[ReceiverKey, tuple[Registration, ...]]

# Namespace, name, action.
PARTS = 3

_number = attrgetter("number")


class SubscriptionIndex:
    """The registrations of a bus, by what they follow; a lookup skips those that do not match.

    Registrations lie in one bucket for each identifier. A message's identifier has three parts, and
    each matches its equal and the wildcard: a message without wildcards finds its buckets by
    2**3 = 8 lookups. A part of the message that is a wildcard itself matches every part of a
    receiver; for each such combination of parts, once a message has one, there is an index of the
    receivers' identifiers by their other parts.

    It has no lock: `RoutingTable` serializes changes and lookups. One exception is allowed, since
    garbage collection runs foreign code at any point: a lookup may come in the middle of a change
    or of another lookup, by the same thread. So no lookup adds a key to a dict that a change
    iterates over, and no change relies on what a lookup may have built.
    """

    __slots__ = ("_buckets", "_partial", "follow_listeners")

    def __init__(self) -> None:
        self.follow_listeners: tuple[FollowListener, ...] = ()
        self._buckets: dict[Parts, Bucket] = {}
        # By the positions of the parts that are no wildcards in the message, the receivers'
        # identifiers by those parts; `None` until a message needs it. The innermost is a dict for
        # want of an ordered set.
        self._partial: dict[tuple[int, ...], dict[SomeParts, dict[Parts, None]] | None] = {
            positions: None
            for length in range(PARTS)
            for positions in itertools.combinations(range(PARTS), length)
        }

    def add(self, registration: Registration) -> bool:
        """Add a registration; `False` if the same receiver and guard are there already."""
        parts = parts_of(registration.identifier)
        bucket = self._buckets.get(parts)
        if bucket is None:
            bucket = self._buckets[parts] = {}
            for positions, keys in self._partial.items():
                if keys is not None:
                    keys.setdefault(_project(parts, positions), {})[parts] = None
        present = bucket.get(registration.key, ())
        if any(other.guard is registration.guard for other in present):
            return False
        is_first = not bucket
        bucket[registration.key] = (*present, registration)
        if is_first:
            self._report(parts, True)
        return True

    def discard(self, registration: Registration) -> bool:
        """Remove this registration; `False` if it was not there."""
        parts = parts_of(registration.identifier)
        present = self._buckets.get(parts, {}).get(registration.key, ())
        left = tuple(other for other in present if other is not registration)
        if len(left) == len(present):
            return False
        if left:
            self._buckets[parts][registration.key] = left
        else:
            self._drop(parts, registration.key)
        return True

    def remove(self, identifier: Identifier, key: ReceiverKey) -> int:
        """Remove all of a receiver's registrations for an identifier; how many there were."""
        parts = parts_of(identifier)
        present = self._buckets.get(parts, {}).get(key, ())
        if present:
            self._drop(parts, key)
        return len(present)

    def find(self, identifier: Identifier) -> list[Registration]:
        """The registrations that a message of this identifier reaches, oldest first."""
        found: list[Registration] = []
        for parts in self.candidates(parts_of(identifier)):
            bucket = self._buckets.get(parts)
            if bucket is not None:
                for registrations in bucket.values():
                    found += registrations
        found.sort(key=_number)
        return found

    def all(self) -> list[Registration]:
        """All registrations, oldest first."""
        found: list[Registration] = []
        for bucket in self._buckets.values():
            for registrations in bucket.values():
                found += registrations
        found.sort(key=_number)
        return found

    def identifiers(self) -> list[Parts]:
        """The identifiers that have registrations."""
        return list(self._buckets)

    def candidates(self, parts: Parts) -> Iterable[Parts]:
        """The receivers' identifiers that may match; not all of them need be there."""
        if WILDCARD not in parts:
            namespace, name, action = parts
            return itertools.product((namespace, WILDCARD), (name, WILDCARD), (action, WILDCARD))
        positions = tuple(place for place, part in enumerate(parts) if part != WILDCARD)
        keys = self._partial[positions]
        if keys is None:
            keys = {}
            for known in self._buckets:
                keys.setdefault(_project(known, positions), {})[known] = None
            self._partial[positions] = keys
        found: list[Parts] = []
        for projected in itertools.product(*((parts[place], WILDCARD) for place in positions)):
            found += keys.get(projected, ())
        return found

    @property
    def keys_held(self) -> int:
        """How many identifiers, and parts of them, it holds; 0 without registrations."""
        return len(self._buckets) + sum(len(keys) for keys in self._partial.values() if keys)

    def __len__(self) -> int:
        return sum(len(group) for bucket in self._buckets.values() for group in bucket.values())

    def _report(self, parts: Parts, is_followed: bool) -> None:
        for listener in self.follow_listeners:
            listener(parts, is_followed)

    def _drop(self, parts: Parts, key: ReceiverKey) -> None:
        bucket = self._buckets[parts]
        del bucket[key]
        if bucket:
            return
        del self._buckets[parts]
        for positions, keys in self._partial.items():
            if keys is None:
                continue
            projected = _project(parts, positions)
            group = keys.get(projected, {})
            group.pop(parts, None)
            if not group:
                keys.pop(projected, None)
        self._report(parts, False)


def parts_of(identifier: Identifier) -> Parts:
    """Namespace, name and action."""
    return identifier.namespace, identifier.name, identifier.action


def _project(parts: Parts, positions: tuple[int, ...]) -> SomeParts:
    return tuple(parts[place] for place in positions)
