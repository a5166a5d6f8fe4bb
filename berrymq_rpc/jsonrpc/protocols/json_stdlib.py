"""JSON with the standard library alone.

Read as I-JSON (RFC 7493) wants it: no ``NaN``, no number beyond a float's range unless it is whole
and of 4,300 digits at most, no half of a surrogate pair. Of equal keys the last one counts.
"""

import json
import json.encoder
import math
import re
from collections.abc import Callable
from typing import Any

from .json_values import convert

__all__ = ["finite", "parse", "write"]

#: What may be half of a surrogate pair; ``\\ud83d\\ude00`` is a whole one.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

_SPACE = " \t\n\r"


def finite(text: str) -> float:
    """Read a number that is not whole.

    Raises:
        ValueError: it is beyond a float's range.
    """
    value = float(text)
    if math.isinf(value):
        raise ValueError("a number is beyond a float's range")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_raw_decode = json.JSONDecoder(parse_float=finite, parse_constant=_no_constant).raw_decode


def parse(data: bytes) -> Any:
    """Read a text whose depth has been checked.

    Raises:
        ValueError: it is not JSON in UTF-8, or a number is out of range.
    """
    text = data.decode("utf-8").strip(_SPACE)
    value, end = _raw_decode(text)
    if end != len(text):
        raise ValueError(f"unexpected data after the JSON text, at character {end}")
    if _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("a text contains half of a surrogate pair") from None
    return value


_portable = json.JSONEncoder(
    ensure_ascii=False,
    check_circular=False,
    allow_nan=False,
    separators=(",", ":"),
    default=convert,
).encode


def _make_encoder() -> Callable[[Any], str]:
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return _portable
    # `JSONEncoder.encode` makes one for each value, at as much again as a small value takes.
    encode = make(
        None, convert, json.encoder.encode_basestring, None, ":", ",", False, False, False
    )
    return lambda value: "".join(encode(value, 0))


_encode = _make_encoder()


def write(value: Any) -> bytes:
    """Write a value.

    Raises:
        Exception: it has to be simplified first, or cannot be written; see `json_values.simplify`.
    """
    return _encode(value).encode("utf-8")
