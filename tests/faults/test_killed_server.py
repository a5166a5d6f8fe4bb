"""A server that is killed: what was in flight fails at once, and says how far it came."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from berrymq_rpc import rpc

#: Each fault is tried with keys as well.
pytestmark = pytest.mark.keys

Until = Callable[..., Awaitable[None]]

#: Seconds that a busy machine may take longer than is asked for.
SLACK = 2.0


@pytest.mark.parametrize("scheme", ["tcp", "ipc"])
@pytest.mark.keys(quick=True)
async def test_killed_server(
    server_process: Any, until: Until, scheme: str, tmp_path: Path, outcomes: Any
) -> None:
    bind = "tcp://127.0.0.1:*" if scheme == "tcp" else f"ipc:///tmp/berrymq-{os.getpid()}"
    server = server_process("--bind", bind)
    async with await rpc.open_client(connect=server.endpoint) as client:
        accepted = [client.rpc.forever() for _ in range(10)]
        await until(lambda: len(server.lines) == 10)
        waiting = [client.rpc.wait() for _ in range(10)]
        await until(lambda: len(server.lines) == 20)
        ended: list[float] = []
        for call in accepted + waiting:
            call.add_done_callback(lambda _: ended.append(time.monotonic()))
        killed = server.send(signal.SIGKILL)
        got = await outcomes(accepted + waiting, 5)
        assert {type(error) for error in got} == {rpc.ConnectionLostError}
        assert isinstance(got[0], ConnectionError)
        assert max(ended) - killed < 0.1 + SLACK
        assert "'forever' was accepted, and running for " in str(got[0])
        assert client.statistics()["calls_in_flight"] == 0
    if scheme == "ipc":
        Path(bind.removeprefix("ipc://")).unlink(missing_ok=True)


async def test_progress_in_the_text(server_process: Any, until: Until, outcomes: Any) -> None:
    """It says of each call how far it came."""
    server = server_process()
    async with await rpc.open_client(
        connect=server.endpoint, limits=rpc.Limits(window=3)
    ) as client:
        assert await client.rpc.add(1) == 2
        accepted = client.rpc.forever()
        await until(lambda: server.lines == ["started"])
        while accepted.accepted_at is None:
            await asyncio.sleep(0.001)
        held = client.rpc.hold(30)
        await until(lambda: server.lines == ["started", "started"])
        sent = client.rpc.add(1)
        unsent = [client.rpc.forever() for _ in range(600)]
        await asyncio.sleep(0.05)
        server.send(signal.SIGKILL)
        errors = await outcomes([accepted, held, sent, *unsent], 5)
        texts = list(map(str, errors))
        assert [error.sent for error in errors[:3]] == [True] * 3
        assert (errors[-1].sent, errors[-1].method) == (False, "forever")
        assert {error.endpoint for error in errors} == {server.endpoint}
        assert all(0.05 < error.elapsed < 5 for error in errors)
        assert "'forever' was accepted, and running for" in texts[0]
        assert "'hold' was sent" in texts[1]
        assert "'add' was sent" in texts[2]
        assert "'forever' was not sent" in texts[-1]


async def test_killed_server_in_a_stream(server_process: Any) -> None:
    server = server_process()
    async with await rpc.open_client(connect=server.endpoint) as client:
        got = 0
        with pytest.raises(rpc.ConnectionLostError):
            async with asyncio.timeout(5):
                async for _ in client.rpc.ticks():
                    got += 1
                    if got == 100:
                        server.send(signal.SIGKILL)
        assert got >= 100


async def test_killed_server_in_calls_back(server_process: Any) -> None:
    """A handler of the client's that serves the server is cancelled."""
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def forever() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    server = server_process()
    mine = {"forever": rpc.method(forever)}
    async with await rpc.open_client(connect=server.endpoint, handler=mine) as client:
        call = client.rpc.ask_back()
        await started.wait()
        server.send(signal.SIGKILL)
        with pytest.raises(rpc.ConnectionLostError):
            await call
        async with asyncio.timeout(SLACK):
            await cancelled.wait()


@pytest.mark.keys(quick=True)
def test_killed_server_of_a_client_without_asyncio(server_process: Any) -> None:
    server = server_process()
    with rpc.SyncClient(connect=server.endpoint, connect_timeout=0.2) as client:
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(client.rpc.forever)
            while server.lines != ["started"]:
                time.sleep(0.001)
            # Answered after the word that the other call was accepted, on the same connection.
            assert client.rpc.add(1) == 2
            killed = server.send(signal.SIGKILL)
            with pytest.raises(rpc.ConnectionLostError, match="'forever' was accepted"):
                call.result(5)
            assert time.monotonic() - killed < 0.1 + SLACK
        with pytest.raises(rpc.ConnectionLostError, match="is the server running"):
            client.rpc.add(1)
