"""JSON with msgspec, which is twice to six times as fast as the standard library on 1 KB.

It reads and writes what `json_stdlib` does. Of the optional packages it alone keeps all digits of
integers.
"""

from typing import Any

import msgspec

from .json_values import convert

__all__ = ["parse", "write"]

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder(enc_hook=convert).encode


def parse(data: bytes) -> Any:
    """Read a text whose depth has been checked.

    Raises:
        ValueError: it is not JSON in UTF-8, or a number is out of range.
    """
    value: Any = _decode(data)
    return value


def write(value: Any) -> bytes:
    """Write a value.

    Raises:
        Exception: it has to be simplified first, or cannot be written; see `json_values.simplify`.
    """
    data: bytes = _encode(value)
    return data
