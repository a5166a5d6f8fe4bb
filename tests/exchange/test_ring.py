"""Four nodes in four processes, in a ring with a chord: each message once to each, and in order.

::

    0 --- 1
    |   / |
    | /   |
    3 --- 2
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: Who connects to whom.
LINES = {1: [0], 2: [1], 3: [2, 0, 1]}

#: Of one node: it prints where it listens, and then obeys the commands that it reads, one a line.
NODE = """
import asyncio, json, sys
from berrymq_rpc import Bus, Node

number, bind = int(sys.argv[1]), sys.argv[2]
bus = Bus()
heard, missed, news = {}, [], []

def take(message):
    # The life of the sender, and the number of the message in it.
    heard.setdefault(message.origin, []).append(message.args)

def note(message):
    (missed if message.action == "missed" else news).append((message.action, message.kwargs))

bus.regist_function("job:*", lambda m: None if m.origin is None else take(m))
bus.regist_function("connection:*", note)

sending = set()

async def send(life, first, count, pause):
    for n in range(first, first + count):
        bus.twitter("job:new", life, n)
        if n % 50 == 0:
            await asyncio.sleep(pause)

async def main():
    loop = asyncio.get_running_loop()
    async with Node(bind, bus, name=f"node {number}") as node:
        say({"endpoint": node.endpoints[0]})
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            command, *arguments = json.loads(line)
            if command == "connect":
                for endpoint in arguments:
                    await node.interconnect(endpoint)
                say("ok")
            elif command == "send":
                sending.add(loop.create_task(send(*arguments)))
                say("ok")
            elif command == "count":
                say({name: len(numbers) for name, numbers in heard.items()})
            elif command == "report":
                say({"heard": heard, "missed": missed, "news": news, **node.statistics()})

def say(value):
    print(json.dumps(value), flush=True)

asyncio.run(main())
"""


class Process:
    """One of the nodes, in a process of its own."""

    def __init__(self, number: int, bind: str = "tcp://127.0.0.1:0") -> None:
        self.number = number
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", NODE, str(number), bind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        self.endpoint = ""

    async def started(self) -> None:
        self.endpoint = (await self.read())["endpoint"]

    async def ask(self, *command: Any) -> Any:
        self.write(*command)
        return await self.read()

    def write(self, *command: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    async def read(self) -> Any:
        assert self.process.stdout is not None
        line = await asyncio.to_thread(self.process.stdout.readline)
        assert line, f"node {self.number} has ended"
        return json.loads(line)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@asynccontextmanager
async def ring() -> AsyncIterator[list[Process]]:
    nodes = [Process(number) for number in range(4)]
    try:
        for node in nodes:
            await node.started()
        for number, peers in LINES.items():
            await nodes[number].ask("connect", *(nodes[peer].endpoint for peer in peers))
        yield nodes
    finally:
        for node in nodes:
            node.kill()


async def heard(nodes: list[Process], expected: dict[int, dict[int, int]]) -> None:
    """Return when each node has heard so many messages of each other."""
    for node in nodes:
        while True:
            counts = await node.ask("count")
            wanted = expected[node.number]
            if all(counts.get(f"node {n}", 0) >= count for n, count in wanted.items()):
                break
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    "count",
    [
        1_000,
        pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(180)]),
    ],
)
async def test_each_message_once_and_in_order(count: int) -> None:
    async with ring() as nodes:
        await asyncio.gather(*(node.ask("send", 1, 1, count, 0) for node in nodes))
        others = {n: {m: count for m in range(4) if m != n} for n in range(4)}
        await heard(nodes, others)
        for node in nodes:
            reported = await node.ask("report")
            assert reported["missed"] == []
            assert reported["news"] == []
            for other in others[node.number]:
                assert reported["heard"][f"node {other}"] == [[1, n] for n in range(1, count + 1)]


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("victim", [1, 2])
async def test_one_that_is_killed_and_started_again(victim: int) -> None:
    """In the midst of all. The others miss nothing, nor hear anything twice."""
    count = 10_000
    async with ring() as nodes:
        others = [node for node in nodes if node.number != victim]
        for node in nodes:
            # In two seconds or more.
            await node.ask("send", 1, 1, count, 0.01)
        # All are in the midst of it.
        await heard(others, {n.number: {victim: count // 5} for n in others})
        old = nodes[victim]
        old.kill()
        await heard(others[:1], {others[0].number: {others[1].number: count // 2}})
        new = nodes[victim] = Process(victim, old.endpoint)
        await new.started()
        peers = LINES.get(victim, [])
        await new.ask("connect", *(nodes[peer].endpoint for peer in peers))
        await new.ask("send", 2, 1, 100, 0)
        await heard(others, {n.number: {m.number: count for m in others if m != n} for n in others})
        # The last words of all, by which each knows how far the others came.
        for node in others:
            await node.ask("send", 1, count + 1, 1, 0)
        names = {node.number for node in others}
        await heard(others, {n: {m: count + 1 for m in names if m != n} for n in names})
        for node in others:
            reported = await node.ask("report")
            for other in names - {node.number}:
                numbers = reported["heard"][f"node {other}"]
                assert numbers == [[1, n] for n in range(1, count + 2)]
            # Of the old life as far as it came, of the new one everything.
            while [2, 100] not in reported["heard"][f"node {victim}"]:
                await asyncio.sleep(0.05)
                reported = await node.ask("report")
            numbers = reported["heard"][f"node {victim}"]
            first, second = ([n for life, n in numbers if life == which] for which in (1, 2))
            assert first == sorted(set(first))
            assert second == [*range(1, 101)]
        while True:
            reported = await new.ask("report")
            if all([1, count + 1] in reported["heard"].get(f"node {n}", []) for n in names):
                break
            await asyncio.sleep(0.05)
        for other in names:
            numbers = [n for _, n in reported["heard"][f"node {other}"]]
            assert numbers == sorted(set(numbers))
            missed = [
                about["count"]
                for _, about in reported["missed"]
                if about["origin"] == f"node {other}"
            ]
            assert sum(missed) + len(numbers) == count + 1
