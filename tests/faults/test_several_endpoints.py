"""Several servers, of which one fails: its calls fail, and no others."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from berrymq_rpc import rpc

# Each of these needs servers of its own, and most of them seconds.
pytestmark = pytest.mark.slow

Until = Callable[..., Awaitable[None]]

#: Seconds that a busy machine may take longer than is asked for.
SLACK = 2.0


async def test_one_of_two_servers_is_killed(server_process: Any, until: Until) -> None:
    first, second = server_process(), server_process()
    endpoints = [first.endpoint, second.endpoint]
    async with await rpc.open_client(connect=endpoints) as client:
        await until(lambda: client.statistics()["peers"] == 2)
        calls = [client.rpc.forever() for _ in range(20)]
        await until(lambda: len(first.lines) == len(second.lines) == 10)
        first.send(signal.SIGKILL)
        await until(lambda: sum(call.done() for call in calls) == 10)
        assert await asyncio.gather(*[client.rpc.add(number) for number in range(100)])
        assert sum(call.done() for call in calls) == 10
        for call in calls:
            call.cancel()
        await until(lambda: second.lines.count("cancelled") == 10)


async def test_a_killed_one_of_three_under_load(server_process: Any, until: Until) -> None:
    """Every call has an outcome; those after the loss all succeed; it is used when it is back."""
    servers = [server_process() for _ in range(3)]
    endpoints = [server.endpoint for server in servers]
    async with await rpc.open_client(connect=endpoints) as client:
        await until(lambda: client.statistics()["peers"] == 3)
        lost, answered = 0, 0

        async def work(count: int) -> None:
            nonlocal lost, answered
            for number in range(count):
                try:
                    async with asyncio.timeout(10):
                        assert await client.rpc.add(number) == number + 1
                    answered += 1
                except rpc.ConnectionLostError:
                    lost += 1

        working = [asyncio.create_task(work(100)) for _ in range(30)]
        await until(lambda: answered > 500)
        servers[0].send(signal.SIGKILL)
        await asyncio.gather(*working)
        assert lost + answered == 3000
        # What the killed one had at that moment, and no more.
        assert lost <= 30
        assert client.statistics()["calls_in_flight"] == 0
        again = server_process("--bind", endpoints[0])
        await until(lambda: client.statistics()["peers"] == 3)
        calls = [client.rpc.forever() for _ in range(30)]
        await until(lambda: again.lines == ["started"] * 10)
        for call in calls:
            call.cancel()
        await until(lambda: again.lines.count("cancelled") == 10)


async def test_a_frozen_one_of_two(server_process: Any, until: Until) -> None:
    """It gets calls until its loss can be noticed; they fail then, and others go on."""
    heartbeat = 0.4
    servers = [server_process("--heartbeat", str(heartbeat)) for _ in range(2)]
    limits = rpc.Limits(heartbeat=heartbeat)
    endpoints = [server.endpoint for server in servers]
    async with await rpc.open_client(connect=endpoints, limits=limits) as client:
        await until(lambda: client.statistics()["peers"] == 2)
        calls = [client.rpc.forever() for _ in range(10)]
        await until(lambda: sum(len(server.lines) for server in servers) == 10)
        frozen = servers[0].send(signal.SIGSTOP)
        await until(lambda: sum(call.done() for call in calls) == 5)
        assert time.monotonic() - frozen < 2 * heartbeat + SLACK
        assert client.statistics()["peers"] == 1
        assert await asyncio.gather(*[client.rpc.add(number) for number in range(100)])
        servers[0].send(signal.SIGCONT)
        await until(lambda: client.statistics()["peers"] == 2)
        await until(lambda: "cancelled" in servers[0].lines)
        assert sum(call.done() for call in calls) == 5
        for call in calls:
            call.cancel()


async def test_calls_wait_for_the_first_that_is_back(
    server_process: Any, until: Until, unused_tcp: Any
) -> None:
    servers = [server_process() for _ in range(2)]
    endpoints = [server.endpoint for server in servers]
    async with await rpc.open_client(connect=endpoints, connect_timeout=20) as client:
        await until(lambda: client.statistics()["peers"] == 2)
        for server in servers:
            server.send(signal.SIGKILL)
            server.wait()
        await until(lambda: client.statistics()["peers"] == 0)
        call = client.rpc.add(1)
        server_process("--bind", endpoints[1])
        assert await call == 2
