"""The logger of the bus, and the names of receivers in it."""

import reprlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import logging

__all__ = ["bus_logger", "describe"]


def bus_logger() -> "logging.Logger":
    """The logger ``berrymq_rpc.bus``."""
    # Imported at the first error: it takes as long as the import of the rest of this package.
    import logging

    return logging.getLogger("berrymq_rpc.bus")


def describe(receiver: Any) -> str:
    """A short name of a receiver: where it was defined, or its `repr`."""
    try:
        name, module = receiver.__qualname__, receiver.__module__
    except Exception:
        # A callable object has no such name, or these attributes are something else.
        return reprlib.repr(receiver)
    return f"{module}.{name}" if isinstance(name, str) else reprlib.repr(receiver)
