"""Over which transport the servers and clients of a test meet: that of ``--berrymq``."""

from abc import ABC, abstractmethod
from itertools import count
from typing import TYPE_CHECKING

from .link import Link, MemoryLink

if TYPE_CHECKING:
    from ..rpc.runtime import Runtime

__all__ = ["MemoryNetwork", "Network"]


class Network(ABC):
    """Makes the addresses of servers, and the links by which clients reach them."""

    @abstractmethod
    async def bind(self) -> tuple[str, ...]:
        """What a new server binds."""

    @abstractmethod
    async def first_link(self, runtime: "Runtime") -> Link:
        """Make the link to a server that has just started for clients that the test opens."""

    @abstractmethod
    async def link(self, runtime: "Runtime") -> Link:
        """Make a link to a server for one client more. The server may have been killed."""

    def bind_again(self, runtime: "Runtime", links: list[Link]) -> tuple[str, ...]:
        """What the server binds that takes the place of one that has ended, and has its links."""
        return runtime.endpoints

    def listener_links(self, links: list[Link]) -> list[Link]:
        """Of the links of a server, those at which it is killed and frozen."""
        return links


class MemoryNetwork(Network):
    """Within the process: each link is an address of its own at which the server listens too."""

    _numbers = count(1)

    async def bind(self) -> tuple[str, ...]:
        return (self._new_name(),)

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
