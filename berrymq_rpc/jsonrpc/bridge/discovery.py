"""What a bridge answers to ``rpc.discover`` and ``rpc.describe``: made once, for all peers."""

import asyncio
from collections.abc import Iterable
from typing import Any

from ...rpc import Client
from ...rpc.connection import Connection
from ...rpc.describe import describe
from ...rpc.method import Method
from ...rpc.method_table import HandlerTable
from .openrpc import openrpc_document

__all__ = ["Discovery", "RemoteDiscovery"]


class Discovery:
    """Describes what a bridge with a handler or a node serves.

    Args:
        table: the methods.
        title, version: of the service.

    Attributes:
        own: the bridge's own methods that are described as well.
    """

    def __init__(self, table: HandlerTable, *, title: str, version: str) -> None:
        self.own: tuple[Method, ...] = ()
        self._table: Iterable[Method] = table
        self._title = title
        self._version = version
        self._document: dict[str, Any] | None = None

    def discover(self) -> dict[str, Any]:
        """Describe what is offered here, as an OpenRPC document."""
        if self._document is None:
            self._document = self._make(describe(self._table))
        return self._document

    def _make(self, described: dict[str, Any]) -> dict[str, Any]:
        listed = (*described["methods"], *describe(self.own)["methods"])
        methods = {method["name"]: method for method in listed}
        return openrpc_document(
            [methods[name] for name in sorted(methods)],
            title=self._title,
            version=self._version,
            functions={method.name: method.function for method in (*self._table, *self.own)},
        )


class RemoteDiscovery(Discovery):
    """The same before a remote server.

    It is asked once, however many peers ask here, and again when its connection is another one:
    then it may be another server.

    Args:
        client: is connected to it.
        title, version: of the service.
    """

    def __init__(self, client: Client, *, title: str, version: str) -> None:
        super().__init__(HandlerTable({}, {}), title=title, version=version)
        self._client = client
        self._connections: list[Connection] = []
        self._asking: asyncio.Task[dict[str, Any]] | None = None

    async def describe(self) -> dict[str, Any]:
        """Describe the methods of the remote server in plain values."""
        asking = self._asking
        if asking is None or (asking.done() and not self._is_current(asking)):
            asking = self._asking = asyncio.create_task(self._ask(), name="describe")
            # All who wait for it may have given up.
            asking.add_done_callback(_has_failed)
        # A peer that gives up does not do so for the others.
        return await asyncio.shield(asking)

    def _is_current(self, asked: "asyncio.Task[Any]") -> bool:
        return not _has_failed(asked) and self._client.pool.connections == self._connections

    async def _ask(self) -> dict[str, Any]:
        described: dict[str, Any] = await self._client.describe()
        self._connections = self._client.pool.connections
        self._document = None
        return described

    async def discover(self) -> dict[str, Any]:  # type: ignore[override]
        described = await self.describe()
        if self._document is None:
            self._document = self._make(described)
        return self._document

    discover.__doc__ = Discovery.discover.__doc__

    def close(self) -> None:
        """Ask no longer."""
        if self._asking is not None:
            self._asking.cancel()


def _has_failed(task: "asyncio.Task[Any]") -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
