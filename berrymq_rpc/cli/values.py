"""Values as text: JSON for programs, Python's notation for people.

JSON has fewer types than calls and messages may carry. The rest is written as follows:

=======================================  ==========================================================
value                                    in JSON
=======================================  ==========================================================
bytes                                    base64 text
datetime, date, time                     ISO 8601 text, such as ``"2026-01-31T12:00:00+00:00"``
timedelta                                seconds, a number
Decimal, UUID, complex, time zone        text, such as ``"1.50"``
set, frozenset                           array, sorted by its members' JSON text
not-a-number, infinite numbers           ``"NaN"``, ``"Infinity"``, ``"-Infinity"``
integer of more than 4,300 digits        text in hexadecimal, such as ``"0x1f..."``
key of a map that is not text            its JSON text; if two keys would then be equal, the map is
                                         an array of ``[key, value]`` pairs
anything else                            its ``repr``
=======================================  ==========================================================

Text from a peer must not move the cursor of a terminal or change its colours: control characters
are escaped in either notation.
"""

import base64
import json
import math
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from typing import Any
from uuid import UUID

__all__ = ["json_text", "printable", "python_text"]

_AS_TEXT = (Decimal, UUID, complex, tzinfo)


def json_text(value: Any, *, ascii_only: bool = False) -> str:
    """Write the value as one line of JSON.

    Args:
        value: anything that a call or a message may carry.
        ascii_only: escape everything that is not ASCII as well.
    """
    text = json.dumps(_plain(value), ensure_ascii=ascii_only, allow_nan=False)
    if text.isprintable():
        return text
    # What is not printable can only be inside a string.
    return "".join(
        character
        if character.isprintable()
        else json.dumps(character)[1:-1]
        # `json` does not escape this control character.
        if character != "\x7f"
        else "\\u007f"
        for character in text
    )


def python_text(value: Any) -> str:
    """Write the value in Python's notation, on one line."""
    try:
        return printable(repr(value))
    except ValueError:
        # Python refuses to write an integer of more than 4,300 digits.
        return json_text(value)


def printable(text: str, *, lines: bool = False) -> str:
    """Escape all characters that are not printable.

    Args:
        text: text from a peer.
        lines: keep newlines.
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or (lines and character == "\n")
        else repr(character)[1:-1]
        for character in text
    )


def _plain(value: Any) -> Any:
    """Convert the value to types that JSON has."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return _plain_integer(value)
    if isinstance(value, float):
        return _plain_float(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Mapping):
        return _plain_map(value)
    if isinstance(value, list | tuple):
        return [_plain(member) for member in value]
    if isinstance(value, set | frozenset):
        return sorted(map(_plain, value), key=json.dumps)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value) if isinstance(value, _AS_TEXT) else repr(value)


def _plain_integer(value: int) -> int | str:
    try:
        str(value)
    except ValueError:
        return hex(value)
    return value


def _plain_float(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _plain_map(value: Mapping[Any, Any]) -> Any:
    pairs = [
        (key if isinstance(key, str) else _plain_key(key), _plain(member))
        for key, member in value.items()
    ]
    plain = dict(pairs)
    if len(plain) == len(pairs):
        return plain
    return [[_plain(key), _plain(member)] for key, member in value.items()]


def _plain_key(key: Any) -> str:
    plain = _plain(key)
    return plain if isinstance(plain, str) else json.dumps(plain)
