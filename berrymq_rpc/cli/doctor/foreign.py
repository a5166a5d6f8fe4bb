"""Peers of other protocols over ZeroMQ, as the doctor tells them: aiozmq.rpc and JSON-RPC."""

import json
import os
import struct
import time

from ...rpc.wire.aiozmq_codec import AiozmqCodec

__all__ = ["METHOD", "aiozmq_call", "is_aiozmq_answer", "is_json_answer", "json_call"]

#: A name that no server has a method of.
METHOD = "berrymq_doctor.is_anyone_there"

_REQUEST = struct.Struct("=HHLd")
_RESPONSE_SIZE = struct.calcsize("=HHLd?")
_codec = AiozmqCodec()


def aiozmq_call() -> list[bytes]:
    """A call of aiozmq.rpc, which any server of it answers: with an error."""
    header = _REQUEST.pack(os.getpid() & 0xFFFF, 1, 1, time.time())
    return [header, METHOD.encode(), _codec.pack(()), _codec.pack({})]


def is_aiozmq_answer(frames: list[bytes]) -> bool:
    """Whether it is the answer to that."""
    return len(frames) == 2 and len(frames[0]) == _RESPONSE_SIZE


def json_call(*, delimiter: bool) -> list[bytes]:
    """A call by JSON-RPC 2.0.

    Args:
        delimiter: an empty frame comes first, as a REP socket wants it.
    """
    text = json.dumps({"jsonrpc": "2.0", "method": METHOD, "params": [], "id": 1}).encode()
    return [b"", text] if delimiter else [text]


def is_json_answer(frames: list[bytes]) -> bool:
    """Whether it is the answer to that, or another object of JSON-RPC."""
    try:
        found = json.loads(frames[-1])
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and ("jsonrpc" in found or "error" in found)
