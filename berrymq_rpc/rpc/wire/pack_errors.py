"""Say which part of a value cannot be packed, and why."""

import dataclasses
import enum
import types
from collections.abc import Callable, Iterator
from typing import Any

from ...common.awaitable import is_awaitable
from .plain_numbers import is_number
from .safe_repr import bounded, full_name, safe_repr, safe_str

__all__ = ["explain", "never_travels", "too_deep", "unknown_type"]

#: Whose exceptions say nothing more than the text that is made of them.
_OURS = frozenset((__name__.partition(".")[0], "msgpack", ""))

#: Bytes of a dict's key in the path to a value, and of the path.
_MAX_KEY = 60
_MAX_PATH = 500


def never_travels(value: Any) -> str | None:
    """Say what to do with a value that no entry of any table helps to send; ``None`` for others."""
    if isinstance(value, types.AsyncGeneratorType):
        return "export the `async def` function with `yield` itself: it is a stream"
    if isinstance(value, types.GeneratorType):
        return "make a list of it, or write `async def`: a method with `yield` is then a stream"
    if is_awaitable(value):
        return "await it first, in an `async def` function"
    return None


def unknown_type(value: Any) -> TypeError:
    """Make the error for an object of a type that does not travel."""
    cls = type(value)
    name = full_name(cls)
    advice = never_travels(value)
    if advice is not None:
        return TypeError(f"{name} cannot be packed: {advice}")
    if issubclass(cls, enum.Enum):
        advice = f"put enum_translation({cls.__name__}) into translation_table"
    elif dataclasses.is_dataclass(cls):
        advice = f"put dataclass_translation({cls.__name__}) into translation_table"
    elif issubclass(cls, int):
        advice = "this peer takes whole numbers of up to 64 bits"
    elif is_number(cls):
        advice = (
            "no int or float is equal to it: send it as text, or give translation_table an entry "
            "for its class"
        )
    else:
        advice = "give translation_table an entry for its class"
    return TypeError(f"{name} cannot be packed: {advice}")


def too_deep(path: str, max_depth: int) -> ValueError:
    """Make the error for a value that contains itself, or is nested too deeply."""
    where = bounded(path, _MAX_PATH)
    return ValueError(f"{where} contains itself, or is nested more than {max_depth} levels deep")


def explain(
    value: Any,
    path: str,
    error: Exception,
    *,
    attempt: Callable[[Any], object],
    inside: Callable[[Any], Any],
    max_depth: int,
) -> TypeError | ValueError:
    """Make the error that says which part of a value cannot be packed.

    Args:
        value: what could not be packed.
        path: what to call it.
        error: what packing it raised.
        attempt: packs a part by itself and raises when that fails.
        inside: returns the value that an object is packed as, or the object itself.
        max_depth: levels of nesting that are allowed.
    """
    root = path
    for _ in range(max_depth):
        try:
            found = _first_fault(value, path, attempt)
            if found is None:
                inner = inside(value)
                if inner is value:
                    break
                found = _first_fault(inner, path, attempt) or (inner, path, error)
        except Exception as failure:
            error = failure
            break
        value, path, error = found
    else:
        return too_deep(root, max_depth)
    kind = ValueError if isinstance(error, ValueError) else TypeError
    described = kind(f"{bounded(path, _MAX_PATH)}: {safe_str(error) or full_name(type(error))}")
    if _is_foreign(error):
        described.__cause__ = error
    return described


def _is_foreign(error: Exception) -> bool:
    """Whether an exception comes from code of the user's, such as a packer."""
    entry, module = error.__traceback__, ""
    while entry is not None:
        module = entry.tb_frame.f_globals.get("__name__", "")
        entry = entry.tb_next
    return module.partition(".")[0] not in _OURS


def _first_fault(
    value: Any, path: str, attempt: Callable[[Any], object]
) -> tuple[Any, str, Exception] | None:
    for part, where in _parts(value, path):
        try:
            attempt(part)
        except Exception as error:
            return part, where, error
    return None


def _parts(value: Any, path: str) -> Iterator[tuple[Any, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            shown = safe_repr(key, _MAX_KEY)
            yield key, f"key {shown} of {path}"
            yield item, f"{path}[{shown}]"
    elif isinstance(value, tuple | list):
        for index, item in enumerate(value):
            yield item, f"{path}[{index}]"
