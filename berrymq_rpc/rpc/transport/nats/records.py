"""What travels between two ports over NATS: a head of 18 bytes, and what its kind says follows.

::

    0   kind      u8
    1   version   u8
    2   frames    u16  of the message, in DATA and PART
    4   number    u32  of the last DATA or PART of this session and direction, this one included
    8   credit    u64  bytes that the peer may have sent in DATA and PART altogether, heads included
    16  reserved  u16  0

All numbers are big-endian. ``docs/reference/protocol.rst`` says what follows in each kind.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

from ....nats.subject import checked_name

__all__ = [
    "ACK",
    "BEAT",
    "BYE",
    "DATA",
    "FOUND",
    "FULL",
    "HEAD_SIZE",
    "MAX_FRAMES",
    "MAX_NUMBER",
    "OPEN",
    "PART",
    "VERSION",
    "WELCOME",
    "Found",
    "Head",
    "pack_found",
    "pack_head",
    "pack_table",
    "parse_found",
    "parse_head",
    "parse_reason",
    "parse_token",
]

VERSION = 1

DATA = 0
OPEN = 1
WELCOME = 2
BYE = 3
ACK = 4
PART = 5
FOUND = 6
BEAT = 8

_HEAD = struct.Struct(">BBHIQH")
HEAD_SIZE = _HEAD.size

#: Frames of a message: what the field holds.
MAX_FRAMES = 65_535

#: Numbers begin again after this one.
MAX_NUMBER = 0xFFFFFFFF

#: What BYE says to who opens a session, if others have taken all places.
FULL = "the server is full"

#: Characters of why a peer leaves that are kept.
_MAX_REASON = 200

_LOAD = struct.Struct(">I")


class Head(NamedTuple):
    """The head of what arrived; the names are those of the module's text."""

    kind: int
    frames: int
    number: int
    credit: int


class Found(NamedTuple):
    """A server of a service.

    Args:
        server: its id, a token of a subject.
        load: how many peers it has.
    """

    server: str
    load: int


def pack_head(kind: int, frames: int = 0, number: int = 0, credit: int = 0) -> bytes:
    """The head of what is sent."""
    return _HEAD.pack(kind, VERSION, frames, number, credit, 0)


def parse_head(payload: bytes) -> Head | None:
    """The head of what arrived; ``None`` if it is none of this version."""
    if len(payload) < HEAD_SIZE:
        return None
    kind, version, frames, number, credit, _ = _HEAD.unpack_from(payload)
    return Head(kind, frames, number, credit) if version == VERSION else None


def pack_table(frames: Sequence[bytes]) -> bytes:
    """The sizes of several frames, which come before them."""
    return struct.pack(f">{len(frames)}I", *map(len, frames))


def pack_found(found: Found) -> bytes:
    """What a server says that is asked for, or that has started; a leaving one says BYE."""
    return pack_head(FOUND) + _LOAD.pack(min(found.load, MAX_NUMBER)) + found.server.encode()


def parse_found(payload: bytes) -> Found | None:
    """A server that was found; ``None`` if the bytes name none."""
    server = parse_token(payload, HEAD_SIZE + _LOAD.size)
    if server is None:
        return None
    return Found(server, _LOAD.unpack_from(payload, HEAD_SIZE)[0])


def parse_token(payload: bytes, offset: int = HEAD_SIZE) -> str | None:
    """A token after the head, which may stand in a subject; ``None`` if it is none."""
    try:
        return checked_name(payload[offset:].decode("ascii"), "a peer")
    except ValueError:
        return None


def parse_reason(payload: bytes) -> str:
    """Why the peer leaves, for a log."""
    text = payload[HEAD_SIZE : HEAD_SIZE + _MAX_REASON].decode("utf-8", "replace")
    return text if text.isprintable() and text else "it closed the connection"
