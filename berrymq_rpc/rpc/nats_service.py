"""What a server is to plain NATS clients: it is listed among the services there."""

from collections.abc import Callable
from typing import Protocol

from .nats_discovery import NatsDiscovery
from .transport.nats import NatsListener
from .transport.port import Port

__all__ = ["NatsService", "ServedAtNats"]


class ServedAtNats(Protocol):
    """The engine of the server."""

    @property
    def statistics(self) -> Callable[[], dict[str, int]]:
        """Its counts."""


class NatsService:
    """A server of a service, for clients that know nothing of this package.

    Args:
        server: whose methods are meant.
        port: where it listens.
    """

    def __init__(self, server: ServedAtNats, port: Port) -> None:
        assert isinstance(port, NatsListener)
        self._discovery = NatsDiscovery(
            port.connection, port.service, port.id, list, list, server.statistics
        )

    def stop(self) -> None:
        """Be listed no more: the server is closing."""
        self._discovery.stop()
