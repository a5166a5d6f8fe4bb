"""The node: a bus that other processes can reach, and that can reach them."""

import asyncio
from typing import Any, Self

from ..bus import Bus, default_bus
from ..errors import ServiceClosedError
from ..identifier import Identifier
from ..rpc import Client, Limits, Server, open_client, start_server
from .address import Address, Binding, bind_endpoints, endpoint_of
from .beside import beside
from .connection import Connection, OnewayConnection, QueueConnection
from .delivery import travelling
from .functions import TTL, ExportedFunctions
from .interconnection import IncomingMessages, Interconnection
from .mailbox import MAXIMUM_MESSAGES
from .token_table import MAXIMUM_TOKENS, checked_ttl

__all__ = ["CONNECT_TIMEOUT", "TIMEOUT", "Node"]

#: Seconds that a peer has for an answer: it only publishes a message or looks into a queue.
TIMEOUT = 10.0

#: Seconds that a peer has to appear; long enough for it to start, short enough for a person.
CONNECT_TIMEOUT = 5.0


class Node:
    """Ties a bus to those of other processes. Use it with ``async with``::

        async with Node("tcp://127.0.0.1:5555") as node:
            print(node.endpoints)
            connection = await node.connect_oneway("tcp://127.0.0.1:5556")
            await connection.send_message("greeting:hello", "you")

    Messages from other processes reach whoever follows them on `bus`, and other processes get
    those of `bus` by the connections that they make.

    Args:
        bind: where to listen: an endpoint such as ``"tcp://127.0.0.1:5555"``, ``(host, port)``, or
            several of these. Port ``0`` or ``*`` is any free one. ``None``: nowhere; such a node
            can connect to others.
        bus: the bus; ``None`` for the default one.
        handler: further methods to serve beside berryMQ's functions.
        timeout: seconds that peers have for each answer.
        connect_timeout: seconds that a peer has to appear.
        insecure: allow `bind` to addresses beyond this host without authentication.
        queue_size: messages that each queue for a remote consumer keeps at most.
        max_connections: how many connections other processes may have here at a time.
        limits: the bounds of what travels; see `rpc.Limits`.

    Raises:
        ValueError: `handler` has the name of one of berryMQ's functions, or an argument is none of
            what it may be.
        TypeError: `handler` is no handler, or an address is none.
    """

    def __init__(
        self,
        bind: Binding | None = None,
        bus: Bus | None = None,
        handler: Any = None,
        *,
        timeout: float = TIMEOUT,
        connect_timeout: float = CONNECT_TIMEOUT,
        insecure: bool = False,
        queue_size: int = MAXIMUM_MESSAGES,
        max_connections: int = MAXIMUM_TOKENS,
        limits: Limits | None = None,
    ) -> None:
        for name, seconds in (("timeout", timeout), ("connect_timeout", connect_timeout)):
            if not seconds > 0:
                raise ValueError(f"{name} must be above 0 seconds, not {seconds!r}")
        self._bind = () if bind is None else bind_endpoints(bind)
        if handler is not None and not self._bind:
            raise ValueError("a handler is served at an address: give bind=")
        self._bus = default_bus if bus is None else bus
        self._functions = ExportedFunctions(
            self._bus, queue_size=queue_size, max_connections=max_connections
        )
        self._handler = self._functions if handler is None else beside(self._functions, handler)
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._insecure = insecure
        self._limits = limits
        self._server: Server | None = None
        self._connections: set[Connection] = set()
        #: Endpoints of interconnections that are open, or opening.
        self._interconnected: set[str] = set()
        self._is_running = False

    @property
    def bus(self) -> Bus:
        """The bus."""
        return self._bus

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where it listens, wildcard ports resolved; empty before `start`."""
        return () if self._server is None else self._server.endpoints

    @property
    def connections(self) -> tuple[Connection, ...]:
        """The connections to other nodes that are open, in no order."""
        return tuple(self._connections)

    async def start(self) -> Self:
        """Begin to listen. ``async with`` does it.

        Raises:
            OSError: an endpoint cannot be bound, as it is in use for one.
            ValueError: an endpoint is none, or is reached from other hosts without `insecure`.
        """
        if self._is_running:
            raise RuntimeError("the node runs already")
        if self._bind:
            self._server = await start_server(
                self._handler, bind=self._bind, insecure=self._insecure, limits=self._limits
            )
        self._is_running = True
        return self

    async def connect_oneway(self, addr: Address, ttl: float = TTL) -> OnewayConnection:
        """Style 02: a connection by which this side sends messages to a node.

        Args:
            addr: the node's endpoint, or ``(host, port)``.
            ttl: seconds for which the peer keeps the connection when this process is gone.

        Raises:
            ConnectionLostError: nobody answers there.
            NotFoundError: who answers is no node.
            ValueError, TypeError: an argument is none of what it may be.
            OverloadedError: the peer has too many connections.
        """
        endpoint, ttl = self._target(addr, ttl)
        client = await self._open_client(endpoint)
        connection = OnewayConnection(endpoint, client, ttl, self._timeout, self._closed)
        await self._opened(connection)
        return connection

    async def connect_via_queue(
        self, identifier: Identifier | str, addr: Address, ttl: float = TTL
    ) -> QueueConnection:
        """Style 03: a queue at another node, from which this side gets messages.

        Args:
            identifier: the messages to keep there.
            addr, ttl: as in `connect_oneway`.

        Raises:
            ValueError: `identifier` is none or is local.
            Exception: as `connect_oneway`.
        """
        parsed = travelling(identifier)
        endpoint, ttl = self._target(addr, ttl)
        client = await self._open_client(endpoint)
        connection = QueueConnection(parsed, endpoint, client, ttl, self._timeout, self._closed)
        await self._opened(connection)
        return connection

    async def interconnect(self, addr: Address, ttl: float = TTL) -> Interconnection:
        """Style 01: both nodes carry all messages of their own to each other.

        Messages of the peer come over the connection that is made now, so this node need not be
        reachable. What came over one interconnection is not carried on over another.

        Args:
            addr, ttl: as in `connect_oneway`.

        Raises:
            ValueError: this node has an interconnection with that one, or is that one: messages
                would come twice.
            Exception: as `connect_oneway`.
        """
        endpoint, ttl = self._target(addr, ttl)
        if endpoint in self.endpoints:
            raise ValueError(f"{endpoint} is this node itself: messages would come twice")
        if endpoint in self._interconnected:
            raise ValueError(
                f"there is an interconnection with {endpoint}: messages would come twice"
            )
        self._interconnected.add(endpoint)
        incoming = IncomingMessages(self._bus, endpoint)
        try:
            client = await self._open_client(endpoint, incoming)
        except BaseException:
            self._interconnected.discard(endpoint)
            raise
        connection = Interconnection(
            self._bus, incoming, endpoint, client, ttl, self._timeout, self._closed
        )
        await self._opened(connection)
        return connection

    def statistics(self) -> dict[str, int]:
        """Counts of what other processes have here: connections, and messages that wait in their
        queues or were dropped there.
        """
        return self._functions.statistics()

    async def close(self) -> None:
        """Close the connections to other nodes, and stop listening. Can be called again."""
        self._is_running = False
        await asyncio.gather(*(connection.close() for connection in self._connections))
        server, self._server = self._server, None
        if server is not None:
            server.close()
            await server.wait_closed()
        self._functions.close()

    async def __aenter__(self) -> Self:
        return self if self._is_running else await self.start()

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        where = ", ".join(self.endpoints) or ("nowhere" if self._is_running else "closed")
        return f"<Node {where}>"

    def _target(self, addr: Address, ttl: float) -> tuple[str, float]:
        if not self._is_running:
            raise ServiceClosedError("the node does not run: use it with 'async with', or start it")
        return endpoint_of(addr), checked_ttl(ttl)

    async def _open_client(self, endpoint: str, incoming: IncomingMessages | None = None) -> Client:
        return await open_client(
            connect=endpoint,
            handler=incoming,
            timeout=self._timeout,
            connect_timeout=self._connect_timeout,
            limits=self._limits,
        )

    async def _opened(self, connection: Connection) -> None:
        # Kept while it opens: closing the node closes it as well.
        self._connections.add(connection)
        await connection.open()

    def _closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if isinstance(connection, Interconnection):
            self._interconnected.discard(connection.endpoint)
