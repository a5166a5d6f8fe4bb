"""The ZeroMQ listener: a ROUTER for DEALER and REQ peers, a JSON text in the last frame.

The frames before it, such as the empty one of a REQ, are sent back before the answer. A call or
notification to the peer has those of its last message.
"""

from collections.abc import Sequence

from ...rpc.port_connections import PortConnections
from ...rpc.transport import transport_for
from ...rpc.transport.port import Key
from ...security import Security
from .listener import Listener
from .runtime import BridgeRuntime

__all__ = ["ZeroMQListener"]


class _Connections(PortConnections):
    """ZeroMQ reads on from a peer that does not read: it is disconnected at a bound."""

    def message_received(self, key: Key, frames: Sequence[bytes]) -> None:
        assert self.port is not None
        if self.port.queued_bytes(key) > 2 * self._limits.max_queued_bytes:
            self.port.disconnect(key)
            self.peer_lost(key, "the peer does not read its answers")
        else:
            super().message_received(key, frames)


class ZeroMQListener(Listener):
    """Serves peers that speak ZeroMQ. Made by `open`.

    Args:
        security: who may connect.
        ipc_mode: of the file of an ``ipc://`` endpoint.
    """

    def __init__(self, runtime: BridgeRuntime, security: Security | None, ipc_mode: int) -> None:
        super().__init__(runtime.port_options._replace(security=security, ipc_mode=ipc_mode))
        self._connections = runtime.attach(connections_type=_Connections)

    async def open(self, endpoint: str) -> None:
        """Begin to listen.

        Raises:
            OSError: the endpoint cannot be bound.
        """
        port = await transport_for(endpoint).listen(endpoint, self._connections, self.options)
        self._connections.opened(port)
        self.url = port.endpoints[0]

    async def close(self, grace: float) -> None:
        if self._connections.port is not None:
            self._connections.close()
            await self._connections.port.wait_closed()
