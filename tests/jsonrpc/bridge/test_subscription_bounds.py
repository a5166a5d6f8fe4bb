"""How many subscriptions there may be, and that none is left where its peer has gone."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from berrymq_rpc import Bus, Node, rpc
from berrymq_rpc.jsonrpc.bridge import Bridge


class Peer:
    """A peer of a TCP listener."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def subscribe(self, count: int) -> None:
        for number in range(count):
            asked = {"jsonrpc": "2.0", "method": "subscribe", "params": ["a:*"], "id": number}
            self.writer.write(json.dumps(asked).encode() + b"\n")

    async def answers(self, count: int) -> list[Any]:
        return [json.loads(await self.reader.readline()) for _ in range(count)]

    async def refusals(self, count: int) -> list[str]:
        """Subscribe so many times; the texts of the errors."""
        self.subscribe(count)
        answers = await self.answers(count)
        return [answer["error"]["message"] for answer in answers if "error" in answer]


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Peer]:
    host, _, port = url.removeprefix("tcp://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Peer(reader, writer)
    finally:
        writer.transport.abort()


class SlowNode(rpc.AttrHandler):
    """The functions of a node that a subscription needs; queues are opened when it is let."""

    def __init__(self) -> None:
        self.may_open = asyncio.Event()
        self.asked = 0
        self.closed: list[str] = []

    @rpc.method
    async def connect_via_queue(self, identifier: str, ttl: float) -> str:
        self.asked += 1
        token = str(self.asked)
        try:
            await self.may_open.wait()
        except asyncio.CancelledError:
            # Too late to take it back, as it often is.
            await self.may_open.wait()
        return token

    @rpc.method(waits=True)
    async def get(self, token: str, block: bool, timeout: float) -> str:
        await asyncio.Event().wait()
        raise AssertionError

    @rpc.method
    def close_connection(self, token: str) -> str:
        self.closed.append(token)
        return "ok"


@asynccontextmanager
async def before(handler: Any, **options: Any) -> AsyncIterator[Bridge]:
    async with (
        await rpc.start_server(handler, bind="tcp://127.0.0.1:*") as server,
        await rpc.open_client(connect=server.endpoints[0], timeout=20) as client,
        Bridge(client, grace=0, **options) as bridge,
    ):
        yield bridge


async def test_the_bound_is_checked_before_the_remote_queue_is_opened() -> None:
    slow = SlowNode()
    async with before(slow) as bridge, connected(await bridge.serve_tcp()) as peer:
        peer.subscribe(150)
        refused = await peer.answers(50)
        assert all("one peer may have 100 subs" in each["error"]["message"] for each in refused)
        assert slow.asked <= 100
        slow.may_open.set()
        opened = await peer.answers(100)
        assert slow.asked == len({each["result"] for each in opened}) == 100
        now = bridge.statistics()
        assert (now["subscriptions"], now["subscriptions_refused"]) == (100, 50)


async def test_what_is_opened_for_a_peer_that_left_is_closed(until: Any) -> None:
    slow = SlowNode()
    async with before(slow) as bridge:
        async with connected(await bridge.serve_tcp()) as peer:
            peer.subscribe(20)
            await until(lambda: slow.asked >= 20)
        await until(lambda: not bridge.statistics()["subscriptions"])
        slow.may_open.set()
        await until(lambda: len(slow.closed) >= 20)
        assert sorted(slow.closed, key=int) == [str(number + 1) for number in range(20)]


async def test_a_remote_node_keeps_nothing_of_peers_that_left(until: Any) -> None:
    async with (
        Node("tcp://127.0.0.1:0", Bus()) as node,
        await rpc.open_client(connect=node.endpoints[0], timeout=20) as client,
        Bridge(client) as bridge,
    ):
        url = await bridge.serve_tcp()
        for answered in (0, 1, 50, 100):
            async with connected(url) as peer:
                peer.subscribe(100)
                await peer.answers(answered)
        await until(lambda: not bridge.statistics()["subscriptions"])
        await until(lambda: not node.statistics()["connections"])


@pytest.mark.parametrize("remote", [False, True])
async def test_bounds_of_a_host_and_of_all(remote: bool, until: Any) -> None:
    bounds = {"max_subscriptions": 100, "max_peer_subscriptions": 8, "max_host_subscriptions": 20}
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(Node("tcp://127.0.0.1:0", Bus()))
        target: Any = node
        if remote:
            opening = await rpc.open_client(connect=node.endpoints[0], timeout=20)
            target = await stack.enter_async_context(opening)
        bridge = await stack.enter_async_context(Bridge(target, **bounds))
        url = await bridge.serve_tcp()
        peers = [await stack.enter_async_context(connected(url)) for _ in range(3)]
        assert (
            await peers[0].refusals(10)
            == ["OverloadedError('one peer may have 8 subscriptions')"] * 2
        )
        assert await peers[1].refusals(8) == []
        assert (
            await peers[2].refusals(8)
            == ["OverloadedError('one host may have 20 subscriptions')"] * 4
        )
        assert bridge.statistics()["subscriptions"] == 20
        peers[0].writer.transport.abort()
        await until(lambda: bridge.statistics()["subscriptions"] <= 12)
        # There is room again.
        assert await peers[2].refusals(4) == []


async def test_the_bound_of_all() -> None:
    async with (
        Node("tcp://127.0.0.1:0", Bus()) as node,
        Bridge(node, max_subscriptions=3) as bridge,
        connected(await bridge.serve_tcp()) as peer,
    ):
        (refused,) = await peer.refusals(4)
        assert "all peers together may have 3 subscriptions" in refused


async def test_a_subscription_that_fails_is_over(until: Any) -> None:
    class Strange(SlowNode):
        @rpc.method(waits=True)
        async def get(self, token: str, block: bool, timeout: float) -> str:
            return "what is that"

    strange = Strange()
    strange.may_open.set()
    async with before(strange) as bridge, connected(await bridge.serve_tcp()) as peer:
        assert await peer.refusals(1) == []
        await until(lambda: not bridge.statistics()["subscriptions"])
        await until(lambda: strange.closed == ["1"])
