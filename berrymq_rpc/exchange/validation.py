"""Check the parts of a message that a peer has sent."""

from collections.abc import Mapping
from typing import Any

__all__ = ["keywords_of", "positional_of"]


def positional_of(args: Any) -> tuple[Any, ...]:
    """Return the positional arguments, which came as an array or ``None``."""
    if args is None:
        return ()
    if not isinstance(args, list | tuple):
        raise TypeError(f"args must be an array, not {type(args).__name__}")
    return tuple(args)


def keywords_of(kwargs: Any) -> dict[str, Any]:
    """Return the keyword arguments, which came as a map or ``None``."""
    if kwargs is None:
        return {}
    if not isinstance(kwargs, Mapping):
        raise TypeError(f"kwargs must be a map, not {type(kwargs).__name__}")
    for name in kwargs:
        if not isinstance(name, str):
            raise TypeError(f"the names in kwargs must be text, not {type(name).__name__}")
    return dict(kwargs)
