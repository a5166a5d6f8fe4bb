"""Over which transport the servers and clients of a test meet: that of ``--berrymq``."""

import os
from abc import ABC, abstractmethod
from itertools import count
from typing import TYPE_CHECKING

from .link import Link, MemoryLink
from .message_faults import MessageFaults
from .tcp_link import TcpLink
from .tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from ..rpc.runtime import Runtime

__all__ = ["MemoryNetwork", "NatsNetwork", "Network", "TcpNetwork"]


class Network(ABC):
    """Makes the addresses of servers, and the links by which clients reach them."""

    @abstractmethod
    async def bind(self) -> tuple[tuple[str, ...], Link | None]:
        """What a new server binds.

        Returns:
            The endpoints; and the link at which the server is killed and frozen, if these are not
            the links of its clients.
        """

    @abstractmethod
    async def first_link(self, runtime: "Runtime") -> Link:
        """Make the link to a server that has just started for clients that the test opens."""

    @abstractmethod
    async def link(self, runtime: "Runtime") -> Link:
        """Make a link to a server for one client more. The server may have been killed."""

    def bind_again(self, runtime: "Runtime", links: list[Link]) -> tuple[str, ...]:
        """What the server binds that takes the place of one that has ended, and has its links."""
        return runtime.endpoints


class MemoryNetwork(Network):
    """Within the process: each link is an address of its own at which the server listens too."""

    _numbers = count(1)

    async def bind(self) -> tuple[tuple[str, ...], Link | None]:
        return (self._new_name(),), None

    async def first_link(self, runtime: "Runtime") -> Link:
        (name,) = runtime.endpoints
        return MemoryLink(name)

    async def link(self, runtime: "Runtime") -> Link:
        name = self._new_name()
        if not runtime.closing.is_set():
            await runtime.listen(name, greeting=None)
        return MemoryLink(name)

    def bind_again(self, runtime: "Runtime", links: list[Link]) -> tuple[str, ...]:
        return tuple(link.endpoint for link in links)

    def _new_name(self) -> str:
        return f"mem://berrymq-test-{next(self._numbers)}"


class TcpNetwork(Network):
    """Over ``tcp://`` of this host, by a proxy for each client."""

    async def bind(self) -> tuple[tuple[str, ...], Link | None]:
        return ("tcp://127.0.0.1:*",), None

    async def first_link(self, runtime: "Runtime") -> Link:
        return await self.link(runtime)

    async def link(self, runtime: "Runtime") -> Link:
        (endpoint,) = runtime.endpoints
        proxy = TcpProxy("127.0.0.1", int(endpoint.rpartition(":")[2]))
        await proxy.start()
        return TcpLink(proxy, proxy.endpoint, MessageFaults())


class NatsNetwork(Network):
    """Over a NATS server of this host, by a proxy before it for each server and each client.

    Args:
        port: where the NATS server listens.
    """

    _numbers = count(1)

    def __init__(self, port: int) -> None:
        self._port = port

    async def bind(self) -> tuple[tuple[str, ...], Link | None]:
        # The NATS server may be that of other processes, too.
        own = await self._new_link(f"berrymq-test-{os.getpid()}-{next(self._numbers)}")
        return (own.endpoint,), own

    async def first_link(self, runtime: "Runtime") -> Link:
        return await self.link(runtime)

    async def link(self, runtime: "Runtime") -> Link:
        (endpoint,) = runtime.endpoints
        return await self._new_link(endpoint.rpartition("/")[2])

    async def _new_link(self, service: str) -> Link:
        proxy = TcpProxy("127.0.0.1", self._port)
        await proxy.start()
        return TcpLink(proxy, f"nats://127.0.0.1:{proxy.port}/{service}", None)
