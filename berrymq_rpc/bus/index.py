"""Which registrations a message reaches, found without a look at those that it does not reach.

Registrations lie in one bucket for each identifier. A message's identifier has three parts, and
each meets only its equal and the wildcard: a message without wildcards finds its buckets by
2**3 = 8 lookups. A part of the message that is a wildcard itself meets every part of a receiver;
for each such combination of parts, once a message has one, there is an index of the receivers'
identifiers by their other parts.

The index has no lock: the bus sees to it that changes and lookups come one after another. One
exception is allowed, since garbage collection runs foreign code at any point: a lookup may come in
the middle of a change or of another lookup, by the same thread. So no lookup adds a key to a dict
that a change walks over, and no change takes for granted what a lookup may have built.
"""

import itertools
from collections.abc import Iterable
from operator import attrgetter
from typing import TypeAlias

from ..identifier import WILDCARD, Identifier
from .registrations import ReceiverKey, Registration

__all__ = ["Index"]

Parts: TypeAlias = tuple[str | None, ...]
# The registrations of one receiver for one identifier differ in their guards only.
Bucket: TypeAlias = dict[ReceiverKey, tuple[Registration, ...]]

# Namespace, name, action.
PARTS = 3

_number = attrgetter("number")


class Index:
    """The registrations of a bus, by what they follow."""

    __slots__ = ("_buckets", "_partial")

    def __init__(self) -> None:
        self._buckets: dict[Parts, Bucket] = {}
        # By the positions of the parts that are no wildcards in the message, the receivers'
        # identifiers by those parts; `None` until a message needs it. The innermost is a dict for
        # want of an ordered set.
        self._partial: dict[tuple[int, ...], dict[Parts, dict[Parts, None]] | None] = {
            positions: None
            for length in range(PARTS)
            for positions in itertools.combinations(range(PARTS), length)
        }

    def add(self, registration: Registration) -> bool:
        """Take up a registration; `False` if the same receiver and guard are there already."""
        parts = _parts(registration.identifier)
        bucket = self._buckets.get(parts)
        if bucket is None:
            bucket = self._buckets[parts] = {}
            for positions, keys in self._partial.items():
                if keys is not None:
                    keys.setdefault(_project(parts, positions), {})[parts] = None
        present = bucket.get(registration.key, ())
        if any(other.guard is registration.guard for other in present):
            return False
        bucket[registration.key] = (*present, registration)
        return True

    def discard(self, registration: Registration) -> bool:
        """Let go of this registration; `False` if it was not there."""
        parts = _parts(registration.identifier)
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
        """Let go of all of a receiver's registrations for an identifier; how many there were."""
        parts = _parts(identifier)
        present = self._buckets.get(parts, {}).get(key, ())
        if present:
            self._drop(parts, key)
        return len(present)

    def find(self, identifier: Identifier) -> list[Registration]:
        """The registrations that a message of this identifier reaches, oldest first."""
        found: list[Registration] = []
        for parts in self._matching(_parts(identifier)):
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

    def __len__(self) -> int:
        return sum(len(group) for bucket in self._buckets.values() for group in bucket.values())

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

    def _matching(self, parts: Parts) -> Iterable[Parts]:
        """The receivers' identifiers that may be met; not all of them need be there."""
        if WILDCARD not in parts:
            return itertools.product(*((part, WILDCARD) for part in parts))
        positions = tuple(place for place, part in enumerate(parts) if part != WILDCARD)
        keys = self._partial[positions]
        if keys is None:
            keys = {}
            for known in self._buckets:
                keys.setdefault(_project(known, positions), {})[known] = None
            self._partial[positions] = keys
        met: list[Parts] = []
        for projected in itertools.product(*((parts[place], WILDCARD) for place in positions)):
            met += keys.get(projected, ())
        return met


def _parts(identifier: Identifier) -> Parts:
    return identifier.namespace, identifier.name, identifier.action


def _project(parts: Parts, positions: tuple[int, ...]) -> Parts:
    return tuple(parts[place] for place in positions)
