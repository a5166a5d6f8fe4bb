"""Many clients at once, and many one after another: nothing is left of those that have gone."""

import asyncio
import contextlib
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from berrymq_rpc import rpc

#: Each fault is tried with keys as well.
pytestmark = pytest.mark.keys

Until = Callable[..., Awaitable[None]]

ROOT = Path(__file__).parents[2]

#: Files that a test of so many clients opens; where they are counted.
MANY_FILES = 8_000
FILES = Path("/proc/self/fd")

#: KiB of a ROUTER for each peer, without keys and where pyzmq's own thread checks them; and what a
#: connection may take beside that.
ROUTER, ROUTER_WITH_KEYS = 27, 39
CONNECTION = 8


def files() -> int:
    return len(list(FILES.iterdir()))


@pytest.fixture
def many_files() -> None:
    if not FILES.exists() or resource.getrlimit(resource.RLIMIT_NOFILE)[0] < MANY_FILES:
        pytest.skip("too few files may be open here, or they cannot be counted")


async def settled(observer: rpc.Client, peers: int, open_files: int) -> dict[str, int]:
    """The figures of the server once it has so few peers and files."""
    async with asyncio.timeout(20):
        while True:
            now = await observer.rpc.statistics()
            if now["peers"] <= peers and now["files"] <= open_files:
                return now  # type: ignore[no-any-return]
            await asyncio.sleep(0.02)


@pytest.mark.slow
@pytest.mark.nodebug
@pytest.mark.usefixtures("many_files")
async def test_1_100_clients_of_one_process(server_process: Any, until: Until, keys: bool) -> None:
    """More than the 1,024 sockets that ZeroMQ opens by default, ten calls each."""
    server = server_process()
    count = 1_100
    async with await rpc.open_client(connect=server.endpoint) as observer:
        await observer.rpc.collect()
        before = await observer.rpc.statistics()
        here = files()
        clients = [await rpc.open_client(connect=server.endpoint) for _ in range(count)]
        calls = [client.rpc.add(number) for client in clients for number in range(10)]
        assert await asyncio.gather(*calls) == list(range(1, 11)) * count
        during = await observer.rpc.statistics()
        assert during["peers"] == count + 1
        each = (during["memory"] - before["memory"]) / count / 1024
        # Ten answers at once are more than an idle client: see benchmarks/memory.py.
        assert each < (ROUTER_WITH_KEYS if keys else ROUTER) + 2 * CONNECTION
        for client in clients:
            client.close()
        for client in clients:
            await client.wait_closed()
        after = await settled(observer, 1, before["files"])
        assert after["tasks"] == before["tasks"]
        await until(lambda: files() <= here)


@pytest.mark.slow
@pytest.mark.nodebug
async def test_2_000_connects_and_closes(server_process: Any) -> None:
    server = server_process()

    async def connect(times: int) -> None:
        for _ in range(times):
            async with await rpc.open_client(connect=server.endpoint) as client:
                assert await client.rpc.add(1) == 2

    async def connect_many(times: int) -> None:
        await asyncio.gather(*[connect(times // 20) for _ in range(20)])

    async with await rpc.open_client(connect=server.endpoint) as observer:
        # The first ones take what is then kept for all: buffers, threads, free lists.
        await connect_many(400)
        await observer.rpc.collect()
        open_files = (await observer.rpc.statistics())["files"]
        before = await settled(observer, 1, open_files)
        await connect_many(2_000)
        await settled(observer, 1, before["files"])
        await observer.rpc.collect()
        after = await observer.rpc.statistics()
        assert after["memory"] - before["memory"] < 1 << 20
        assert after["tasks"] == before["tasks"]


CLIENTS = """
    import asyncio, sys
    from berrymq_rpc import rpc

    async def main():
        clients = [await rpc.open_client(connect=sys.argv[1]) for _ in range(int(sys.argv[2]))]
        for client in clients:
            assert await client.rpc.add(1) == 2
        calls = [client.rpc.forever() for client in clients]
        print("calling", flush=True)
        await asyncio.gather(*calls)

    asyncio.run(main())
"""


@pytest.mark.usefixtures("many_files")
async def test_200_killed_clients(server_process: Any, until: Until) -> None:
    server = server_process()
    count = 200
    command = [sys.executable, "-c", textwrap.dedent(CLIENTS), server.endpoint, str(count)]
    async with await rpc.open_client(connect=server.endpoint) as observer:
        before = await observer.rpc.statistics()
        with (
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as clients,
            contextlib.ExitStack() as stack,
        ):
            stack.callback(clients.kill)
            assert clients.stdout is not None
            assert await asyncio.to_thread(clients.stdout.readline) == "calling\n"
            await until(lambda: server.lines.count("started") == count)
            clients.send_signal(signal.SIGKILL)
        left = time.monotonic()
        await until(lambda: server.lines.count("cancelled") == count)
        after = await settled(observer, 1, before["files"])
        assert time.monotonic() - left < 3
        assert after["calls_running"] == 0
        assert after["tasks"] == before["tasks"]
