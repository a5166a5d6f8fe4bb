"""Convert values that JSON lacks. It is one way: the peer sees text, numbers and arrays.

==============================================  ==============================================
value                                           in JSON
==============================================  ==============================================
`tuple`, `set`, `frozenset`, `deque`, `range`,  array
views of a dict, other sequences and sets
other mappings than `dict`                      object
`bytes`, `bytearray`, `memoryview`              base64 text (RFC 4648, with padding)
`datetime`, `date`, `time`                      ISO 8601 text; ``Z`` for UTC; an offset to the
                                                minute
`timedelta`                                     ISO 8601 duration, ``P1DT2.5S``, ``-PT3S``
`Decimal`                                       text, as of ``str``: no digit is lost
`UUID`                                          text, 36 characters
`Enum` members                                  their values
dataclass instances                             object of their fields
objects with a method ``to_dict``               what it returns
other numbers, such as numpy's scalars          the number that is equal to them; else an error
nan, infinities                                 null, as of JavaScript's ``JSON.stringify``
==============================================  ==============================================

Whole numbers of any size are written with all their digits; a JavaScript peer reads those above
2**53 as the nearest float. Keys of objects are text: ``None``, ``True`` and ``False`` become
``"null"``, ``"true"`` and ``"false"``, numbers their digits, other values their text of the table.
Everything else is a `TypeError`, a complex number included.
"""

import dataclasses
import enum
import math
from base64 import b64encode
from collections.abc import Mapping, Sequence, Set
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from ...rpc.wire.pack_errors import never_travels
from ...rpc.wire.plain_numbers import is_number, plain_number

__all__ = ["convert", "simplify"]

_ATOMS = frozenset((str, int, bool, type(None)))


def convert(value: Any) -> Any:
    """Turn a value that JSON lacks into one that it has, one level deep.

    Raises:
        TypeError: it has no form in JSON.
    """
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value) if math.isfinite(value) else None
    if isinstance(value, bytes | bytearray | memoryview):
        return b64encode(value).decode("ascii")
    if isinstance(value, datetime | time):
        return _moment(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return _duration(value)
    if isinstance(value, Decimal | UUID):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence | Set):
        return list(value)
    return _object(value)


def _object(value: Any) -> Any:
    cls = type(value)
    to_dict = getattr(cls, "to_dict", None)
    if callable(to_dict):
        return to_dict(value)
    if dataclasses.is_dataclass(cls):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(cls)}
    number = plain_number(value)
    if number is not None and type(number) is not complex:
        return number
    advice = never_travels(value)
    if advice is None:
        advice = "send what is in it"
        if cls.__module__ != "builtins":
            advice = f"give its class a method to_dict, or {advice}"
        if is_number(cls):
            advice = "no number of JSON is equal to it: send it as text"
    raise TypeError(f"{cls.__module__}.{cls.__qualname__} has no form in JSON: {advice}")


def _moment(value: datetime | time) -> str:
    offset = value.utcoffset()
    text = value.replace(tzinfo=None).isoformat()
    if offset is None:
        return text
    # ISO 8601 knows no seconds in an offset; some zones had them before 1972.
    minutes = abs(offset) // timedelta(minutes=1)
    if not minutes:
        return text + "Z"
    sign = "-" if offset < timedelta() else "+"
    return f"{text}{sign}{minutes // 60:02d}:{minutes % 60:02d}"


def _duration(value: timedelta) -> str:
    sign, value = ("-", -value) if value < timedelta() else ("", value)
    seconds = f"{value.seconds}.{value.microseconds:06d}".rstrip("0").rstrip(".")
    if not value.seconds and not value.microseconds:
        return f"{sign}P{value.days}D"
    days = f"{value.days}D" if value.days else ""
    return f"{sign}P{days}T{seconds}S"


def simplify(value: Any, levels: int) -> Any:
    """Copy a value with all its parts converted, keys included.

    Args:
        levels: of arrays and objects inside one another at most.

    Raises:
        TypeError: a part of it has no form in JSON.
        ValueError: it contains itself, or almost.
    """
    if type(value) in _ATOMS:
        return value
    if type(value) is float:
        return value if math.isfinite(value) else None
    if levels <= 0:
        raise ValueError("the value contains itself, or is nested too deeply")
    if isinstance(value, dict):
        return {_key(key): simplify(item, levels - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [simplify(item, levels - 1) for item in value]
    return simplify(convert(value), levels - 1)


def _key(key: Any) -> str:
    if isinstance(key, str) and not isinstance(key, enum.Enum):
        return str.__str__(key)
    if key is None or isinstance(key, bool):
        return {None: "null", True: "true", False: "false"}[key]
    if isinstance(key, enum.Enum):
        return _key(key.value)
    if isinstance(key, int):
        return int.__repr__(key)
    if isinstance(key, float):
        return float.__repr__(key)
    text = convert(key)
    if isinstance(text, int | float):
        return _key(text)
    if not isinstance(text, str):
        raise TypeError(f"{type(key).__name__} cannot be the key of an object")
    return text
