"""berryMQ 0.3 at both ends: its bytes, and the way in which it uses the standard library.

Its client is `xmlrpc.client`'s transport with a body of its own, its server `xmlrpc.server`'s
request handler with a dispatcher of its own. Both are made here from what its published source
does, as it runs on no Python of today.
"""

import asyncio
import json
import threading
import uuid
import xmlrpc.client
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from socketserver import TCPServer
from typing import Any
from xmlrpc.server import SimpleXMLRPCDispatcher, SimpleXMLRPCRequestHandler

import pytest

from berrymq_rpc import Bus, Empty, Message, Node
from berrymq_rpc.jsonrpc.bridge import Bridge
from berrymq_rpc.jsonrpc.http import open_http_client

# -- its client ----------------------------------------------------------------------------

#: A request of its on Python 2, by HTTP 1.0, to the letter.
RECORDED = (
    b"POST /JSON HTTP/1.0\r\n"
    b"Host: localhost:%(port)d\r\n"
    b"User-Agent: xmlrpclib.py/1.0.1 (by www.pythonware.com)\r\n"
    b"Content-Type: text/xml\r\n"
    b"Content-Length: %(length)d\r\n"
    b"\r\n"
    b"%(body)s"
)

#: The bodies of all seven functions. T stands for a token.
BODIES = {
    "interconnect": b'{"id": null, "method": "interconnect", "params": [["localhost", 9], "T", 1]}',
    "connect_oneway": b'{"id": null, "method": "connect_oneway", "params": [1000]}',
    "connect_via_queue": b'{"id": null, "method": "connect_via_queue", "params": ["job:*", 1000]}',
    "send_message": b'{"id": null, "method": "send_message",'
    b' "params": ["T", "job:done", [1, "two"], {"three": 3}]}',
    "get": b'{"id": null, "method": "get", "params": ["T", true, 1000]}',
    "get_nowait": b'{"id": null, "method": "get_nowait", "params": ["T"]}',
    "close_connection": b'{"id": null, "method": "close_connection", "params": ["T"]}',
}


async def raw(url: str, name: str, token: str = "") -> dict[str, Any]:
    """What answers the recorded request."""
    host, port = url.removeprefix("http://").split(":")
    body = BODIES[name].replace(b'"T"', json.dumps(token).encode())
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(RECORDED % {b"port": int(port), b"length": len(body), b"body": body})
        head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.0 200 ") or head.startswith(b"HTTP/1.1 200 ")
        parsed: dict[str, Any] = json.loads(answer)
        assert parsed.keys() == {"id", "result", "error"}
        assert parsed["id"] is None
        return parsed
    finally:
        writer.close()
        await writer.wait_closed()


class Transport(xmlrpc.client.Transport):
    def parse_response(self, response: Any) -> Any:
        return response.read()


class Proxy:
    """Its `ServerProxy`, which waits for each answer."""

    def __init__(self, url: str) -> None:
        self._host = url.removeprefix("http://")

    def __getattr__(self, name: str) -> Any:
        def call(*params: Any) -> Any:
            body = json.dumps({"id": None, "method": name, "params": params}, ensure_ascii=False)
            transport = Transport()
            try:
                answer = json.loads(transport.request(self._host, "/JSON", body.encode()))
            finally:
                transport.close()
            if answer["id"] is not None or answer["error"] is not None:
                raise RuntimeError(answer)
            return answer["result"]

        return call


# -- its server ----------------------------------------------------------------------------


class RequestHandler(SimpleXMLRPCRequestHandler):
    rpc_paths = ("/", "/JSON")


class Server(TCPServer, SimpleXMLRPCDispatcher):
    """A node of 0.3: it publishes what comes, and passes it on to all but the one it is from."""

    allow_reuse_address = True
    logRequests = False

    def __init__(self) -> None:
        SimpleXMLRPCDispatcher.__init__(self, allow_none=True)
        TCPServer.__init__(self, ("127.0.0.1", 0), RequestHandler)
        self.heard: list[Any] = []
        self.arrived = threading.Event()
        self.tokens: dict[str, tuple[Any, Any]] = {}
        self.register_instance(self)

    def _marshaled_dispatch(self, data: bytes, *_: Any) -> bytes:  # type: ignore[override]
        request_id = None
        try:
            request = json.loads(data)
            method, params, request_id = request["method"], request["params"], request["id"]
            result = getattr(self, f"on_{method}")(*params)
            answer = {"id": request_id, "result": result, "error": None}
        except Exception as error:
            told = {"type": str(type(error)), "message": str(error), "traceback": ""}
            answer = {"id": request_id, "result": None, "error": told}
        return json.dumps(answer, ensure_ascii=False).encode()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def on_interconnect(self, addr: Any, his_token: str, ttl: float) -> str:
        self.tokens[his_token] = (addr, ttl)
        return his_token

    def on_connect_oneway(self, ttl: float = 1000) -> str:
        token = str(uuid.uuid1())
        self.tokens[token] = (None, ttl)
        return token

    def on_connect_via_queue(self, identifier: str, ttl: float) -> str:
        return self.on_connect_oneway(ttl)

    def on_close_connection(self, token: str, addr: Any = None) -> str:
        return "ok"

    def on_send_message(self, token: str, identifier: str, args: Any, kwargs: Any) -> str:
        if token not in self.tokens:
            return "invalid token"
        self.heard.append((identifier, args, kwargs))
        self.arrived.set()
        return "ok"

    def on_get(self, token: str, block: bool, timeout: float) -> Any:
        return ["job:done", [1], {"two": 2}] if token in self.tokens else "invalid token"

    def on_get_nowait(self, token: str) -> Any:
        return self.on_get(token, False, 0)

    def passes_on(self, identifier: str, *args: Any) -> str:
        """What it does when something is sent on its own bus."""
        ((token, (addr, _)),) = self.tokens.items()
        return str(Proxy("http://{}:{}".format(*addr)).send_message(token, identifier, args, {}))

    async def hears(self, count: int) -> list[Any]:
        while len(self.heard) < count:
            await asyncio.sleep(0.005)
        return self.heard


@pytest.fixture
def berrymq03() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Heard(asyncio.Queue[Message]):
    def __init__(self, bus: Bus) -> None:
        super().__init__()
        bus.regist_function("job:*", self.put_nowait)


@asynccontextmanager
async def reached(bus: Bus, **options: Any) -> AsyncIterator[tuple[Node, str]]:
    """A node with an HTTP listener."""
    async with Node(None, bus, **options) as node, Bridge(node) as bridge:
        yield node, await bridge.serve_http()


# -- 0.3 calls us --------------------------------------------------------------------------


async def test_recorded_requests() -> None:
    bus = Bus()
    heard = Heard(bus)
    async with reached(bus) as (_, url):
        assert (await raw(url, "interconnect", "mine"))["result"] == "mine"
        token = (await raw(url, "connect_oneway"))["result"]
        assert uuid.UUID(token)
        assert (await raw(url, "send_message", token))["result"] == "ok"
        message = await heard.get()
        assert (message.id, message.args, message.kwargs) == ("job:done", (1, "two"), {"three": 3})
        queue = (await raw(url, "connect_via_queue"))["result"]
        assert (await raw(url, "get_nowait", queue))["result"] == "timeout"
        bus.twitter("job:done", 1, two=2)
        bus.twitter("job:more")
        assert (await raw(url, "get", queue))["result"] == ["job:done", [1], {"two": 2}]
        assert (await raw(url, "get_nowait", queue))["result"] == ["job:more", [], {}]
        assert (await raw(url, "close_connection", queue))["result"] == "ok"
        assert (await raw(url, "get", queue))["result"] == "invalid token"
        assert (await raw(url, "send_message", "unknown"))["result"] == "invalid token"


async def test_others_get_an_object_and_a_null_id_is_a_notification() -> None:
    bus = Bus()
    async with reached(bus) as (_, url):
        async with await open_http_client(url) as client:
            queue = await client.rpc.connect_via_queue("job:*", 100)
            bus.twitter("job:done", 1)
            got = await client.rpc.get(queue, True, 1)
            assert got == {"id": "job:done", "args": [1], "kwargs": {}}
        async with await open_http_client(url + "/JSON") as client:
            bus.twitter("job:done", 2)
            # What names its version is served as it is everywhere.
            assert (await client.rpc.get(queue, True, 1))["args"] == [2]


async def test_what_is_wrong_is_raised_by_its_client() -> None:
    async with reached(Bus()) as (_, url):
        proxy = Proxy(url)
        for name, params in (("no_such", ()), ("connect_via_queue", ("::", 1)), ("get", ())):
            with pytest.raises(RuntimeError, match="error"):
                await asyncio.to_thread(getattr(proxy, name), *params)


async def test_one_link_at_most_with_one_that_numbers_nothing(berrymq03: Server) -> None:
    """It passes on to the one what comes by the other, and nothing would tell them apart."""
    bus = Bus()
    async with reached(bus) as (node, url):
        proxy = Proxy(url)
        addr = ("localhost", berrymq03.server_address[1])
        for token in ("one", "two"):
            berrymq03.tokens = {token: (("127.0.0.1", int(url.rpartition(":")[2])), 1000)}
            assert await asyncio.to_thread(proxy.interconnect, addr, token, 1000) == token
        # The second one takes the place of the first one.
        assert node.statistics()["connections"] == 1
        bus.twitter("job:done", 1)
        assert await berrymq03.hears(1) == [("job:done", [1], {})]
        with pytest.raises(ValueError, match="twice"):
            await node.interconnect(berrymq03.url)
        assert node.connections == ()
        await asyncio.to_thread(proxy.close_connection, "two")
        connection = await node.interconnect(berrymq03.url)
        with pytest.raises(RuntimeError, match="twice"):
            await asyncio.to_thread(proxy.interconnect, addr, "three", 1000)
        bus.twitter("job:done", 2)
        assert await berrymq03.hears(2) == [("job:done", [1], {}), ("job:done", [2], {})]
        await connection.close()


async def test_its_interconnect_calls_back(berrymq03: Server) -> None:
    bus = Bus()
    heard = Heard(bus)
    async with reached(bus) as (_, url):
        proxy = Proxy(url)
        addr = ("localhost", berrymq03.server_address[1])
        token = str(uuid.uuid1())
        berrymq03.tokens[token] = (("127.0.0.1", int(url.rpartition(":")[2])), 1000)
        assert await asyncio.to_thread(proxy.interconnect, addr, token, 1000) == token
        for number in range(50):
            bus.twitter("job:done", number, by="us")
        expected = [("job:done", [number], {"by": "us"}) for number in range(50)]
        assert await berrymq03.hears(50) == expected
        assert await asyncio.to_thread(berrymq03.passes_on, "job:started", "by them") == "ok"
        # By us as well, and it is not sent back to where it came from.
        messages = [await heard.get() for _ in range(51)]
        assert messages[-1].args == ("by them",)
        bus.twitter("job:last")
        assert (await berrymq03.hears(51))[-1] == ("job:last", [], {})


async def test_it_may_not_have_others_called() -> None:
    async with reached(Bus()) as (_, url):
        proxy = Proxy(url)
        for addr in (["192.0.2.1", 80], "http://192.0.2.1:80"):
            with pytest.raises(RuntimeError, match="caller's own"):
                await asyncio.to_thread(proxy.interconnect, addr, "token", 10)


# -- we call 0.3 ---------------------------------------------------------------------------


async def test_we_send_to_it(berrymq03: Server) -> None:
    async with Node(None, Bus()) as node, await node.connect_oneway(berrymq03.url) as connection:
        assert await connection.send_message("job:done", 1, two=2) == "ok"
        assert berrymq03.heard == [("job:done", [1], {"two": 2})]
        # It was restarted, and has forgotten the connection.
        berrymq03.tokens.clear()
        assert await connection.send_message("job:again") == "ok"
        assert berrymq03.heard[1:] == [("job:again", [], {})]


async def test_we_get_from_it(berrymq03: Server) -> None:
    async with (
        Node(None, Bus()) as node,
        await node.connect_via_queue("job:*", berrymq03.url) as connection,
    ):
        for message in (await connection.get(timeout=5), await connection.get_nowait()):
            assert (message.id, message.args, message.kwargs) == ("job:done", (1,), {"two": 2})


async def test_we_interconnect_with_it(berrymq03: Server) -> None:
    bus = Bus()
    heard = Heard(bus)
    async with reached(bus) as (node, url):
        connection = await node.interconnect(berrymq03.url)
        ((addr, _),) = berrymq03.tokens.values()
        assert addr == ["127.0.0.1", int(url.rpartition(":")[2])]
        for number in range(50):
            bus.twitter("job:done", number)
        assert [args for _, args, _ in await berrymq03.hears(50)] == [[n] for n in range(50)]
        assert await asyncio.to_thread(berrymq03.passes_on, "job:started", 1) == "ok"
        assert (await heard.get()).args == (0,)
        while (await heard.get()).id != "job:started":
            pass
        # It has forgotten the connection: it is made anew, and nothing is lost.
        berrymq03.tokens.clear()
        bus.twitter("job:later")
        assert (await berrymq03.hears(51))[-1] == ("job:later", [], {})
        await connection.close()


async def test_we_interconnect_with_our_own_kind_over_http() -> None:
    here, there = Bus(), Bus()
    heard_here, heard_there = Heard(here), Heard(there)
    async with reached(here) as (node, _), reached(there) as (_, url):
        await node.interconnect(url)
        here.twitter("job:one")
        assert (await heard_there.get()).id == "job:one"
        there.twitter("job:two")
        assert [(await heard_here.get()).id for _ in range(2)] == ["job:one", "job:two"]
        assert (await heard_there.get()).id == "job:two"
        assert heard_here.empty()


async def test_we_have_to_be_reached(berrymq03: Server) -> None:
    async with Node(None, Bus()) as node:
        with pytest.raises(ValueError, match="serve_http"):
            await node.interconnect(berrymq03.url)


async def test_nobody_is_there() -> None:
    async with Node(None, Bus()) as node:
        with pytest.raises(ConnectionError):
            await node.connect_oneway("http://127.0.0.1:1")
        with pytest.raises(ConnectionError):
            await node.connect_via_queue("job:*", "http://127.0.0.1:1")


async def test_an_empty_queue_of_ours_over_http() -> None:
    async with reached(Bus()) as (_, url), Node(None, Bus()) as node:
        connection = await node.connect_via_queue("job:*", url)
        with pytest.raises(Empty):
            await connection.get_nowait()
        with pytest.raises(Empty):
            await connection.get(timeout=0.05)
