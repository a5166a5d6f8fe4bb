"""Detect a peer's protocol from one of its messages."""

from typing import Any

from ..items import Item
from .base import JSONRPC
from .json_codec import TextError, decode
from .loose import JSONRPCLoose
from .version1 import JSONRPCv1
from .version2 import JSONRPCv2

__all__ = ["JSONRPCAutoDetect"]


class JSONRPCAutoDetect(JSONRPCv2):
    """Interprets each message by its own protocol, and sends version 2.0.

    It keeps no state: a connection calls `detect_protocol` with the first message, and uses what
    that returns from then on.
    """

    @classmethod
    def detect_protocol(cls, message: bytes) -> type[JSONRPC]:
        """Return the protocol of a message: `JSONRPCv1`, `JSONRPCv2` or `JSONRPCLoose`.

        A version that the message names decides. Without one, a response that has both a result
        and an error is of version 1.0. A batch is of the strictest protocol found in it. Anything
        else, whatever it is, is `JSONRPCLoose`. Never raises.
        """
        try:
            return cls.protocol_of(decode(message, cls.max_size, cls.max_depth))
        except TextError:
            return JSONRPCLoose

    @classmethod
    def protocol_of(cls, payload: Any) -> type[JSONRPC]:
        """Detect the protocol of a decoded message."""
        if not isinstance(payload, list):
            return _protocol_of_part(payload)
        found = {_protocol_of_part(part) for part in payload}
        if JSONRPCv2 in found:
            return JSONRPCv2
        return JSONRPCv1 if JSONRPCv1 in found else JSONRPCLoose

    @classmethod
    def payload_to_item(cls, payload: Any) -> Item:
        return cls.protocol_of(payload).payload_to_item(payload)


def _protocol_of_part(payload: Any) -> type[JSONRPC]:
    if not isinstance(payload, dict):
        return JSONRPCLoose
    version = payload.get("jsonrpc")
    if version == "2.0":
        return JSONRPCv2
    if version == "1.0" or ("result" in payload and "error" in payload):
        return JSONRPCv1
    return JSONRPCLoose
