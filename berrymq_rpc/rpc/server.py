"""The server: `start_server` and what it returns."""

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..common.tracing import installed
from ..runtime.meter import Meter
from ..security import CurveServer, Security
from .method_table import HandlerTable, collect_methods
from .options import DIALECTS, GRACE, SLOW_HANDLER, ServerOptions
from .runtime import Runtime
from .transport import Place, endpoints_of
from .transport.mdns.service import Announced
from .transport.port import IPC_MODE
from .validation import Authorize, checked_limits
from .wire.limits import Limits

__all__ = ["Server", "open_runtime", "start_server", "start_server_with"]


class Server(asyncio.AbstractServer):
    """A server that runs. Made by `start_server`; use it with ``async with``, or `close` it."""

    def __init__(self, runtime: Runtime, grace: float) -> None:
        self._runtime = runtime
        self._grace = grace

    @property
    def endpoints(self) -> tuple[str, ...]:
        """What clients connect to, which is the real addresses with wildcard ports resolved."""
        return self._runtime.endpoints

    def statistics(self) -> dict[str, int]:
        """Counts.

        * ``peers``: connections that there are.
        * ``calls``: calls and notifications of the peers so far, those included that were refused.
        * ``calls_running``: of these, what runs: coroutines, streams, and threads until they end.
          A plain function holds the event loop while it runs, so none is ever counted here.
        * ``call_bytes_queued``: bytes of the peers' calls that wait for their turn.
        * ``bytes_queued``: bytes that wait for the peers to read them.
        * ``calls_in_flight``: calls to the peers that are not answered yet.
        * ``malformed_messages``, ``malformed``: messages that could not be read, and those and
          parts of messages that the peers' dialects do not allow.
        * ``expired``: calls that were read after their deadline, and so not run.
        * ``notifications_dropped``: notifications of the peers that were not served.
        * ``notifications_lost``: notifications to the peers that are known not to have arrived.

        With ``metrics``, also how many calls of the peers have ended how: ``calls_ok``,
        ``calls_error``, ``calls_cancelled``, ``calls_expired``, ``calls_refused``; and of those to
        the peers: ``calls_made_ok`` and so on. These are the meter's, for all that it counts.
        """
        return self._runtime.statistics()

    @property
    def is_connected(self) -> bool:
        """Whether clients can reach it, as far as it knows; not while NATS is away."""
        return self._runtime.is_connected

    @property
    def metrics(self) -> Meter | None:
        """What counts its calls, or ``None``."""
        return self._runtime.meter

    def measure(self, meter: Meter | None = None) -> Meter:
        """Begin to count its calls, if that was not asked for as it was opened.

        Args:
            meter: what counts from now on; ``None`` for what does already, or else a new one.

        Returns:
            What counts.
        """
        return self._runtime.measure(meter)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that it runs on."""
        return self._runtime.loop

    def is_serving(self) -> bool:
        """Whether it takes calls."""
        return not self._runtime.closing.is_set()

    async def start_serving(self) -> None:
        """Do nothing: it serves from the start."""

    async def serve_forever(self) -> None:
        """Serve until cancelled, or until `close` is called from elsewhere; then close."""
        try:
            await self._runtime.closing.wait()
        finally:
            self.close()
            await self.wait_closed()

    def revoke(self, key: str | os.PathLike[str]) -> None:
        """Refuse a client's key from now on, cut its connections and cancel its calls.

        It lasts as long as this process: take the key out of the folder as well
        (``berrymq revoke FOLDER NAME``).

        Args:
            key: the public key, or the path of the file that holds it.

        Raises:
            ValueError: the server has no `CurveServer`, or `key` is not a key.
        """
        security = self._runtime.options.security
        if not isinstance(security, CurveServer):
            raise ValueError("this server asks for no keys: there is none to revoke")
        security.revoke(key)

    def close(self) -> None:
        """Stop taking calls and close.

        Calls in progress may finish within the server's `grace`; new ones are refused with
        `ServiceClosedError`, and clients get a goodbye, so that one with several endpoints calls
        another server. ``waits=True`` calls are ended at once. Returns immediately: see
        `wait_closed`.
        """
        self._runtime.close("the server is closing", self._grace)

    async def wait_closed(self) -> None:
        """Wait until `close` was called and everything is closed.

        Cancelling it cancels the wait alone.
        """
        await self._runtime.wait_closed()

    async def __aenter__(self) -> "Server":
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()
        await self.wait_closed()

    def __repr__(self) -> str:
        return f"<Server {', '.join(self.endpoints)}>"


async def start_server(
    handler: Any,
    *,
    bind: Place | Iterable[Place] | None = None,
    connect: Place | Iterable[Place] | None = None,
    loop: asyncio.AbstractEventLoop | None = None,
    dialects: Iterable[str] = DIALECTS,
    error_table: Mapping[str, type[Exception]] | None = None,
    translation_table: Mapping[int, Any] | None = None,
    use_list: bool = False,
    limits: Limits | None = None,
    grace: float = GRACE,
    threads: int | None = None,
    slow_handler: float = SLOW_HANDLER,
    log_exceptions: bool = False,
    exclude_log_exceptions: Sequence[type[BaseException]] = (),
    send_traceback: bool = False,
    insecure: bool = False,
    ipc_mode: int = IPC_MODE,
    security: Security | None = None,
    authorize: Authorize | None = None,
    metrics: bool | Meter = False,
    announce: str | None = None,
) -> Server:
    """Start to serve a handler's methods.

    Args:
        handler: an `AttrHandler`, a mapping, or any object with ``__getitem__``. What it
            exports is tabulated now.
        bind: endpoint or endpoints to listen at: ``tcp://127.0.0.1:*`` (a free port; see
            `Server.endpoints`), ``ipc://path``, ``mem://name``. The path must be free: a file, or
            the socket of a live server, is refused. ``nats://host/service`` serves a service at
            NATS, as one of its servers; an `rpc.Nats` is the same with more settings.
        connect: endpoint or endpoints of clients that are bound. A plain aiozmq.rpc client that
            is bound is greeted in the native dialect, which it logs, unless
            ``dialects="aiozmq"``.
        loop: ``None`` or the running loop.
        dialects: what peers may speak: any of ``"native"``, ``"aiozmq"`` and ``"jsonrpc"``. A
            peer's first message says which.
        error_table: ``{"package.module.Class": Class}`` for exceptions of clients that the
            server calls.
        translation_table: ``{code: (Class, packer, unpacker)}`` for values of your own, codes
            0 to 122.
        use_list: arrays arrive as lists, not as tuples.
        limits: the bounds; see `Limits`.
        grace: seconds that calls in progress have when the server closes.
        threads: workers for ``@rpc.method(thread=True)``; the default is that of
            `concurrent.futures.ThreadPoolExecutor`.
        slow_handler: seconds that a handler may hold the event loop before a warning names it.
        log_exceptions: log what handlers raise, with the traceback.
        exclude_log_exceptions: exception classes not to log.
        send_traceback: send the text of tracebacks to callers, as a note of the exception.
        insecure: allow `bind` to addresses beyond this host without authentication, and to abstract
            sockets (``ipc://@name``), which every user of this host may connect to; allow a NATS
            server that asks for none, and to send it a password without TLS.
        ipc_mode: the mode of the file that ``ipc://`` makes: by default its owner alone may
            connect.
        security: who may connect, and how this side proves who it is; ``None`` for neither.
        authorize: a plain function of the `Context` and the method's full name, called before each
            call; unless it returns ``True``, the call fails with `PermissionDeniedError`.
        metrics: count the calls by method and outcome, with their seconds, and the event loop's
            delay; an `rpc.Meter` counts those of several.
        announce: the name of a service, 1 to 40 letters, digits, ``_`` and ``-``: clients on the
            local network find the server at ``mdns://name``, by the first of its ``tcp://``
            addresses that other hosts can reach. Several servers may have the name.

    Raises:
        TypeError, ValueError: an argument is invalid.
        OSError: an endpoint cannot be bound.
        AuthenticationError, ConnectionLostError: a NATS server refused this side, or a subject that
            it needs, or did not answer within 5 s.
        ModuleNotFoundError: an address is of NATS, and nats-py is not installed; it comes with the
            extra ``nats``. Or `announce` is given without zeroconf, of the extra ``discovery``.
    """
    options = ServerOptions(
        grace=grace,
        connect=endpoints_of(connect, "connect", connecting=True),
        bind=endpoints_of(bind, "bind"),
        loop=loop,
        dialects=dialects,
        error_table=error_table,
        translation_table=translation_table,
        use_list=use_list,
        limits=checked_limits(limits),
        insecure=insecure,
        ipc_mode=ipc_mode,
        security=security,
        authorize=authorize,
        metrics=metrics,
        announce=None if announce is None else Announced(announce),
        slow_handler=slow_handler,
        log_exceptions=log_exceptions,
        exclude_log_exceptions=exclude_log_exceptions,
        send_traceback=send_traceback,
        threads=threads,
        tracing=installed(),
    )
    return await start_server_with(handler, options)


async def start_server_with(handler: Any, options: ServerOptions) -> Server:
    """Start a server by options that were checked before; see `start_server`."""
    return Server(await open_runtime(collect_methods(handler), options), options.grace)


async def open_runtime(table: HandlerTable, options: ServerOptions) -> Runtime:
    """Serve the methods of a table; what a `Server` is made of."""
    runtime = Runtime(table, options)
    try:
        for endpoint in options.bind:
            await runtime.listen(endpoint, greeting=None)
        for endpoint in options.connect:
            # A bound client does not know of this server until it speaks.
            await runtime.dial(endpoint, greeting=runtime.dialects[0])
        if options.announce is not None:
            runtime.announce(options.announce)
    except BaseException:
        runtime.abort()
        raise
    return runtime
