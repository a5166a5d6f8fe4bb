"""What a bridge serves before a remote server: it passes each call on to a client."""

from collections.abc import Coroutine
from functools import partial
from typing import Any

from ...errors import NotFoundError
from ...rpc import Client
from ...rpc.inbound_call import current
from ...rpc.method import Kind, Method
from ...rpc.method_table import HandlerTable
from ...rpc.signature import Signature
from ...runtime.log import Log

__all__ = ["ForwardingTable"]

logger = Log("berrymq_rpc.jsonrpc.bridge")

#: A node's method that waits for a message.
GET = "get"


def _any_arguments(*args: Any, **kwargs: Any) -> None: ...


async def _nothing() -> None: ...


class ForwardingTable(HandlerTable):
    """The methods of the server that a client is connected to: any name.

    Forwarded calls hold no slot of the window: a remote node's ``get`` may wait for long.

    Args:
        client: the client; it stays its owner's.
        own: methods that are served here.
    """

    __slots__ = ("_client", "_dropped", "_signature")

    def __init__(self, client: Client, own: dict[str, Method]) -> None:
        self._client = client
        self._signature = Signature(_any_arguments, "")
        self._dropped = 0
        super().__init__(own, {})

    def find(self, name: object) -> Method:
        if not isinstance(name, str):
            raise NotFoundError(f"the name of a method must be text, not {type(name).__name__}")
        return self.methods.get(name) or self._forwarded(name)

    def waits(self, method: Method) -> bool:
        # What else waits is known to the remote server alone.
        return method.name == GET

    def _forwarded(self, name: str) -> Method:
        function = partial(self._forward, name)
        return Method(name, function, Kind.COROUTINE, True, self._signature, "")

    def _forward(self, name: str, /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        call = current.get()
        assert call is not None
        if call.snapshot().id is not None:
            return self._client.call(name, *args, **kwargs)
        try:
            self._client.pool.notify(name, args, kwargs)
        except Exception as error:
            self._dropped += 1
            logger.warning(
                "notification %.100r was not forwarded (%d so far): %s", name, self._dropped, error
            )
        return _nothing()
