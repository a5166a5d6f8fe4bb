"""Garbage collection while many objects are made at once."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["rare_collection"]

#: Bytes of a message that may hold so many containers that garbage collection, again and again,
#: would take two thirds of the time.
MANY_CONTAINERS = 64 << 10


@contextmanager
def rare_collection(size: int) -> Iterator[None]:
    """Pause Python's garbage collection while a large message is decoded.

    Args:
        size: bytes of the message.
    """
    pause = size >= MANY_CONTAINERS and gc.isenabled()
    if pause:
        gc.disable()
    try:
        yield
    finally:
        if pause:
            gc.enable()
