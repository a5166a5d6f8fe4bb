"""ZMTP's greeting and first command (RFC 37), as bytes: what a ZeroMQ socket says of itself."""

from typing import NamedTuple

__all__ = [
    "GREETING_BYTES",
    "SIGNATURE",
    "Greeting",
    "parse_greeting",
    "parse_ready",
    "ready",
    "rest_of_greeting",
]

#: What this side sends first. A socket says the rest only after it.
SIGNATURE = b"\xff\0\0\0\0\0\0\0\1\x7f"
GREETING_BYTES = 64

_MECHANISM = slice(12, 32)
_SMALL_COMMAND = 0x04
_LONG_COMMAND = 0x06


class Greeting(NamedTuple):
    """A peer's greeting.

    Args:
        version: of ZMTP, such as ``(3, 1)``.
        mechanism: ``"NULL"``, ``"PLAIN"``, ``"CURVE"``, or what else it says.
    """

    version: tuple[int, int]
    mechanism: str


def parse_greeting(data: bytes) -> Greeting | None:
    """Read a greeting; ``None`` for what is none, or one of a version before 3."""
    if len(data) < GREETING_BYTES or data[0] != 0xFF or data[9] & 1 != 1 or data[10] < 3:
        return None
    mechanism = data[_MECHANISM].rstrip(b"\0").decode("ascii", "replace")
    return Greeting((data[10], data[11]), mechanism)


def rest_of_greeting(mechanism: str = "NULL") -> bytes:
    """What follows `SIGNATURE`."""
    return b"\3\0" + mechanism.encode("ascii").ljust(20, b"\0") + b"\0" * 32


def ready(socket_type: str) -> bytes:
    """The command READY of the mechanism NULL."""
    value = socket_type.encode("ascii")
    body = b"\5READY" + b"\x0bSocket-Type" + len(value).to_bytes(4, "big") + value
    return bytes((_SMALL_COMMAND, len(body))) + body


def parse_ready(data: bytes) -> tuple[str, dict[str, str]] | None:
    """Read a command: its name, and the properties of READY or the ``reason`` of ERROR.

    Returns:
        ``None`` for what is none, or not whole.
    """
    if len(data) >= 2 and data[0] == _SMALL_COMMAND:
        body, size = data[2:], data[1]
    elif len(data) >= 9 and data[0] == _LONG_COMMAND:
        body, size = data[9:], int.from_bytes(data[1:9], "big")
    else:
        return None
    if len(body) < size or not size or size < 1 + body[0]:
        return None
    name, rest = body[1 : 1 + body[0]].decode("ascii", "replace"), body[1 + body[0] : size]
    if name == "ERROR":
        return name, {"reason": rest[1:].decode("ascii", "replace")}
    properties: dict[str, str] = {}
    while rest:
        end = 1 + rest[0]
        if len(rest) < end + 4:
            return None
        length = int.from_bytes(rest[end : end + 4], "big")
        value = rest[end + 4 : end + 4 + length]
        if len(value) < length:
            return None
        properties[rest[1:end].decode("ascii", "replace").lower()] = value.decode(
            "ascii", "replace"
        )
        rest = rest[end + 4 + length :]
    return name, properties
