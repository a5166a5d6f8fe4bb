"""The connections of a client: which one takes a call, and what waits while there is none."""

from collections.abc import Mapping
from threading import get_ident
from typing import Any

from ..errors import AuthenticationError, Error, OverloadedError, ServiceClosedError
from ..runtime.fork import call_in_child
from .call import Call
from .connection import Connection
from .inbound import Inbound
from .method_table import HandlerTable
from .options import CallOptions, ClientOptions
from .port_connections import PortConnections
from .runtime import Runtime
from .stream import PendingCall
from .tracing import begin_call, follow
from .transport import finds_several
from .transport.port import PortOptions
from .wire.session import State, Unsent

__all__ = ["ConnectionPool", "TracedPool"]


class ConnectionPool(Runtime):
    """Sends each call to the least loaded live server; without one, calls wait for a connection."""

    kind = "client"

    def __init__(self, table: HandlerTable, options: ClientOptions) -> None:
        super().__init__(table, options)
        self.thread = get_ident()
        self._live: list[Connection] = []
        #: Whether there may be a second server to send a call to that the first refused.
        self._may_resend = self.dialects[0].name == "native" and bool(
            options.bind
            or len(options.connect) > 1
            or (options.max_servers > 1 and any(map(finds_several, options.connect)))
        )
        #: The one connection that a call of `thread` may take without `call`, if there is one.
        self.only: Connection | None = None
        session = self.new_session(self.dialects[0])
        self._waiting = Connection(session, None, None, self.loop)
        Inbound(self._waiting, self.dispatcher)
        session.endpoint = ", ".join([*options.connect, *options.bind])
        session.trouble = self._trouble
        #: The ports whose server refused this side the last time, and why.
        self._refusals: dict[PortConnections, Error] = {}
        #: Why it cannot be used any more.
        self._problem: Error | None = None
        self._max_servers = options.max_servers
        self._avoided_services = options.avoided_services
        call_in_child(self.forked)

    def _port_options(self, single: bool = False) -> PortOptions:
        return (
            super()
            ._port_options(single)
            ._replace(
                max_servers=self._max_servers,
                serves=not self.dispatcher.table.is_empty,
                avoided_services=self._avoided_services,
            )
        )

    # -- calls ---------------------------------------------------------------------------

    def call(
        self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: CallOptions
    ) -> Call:
        """Send a call to one of the servers.

        Raises:
            Error, RuntimeError: as `choose`, but `ServiceClosedError`, with which the call fails.
        """
        resend = self._resend if self._may_resend else None
        try:
            connection = self.choose(method)
        except ServiceClosedError as error:
            call = self.dispatcher.new_call(loop=self.loop)
            call.method = method
            call.fail_at_once(error)
            return call
        call = connection.call(method, args, kwargs, options, resend)
        if self._refusals:
            self._fail_refused()
        return call

    def notify(
        self,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Send a notification to one of the servers."""
        connection = self.only
        if (
            connection is None
            or get_ident() != self.thread
            # A flush is scheduled in a loop that runs.
            or not (connection.flush_scheduled or self.loop.is_running())
        ):
            connection = self.choose(method)
        connection.notify(method, args, kwargs, metadata)

    def choose(self, method: str) -> Connection:
        """The connection for a call of a method.

        Raises:
            ServiceClosedError: the client or its event loop is closed.
            Error: it belongs to another process.
            RuntimeError: it belongs to another thread or event loop.
        """
        if self._problem is not None:
            # A new one each time: one that is kept collects a traceback with each raise.
            problem = type(self._problem)(*self._problem.args)
            problem.method = method
            problem.sent = False
            raise problem
        # asyncio.get_running_loop would do, but makes a system call before Python 3.12. In one
        # thread one loop runs at a time.
        if self.loop.is_closed():
            raise ServiceClosedError(
                "the event loop of this client is closed: open a client on each loop"
            )
        if get_ident() != self.thread or not self.loop.is_running():
            raise RuntimeError(
                "this client belongs to another event loop or thread: open one for each loop, or "
                "use rpc.SyncClient, which any thread may call"
            )
        live = self._live
        if len(live) == 1:
            return live[0]
        return min(live, key=_load) if live else self._waiting

    @property
    def is_connected(self) -> bool:
        """Whether there is a server now."""
        return bool(self._live)

    def all_connections(self) -> list[Connection]:
        return [*super().connections, self._waiting]

    # -- connections ---------------------------------------------------------------------

    def authentication_failed(self, port: PortConnections, error: AuthenticationError) -> None:
        # Each call is told.
        self._refusals[port] = error
        self._fail_refused()

    def servers_full(self, port: PortConnections, error: OverloadedError | None) -> None:
        if error is not None:
            self._refusals[port] = error
            self._fail_refused()
        elif isinstance(self._refusals.get(port), OverloadedError):
            del self._refusals[port]

    def _trouble(self) -> str | None:
        """Why there is no connection, as far as the ports know."""
        known = (port.port.trouble for port in self.ports if port.port is not None)
        return "; ".join(filter(None, known)) or None

    def _fail_refused(self) -> None:
        """Fail what waits for a connection, if no server may give one."""
        if not self._live and not self.options.bind and len(self._refusals) == len(self.ports):
            self._waiting.give_up(next(iter(self._refusals.values())))

    def connection_made(self, connection: Connection) -> None:
        super().connection_made(connection)
        if self._refusals:
            self._refusals = {
                port: error
                for port, error in self._refusals.items()
                if port.port is not connection.port
            }
        self._live.append(connection)
        self._set_only()
        connection.adopt(self._waiting.session.take_backlog())

    def connection_lost(self, connection: Connection) -> None:
        super().connection_lost(connection)
        self._leave(connection)

    def peer_closing(self, connection: Connection) -> None:
        super().peer_closing(connection)
        self._leave(connection)
        if not self._live:
            self._waiting.adopt(connection.session.take_backlog())

    def _resend(self, encoded: Any, call: PendingCall) -> bool:
        """Send a call that a closing server did not begin to another one, if there is one."""
        # The goodbye may have come in the message that is being read.
        others = [c for c in self._live if c.session.state is State.OPEN]
        # A server that refuses and says no goodbye would be sent it again and again.
        if not others or call.connection in others:
            return False
        call.sent = call.accepted_at = None
        min(others, key=_load).adopt((Unsent(call, encoded, 0.0),))
        return True

    def _leave(self, connection: Connection) -> None:
        """Send what has not been sent yet to another server, if there is one."""
        if connection in self._live:
            self._live.remove(connection)
            self._set_only()
        if self._live:
            for entry in connection.session.take_backlog():
                min(self._live, key=_load).adopt((entry,))

    # -- the end -------------------------------------------------------------------------

    def close(self, reason: str, grace: float) -> None:
        """Close: what is in flight fails."""
        if not self.owner.is_this:
            return
        if self._problem is None:
            self._problem = ServiceClosedError(f"{reason}: open a new one")
        if self.loop.is_closed():
            # What is in flight ended with it.
            self.closing.set()
            self.only = None
            return
        for connection in self.connections:
            connection.give_up(ServiceClosedError(reason))
        self._live.clear()
        self._set_only()
        self._waiting.lost(ServiceClosedError(reason))
        super().close(reason, grace)

    def _set_only(self) -> None:
        self.only = None if self._may_resend or len(self._live) != 1 else self._live[0]

    def forked(self) -> None:
        """Refuse further use in the child of a fork: the sockets are the parent's."""
        self.only = None
        self._problem = self.owner.error()


class TracedPool(ConnectionPool):
    """The same, for a client whose calls are spans."""

    def __init__(self, table: HandlerTable, options: ClientOptions) -> None:
        super().__init__(table, options)
        assert options.tracing is not None
        self._tracing = options.tracing
        self._dialect = self.dialects[0].name

    def call(
        self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: CallOptions
    ) -> Call:
        span, options = begin_call(self._tracing, method, self._dialect, options)
        try:
            return follow(span, super().call(method, args, kwargs, options))
        except BaseException as error:
            span.end(error)
            raise

    def notify(
        self,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        options = CallOptions(metadata=metadata)
        span, options = begin_call(self._tracing, method, self._dialect, options)
        try:
            super().notify(method, args, kwargs, options.metadata)
        except BaseException as error:
            span.end(error)
            raise
        span.end()


def _load(connection: Connection) -> int:
    return connection.session.load
