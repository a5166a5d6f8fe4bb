"""What a test opens, hears and expects, all of which is closed at its end: `Kit`."""

import asyncio
import inspect
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from ..bus import Bus, default_bus
from ..bus.fresh_state import fresh_state
from ..identifier import Identifier
from ..rpc.client import Client, open_client
from ..rpc.method_table import collect_methods
from ..rpc.options import ServerOptions
from ..rpc.sync import SyncClient
from ..rpc.validation import checked_limits, checked_seconds
from ..runtime.loop_thread import LoopThread
from .heard import Heard
from .kit_server import KitServer
from .leaks import KINDS, Baseline, find_leaks, settle_tasks, settle_threads
from .link import Link
from .loop import running_loop
from .network import MemoryNetwork, Network
from .raises_within import RaisesWithin
from .sync_kit_server import SyncKitServer

__all__ = ["Kit", "LeakError"]

E = TypeVar("E", bound=BaseException)
T = TypeVar("T")

#: Seconds that calls of a client of the kit have: a test that waits for nothing should fail.
CALL_TIMEOUT = 5.0

#: Seconds that `Kit.until` waits, and between two looks.
TIMEOUT, LOOK = 5.0, 0.001


class LeakError(AssertionError):
    """A test has left behind what it had opened by itself."""


class Kit:
    """Servers, clients and buses for one test: the fixture ``berrymq``.

    Without pytest, use it with ``async with``, or with ``with`` in a plain test.

    Args:
        network: over what servers and clients meet; by default ``mem://``.

    Raises at the end, from ``with`` and ``async with``:
        LeakError: something was left behind that the test had opened by itself.
    """

    def __init__(self, network: Network | None = None) -> None:
        self._network = MemoryNetwork() if network is None else network
        self._servers: list[KitServer] = []
        self._clients: list[Client] = []
        self._sync_clients: list[SyncClient] = []
        #: By the address that a client connects to: there is a link for each client.
        self._links: dict[str, Link] = {}
        self._heard: list[Heard] = []
        self._loop_thread: LoopThread | None = None
        self._bus: ExitStack | None = None
        self._allowed: set[str] = set()
        self._baseline: Baseline | None = None

    # -- servers and clients -----------------------------------------------------------------------

    async def serve(self, handler: Any, /, **options: Any) -> KitServer:
        """Start a server, at an address of its own.

        Args:
            handler: as for `rpc.start_server`; or a dictionary of functions marked with
                ``@rpc.method``.
            options: of `rpc.start_server`, but `bind` and `connect`. `grace` is 0 here.

        Raises:
            TypeError, ValueError: an argument is invalid.
            RuntimeError: the test runs on trio.
        """
        __tracebackhide__ = True
        _refuse_addresses(options, "serve")
        options.setdefault("grace", 0.0)
        options["limits"] = checked_limits(options.get("limits"))
        _require_asyncio("serve")
        server = KitServer(self._network, collect_methods(handler), ServerOptions(**options))
        try:
            await server.start()
        except BaseException:
            await server.aclose()
            raise
        self._servers.append(server)
        return server

    async def client(
        self, *servers: KitServer, timeout: float | None = CALL_TIMEOUT, **options: Any
    ) -> Client:
        """Open a client of a server of the kit, with a link of its own.

        Args:
            servers: one, or several among which the client shares its calls.
            timeout: seconds for each call; ``None`` for no limit.
            options: of `rpc.open_client`, but `connect` and `bind`.

        Raises:
            TypeError, ValueError: an argument is invalid.
        """
        __tracebackhide__ = True
        _require_asyncio("client")
        endpoints = await self._new_links(servers, options, "client")
        client = await open_client(connect=endpoints, timeout=timeout, **options)
        self._clients.append(client)
        return client

    def sync_serve(self, handler: Any, /, **options: Any) -> SyncKitServer:
        """Start a server on a thread, for tests that are not async; otherwise as `serve`."""
        server = self._run(self.serve(handler, **options))
        return SyncKitServer(server, self._run)

    def sync_client(
        self,
        *servers: KitServer | SyncKitServer,
        timeout: float | None = CALL_TIMEOUT,
        **options: Any,
    ) -> SyncClient:
        """Open an `rpc.SyncClient` of a server of the kit, with a link of its own.

        Arguments are those of `client`, with the options of `rpc.SyncClient`. In an async test, the
        server has to be one of `sync_serve`: calls that block would hold one on the event loop.

        Raises:
            TypeError, ValueError: an argument is invalid.
        """
        __tracebackhide__ = True
        inner = [s.served if isinstance(s, SyncKitServer) else s for s in servers]
        thread = self._loop_thread
        for server in inner:
            # Anything else is refused below.
            loop = getattr(server, "loop", None)
            if loop is not None and (thread is None or loop is not thread.loop):
                raise ValueError(
                    f"{server!r} is on the event loop of the test, which a sync client would hold: "
                    "start it by berrymq.sync_serve(...), or open an async client"
                )
        endpoints = self._run(self._new_links((*inner,), options, "sync_client"))
        client = SyncClient(connect=endpoints, timeout=timeout, **options)
        self._sync_clients.append(client)
        return client

    async def _new_links(
        self, servers: tuple[object, ...], options: dict[str, Any], name: str
    ) -> list[str]:
        __tracebackhide__ = True
        _refuse_addresses(options, name)
        if not servers:
            raise TypeError(f"{name}: give a server, as berrymq.serve(...) returns it")
        checked: list[KitServer] = []
        for server in servers:
            if inspect.iscoroutine(server):
                server.close()
                raise TypeError(f"{name}: the server is not awaited: await berrymq.serve(...)")
            if isinstance(server, SyncKitServer):
                raise TypeError(f"{name}: {server!r} is on a thread: berrymq.sync_client(server)")
            if not isinstance(server, KitServer):
                raise TypeError(
                    f"{name}: {server!r} is not a server of berrymq.serve(...); for others, use "
                    "rpc.open_client(connect=...)"
                )
            checked.append(server)
        links = [await server.new_link() for server in checked]
        self._links |= {link.endpoint: link for link in links}
        return [link.endpoint for link in links]

    def link(self, client: Client | SyncClient, server: "AnyServer | None" = None) -> Link:
        """The way between a client and its server, on which faults can be set.

        Args:
            client: of `client` or `sync_client`.
            server: which one, if the client has several.

        Raises:
            ValueError: the client is not one of this kit, or has several servers.
        """
        __tracebackhide__ = True
        if isinstance(client, KitServer | SyncKitServer):
            raise TypeError("link: give a client of berrymq.client(server), which has the link")
        found = [self._links[e] for e in client.endpoints if e in self._links]
        if server is not None:
            inner = server.served if isinstance(server, SyncKitServer) else server
            found = [link for link in found if inner.has_link(link)]
        if not found:
            raise ValueError(f"{client!r} has no link: open it by berrymq.client(server)")
        if len(found) > 1:
            raise ValueError(f"{client!r} has {len(found)} links: berrymq.link(client, server)")
        return found[0]

    # -- the bus -----------------------------------------------------------------------------------

    def bus(self, *, keep_followers: bool = False) -> Bus:
        """The default bus of the process, with nothing that follows it; as before after the test.

        Args:
            keep_followers: whether what follows it already goes on to do so, such as functions
                that a module has decorated with ``@following_function``. Queues do not.
        """
        if self._bus is None:
            self._bus = ExitStack()
            self._bus.enter_context(fresh_state(default_bus, keep_followers=keep_followers))
        return default_bus

    def listen(self, identifier: Identifier | str = "*:*", bus: Bus | None = None) -> Heard:
        """Hear messages from now on; see `Heard`.

        Args:
            identifier: which; by default all.
            bus: ``None`` for the default bus.

        Raises:
            ValueError, TypeError: `identifier` is not an identifier.
        """
        heard = Heard(default_bus if bus is None else bus, identifier)
        self._heard.append(heard)
        return heard

    # -- waiting -----------------------------------------------------------------------------------

    @overload
    def raises_within(
        self, expected: type[E], seconds: float, *, match: str | None = None
    ) -> RaisesWithin[E]: ...

    @overload
    def raises_within(
        self, expected: tuple[type[E], ...], seconds: float, *, match: str | None = None
    ) -> RaisesWithin[E]: ...

    def raises_within(self, expected: Any, seconds: float, *, match: str | None = None) -> Any:
        """Expect an exception in a ``with`` block, in time.

        In an async test, what runs longer is cancelled. In a plain test nothing can cancel it, and
        the time is looked at afterwards: give the client a timeout.

        Args:
            expected: its class, or several.
            seconds: within which it has to be raised.
            match: a regular expression that is searched in its text.

        Raises:
            AssertionError: it was not raised, or too late, or has another text. Exceptions of other
                classes pass.
        """
        __tracebackhide__ = True
        return RaisesWithin(expected, seconds, match)

    async def until(self, condition: Callable[[], object], timeout: float = TIMEOUT) -> None:
        """Wait until a condition is true, which is asked each millisecond.

        ::

            await berrymq.until(lambda: server.cancelled("charge"))

        Raises:
            AssertionError: it is not true in time; the text has its source and last value.
        """
        __tracebackhide__ = True
        end = time.monotonic() + checked_seconds(timeout, "timeout", zero=True)
        while not (value := _value_of(condition)):
            if time.monotonic() >= end:
                raise AssertionError(_not_true(condition, value, timeout))
            await asyncio.sleep(LOOK)

    def sync_until(self, condition: Callable[[], object], timeout: float = TIMEOUT) -> None:
        """`until` for tests that are not async."""
        __tracebackhide__ = True
        end = time.monotonic() + checked_seconds(timeout, "timeout", zero=True)
        while not (value := _value_of(condition)):
            if time.monotonic() >= end:
                raise AssertionError(_not_true(condition, value, timeout))
            time.sleep(LOOK)

    # -- the end -----------------------------------------------------------------------------------

    def allow_leaks(self, *kinds: str) -> None:
        """Do not report what the test leaves behind.

        Args:
            kinds: ``"tasks"``, ``"threads"``, ``"sockets"``; without any, all three.

        Raises:
            ValueError: a kind is unknown.
        """
        __tracebackhide__ = True
        unknown = set(kinds) - KINDS
        if unknown:
            raise ValueError(f"kinds of leaks are {sorted(KINDS)}, not {sorted(unknown)}")
        self._allowed |= set(kinds) or KINDS

    def begin(self) -> None:
        """Note what there is before the test: it is no leak."""
        if self._baseline is None:
            self._baseline = Baseline.now()

    async def aclose(self) -> list[str]:
        """Close what was opened, in an async test.

        Returns:
            What the test has left behind; nothing without `begin`.
        """
        self._stop_noting()
        if running_loop() is not None:
            await self._close_async()
        if self._baseline is not None:
            await settle_tasks(self._baseline)
        # It has no awaits, and so needs no loop of its own.
        return self._close_rest()

    def close(self) -> list[str]:
        """Close what was opened, in a test that is not async, or outside of its event loop.

        Returns:
            As `aclose`.

        Raises:
            RuntimeError: the event loop of servers and clients was closed before.
        """
        self._stop_noting()
        abandoned: list[object] = []
        for loop in {thing.get_loop() for thing in self._clients} | {s.loop for s in self._servers}:
            if loop.is_closed():
                abandoned += [c for c in self._clients if c.get_loop() is loop]
                abandoned += [s for s in self._servers if s.loop is loop]
                self._clients = [c for c in self._clients if c not in abandoned]
                self._servers = [s for s in self._servers if s not in abandoned]
                continue
            if self._loop_thread and loop is self._loop_thread.loop:
                continue
            # Of an async fixture whose test did not run.
            loop.run_until_complete(self._close_async())
        leaks = self._close_rest()
        if abandoned:
            raise RuntimeError(
                f"the event loop was closed before {abandoned[0]!r}: what runs this test does not "
                "let the fixture see its end, so use `async with Kit() as berrymq:` in it"
            )
        return leaks

    def _stop_noting(self) -> None:
        if self._baseline is not None:
            self._baseline.sockets.stop()

    async def _close_async(self) -> None:
        loop = asyncio.get_running_loop()
        clients = [client for client in self._clients if client.get_loop() is loop]
        servers = [server for server in self._servers if server.loop is loop]
        for client in clients:
            client.close()
        for client in clients:
            await client.wait_closed()
            self._clients.remove(client)
        for server in servers:
            await server.aclose()
            self._servers.remove(server)

    def _close_rest(self) -> list[str]:
        for heard in self._heard:
            heard.close()
        self._heard.clear()
        for client in self._sync_clients:
            client.close()
        self._sync_clients.clear()
        if self._loop_thread is not None:
            self._loop_thread.close(self._close_async)
            self._loop_thread = None
        if self._bus is not None:
            self._bus.close()
            self._bus = None
        before, self._baseline = self._baseline, None
        if before is None:
            return []
        settle_threads(before)
        return find_leaks(before, frozenset(self._allowed))

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the thread of the kit."""
        if self._loop_thread is None:
            self._loop_thread = LoopThread("test kit")
        return self._loop_thread.run(coroutine)

    async def __aenter__(self) -> Self:
        self.begin()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _report(await self.aclose(), error)

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _report(self.close(), error)


AnyServer = KitServer | SyncKitServer


def _report(leaks: list[str], error: BaseException | None) -> None:
    if not leaks:
        return
    text = "\n".join(["the test has left behind:", *(f"  {leak}" for leak in leaks)])
    if error is None:
        raise LeakError(f"{text}\nClose it, or say berrymq.allow_leaks().")
    error.add_note(text)


def _require_asyncio(name: str) -> None:
    __tracebackhide__ = True
    if running_loop() is None:
        raise RuntimeError(
            f"{name}: no event loop of asyncio runs here. With anyio's plugin, the fixture "
            "anyio_backend has to return 'asyncio'"
        )


def _refuse_addresses(options: dict[str, Any], name: str) -> None:
    __tracebackhide__ = True
    for option in ("bind", "connect"):
        if option in options:
            raise TypeError(
                f"{name}: the kit gives the address, so that a test runs over every transport; "
                f"with {option}= use rpc.start_server or rpc.open_client"
            )


def _value_of(condition: Callable[[], object]) -> object:
    value = condition()
    if inspect.iscoroutine(value):
        # It would be true.
        value.close()
        raise TypeError("until: give a plain function, not an async one: it is asked often")
    return value


def _not_true(condition: Callable[[], object], value: object, timeout: float) -> str:
    try:
        source = " ".join(inspect.getsource(condition).split())
    except (OSError, TypeError):
        source = repr(condition)
    return f"not true within {timeout:g} s, but {value!r}: {source}"
