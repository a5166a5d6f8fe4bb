"""The client: `open_client` and what it returns."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from threading import get_ident
from typing import TYPE_CHECKING, Any

from ..common.tracing import installed
from ..runtime.meter import Meter
from ..security import Security
from .call import Call
from .connection_pool import ConnectionPool, TracedPool
from .dispatcher import DESCRIBE
from .method_table import HandlerTable, collect_methods
from .options import SLOW_HANDLER, CallOptions, ClientOptions
from .peer import Peer
from .proxy import Namespace, no_attribute
from .transport import Place, endpoints_of
from .transport.port import IPC_MODE, MAX_SERVERS
from .validation import Authorize, checked_limits
from .wire.limits import CONNECT_TIMEOUT, Limits

__all__ = ["Client", "open_client", "open_client_with"]


class Client(asyncio.AbstractServer):
    """A client of one or several servers. Made by `open_client`; use it with ``async with``.

    Attributes:
        rpc: the methods of the server: ``await client.rpc.namespace.method(1, key=2)``.
        notify: the same, one way: ``client.notify.log("done")`` sends and returns ``None``.
            Raises `OverloadedError` when too much waits to be sent.
    """

    def __init__(self, pool: ConnectionPool, options: CallOptions) -> None:
        self.pool = pool
        self.options = options
        self.rpc: Namespace[Call] = Namespace(self._call)
        self.notify: Namespace[None] = Namespace(pool.notify)

    def _call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        pool = self.pool
        connection = pool.only
        if (
            connection is None
            or get_ident() != pool.thread
            # A flush is scheduled in a loop that runs.
            or not (connection.flush_scheduled or pool.loop.is_running())
        ):
            return pool.call(method, args, kwargs, self.options)
        return connection.call(method, args, kwargs, self.options)

    def call(self, method: str, /, *args: Any, **kwargs: Any) -> Call:
        """Call a method by its full name, which need not be an identifier.

        Args:
            method: such as ``"namespace.method"``.
        """
        return self._call(method, args, kwargs)

    def with_timeout(self, timeout: float | None) -> "Client":
        """Return a client that shares this one's connections but has another timeout.

        Args:
            timeout: seconds for each call, and for each item of a stream; ``None`` for no limit.
        """
        return type(self)(self.pool, replace(self.options, timeout=timeout))

    def describe(self) -> Call:
        """Ask what the server offers.

        Returns:
            A call whose result is ``{"methods": [...]}`` with each method's name, signature,
            parameters, docstring and kind, sorted by name.
        """
        return self._call(DESCRIBE, (), {})

    @property
    def peer(self) -> Peer | None:
        """The server, by the one connection that there is at this moment.

        Calls by it fail when that connection is lost, and are not sent on the next: so they arrive
        in order, or not at all. ``None`` while there is no connection, and for a client that may
        have several.
        """
        connection = self.pool.only
        if connection is None:
            return None
        return Peer(connection, tracing=self.pool.options.tracing)

    @property
    def timeout(self) -> float | None:
        """Seconds for each call, or ``None``."""
        return self.options.timeout

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The addresses that it connects to or is bound to, wildcard ports resolved."""
        return self.pool.endpoints

    def statistics(self) -> dict[str, int]:
        """Counts, under the names that `Server.statistics` explains: here the peers are servers."""
        return self.pool.statistics()

    @property
    def is_connected(self) -> bool:
        """Whether it has a connection to a server now."""
        return self.pool.is_connected

    @property
    def metrics(self) -> Meter | None:
        """What counts its calls, or ``None``."""
        return self.pool.meter

    def measure(self, meter: Meter | None = None) -> Meter:
        """Begin to count its calls, if that was not asked for as it was opened.

        Args:
            meter: what counts from now on; ``None`` for what does already, or else a new one.

        Returns:
            What counts.
        """
        return self.pool.measure(meter)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that it belongs to."""
        return self.pool.loop

    def is_serving(self) -> bool:
        """Whether it may be used."""
        return not self.pool.closing.is_set()

    async def start_serving(self) -> None:
        """Do nothing: it works from the start."""

    async def serve_forever(self) -> None:
        """Serve its handler's methods until cancelled or closed; then close."""
        try:
            await self.pool.closing.wait()
        finally:
            self.close()
            await self.wait_closed()

    def close(self) -> None:
        """Close the connections. Calls in flight fail with `ServiceClosedError`.

        What was sent before is still delivered, for up to a second. Returns immediately: see
        `wait_closed`.
        """
        self.pool.close("the client is closed", 0.0)

    async def wait_closed(self) -> None:
        """Wait until `close` was called and everything is closed.

        Cancelling it cancels the wait alone.
        """
        await self.pool.wait_closed()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise no_attribute(self, name)

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()
        await self.wait_closed()

    def __repr__(self) -> str:
        return f"<Client {', '.join(self.endpoints)}>"


class TracedClient(Client):
    """A client whose calls are spans: all come by its pool."""

    def _call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        return self.pool.call(method, args, kwargs, self.options)


async def open_client(
    *,
    connect: Place | Iterable[Place] | None = None,
    bind: Place | Iterable[Place] | None = None,
    loop: asyncio.AbstractEventLoop | None = None,
    handler: Any = None,
    timeout: float | None = None,
    connect_timeout: float = CONNECT_TIMEOUT,
    dialect: str = "native",
    error_table: Mapping[str, type[Exception]] | None = None,
    translation_table: Mapping[int, Any] | None = None,
    use_list: bool = False,
    limits: Limits | None = None,
    threads: int | None = None,
    slow_handler: float = SLOW_HANDLER,
    log_exceptions: bool = False,
    exclude_log_exceptions: Sequence[type[BaseException]] = (),
    insecure: bool = False,
    ipc_mode: int = IPC_MODE,
    security: Security | None = None,
    authorize: Authorize | None = None,
    metrics: bool | Meter = False,
    max_servers: int = MAX_SERVERS,
) -> Client:
    """Open a client. It need not find a server yet: calls wait for one.

    Args:
        connect: endpoint or endpoints of servers. With several, each call goes to the least
            loaded live server, and a server that is lost fails only its own calls. Those that a
            closing server does not run any more go to another one. ``nats://host/service`` finds
            all servers of a service by itself; an `rpc.Nats` is the same with more settings.
            ``mdns://name`` finds all that are announced by that name on the local network.
        bind: endpoint or endpoints to listen at, for servers that connect.
        loop: ``None`` or the running loop.
        handler: methods that servers may call over the same connection.
        timeout: seconds for each call, and for each item of a stream. It travels with the call:
            the server stops the handler. ``None`` waits until the server answers or is lost.
        connect_timeout: seconds that a call waits for a connection before it fails with
            `ConnectionLostError`.
        dialect: ``"native"``, ``"aiozmq"`` for a plain aiozmq.rpc 1.0 server, or ``"jsonrpc"`` for
            a server of JSON-RPC 2.0 at a REP or ROUTER socket.
        error_table: ``{"package.module.Class": Class}``: remote exceptions to be raised here as
            these classes.
        translation_table: ``{code: (Class, packer, unpacker)}`` for values of your own, codes
            0 to 122.
        use_list: arrays arrive as lists, not as tuples.
        limits: the bounds; see `Limits`.
        threads, slow_handler, log_exceptions, exclude_log_exceptions: for `handler`, as in
            `start_server`.
        insecure: allow `bind` to addresses beyond this host without authentication, and to abstract
            sockets (``ipc://@name``), which every user of this host may connect to; allow a NATS
            server that asks for none, and to send it a password without TLS.
        ipc_mode: the mode of the file that ``ipc://`` makes: by default its owner alone may
            connect.
        security: who may connect, and how this side proves who it is; ``None`` for neither.
        authorize: for `handler`, as in `start_server`.
        metrics: count the calls, as in `start_server`.
        max_servers: at a ``nats://`` or ``mdns://`` address, with how many of the service's servers
            it connects. The calls go to the least loaded of them.

    Raises:
        TypeError, ValueError: an argument is invalid.
        ModuleNotFoundError: an address is of NATS, and nats-py is not installed; it comes with the
            extra ``nats``. Or it is ``mdns://`` without zeroconf, of the extra ``discovery``.
        OSError: an endpoint cannot be bound.
    """
    options = ClientOptions(
        call=CallOptions(timeout),
        connect=endpoints_of(connect, "connect", connecting=True),
        bind=endpoints_of(bind, "bind"),
        loop=loop,
        dialects=(dialect,),
        error_table=error_table,
        translation_table=translation_table,
        use_list=use_list,
        limits=checked_limits(limits),
        insecure=insecure,
        ipc_mode=ipc_mode,
        security=security,
        authorize=authorize,
        metrics=metrics,
        max_servers=max_servers,
        connect_timeout=connect_timeout,
        slow_handler=slow_handler,
        log_exceptions=log_exceptions,
        exclude_log_exceptions=exclude_log_exceptions,
        threads=threads,
        tracing=installed(),
    )
    return await open_client_with(options, handler)


async def open_client_with(options: ClientOptions, handler: Any = None) -> Client:
    """Open a client by options that were checked before; see `open_client`."""
    table = HandlerTable({}, {}) if handler is None else collect_methods(handler)
    pool = (ConnectionPool if options.tracing is None else TracedPool)(table, options)
    greeting = pool.dialects[0]
    # A server of another dialect that connects says nothing until it is called.
    single = greeting.name != "native"
    try:
        for endpoint in options.connect:
            await pool.dial(endpoint, greeting=greeting)
        for endpoint in options.bind:
            await pool.listen(endpoint, greeting=greeting if single else None, single=single)
    except BaseException:
        pool.abort()
        raise
    return (Client if options.tracing is None else TracedClient)(pool, options.call)
