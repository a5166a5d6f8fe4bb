"""The connections of one port: made when a peer connects, ended when it is lost."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import Protocol

from ..errors import AuthenticationError, ConnectionLostError, OverloadedError, ProtocolError
from ..runtime.log import Log
from .connection import Connection
from .dispatcher import Dispatcher
from .inbound import Inbound
from .transport.port import Key, Port
from .turns import TURN
from .wire.limits import Limits
from .wire.record import CALL
from .wire.session import Dialect, Frames, Session

__all__ = ["ConnectionEvents", "PortConnections"]

logger = Log("berrymq_rpc.rpc")

#: Calls of a rejected peer's message that are answered: those of a JSON-RPC batch.
MAX_REJECTED = 1000


class ConnectionEvents(Protocol):
    """Receives the events of the connections of a client or server."""

    def connection_made(self, connection: Connection) -> None:
        """A peer has connected."""

    def connection_lost(self, connection: Connection) -> None:
        """A peer is lost; its calls fail after this."""

    def connection_ended(self, connection: Connection) -> None:
        """The calls of a lost connection have failed."""

    def connection_refused(self) -> None:
        """A peer over `max_peers` was rejected: its calls are answered with an error."""

    def authentication_failed(self, port: "PortConnections", error: AuthenticationError) -> None:
        """The peer that a port connects to refused this side, or this side the peer."""

    def servers_full(self, port: "PortConnections", error: OverloadedError | None) -> None:
        """All servers that a port has found are full; ``None``: there are none now."""

    def peer_closing(self, connection: Connection) -> None:
        """A peer takes no more calls."""

    @property
    def peers(self) -> int:
        """How many connections there are, at all ports."""


class PortConnections:
    """Hands a port's messages to its connections.

    Args:
        greeting: the dialect in which a peer is greeted as soon as it connects, or ``None`` to
            wait for its first message.
        dialects: what the peers may speak; the first message says which.
        new_session: makes a session of a dialect.
    """

    def __init__(
        self,
        events: ConnectionEvents,
        dispatcher: Dispatcher,
        limits: Limits,
        dialects: Sequence[Dialect],
        new_session: Callable[[Dialect], Session],
        *,
        greeting: Dialect | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.port: Port | None = None
        self.connections: dict[Key, Connection] = {}
        self._events = events
        self._dispatcher = dispatcher
        self._limits = limits
        self._dialects = dialects
        self._new_session = new_session
        self._greeting = greeting
        self._loop = loop
        self._dirty: list[Connection] = []
        #: When messages that are read now begin to wait for a turn of their own.
        self._turn_end = 0.0
        #: Peers that were greeted and have sent nothing yet: their dialect is a guess.
        self._guessed: set[Key] = set()
        self._ticker: asyncio.TimerHandle | None = None
        self._next_tick = 0.0

    @property
    def has_peers(self) -> bool:
        """Whether its connections are one with each peer."""
        return self.port is None or self.port.has_peers

    @property
    def is_drained(self) -> bool:
        """Whether nothing new is on its way, once it has stopped accepting."""
        return self.port is None or self.port.is_drained

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The port's real addresses; none before it is open."""
        return () if self.port is None else self.port.endpoints

    def opened(self, port: Port) -> None:
        """The port is open."""
        self.port = port
        for connection in self.connections.values():
            # Made while the port opened.
            connection.port = port
            connection.session.endpoint = ", ".join(port.endpoints)
            connection.flush()
        if not port.notices_loss:
            self._next_tick = monotonic()
            self._tick()

    # -- what the port reports (`transport.port.PortHandler`) ---------------------------------

    def has_room(self, peers: int) -> bool:
        # Its peers may not have sent anything yet.
        others = self._events.peers - len(self.connections)
        return others + max(peers, len(self.connections)) < self._limits.max_peers

    def peer_connected(self, key: Key) -> None:
        if self._greeting is not None and key not in self.connections:
            self._guessed.add(key)
            self._connect(key, self._greeting).flush()

    def message_received(self, key: Key, frames: Sequence[bytes]) -> None:
        connection = self.connections.get(key)
        if connection is None or key in self._guessed:
            connection = self._identify(key, frames, connection)
            if connection is None:
                return
        now = monotonic()
        if not self._dirty:
            self._turn_end = now + TURN
        if connection.is_behind or now >= self._turn_end:
            if not connection.postpone(frames, now):
                self._cut_off(key)
                return
        else:
            connection.receive(frames, now, self._turn_end)
        if not connection.dirty:
            connection.dirty = True
            self._dirty.append(connection)

    def message_refused(self, key: Key, reason: str) -> None:
        self._dispatcher.log_malformed(
            key.hex() if isinstance(key, bytes) else "", ProtocolError(reason)
        )

    def authentication_failed(self, error: AuthenticationError) -> None:
        error.endpoint = ", ".join(self.endpoints)
        self._events.authentication_failed(self, error)

    def servers_full(self, reason: str | None) -> None:
        error = None if reason is None else OverloadedError(reason)
        self._events.servers_full(self, error)

    def read_complete(self) -> None:
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            connection.dirty = False
            connection.flush_soon()

    def peer_lost(self, key: Key, reason: str, *, at_once: bool = False) -> None:
        connection = self.connections.pop(key, None)
        self._guessed.discard(key)
        if connection is not None:
            if at_once:
                connection.end_turns()
            self._events.connection_lost(connection)
            connection.leave(
                ConnectionLostError(reason), partial(self._events.connection_ended, connection)
            )

    def _cut_off(self, key: Key) -> None:
        """End the connection of a peer that sends far more than is served."""
        assert self.port is not None
        self.port.disconnect(key)
        self.peer_lost(key, "the peer sends far more than is served", at_once=True)

    # -- connections -----------------------------------------------------------------------

    def _connect(self, key: Key, dialect: Dialect) -> Connection:
        session = self._new_session(dialect)
        if self.port is not None:
            session.endpoint = ", ".join(self.port.endpoints)
            session.can_be_pushed = session.can_be_pushed and self.port.can_be_pushed(key)
        connection = Connection(session, self.port, key, self._loop, self._events.peer_closing)
        Inbound(connection, self._dispatcher)
        self.connections[key] = connection
        session.connected(monotonic())
        self._events.connection_made(connection)
        return connection

    def _identify(
        self, key: Key, frames: Sequence[bytes], guessed: Connection | None
    ) -> Connection | None:
        """Return the connection of a peer that speaks for the first time; detect its dialect."""
        dialect = next((d for d in self._dialects if d.recognises(frames)), None)
        if guessed is not None and (dialect is None or dialect.name == guessed.session.dialect):
            self._guessed.discard(key)
            return guessed
        if dialect is None:
            sizes = [len(frame) for frame in frames[:8]]
            self._dispatcher.log_malformed(
                key.hex() if isinstance(key, bytes) else "",
                ProtocolError(f"{len(frames)} frames of {sizes} bytes in no dialect of this port"),
            )
            return None
        if guessed is not None:
            self.peer_lost(key, "the peer speaks another dialect")
        elif self.has_peers and self._events.peers >= self._limits.max_peers:
            self._events.connection_refused()
            self._reject_peer(key, frames, self._new_session(dialect))
            return None
        return self._connect(key, dialect)

    def _reject_peer(self, key: Key, frames: Frames, session: Session) -> None:
        """Reject a peer over `max_peers`: answer its calls with an error and keep no state."""
        assert self.port is not None
        now = monotonic()
        error = self._dispatcher.describe(
            OverloadedError(
                f"max_peers={self._limits.max_peers:,} is reached: so many peers are connected. "
                "Try again later, or raise it in limits= of the server"
            )
        )
        try:
            incoming = session.receive(frames, now)
            while session.unread:
                incoming += session.receive_rest(now)
        except ProtocolError as problem:
            self._dispatcher.log_malformed("", problem)
            return
        calls = [call_id for kind, call_id, *_ in incoming if kind == CALL]
        # A native peer that keeps to the window sends no more in its first message.
        for call_id in calls[:MAX_REJECTED]:
            session.error(call_id, error)
        for message in session.messages(now):
            self.port.send(key, message)

    def _tick(self) -> None:
        """Ping the peers of a transport that does not notice their loss."""
        now = monotonic()
        # While this side's event loop was blocked, it did not read what the peers sent.
        delay = now - self._next_tick
        for key, connection in list(self.connections.items()):
            connection.session.last_heard = min(connection.session.last_heard + delay, now)
            if connection.session.tick(now):
                connection.schedule_flush()
            else:
                assert self.port is not None
                self.port.disconnect(key)
                silence = now - connection.session.last_heard
                self.peer_lost(key, f"the peer has been silent for {silence:.1f} s")
        pause = self._limits.heartbeat / 4
        self._next_tick = now + pause
        self._ticker = self._loop.call_later(pause, self._tick)

    def stop_accepting(self) -> None:
        """Have the port take no new peers, as this side is about to close."""
        if self.port is not None:
            self.port.stop_accepting()

    def close(self) -> None:
        """Hand the pending records to the port, and close it."""
        if self._ticker is not None:
            self._ticker.cancel()
        for connection in list(self.connections.values()):
            connection.flush()
        if self.port is not None:
            self.port.close()

    async def wait_closed(self) -> None:
        """Wait until the port is closed, and forget its connections."""
        if self.port is not None:
            await self.port.wait_closed()
        self.connections.clear()
