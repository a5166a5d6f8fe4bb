"""Text about any object: bounded, packable by every dialect, and safe whatever its methods do."""

from itertools import islice
from typing import Any

__all__ = ["MAX_TEXT", "bounded", "full_name", "safe_repr", "safe_str"]

#: Bytes of UTF-8. Enough to recognise an object, and small enough for any message and any log.
MAX_TEXT = 4096

_CUT = "..."
_PLAIN = (type(None), bool, float, complex)
_SIZED = (str, bytes, bytearray)
_CONTAINERS = (tuple, list, dict, set, frozenset)

#: Elements, characters and bytes that `repr` may be asked for at once: it never makes more than
#: ten times as many characters of each.
_SMALL = 2 * MAX_TEXT

#: What is shown of a large value: elements of a container, characters of text, levels.
_SHOWN_ELEMENTS = 32
_SHOWN_CHARACTERS = 256
_SHOWN_LEVELS = 4

_plain_repr: object = BaseException.__repr__
_get_args = BaseException.args.__get__  # type: ignore[attr-defined]
_type_module = type.__dict__["__module__"].__get__
_type_name = type.__dict__["__qualname__"].__get__


def full_name(cls: type) -> str:
    """``module.qualname`` of a class, whatever its metaclass makes of these attributes."""
    try:
        module = _type_module(cls)
    except AttributeError:
        module = None
    name = bounded(_type_name(cls), 256)
    return f"{bounded(module, 256)}.{name}" if type(module) is str else name


def bounded(text: str, limit: int = MAX_TEXT) -> str:
    """A plain `str` of at most `limit` bytes in UTF-8.

    What UTF-8 cannot hold is written as an escape, as some peers refuse it otherwise.
    """
    data = str.__getitem__(text, slice(limit + 1)).encode("utf-8", "backslashreplace")
    if len(data) <= limit:
        return data.decode("utf-8")
    return data[: max(limit - len(_CUT), 0)].decode("utf-8", "ignore") + _CUT


def safe_repr(value: Any, limit: int = MAX_TEXT) -> str:
    """``repr(value)``, cut at `limit` bytes; never raises, and is fast for builtins."""
    try:
        return bounded(repr(value) if _is_small(value) else _brief(value, _SHOWN_LEVELS), limit)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return f"<{full_name(type(value))} whose repr raises {full_name(type(error))}>"


def safe_str(value: Any, limit: int = MAX_TEXT) -> str:
    """``str(value)``, cut at `limit` bytes; never raises."""
    try:
        return bounded(str(value), limit)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return f"<{full_name(type(value))} whose str raises {full_name(type(error))}>"


def _is_small(value: Any) -> bool:
    """Whether ``repr`` of builtin values is short. Other classes answer for themselves."""
    left = _SMALL
    waiting = [value]
    while waiting:
        value = waiting.pop()
        kind = type(value)
        if kind in _PLAIN:
            left -= 1
        elif kind in _SIZED:
            left -= 1 + len(value)
        elif kind is int:
            left -= 1 + value.bit_length() // 3
        elif kind in _CONTAINERS:
            left -= 1 + len(value)
            if left < 0:
                return False
            waiting.extend(value)
            if kind is dict:
                waiting.extend(value.values())
        elif _has_plain_repr(kind):
            left -= 1
            waiting.append(_get_args(value))
        else:
            left -= 1
        if left < 0:
            return False
    return True


def _has_plain_repr(cls: type) -> bool:
    return issubclass(cls, BaseException) and cls.__repr__ is _plain_repr


def _brief(value: Any, levels: int) -> str:
    """The beginning of the ``repr`` of a large value."""
    kind = type(value)
    if kind in _SIZED:
        text = repr(value[:_SHOWN_CHARACTERS])
        return text if len(value) <= _SHOWN_CHARACTERS else text + _CUT
    if kind is int:
        bits = value.bit_length()
        return repr(value) if bits <= _SHOWN_CHARACTERS else f"<int of {bits:,} bits>"
    if kind in _CONTAINERS:
        parts = [_CUT]
        if levels:
            items = islice(value.items() if kind is dict else value, _SHOWN_ELEMENTS)
            parts = [_brief(item, levels - 1) for item in items]
            if len(value) > _SHOWN_ELEMENTS:
                parts.append(_CUT)
        return f"{kind.__name__}({', '.join(parts)})"
    if _has_plain_repr(kind):
        return f"{kind.__name__}{_brief(_get_args(value), levels)}"
    return repr(value)
