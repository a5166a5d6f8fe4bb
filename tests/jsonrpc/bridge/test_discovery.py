"""What a bridge tells of its methods is made once, and asking for it is a call like others."""

import asyncio
import json
from typing import Any

import pytest

from berrymq_rpc import rpc
from berrymq_rpc.jsonrpc.bridge import Bridge

V2 = {"jsonrpc": "2.0", "id": 1}
DISCOVER = V2 | {"method": "rpc.discover"}


class Default:
    """A default that counts how often it is described."""

    described = 0

    def __repr__(self) -> str:
        self.described += 1
        return "Default()"


def names(answer: Any) -> list[str]:
    return [method["name"] for method in answer["result"]["methods"]]


async def test_it_is_made_once(line_to: Any, listener: str) -> None:
    default = Default()

    class Handler(rpc.AttrHandler):
        @rpc.method
        def take(self, value: Any = default) -> None:
            pass

    async with Bridge(Handler()) as bridge, line_to(bridge, listener) as line:
        first = await line.ask(DISCOVER)
        assert names(first) == ["take"]
        assert default.described > 0
        described = default.described
        for _ in range(10):
            assert await line.ask(DISCOVER) == first
        answers = await line.ask([DISCOVER] * 10)
        assert answers == [first] * 10
        assert default.described == described


class Remote(rpc.AttrHandler):
    @rpc.method
    def one(self) -> None:
        pass


class Other(rpc.AttrHandler):
    @rpc.method
    def two(self) -> None:
        pass


@pytest.mark.parametrize("method", ["rpc.discover", "rpc.describe"])
async def test_a_remote_server_is_asked_once(line_to: Any, listener: str, method: str) -> None:
    asked = V2 | {"method": method}
    async with (
        await rpc.start_server(Remote(), bind="tcp://127.0.0.1:*") as server,
        await rpc.open_client(connect=server.endpoints, timeout=10) as client,
        Bridge(client) as bridge,
        line_to(bridge, listener) as line,
    ):
        first = await line.ask(asked)
        assert "one" in names(first)
        assert await line.ask([asked] * 10) == [first] * 10
        assert await line.ask(asked) == first
        assert server.statistics()["calls"] == 1


async def test_a_remote_server_is_asked_again_after_a_break(line_to: Any) -> None:
    async with await rpc.start_server(Remote(), bind="tcp://127.0.0.1:*") as server:
        (endpoint,) = server.endpoints
        client = await rpc.open_client(connect=endpoint, timeout=10)
        assert await client.describe()
    async with client, Bridge(client) as bridge, line_to(bridge, "tcp") as line:
        asking = asyncio.create_task(line.ask(DISCOVER))
        async with await rpc.start_server(Remote(), bind=endpoint):
            assert "one" in names(await asking)
        async with await rpc.start_server(Other(), bind=endpoint):
            assert "two" in names(await line.ask(DISCOVER))


async def test_a_remote_server_that_fails_is_asked_again(line_to: Any) -> None:
    client = await rpc.open_client(connect="tcp://127.0.0.1:1", timeout=0.01)
    async with client, Bridge(client) as bridge, line_to(bridge, "tcp") as line:
        for _ in range(2):
            assert "error" in await line.ask(DISCOVER)


class Slow(rpc.AttrHandler):
    """A remote server that opens queues when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.go_on = asyncio.Event()

    @rpc.method(waits=True)
    async def connect_via_queue(self, identifier: str, ttl: float) -> str:
        self.asked += 1
        await self.go_on.wait()
        raise ValueError("not today")


async def test_what_the_bridge_asks_itself_holds_places_of_the_window(
    line_to: Any, pushing_listener: str
) -> None:
    handler = Slow()
    async with (
        await rpc.start_server(handler, bind="tcp://127.0.0.1:*") as server,
        await rpc.open_client(connect=server.endpoints, timeout=10) as client,
        Bridge(client, limits=rpc.Limits(window=2)) as bridge,
        line_to(bridge, pushing_listener) as line,
    ):
        subscribe = {"method": "subscribe", "params": ["job:*"]}
        for number in range(5):
            await line.send(json.dumps(V2 | subscribe | {"id": number}).encode())
        while bridge.statistics()["calls_in_progress"] < 5 or handler.asked < 2:
            await asyncio.sleep(0.001)
        # The remote server has answered what was asked after these.
        await client.describe()
        assert handler.asked == 2
        handler.go_on.set()
        answers = [json.loads(await line.receive()) for _ in range(5)]
        assert {answer["error"]["message"] for answer in answers} == {"ValueError('not today')"}
        assert handler.asked == 5
