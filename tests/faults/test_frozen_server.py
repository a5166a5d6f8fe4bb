"""A server that is frozen, as by SIGSTOP, and goes on later."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from berrymq_rpc import rpc
from berrymq_rpc.testing import link_faults

#: Each fault is tried with keys as well.
pytestmark = pytest.mark.keys

Until = Callable[..., Awaitable[None]]

#: Seconds that a busy machine may take longer than is asked for.
SLACK = 2.0


@pytest.mark.keys(quick=True)
async def test_frozen_server(server_process: Any, until: Until) -> None:
    heartbeat = 0.4
    server = server_process("--heartbeat", str(heartbeat))
    limits = rpc.Limits(heartbeat=heartbeat)
    async with await rpc.open_client(connect=server.endpoint, limits=limits) as client:
        call = client.rpc.forever()
        await until(lambda: server.lines == ["started"])
        frozen = server.send(signal.SIGSTOP)
        with pytest.raises(rpc.ConnectionLostError):
            async with asyncio.timeout(5):
                await call
        assert time.monotonic() - frozen < 2 * heartbeat + SLACK
        with pytest.raises(rpc.RPCTimeoutError):
            await client.with_timeout(0.2).rpc.add(1)
        server.send(signal.SIGCONT)
        assert await client.with_timeout(5).rpc.add(1) == 2
        await until(lambda: "cancelled" in server.lines)


async def test_calls_that_timed_out_while_the_server_was_frozen_never_run(
    server_process: Any, until: Until, outcomes: Any
) -> None:
    """Those that it had received before it noticed anything, and those made meanwhile."""
    server = server_process("--heartbeat", "20")
    limits = rpc.Limits(heartbeat=20)
    async with await rpc.open_client(connect=server.endpoint, limits=limits) as client:
        await client.rpc.count()
        server.send(signal.SIGSTOP)
        quick = client.with_timeout(0.2)
        calls = [quick.rpc.count() for _ in range(2000)]
        got = await outcomes(calls, 10)
        assert {type(error) for error in got} == {rpc.RPCTimeoutError}
        server.send(signal.SIGCONT)
        assert await client.rpc.counted() == 1
        for _ in range(20):
            await client.rpc.add(1)
        assert await client.rpc.counted() == 1
        assert client.statistics()["calls_in_flight"] == 0


async def test_our_timeout_is_ours_however_late_we_look(server_process: Any, until: Until) -> None:
    """The server's word that the time is over may be read before this side's own timer rings."""
    server = server_process()
    async with await rpc.open_client(connect=server.endpoint) as client:
        await client.rpc.add(1)
        call = client.with_timeout(0.1).rpc.forever()
        await until(lambda: "started" in server.lines)
        time.sleep(0.4)
        with pytest.raises(rpc.RPCTimeoutError, match="'forever'"):
            await call


async def test_a_handler_that_holds_the_loop_is_no_lost_server(server_process: Any) -> None:
    server = server_process("--heartbeat", "0.2")
    limits = rpc.Limits(heartbeat=0.2)
    async with await rpc.open_client(connect=server.endpoint, limits=limits) as client:
        assert await client.rpc.hold(1.0) is None


@pytest.mark.keys(never=True)
async def test_a_held_loop_is_no_lost_peer_in_memory() -> None:
    """Where both ends share the loop that a handler holds."""
    limits = rpc.Limits(heartbeat=0.1)
    hold = {"hold": rpc.method(lambda seconds: time.sleep(seconds))}
    async with (
        await rpc.start_server(hold, bind="mem://*", limits=limits) as server,
        await rpc.open_client(connect=server.endpoints, limits=limits) as client,
    ):
        for _ in range(5):
            assert await client.rpc.hold(0.3) is None


@pytest.mark.keys(never=True)
async def test_frozen_and_thawed_in_memory(until: Until, outcomes: Any) -> None:
    """Calls that timed out meanwhile do not run, though they were received."""
    endpoint = "mem://frozen"
    faults = link_faults(endpoint)
    ran: list[int] = []
    limits = rpc.Limits(heartbeat=20)
    note = {"note": rpc.method(lambda number: ran.append(number))}
    async with (
        await rpc.start_server(note, bind=endpoint, limits=limits) as server,
        await rpc.open_client(connect=endpoint, limits=limits) as client,
    ):
        await client.rpc.note(0)
        faults.freeze()
        got = await outcomes([client.with_timeout(0.1).rpc.note(1) for _ in range(50)], 5)
        assert {type(error) for error in got} == {rpc.RPCTimeoutError}
        faults.thaw()
        await client.rpc.note(2)
        assert ran == [0, 2]
        assert server.statistics()["expired"] == 50


@pytest.mark.slow
async def test_frozen_server_with_the_settings_by_default(
    server_process: Any, until: Until
) -> None:
    """Pings leave 500 ms apart, and answers have 1.5 s."""
    server = server_process()
    async with await rpc.open_client(connect=server.endpoint) as client:
        call = client.rpc.forever()
        await until(lambda: server.lines == ["started"])
        frozen = server.send(signal.SIGSTOP)
        with pytest.raises(rpc.ConnectionLostError, match="'forever' was accepted, and running"):
            async with asyncio.timeout(10):
                await call
        assert time.monotonic() - frozen < 2.5 + SLACK
        server.send(signal.SIGCONT)
        # Its handler is cancelled as soon as it goes on.
        await until(lambda: server.lines == ["started", "cancelled"])
        assert await client.rpc.add(1) == 2


async def test_a_frozen_server_is_no_connection(server_process: Any, until: Until) -> None:
    """The kernel takes connections in its place: they count when it answers, not before."""
    heartbeat = 0.2
    server = server_process("--heartbeat", str(heartbeat))
    limits = rpc.Limits(heartbeat=heartbeat)
    async with await rpc.open_client(
        connect=server.endpoint, limits=limits, connect_timeout=0.5
    ) as client:
        assert await client.rpc.add(1) == 2
        server.send(signal.SIGSTOP)
        await until(lambda: client.statistics()["peers"] == 0)
        call = client.rpc.count()
        while not call.done():
            assert client.statistics()["peers"] == 0
            await asyncio.sleep(0.01)
        with pytest.raises(rpc.ConnectionLostError, match="no connection within"):
            await call
        server.send(signal.SIGCONT)
        assert await client.with_timeout(5).rpc.counted() == 0


@pytest.mark.parametrize(("timeout", "most"), [(1.0, 1), (None, 301)])
async def test_calls_that_were_lost_while_the_server_was_frozen(
    server_process: Any, outcomes: Any, timeout: float | None, most: int
) -> None:
    """They were sent and may be in the frozen server's hands: only a timeout keeps them from
    running later. None runs twice.
    """
    heartbeat = 0.3
    server = server_process("--heartbeat", str(heartbeat))
    limits = rpc.Limits(heartbeat=heartbeat)
    async with await rpc.open_client(connect=server.endpoint, limits=limits) as client:
        await client.rpc.count()
        server.send(signal.SIGSTOP)
        calls = [client.with_timeout(timeout).rpc.count() for _ in range(300)]
        # The clocks are told apart by the time that a message took.
        over = time.monotonic() + (timeout or 0.0) + 0.1
        got = await outcomes(calls, 10)
        assert {type(error) for error in got} <= {rpc.ConnectionLostError, rpc.RPCTimeoutError}
        await asyncio.sleep(max(0.0, over - time.monotonic()))
        server.send(signal.SIGCONT)
        # It reads what it had received before the new connection is there.
        for _ in range(20):
            assert 1 <= await client.with_timeout(5).rpc.counted() <= most
