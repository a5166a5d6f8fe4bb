"""What has to be awaited: it does nothing, or says nothing, before that."""

import types

__all__ = ["is_awaitable"]

# The flag `inspect.CO_ITERABLE_COROUTINE` of code objects; `inspect` takes long to import.
_ITERABLE_COROUTINE = 0x100


def is_awaitable(value: object) -> bool:
    """Return whether ``await value`` works: for a coroutine, a future, a call."""
    if isinstance(value, types.GeneratorType):
        return bool(value.gi_code.co_flags & _ITERABLE_COROUTINE)
    # Its type is asked: an object that has every attribute is not awaitable.
    return hasattr(type(value), "__await__")
