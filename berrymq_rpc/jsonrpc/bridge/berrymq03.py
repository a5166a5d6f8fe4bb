"""berryMQ 0.3 at the path ``/JSON``, which its client posts to.

=====================  ===================================================================
a request              ``{"id": null, "method": ..., "params": [...]}`` as ``text/xml``
its answer             ``{"id": null, "result": ..., "error": null}``; what is in "error" is
                       raised by the client
the result of ``get``  ``[id, args, kwargs]``, where all others get an object
=====================  ===================================================================

A null id is that of a request there, and the client waits for the answer. A message that names its
version is served as everywhere else.
"""

from collections.abc import Mapping
from typing import Any

from ..items import RPCError, RPCRequest, RPCResponse
from ..message import IncomingMessage, IncomingRequest

__all__ = ["LegacyMessage", "LegacyRequest"]

#: The methods whose result has another form there.
_GETTERS = frozenset(("get", "get_nowait"))


class LegacyRequest(IncomingRequest):
    """A request from a client of berryMQ 0.3."""

    __slots__ = ()

    def result(self, value: Any) -> None:
        if (
            self.method in _GETTERS
            and isinstance(value, Mapping)
            and value.keys() >= {"id", "args", "kwargs"}
        ):
            value = [value["id"], value["args"], value["kwargs"]]
        super().result(value)


class LegacyMessage(IncomingMessage):
    """A message from a client of berryMQ 0.3."""

    __slots__ = ()

    def _take(self, item: RPCRequest | RPCResponse, said: Any, refused: list[RPCError]) -> None:
        if (
            isinstance(item, RPCRequest)
            and not item.malformed
            and not self._is_batch
            and "jsonrpc" not in said
        ):
            item.null_id = item.request_id is None
            self.calls.append(LegacyRequest(self, item))
        else:
            super()._take(item, said, refused)
