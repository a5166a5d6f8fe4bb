"""Messages between nodes beside plain notifications, and one message to a hundred nodes.

Run it with ``python benchmarks/exchange.py``. Figures are microseconds for a message, wall clock,
and processor time of the sender and the receiver, who are processes of their own.
"""

import argparse
import asyncio
import subprocess
import sys
import time
from typing import Any

from berrymq_rpc import Bus, Node, rpc

#: Messages that may wait before the sender lets the receiver catch up: below the line's bound.
AHEAD = 50_000

#: Messages of one turn of the event loop.
TURN = 500


class Counter(rpc.AttrHandler):
    """Counts what arrives, in the receiving process."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.notes = 0
        bus.regist_function("note:new", self.count)

    def count(self, _: Any) -> None:
        self.notes += 1

    @rpc.method
    def note(self, _: Any) -> None:
        self.notes += 1

    @rpc.method
    def state(self) -> tuple[int, float]:
        """How many notes came, and the processor time of this process."""
        return self.notes, time.process_time()


async def receive() -> None:
    """The other process."""
    bus = Bus()
    async with Node("tcp://127.0.0.1:*", bus, Counter(bus)) as node:
        print(node.endpoints[0], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def measure(client: rpc.Client, count: int, send: Any, catch_up: Any = None) -> float:
    """Send so many notes; print what one cost, and return it."""
    before, processor = await client.rpc.state()
    own, began = time.process_time(), time.perf_counter()
    sending = 0.0
    for number in range(0, count, TURN):
        turn = time.perf_counter()
        for note in range(TURN):
            send(number + note)
        sending += time.perf_counter() - turn
        await asyncio.sleep(0)
        if catch_up is not None:
            await catch_up()
    while True:
        arrived, other = await client.rpc.state()
        if arrived - before >= count:
            break
        await asyncio.sleep(0.001)
    wall = (time.perf_counter() - began) / count * 1e6
    own = (time.process_time() - own) / count * 1e6
    other = (other - processor) / count * 1e6
    print(
        f"    {wall:5.2f} us: sender {own:.2f} (the call itself {sending / count * 1e6:.2f}), "
        f"receiver {other:.2f}"
    )
    return wall


async def bulk(endpoint: str, count: int, times: int) -> None:
    """One process to another."""
    bus = Bus()
    async with (
        Node(None, bus) as node,
        await rpc.open_client(connect=endpoint) as client,
    ):
        line = await node.interconnect(endpoint)

        async def catch_up() -> None:
            while line.waiting > AHEAD:
                await asyncio.sleep(0.001)

        plain, messages = [], []
        for _ in range(times):
            print("  client.notify.note(n)")
            plain.append(await measure(client, count, client.notify.note))
            print("  bus.twitter('note:new', n) over an interconnection")
            messages.append(
                await measure(client, count, lambda n: bus.twitter("note:new", n), catch_up)
            )
        print(f"  rate beside that of plain notifications: {min(plain) / min(messages):.2f}")


async def fan_out(peers: int, count: int) -> None:
    """One node to many, all in this process, over memory."""
    hub = Bus()
    arrived = 0

    def arrive(_: Any) -> None:
        nonlocal arrived
        arrived += 1

    async with Node("mem://hub", hub) as server:
        nodes = []
        for _ in range(peers):
            bus = Bus()
            bus.regist_function("note:new", arrive)
            node = await Node(None, bus).start()
            nodes.append(node)
            await node.interconnect("mem://hub")
        for text in ("x", "x" * 1000):
            arrived = 0
            began = time.perf_counter()
            own = 0.0
            for number in range(count):
                turn = time.perf_counter()
                hub.twitter("note:new", number, text)
                own += time.perf_counter() - turn
                if number % 50 == 49:
                    await asyncio.sleep(0)
            while arrived < count * peers:
                await asyncio.sleep(0)
            wall = (time.perf_counter() - began) / count * 1e6
            print(
                f"  {peers} nodes, {len(text):,} characters: {wall:.0f} us a message all in all "
                f"({wall / peers:.2f} a node), the call itself {own / count * 1e6:.2f} us"
            )
        await asyncio.gather(*(node.close() for node in nodes))
        assert server.statistics()["messages_dropped"] == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200_000, help="messages in bulk")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--peers", type=int, default=100)
    parser.add_argument("--receive", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.receive:
        asyncio.run(receive())
        return
    print("bulk")
    with subprocess.Popen(
        [sys.executable, __file__, "--receive"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        endpoint = other.stdout.readline().strip()
        asyncio.run(bulk(endpoint, arguments.count, arguments.times))
        other.stdin.close()
    print("fan-out")
    asyncio.run(fan_out(arguments.peers, 2000))


if __name__ == "__main__":
    main()
