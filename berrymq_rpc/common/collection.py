"""Garbage collection while many objects are made at once."""

import gc
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

__all__ = ["rare_collection"]

#: Bytes of a message that may hold so many containers that garbage collection, again and again,
#: would take two thirds of the time.
MANY_CONTAINERS = 64 << 10

#: What small messages get: a context manager made for each would take longer than decoding it.
_UNCHANGED = nullcontext()


def rare_collection(size: int) -> AbstractContextManager[None]:
    """Pause Python's garbage collection while a large message is decoded.

    Args:
        size: bytes of the message.
    """
    return _paused() if size >= MANY_CONTAINERS and gc.isenabled() else _UNCHANGED


@contextmanager
def _paused() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
