"""A message from a peer is handed to the bus, once its parts are what they must be."""

from collections.abc import Mapping
from typing import Any

from ..bus.gateway import Gateway

__all__ = ["deliver", "keywords_of", "positional_of"]


def deliver(gateway: Gateway, identifier: Any, args: Any, kwargs: Any, origin: object) -> None:
    """Publish a message that a peer has sent.

    Args:
        origin: where it came from; ``None`` if this process counts as its origin, as it does for
            peers that are no nodes.

    Raises:
        ValueError, TypeError: one of the parts is not what it must be, or the identifier is local.
    """
    gateway.relay(identifier, positional_of(args), keywords_of(kwargs), origin)


def positional_of(args: Any) -> tuple[Any, ...]:
    """The positional arguments, of an array or ``None``."""
    if args is None:
        return ()
    if not isinstance(args, list | tuple):
        raise TypeError(f"args is an array, not {type(args).__name__}")
    return tuple(args)


def keywords_of(kwargs: Any) -> dict[str, Any]:
    """The keyword arguments, of a map or ``None``."""
    if kwargs is None:
        return {}
    if not isinstance(kwargs, Mapping):
        raise TypeError(f"kwargs is a map, not {type(kwargs).__name__}")
    for name in kwargs:
        if not isinstance(name, str):
            raise TypeError(f"the names in kwargs are text, not {type(name).__name__}")
    return dict(kwargs)
