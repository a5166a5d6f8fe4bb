"""JSON with msgspec, which is twice to six times as fast as the standard library on 1 KB.

It reads and writes what `plain_text` does. Of the optional packages it is the one that keeps all
digits of a whole number.
"""

from typing import Any

import msgspec

from .json_values import convert

__all__ = ["parse", "write"]

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder(enc_hook=convert).encode


def parse(data: bytes) -> Any:
    """Read a text, whose depth is bounded already.

    Raises:
        ValueError: it is no JSON in UTF-8, or beyond what can be kept of it.
    """
    value: Any = _decode(data)
    return value


def write(value: Any) -> bytes:
    """Write a value.

    Raises:
        Exception: it cannot be written like that, or not at all; see `values.simplify`.
    """
    data: bytes = _encode(value)
    return data
