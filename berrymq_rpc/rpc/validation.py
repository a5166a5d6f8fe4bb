"""The arguments of `open_client` and `start_server`, checked before anything is opened."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from math import inf
from sys import float_info
from typing import Any, TypeAlias, cast

from .wire.limits import Limits

__all__ = [
    "Authorize",
    "check_count",
    "checked_authorize",
    "checked_error_table",
    "checked_exceptions",
    "checked_limits",
    "checked_mode",
    "checked_seconds",
    "checked_threads",
    "checked_timeout",
]


#: Decides on a call, by its `Context` and the method's full name.
Authorize: TypeAlias = Callable[[Any, str], object]


def checked_authorize(value: Any) -> Authorize | None:
    """Return a function that decides on calls, or ``None``.

    Raises:
        TypeError: it is something else, or an ``async def`` function.
    """
    if value is None:
        return None
    if not callable(value):
        raise TypeError(f"authorize must be a function of the context and a name, not {value!r}")
    if inspect.iscoroutinefunction(value):
        raise TypeError("authorize must be a plain function: it decides before the call begins")
    return cast(Authorize, value)


def checked_mode(value: Any) -> int:
    """Return the mode of a file.

    Raises:
        TypeError, ValueError: it is not one.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"ipc_mode is the mode of a file, such as 0o660, not {value!r}")
    if not 0 <= value <= 0o777:
        raise ValueError(f"ipc_mode is the mode of a file, such as 0o660, not {value:#o}")
    return value


def checked_seconds(value: Any, name: str, *, zero: bool = False) -> float:
    """Return a number of seconds above 0, or from 0 on if `zero` is set.

    Infinity is one, and whole numbers that no float holds are the same as infinity.

    Raises:
        TypeError: it is not a number.
        ValueError: it is too small, or not-a-number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if not (value > 0 or (zero and value == 0)):
        least = "0 seconds or more" if zero else "above 0 seconds"
        raise ValueError(f"{name} must be {least}, not {value!r}")
    return float(value) if value <= float_info.max else inf


def checked_timeout(value: Any) -> float | None:
    """Return a timeout in seconds, or ``None`` for none, which infinity says too.

    Raises:
        TypeError, ValueError: as `checked_seconds` does.
    """
    if value is None:
        return None
    seconds = checked_seconds(value, "timeout")
    return None if seconds == inf else seconds


def check_count(name: str, value: object) -> None:
    """Check that a bound is a whole number above 0.

    Raises:
        ValueError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number above 0, not {value!r}")


def checked_threads(value: Any) -> int | None:
    """Return a number of threads, or ``None`` for the default.

    Raises:
        TypeError, ValueError: it is neither.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"threads must be a whole number or None, not {value!r}")
    if value < 1:
        raise ValueError(f"threads must be 1 or more, not {value}")
    return value


def checked_limits(value: Any) -> Limits:
    """Return the bounds, those by default for ``None``.

    Raises:
        TypeError: it is something else.
    """
    if value is None:
        return Limits()
    if not isinstance(value, Limits):
        raise TypeError(f"limits must be an rpc.Limits, not {value!r}")
    return value


def checked_exceptions(value: Any) -> tuple[type[BaseException], ...]:
    """Return exception classes, of one or several.

    Raises:
        TypeError: it is something else.
    """
    classes = (value,) if isinstance(value, type) else value
    if not isinstance(classes, Iterable):
        raise TypeError(f"exclude_log_exceptions must be exception classes, not {value!r}")
    found = tuple(classes)
    for cls in found:
        if not (isinstance(cls, type) and issubclass(cls, BaseException)):
            raise TypeError(f"exclude_log_exceptions must be exception classes, not {cls!r}")
    return found


def checked_error_table(value: Any) -> dict[str, type[Exception]]:
    """Return a copy of a table of exception classes by their full names.

    Raises:
        TypeError: it is something else.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"error_table must be a mapping of names to classes, not {value!r}")
    for name, cls in value.items():
        if not isinstance(name, str):
            raise TypeError(f"the names in error_table are text, not {name!r}")
        if not (isinstance(cls, type) and issubclass(cls, Exception)):
            raise TypeError(f"error_table[{name!r}] must be an exception class, not {cls!r}")
    return dict(value)
