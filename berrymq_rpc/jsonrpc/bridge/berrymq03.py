"""berryMQ 0.3 at the path ``/JSON``, which its client posts to.

=====================  ===================================================================
a request              ``{"id": null, "method": ..., "params": [...]}`` as ``text/xml``
its answer             ``{"id": null, "result": ..., "error": null}``; what is in "error" is
                       raised by the client
the result of ``get``  ``[id, args, kwargs]``, where all others get an object, and
                       consumers with an ``ack_wait`` as well
=====================  ===================================================================

A null id is that of a request there, and the client waits for the answer. A message that names its
version is served as everywhere else.
"""

from collections.abc import Mapping
from typing import Any

from ..items import RPCRequest
from ..message import IncomingMessage, IncomingRequest
from ..protocols.base import JSONRPC

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
            # A consumer that acknowledges its work is not of berryMQ 0.3, and needs the number.
            and "number" not in value
        ):
            value = [value["id"], value["args"], value["kwargs"]]
        super().result(value)


class LegacyMessage(IncomingMessage):
    """A message from a client of berryMQ 0.3."""

    __slots__ = ()

    def _take_request(
        self, request: RPCRequest, said: dict[str, Any], version: type[JSONRPC]
    ) -> None:
        if self._is_batch or "jsonrpc" in said:
            super()._take_request(request, said, version)
        else:
            request.null_id = request.request_id is None
            self.calls.append(LegacyRequest(self, request, version))
