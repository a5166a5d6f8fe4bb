"""Metadata of calls: what travels beside the arguments, for those between caller and method."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from ...errors import ProtocolError

__all__ = ["MAX_METADATA", "Metadata", "checked_metadata", "metadata_bytes", "read_metadata"]

#: Names, and text, bytes or numbers.
Metadata: TypeAlias = Mapping[str, str | bytes | int | float]

#: Bytes of the metadata of a call: it is for a few identifiers, and each hop may keep it.
MAX_METADATA = 8 << 10

#: Bytes that a number, and what is around an entry, count as.
_ENTRY = 8

_VALUES = (str, bytes, int, float)


def checked_metadata(metadata: Any) -> dict[str, Any]:
    """Return a copy of a user's metadata.

    Raises:
        TypeError: it is no mapping of text to text, bytes and numbers.
        ValueError: it is too large.
    """
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata must be a mapping, not {type(metadata).__name__}")
    copy = dict(metadata)
    for name, value in copy.items():
        if type(name) is not str:
            raise TypeError(f"a name in metadata must be text, not {type(name).__name__}")
        if type(value) not in _VALUES:
            raise TypeError(
                f"metadata[{name!r:.100}] must be text, bytes or a number, not "
                f"{type(value).__name__}"
            )
        if type(value) is int and not -(1 << 63) <= value < 1 << 64:
            raise ValueError(f"metadata[{name!r:.100}] is a number of more than 64 bits")
    size = metadata_bytes(copy)
    if size > MAX_METADATA:
        raise ValueError(f"metadata of {size:,} bytes is over the {MAX_METADATA:,} that travel")
    return copy


def metadata_bytes(metadata: Metadata) -> int:
    """Return how many bytes count against the bound."""
    size = 0
    for name, value in metadata.items():
        size += _ENTRY + _bytes_of(name)
        if isinstance(value, str | bytes):
            size += _bytes_of(value)
    return size


def _bytes_of(value: str | bytes) -> int:
    return len(value.encode("utf-8", "surrogatepass")) if isinstance(value, str) else len(value)


def read_metadata(value: Any) -> dict[str, Any] | None:
    """Check what a peer sent.

    Raises:
        ProtocolError: it is not metadata, or too large.
    """
    if value is None:
        return None
    if type(value) is not dict or not all(
        type(name) is str and type(each) in _VALUES for name, each in value.items()
    ):
        raise ProtocolError("metadata is a map of text to text, bytes and numbers")
    if metadata_bytes(value) > MAX_METADATA:
        raise ProtocolError(f"metadata is over {MAX_METADATA:,} bytes")
    return value
