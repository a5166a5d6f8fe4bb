"""What clients and servers share: ports, connections, settings, and their end."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Any

from ..endpoint import check_exposure
from ..errors import ServiceClosedError
from .call import Call
from .connection import Connection
from .dialects import make_dialects
from .dispatcher import Dispatcher
from .method_table import HandlerTable
from .port_connections import PortConnections
from .stream import Stream
from .transport import endpoints_of, is_memory, transport_for
from .transport.port import PortOptions
from .validation import (
    checked_error_table,
    checked_exceptions,
    checked_limits,
    checked_seconds,
    checked_threads,
)
from .wire.codec import Codec
from .wire.limits import Limits
from .wire.session import Dialect, Session

__all__ = ["Runtime"]

#: Seconds that cancelled handlers have for what they do on their way out.
CLEANUP = 1.0

#: Seconds within which a peer that works has read that this side is closing, and those between
#: two looks whether all have.
FAREWELL = 1.0
FAREWELL_PAUSE = 0.002

#: What sessions count, by the names of their attributes.
_COUNTED = ("malformed", "expired", "notifications_lost")


class Runtime:
    """The working part behind a `Client` or a `Server`."""

    def __init__(
        self,
        table: HandlerTable,
        *,
        connect: str | Iterable[str] | None,
        bind: str | Iterable[str] | None,
        loop: asyncio.AbstractEventLoop | None,
        dialects: Iterable[str],
        error_table: Mapping[str, type[Exception]] | None,
        translation_table: Mapping[int, Any] | None,
        use_list: bool,
        limits: Limits | None,
        insecure: bool,
        connect_timeout: float,
        slow_handler: float,
        log_exceptions: bool,
        exclude_log_exceptions: Sequence[type[BaseException]],
        send_traceback: bool,
        threads: int | None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        if loop is not None and loop is not self.loop:
            raise ValueError("loop must be None or the running loop")
        self.connect_to = endpoints_of(connect, "connect")
        self.bind_to = endpoints_of(bind, "bind")
        if not (self.connect_to or self.bind_to):
            raise ValueError("nothing to connect or bind to: give connect=, bind= or both")
        for endpoint in self.bind_to:
            check_exposure(endpoint, insecure)
        self.limits = checked_limits(limits)
        self.connect_timeout = checked_seconds(connect_timeout, "connect_timeout")
        self.ids = count(1)
        codec = Codec(translation_table, use_list=use_list, max_depth=self.limits.max_depth)
        self.dialects = make_dialects(
            dialects,
            codec,
            translation_table,
            checked_error_table(error_table),
            max_depth=self.limits.max_depth,
            use_list=use_list,
        )
        self.dispatcher = Dispatcher(
            table,
            self.limits,
            codec,
            slow_handler=checked_seconds(slow_handler, "slow_handler"),
            log_exceptions=log_exceptions,
            exclude_log_exceptions=checked_exceptions(exclude_log_exceptions),
            send_traceback=send_traceback,
            threads=checked_threads(threads),
        )
        self.owners: list[PortConnections] = []
        self._counts = Counter[str]()
        #: Set once `close` was called.
        self.closing = asyncio.Event()
        self._closed: asyncio.Task[None] | None = None

    # -- ports ---------------------------------------------------------------------------

    async def listen(
        self, endpoint: str, *, greeting: Dialect | None, single: bool = False
    ) -> None:
        """Open a listening port."""
        owner, options = self._new_owner(greeting)
        transport = transport_for(endpoint)
        extra = {"single": True} if single and not is_memory(endpoint) else {}
        owner.opened(await transport.listen(endpoint, owner, options, **extra))

    async def dial(self, endpoint: str, *, greeting: Dialect | None) -> None:
        """Open a connecting port."""
        owner, options = self._new_owner(greeting)
        owner.opened(await transport_for(endpoint).dial(endpoint, owner, options))

    def _new_owner(self, greeting: Dialect | None) -> tuple[PortConnections, PortOptions]:
        owner = PortConnections(
            self,
            self.dispatcher,
            self.limits,
            self.dialects,
            self.new_session,
            greeting=greeting,
            loop=self.loop,
        )
        # Kept before it has its port: the transport may tell of a peer while it opens.
        self.owners.append(owner)
        return owner, PortOptions(
            heartbeat=self.limits.heartbeat, max_frame=self.limits.largest_frame
        )

    def new_session(self, dialect: Dialect) -> Session:
        """Make a session of a dialect."""
        return dialect.session(self.limits, ids=self.ids, connect_timeout=self.connect_timeout)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The real addresses of all ports."""
        return tuple(e for owner in self.owners if owner.port for e in owner.port.endpoints)

    # -- connections ---------------------------------------------------------------------

    @property
    def connections(self) -> list[Connection]:
        """All connections, at all ports."""
        return [c for owner in self.owners for c in owner.connections.values()]

    @property
    def peers(self) -> int:
        """How many connections there are, at all ports."""
        return sum(len(owner.connections) for owner in self.owners)

    def connection_made(self, connection: Connection) -> None:
        """A peer is there."""
        if self.dispatcher.closing is not None:
            _say_goodbye(connection, self.dispatcher.closing)

    def connection_lost(self, connection: Connection) -> None:
        """A peer is gone; its calls fail after this."""

    def connection_ended(self, connection: Connection) -> None:
        """A lost connection is settled: what it counted is kept."""
        session = connection.session
        for name in _COUNTED:
            self._counts[name] += getattr(session, name)

    def peer_closing(self, connection: Connection) -> None:
        """A peer takes no more calls."""

    def resend(self, caller: Call | Stream) -> bool:
        """Send what a closing peer refused to another one; whether there is one."""
        return False

    def sessions(self) -> list[Session]:
        """The call state of all connections."""
        return [connection.session for connection in self.connections]

    def statistics(self) -> dict[str, int]:
        """Counts of what is there and of what was lost."""
        sessions = self.sessions()
        counts = {
            "peers": self.peers,
            "calls_in_flight": sum(len(session.pending) for session in sessions),
            "calls_running": self.dispatcher.in_flight,
            "malformed_messages": self.dispatcher.malformed,
            "notifications_dropped": self.dispatcher.notifications_dropped.count,
        }
        for name in _COUNTED:
            counts[name] = self._counts[name] + sum(getattr(s, name) for s in sessions)
        return counts

    # -- the end -------------------------------------------------------------------------

    def close(self, reason: str, grace: float) -> None:
        """Stop taking calls, let those that run finish within `grace` seconds, then close."""
        if self.closing.is_set():
            return
        self.closing.set()
        self.dispatcher.closing = reason
        for connection in self.connections:
            _say_goodbye(connection, reason)
            connection.schedule_flush()
        self._closed = self.loop.create_task(self._finish(reason, grace), name="rpc close")

    async def wait_closed(self) -> None:
        """Wait until `close` was called and is over. Cancelling it cancels the wait alone."""
        await self.closing.wait()
        if self._closed is not None:
            await asyncio.shield(self._closed)

    async def _finish(self, reason: str, grace: float) -> None:
        for connection in self.connections:
            connection.stop_waiting()
        if grace > 0:
            farewell = self.loop.time() + min(grace, FAREWELL)
            await self._running_ended(grace)
            await self._goodbyes_read(farewell)
        for connection in self.connections:
            connection.stop()
        await self._running_ended(CLEANUP)
        for owner in self.owners:
            owner.close()
        for connection in self.connections:
            connection.lost(ServiceClosedError(reason))
        self.dispatcher.close()
        for owner in self.owners:
            if owner.port is not None:
                await owner.port.wait_closed()
            owner.connections.clear()

    async def _goodbyes_read(self, end: float) -> None:
        """Wait until the peers have read the goodbye, and so all they sent before was refused."""
        while self.loop.time() < end and not all(
            c.session.barrier_passed for c in self.connections
        ):
            await asyncio.sleep(FAREWELL_PAUSE)

    async def _running_ended(self, timeout: float) -> None:
        """Wait for the handlers that run, and for those that they make room for."""
        end = self.loop.time() + timeout
        while tasks := [r.task for c in self.connections for r in c.running.values() if r.task]:
            left = end - self.loop.time()
            if left <= 0:
                return
            await asyncio.wait(tasks, timeout=left)
            # The answers are made in callbacks of these tasks.
            await asyncio.sleep(0)

    def abort(self) -> None:
        """Close the ports at once, when opening another failed."""
        self.closing.set()
        for owner in self.owners:
            owner.close()
        with contextlib.suppress(RuntimeError):
            self.dispatcher.close()


def _say_goodbye(connection: Connection, reason: str) -> None:
    connection.session.goodbye(reason)
    connection.session.barrier()
