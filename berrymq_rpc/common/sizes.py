"""About how many bytes a value takes in memory, for bounds."""

from typing import Any

__all__ = ["approximate_size"]

#: Bytes of an object beside what it holds.
OBJECT = 50

#: Objects that are looked at: one that contains itself has no end. The rest counts as objects.
MAX_OBJECTS = 10_000

#: What is looked into, beside dicts: these alone, as a class of its own may run code.
_HOLDERS = frozenset((list, tuple, set, frozenset))


def approximate_size(value: Any) -> int:
    """Return about how many bytes a value takes: text, bytes and containers with what they hold.

    It never runs code of the value's own, so other objects count as if they held nothing.
    """
    size = 0
    left = MAX_OBJECTS
    to_do: list[Any] = [value]
    while to_do:
        item = to_do.pop()
        size += OBJECT
        kind = type(item)
        if isinstance(item, str):
            size += str.__len__(item)
        elif isinstance(item, bytes | bytearray):
            size += len(memoryview(item))
        elif kind is memoryview:
            size += item.nbytes
        elif kind is int:
            size += item.bit_length() >> 3
        elif kind is dict:
            seen = min(len(item), left)
            left -= seen
            # Another thread may change it meanwhile.
            for name, held in list(item.items())[:seen] if seen else ():
                to_do += (name, held)
            size += 2 * OBJECT * (len(item) - seen)
        elif kind in _HOLDERS:
            seen = min(len(item), left)
            left -= seen
            to_do += tuple(item)[:seen] if seen else ()
            size += OBJECT * (len(item) - seen)
    return size
