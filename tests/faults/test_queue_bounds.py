"""One peer that opens all the queues and connections that it can: what is left for the others."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from berrymq_rpc.bus import Bus
from berrymq_rpc.exchange import Node
from berrymq_rpc.jsonrpc.bridge import Bridge

MB = 1 << 20


class Caller:
    """A plain TCP connection that speaks JSON, a text a line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    def send(self, method: str, *params: Any, number: int = 1) -> None:
        text = {"jsonrpc": "2.0", "method": method, "params": params, "id": number}
        self.writer.write(json.dumps(text).encode() + b"\n")

    async def read(self) -> Any:
        return json.loads(await self._reader.readline())

    async def call(self, method: str, *params: Any) -> Any:
        self.send(method, *params)
        answer = await self.read()
        return answer.get("result", answer.get("error"))


@asynccontextmanager
async def place(**options: Any) -> AsyncIterator[tuple[Bus, Node, Bridge]]:
    bus = Bus()
    async with Node(None, bus, **options) as node, Bridge(node) as bridge:
        yield bus, node, bridge


@asynccontextmanager
async def caller(port: int) -> AsyncIterator[Caller]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4 * MB)
    try:
        yield Caller(reader, writer)
    finally:
        writer.close()
        await writer.wait_closed()


def port_of(endpoint: str) -> int:
    return int(endpoint.rsplit(":", 1)[1])


async def test_queues_of_everything() -> None:
    """300 queues that keep all messages, for ever: they take no more than one peer's share."""
    async with place(total_queue_bytes=40 * MB) as (bus, node, bridge):
        port = port_of(await bridge.serve_tcp("127.0.0.1", 0))
        async with caller(port) as modest:
            token = await modest.call("connect_via_queue", "job:*", 1000)
            async with caller(port) as greedy:
                for number in range(300):
                    greedy.send("connect_via_queue", "*:*", 1e308, number=number)
                tokens = [(await greedy.read())["result"] for _ in range(300)]
                assert len(set(tokens)) == 300
                for number in range(40):
                    bus.twitter("job:new", number, "x" * 50_000)
                assert node.statistics()["queue_bytes"] < 7 * MB
            # What it has left takes no more than that either.
            for number in range(40, 60):
                bus.twitter("job:new", number, "x" * 50_000)
            statistics = node.statistics()
            assert (statistics["queues"], statistics["queue_bytes"] < 7 * MB) == (301, True)
            for number in range(60):
                assert (await modest.call("get", token, False))["args"][0] == number


async def test_places_by_plain_http() -> None:
    """All requests of an address are those of one peer, whatever connections they come by."""
    async with place(max_connections=50) as (_, node, bridge):
        url = await bridge.serve_http("127.0.0.1", 0)
        port = port_of(await bridge.serve_tcp("127.0.0.1", 0))

        async def post(method: str, *params: Any) -> Any:
            text = {"jsonrpc": "2.0", "method": method, "params": params, "id": 1}
            async with (
                aiohttp.ClientSession() as session,
                session.post(url, json=text) as response,
            ):
                return await response.json()

        for _ in range(5):
            token = (await post("connect_oneway", 1000))["result"]
            assert (await post("send_message", token, "a:b"))["result"] == "ok"
        error = (await post("connect_oneway", 1000))["error"]
        assert "one peer has 5 of max_connections=50" in error["message"]
        assert node.statistics()["connections_refused"] == 1
        async with caller(port) as other:
            assert len(await other.call("connect_oneway", 1000)) == 36


async def test_places_that_are_never_used() -> None:
    """Tokens that were only opened make way; those in use stay."""
    async with place(max_connections=100) as (_, node, bridge):
        port = port_of(await bridge.serve_tcp("127.0.0.1", 0))
        async with caller(port) as modest:
            token = await modest.call("connect_oneway", 1000)
            assert await modest.call("send_message", token, "a:b") == "ok"
            for _ in range(12):
                async with caller(port) as greedy:
                    for number in range(20):
                        greedy.send("connect_via_queue", "*:*", 1e308, number=number)
                    for _ in range(20):
                        assert "result" in await greedy.read()
            assert node.statistics()["connections"] == 100
            assert node.statistics()["queues"] == 99
            assert await modest.call("send_message", token, "a:b") == "ok"
            assert len(await modest.call("connect_oneway", 1000)) == 36


async def test_interconnections_of_one_peer() -> None:
    """Each message goes to each of them, so one peer has only so many."""
    async with place(max_peer_links=5) as (_, node, bridge):
        port = port_of(await bridge.serve_tcp("127.0.0.1", 0))
        async with caller(port) as greedy, caller(port) as modest:
            tokens = [await greedy.call("interconnect", None, None, 1000) for _ in range(5)]
            error = await greedy.call("interconnect", None, None, 1000)
            assert "one peer has max_peer_links=5" in error["message"]
            assert len(await modest.call("interconnect", None, None, 1000)) == 36
            assert await greedy.call("close_connection", tokens[0]) == "ok"
            assert len(await greedy.call("interconnect", None, None, 1000)) == 36
            assert node.statistics()["connections"] == 6


@pytest.mark.slow
async def test_a_flood_of_queues_with_the_defaults() -> None:
    """With the default bounds; 64 MB are one peer's share, and a queue of another loses nothing."""
    async with place() as (bus, node, bridge):
        port = port_of(await bridge.serve_tcp("127.0.0.1", 0))
        async with caller(port) as modest, caller(port) as greedy:
            token = await modest.call("connect_via_queue", "job:*", 1000)
            for number in range(300):
                greedy.send("connect_via_queue", "*:*", 1e308, number=number)
            for _ in range(300):
                assert "result" in await greedy.read()
            loop = asyncio.get_running_loop()
            longest = 0.0
            for number in range(400):
                began = loop.time()
                bus.twitter("job:new", number, "x" * 100_000)
                longest = max(longest, loop.time() - began)
                assert (await modest.call("get", token, False))["args"][0] == number
            assert node.statistics()["queue_bytes"] < 65 * MB
            assert longest < 0.5
