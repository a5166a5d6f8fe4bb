"""The main job: what one process sends reaches the followers in another."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from berrymq_rpc import Bus, Message, Node

ROOT = Path(__file__).resolve().parents[2]

OTHER = """
import asyncio, sys
from berrymq_rpc import Bus, Node

async def main():
    bus = Bus()
    async with Node("tcp://127.0.0.1:0", bus) as node:
        bus.regist_function("question:*", lambda m: bus.twitter("answer:" + m.action, *m.args))
        print(node.endpoints[0], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

asyncio.run(main())
"""

CONSUMER = """
import asyncio, sys
from berrymq_rpc import Bus, Node

async def main():
    async with Node(None, Bus()) as node:
        queue = await node.connect_via_queue("job:*", sys.argv[1], 60)
        print("ready", flush=True)
        while True:
            print((await queue.get()).args[0], flush=True)

asyncio.run(main())
"""


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python that runs, and that is killed if it still does at the end."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


async def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return (await asyncio.to_thread(process.stdout.readline)).strip()


async def test_in_all_three_styles() -> None:
    bus = Bus()
    answers: asyncio.Queue[Message] = asyncio.Queue()
    bus.regist_function("answer:*", answers.put_nowait)
    with running("-c", OTHER) as other:
        endpoint = await line_of(other)
        async with Node(None, bus) as node:
            oneway = await node.connect_oneway(endpoint)
            queue = await node.connect_via_queue("answer:two", endpoint)
            assert await oneway.send_message("question:two", 2) == "ok"
            assert (await queue.get(timeout=10)).args == (2,)
            await node.interconnect(endpoint)
            bus.twitter("question:one", 1, (None, True, b"x", {"a": 1.5}))
            message = await answers.get()
            assert message.args == (1, (None, True, b"x", {"a": 1.5}))
        assert other.stdin is not None
        other.stdin.close()
        assert await asyncio.to_thread(other.wait, 15) == 0


async def test_a_consumer_that_is_killed_loses_nothing() -> None:
    bus = Bus()
    async with Node("tcp://127.0.0.1:0", bus) as node:
        with running("-c", CONSUMER, node.endpoints[0]) as other:
            assert await line_of(other) == "ready"
            bus.twitter("job:new", 1)
            assert await line_of(other) == "1"
            (queue,) = node.handler.queues
            # It waits for the next one when it is killed.
            while not queue.consumers:
                await asyncio.sleep(0)
        while queue.consumers:
            await asyncio.sleep(0)
        bus.twitter("job:new", 2)
        assert len(queue) == 1
