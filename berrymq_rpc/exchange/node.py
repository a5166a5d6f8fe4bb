"""The node: a bus that other processes can reach, and that can reach them."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

from ..bus import Bus, Message, default_bus
from ..bus.gateway import Gateway
from ..common.tracing import installed
from ..endpoint import Binding
from ..errors import ServiceClosedError
from ..identifier import Identifier
from ..jsonrpc.http import is_url
from ..nats.options import Durable, Nats, NatsPlace, nats_of
from ..nats.subject import checked_name
from ..rpc import Limits, Server
from ..rpc.options import CallOptions, ClientOptions, ServerOptions
from ..rpc.runtime import COUNTS
from ..rpc.server import start_server_with
from ..rpc.transport import endpoints_of
from ..rpc.transport.mdns.announcement import check_announced
from ..rpc.transport.mdns.service import Announced
from ..rpc.transport.port import IPC_MODE
from ..rpc.validation import checked_limits, checked_seconds
from ..rpc.wire.translation import Untranslated
from ..runtime.fork import OwnerProcess
from ..runtime.log import Log
from ..runtime.loop_delay import sample_loop
from ..runtime.meter import Meter, meter_of
from ..security import CurveServer, PublicKey, Security
from ..security.key_pair import public_key
from .connection import Connection, Keeper, OnewayConnection, StreamKeeper
from .consumer import MAX_UNACKNOWLEDGED, checked_ack_wait, checked_tries
from .dial_back import Allowed
from .durable.history import DurableHistory
from .durable.info import DurableQueueInfo
from .functions import MAX_PEER_LINKS, TTL, ExportedFunctions
from .http_carrier import HTTPKeeper, HTTPLinkKeeper
from .interconnection import (
    FAREWELL,
    IncomingMessages,
    Interconnection,
    LinkKeeper,
    StreamLinkKeeper,
)
from .leases import MAX_LEASES, MAX_TTL, checked_ttl
from .merged_handler import merge_handlers
from .mesh import Mesh
from .overview import connections_of, queues_of
from .peer_client import (
    Place,
    binding_of,
    endpoint_of_node,
    endpoint_to_show,
    key_of,
    open_peer_client,
)
from .policy import Allow, Grants, Policy
from .queue_connection import QueueConnection
from .quota import PEER_SHARE
from .remote_queue import MAX_BYTES, MAX_MESSAGES
from .send_buffer import MAX_BYTES as MAX_LINK_BYTES
from .send_buffer import MAX_MESSAGES as MAX_LINK_MESSAGES
from .will import MAX_WILL_BYTES, WILL_DELAY

if TYPE_CHECKING:
    from .cluster.cluster import Cluster
    from .durable.queues import ClusterQueues

__all__ = ["CONNECT_TIMEOUT", "TIMEOUT", "Node"]

logger = Log("berrymq_rpc.exchange")

#: Seconds that a peer has for an answer: it only publishes a message or looks into a queue.
TIMEOUT = 10.0

#: Seconds that a peer has to appear: enough for it to start, and not too long for a person.
CONNECT_TIMEOUT = 5.0


#: Seconds for which a message may wait for its time: ten years.
MAX_DELAY = 3_653 * 86_400


class Node:
    """Connects a bus with those of other processes. Use it with ``async with``::

        async with Node("tcp://127.0.0.1:5555") as node:
            print(node.endpoints)
            connection = await node.connect_oneway("tcp://127.0.0.1:5556")
            await connection.send_message("greeting:hello", "you")

    Messages of other processes reach their followers on `bus`. Other processes get the messages of
    `bus` by the connections that they make.

    Args:
        bind: where to listen: an endpoint such as ``"tcp://127.0.0.1:5555"``, ``(host, port)``, or
            several of these. Port ``0`` or ``*`` is any free one. ``None``: the node does not
            listen, but can connect to others. ``"nats://host/service"`` listens behind NATS; all
            nodes there meet by `cluster`.
        bus: the bus; ``None`` for the default one.
        handler: further methods to serve besides berryMQ's functions.
        timeout: seconds that peers have for each answer.
        connect_timeout: seconds that a peer has to appear.
        insecure, ipc_mode: as for `rpc.start_server`.
        queue_size: messages that each queue for another process keeps at most.
        queue_bytes: bytes that these may take, packed.
        total_queue_bytes: bytes that all queues here may take; over it, the oldest messages of the
            largest queue of the largest peer are dropped. ``None``: so many that one peer's share
            is one full queue.
        max_connections: how many connections other processes may have here at a time. When one
            more comes, the oldest that was never used makes way for it.
        peer_share: the part of `max_connections` and `total_queue_bytes` that one peer may have. A
            peer is a user; without one it is a connection, or for plain HTTP an address.
        max_ttl: seconds for which a connection may go unused; a longer ttl is cut to it.
        max_peer_links: how many interconnections one peer may have here.
        max_unacknowledged: messages that a consumer of a queue here may have got and not
            acknowledged; then its `get` waits.
        name: the `origin` of its messages at other nodes. ``None`` for a random one. If a node with
            a name of its own is restarted, it gets what its peers have kept for it meanwhile. No
            two nodes may share a name.
        line_size: messages that wait for each interconnection at most, while it is down or slow.
            When one more comes, the oldest is dropped, counted and reported on the bus.
        line_bytes: bytes that these may take.
        callback_allowed: where a peer of style 01 may be called back: ``False``: only at its own
            address; ``True``: anywhere; or further hosts, such as ``{"10.0.0.7"}``.
        limits: the bounds of what travels; see `rpc.Limits`.
        translation_table: ``{code: (Class, packer, unpacker)}`` for values of your own, codes 0 to
            122. A value for which a node has no entry is passed on as it is; a receiver that uses
            it there gets an error that says what is missing.
        security: who may connect, and how this node proves who it is; ``None`` for neither.
        allow_send, allow_receive: which messages each user may send to this node, and get from it,
            as ``{user: [identifiers]}``; ``"*"`` names everyone else. A wildcard in a message's
            identifier needs one in the grant. ``None`` allows everybody everything; otherwise who
            is not named may nothing.
        cluster: an address of NATS such as ``"nats://127.0.0.1:4222"``, or a `rpc.Nats`: the node
            and all others there that have the same `namespace` carry their messages to each other.
            Each gets only what is followed on its bus; one with interconnections as well gets all,
            and passes it on. ``None`` for no cluster.
        durable: how the cluster keeps the messages of durable queues, as a `rpc.Durable`, if this
            is the first node to open one; ``None`` for its defaults, or whatever others have said.
            A later one with other settings gets a `ValueError` from its queues.
        namespace: of the cluster, 1 to 64 letters, digits, ``_`` and ``-``.
        will: a message, as ``(identifier, *args)``, such as ``("sensor:gone", "oven 3")``: what its
            peers publish, once, when this node is lost: killed, frozen, or cut off from all of
            them. Not after `close`, nor while one of them reaches it. Its origin is this node.
            ``None`` for none.
        will_delay: seconds that it has to come back, in this run or, with the same `name`, in a
            new one.
        will_bytes: bytes that a will may have, its own or that of a peer.
        metrics: count the messages of the bus and the calls of the node; see `rpc.start_server`.
        announce: a name, 1 to 40 letters, digits, ``_`` and ``-``: others on the local network find
            the node at ``mdns://name``, by the first ``tcp://`` address of `bind` that other hosts
            can reach; without `bind`, of the first `listen`. Several nodes may have the name.
        gateway: what the node uses of `bus`, if `SyncNode` has put something in between; ``None``
            for ``bus.gateway``.

    Raises:
        ModuleNotFoundError: `announce` needs zeroconf, of the extra ``discovery``.
        ValueError: `handler` has the name of one of berryMQ's functions, or an argument is invalid.
        TypeError: `handler` is not a handler, or an address is not one.
    """

    def __init__(
        self,
        bind: Binding | Nats | None = None,
        bus: Bus | None = None,
        handler: Any = None,
        *,
        timeout: float = TIMEOUT,
        connect_timeout: float = CONNECT_TIMEOUT,
        insecure: bool = False,
        ipc_mode: int = IPC_MODE,
        queue_size: int = MAX_MESSAGES,
        queue_bytes: int = MAX_BYTES,
        total_queue_bytes: int | None = None,
        max_connections: int = MAX_LEASES,
        peer_share: float = PEER_SHARE,
        max_ttl: float = MAX_TTL,
        max_peer_links: int = MAX_PEER_LINKS,
        max_unacknowledged: int = MAX_UNACKNOWLEDGED,
        name: str | None = None,
        line_size: int = MAX_LINK_MESSAGES,
        line_bytes: int = MAX_LINK_BYTES,
        callback_allowed: Allowed = False,
        limits: Limits | None = None,
        translation_table: Mapping[int, Any] | None = None,
        security: Security | None = None,
        allow_send: Allow | None = None,
        allow_receive: Allow | None = None,
        cluster: NatsPlace | None = None,
        namespace: str = "default",
        durable: Durable | None = None,
        will: Sequence[Any] | None = None,
        will_delay: float = WILL_DELAY,
        will_bytes: int = MAX_WILL_BYTES,
        metrics: bool | Meter = False,
        gateway: Gateway | None = None,
        announce: str | None = None,
    ) -> None:
        for option, seconds in (("timeout", timeout), ("connect_timeout", connect_timeout)):
            if not seconds > 0:
                raise ValueError(f"{option} must be above 0 seconds, not {seconds!r}")
        self._bind = () if bind is None else binding_of(bind)
        if handler is not None and not self._bind:
            raise ValueError("a handler is served at an address: give bind=")
        self._announced: Announced | None = None
        if announce is not None:
            self._announced = Announced(announce, "node")
            check_announced(announce, self._bind or None)
        self._bus = default_bus if bus is None else bus
        self._gateway = self._bus.gateway if gateway is None else gateway
        # One for both: that of the bus, if it has one.
        self._meter = self._bus.measure() if metrics is True else meter_of(metrics)
        if self._meter is not None:
            self._bus.measure(self._meter)
        self._mesh = Mesh(
            self._gateway,
            name,
            limits=limits,
            translation_table=translation_table,
            max_messages=line_size,
            max_bytes=line_bytes,
            policy=Policy(allow_send, allow_receive),
            will=will,
            will_delay=will_delay,
            will_bytes=will_bytes,
        )
        #: All clients that the node opens have these, those that call back included.
        self._client_options = ClientOptions(
            dialects="native",
            call=CallOptions(timeout),
            connect_timeout=connect_timeout,
            limits=checked_limits(limits),
            translation_table=translation_table,
            untranslated=Untranslated.of,
            security=security,
            insecure=insecure,
            ipc_mode=ipc_mode,
            metrics=self._meter,
            # A node does not connect with itself.
            avoided_services=() if self._announced is None else (self._announced.id,),
        )
        self._functions = ExportedFunctions(
            self._bus,
            queue_size=queue_size,
            queue_bytes=queue_bytes,
            total_queue_bytes=total_queue_bytes,
            max_connections=max_connections,
            peer_share=peer_share,
            max_ttl=max_ttl,
            max_peer_links=max_peer_links,
            max_unacknowledged=max_unacknowledged,
            callback_allowed=callback_allowed,
            client_options=self._client_options,
            mesh=self._mesh,
        )
        self._handler = (
            self._functions if handler is None else merge_handlers(self._functions, handler)
        )
        self._max_ttl = max_ttl
        self._timeout = timeout
        self._insecure = insecure
        self._settings = None if cluster is None else _cluster_settings(cluster)
        self._namespace = checked_name(namespace, "a cluster's namespace")
        self._line_size = line_size
        self._line_bytes = line_bytes
        self._connect_timeout = connect_timeout
        if durable is not None and not isinstance(durable, Durable):
            raise TypeError(f"durable is a Durable, not {type(durable).__name__}")
        self._durable = durable
        self._cluster: Cluster | None = None
        self._servers: list[Server] = []
        self._connections: set[Connection] = set()
        #: Endpoints of interconnections that are open or being opened.
        self._interconnected: set[str] = set()
        #: In the order in which they were opened.
        self._urls: dict[str, None] = {}
        self._is_running = False
        #: Whether it was said that what is sent on the bus goes to no other node.
        self._has_warned = False
        self._owner = OwnerProcess("node")
        #: Ends that this node hears of keys which are removed.
        self._stop_listening: Callable[[], None] = lambda: None
        #: Ends the samples of the event loop's delay.
        self._end_samples: Callable[[], None] = lambda: None

    @property
    def bus(self) -> Bus:
        """The bus."""
        return self._bus

    @property
    def name(self) -> str:
        """The node's name at other nodes, the `Message.origin` of its messages there."""
        return self._mesh.name

    @property
    def handler(self) -> Any:
        """What it serves, berryMQ's functions and the methods of its handler."""
        return self._handler

    @property
    def urls(self) -> tuple[str, ...]:
        """The URLs of bridges' listeners at which it is reached, besides `endpoints`."""
        return tuple(self._urls)

    @property
    def cluster(self) -> str | None:
        """The address of its cluster, without a password; ``None`` if it has none."""
        return None if self._settings is None else str(self._settings)

    def may_receive(self, user: str | None) -> Grants | None:
        """What a user may get, by its name, else its public key; ``None`` for everything."""
        return self._mesh.policy.receiving(user)

    def reached_at(self, url: str, *, gone: bool = False) -> None:
        """Note the URL of a bridge's listener for this node, or that it is `gone`."""
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
        """The open connections to other nodes, in no order."""
        return tuple(self._connections)

    async def start(self) -> Self:
        """Begin to listen. ``async with`` does it.

        Raises:
            OSError: an endpoint cannot be bound, as when it is in use.
            ValueError: an endpoint is malformed, or is reached from other hosts without `insecure`.
            ConnectionLostError: no NATS server answered within `connect_timeout`.
            AuthenticationError: the NATS server refused this node.
            ModuleNotFoundError: a cluster needs nats-py, of the extra ``nats``.
        """
        if self._is_running:
            raise RuntimeError("the node is already running")
        if self._bind:
            await self._listen(self._bind, self._insecure)
        if self._settings is not None:
            try:
                await self._join(self._settings)
            except BaseException:
                await self._stop_listening_to_peers()
                raise
        self._is_running = True
        security = self._client_options.security
        if isinstance(security, CurveServer):
            loop = asyncio.get_running_loop()
            self._stop_listening = security.authorization.add_listener(
                lambda key: self._key_removed(loop, key)
            )
        if self._meter is not None:
            self._end_samples = sample_loop(asyncio.get_running_loop(), self._meter)
        # For async receivers, if the sender's thread has no loop.
        self._gateway.set_loop(asyncio.get_running_loop())
        self._mesh.start()
        return self

    async def _join(self, settings: Nats) -> None:
        """Join the cluster."""
        # It needs nats-py.
        from .cluster.cluster import Cluster

        cluster = Cluster(
            settings,
            self._namespace,
            self._mesh,
            heartbeat=self._client_options.limits.heartbeat,
            insecure=self._insecure,
            max_messages=self._line_size,
            max_bytes=self._line_bytes,
            durable=self._durable,
        )
        await cluster.start(self._connect_timeout)
        self._cluster = cluster

    async def drain(self, timeout: float | None = None) -> bool:
        """Wait until what was sent on the bus so far has left this process.

        All interconnected nodes that can be reached have acknowledged it then, and the NATS server
        of the cluster has it, and knows what is followed on the bus.

        Args:
            timeout: seconds; ``None`` for no limit.

        Returns:
            Whether it has; false if the time is over or the node was closed before.
        """
        waiting = [link.drain(timeout) for link in self._mesh.links if link.is_up]
        if self._cluster is not None:
            waiting.append(self._cluster.drain(timeout))
        return all(await asyncio.gather(*waiting))

    async def settle(self, timeout: float | None = None) -> bool:
        """Wait until the NATS server of the cluster knows what is followed on the bus by now.

        What other nodes send after that arrives. Cancelled, the server is told all the same.

        Args:
            timeout: seconds; ``None`` for no limit.

        Returns:
            Whether it knows; also where there is no cluster. False if the time is over, or there is
            no NATS server now: it is told first when it is back.
        """
        return self._cluster is None or await self._cluster.settle(timeout)

    async def publish_later(
        self, when: datetime | float, identifier: Identifier | str, /, *args: Any, **kwargs: Any
    ) -> None:
        """Have the durable queues that keep a message get it later. Followers do not get it.

        When it is cancelled, they may get it or not.

        Args:
            when: seconds from now, or a time with its zone. The clock is that of the NATS server.
            identifier, args, kwargs: as for `Bus.publish`.

        Raises:
            ValueError, TypeError: an argument is invalid, or the node has no cluster.
            NotFoundError: no durable queue keeps the message; or the NATS server is older than
                2.12, or has no JetStream.
            OverloadedError: too many messages wait for their time.
            RPCTimeoutError: the cluster has not answered within a minute; it may have the message.
            ConnectionLostError: there is no NATS server.
        """
        queues = self._queues()
        parsed = Identifier(identifier).require_exportable()
        if not isinstance(when, datetime):
            seconds = checked_seconds(when, "when")
            if seconds > MAX_DELAY:
                raise ValueError(f"when must be at most {MAX_DELAY:,} seconds, not {when!r}")
            when = datetime.now(UTC) + timedelta(seconds=seconds)
        await queues.publish_later(when, parsed, args, kwargs)

    async def durable_queues(self) -> list[DurableQueueInfo]:
        """All durable queues of the node's cluster, by their names.

        Raises:
            ValueError: the node has no cluster.
            NotFoundError: JetStream is not enabled at the NATS server.
            ConnectionLostError: there is no NATS server now.
        """
        return await self._queues().infos()

    async def delete_durable_queue(self, name: str) -> bool:
        """Delete a durable queue of the node's cluster, with what it keeps.

        Returns:
            Whether it was there.

        Raises:
            Exception: as `durable_queues` does.
        """
        return await self._queues().delete(name)

    async def replay_dead(self, name: str) -> int:
        """Send the dead letters of a durable queue again, each once; they are dead no more.

        All durable queues that keep such messages get them again.

        Args:
            name: of the queue.

        Returns:
            How many there were. If it is cancelled, some were sent.

        Raises:
            NotFoundError: no durable queue keeps such a message any more.
            OverloadedError: the durable queues are full.
            Exception: as `durable_queues` does.
        """
        return await self._queues().replay(name)

    def durable_history(self, since: datetime | int) -> DurableHistory:
        """Read what the durable queues of the node's cluster keep, and take nothing from them.

        ``async for message in node.durable_history(since)`` yields each message, oldest first, up
        to the last that is kept when the loop begins. Without `Durable(keep=)` messages that all
        queues have settled are kept no more.

        Args:
            since: a time with a time zone, or the number of a message (`KeptMessage.sequence`).

        Raises:
            TypeError, ValueError: it is neither, or the node has no cluster.
            NotFoundError: in the loop: no durable queue was ever opened, or JetStream is off.
            ConnectionLostError: in the loop: there is no NATS server now.
        """
        if isinstance(since, datetime):
            if since.tzinfo is None:
                raise ValueError(
                    f"the time {since} has no time zone: write datetime(..., tzinfo=UTC)"
                )
        elif isinstance(since, bool) or not isinstance(since, int):
            raise TypeError(f"since is a datetime with a time zone, or a number, not {since!r}")
        elif since < 1:
            raise ValueError(f"the numbers of messages begin with 1, not {since}")
        return self._queues().history(since)

    def _queues(self) -> "ClusterQueues":
        self._check_running()
        if self._cluster is None:
            raise ValueError("the node has no cluster: give it cluster='nats://...'")
        return self._cluster.queues

    async def listen(self, bind: Binding | Nats, *, insecure: bool = False) -> tuple[str, ...]:
        """Listen at a further address, or several.

        Args:
            bind, insecure: as for the node itself.

        Returns:
            The endpoints, wildcard ports resolved.

        Raises:
            ServiceClosedError: the node is not running.
            Exception: as `start` does.
        """
        self._check_running()
        server = await self._listen(binding_of(bind), insecure)
        if not self._is_running:
            # The node was closed meanwhile, without this server.
            server.close()
            await server.wait_closed()
            self._check_running()
        return server.endpoints

    async def _listen(self, endpoints: tuple[str, ...], insecure: bool) -> Server:
        options = ServerOptions(
            # It is announced once, at the address where it listens first.
            announce=None if self._servers else self._announced,
            bind=endpoints_of(endpoints, "bind"),
            insecure=insecure,
            limits=self._client_options.limits,
            translation_table=self._client_options.translation_table,
            untranslated=self._client_options.untranslated,
            security=self._client_options.security,
            ipc_mode=self._client_options.ipc_mode,
            metrics=self._meter,
            tracing=installed(),
        )
        server = await start_server_with(self._handler, options)
        self._servers.append(server)
        return server

    async def connect_oneway(
        self, addr: Place, ttl: float = TTL, *, server: PublicKey | None = None
    ) -> OnewayConnection:
        """Style 02: open a connection by which this side sends messages to a node.

        What is sent on the bus, by `twitter`, does not go to it; a warning says so once.

        Args:
            addr: the node's endpoint, or ``(host, port)``.
            ttl: seconds for which the peer keeps the connection when this process is gone.
            server: the node's public key, or the path of its file, where this node has a
                `CurveServer` that does not say it.

        Raises:
            ConnectionLostError: no server answers there.
            AuthenticationError: the peer refuses this node's key, or is another one.
            NotFoundError: the server is not a node.
            ValueError, TypeError: an argument is invalid.
            OverloadedError: the peer has too many connections.
        """
        address, endpoint, ttl = self._target(addr, ttl)
        client = await self._open_client(address, server)
        keeper = _keeper(endpoint, client)
        wills = self._mesh.wills
        introduce = None
        if wills.own.is_there:
            introduce = partial(wills.introduce, client.call, in_text=is_url(endpoint))
        connection = OnewayConnection(
            keeper, endpoint, client, ttl, self._timeout, self._closed, introduce=introduce
        )
        await self._opened(connection)
        if not self._has_warned:
            self._mesh.router.on_unsent = self._warn_unsent
        return connection

    async def connect_via_queue(
        self,
        identifier: Identifier | str,
        addr: Place,
        ttl: float = TTL,
        *,
        server: PublicKey | None = None,
        shared: bool = False,
        ack_wait: float | None = None,
        tries: int | None = None,
    ) -> QueueConnection:
        """Style 03: open a queue at another node, from which this side gets messages.

        Args:
            identifier: the messages to keep there.
            addr, ttl: as in `connect_oneway`.
            shared: whether all connections that ask for a shared queue of this identifier have one
                queue there, which gives each message to one of them. Otherwise each gets all
                messages.
            ack_wait: seconds that this side has to acknowledge each message that it gets, by
                ``async with`` or `PulledMessage.ack`. What is not acknowledged by then, or when
                this side is gone, goes back to the queue and is marked as redelivered. ``None``:
                a message is acknowledged as it arrives in this process.
            tries: how often each message is delivered at most; after that the peer has it on its
                bus as ``dead:NAME``, where NAME is the name in `identifier`, or ``all`` for
                ``*``. ``None`` for no limit.
            server: as in `connect_oneway`.

        Raises:
            ValueError: `identifier` is not an identifier or is local, or `ack_wait` or `tries` is
                invalid.
            ParametersError: the peer's version does not know `ack_wait`.
            Exception: as `connect_oneway`.
        """
        parsed = Identifier(identifier).require_exportable()
        ack_wait = checked_ack_wait(ack_wait)
        tries = checked_tries(tries)
        address, endpoint, ttl = self._target(addr, ttl)
        client = await self._open_client(address, server)
        keeper = _keeper(endpoint, client)
        connection = QueueConnection(
            parsed,
            keeper,
            endpoint,
            client,
            ttl,
            self._timeout,
            self._closed,
            shared,
            ack_wait,
            tries,
        )
        await self._opened(connection)
        return connection

    async def interconnect(
        self,
        addr: Place,
        ttl: float = TTL,
        callback: Place | None = None,
        *,
        server: PublicKey | None = None,
    ) -> Interconnection:
        """Style 01: both nodes carry all messages to each other.

        Each passes on the messages of other nodes, so that in any topology each node gets each
        message once, in the order in which it was sent. What was sent on a bus before its node
        was reached counts as missed, and ``connection:missed`` is reported on the bus.

        Args:
            addr, ttl: as in `connect_oneway`.
            callback: one of this node's own endpoints, at which the peer is to call back. ``None``:
                the peer's messages come over the connection that is made now, so this node need
                not be reachable.
            server: as in `connect_oneway`.

        Raises:
            ValueError: this node is interconnected with that one already, or is that one; or the
                peer is not allowed to call back there.
            Exception: as `connect_oneway`.
        """
        address, endpoint, ttl = self._target(addr, ttl)
        if endpoint in self.endpoints:
            raise ValueError(f"{endpoint} is this node itself: messages would arrive twice")
        if endpoint in self._interconnected:
            raise ValueError(
                f"there is an interconnection with {endpoint}: messages would arrive twice"
            )
        where = None if callback is None else endpoint_of_node(callback)
        if is_url(endpoint):
            where = self._url_to_call_back(callback)
        elif where is not None and not self.endpoints:
            raise ValueError("this node does not listen, so it cannot be called back: give bind=")
        user = self._user_at(address, server)
        self._interconnected.add(endpoint)
        incoming = IncomingMessages(self._mesh, endpoint, user)
        try:
            client = await self._open_client(address, server, incoming)
        except BaseException:
            self._interconnected.discard(endpoint)
            incoming.link.close()
            raise
        keeper: LinkKeeper
        if is_url(endpoint):
            keeper = HTTPLinkKeeper(
                endpoint,
                client,
                ttl,
                incoming,
                self._functions,
                self.name,
                str(where),
                self._client_options.limits.heartbeat,
            )
        else:
            keeper = StreamLinkKeeper(
                client,
                ttl,
                incoming,
                self._functions,
                self.name,
                where,
                self._key_of(address, server),
            )
        connection = Interconnection(
            incoming.link, keeper, endpoint, client, ttl, self._timeout, self._closed
        )
        await self._opened(connection)
        return connection

    @property
    def is_connected(self) -> bool:
        """Whether it runs, and NATS answers wherever its cluster or its place depends on that."""
        return (
            self._is_running
            and (self._cluster is None or self._cluster.is_connected)
            and all(server.is_connected for server in self._servers)
        )

    @property
    def metrics(self) -> Meter | None:
        """What counts its calls and the messages of its bus, or ``None``."""
        return self._meter

    def measure(self, meter: Meter | None = None) -> Meter:
        """Begin to count calls and messages, if that was not asked for as the node was made.

        Args:
            meter: what counts from now on; ``None`` for what does already, or else that of the bus,
                or a new one.

        Returns:
            What counts.
        """
        meter = self._bus.measure(meter or self._meter)
        if meter is not self._meter:
            self._meter = meter
            self._client_options = replace(self._client_options, metrics=meter)
            self._functions.measure(meter)
            for server in self._servers:
                server.measure(meter)
            for connection in self._connections:
                connection.measure(meter)
            if self._is_running:
                self._end_samples()
                self._end_samples = sample_loop(asyncio.get_running_loop(), meter)
        return meter

    def overview(self, limit: int | None = None) -> dict[str, list[dict[str, Any]]]:
        """Its connections, and the queues that it keeps for other processes, in plain values.

        Args:
            limit: how many of each at most; ``None`` for all.

        Returns:
            ``{"connections": [...], "queues": [...]}``; their keys are those of the same parts of
            `monitor.Monitor.snapshot`.
        """
        connections = connections_of(self._connections, self._functions, self._cluster)
        return {
            "connections": list(islice(connections, limit)),
            "queues": list(islice(queues_of(self._functions), limit)),
        }

    def statistics(self) -> dict[str, int]:
        """Counts.

        Of other processes here: their ``connections``, those that were refused as all places were
        taken (``connections_refused``) and those never used that have made way for others
        (``connections_displaced``); their ``queues``, and the ``queue_bytes`` that these take;
        their calls of `get` that wait (``consumers_waiting``); messages that wait for them
        (``messages_waiting``), that they have not acknowledged (``messages_unacknowledged``),
        that were delivered as often as they may be (``messages_dead``) or were dropped
        (``messages_dropped``); messages whose senders may not send them (``messages_denied``), and
        those left out for nodes that may not get them (``messages_withheld``). Between nodes: this
        node's own messages that could not be sent
        (``messages_refused``), messages of other nodes that were missed (``messages_missed``),
        duplicates, which are not a loss (``messages_duplicated``, and by an older name
        ``doubles``), and malformed messages that came (``messages_malformed``); the wills of other
        nodes that it holds (``wills_held``), those that were refused as they took too many bytes
        (``wills_refused``), and those that it has published (``wills_published``). Of a cluster:
        whether there is a NATS server now (``cluster_connected``, 1 or 0), messages that came from
        it (``cluster_received``), those that it has not confirmed yet (``cluster_waiting``), and
        those that were dropped as too many waited (``cluster_dropped``); and how many nodes there
        hold this one's will (``will_holders``).

        Of its servers, all that `Server.statistics` has, such as ``peers`` and ``calls``. With
        ``metrics``, also what that and `Bus.statistics` have then.
        """
        router = self._mesh.router
        counts = dict.fromkeys(COUNTS, 0)
        for server in self._servers:
            theirs = server.statistics()
            for name in COUNTS:
                counts[name] += theirs[name]
        counts |= self._functions.statistics() | {
            "messages_refused": router.refused,
            "messages_missed": router.reorder.missed,
            "messages_duplicated": router.reorder.duplicates,
            "messages_malformed": router.malformed,
            "wills_held": len(self._mesh.wills.table),
            "wills_refused": self._mesh.wills.table.refused,
            "wills_published": self._mesh.wills.published,
        }
        if (cluster := self._cluster) is not None:
            counts["messages_refused"] += cluster.send_buffer.refused
            counts["messages_missed"] += cluster.order.missed
            counts["messages_duplicated"] += cluster.order.duplicates
            counts |= cluster.statistics()
        counts["doubles"] = counts["messages_duplicated"]
        meter = self._meter
        return counts if meter is None else counts | meter.call_totals() | meter.message_totals()

    async def close(self) -> None:
        """Close the connections to other nodes, and stop listening. Can be called again."""
        if not self._owner.is_this:
            return
        self._is_running = False
        self._stop_listening()
        self._mesh.wills.close()
        self._end_samples()
        await asyncio.gather(*(connection.close() for connection in self._connections))
        # What was sent before goes to the nodes that have connected to this one, too.
        await self._mesh.drain(FAREWELL)
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            await cluster.close(FAREWELL)
        await self._stop_listening_to_peers()
        self._functions.close()
        await self._functions.wait_closed()

    async def _stop_listening_to_peers(self) -> None:
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()
        await asyncio.gather(*(server.wait_closed() for server in servers))

    async def __aenter__(self) -> Self:
        return self if self._is_running else await self.start()

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        places = [*self.endpoints, *([] if self._cluster is None else [self._cluster.place])]
        where = ", ".join(places) or ("nowhere" if self._is_running else "closed")
        return f"<Node {where}>"

    def _key_removed(self, loop: asyncio.AbstractEventLoop, key: str) -> None:
        """End the connections of a key that is not authorized any more. In any thread."""
        with contextlib.suppress(RuntimeError):
            # The event loop may have ended.
            loop.call_soon_threadsafe(self._functions.remove_key, key)

    def _check_running(self) -> None:
        self._owner.check()
        if not self._is_running:
            raise ServiceClosedError(
                "the node is not running: use it with 'async with', or start it"
            )

    def _target(self, addr: Place, ttl: float) -> tuple[str, str, float]:
        """Check the arguments of a connection.

        Returns:
            Where to connect to; the same without a password, for all to see; and the ttl.
        """
        self._check_running()
        address = endpoint_of_node(addr)
        return address, endpoint_to_show(address), checked_ttl(ttl, self._max_ttl)

    def _url_to_call_back(self, callback: Place | None) -> str:
        """The URL at which a peer over HTTP calls back: it cannot send messages here otherwise."""
        if callback is not None:
            if not is_url(callback):
                raise ValueError(
                    f"callback must be a URL, as the peer's address is, not {callback!r}"
                )
            return str(callback)
        for url in self._urls:
            if is_url(url):
                return url
        raise ValueError(
            "this node cannot be called back over HTTP: open a listener with "
            "Bridge(node).serve_http, or give callback="
        )

    async def _open_client(
        self,
        address: str,
        server: PublicKey | None,
        incoming: IncomingMessages | None = None,
    ) -> Any:
        key = self._key_of(address, server)
        return await open_peer_client(address, self._client_options, incoming, server=key)

    def _key_of(self, address: str, server: PublicKey | None) -> str | None:
        """The public key that the peer at an address has to have."""
        given = None if server is None else public_key(server)
        if is_url(address):
            if given is not None:
                raise ValueError(
                    "server= is a key of ZeroMQ's: what listens at a URL proves who it is by the "
                    "certificate of https://"
                )
            return None
        return key_of(address, self._client_options.security, given)

    def _user_at(self, address: str, server: PublicKey | None) -> str | None:
        """The user that the peer at an address has to be: its name, else its public key."""
        key = self._key_of(address, server)
        security = self._client_options.security
        if key is None or not isinstance(security, CurveServer):
            return key
        return security.authorization.user_of(key) or key

    async def _opened(self, connection: Connection) -> None:
        # Closing the node closes it as well, while it is being opened too.
        self._connections.add(connection)
        connection.report = self._mesh.report
        await connection.open()

    def _warn_unsent(self, message: Message) -> None:
        """Say that a message of the bus goes to no other node. In any thread."""
        if self._functions.queues:
            # Other processes get it from these.
            return
        self._has_warned = True
        logger.warning(
            "%s was sent on the bus, so it goes to no other node: connect_oneway carries what "
            "send_message sends, and interconnect shares all messages of the bus",
            message.id,
        )

    def _closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not any(isinstance(each, OnewayConnection) for each in self._connections):
            self._mesh.router.on_unsent = None
        if isinstance(connection, Interconnection):
            self._interconnected.discard(connection.endpoint)


def _cluster_settings(cluster: NatsPlace) -> Nats:
    settings = nats_of(cluster)
    if settings.address.service is not None:
        raise ValueError(
            f"{settings} is a service, and a cluster is none: leave the service away. "
            "namespace= says whose messages are meant"
        )
    return settings


def _keeper(endpoint: str, client: Any) -> Keeper:
    return HTTPKeeper() if is_url(endpoint) else StreamKeeper(client)
