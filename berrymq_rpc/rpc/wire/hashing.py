"""Estimate the cost of a dict or set by its hashes: a peer may choose keys that collide.

CPython randomises the hashes of text and bytes alone. Numbers, and what is made of them, have
hashes that anyone can compute, and can choose so that each new key meets the others before it finds
a free slot. This does not need equal hashes: numbers that fill the way of one probe sequence, and
others that lead onto it, make a dict of 40,000 keys take half a second, and one of twice as many
four times as long.

So the probe sequences of CPython are followed here, without the keys, up to a bound. If a version
of Python placed its keys in another way, the estimate would be worse, but no value wrong.

Where two keys have one hash, they are compared. That takes longer the larger they are, and for a
whole number and a `Decimal` the square of that: the number is converted to decimal digits first. So
keys with equal hashes are looked at, however few they are.
"""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import groupby, islice
from operator import eq
from typing import Any

from ...errors import ProtocolError

__all__ = [
    "MAX_COLLISIONS",
    "MIN_CHECKED",
    "comparisons",
    "dict_collisions",
    "set_collisions",
]

#: Steps from a taken slot to the next, in all maps and sets of a message. To follow so many takes
#: some 30 ms. Keys that were not chosen on purpose take 1 to 2 (whole numbers, tuples) or up to 20
#: (fractions with few binary digits) each: 12,000 of the worst pass, and 150,000 usual ones.
MAX_COLLISIONS = 250_000

#: Fewer keys make no more than 16 steps each, whatever they are.
MIN_CHECKED = 32

_PERTURB_SHIFT = 5
_UNSIGNED = (1 << 64) - 1

#: A set looks at so many slots in a row before it takes a step.
_LINEAR_PROBES = 9

#: So a step of a set may compare ten equal hashes, each of which costs a comparison of the keys.
_SET_STEP = 2


#: Bytes of keys that are compared in the time of a step.
_STEP_BYTES = 500

#: A whole number of so many bytes is converted to decimal digits in the time of a step; of twice as
#: many, in the time of four.
_STEP_CONVERTED = 25

#: Steps to compare two objects by code in Python, such as UUIDs.
_OBJECT = 8

#: Steps to compare a `Decimal` with a float, whose digits are a thousand at most.
_FLOAT = 250


def comparisons(keys: Sequence[Any], hashes: Sequence[int], limit: float) -> float:
    """The steps that it takes to compare those keys with one another that have the same hash.

    Args:
        keys: of any types that arrive.
        hashes: ``hash`` of each.
        limit: how many steps are allowed.

    Raises:
        ProtocolError: it takes more.
    """
    # By sorting: in a table these might collide.
    ordered = sorted(hashes)
    if not any(map(eq, ordered, islice(ordered, 1, None))):
        return 0
    steps = 0.0
    by_hash = sorted(range(len(keys)), key=hashes.__getitem__)
    for _, positions in groupby(by_hash, hashes.__getitem__):
        group = [keys[position] for position in positions]
        if len(group) > 1:
            steps += len(group) * (len(group) - 1) / 2 * _steps_to_compare(group)
            if steps > limit:
                raise _too_many()
    return steps


def _steps_to_compare(keys: list[Any]) -> float:
    """Most steps that it takes to compare two of these."""
    most = largest = 0
    classes: set[type] = set()
    for key in keys:
        size = objects = 0
        parts = [key]
        while parts:
            part = parts.pop()
            cls = type(part)
            classes.add(cls)
            if cls is tuple or cls is frozenset:
                parts.extend(part)
                objects += 1
            elif cls is int:
                length = part.bit_length() // 8
                largest = max(largest, length)
                size += length
            elif cls is str or cls is bytes:
                size += len(part)
            elif cls is Decimal:
                size += part.__sizeof__()
            elif cls is not float:
                objects += 1
        most = max(most, size // _STEP_BYTES + objects * _OBJECT)
    steps = 1.0 + most
    if Decimal in classes:
        steps += (largest / _STEP_CONVERTED) ** 2
        if float in classes or complex in classes:
            steps += _FLOAT
    return steps


def dict_collisions(hashes: list[int], limit: float) -> int:
    """The steps that filling a dict takes beyond the first slot of each key.

    Args:
        hashes: ``hash`` of each key, in order.
        limit: how many steps are allowed.

    Raises:
        ProtocolError: it takes more.
    """
    collisions = 0
    for size, capacity in _dict_tables(len(hashes)):
        mask = size - 1
        taken = bytearray(size)
        # A table that grows is filled again.
        for key_hash in hashes[:capacity]:
            slot = key_hash & mask
            if taken[slot]:
                perturb = key_hash & _UNSIGNED
                while taken[slot]:
                    perturb >>= _PERTURB_SHIFT
                    slot = (slot * 5 + perturb + 1) & mask
                    collisions += 1
                if collisions > limit:
                    raise _too_many()
            taken[slot] = 1
    return collisions


def set_collisions(hashes: list[int], limit: float) -> int:
    """The same for a set or frozenset."""
    collisions = 0
    for size, capacity in _set_tables(len(hashes)):
        mask = size - 1
        taken = bytearray(size)
        for key_hash in hashes[:capacity]:
            slot = key_hash & mask
            if taken[slot]:
                perturb = key_hash & _UNSIGNED
                while True:
                    last = slot + _LINEAR_PROBES
                    free = taken.find(0, slot, (last if last <= mask else slot) + 1)
                    if free >= 0:
                        slot = free
                        break
                    perturb >>= _PERTURB_SHIFT
                    slot = (slot * 5 + perturb + 1) & mask
                    collisions += _SET_STEP
                if collisions > limit:
                    raise _too_many()
            taken[slot] = 1
    return collisions


def _too_many() -> ProtocolError:
    return ProtocolError("the keys of a map or set collide too often")


def _dict_tables(keys: int) -> Iterator[tuple[int, int]]:
    """The sizes of a dict that grows to so many keys, and how many each holds."""
    size, capacity = 8, 5
    yield size, capacity
    while capacity < keys:
        size *= 2
        capacity = size * 2 // 3
        yield size, capacity


def _set_tables(keys: int) -> Iterator[tuple[int, int]]:
    """The same of a set."""
    size, capacity = 8, 4
    yield size, capacity
    while capacity < keys:
        wanted = (capacity + 1) * (2 if capacity >= 50_000 else 4)
        size = 1 << wanted.bit_length()
        capacity = (size - 1) * 3 // 5
        yield size, capacity
