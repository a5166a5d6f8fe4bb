"""A network that is cut, loses, delays: with a proxy, and over memory."""

import asyncio
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


HEARTBEAT = 0.4
LIMITS = rpc.Limits(heartbeat=HEARTBEAT)


@pytest.mark.keys(quick=True)
async def test_a_link_that_falls_silent(server_process: Any, link: Any, until: Until) -> None:
    """No end is notified: it is noticed within twice the heartbeat, and used again afterwards."""
    server = server_process("--heartbeat", str(HEARTBEAT))
    async with (
        link(server.endpoint) as line,
        await rpc.open_client(connect=line.endpoint, limits=LIMITS) as client,
    ):
        call = client.rpc.forever()
        await until(lambda: server.lines == ["started"])
        while call.accepted_at is None:
            await asyncio.sleep(0.001)
        line.cut()
        since = time.monotonic()
        with pytest.raises(rpc.ConnectionLostError, match="'forever' was accepted, and running"):
            async with asyncio.timeout(10):
                await call
        assert time.monotonic() - since < 2 * HEARTBEAT + SLACK
        waiting = client.rpc.count()
        await until(lambda: server.lines == ["started", "cancelled"])
        assert not waiting.done()
        line.restore()
        async with asyncio.timeout(10):
            await waiting
        assert await client.rpc.counted() == 1


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_link_that_is_silent_one_way(
    server_process: Any, link: Any, until: Until, direction: str
) -> None:
    server = server_process("--heartbeat", str(HEARTBEAT))
    async with (
        link(server.endpoint) as line,
        await rpc.open_client(connect=line.endpoint, limits=LIMITS) as client,
    ):
        call = client.rpc.forever()
        await until(lambda: server.lines == ["started"])
        line.silent = {direction}
        since = time.monotonic()
        with pytest.raises(rpc.ConnectionLostError):
            async with asyncio.timeout(10):
                await call
        # The other end closes the connection where it is the one that hears nothing.
        assert time.monotonic() - since < 2 * HEARTBEAT + SLACK
        await until(lambda: server.lines == ["started", "cancelled"])
        line.restore()
        assert await client.with_timeout(10).rpc.add(1) == 2


async def test_calls_that_timed_out_in_a_silent_link_never_run(
    server_process: Any, link: Any, outcomes: Any
) -> None:
    server = server_process("--heartbeat", str(HEARTBEAT))
    async with (
        link(server.endpoint) as line,
        await rpc.open_client(connect=line.endpoint, limits=LIMITS) as client,
    ):
        await client.rpc.count()
        line.cut()
        quick = client.with_timeout(0.1)
        for _ in range(5):
            got = await outcomes([quick.rpc.count() for _ in range(100)], 10)
            assert {type(error) for error in got} <= {rpc.RPCTimeoutError, rpc.ConnectionLostError}
        line.restore()
        assert await client.with_timeout(10).rpc.counted() == 1


async def test_a_link_that_is_closed(server_process: Any, link: Any, until: Until) -> None:
    """As by a router that forgot it: noticed at once, and connected anew."""
    server = server_process()
    async with (
        link(server.endpoint) as line,
        await rpc.open_client(connect=line.endpoint) as client,
    ):
        for round_number in range(1, 6):
            call = client.rpc.forever()
            await until(lambda count=round_number: server.lines.count("started") == count)
            line.close()
            since = time.monotonic()
            with pytest.raises(rpc.ConnectionLostError):
                await call
            assert time.monotonic() - since < 0.1 + SLACK
            await until(lambda count=round_number: server.lines.count("cancelled") == count)
            assert time.monotonic() - since < 0.1 + SLACK
            assert await client.with_timeout(5).rpc.add(1) == 2
        assert line.connections == 1


async def test_a_link_that_is_closed_in_the_middle_of_a_message(
    server_process: Any, link: Any
) -> None:
    """Half a message is none: it is not run, and harms nothing that comes after."""
    server = server_process()
    async with (
        link(server.endpoint) as line,
        await rpc.open_client(connect=line.endpoint) as client,
    ):
        assert await client.rpc.add(1) == 2
        for size in (1, 10, 100, 10_000, 1_000_000):
            line.close_after = size
            with pytest.raises(rpc.ConnectionLostError, match="'echo' was sent"):
                async with asyncio.timeout(10):
                    await client.rpc.echo(bytes(2_000_000))
            assert await client.with_timeout(5).rpc.add(1) == 2
        value = bytes(2_000_000)
        assert await client.with_timeout(10).rpc.echo(value) == value


@pytest.mark.keys(alone=True, quick=True)
@pytest.mark.parametrize("size", [1, 64, 65, 150, 264, 400])
async def test_a_handshake_that_is_cut_is_no_refusal(
    server_process: Any, link: Any, size: int
) -> None:
    """It looks as if the server had closed it; the next one shows that it has not."""
    server = server_process()
    async with link(server.endpoint) as line:
        line.close_after = size
        async with await rpc.open_client(connect=line.endpoint, timeout=10) as client:
            assert await client.rpc.add(1) == 2
            assert line.close_after is None


@pytest.mark.nodebug
async def test_a_slow_link(server_process: Any, link: Any, outcomes: Any) -> None:
    """It is no lost one, and a hundred calls take no longer than one."""
    server = server_process("--heartbeat", str(HEARTBEAT))
    async with (
        link(server.endpoint) as line,
        await rpc.open_client(connect=line.endpoint, limits=LIMITS) as client,
    ):
        assert await client.rpc.add(1) == 2
        line.delay = 0.1
        began = time.monotonic()
        calls = [client.rpc.add(number) for number in range(100)]
        assert await outcomes(calls, 10) == list(range(1, 101))
        assert 0.2 <= time.monotonic() - began < 0.2 + SLACK
        await asyncio.sleep(3 * HEARTBEAT)
        assert line.connections == 1
        assert client.statistics()["peers"] == 1


async def test_calls_that_are_too_old_when_they_arrive_do_not_run(
    server_process: Any, link: Any, outcomes: Any
) -> None:
    """By the sender's clock, of which the server has learnt before the link became slow."""
    server = server_process()
    async with (
        link(server.endpoint) as line,
        await rpc.open_client(connect=line.endpoint) as client,
    ):
        await client.rpc.count()
        line.delay = 0.4
        got = await outcomes([client.with_timeout(0.1).rpc.count() for _ in range(50)], 10)
        assert {type(error) for error in got} == {rpc.RPCTimeoutError}
        assert await client.rpc.counted() == 1
        assert (await client.rpc.statistics())["expired"] == 50


async def test_one_link_of_two_is_cut(server_process: Any, link: Any, until: Until) -> None:
    """The calls on it fail, those of the other server go on, and new ones go there."""
    servers = [server_process("--heartbeat", str(HEARTBEAT)) for _ in range(2)]
    async with (
        link(servers[0].endpoint) as line,
        await rpc.open_client(
            connect=[line.endpoint, servers[1].endpoint], limits=LIMITS
        ) as client,
    ):
        await until(lambda: client.statistics()["peers"] == 2)
        calls = [client.rpc.forever() for _ in range(10)]
        await until(lambda: [len(server.lines) for server in servers] == [5, 5])
        line.cut()
        await until(lambda: sum(call.done() for call in calls) == 5)
        assert {await client.rpc.process() for _ in range(20)} == {servers[1].process.pid}
        assert sum(call.done() for call in calls) == 5
        line.restore()
        await until(lambda: client.statistics()["peers"] == 2)
        for call in calls:
            call.cancel()


async def test_a_link_that_refuses(server_process: Any, link: Any, until: Until) -> None:
    """Attempts go on, at a bounded rate, until it is open again."""
    server = server_process()
    async with (
        link(server.endpoint) as line,
        await rpc.open_client(connect=line.endpoint, connect_timeout=20) as client,
    ):
        assert await client.rpc.add(1) == 2
        line.refuse()
        await until(lambda: client.statistics()["peers"] == 0)
        call = client.rpc.add(1)
        await asyncio.sleep(1.0)
        assert not call.done()
        assert line.refused < 30
        line.restore()
        async with asyncio.timeout(1 + SLACK):
            assert await call == 2


# -- over memory -------------------------------------------------------------------------------


@pytest.mark.keys(never=True)
async def test_cut_connection_in_memory(until: Until, waiting: Any) -> None:
    endpoint = "mem://cut"
    faults = link_faults(endpoint)
    async with (
        await rpc.start_server(waiting, bind=endpoint) as server,
        await rpc.open_client(connect=endpoint) as client,
    ):
        call = client.rpc.forever()
        await until(lambda: waiting.running)
        faults.cut()
        with pytest.raises(rpc.ConnectionLostError, match="'forever' was accepted"):
            await call
        await until(lambda: not waiting.running)
        assert await client.with_timeout(5).rpc.add(1) == 2
        assert server.statistics()["peers"] == 1


@pytest.mark.keys(never=True)
async def test_silent_network_in_memory(until: Until, waiting: Any) -> None:
    """No end is notified, so both sides ping."""
    endpoint = "mem://silence"
    faults = link_faults(endpoint)
    limits = rpc.Limits(heartbeat=0.2)
    async with (
        await rpc.start_server(waiting, bind=endpoint, limits=limits) as server,
        await rpc.open_client(connect=endpoint, limits=limits) as client,
    ):
        call = client.rpc.forever()
        await until(lambda: waiting.running)
        faults.silence()
        began = time.monotonic()
        with pytest.raises(rpc.ConnectionLostError, match="silent"):
            await call
        assert time.monotonic() - began < 2 * 0.2 + SLACK
        await until(lambda: not waiting.running)
        assert server.statistics()["peers"] == 0
        faults.restore()
        assert await client.with_timeout(5).rpc.add(1) == 2


async def test_idle_connection_stays(until: Until, waiting: Any) -> None:
    limits = rpc.Limits(heartbeat=0.05)
    for endpoint in ("mem://*", "tcp://127.0.0.1:*"):
        async with (
            await rpc.start_server(waiting, bind=endpoint, limits=limits) as server,
            await rpc.open_client(connect=server.endpoints, limits=limits) as client,
        ):
            call = client.rpc.forever()
            await asyncio.sleep(0.5)
            assert not call.done()
            assert server.statistics()["peers"] == 1
            assert await client.rpc.add(1) == 2
            call.cancel()
