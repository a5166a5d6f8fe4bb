"""The logger of the bus, and how a receiver is named in it."""

import reprlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import logging

__all__ = ["bus_logger", "describe"]


def bus_logger() -> "logging.Logger":
    """The logger ``berrymq_rpc.bus``."""
    # Imported at the first error: it takes as long as all the rest of this package's import.
    import logging

    return logging.getLogger("berrymq_rpc.bus")


def describe(receiver: Any) -> str:
    """A short name of a receiver: where it was defined, or its `repr`."""
    try:
        name, module = receiver.__qualname__, receiver.__module__
    except Exception:
        # An object that can be called has no such name, or anything else in its place.
        return reprlib.repr(receiver)
    return f"{module}.{name}" if isinstance(name, str) else reprlib.repr(receiver)
