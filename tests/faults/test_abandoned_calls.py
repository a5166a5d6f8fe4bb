"""Callers that give up, leave, are killed or frozen: their handlers end."""

import asyncio
import gc
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from berrymq_rpc import rpc

#: Each fault is tried with keys as well.
pytestmark = pytest.mark.keys

Until = Callable[..., Awaitable[None]]

#: Seconds that a busy machine may take longer than is asked for.
SLACK = 2.0


@pytest.mark.parametrize(
    ("number", "heartbeat", "within"),
    [
        (signal.SIGKILL, 2.0, 0.1),
        (signal.SIGINT, 2.0, 0.1),
        (signal.SIGSTOP, 0.4, 0.8),
        pytest.param(signal.SIGSTOP, 2.0, 2.5, marks=pytest.mark.slow),
    ],
)
@pytest.mark.keys(quick=True)
async def test_client_that_leaves(
    until: Until,
    number: signal.Signals,
    heartbeat: float,
    within: float,
    waiting: Any,
    client_process: Any,
) -> None:
    limits = rpc.Limits(heartbeat=heartbeat)
    async with await rpc.start_server(waiting, bind="tcp://127.0.0.1:*", limits=limits) as server:
        with client_process(server.endpoints[0], heartbeat) as process:
            assert await asyncio.to_thread(process.stdout.readline) == "calling\n"
            await until(lambda: waiting.running == 11)
            process.send_signal(number)
            left = time.monotonic()
            await until(lambda: waiting.running == 0)
            assert time.monotonic() - left < within + SLACK
            assert server.statistics()["peers"] == 0
            assert server.statistics()["calls_running"] == 0
            async with await rpc.open_client(connect=server.endpoints) as client:
                assert await client.rpc.add(1) == 2


async def ended(client: rpc.Client, since: float) -> float:
    """Seconds until the server's tables are empty."""
    async with asyncio.timeout(10):
        while (await client.rpc.statistics())["calls_running"]:
            await asyncio.sleep(0.001)
    return time.monotonic() - since


@pytest.mark.keys(quick=True)
async def test_cancelled(server_process: Any, until: Until) -> None:
    """Whether the call or the task that awaits it is cancelled."""
    server = server_process()

    async def wait(call: Any) -> None:
        await call

    async with await rpc.open_client(connect=server.endpoint) as client:
        calls = [client.rpc.forever(), client.rpc.wait()]
        waiting = asyncio.create_task(wait(client.rpc.forever()))
        await until(lambda: len(server.lines) == 3)
        since = time.monotonic()
        for call in [*calls, waiting]:
            call.cancel()
        await until(lambda: server.lines.count("cancelled") == 3)
        assert time.monotonic() - since < 0.1 + SLACK
        assert await ended(client, since) < 0.1 + SLACK
        assert client.statistics()["calls_in_flight"] == 0


@pytest.mark.keys(quick=True)
async def test_timed_out(server_process: Any, until: Until, outcomes: Any) -> None:
    """The server stops the handlers at the deadline that came with the calls."""
    server = server_process()
    async with await rpc.open_client(connect=server.endpoint) as client:
        assert await client.rpc.add(1) == 2
        quick = client.with_timeout(0.3)
        since = time.monotonic() + 0.3
        got = await outcomes([quick.rpc.forever() for _ in range(100)], 10)
        assert {type(error) for error in got} == {rpc.RPCTimeoutError}
        await until(lambda: server.lines.count("cancelled") == 100)
        assert time.monotonic() - since < 0.1 + SLACK
        assert await ended(client, since) < 0.1 + SLACK
        assert client.statistics()["calls_in_flight"] == 0


async def test_a_stream_that_is_not_read_on(server_process: Any, until: Until) -> None:
    server = server_process()
    async with await rpc.open_client(connect=server.endpoint) as client:
        items = client.rpc.ticks()
        assert await anext(items) == 0
        await items.aclose()
        await until(lambda: server.lines == ["started", "cancelled"])
        async for number in client.rpc.ticks():
            if number == 3:
                break
        # It was never closed, and nothing refers to it any more.
        gc.collect()
        await until(lambda: server.lines == ["started", "cancelled"] * 2)
        assert await ended(client, time.monotonic()) < SLACK


@pytest.mark.nodebug
async def test_many_given_up_at_once(server_process: Any, until: Until) -> None:
    """Sent or not, begun or not: none is left at either end."""
    server = server_process()
    async with await rpc.open_client(connect=server.endpoint) as client:
        calls = [client.rpc.forever() for _ in range(5_000)]
        await until(lambda: server.lines.count("started") == 500)
        since = time.monotonic()
        for call in calls:
            call.cancel()
        await until(lambda: server.lines.count("cancelled") >= 500)
        assert await ended(client, since) < 1 + SLACK
        assert client.statistics()["calls_in_flight"] == 0
        assert await client.rpc.add(1) == 2
        assert server.lines.count("started") == server.lines.count("cancelled")


async def test_a_link_that_is_cut(server_process: Any, link: Any, until: Until) -> None:
    """The server finds out by itself, and ends what it ran."""
    heartbeat = 0.4
    server = server_process("--heartbeat", str(heartbeat))
    limits = rpc.Limits(heartbeat=heartbeat)
    async with (
        link(server.endpoint) as line,
        await rpc.open_client(connect=line.endpoint, limits=limits) as client,
        await rpc.open_client(connect=server.endpoint, limits=limits) as other,
    ):
        client.rpc.forever().add_done_callback(lambda call: call.exception())
        await until(lambda: server.lines == ["started"])
        line.cut()
        since = time.monotonic()
        await until(lambda: server.lines == ["started", "cancelled"])
        assert time.monotonic() - since < 2 * heartbeat + SLACK
        assert (await other.rpc.statistics())["calls_running"] == 0


FROZEN = """
import asyncio, sys
from berrymq_rpc import rpc

async def main():
    limits = rpc.Limits(heartbeat=0.4)
    async with await rpc.open_client(connect=sys.argv[1], limits=limits) as client:
        call = client.rpc.forever()
        await client.rpc.add(1)
        print(sys.argv[1], flush=True)
        try:
            await call
        except rpc.ConnectionLostError:
            print(await client.rpc.add(1), flush=True)

asyncio.run(main())
"""


async def test_a_frozen_client_that_goes_on(
    server_process: Any, program: Any, until: Until, tmp_path: Path
) -> None:
    """Its calls were ended meanwhile: it learns that, and works on."""
    server = server_process("--heartbeat", "0.4")
    (tmp_path / "frozen.py").write_text(FROZEN)
    client = program(tmp_path / "frozen.py", server.endpoint)
    await until(lambda: server.lines == ["started"])
    client.send(signal.SIGSTOP)
    await until(lambda: server.lines == ["started", "cancelled"])
    client.send(signal.SIGCONT)
    await until(lambda: client.lines == ["2"])
    assert await asyncio.to_thread(client.wait) == 0
