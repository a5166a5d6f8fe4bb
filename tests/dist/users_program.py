"""A program of a user, which type checkers read: a line with ``# error`` is one that they refuse."""

import asyncio
import threading

from typing_extensions import assert_type

import berrymq_rpc as berrymq
from berrymq_rpc import AsyncQueue, Bus, Message, Node, Queue, SyncNode, rpc
from berrymq_rpc.jsonrpc.bridge import Bridge
from berrymq_rpc.jsonrpc.http import HTTPClient, open_http_client
from berrymq_rpc.testing import Kit


class Oven(rpc.AttrHandler):
    @rpc.method
    def heat(self, degrees: float) -> str:
        return f"heated to {degrees}"

    @rpc.method(thread=True)
    def clean(self) -> None:
        threading.Event().wait(0.1)


@berrymq.following_function("oven:*")
def show(message: Message) -> None:
    print(message.id, *message.args)


async def calls() -> None:
    async with await rpc.start_server(Oven(), bind="mem://oven") as server:
        assert_type(server, rpc.Server)
        assert_type(Oven().heat(1.0), str)
        Oven().heat("hot")  # error: the decorator keeps the signature
        async with await rpc.open_client(connect=server.endpoints, timeout=5) as client:
            assert_type(client, rpc.Client)
            await client.rpc.heat(220)
    await rpc.open_client(connect=1)  # error: no address
    await rpc.start_server(Oven(), bind="mem://oven", limit=3)  # error: no such argument


async def messages() -> None:
    bus = Bus()
    async with Node("mem://node", bus, name="kitchen"):
        queue = AsyncQueue("job:*", bus=bus)
        message = await queue.get()
        assert_type(message, Message)
        await bus.publish("job:new", 1)
    bus.twitter(b"job:new")  # error: no identifier


def threads() -> None:
    with SyncNode(), Queue("job:*") as queue:
        assert_type(queue.get(timeout=1.0), Message)
    with rpc.SyncClient(connect="tcp://127.0.0.1:5555", timeout=5) as client:
        client.rpc.heat(220)


async def bridge() -> None:
    async with Bridge(Oven()) as served:
        url = await served.serve_http("127.0.0.1", 0)
        assert_type(url, str)
        async with await open_http_client(url) as client:
            assert_type(client, HTTPClient)


async def test_oven(berrymq: Kit) -> None:
    server = await berrymq.serve(Oven())
    server.method("heat").fails(ValueError("too hot"), times=1)
    await berrymq.client(server)


assert_type(berrymq.__version__, str)
asyncio.run(calls())
