"""What a server counts of its peers' calls."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from berrymq_rpc import rpc

Until = Callable[..., Awaitable[None]]


class Handler(rpc.AttrHandler):
    def __init__(self) -> None:
        self.release = threading.Event()
        self.released = asyncio.Event()

    @rpc.method
    def add(self, a: int, b: int) -> int:
        return a + b

    @rpc.method
    async def wait(self) -> None:
        await self.released.wait()

    @rpc.method(waits=True)
    async def get(self) -> None:
        await self.released.wait()

    @rpc.method(thread=True)
    def block(self) -> None:
        self.release.wait(10)

    @rpc.method
    async def ticks(self) -> AsyncIterator[int]:
        yield 1
        await self.released.wait()


async def test_calls_so_far(pair: Any) -> None:
    async with pair(Handler()) as (server, client):
        assert server.statistics()["calls"] == 0
        assert await asyncio.gather(*[client.rpc.add(i, 1) for i in range(200)]) == [
            i + 1 for i in range(200)
        ]
        assert server.statistics()["calls"] == 200
        for i in range(10):
            client.notify.add(i, 1)
        with pytest.raises(rpc.NotFoundError):
            await client.rpc.subtract(1, 2)
        call = client.rpc.wait()
        await client.describe()
        assert server.statistics()["calls"] == 213
        # To cancel a call is not a call.
        call.cancel()
        await client.describe()
        assert server.statistics()["calls"] == 214
        assert client.statistics()["calls"] == 0


async def test_what_waits_for_a_slow_reader_counts_once() -> None:
    answer = bytes(100_000)
    limits = rpc.Limits(max_queued_bytes=200_000)
    async with (
        await rpc.start_server(
            {"get": rpc.method(lambda: answer)}, bind="tcp://127.0.0.1:*", limits=limits
        ) as server,
        await rpc.open_client(connect=server.endpoints) as client,
    ):
        got = await asyncio.gather(*[client.rpc.get() for _ in range(300)])
        assert got == [answer] * 300
        assert server.statistics()["calls"] == 300


async def test_calls_that_run(pair: Any, until: Until) -> None:
    handler = Handler()
    async with pair(handler) as (server, client):
        calls = [client.rpc.wait(), client.rpc.get(), client.rpc.block()]
        stream = client.rpc.ticks()
        assert await anext(stream) == 1
        client.notify.wait()
        await until(lambda: server.statistics()["calls_running"] == 5)
        handler.released.set()
        await until(lambda: server.statistics()["calls_running"] == 1)
        handler.release.set()
        await asyncio.gather(*calls)
        assert server.statistics()["calls_running"] == 0
