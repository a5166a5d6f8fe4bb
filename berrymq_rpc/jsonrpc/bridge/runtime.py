"""What the listeners of a bridge share: the dispatcher, the bounds, the connections, the counts."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...common.tracing import installed
from ...errors import AuthenticationError, OverloadedError
from ...rpc.connection import Connection
from ...rpc.dispatcher import Dispatcher
from ...rpc.method_table import HandlerTable
from ...rpc.options import Options
from ...rpc.port_connections import PortConnections
from ...rpc.transport.port import Key, Port, PortOptions
from ...rpc.wire.codec import Codec
from ...rpc.wire.limits import Limits
from ...runtime.fork import leave_loop_in_child
from ...runtime.log import Log
from ...runtime.loop_delay import sample_loop
from ...runtime.meter import Meter
from ...security import Security
from ..message import IncomingMessage
from .acceptor import Handshakes
from .host_calls import HostCalls
from .listener import ListenerPort
from .listener_dialect import ListenerDialect, PostDialect
from .places import PlaceBounds, Places

if TYPE_CHECKING:
    from ...rpc.call import Call
    from ...rpc.stream import Stream

__all__ = ["BridgeRuntime"]

logger = Log("berrymq_rpc.jsonrpc.bridge")

#: Seconds between two checks whether a peer's calls have ended.
SETTLE_PAUSE = 0.01


class BridgeRuntime:
    """Serves the peers of all listeners.

    Args:
        table: what is served.
        limits: the bounds of calls in flight and of depth.
        max_size: bytes of a text from a peer, and of the text that answers it.
        max_batch: requests in a batch.
        bounds: of the connections of all listeners.
        security: of the ZeroMQ listeners: who may connect.
        on_lost: called with each connection that is lost.
        options: how handlers are run and logged; see `rpc.options.Options`.
    """

    def __init__(
        self,
        table: HandlerTable,
        limits: Limits,
        *,
        max_size: int,
        max_batch: int,
        bounds: PlaceBounds,
        security: Security | None,
        on_lost: Callable[[Connection], object],
        **options: Any,
    ) -> None:
        self.limits = replace(limits, max_peers=bounds.max_places)
        self.max_size = max_size
        #: With which all listeners are opened.
        self.port_options = PortOptions(
            heartbeat=limits.heartbeat, max_frame=max_size, security=security
        )
        self.places = Places(bounds, self._peers_elsewhere)
        self.handshakes = Handshakes()
        self.refused = 0
        #: How many requests and connections came without a valid token.
        self.tokens_refused = 0
        self._options = Options(limits=limits, tracing=installed(), **options)
        self.dispatcher = Dispatcher(table, self._options, Codec())
        #: Those of listeners that serve other methods.
        self._further: list[Dispatcher] = []
        self._end_samples: Callable[[], None] = lambda: None
        #: The calls of each host by plain HTTP.
        self.host_calls = HostCalls(self.dispatcher)
        self._max_batch = max_batch
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        leave_loop_in_child(self._loop)
        self._ports: list[PortConnections] = []
        self._dialects: list[ListenerDialect] = []

    def attach(
        self,
        port: Port | None = None,
        *,
        posts: bool = False,
        message_type: type[IncomingMessage] = IncomingMessage,
        connections_type: type[PortConnections] = PortConnections,
        dispatcher: Dispatcher | None = None,
    ) -> PortConnections:
        """Make the connections of a port.

        Args:
            port: the port; ``None`` for one that is opened later, and whose peers are served from
                their first text on.
            posts: whether its peers can only be answered.
            message_type: reads the texts.
            dispatcher: serves the calls; ``None`` for that of the bridge.
        """
        dialect = (PostDialect if posts else ListenerDialect)(
            self.max_size, self._max_batch, message_type
        )
        connections = connections_type(
            self,
            self.dispatcher if dispatcher is None else dispatcher,
            self.limits,
            [dialect],
            lambda dialect: dialect.session(self.limits),
            greeting=None if port is None else dialect,
            loop=self._loop,
        )
        if port is not None:
            connections.opened(port)
        self._ports.append(connections)
        self._dialects.append(dialect)
        return connections

    def new_dispatcher(self, table: HandlerTable) -> Dispatcher:
        """Make the dispatcher of a listener that serves other methods, with the same options."""
        dispatcher = Dispatcher(table, self._options, Codec())
        dispatcher.measure(self.dispatcher.meter)
        self._further.append(dispatcher)
        return dispatcher

    def measure(self, meter: Meter) -> None:
        """Have a meter count all calls from now on, and sample the event loop."""
        for dispatcher in (self.dispatcher, *self._further):
            dispatcher.measure(meter)
        for connection in self.connections:
            connection.new_call = self.dispatcher.new_call
        self._end_samples()
        self._end_samples = sample_loop(self._loop, meter)

    # -- counts ----------------------------------------------------------------------------

    @property
    def connections(self) -> list[Connection]:
        """All connections, at all ports."""
        return [c for port in self._ports for c in port.connections.values()]

    @property
    def peers(self) -> int:
        """How many connections there are, at all ports."""
        return self.places.count + self._peers_elsewhere()

    def _peers_elsewhere(self) -> int:
        """How many peers hold no place: those over ZeroMQ, which accepts them by itself."""
        return sum(
            len(port.connections) for port in self._ports if not isinstance(port.port, ListenerPort)
        )

    @property
    def in_progress(self) -> int:
        """Calls that are not answered yet, and notifications that run."""
        return sum(connection.inbound.in_progress for connection in self.connections)

    def statistics(self) -> dict[str, int]:
        """What is counted here; see `Bridge.statistics`."""
        return {
            "peers": self.peers,
            "peers_refused": self.refused,
            "peers_closed": self.places.closed,
            "bytes_held": self.places.size,
            "posts_refused": self.host_calls.refused,
            "tokens_refused": self.tokens_refused,
            "calls": sum(dialect.calls for dialect in self._dialects),
            "calls_running": self.in_progress,
            "calls_in_progress": self.in_progress,
            "call_bytes_queued": self.dispatcher.queued_bytes,
            "notifications_dropped": self.dispatcher.notifications_dropped,
            "bytes_queued": sum(connection.queued_bytes() for connection in self.connections),
            "malformed_messages": sum(each.malformed for each in (self.dispatcher, *self._further))
            + sum(dialect.malformed for dialect in self._dialects),
        }

    # -- `rpc.port_connections.ConnectionEvents` -------------------------------------------

    def connection_made(self, connection: Connection) -> None:
        """Do nothing: JSON-RPC has no greeting."""

    def connection_lost(self, connection: Connection) -> None:
        self.host_calls.remove(connection)
        self._on_lost(connection)

    def connection_ended(self, connection: Connection) -> None:
        """Do nothing: the dialects keep the counts."""

    def connection_refused(self, reason: str | None = None) -> None:
        """Count a peer that is refused.

        Args:
            reason: the default is that `max_peers` is reached.
        """
        self.refused += 1
        if reason is None:
            reason = f"max_peers={self.limits.max_peers:,} is reached"
        logger.warning("%s: %d peers refused so far", reason, self.refused)

    def authentication_failed(self, port: PortConnections, error: AuthenticationError) -> None:
        """Do nothing: a listener makes no connections."""

    def servers_full(self, port: PortConnections, error: OverloadedError | None) -> None:
        """Do nothing: a listener makes no connections."""

    def peer_closing(self, connection: Connection) -> None:
        """Do nothing: JSON-RPC peers do not announce it."""

    def resend(self, caller: "Call | Stream") -> bool:
        return False

    # -- the end ---------------------------------------------------------------------------

    def hang_up(self, port: PortConnections, key: Key) -> None:
        """Cancel the calls of a peer that has closed its connection; its notifications run on."""
        connection = port.connections.get(key)
        if connection is not None:
            connection.inbound.cancel_calls()
            self._settle(port, key, connection)

    def _settle(self, port: PortConnections, key: Key, connection: Connection) -> None:
        if connection.inbound.in_progress:
            self._loop.call_later(SETTLE_PAUSE, self._settle, port, key, connection)
        else:
            port.peer_lost(key, "the connection was closed")

    async def finish(self, connection: Connection, grace: float) -> None:
        """Wait for the calls of a peer that sends nothing more, and send the answers.

        It may still read, or be gone: a call that waits for something to come, such as a ``get``,
        is cancelled, so that a message goes to a peer that is there.

        Args:
            grace: seconds that the other calls have.
        """
        inbound = connection.inbound
        end = self._loop.time() + grace
        # What has just arrived takes its first step: what is there already is answered.
        await asyncio.sleep(0)
        inbound.cancel_waiting(self.dispatcher.table.waits)
        while inbound.in_progress and self._loop.time() < end:
            await asyncio.sleep(SETTLE_PAUSE)
            inbound.cancel_waiting(self.dispatcher.table.waits)
        connection.flush()

    async def answered(self, connections: Iterable[Connection], grace: float) -> None:
        """Wait up to `grace` seconds for the calls of peers, and send the answers."""
        connections = list(connections)
        end = self._loop.time() + grace
        while any(c.inbound.in_progress for c in connections) and self._loop.time() < end:
            await asyncio.sleep(SETTLE_PAUSE)
        for connection in connections:
            connection.flush()

    def refuse_calls(self, reason: str) -> None:
        """Accept no more calls, for this reason."""
        for dispatcher in (self.dispatcher, *self._further):
            dispatcher.closing = reason

    def close(self) -> None:
        """Drop all peers."""
        self._end_samples()
        for port in self._ports:
            for key in list(port.connections):
                port.peer_lost(key, "the bridge is closed")
        for dispatcher in (self.dispatcher, *self._further):
            dispatcher.close()
