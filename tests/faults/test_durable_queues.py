"""Durable queues while consumers and the NATS server are killed: what was told as sent arrives."""

import asyncio
import itertools
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from berrymq_rpc.bus import AsyncQueue, Bus
from berrymq_rpc.exchange import Node
from berrymq_rpc.testing.nats_server import NatsServer

pytest.importorskip("nats", reason="NATS needs nats-py")

ROOT = Path(__file__).resolve().parents[2]

CONSUMER = textwrap.dedent(
    """
    import asyncio
    import sys

    from berrymq_rpc import AsyncQueue, Bus, Node

    async def main(url, path):
        bus = Bus()
        with open(path, "ab", buffering=0) as file:
            async with Node(None, bus, cluster=url):
                queue = AsyncQueue("job:*", durable="workers", ack_wait=3.0, bus=bus)
                await queue.ready()
                while True:
                    async with queue.get() as message:
                        file.write(b"%d\\n" % message.args[0])

    asyncio.run(main(*sys.argv[1:]))
    """
)

#: Messages that are on their way at a time.
SENDERS = 200


@contextmanager
def consumer(server: NatsServer, path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that writes the number of each message into a file, then acknowledges it."""
    command = [sys.executable, "-c", CONSUMER, server.url, str(path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.nodebug
@pytest.mark.timeout(400)
@pytest.mark.parametrize("count", [5_000, pytest.param(100_000, marks=pytest.mark.slow)])
async def test_every_number_that_was_told_as_sent_arrives(
    start_nats: Callable[..., NatsServer], tmp_path: Path, count: int
) -> None:
    server = start_nats(jetstream=True)
    files = (tmp_path / f"taken{number}" for number in itertools.count())
    told: set[int] = set()

    def taken() -> set[int]:
        """The numbers in the files; the last line of a killed process may be cut off."""
        lines = [
            line
            for path in tmp_path.glob("taken*")
            for line in path.read_bytes().splitlines(keepends=True)
        ]
        return {int(line) for line in lines if line.endswith(b"\n")}

    bus = Bus()
    with ExitStack() as processes:
        async with Node(None, bus, cluster=server.url):
            queue = AsyncQueue("job:*", durable="workers", ack_wait=3.0, bus=bus)
            await queue.ready()
            alive = [processes.enter_context(consumer(server, next(files))) for _ in range(2)]
            numbers = iter(range(count))

            async def send() -> None:
                for number in numbers:
                    await bus.publish(f"job:{number % 3}", number, durable=True)
                    told.add(number)

            async def fault() -> None:
                for part in range(1, 5):
                    while len(told) < part * count // 5:
                        await asyncio.sleep(0.01)
                    # Of the consumers, one or the other; of the server, in the middle.
                    alive[part % 2].kill()
                    alive[part % 2] = processes.enter_context(consumer(server, next(files)))
                    if part == 2:
                        await asyncio.to_thread(server.kill)
                        await asyncio.to_thread(server.start)

            await asyncio.gather(fault(), *(send() for _ in range(SENDERS)))
            assert told == set(range(count))
            async with asyncio.timeout(60.0):
                while await queue.size():
                    await asyncio.sleep(0.1)
            assert taken() >= told
