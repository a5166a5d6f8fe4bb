"""What clients and servers share: ports, connections, counts, and closing them."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from typing import TYPE_CHECKING

from ..errors import AuthenticationError, OverloadedError, ServiceClosedError
from ..nats.options import is_nats
from ..runtime.fork import OwnerProcess, leave_loop_in_child
from ..runtime.log import Log
from ..runtime.loop_delay import sample_loop
from ..runtime.meter import Meter
from ..security import CurveServer
from .connection import Connection
from .dialects import make_dialects
from .dispatcher import Dispatcher
from .method_table import HandlerTable
from .options import Options
from .port_connections import PortConnections
from .transport import transport_for
from .transport.mdns.service import Announced
from .transport.port import Port, PortOptions
from .wire.codec import Codec
from .wire.session import Dialect, Session

if TYPE_CHECKING:
    from .nats_service import NatsService
    from .transport.mdns.announcement import Announcement

__all__ = ["COUNTS", "Runtime"]

logger = Log("berrymq_rpc.rpc")

#: Seconds that cancelled handlers have to clean up.
CLEANUP = 1.0

#: Seconds within which a peer that works has read that this side is closing, and those between
#: two checks whether all have.
FAREWELL = 1.0
FAREWELL_PAUSE = 0.002

#: What sessions count, by the names of their attributes.
_COUNTED = ("malformed", "expired", "notifications_lost")

#: The names of what `Runtime.statistics` has without a meter.
COUNTS = (
    *("peers", "calls_in_flight", "calls", "calls_running", "call_bytes_queued", "bytes_queued"),
    *("malformed_messages", "notifications_dropped", *_COUNTED),
)


class Runtime:
    """The engine of a `Client` or a `Server`."""

    #: What it is the engine of.
    kind = "server"

    def __init__(
        self,
        table: HandlerTable,
        options: Options,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        if options.loop is not None and options.loop is not self.loop:
            raise ValueError(
                "loop must be None or the running loop: leave it away, and call this within the "
                "loop that is to be used"
            )
        if not (options.connect or options.bind):
            raise ValueError(
                "there is no address: give connect=, where the other side listens, or bind=, where "
                "this side is to listen"
            )
        self.options = options
        self.ids = count(1)
        codec = Codec(
            options.translation_table,
            use_list=options.use_list,
            max_depth=options.limits.max_depth,
            untranslated=options.untranslated,
        )
        self.dialects = make_dialects(options, codec)
        self.dispatcher = Dispatcher(table, options, codec)
        self.ports: list[PortConnections] = []
        #: What plain NATS clients are answered by, for each port over NATS.
        self._services: list[NatsService] = []
        #: Tells the local network of it, if it is to be found there.
        self._announcement: Announcement | None = None
        self._counts = Counter[str]()
        self.owner = OwnerProcess(self.kind)
        leave_loop_in_child(self.loop)
        #: Set once `close` was called.
        self.closing = asyncio.Event()
        self._closed: asyncio.Task[None] | None = None
        #: Ends the samples of the event loop's delay.
        self._end_samples: Callable[[], None] = _do_nothing
        if self.dispatcher.meter is not None:
            self._end_samples = sample_loop(self.loop, self.dispatcher.meter)

    # -- ports ---------------------------------------------------------------------------

    async def listen(
        self, endpoint: str, *, greeting: Dialect | None, single: bool = False
    ) -> None:
        """Open a listening port."""
        port = self._new_port(greeting)
        options = self._port_options(single)
        if isinstance(options.security, CurveServer):
            # The ports that bind are opened first, in their order.
            index = len(self.ports) - 1
            options = options._replace(security=options.security.for_endpoint(index))
        opened = await transport_for(endpoint).listen(endpoint, port, options)
        port.opened(opened)
        if is_nats(endpoint):
            await self._serve_plain_clients(opened)

    async def _serve_plain_clients(self, listener: Port) -> None:
        """Have NATS's own tools find this side, and take the requests of plain NATS clients."""
        # Here, as it needs nats-py.
        from .nats_service import NatsService

        service = NatsService(listener, self.dispatcher.table, self.options, self.statistics)
        self._services.append(service)
        if service.dialect is not None:
            port = self._new_port(None, [service.dialect])
            port.opened(service.open_port(port))
        await service.ready(self.options.connect_timeout)

    async def dial(self, endpoint: str, *, greeting: Dialect | None) -> None:
        """Open a connecting port."""
        port = self._new_port(greeting)
        options = self._port_options()
        port.opened(await transport_for(endpoint).dial(endpoint, port, options))

    def announce(self, announced: Announced) -> None:
        """Have clients on the local network find this side; its ports listen already.

        Raises:
            ValueError: other hosts cannot reach it.
        """
        # Here, as it needs zeroconf.
        from .transport.mdns.announcement import Announcement

        self._announcement = Announcement(
            announced, self.endpoints, has_keys=self.options.security is not None
        )

    def _port_options(self, single: bool = False) -> PortOptions:
        limits = self.options.limits
        return PortOptions(
            heartbeat=limits.heartbeat,
            max_frame=limits.largest_frame,
            single=single,
            security=self.options.security,
            ipc_mode=self.options.ipc_mode,
            connect_timeout=self.options.connect_timeout,
            insecure=self.options.insecure,
        )

    def _new_port(
        self, greeting: Dialect | None, dialects: Sequence[Dialect] | None = None
    ) -> PortConnections:
        port = PortConnections(
            self,
            self.dispatcher,
            self.options.limits,
            self.dialects if dialects is None else dialects,
            self.new_session,
            greeting=greeting,
            loop=self.loop,
        )
        # Kept before it is open: the transport may report a peer while it opens.
        self.ports.append(port)
        return port

    def new_session(self, dialect: Dialect) -> Session:
        """Make a session of a dialect."""
        return dialect.session(
            self.options.limits, ids=self.ids, connect_timeout=self.options.connect_timeout
        )

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The real addresses of all ports."""
        return tuple(endpoint for port in self.ports for endpoint in port.endpoints)

    @property
    def is_connected(self) -> bool:
        """Whether peers can reach it, as far as its ports know."""
        ports = [port.port for port in self.ports]
        return not any(port.trouble for port in ports if port is not None)

    # -- connections ---------------------------------------------------------------------

    @property
    def connections(self) -> list[Connection]:
        """All connections, at all ports."""
        return [c for port in self.ports for c in port.connections.values()]

    @property
    def peers(self) -> int:
        """How many connections there are, at all ports."""
        return sum(len(port.connections) for port in self.ports if port.has_peers)

    def connection_made(self, connection: Connection) -> None:
        """A peer has connected."""
        if self.dispatcher.closing is not None:
            _say_goodbye(connection, self.dispatcher.closing)

    def connection_lost(self, connection: Connection) -> None:
        """A peer is lost; its calls fail after this."""

    def connection_ended(self, connection: Connection) -> None:
        """The calls of a lost connection have failed: keep what it counted."""
        session = connection.session
        for name in _COUNTED:
            self._counts[name] += getattr(session, name)

    def connection_refused(self) -> None:
        """A peer over `max_peers` was rejected."""

    def authentication_failed(self, port: PortConnections, error: AuthenticationError) -> None:
        """The peer that a port connects to refused this side, or this side the peer."""
        logger.warning("%s: %s", error.endpoint, error)

    def servers_full(self, port: PortConnections, error: OverloadedError | None) -> None:
        """All peers that a port has found are full; ``None``: there are none now."""

    def peer_closing(self, connection: Connection) -> None:
        """A peer takes no more calls."""

    def all_connections(self) -> list[Connection]:
        """All connections, and what holds the calls that wait for one."""
        return self.connections

    def sessions(self) -> list[Session]:
        """The call state of all connections."""
        return [connection.session for connection in self.all_connections()]

    def statistics(self) -> dict[str, int]:
        """Counts of what exists and of what was lost; see `Server.statistics`."""
        sessions = self.sessions()
        counts = {
            "peers": self.peers,
            "calls_in_flight": sum(len(session.pending) for session in sessions),
            "calls": self.dispatcher.calls,
            "calls_running": self.dispatcher.in_flight + self.dispatcher.waiting,
            "call_bytes_queued": self.dispatcher.queued_bytes,
            "bytes_queued": sum(connection.queued_bytes() for connection in self.connections),
            "malformed_messages": self.dispatcher.malformed,
            "notifications_dropped": self.dispatcher.notifications_dropped,
        }
        for name in _COUNTED:
            counts[name] = self._counts[name] + sum(getattr(s, name) for s in sessions)
        return counts if self.meter is None else counts | self.meter.call_totals()

    @property
    def meter(self) -> Meter | None:
        """What counts the calls, or ``None``."""
        return self.dispatcher.meter

    def measure(self, meter: Meter | None = None) -> Meter:
        """Begin to count calls; see `Server.measure`."""
        dispatcher = self.dispatcher
        if meter is None:
            meter = dispatcher.meter or Meter()
        if meter is not dispatcher.meter and not self.closing.is_set():
            dispatcher.measure(meter)
            for connection in self.all_connections():
                connection.new_call = dispatcher.new_call
            self._end_samples()
            self._end_samples = sample_loop(self.loop, meter)
        return meter

    # -- the end -------------------------------------------------------------------------

    def close(self, reason: str, grace: float) -> None:
        """Stop taking calls, let those that run finish within `grace` seconds, then close."""
        if self.closing.is_set() or not self.owner.is_this:
            return
        self.closing.set()
        self._end_samples()
        self.dispatcher.closing = reason
        if self.loop.is_closed():
            return
        for service in self._services:
            service.stop()
        if self._announcement is not None:
            self._announcement.stop()
        for port in self.ports:
            port.stop_accepting()
        for connection in self.connections:
            _say_goodbye(connection, reason)
            connection.schedule_flush()
        self._closed = self.loop.create_task(self._finish(reason, grace), name="rpc close")

    async def wait_closed(self) -> None:
        """Wait until `close` was called and is over. Cancelling it cancels the wait alone.

        In the child of a fork, there is nothing to wait for.
        """
        if not self.owner.is_this:
            return
        await self.closing.wait()
        if self._closed is not None:
            await asyncio.shield(self._closed)

    async def _finish(self, reason: str, grace: float) -> None:
        for connection in self.connections:
            connection.inbound.stop_waiting()
        if grace > 0:
            farewell = self.loop.time() + min(grace, FAREWELL)
            await self._running_ended(grace)
            await self._goodbyes_read(farewell)
        for connection in self.connections:
            connection.inbound.stop()
        await self._running_ended(CLEANUP)
        for port in self.ports:
            port.close()
        for connection in self.connections:
            connection.lost(ServiceClosedError(reason))
        self.dispatcher.close()
        for port in self.ports:
            await port.wait_closed()
        if self._announcement is not None:
            await self._announcement.wait_stopped()

    async def _goodbyes_read(self, end: float) -> None:
        """Wait until the peers have read the goodbye: all that they sent before it is answered."""
        while self.loop.time() < end and not (
            all(port.is_drained for port in self.ports)
            and all(c.session.barrier_passed for c in self.connections)
        ):
            await asyncio.sleep(FAREWELL_PAUSE)

    async def _running_ended(self, timeout: float) -> None:
        """Wait for the handlers that run, and for those that start in their slots."""
        end = self.loop.time() + timeout
        while tasks := [task for c in self.connections for task in c.inbound.tasks()]:
            left = end - self.loop.time()
            if left <= 0:
                return
            await asyncio.wait(tasks, timeout=left)
            # The answers are made in callbacks of these tasks.
            await asyncio.sleep(0)

    def abort(self) -> None:
        """Close the ports at once, when opening another failed."""
        self.closing.set()
        self._end_samples()
        for port in self.ports:
            port.close()
        with contextlib.suppress(RuntimeError):
            self.dispatcher.close()


def _do_nothing() -> None:
    """Nothing samples the event loop."""


def _say_goodbye(connection: Connection, reason: str) -> None:
    connection.session.goodbye(reason)
    connection.session.barrier()
