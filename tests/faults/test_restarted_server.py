"""A server that is down, and starts again at the same port."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from berrymq_rpc import rpc

#: Each fault is tried with keys as well.
pytestmark = pytest.mark.keys

Until = Callable[..., Awaitable[None]]

#: Seconds that a busy machine may take longer than is asked for.
SLACK = 2.0


@pytest.mark.keys(quick=True)
async def test_killed_server_comes_back(server_process: Any, until: Until, unused_tcp: Any) -> None:
    endpoint = unused_tcp()
    async with await rpc.open_client(connect=endpoint, timeout=10) as client:
        processes = []
        for _ in range(3):
            server = server_process("--bind", endpoint)
            ready = time.monotonic()
            processes.append(await client.rpc.process())
            assert time.monotonic() - ready < 1.0 + SLACK
            call = client.rpc.forever()
            await until(lambda server=server: "started" in server.lines)
            server.send(signal.SIGKILL)
            with pytest.raises(rpc.ConnectionLostError):
                await call
            server.wait()
            await until(lambda: client.statistics()["peers"] == 0)
            # Between two servers calls wait for the next.
            waiting = client.rpc.add(1)
            assert not waiting.done()
            waiting.cancel()
        assert len(set(processes)) == 3


async def test_calls_that_timed_out_without_a_server_never_run(
    server_process: Any, until: Until, outcomes: Any, unused_tcp: Any
) -> None:
    endpoint = unused_tcp()
    server = server_process("--bind", endpoint)
    async with await rpc.open_client(connect=endpoint, connect_timeout=60) as client:
        await client.rpc.count()
        server.send(signal.SIGKILL)
        server.wait()
        await until(lambda: client.statistics()["peers"] == 0)
        quick = client.with_timeout(0.2)
        got = await outcomes([quick.rpc.count() for _ in range(5000)], 10)
        assert {type(error) for error in got} == {rpc.RPCTimeoutError}
        server_process("--bind", endpoint)
        assert await client.with_timeout(10).rpc.counted() == 0
        assert client.statistics()["calls_in_flight"] == 0


async def test_calls_made_while_the_server_is_down_run_once_when_it_is_back(
    server_process: Any, until: Until, outcomes: Any, unused_tcp: Any
) -> None:
    endpoint = unused_tcp()
    server = server_process("--bind", endpoint)
    async with await rpc.open_client(connect=endpoint, connect_timeout=20) as client:
        await client.rpc.count()
        server.send(signal.SIGKILL)
        server.wait()
        await until(lambda: client.statistics()["peers"] == 0)
        calls = [client.rpc.count() for _ in range(1000)]
        client.notify.count()
        server_process("--bind", endpoint)
        assert await outcomes(calls, 20) == [None] * 1000
        assert await client.rpc.counted() == 1001


async def test_no_call_runs_twice_over_many_restarts(
    server_process: Any, until: Until, outcomes: Any, unused_tcp: Any
) -> None:
    """What failed may have run; it is not tried again by itself."""
    endpoint = unused_tcp()
    async with await rpc.open_client(connect=endpoint, connect_timeout=20) as client:
        for _ in range(3):
            server = server_process("--bind", endpoint)
            assert await client.rpc.counted() == 0
            calls = [client.rpc.count() for _ in range(200)]
            await asyncio.sleep(0)
            got = await outcomes(calls, 10)
            assert await client.rpc.counted() == sum(value is None for value in got) == 200
            held = client.rpc.hold(30)
            await until(lambda server=server: "started" in server.lines)
            behind = [client.rpc.count() for _ in range(200)]
            await asyncio.sleep(0.02)
            server.send(signal.SIGKILL)
            got = await outcomes([held, *behind], 10)
            assert {type(error) for error in got} == {rpc.ConnectionLostError}
            server.wait()
            await until(lambda: client.statistics()["peers"] == 0)


@pytest.mark.keys(never=True)
async def test_a_server_that_is_not_there_is_told(unused_tcp: Any) -> None:
    async with await rpc.open_client(connect=unused_tcp(), connect_timeout=0.2) as client:
        began = time.monotonic()
        with pytest.raises(
            rpc.ConnectionLostError,
            match=r"tcp://.*: no connection within .* \(is the server running",
        ):
            await client.rpc.add(1)
        assert 0.2 <= time.monotonic() - began < 0.2 + SLACK


@pytest.mark.keys(never=True)
async def test_a_time_that_is_over_before_there_is_a_connection(unused_tcp: Any) -> None:
    async with await rpc.open_client(connect=unused_tcp(), timeout=0.1) as client:
        with pytest.raises(
            rpc.RPCTimeoutError, match=r"tcp://.*: .* as there is no connection: .* was not sent"
        ):
            await client.rpc.add(1)


@pytest.mark.keys(never=True)
async def test_notifications_that_never_left_are_counted(unused_tcp: Any, until: Until) -> None:
    """Nobody waits for an answer to one, so this is all that can be told."""
    async with await rpc.open_client(connect=unused_tcp(), connect_timeout=0.1) as client:
        for number in range(20):
            client.notify.log(number)
        await until(lambda: client.statistics()["notifications_lost"] == 20)
