"""The value of `security=` reaches every place that opens or dials a socket, as the very object."""

import ast
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from berrymq_rpc import Bus, Node, rpc
from berrymq_rpc.exchange import peer_client
from berrymq_rpc.exchange.sync_node import SyncNode
from berrymq_rpc.jsonrpc import zeromq as jsonrpc_zeromq
from berrymq_rpc.jsonrpc.bridge import Bridge
from berrymq_rpc.jsonrpc.bridge.json_lines import JSONLinesListener
from berrymq_rpc.jsonrpc.http import HTTPClient, open_http_client
from berrymq_rpc.rpc.transport import TRANSPORTS, Transport
from berrymq_rpc.security import CurveClient, CurveServer, KeyPair, Security

PACKAGE = Path(__file__).resolve().parents[2] / "berrymq_rpc"

#: Attributes of modules and contexts that make a socket when they are called.
MAKERS = {
    "ClientSession",
    "SockSite",
    "TCPSite",
    "UnixSite",
    "create_connection",
    "create_datagram_endpoint",
    "create_server",
    "create_unix_connection",
    "create_unix_server",
    "open_connection",
    "open_unix_connection",
    "socket",
    "start_server",
    "start_unix_server",
}

#: Each file that makes sockets, and why it does right with the value.
PLACES = {
    "rpc/transport/zeromq.py": "gets it in its `PortOptions`",
    "rpc/transport/binding.py": "a probe of a path, which sends nothing",
    "jsonrpc/zeromq/socket_owner.py": "has it as an attribute",
    "jsonrpc/http.py": "has it as an attribute",
    "jsonrpc/bridge/acceptor.py": "the listener that owns it has it in its `PortOptions`",
    "rpc/transport/curve.py": "reads a server's greeting, which anybody may, and sends nothing",
    "rpc/transport/zap.py": "answers within the process",
    "testing/tcp_proxy.py": "a relay of a test, on loopback, which passes on what both sides send",
    "cli/doctor/first_words.py": "a probe of what answers, which any peer may ask for",
    "cli/doctor/network.py": "a probe whether anything listens, which sends nothing",
    "cli/doctor/web.py": "a probe of a listener, which any peer may ask for",
    "cli/failure.py": "a probe whether anything listens, which sends nothing",
}


class Recorder:
    """What was opened, and with which value."""

    def __init__(self) -> None:
        self.opened: list[tuple[str, Any]] = []

    def wrap(self, module: ModuleType) -> Any:
        """The transport `module`, each port of which is recorded."""

        async def listen(endpoint: str, handler: Any, options: Any) -> Any:
            self.opened.append(("listen", options.security))
            return await module.listen(endpoint, handler, options)

        async def dial(endpoint: str, handler: Any, options: Any) -> Any:
            self.opened.append(("dial", options.security))
            return await module.dial(endpoint, handler, options)

        return SimpleNamespace(listen=listen, dial=dial)

    def take(self, security: Security) -> list[str]:
        """What was opened since the last time with `security`, or as the client that it makes."""
        found = [what for what, value in self.opened if belongs(value, security)]
        self.opened.clear()
        return found


def belongs(value: Any, security: Any) -> bool:
    if value is security:
        return True
    # What a node dials with has its keys, and the key of the one peer.
    return isinstance(value, CurveClient) and value.keys is security.keys[0]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    for scheme, transport in list(TRANSPORTS.items()):
        wrapped = recorder.wrap(transport.load())
        monkeypatch.setitem(
            TRANSPORTS, scheme, Transport(transport.form, lambda wrapped=wrapped: wrapped)
        )

    async def open_recorded(url: str, **options: Any) -> HTTPClient:
        client = await open_http_client(url, **options)
        recorder.opened.append(("http", client.security))
        return client

    monkeypatch.setattr(peer_client, "open_http_client", open_recorded)
    return recorder


@pytest.fixture
def keys() -> KeyPair:
    return KeyPair.generate()


@pytest.fixture
def security(keys: KeyPair) -> CurveServer:
    """A value of its own, which lets in its own key."""
    return CurveServer(keys, {keys.public})


# -- clients and servers -----------------------------------------------------------------------


async def test_servers_and_clients(recorder: Recorder, security: CurveServer) -> None:
    endpoint = "tcp://127.0.0.1:*"
    async with await rpc.start_server({}, bind=endpoint, security=security) as server:
        assert recorder.take(security) == ["listen"]
        client = security.client(security.keys[0].public)
        async with await rpc.open_client(connect=server.endpoints, security=client):
            assert recorder.take(client) == ["dial"]


async def test_a_bound_client_and_a_server_that_connects(
    recorder: Recorder, security: Security
) -> None:
    async with await rpc.open_client(bind="tcp://127.0.0.1:*", security=security) as client:
        assert recorder.take(security) == ["listen"]
        async with await rpc.start_server({}, connect=client.endpoints, security=security):
            assert recorder.take(security) == ["dial"]


def test_a_client_for_threads(recorder: Recorder, security: Security) -> None:
    with rpc.SyncClient(connect="tcp://127.0.0.1:9", security=security):
        assert recorder.take(security) == ["dial"]


# -- nodes -----------------------------------------------------------------------------------


async def test_a_node(recorder: Recorder, security: CurveServer, keys: KeyPair) -> None:
    async with (
        Node("tcp://127.0.0.1:*", Bus(), security=security) as peer,
        Node("tcp://127.0.0.1:*", Bus(), security=security) as node,
    ):
        (endpoint,) = peer.endpoints
        security.servers[endpoint] = keys.public
        assert recorder.take(security) == ["listen", "listen"]
        await node.listen("tcp://127.0.0.1:*")
        assert recorder.take(security) == ["listen"]
        await node.connect_oneway(endpoint)
        assert recorder.take(security) == ["dial"]
        await node.connect_via_queue("job:*", endpoint)
        assert recorder.take(security) == ["dial"]
        await node.interconnect(endpoint)
        assert recorder.take(security) == ["dial"]


async def test_a_node_that_dials_back(
    recorder: Recorder, security: CurveServer, keys: KeyPair, until: Any
) -> None:
    async with (
        Node("tcp://127.0.0.1:*", Bus(), security=security) as peer,
        Node("tcp://127.0.0.1:*", Bus(), security=security) as node,
    ):
        security.servers[node.endpoints[0]] = keys.public
        recorder.opened.clear()
        await peer.interconnect(node.endpoints[0], callback=peer.endpoints[0])
        await until(lambda: len(recorder.opened) == 2)
        assert recorder.take(security) == ["dial", "dial"]


def test_a_node_for_threads(recorder: Recorder, security: CurveServer, keys: KeyPair) -> None:
    with SyncNode(Bus(), security=security) as node:
        endpoint = node.init_connection(("127.0.0.1", 0))
        assert recorder.take(security) == ["listen"]
        security.servers[endpoint] = keys.public
        with SyncNode(Bus(), security=security) as other:
            other.connect_oneway(endpoint)
            assert recorder.take(security) == ["dial"]


async def test_a_node_over_http(recorder: Recorder, security: Security, until: Any) -> None:
    pytest.importorskip("aiohttp")
    async with (
        Node(None, Bus()) as peer,
        Node(None, Bus(), security=security) as node,
        Bridge(peer) as peer_bridge,
        Bridge(node) as bridge,
    ):
        there = await peer_bridge.serve_http()
        here = await bridge.serve_http()
        await node.connect_oneway(there)
        assert recorder.take(security) == ["http"]
        await node.connect_via_queue("job:*", there)
        assert recorder.take(security) == ["http"]
        await node.interconnect(there)
        assert recorder.take(security) == ["http"]
        # The node's own client of the peer, in addition to the peer's client.
        await peer.interconnect(here)
        await until(lambda: len(recorder.opened) >= 2)
        assert recorder.take(security) == ["http"]


# -- JSON-RPC --------------------------------------------------------------------------------


async def test_the_listeners_of_a_bridge(
    recorder: Recorder, security: Security, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("aiohttp")
    from berrymq_rpc.jsonrpc.bridge.http import HTTPListener

    for listener_type in (HTTPListener, JSONLinesListener):
        original: Any = listener_type.open

        async def open_recorded(listener: Any, *args: Any, original: Any = original) -> None:
            recorder.opened.append((type(listener).__name__, listener.options.security))
            await original(listener, *args)

        monkeypatch.setattr(listener_type, "open", open_recorded)
    async with Bridge({}, security=security) as bridge:
        # It has the WebSocket as well.
        await bridge.serve_http()
        assert recorder.take(security) == ["HTTPListener"]
        await bridge.serve_tcp()
        assert recorder.take(security) == ["JSONLinesListener"]
        await bridge.serve_zeromq("tcp://127.0.0.1:*")
        assert recorder.take(security) == ["listen"]


async def test_a_client_over_http(security: Security) -> None:
    pytest.importorskip("aiohttp")
    async with await open_http_client("http://127.0.0.1:9", security=security) as client:
        assert client.security is security
        assert client.with_timeout(1.0).security is security


@pytest.mark.parametrize(
    "name",
    ["RPCServer", "RPCNotificationServer", "NotificationOnlyPullServer", "SubscriptionServer"],
)
def test_zeromq_servers(security: Security, name: str) -> None:
    server = getattr(jsonrpc_zeromq, name)("tcp://127.0.0.1:*", security=security)
    try:
        assert server.security is security
    finally:
        server.close()


@pytest.mark.parametrize(
    "name",
    ["RPCClient", "RPCNotifierClient", "NotifierOnlyPushClient", "NotificationReceiverClient"],
)
def test_zeromq_clients(security: Security, name: str) -> None:
    client = getattr(jsonrpc_zeromq, name)("tcp://127.0.0.1:9", security=security)
    try:
        assert client.security is security
    finally:
        client.close()


# -- all -------------------------------------------------------------------------------------


async def open_bridge(security: Any) -> None:
    Bridge({}, security=security)


async def open_node(security: Any) -> None:
    Node(None, Bus(), security=security)


async def open_server(security: Any) -> None:
    await rpc.start_server({}, bind="tcp://127.0.0.1:*", security=security)


async def open_client(security: Any) -> None:
    await rpc.open_client(connect="tcp://127.0.0.1:9", security=security)


async def open_http(security: Any) -> None:
    pytest.importorskip("aiohttp")
    await open_http_client("http://127.0.0.1:9", security=security)


async def open_zeromq_server(security: Any) -> None:
    jsonrpc_zeromq.RPCServer("tcp://127.0.0.1:*", security=security)


async def open_zeromq_client(security: Any) -> None:
    jsonrpc_zeromq.RPCClient("tcp://127.0.0.1:9", security=security)


@pytest.mark.parametrize(
    "opening",
    [
        open_bridge,
        open_node,
        open_server,
        open_client,
        open_http,
        open_zeromq_server,
        open_zeromq_client,
    ],
)
async def test_another_value_is_refused(opening: Any) -> None:
    with pytest.raises(TypeError, match=r"^security must be None, .* not str$"):
        await opening("keys/")


def socket_makers() -> Iterator[str]:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(attr=attribute)) if attribute in MAKERS:
                    yield path.relative_to(PACKAGE).as_posix()


def test_all_places_that_make_sockets_are_known() -> None:
    # A further one has to take the value, and gets a test above.
    assert set(socket_makers()) == set(PLACES)
