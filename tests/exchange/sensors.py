"""A node with a will, in a process that can be killed, and a node here that hears of it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from berrymq_rpc import Bus, Message, Node, rpc

ROOT = Path(__file__).resolve().parents[2]

#: Notices what is frozen within a second.
LIMITS = rpc.Limits(heartbeat=0.5)

#: Seconds in which everything happens.
PATIENCE = 15.0

#: Of a node with a will: it connects as it is told, sends its numbers, and then does nothing.
SENSOR = """
import asyncio, json, sys
from berrymq_rpc import Bus, Node, rpc

style, delay, name, namespace, *places = json.loads(sys.argv[1])

async def main():
    bus = Bus()
    options = {"limits": rpc.Limits(heartbeat=0.5), "name": name}
    if namespace:
        options |= {"cluster": places.pop(0), "namespace": namespace}
    will = ("sensor:gone", name, b"1")
    async with Node(None, bus, will=will, will_delay=delay, **options) as node:
        for place in places:
            await (node.interconnect if style == "01" else node.connect_oneway)(place)
        for n in range(3):
            bus.twitter("sensor:value", n)
        while namespace and not node.statistics()["will_holders"]:
            await asyncio.sleep(0.01)
        await node.drain(5)
        print("ready", flush=True)
        while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
            bus.twitter("sensor:value", line)
            await node.drain(5)

asyncio.run(main())
"""


class Sensor:
    """A node with a will, in a process of its own."""

    def __init__(
        self, style: str, delay: float, *places: str, name: str = "oven 3", namespace: str = ""
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SENSOR, json.dumps([style, delay, name, namespace, *places])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )

    async def ready(self) -> None:
        assert self.process.stdout is not None
        line = await asyncio.to_thread(self.process.stdout.readline)
        assert line == "ready\n"

    def say(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def close(self) -> None:
        """Have it leave in good order."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert await asyncio.to_thread(self.process.wait, PATIENCE) == 0

    def end(self) -> None:
        self.process.kill()
        assert self.process.stdout is not None
        assert self.process.stdin is not None
        self.process.stdout.close()
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()


class Place:
    """A node in this process, and what its bus has heard."""

    def __init__(self, node: Node, bus: Bus) -> None:
        self.node = node
        self.bus = bus
        self.heard: list[Message] = []
        self.times: list[float] = []
        bus.regist_function("sensor:*", self._hear)

    def _hear(self, message: Message) -> None:
        self.heard.append(message)
        self.times.append(time.monotonic())

    @property
    def endpoint(self) -> str:
        return self.node.endpoints[0]

    @property
    def values(self) -> list[Any]:
        """What was heard of the sensor: its values, and ``"gone"``."""
        return ["gone" if m.action == "gone" else m.args[0] for m in self.heard]

    @property
    def wills(self) -> int:
        return self.values.count("gone")
