"""What has to be awaited: it does nothing, or says nothing, before that."""

import types
from collections.abc import Coroutine
from typing import Any

__all__ = ["PLAIN", "as_coroutine", "discard", "is_awaitable"]

#: Types of values that need not be asked, as most are of one of them. To ask for an attribute that
#: is missing takes 0.2 us, a sixth of what a notification takes (benchmarks/rpc.py).
PLAIN = frozenset(
    (types.NoneType, bool, int, float, str, bytes, bytearray, list, tuple, dict, set, frozenset)
)

# The flag `inspect.CO_ITERABLE_COROUTINE` of code objects; `inspect` takes long to import.
_ITERABLE_COROUTINE = 0x100


def is_awaitable(value: object) -> bool:
    """Return whether ``await value`` works: for a coroutine, a future, a call."""
    if isinstance(value, types.GeneratorType):
        return bool(value.gi_code.co_flags & _ITERABLE_COROUTINE)
    # Its type is asked: an object that has every attribute is not awaitable.
    return hasattr(type(value), "__await__")


def as_coroutine(awaitable: Any) -> Coroutine[Any, Any, Any]:
    """Return what a task takes: a coroutine itself, or one that awaits something else."""
    return awaitable if isinstance(awaitable, types.CoroutineType) else _result_of(awaitable)


def discard(value: object) -> None:
    """Drop what will not be awaited: Python warns of a coroutine that never was, unless closed."""
    if isinstance(value, types.CoroutineType):
        value.close()


async def _result_of(awaitable: Any) -> Any:
    return await awaitable
