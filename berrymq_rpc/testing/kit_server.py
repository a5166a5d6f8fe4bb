"""A server under test: it records its calls, meets them as planned, and is killed and restarted."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias, overload

from ..errors import ServiceClosedError
from ..rpc.method_table import HandlerTable
from ..rpc.options import ServerOptions
from ..rpc.runtime import Runtime
from ..rpc.server import Server, open_runtime
from .link import Link
from .loop import run_on
from .method_plan import MethodPlan
from .network import Network
from .recorded_methods import RecordedCall, RecordedMethods

__all__ = ["Arguments", "KitServer", "NamedArguments"]

#: What a method was called with: positional and keyword arguments.
Arguments: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]

#: The same, after the name of the method.
NamedArguments: TypeAlias = tuple[str, tuple[Any, ...], dict[str, Any]]


class KitServer:
    """A server that a test has started, by `Kit.serve` or `Kit.sync_serve`.

    `kill`, `freeze` and `thaw` may be called from any thread.
    """

    def __init__(self, network: Network, table: HandlerTable, options: ServerOptions) -> None:
        self._network = network
        self._options = options
        self._methods = RecordedMethods(table)
        self._runtime: Runtime | None = None
        self._links: list[Link] = []
        #: The server's own, where it is killed and frozen at that one.
        self._own: Link | None = None
        self._is_frozen = False

    # -- for the kit ---------------------------------------------------------------------------

    async def start(self) -> None:
        """Start it for the first time."""
        endpoints, self._own = await self._network.bind()
        await self._open(endpoints)
        self._links.append(await self._network.first_link(self._running))

    async def new_link(self) -> Link:
        """Make a link for one more client."""
        link = await self._network.link(self._running)
        self._links.append(link)
        if self._is_frozen and link in self._listening:
            link.freeze()
        return link

    def has_link(self, link: Link) -> bool:
        """Whether a link leads here."""
        return link in self._links

    async def aclose(self) -> None:
        """Close it, and its links, whatever state it is in."""
        self._methods.end_waits()
        if self._runtime is not None:
            for link in self._listening:
                link.thaw()
            self._runtime.close("the test is over", self._options.grace)
            await self._ports_closed(self._runtime)
        for link in self._links if self._own is None else [self._own, *self._links]:
            await link.close()

    @property
    def _listening(self) -> list[Link]:
        """The links at which it is killed and frozen."""
        return self._links if self._own is None else [self._own]

    # -- the server ------------------------------------------------------------------------------

    @property
    def _running(self) -> Runtime:
        assert self._runtime is not None
        return self._runtime

    @property
    def server(self) -> Server:
        """The `rpc.Server` itself; another one after each `restart`."""
        return Server(self._running, self._options.grace)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """An address for clients that the test opens by itself; `Kit.client` needs none."""
        return (self._links[0].endpoint,)

    @property
    def is_serving(self) -> bool:
        """Whether it was neither killed nor closed."""
        return not self._running.closing.is_set()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that it runs on."""
        return self._running.loop

    def statistics(self) -> dict[str, int]:
        """Counts; see `Server.statistics`. They begin anew after a `restart`."""
        return run_on(self.loop, self._running.statistics)

    # -- its methods -----------------------------------------------------------------------------

    def method(self, name: str) -> MethodPlan:
        """Say what the next calls of a method meet; see `MethodPlan`.

        Args:
            name: the full name, such as ``"math.add"``.

        Raises:
            NotFoundError: there is no such method; the text lists those that there are.
        """
        __tracebackhide__ = True
        return self._methods.plan(name)

    @overload
    def calls(self, name: str) -> list[Arguments]: ...

    @overload
    def calls(self, name: None = None) -> list[NamedArguments]: ...

    def calls(self, name: str | None = None) -> list[Any]:
        """The calls that reached the server, in order, those that failed there included.

        Neither notifications are among them nor calls that were refused before the handler, such as
        those with wrong arguments. A server that was restarted keeps what it had recorded.

        Args:
            name: of a method; ``None`` for all.

        Returns:
            ``(args, kwargs)`` of each; without `name`, ``(name, args, kwargs)``. Lists arrive as
            tuples, unless the server has ``use_list=True``.

        Raises:
            NotFoundError: there is no such method.
        """
        __tracebackhide__ = True
        return self._select(
            name, lambda record: record.served is not None and not record.is_notification
        )

    @overload
    def notifications(self, name: str) -> list[Arguments]: ...

    @overload
    def notifications(self, name: None = None) -> list[NamedArguments]: ...

    def notifications(self, name: str | None = None) -> list[Any]:
        """The notifications that reached the server, as `calls`."""
        __tracebackhide__ = True
        return self._select(name, lambda record: record.is_notification)

    @overload
    def cancelled(self, name: str) -> list[Arguments]: ...

    @overload
    def cancelled(self, name: None = None) -> list[NamedArguments]: ...

    def cancelled(self, name: str | None = None) -> list[Any]:
        """Of what reached the server, what was cancelled there, as `calls`.

        That is by its caller, because its caller was lost, or by the end of the server.
        """
        __tracebackhide__ = True
        return self._select(name, lambda record: record.is_cancelled)

    @overload
    def expired(self, name: str) -> list[Arguments]: ...

    @overload
    def expired(self, name: None = None) -> list[NamedArguments]: ...

    def expired(self, name: str | None = None) -> list[Any]:
        """The calls whose deadline passed while they ran, or before they could run, as `calls`.

        Those that could not run are not among `calls`.
        """
        __tracebackhide__ = True
        return self._select(name, lambda record: record.is_expired)

    def _select(self, name: str | None, wanted: Callable[[RecordedCall], bool]) -> list[Any]:
        __tracebackhide__ = True
        records = [record for record in self._methods.records(name) if wanted(record)]
        if name is None:
            return [(record.name, record.args, record.kwargs) for record in records]
        return [(record.args, record.kwargs) for record in records]

    # -- its life --------------------------------------------------------------------------------

    def kill(self) -> None:
        """End it as SIGKILL does: no goodbye, and its clients notice.

        Handlers that run are cancelled, as they cannot be killed.

        Raises:
            RuntimeError: it does not run.
        """
        __tracebackhide__ = True
        run_on(self.loop, self._kill)

    def _kill(self) -> None:
        runtime = self._require_running("killed")
        self._is_frozen = False
        for link in self._listening:
            link.kill()
        connections = runtime.connections
        runtime.abort()
        for connection in connections:
            connection.lost(ServiceClosedError("the server was killed"))

    def freeze(self) -> None:
        """Stop it as SIGSTOP does: it is silent until `thaw`, and its connections stay.

        It reads nothing; what it sends stays with it. A client loses it within twice its
        ``heartbeat`` (`rpc.Limits`; 2 s by default). Handlers that run go on.

        Raises:
            RuntimeError: it does not run.
        """

        def freeze() -> None:
            self._require_running("frozen")
            self._is_frozen = True
            for link in self._listening:
                link.freeze()

        run_on(self.loop, freeze)

    def thaw(self) -> None:
        """End what `freeze` began: what has come meanwhile is read. Otherwise nothing happens."""

        def thaw() -> None:
            self._is_frozen = False
            for link in self._listening:
                link.thaw()

        run_on(self.loop, thaw)

    async def restart(self) -> None:
        """Start it again at the same addresses; it is killed first if it runs.

        The handler object is the same. What was recorded and planned stays.
        """
        if self.is_serving:
            self._kill()
        runtime = self._running
        await self._ports_closed(runtime)
        for link in self._listening:
            link.revive()
        await self._open(self._network.bind_again(runtime, self._links))

    async def close(self) -> None:
        """Close it in order, as a deployment does: `rpc.Server.close`, and wait until it is over.

        Calls in progress have the `grace` that was given to `Kit.serve`; by default none.
        """
        self.thaw()
        self._running.close("the server is closing", self._options.grace)
        await self._running.wait_closed()

    def _require_running(self, what: str) -> Runtime:
        __tracebackhide__ = True
        if not self.is_serving:
            raise RuntimeError(f"{self!r} does not run, and cannot be {what}: restart it first")
        return self._running

    async def _open(self, endpoints: tuple[str, ...]) -> None:
        self._runtime = await open_runtime(self._methods, replace(self._options, bind=endpoints))

    async def _ports_closed(self, runtime: Runtime) -> None:
        if runtime.closing.is_set():
            await runtime.wait_closed()
        for port in runtime.ports:
            # Of one that was killed, `Runtime` has no task that waits for them.
            await port.wait_closed()

    def __repr__(self) -> str:
        return f"<KitServer {', '.join(self.endpoints) if self._links else 'not started'}>"
