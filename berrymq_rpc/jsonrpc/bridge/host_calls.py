"""Bound the calls that one host has in progress by plain HTTP, where a peer is a host.

Elsewhere a peer is a connection, which `rpc.Limits` bounds. By POST one peer may have a thousand
connections, with a thousand calls in each request.
"""

from ...rpc.connection import Connection
from ...rpc.dispatcher import Dispatcher
from ...rpc.inbound import Inbound

__all__ = ["HostCalls"]

#: One host gets a part of the calls that may be in flight.
HOST_SHARE = 10


class HostCalls:
    """The connections of each host, whose calls are counted where there are many.

    Args:
        dispatcher: serves all of them.

    Attributes:
        refused: how many requests were refused.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        limits = dispatcher.limits
        self._dispatcher = dispatcher
        self._max_in_flight = max(1, limits.max_in_flight // HOST_SHARE)
        self._max_waiting = limits.max_waiting
        self._connections: dict[str, set[Connection]] = {}
        self._hosts: dict[Connection, str] = {}
        self.refused = 0

    def add(self, host: str, connection: Connection) -> None:
        """Count the calls of a connection as those of a host, until it is removed."""
        self._hosts[connection] = host
        self._connections.setdefault(host, set()).add(connection)

    def remove(self, connection: Connection) -> None:
        """The connection is closed, and its calls are over."""
        host = self._hosts.pop(connection, None)
        if host is not None:
            of_host = self._connections[host]
            of_host.discard(connection)
            if not of_host:
                del self._connections[host]

    def refusal(self, host: str) -> str | None:
        """Why a further request of a host is refused, or ``None``."""
        dispatcher = self._dispatcher
        # Without so many in all, no host can have them.
        if dispatcher.in_flight < self._max_in_flight and dispatcher.waiting < self._max_waiting:
            return None
        inbounds = [each.inbound for each in self._connections.get(host, ())]
        counts = (
            (sum(_in_flight(each) for each in inbounds), self._max_in_flight, "in flight"),
            (sum(_waiting(each) for each in inbounds), self._max_waiting, "waiting"),
        )
        for count, bound, what in counts:
            if count >= bound:
                self.refused += 1
                return f"one host may have {bound:,} calls {what}"
        return None


def _in_flight(inbound: object) -> int:
    assert isinstance(inbound, Inbound)
    return inbound.in_flight


def _waiting(inbound: object) -> int:
    assert isinstance(inbound, Inbound)
    return inbound.waiting
