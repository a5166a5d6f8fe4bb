"""Values as text: JSON for programs, Python's notation for people.

JSON has fewer types than calls and messages may carry. In JSON text these stand for the rest:

=======================================  ==========================================================
value                                    in JSON
=======================================  ==========================================================
bytes                                    base64 text
datetime, date, time                     ISO 8601 text, such as ``"2026-01-31T12:00:00+00:00"``
timedelta                                seconds, a number
Decimal, UUID, complex, time zone        text, such as ``"1.50"``
set, frozenset                           array, in the order of its members' JSON text
not-a-number, infinite numbers           ``"NaN"``, ``"Infinity"``, ``"-Infinity"``
integer of more than 4,300 digits        text in hexadecimal, such as ``"0x1f..."``
key of a map that is no text             its JSON text; where two keys would then be the same, the
                                         map is an array of ``[key, value]`` pairs
anything else                            text as Python writes it
=======================================  ==========================================================

Text from elsewhere must not move the cursor of a terminal or change its colours, so that control
characters are escaped in either notation.
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
    """The value as JSON, in one line.

    Args:
        value: anything that a call or a message may carry.
        ascii_only: escape all other characters as well, for outputs that cannot hold them.
    """
    text = json.dumps(_plain(value), ensure_ascii=ascii_only, allow_nan=False)
    if text.isprintable():
        return text
    # Only inside its strings can there be anything of the kind.
    return "".join(
        character
        if character.isprintable()
        else json.dumps(character)[1:-1]
        # It leaves one control character as it is.
        if character != "\x7f"
        else "\\u007f"
        for character in text
    )


def python_text(value: Any) -> str:
    """The value in Python's notation, in one line."""
    try:
        return printable(repr(value))
    except ValueError:
        # Python writes no integer of more than 4,300 digits.
        return json_text(value)


def printable(text: str, *, lines: bool = False) -> str:
    """The text with escapes for all characters that are not printable.

    Args:
        text: what came from elsewhere.
        lines: keep the ends of lines.
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
    """The value in types that JSON has."""
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
