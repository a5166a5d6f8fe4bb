"""The bridge: serves a handler, a node or a remote server to peers that are not Python."""

import asyncio
import re
import ssl as ssl_module
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

from ...endpoint import check_exposure, checked_host_and_port
from ...errors import Error, ServiceClosedError
from ...exchange import Node
from ...monitor import Monitor
from ...nats.options import is_nats
from ...rpc import Client, Limits
from ...rpc.connection import Connection
from ...rpc.dispatcher import DESCRIBE
from ...rpc.method import Method
from ...rpc.method_table import HandlerTable, collect_methods
from ...rpc.options import SLOW_HANDLER
from ...rpc.transport import endpoints_of
from ...rpc.transport.port import IPC_MODE
from ...rpc.validation import (
    Authorize,
    check_count,
    checked_authorize,
    checked_limits,
    checked_mode,
    checked_seconds,
    checked_threads,
)
from ...runtime.extra import missing_package
from ...runtime.fork import OwnerProcess
from ...runtime.meter import Meter, meter_of
from ...security import CurveServer, Security, checked_security
from ..message import MAX_BATCH
from .discovery import Discovery, RemoteDiscovery
from .durable_watch import DurableWatch
from .exposure import check_listener
from .forwarding_handler import ForwardingTable
from .http_access import Access
from .listener import Listener, ListenerPort
from .page_table import STATE
from .peer_overview import peer_of
from .places import PlaceBounds
from .runtime import BridgeRuntime
from .subscriptions import (
    MAX_PEER_SUBSCRIPTIONS,
    MAX_SUBSCRIPTIONS,
    QUEUE_BYTES,
    QUEUE_SIZE,
    BusSubscriptions,
    ClusterSubscriptions,
    RemoteSubscriptions,
    SubscriptionBounds,
    Subscriptions,
)
from .tokens import Token, Tokens

if TYPE_CHECKING:
    from ...monitor.monitor import Counting
    from .observation import Exposition
    from .page import Page

__all__ = ["GRACE", "MAX_BODY", "MAX_PEERS", "Bridge"]

#: Bytes of one text: it decodes within some 20 ms, during which nothing else runs.
MAX_BODY = 1 << 20

#: Peers at one time, of all listeners. On most systems a process may open 1,024 files by default:
#: if there are fewer files than that, peers are refused when all but a few are taken.
MAX_PEERS = 10_000

#: Bytes of texts that have not arrived whole or wait to be sent, of all connections together, but
#: at least so many texts: with less, a few slow peers would stop the others.
MAX_BYTES = 512 << 20
MIN_TEXTS = 20

#: One host gets a part of the places and bytes, but at least so many places and texts.
HOST_SHARE = 10
MIN_HOST_PEERS = 10
MIN_HOST_TEXTS = 2

#: Seconds that calls in progress have when the bridge closes.
GRACE = 5.0

DISCOVER = "rpc.discover"

#: What clients may post to, but for what is there already.
_PATH = re.compile(r"/[\w.~/-]*", re.ASCII)
_RESERVED_PATHS = ("/JSON", "/ws", "/healthz", "/readyz", "/metrics")

#: Where there is something else if there is a page.
STATE_PATH = "/state"
PAGE_FOLDER = "/page"

_NOTIFICATION_STATUSES = (200, 202, 204)


class Bridge:
    """Serves JSON-RPC 2.0 and 1.0 over HTTP, WebSocket, TCP and ZeroMQ::

        async with Bridge(Handler()) as bridge:
            print(await bridge.serve_http("127.0.0.1", 8080))
            await asyncio.Event().wait()

    If the target is a node, here or behind a client, peers can also ``subscribe(identifier)`` and
    ``unsubscribe(id)``, over all listeners but HTTP's POST: the messages of its bus are sent to
    them as notifications of the method "message". ``rpc.discover`` answers an OpenRPC document.

    Args:
        target: a handler as `rpc.start_server` takes it; a `Node`, whose functions are served; or
            a client of a remote server, which stays open. A node need not be bound.
        max_body: bytes of one text from a peer, and of the text that answers it.
        max_batch: requests in one batch.
        max_peers: peers at one time, of all listeners together: all connections that are accepted,
            idle ones and those that still agree on TLS too. Where there is no place left, an idle
            one of the host that has most gives way, or the new one is refused.
        max_host_peers: those of one host (an address, of IPv6 its first 64 bits). The default is a
            tenth of `max_peers`, so that one host cannot keep others out; raise it where all
            peers come through one proxy.
        max_bytes: bytes of texts that have not arrived whole or wait to be sent. The default is
            512 MiB, or 20 times `max_body` where that is more. Over it, the connection is closed
            that has most.
        max_host_bytes: those of one host; the default is a tenth of `max_bytes`.
        max_subscriptions: subscriptions of all peers; further ones are refused.
        max_host_subscriptions: those of the peers of one host; the default is a tenth of
            `max_subscriptions`.
        max_peer_subscriptions: those of one connection.
        queue_size: messages that are kept for one subscription; the oldest are dropped first.
        queue_bytes: bytes that the messages take that are kept for all subscriptions of one
            connection, and a tenth of what those of all connections may take.
        limits: the bounds of calls in flight and of depth; see `rpc.Limits`.
        grace: seconds that calls in progress have when the bridge closes.
        title, version: of the service, for ``rpc.discover``.
        send_traceback: send the text of tracebacks of a handler's exceptions.
        log_exceptions: log them.
        threads, slow_handler: as in `rpc.start_server`.
        security: of the ZeroMQ listeners: who may connect, such as a `rpc.CurveServer`. With
            several keys, each listener that is opened has the next one. The other listeners have
            tokens and certificates.
        authorize: decides on each call at all listeners, as in `rpc.start_server`: a plain
            function of the `rpc.Context` and the method's name, the bridge's own methods included.
        metrics: count the calls at all listeners, and what `target` does where it is a node or a
            client; see `rpc.start_server`.

    Raises:
        TypeError: `target` is none of them, or an argument has another type.
        ValueError: it has a method with the name of one of the bridge's own, or an argument is
            invalid.
    """

    def __init__(
        self,
        target: Any,
        *,
        max_body: int = MAX_BODY,
        max_batch: int = MAX_BATCH,
        max_peers: int = MAX_PEERS,
        max_host_peers: int | None = None,
        max_bytes: int | None = None,
        max_host_bytes: int | None = None,
        max_subscriptions: int = MAX_SUBSCRIPTIONS,
        max_host_subscriptions: int | None = None,
        max_peer_subscriptions: int = MAX_PEER_SUBSCRIPTIONS,
        queue_size: int = QUEUE_SIZE,
        queue_bytes: int = QUEUE_BYTES,
        limits: Limits | None = None,
        grace: float = GRACE,
        title: str = "berrymq_rpc",
        version: str = "0",
        send_traceback: bool = False,
        log_exceptions: bool = False,
        threads: int | None = None,
        slow_handler: float = SLOW_HANDLER,
        security: Security | None = None,
        authorize: Authorize | None = None,
        metrics: bool | Meter = False,
    ) -> None:
        counts: dict[str, Any] = {
            "max_body": max_body,
            "max_batch": max_batch,
            "max_peers": max_peers,
            "max_subscriptions": max_subscriptions,
            "max_peer_subscriptions": max_peer_subscriptions,
            "queue_size": queue_size,
            "queue_bytes": queue_bytes,
        }
        shares = {
            "max_host_peers": max_host_peers,
            "max_bytes": max_bytes,
            "max_host_bytes": max_host_bytes,
            "max_host_subscriptions": max_host_subscriptions,
        }
        counts |= {name: value for name, value in shares.items() if value is not None}
        for name, value in counts.items():
            check_count(name, value)
        if max_host_peers is None:
            max_host_peers = max(max_peers // HOST_SHARE, MIN_HOST_PEERS)
        if max_bytes is None:
            max_bytes = max(MAX_BYTES, MIN_TEXTS * max_body)
        if max_host_bytes is None:
            max_host_bytes = max(max_bytes // HOST_SHARE, MIN_HOST_TEXTS * max_body)
        if max_host_subscriptions is None:
            max_host_subscriptions = max(max_subscriptions // HOST_SHARE, max_peer_subscriptions)
        subscriptions = SubscriptionBounds(
            max_subscriptions, max_host_subscriptions, max_peer_subscriptions
        )
        self._target = target
        self._limits = checked_limits(limits)
        self._grace = checked_seconds(grace, "grace", zero=True)
        self._bounds: dict[str, Any] = {
            "max_size": max_body,
            "max_batch": max_batch,
            "bounds": PlaceBounds(max_peers, max_host_peers, max_bytes, max_host_bytes),
        }
        self._security = checked_security(security)
        for name, text in (("title", title), ("version", version)):
            if not isinstance(text, str):
                raise TypeError(f"{name} must be text, not {text!r}")
        self._subscriptions: Subscriptions | None = None
        self._table: HandlerTable | None = None
        if isinstance(target, Node):
            of_bus = target.bus, subscriptions, queue_size, queue_bytes, target.may_receive
            self._subscriptions = (
                BusSubscriptions(*of_bus)
                if target.cluster is None
                else ClusterSubscriptions(target.settle, *of_bus)
            )
            self._table = collect_methods(target.handler)
        elif isinstance(target, Client):
            self._subscriptions = RemoteSubscriptions(target, subscriptions)
        else:
            self._table = collect_methods(target)
        self._options: dict[str, Any] = {
            "log_exceptions": log_exceptions,
            "send_traceback": send_traceback,
            "threads": checked_threads(threads),
            "slow_handler": checked_seconds(slow_handler, "slow_handler"),
        }
        self._authorize = checked_authorize(authorize)
        described = {"title": title, "version": version}
        if self._table is None:
            self._discovery: Discovery = RemoteDiscovery(target, **described)
        else:
            self._discovery = Discovery(self._table, **described)
        self._own = self._own_methods()
        if self._table is not None:
            clashes = sorted(self._own.keys() & self._table.methods.keys())
            if clashes:
                raise ValueError(
                    "the handler may not have methods with the names of the bridge's own: "
                    + ", ".join(clashes)
                )
        self._title = title
        #: What the pages show, where there is one.
        self._monitor: Monitor | None = None
        self._durable: DurableWatch | None = None
        meter = meter_of(metrics)
        if metrics is True and isinstance(target, Node | Client):
            # One for both: that of the target, if it has one.
            meter = target.metrics or meter
        #: Counts once it `is_measured`.
        self._meter = Meter() if meter is None else meter
        self._is_measured = meter is not None
        self._runtime: BridgeRuntime | None = None
        self._listeners: list[Listener] = []
        #: Which of several keys have no listener yet.
        self._free_keys: list[int] = []
        if isinstance(self._security, CurveServer):
            self._free_keys.extend(range(len(self._security.keys)))
        self._is_closed = False
        self._owner = OwnerProcess("bridge")

    # -- the listeners -------------------------------------------------------------------------

    async def serve_http(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        ssl: ssl_module.SSLContext | None = None,
        token: Token | None = None,
        hosts: Iterable[str] = (),
        origins: Iterable[str] = (),
        insecure: bool = False,
        path: str = "/",
        notification_status: int = 204,
        require_content_type: bool = True,
        page: bool = False,
        page_write: bool = False,
        metrics: bool = False,
    ) -> str:
        """Serve HTTP: POST at `path`, a WebSocket at ``/ws``, and berryMQ 0.3 at ``/JSON``.

        Args:
            host, port: where to listen; port 0 is any free one.
            ssl: makes it HTTPS.
            token: what clients have to send as ``Authorization: Bearer ...``, or as the password
                of ``Basic`` with any user; a page sends it as the WebSocket protocol
                ``bearer.TOKEN``, along with ``jsonrpc``. A text; several; the names of users by
                their tokens, as ``{token: user}``; or a plain function of the token, which returns
                whether it is valid, or the name of its user. One that raises refuses the token.
            hosts: names by which clients may call this server, in addition to `host`,
                ``localhost`` and loopback addresses; without ports; ``"*"`` for any.
            origins: pages that may post and open the WebSocket, such as
                ``"https://example.org"``, beside those that came from this address; ``"*"`` for
                any, ``"null"`` for pages from files. Browsers are sent CORS headers for them, and
                for no others.
            insecure: allow a `host` beyond loopback without a token over TLS or TLS with client
                certificates.
            path: where clients post to, such as ``"/rpc"``.
            notification_status: of the response where there is no answer: 200, 202 or 204.
            require_content_type: refuse a body that does not say that it is JSON. Without, there
                has to be a token, and pages still have to say so: a form of any page could post
                otherwise.
            page: have a page at ``/`` that shows what runs, and the same as JSON at ``/state``. The
                calls and messages of the target are counted from then on, as with ``metrics``.
            page_write: let the page send messages and call methods. Otherwise the server refuses
                it to all pages that came from this address and are not in `origins`.
            metrics: answer ``GET /metrics`` for Prometheus, behind the `token` if there is one, and
                begin to `measure`. ``/healthz`` and ``/readyz`` are there in any case, and answer
                everybody.

        Returns:
            The URL, such as ``"http://127.0.0.1:8080"``, without the path.

        Raises:
            ModuleNotFoundError: aiohttp is not installed, which comes with the extra ``http``; or
                for `metrics`, prometheus-client, which comes with the extra ``metrics``.
            OSError: the address cannot be bound.
            TypeError, ValueError: there is no such host or port; `host` is beyond loopback, and
                there is neither a `token` with `ssl`, nor an `ssl` that wants certificates, nor
                `insecure`; or another argument is invalid.
        """
        runtime = self._running()
        host, port = checked_host_and_port(host, port)
        tokens = Tokens(token)
        check_listener(host, port, ssl=ssl, tokens=tokens, insecure=insecure)
        access = Access(host, hosts=hosts, origins=origins, tokens=tokens)
        if path in _RESERVED_PATHS or not _PATH.fullmatch(path):
            raise ValueError(f"path is one such as '/' or '/rpc', not {path!r}")
        if notification_status not in _NOTIFICATION_STATUSES:
            raise ValueError(f"notification_status is 200, 202 or 204, not {notification_status!r}")
        if page_write and not page:
            raise ValueError("page_write=True is for a page: give page=True")
        if page and (path == STATE_PATH or path.startswith(f"{PAGE_FOLDER}/")):
            raise ValueError(f"the page has the path {path!r}: choose another path")
        if not require_content_type and token is None:
            raise ValueError("require_content_type=False needs a token")
        try:
            from .http import HTTPListener
            from .observation import Observation
        except ModuleNotFoundError as error:
            if error.name != "aiohttp":
                raise
            raise missing_package("serve_http needs aiohttp", "http", "aiohttp") from None
        observation = Observation(self._is_ready, self._scraping() if metrics else None)
        listener = HTTPListener(
            runtime,
            access,
            path=path,
            notification_status=notification_status,
            require_content_type=require_content_type,
            page=partial(self._new_page, runtime, page_write) if page else None,
            observation=observation,
        )
        await listener.open(host, port, ssl)
        return await self._opened(listener)

    def _new_page(self, runtime: BridgeRuntime, may_write: bool, port: ListenerPort) -> "Page":
        from .page import Page

        if self._monitor is None:
            self._monitor = self._new_monitor()
            if isinstance(self._target, Node) and self._target.cluster is not None:
                self._durable = DurableWatch(self._target, self._monitor)
        watched = self._monitor if self._durable is None else self._durable
        state = Method.of(STATE, watched.snapshot)
        return Page(runtime, port, runtime.dispatcher.table, state, may_write=may_write)

    def _new_monitor(self) -> Monitor:
        """What the pages show; from now on there are figures of calls and messages."""
        target, meter, title = self._target, self.measure(), self._title
        if isinstance(target, Node):
            return Monitor(target.bus, node=target, bridge=self, meter=meter, title=title)
        clients = {"client": target} if isinstance(target, Client) else {}
        return Monitor(servers=clients, bridge=self, meter=meter, title=title)

    def _is_ready(self) -> bool:
        """Whether it takes calls, and what it serves is connected."""
        target = self._target
        return not self._is_closed and (
            not isinstance(target, Node | Client) or target.is_connected
        )

    def _scraping(self) -> "Callable[[str], Exposition]":
        """Begin to measure, and return what answers a scrape."""
        from ...monitor.prometheus import MetricsCollector

        self.measure()
        parts: dict[str, Counting] = {"bridge": self}
        if isinstance(self._target, Node):
            parts |= {"node": self._target, "bus": self._target.bus}
        elif isinstance(self._target, Client):
            parts["client"] = self._target
        return MetricsCollector(self._meter, parts).exposition

    async def serve_tcp(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        ssl: ssl_module.SSLContext | None = None,
        token: Token | None = None,
        insecure: bool = False,
    ) -> str:
        """Serve TCP: one JSON text a line, in both directions.

        Args:
            host, port: where to listen; port 0 is any free one.
            ssl: speaks TLS.
            token: what peers have to send first, as ``{"method": "authorize", "params": [token],
                "id": 1}``; see `serve_http`. Where they do not within 10 seconds, or send anything
                else, the connection is closed.
            insecure: allow a `host` beyond loopback without a token over TLS or TLS with client
                certificates.

        Returns:
            The address, such as ``"tcp://127.0.0.1:8081"``; it begins with ``tls://`` with `ssl`.

        Raises:
            OSError: the address cannot be bound.
            TypeError, ValueError: as for `serve_http`.
        """
        from .json_lines import JSONLinesListener

        runtime = self._running()
        host, port = checked_host_and_port(host, port)
        tokens = Tokens(token)
        check_listener(host, port, ssl=ssl, tokens=tokens, insecure=insecure)
        listener = JSONLinesListener(runtime, tokens)
        await listener.open(host, port, ssl)
        return await self._opened(listener)

    async def serve_zeromq(
        self, endpoint: str, *, insecure: bool = False, ipc_mode: int = IPC_MODE
    ) -> str:
        """Serve DEALER and REQ sockets of ZeroMQ.

        Args:
            endpoint: such as ``"tcp://127.0.0.1:5556"``; port ``*`` is any free one.
            insecure: allow one beyond loopback without keys (`security` of the bridge).
            ipc_mode: the mode of the file that ``ipc://`` makes: by default its owner alone may
                connect.

        Returns:
            The endpoint, with the real port.

        Raises:
            OSError: the endpoint cannot be bound.
            ValueError: it is not an endpoint, or beyond loopback without keys and `insecure`; or
                each key of the bridge has its listener already.
            TypeError, ValueError: `ipc_mode` is not the mode of a file.
        """
        from .zeromq import ZeroMQListener

        runtime = self._running()
        (endpoint,) = endpoints_of(endpoint, "endpoint")
        if is_nats(endpoint):
            raise ValueError(
                f"no ZeroMQ socket can be at {endpoint}: write tcp://host:port. Programs behind "
                "NATS send JSON to rpc.start_server"
            )
        ipc_mode = checked_mode(ipc_mode)
        security = self._security
        # A peer without a key is refused.
        check_exposure(endpoint, insecure or security is not None)
        if security is not None and endpoint.startswith("mem://"):
            raise ValueError(
                "security is for other processes: mem:// is within this one, so leave it away there"
            )
        with self._next_key(security) as secured:
            listener = ZeroMQListener(runtime, secured, ipc_mode)
            await listener.open(endpoint)
        return await self._opened(listener)

    @contextmanager
    def _next_key(self, security: Security | None) -> Iterator[Security | None]:
        """The same with the next of several keys, which is free again if this is left by an error.

        Raises:
            ValueError: there is none left.
        """
        if not isinstance(security, CurveServer) or len(security.keys) == 1:
            yield security
            return
        if not self._free_keys:
            raise ValueError(f"each of the {len(security.keys)} keys has its listener already")
        index = self._free_keys.pop(0)
        try:
            yield security.for_endpoint(index)
        except BaseException:
            self._free_keys.insert(0, index)
            raise

    @property
    def urls(self) -> tuple[str, ...]:
        """The addresses of the listeners, in the order in which they were opened."""
        return tuple(listener.url for listener in self._listeners)

    def overview(self, limit: int | None = None) -> dict[str, list[dict[str, Any]]]:
        """Its peers, in plain values.

        Args:
            limit: how many at most; ``None`` for all.

        Returns:
            ``{"connections": [...]}``; their keys are those of the same part of
            `monitor.Monitor.snapshot`.
        """
        connections = () if self._runtime is None else self._runtime.connections
        return {"connections": [peer_of(each) for each in islice(connections, limit)]}

    @property
    def metrics(self) -> Meter | None:
        """What counts its calls, or ``None``."""
        return self._meter if self._is_measured else None

    def measure(self) -> Meter:
        """Begin to count, if that was not asked for as it was made.

        A node or a client that it serves begins as well.

        Returns:
            What counts.
        """
        target = self._target
        if not self._is_measured and isinstance(target, Node | Client):
            self._meter = target.metrics or self._meter
        self._is_measured = True
        if isinstance(target, Node | Client):
            target.measure(self._meter)
        if self._runtime is not None and self._runtime.dispatcher.meter is not self._meter:
            self._runtime.measure(self._meter)
        return self._meter

    def statistics(self) -> dict[str, int]:
        """Counts.

        Those of `rpc.Server.statistics` that a bridge has, with the same meaning: ``peers``,
        ``calls``, ``calls_running`` (``calls_in_progress`` is its older name),
        ``call_bytes_queued``, ``bytes_queued``, ``malformed_messages``, ``notifications_dropped``;
        with metrics, how many calls have ended how. And its own: ``peers_refused``;
        ``peers_closed``, to make way for others; ``bytes_held`` of texts that are not whole or wait
        to be sent; ``posts_refused``, as their host had too many; ``tokens_refused``;
        ``subscriptions``, ``subscription_bytes``, ``subscriptions_refused``, and
        ``messages_dropped`` by full subscriptions.
        """
        if self._runtime is None:
            return {}
        subscriptions = self._subscriptions
        counted = self._meter.call_totals() if self._is_measured else {}
        return self._runtime.statistics() | {
            "subscriptions": 0 if subscriptions is None else subscriptions.count,
            "subscription_bytes": 0 if subscriptions is None else subscriptions.bytes,
            "subscriptions_refused": 0 if subscriptions is None else subscriptions.refused,
            "messages_dropped": 0 if subscriptions is None else subscriptions.dropped,
            **counted,
        }

    async def _opened(self, listener: Listener) -> str:
        if self._is_closed:
            await listener.close(0.0)
            self._running()
        self._listeners.append(listener)
        if isinstance(self._target, Node):
            self._target.reached_at(listener.url)
        return listener.url

    # -- life cycle --------------------------------------------------------------------------

    async def start(self) -> Self:
        """Prepare for listeners. ``async with`` does it.

        Raises:
            RuntimeError: it was started already.
        """
        if self._runtime is not None:
            raise RuntimeError("the bridge is already running")
        table: HandlerTable
        if self._table is None:
            table, options = ForwardingTable(self._target, self._own), {}
        else:
            table, options = _MergedTable(self._own, self._table), self._options
        self._runtime = BridgeRuntime(
            table,
            self._limits,
            security=self._security,
            authorize=self._authorize,
            on_lost=self._connection_lost,
            **self._bounds,
            **options,
        )
        if self._is_measured:
            self.measure()
        return self

    async def close(self) -> None:
        """Accept no more peers, wait for running calls, and close. Can be called again.

        The calls have `grace` seconds. WebSockets are closed with code 1001.
        """
        runtime = self._runtime
        if runtime is None or self._is_closed or not self._owner.is_this:
            return
        self._is_closed = True
        if isinstance(self._target, Node):
            for listener in self._listeners:
                self._target.reached_at(listener.url, gone=True)
        runtime.refuse_calls("the bridge is closing")
        if self._table is not None:
            # Forwarded calls wait at a remote server, which is not closing: they get `grace`.
            for connection in runtime.connections:
                connection.inbound.stop_waiting()
        loop = asyncio.get_running_loop()
        end = loop.time() + self._grace
        await runtime.answered(runtime.connections, self._grace)
        left = max(0.0, end - loop.time())
        await asyncio.gather(*(listener.close(left) for listener in self._listeners))
        runtime.close()
        if isinstance(self._discovery, RemoteDiscovery):
            self._discovery.close()
        if self._durable is not None:
            await self._durable.close()

    async def __aenter__(self) -> Self:
        return self if self._runtime is not None else await self.start()

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<Bridge {', '.join(self.urls) or 'without listeners'}>"

    def _running(self) -> BridgeRuntime:
        self._owner.check()
        if self._is_closed:
            raise ServiceClosedError("the bridge is closed: make a new one")
        if self._runtime is None:
            raise Error("the bridge is not running: use it with 'async with', or start it")
        return self._runtime

    def _connection_lost(self, connection: Connection) -> None:
        if self._subscriptions is not None:
            self._subscriptions.connection_lost(connection)

    # -- the bridge's methods -------------------------------------------------------------------

    def _own_methods(self) -> dict[str, Method]:
        functions: dict[str, Any] = {}
        if self._subscriptions is not None:
            functions["subscribe"] = self._subscriptions.subscribe
            functions["unsubscribe"] = self._subscriptions.unsubscribe
        own = {name: Method.of(name, function) for name, function in functions.items()}
        self._discovery.own = tuple(own.values())
        own[DISCOVER] = Method.of(DISCOVER, self._discovery.discover)
        if isinstance(self._discovery, RemoteDiscovery):
            own[DESCRIBE] = Method.of(DESCRIBE, self._discovery.describe)
        return own


class _MergedTable(HandlerTable):
    """The methods of a handler, and the bridge's own before them."""

    __slots__ = ("_handler",)

    def __init__(self, own: dict[str, Method], handler: HandlerTable) -> None:
        super().__init__(handler.methods | own, {})
        self._handler = handler

    def find(self, name: object) -> Method:
        return self._handler.find(name)
