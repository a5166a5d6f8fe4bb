"""Registrations by what they follow, so that a lookup skips those that do not match."""

import itertools
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Generic, Protocol, TypeAlias, TypeVar

from ..identifier import WILDCARD, Identifier
from .registrations import Guard, ReceiverKey

__all__ = ["FollowListener", "Indexed", "Parts", "SubscriptionIndex", "parts_of"]

#: Namespace, name and action of an identifier.
Parts: TypeAlias = tuple[str | None, str, str]

#: Called as ``listener(parts, is_followed)`` when an identifier gets its first registration, and
#: when it loses its last one.
FollowListener: TypeAlias = Callable[[Parts, bool], object]


class Indexed(Protocol):
    """What an index holds: a registration, or a message that is retained."""

    @property
    def identifier(self) -> Identifier: ...

    @property
    def key(self) -> ReceiverKey: ...

    @property
    def guard(self) -> Guard | None: ...

    @property
    def number(self) -> int: ...


Item = TypeVar("Item", bound=Indexed)

#: Parts at some of the positions.
SomeParts: TypeAlias = tuple[str | None, ...]

# The registrations of one receiver for one identifier differ in their guards only.
Bucket: TypeAlias = dict[ReceiverKey, tuple[Item, ...]]

# Namespace, name, action.
PARTS = 3

_number = attrgetter("number")


class SubscriptionIndex(Generic[Item]):
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
        self._buckets: dict[Parts, Bucket[Item]] = {}
        # By the positions of the parts that are no wildcards in the message, the receivers'
        # identifiers by those parts; `None` until a message needs it. The innermost is a dict for
        # want of an ordered set.
        self._partial: dict[tuple[int, ...], dict[SomeParts, dict[Parts, None]] | None] = {
            positions: None
            for length in range(PARTS)
            for positions in itertools.combinations(range(PARTS), length)
        }

    def add(self, registration: Item) -> bool:
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

    def discard(self, registration: Item) -> bool:
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

    def find(self, identifier: Identifier) -> list[Item]:
        """The registrations that a message of this identifier reaches, oldest first."""
        found: list[Item] = []
        for parts in self.candidates(parts_of(identifier)):
            bucket = self._buckets.get(parts)
            if bucket is not None:
                for registrations in bucket.values():
                    found += registrations
        found.sort(key=_number)
        return found

    def all(self) -> list[Item]:
        """All registrations, oldest first."""
        found: list[Item] = []
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
