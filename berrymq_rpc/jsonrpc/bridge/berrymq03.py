"""berryMQ 0.3 at the path ``/JSON``, which its client posts to.

=====================  ===================================================================
a request              ``{"id": null, "method": ..., "params": [...]}`` as ``text/xml``
its answer             ``{"id": null, "result": ..., "error": null}``; what is in "error" is
                       raised by the client
the result of ``get``  ``[id, args, kwargs]``, where all others get an object
=====================  ===================================================================

An id of null is one there, and the client waits for the answer. What names its version is served
as it is everywhere.
"""

from typing import Any, NamedTuple

from ..protocols.json_codec import TextError, decode, encode

__all__ = ["LegacyRequest", "read_legacy_request"]

#: The methods whose result has another form there.
_GETTERS = frozenset(("get", "get_nowait"))

#: Stands for an id of null on the way to the target and back.
_NULL = "null"


class LegacyRequest(NamedTuple):
    """A request of a client of 0.3.

    Args:
        text: the same request as others send it.
        has_null_id: whether its id is null.
        gets: whether it asks for a message.
        max_depth: levels that a text may have.
    """

    text: bytes
    has_null_id: bool
    gets: bool
    max_depth: int

    def answer(self, text: bytes) -> bytes:
        """What it expects, of the answer to `text`."""
        payload: dict[str, Any] = decode(text, len(text), self.max_depth)
        if self.has_null_id:
            payload["id"] = None
        result = payload.get("result")
        if self.gets and isinstance(result, dict) and result.keys() >= {"id", "args", "kwargs"}:
            payload["result"] = [result["id"], result["args"], result["kwargs"]]
        return encode(payload, self.max_depth)


def read_legacy_request(text: bytes, max_size: int, max_depth: int) -> LegacyRequest | None:
    """Read a request of a client of 0.3; ``None`` if it is none, and is to be served as it is."""
    try:
        payload = decode(text, max_size, max_depth)
    except TextError:
        return None
    if not isinstance(payload, dict) or "jsonrpc" in payload or "method" not in payload:
        return None
    has_null_id = payload.get("id") is None
    if has_null_id:
        payload["id"] = _NULL
    method = payload["method"]
    gets = isinstance(method, str) and method in _GETTERS
    return LegacyRequest(encode(payload, max_depth), has_null_id, gets, max_depth)
