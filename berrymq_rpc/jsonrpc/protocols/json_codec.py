"""Read and write JSON texts, within bounds of size and depth."""

import re
from itertools import accumulate
from typing import Any

from ...common.collection import rare_collection
from ...rpc.wire.limits import MAX_VALUES
from .json_values import simplify

try:
    from .json_msgspec import parse, write
except ImportError:
    from .json_stdlib import parse, write

__all__ = ["MAX_DEPTH", "MAX_SIZE", "MAX_VALUES", "TextError", "decode", "encode"]

#: Bytes of one text: they decode within a second.
MAX_SIZE = 4 << 20

#: Levels of arrays and objects inside one another; people's data has less than 20. Both parsers
#: recurse for each, and have room for some hundreds more.
MAX_DEPTH = 100

#: Bytes of a text that an error shows.
_SHOWN = 100

#: A string, or the rest of the text where a string does not end, so that no quote is tried twice.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
#: What is taken away, a level of some each time, before the rest is counted step by step, which
#: takes thirty times as long.
_EMPTY = (b"[]", b"{}", b"[]", b"{}")
#: One level in, and one out, as signed bytes.
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")


class TextError(ValueError):
    """Bytes are not a JSON text, or over a bound."""


def decode(
    data: object,
    max_size: int = MAX_SIZE,
    max_depth: int = MAX_DEPTH,
    max_values: int = MAX_VALUES,
) -> Any:
    """Read a JSON text.

    Args:
        data: bytes in UTF-8, or text.
        max_size: bytes that it may have.
        max_depth: levels of arrays and objects inside one another.
        max_values: values in it; arrays and objects count twice, and what is in them as well.

    Raises:
        TextError: it is not a JSON text, or over a bound.
    """
    if type(data) is not bytes:
        data = _as_bytes(data)
    if len(data) > max_size:
        raise TextError(f"{len(data):,} bytes are more than the {max_size:,} allowed")
    # A value takes a byte, and a comma or a bracket before it.
    if len(data) > max_values:
        _check_count(data, max_values)
    _check_depth(data, max_depth)
    try:
        with rare_collection(len(data)):
            return parse(data)
    except UnicodeDecodeError:
        raise TextError("not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise TextError(f"not JSON: {str(error)[:_SHOWN]}") from None


def _as_bytes(data: object) -> bytes:
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    if isinstance(data, str):
        try:
            return data.encode("utf-8")
        except UnicodeEncodeError:
            raise TextError("a text contains half of a surrogate pair") from None
    raise TextError(f"a JSON text must be bytes, not {type(data).__name__}")


def _check_count(data: bytes, most: int) -> None:
    if _count(data) >= most and _count(_STRING.sub(b"", data)) >= most:
        raise TextError(f"a text has more than {most:,} values")


def _count(data: bytes) -> int:
    return data.count(b",") + data.count(b"[") + data.count(b"{")


def _check_depth(data: bytes, levels: int) -> None:
    if len(data) <= levels or data.count(b"[") + data.count(b"{") <= levels:
        return
    brackets = _STRING.sub(b"", data).translate(None, _NO_BRACKETS)
    outer = brackets
    for pair in _EMPTY:
        outer = outer.replace(pair, b"")
    depth = _depth(outer)
    if depth > levels or (depth > levels - len(_EMPTY) and _depth(brackets) > levels):
        raise TextError(f"arrays and objects are nested more than {levels} levels deep")


def _depth(brackets: bytes) -> int:
    return max(accumulate(memoryview(brackets.translate(_STEPS)).cast("b")), default=0)


def encode(value: Any, max_depth: int = MAX_DEPTH) -> bytes:
    """Write a value as JSON text in UTF-8; the table in `json_values` says how.

    Args:
        value: what to write.
        max_depth: levels of arrays and objects inside one another, as for `decode`.

    Raises:
        TypeError: a part of it has no form in JSON.
        ValueError: it contains itself, is nested too deeply, or holds half of a surrogate pair or
            a whole number of more than 4,300 digits.
    """
    try:
        data = _written(value, max_depth)
    except RecursionError:
        raise ValueError("the value contains itself, or is nested too deeply") from None
    # Both libraries recurse until Python stops them, which it does at a depth that differs from
    # one version and one thread to another.
    _check_depth(data, max_depth)
    return data


def _written(value: Any, max_depth: int) -> bytes:
    try:
        return write(value)
    except Exception:
        # The slow path: keys that are not text, nan and infinities; or the error to raise.
        try:
            # A value may become another one at each level.
            return write(simplify(value, 2 * max_depth))
        except Exception as error:
            # It says what the first one said.
            raise error from error.__cause__
