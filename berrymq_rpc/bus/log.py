"""The logger of the bus, and the names of receivers in it."""

import reprlib
from typing import Any

from ..runtime.log import Log

__all__ = ["describe", "logger"]

logger = Log("berrymq_rpc.bus")


def describe(receiver: Any) -> str:
    """A short name of a receiver: where it was defined, or its `repr`."""
    try:
        name, module = receiver.__qualname__, receiver.__module__
    except Exception:
        # A callable object has no such name, or these attributes are something else.
        return reprlib.repr(receiver)
    return f"{module}.{name}" if isinstance(name, str) else reprlib.repr(receiver)
