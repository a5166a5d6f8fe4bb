"""The node: a bus that other processes can reach, and that can reach them."""

import asyncio
from typing import Any, Self

from ..bus import Bus, default_bus
from ..bus.gateway import Gateway
from ..endpoint import Address, Binding, bind_endpoints, endpoint_of
from ..errors import ServiceClosedError
from ..identifier import Identifier
from ..jsonrpc.http import is_url, open_http_client
from ..rpc import Limits, Server, open_client, start_server
from .beside import beside
from .callback import Allowed
from .connection import Connection, OnewayConnection
from .functions import TTL, ExportedFunctions
from .interconnection import IncomingMessages, Interconnection
from .mailbox import MAX_BYTES, MAX_MESSAGES
from .outbox import MAX_BYTES as MAX_LINE_BYTES
from .outbox import MAX_MESSAGES as MAX_LINE_MESSAGES
from .over_http import HTTPInterconnection, HTTPOnewayConnection, HTTPQueueConnection
from .queue_connection import QueueConnection
from .switchboard import Switchboard
from .token_table import MAX_TOKENS, checked_ttl

__all__ = ["CONNECT_TIMEOUT", "TIMEOUT", "Node"]

#: Seconds that peers have, at closing, to confirm what was sent before.
FAREWELL = 1.0

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
        queue_bytes: bytes that these may take, packed.
        max_connections: how many connections other processes may have here at a time.
        name: what other nodes know this one by: the `origin` of its messages. ``None`` for a
            random one; with one of its own, a node that is restarted gets what its peers have
            kept for it meanwhile. No two nodes may share one.
        line_size: messages that wait for each interconnection at most, while it is down or slow.
            The oldest is dropped, counted and told on the bus when one more comes.
        line_bytes: bytes that these may take.
        callback_allowed: where a peer of style 01 may be called back: ``False``: at its own
            address alone; ``True``: anywhere; or further hosts, such as ``{"10.0.0.7"}``.
        limits: the bounds of what travels; see `rpc.Limits`.
        gateway: what stands between the node and `bus`, as `SyncNode` needs it; ``None`` for
            ``bus.gateway``.

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
        queue_size: int = MAX_MESSAGES,
        queue_bytes: int = MAX_BYTES,
        max_connections: int = MAX_TOKENS,
        name: str | None = None,
        line_size: int = MAX_LINE_MESSAGES,
        line_bytes: int = MAX_LINE_BYTES,
        callback_allowed: Allowed = False,
        limits: Limits | None = None,
        gateway: Gateway | None = None,
    ) -> None:
        for option, seconds in (("timeout", timeout), ("connect_timeout", connect_timeout)):
            if not seconds > 0:
                raise ValueError(f"{option} must be above 0 seconds, not {seconds!r}")
        self._bind = () if bind is None else bind_endpoints(bind)
        if handler is not None and not self._bind:
            raise ValueError("a handler is served at an address: give bind=")
        self._bus = default_bus if bus is None else bus
        self._gateway = self._bus.gateway if gateway is None else gateway
        self._switchboard = Switchboard(
            self._gateway, name, limits=limits, maximum=line_size, maximum_bytes=line_bytes
        )
        self._functions = ExportedFunctions(
            self._bus,
            queue_size=queue_size,
            queue_bytes=queue_bytes,
            max_connections=max_connections,
            callback_allowed=callback_allowed,
            switchboard=self._switchboard,
        )
        self._handler = self._functions if handler is None else beside(self._functions, handler)
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._insecure = insecure
        self._limits = limits
        self._servers: list[Server] = []
        self._connections: set[Connection] = set()
        #: Endpoints of interconnections that are open, or opening.
        self._interconnected: set[str] = set()
        #: In the order in which they were opened.
        self._urls: dict[str, None] = {}
        self._is_running = False

    @property
    def bus(self) -> Bus:
        """The bus."""
        return self._bus

    @property
    def name(self) -> str:
        """What other nodes know this one by, and its messages have as `Message.origin` there."""
        return self._switchboard.name

    @property
    def handler(self) -> Any:
        """What it serves, berryMQ's functions and the methods of its handler."""
        return self._handler

    @property
    def urls(self) -> tuple[str, ...]:
        """Where it is reached beside `endpoints`, which is at the doors of bridges."""
        return tuple(self._urls)

    def reached_at(self, url: str, *, gone: bool = False) -> None:
        """Say where a bridge has opened a door to this node, or that it is `gone`."""
        if gone:
            self._urls.pop(url, None)
        else:
            self._urls[url] = None

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where it listens, wildcard ports resolved; empty before `start`."""
        return tuple(endpoint for server in self._servers for endpoint in server.endpoints)

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
            await self._listen(self._bind, self._insecure)
        self._is_running = True
        # For receivers of senders that have no loop of their own.
        self._gateway.set_loop(asyncio.get_running_loop())
        self._switchboard.start()
        return self

    async def listen(self, bind: Binding, *, insecure: bool = False) -> tuple[str, ...]:
        """Listen at a further address, or several.

        Args:
            bind, insecure: as for the node itself.

        Returns:
            The endpoints, wildcard ports resolved.

        Raises:
            ServiceClosedError: the node does not run.
            Exception: as `start` does.
        """
        self._check_running()
        server = await self._listen(bind_endpoints(bind), insecure)
        if not self._is_running:
            # Closed meanwhile, without this one.
            server.close()
            await server.wait_closed()
            self._check_running()
        return server.endpoints

    async def _listen(self, endpoints: tuple[str, ...], insecure: bool) -> Server:
        server = await start_server(
            self._handler, bind=endpoints, insecure=insecure, limits=self._limits
        )
        self._servers.append(server)
        return server

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
        made = HTTPOnewayConnection if is_url(endpoint) else OnewayConnection
        connection = made(endpoint, client, ttl, self._timeout, self._closed)
        await self._opened(connection)
        return connection

    async def connect_via_queue(
        self,
        identifier: Identifier | str,
        addr: Address,
        ttl: float = TTL,
        *,
        shared: bool = False,
    ) -> QueueConnection:
        """Style 03: a queue at another node, from which this side gets messages.

        Args:
            identifier: the messages to keep there.
            addr, ttl: as in `connect_oneway`.
            shared: whether all connections that say so for this identifier have one queue there,
                which gives each message to one of them. Otherwise each gets all messages.

        Raises:
            ValueError: `identifier` is none or is local.
            Exception: as `connect_oneway`.
        """
        parsed = Identifier(identifier).require_exportable()
        endpoint, ttl = self._target(addr, ttl)
        client = await self._open_client(endpoint)
        made = HTTPQueueConnection if is_url(endpoint) else QueueConnection
        connection = made(parsed, endpoint, client, ttl, self._timeout, self._closed, shared)
        await self._opened(connection)
        return connection

    async def interconnect(
        self, addr: Address, ttl: float = TTL, callback: Address | None = None
    ) -> Interconnection:
        """Style 01: both nodes carry all messages to each other.

        Each passes on what comes from other nodes, so that in any topology each node gets each
        message once, in the order in which it was sent. What was sent on a bus before its node
        was reached counts as missed: ``connection:missed`` is told on the bus.

        Args:
            addr, ttl: as in `connect_oneway`.
            callback: one of this node's own endpoints, at which the peer is to call back. ``None``:
                messages of the peer come over the connection that is made now, so this node need
                not be reachable.

        Raises:
            ValueError: this node has an interconnection with that one, or is that one; or the
                peer is not allowed to call back there.
            Exception: as `connect_oneway`.
        """
        endpoint, ttl = self._target(addr, ttl)
        if endpoint in self.endpoints:
            raise ValueError(f"{endpoint} is this node itself: messages would come twice")
        if endpoint in self._interconnected:
            raise ValueError(
                f"there is an interconnection with {endpoint}: messages would come twice"
            )
        where = None if callback is None else endpoint_of(callback)
        if is_url(endpoint):
            where = self._url_to_call_back(callback)
        elif where is not None and not self.endpoints:
            raise ValueError("this node listens nowhere, so it cannot be called back: give bind=")
        self._interconnected.add(endpoint)
        incoming = IncomingMessages(self._switchboard, endpoint)
        try:
            client = await self._open_client(endpoint, incoming)
        except BaseException:
            self._interconnected.discard(endpoint)
            incoming.line.close()
            raise
        made = HTTPInterconnection if is_url(endpoint) else Interconnection
        connection = made(
            incoming,
            self._functions,
            self.name,
            endpoint,
            client,
            ttl,
            self._timeout,
            self._closed,
            where,
        )
        await self._opened(connection)
        return connection

    def statistics(self) -> dict[str, int]:
        """Counts.

        Of what other processes have here: ``connections``, and messages that wait for them or were
        dropped. Of what goes between nodes: this node's own messages that could not travel
        (``messages_refused``), those of others that are known to have been missed, and those that
        came again, which is no loss.
        """
        router = self._switchboard.router
        return self._functions.statistics() | {
            "messages_refused": router.refused,
            "messages_missed": router.sequences.missed,
            "doubles": router.sequences.doubles,
        }

    async def close(self) -> None:
        """Close the connections to other nodes, and stop listening. Can be called again."""
        self._is_running = False
        await asyncio.gather(*(connection.close() for connection in self._connections))
        # What was sent before goes to those who connected to this node, too.
        await self._switchboard.drain(FAREWELL)
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()
        await asyncio.gather(*(server.wait_closed() for server in servers))
        self._functions.close()

    async def __aenter__(self) -> Self:
        return self if self._is_running else await self.start()

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        where = ", ".join(self.endpoints) or ("nowhere" if self._is_running else "closed")
        return f"<Node {where}>"

    def _check_running(self) -> None:
        if not self._is_running:
            raise ServiceClosedError("the node does not run: use it with 'async with', or start it")

    def _target(self, addr: Address, ttl: float) -> tuple[str, float]:
        self._check_running()
        return endpoint_of(addr), checked_ttl(ttl)

    def _url_to_call_back(self, callback: Address | None) -> str:
        """Where a peer over HTTP finds this node: it has no other way to send messages here."""
        if callback is not None:
            if not is_url(callback):
                raise ValueError(f"callback is a URL where the peer's address is, not {callback!r}")
            return str(callback)
        for url in self._urls:
            if is_url(url):
                return url
        raise ValueError(
            "this node cannot be called back over HTTP: open a door with Bridge(node).serve_http, "
            "or give callback="
        )

    async def _open_client(self, endpoint: str, incoming: IncomingMessages | None = None) -> Any:
        if is_url(endpoint):
            return await open_http_client(
                endpoint,
                version="1.0",
                timeout=self._timeout,
                connect_timeout=self._connect_timeout,
            )
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
        connection.tell = self._switchboard.tell
        await connection.open()

    def _closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if isinstance(connection, Interconnection):
            self._interconnected.discard(connection.endpoint)
