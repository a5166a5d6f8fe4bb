"""REQ sockets take whatever comes next for the answer to their request: they are only answered."""

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgpack
import pytest
import zmq
import zmq.asyncio

from berrymq_rpc import Bus, Node, rpc
from berrymq_rpc.jsonrpc.bridge import Bridge
from berrymq_rpc.jsonrpc.zeromq import RPCClient, SubscriptionServer


class Peer:
    """A raw socket that speaks JSON-RPC, or the dialect of aiozmq.rpc."""

    def __init__(self, socket: zmq.asyncio.Socket, dialect: str) -> None:
        self.socket = socket
        self.dialect = dialect
        #: A DEALER that sends what a REQ sends.
        self.prefix = [b""] if socket.get(zmq.TYPE) == zmq.DEALER else []

    async def ask(self, method: str, *args: Any) -> Any:
        if self.dialect == "aiozmq":
            header = struct.pack("=HHLd", 1, 2, 3, 0.0)
            frames = [header, method.encode(), msgpack.packb(args), msgpack.packb({})]
            await self.socket.send_multipart([*self.prefix, *frames])
            *_, answered, answer = await self.socket.recv_multipart()
            assert answered[4:8] == header[4:8]
            unpacked = msgpack.unpackb(answer)
            return {"error" if answered[16] else "result": unpacked}
        call = {"jsonrpc": "2.0", "method": method, "params": args, "id": 7}
        await self.socket.send_multipart([*self.prefix, json.dumps(call).encode()])
        answer = json.loads((await self.socket.recv_multipart())[-1])
        assert answer["id"] == 7, answer
        return answer


@asynccontextmanager
async def peer(endpoint: str, kind: int = zmq.REQ, dialect: str = "json") -> AsyncIterator[Peer]:
    context = zmq.asyncio.Context()
    socket = context.socket(kind)
    socket.connect(endpoint)
    try:
        yield Peer(socket, dialect)
    finally:
        context.destroy(0)


class Handler(rpc.AttrHandler):
    def __init__(self) -> None:
        self.peers: list[rpc.Peer] = []

    @rpc.method
    def double(self, number: int) -> int:
        self.peers.append(rpc.context().peer)
        return 2 * number

    @rpc.method
    async def call_back(self) -> Any:
        return await rpc.context().peer.rpc.anything(1)

    @rpc.method
    async def notify_back(self) -> None:
        rpc.context().peer.notify.anything(1)


@pytest.mark.parametrize("dialect", ["json", "aiozmq"])
@pytest.mark.parametrize("method", ["call_back", "notify_back"])
async def test_is_not_called(method: str, dialect: str) -> None:
    handler = Handler()
    async with (
        await rpc.start_server(handler, bind="tcp://127.0.0.1:*") as server,
        peer(server.endpoints[0], dialect=dialect) as it,
    ):
        assert "REQ socket" in str((await it.ask(method))["error"])
        assert (await it.ask("double", 4))["result"] == 8
        (known,) = handler.peers
        assert not known.can_be_called
        # While it asks nothing, either.
        with pytest.raises(rpc.ServiceClosedError, match="REQ socket") as info:
            known.notify.anything()
        assert info.value.sent is False
        with pytest.raises(rpc.ServiceClosedError, match="REQ socket"):
            await known.rpc.anything()
        assert (await it.ask("double", 5))["result"] == 10


async def test_a_dealer_that_sends_an_empty_frame_is_called() -> None:
    handler = Handler()
    async with (
        await rpc.start_server(handler, bind="tcp://127.0.0.1:*") as server,
        peer(server.endpoints[0], zmq.DEALER) as it,
    ):
        assert (await it.ask("double", 4))["result"] == 8
        assert handler.peers[0].can_be_called
        handler.peers[0].notify.told(1)
        *_, text = await it.socket.recv_multipart()
        assert json.loads(text)["method"] == "told"


@pytest.mark.parametrize("remote", [False, True])
async def test_does_not_subscribe(remote: bool) -> None:
    bus = Bus()
    async with (
        Node("tcp://127.0.0.1:0", bus) as node,
        await rpc.open_client(connect=node.endpoints[0]) as client,
        Bridge(client if remote else node) as bridge,
    ):
        endpoint = await bridge.serve_zeromq("tcp://127.0.0.1:*")
        async with peer(endpoint) as it, peer(endpoint, zmq.DEALER) as dealer:
            assert (await dealer.ask("subscribe", "job:*"))["result"]
            assert "DEALER" in str((await it.ask("subscribe", "job:*"))["error"])
            bus.twitter("job:new", 1)
            *_, text = await dealer.socket.recv_multipart()
            assert json.loads(text)["params"]["args"] == [1]
            # It gets its own answer, and no message for it.
            assert (await it.ask("connect_oneway", 10))["result"]


@pytest.mark.parametrize("listener", ["bridge", "node"])
async def test_is_not_interconnected_over_its_own_connection(listener: str) -> None:
    bus = Bus()
    async with Node("tcp://127.0.0.1:0", bus) as node, Bridge(node) as bridge:
        endpoint = node.endpoints[0]
        if listener == "bridge":
            endpoint = await bridge.serve_zeromq("tcp://127.0.0.1:*")
        async with peer(endpoint) as it:
            assert "REQ socket" in str((await it.ask("interconnect", None, "token", 10))["error"])
            bus.twitter("job:new", 1)
            token = (await it.ask("connect_oneway", 10))["result"]
            assert (await it.ask("send_message", token, "job:done", [1]))["result"] == "ok"
            assert node.statistics()["connections"] == 1


async def test_does_not_subscribe_at_a_server_in_a_thread() -> None:
    with SubscriptionServer("tcp://127.0.0.1:*") as server:
        with RPCClient(server.endpoint) as client, pytest.raises(Exception, match="REQ socket"):
            await asyncio.to_thread(client.subscribe)
        assert server.subscribers == ()
        async with peer(server.endpoint, zmq.DEALER) as dealer:
            assert (await dealer.ask("subscribe"))["result"] is True
            server.publish("told", 1)
            *_, text = await dealer.socket.recv_multipart()
            assert json.loads(text)["method"] == "told"
