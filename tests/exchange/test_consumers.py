"""Consumers in processes of their own that die, freeze, dawdle and come late; and what users see.

``docs/howto/messages.rst`` says the same in words.
"""

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from berrymq_rpc import Bus, Message, Node
from berrymq_rpc.exchange.remote_queue import RemoteQueue

ROOT = Path(__file__).resolve().parents[2]

CONSUMER = """
import sys
import berrymq_rpc as berrymq

berrymq.connect_via_queue(sys.argv[1], "job:*", float(sys.argv[2]), shared=True)
print("ready", flush=True)
while True:
    try:
        message = berrymq.get(timeout=None)
    except ConnectionError:
        # The node was away, or this process was frozen; the connection comes back by itself.
        continue
    print(message.args[0], "again" if message.redelivered else "", message.dropped, flush=True)
"""

#: Acknowledges a message when the next line has come; a line of 0 is an error in the work.
WORKER = """
import sys
import berrymq_rpc as berrymq

berrymq.connect_via_queue(
    sys.argv[1], "job:*", float(sys.argv[2]), shared=True, ack_wait=float(sys.argv[3]), tries=3
)
print("ready", flush=True)
while True:
    try:
        with berrymq.get(timeout=None) as message:
            print(message.args[0], "again" if message.redelivered else "", flush=True)
            1 / int(sys.stdin.readline())
    except ZeroDivisionError:
        print("refused", flush=True)
    except ConnectionError:
        print("lost", flush=True)
    else:
        print("done", flush=True)
"""


class Consumer:
    """A process that gets messages and prints them."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    async def line(self) -> str:
        assert self.process.stdout is not None
        return (await asyncio.to_thread(self.process.stdout.readline)).strip()

    async def next(self) -> int:
        return int((await self.line()).split()[0])

    def work(self, fails: bool = False) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("0\n" if fails else "1\n")
        self.process.stdin.flush()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)
        # On a busy machine, some of its threads run on for a moment.
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()


@contextmanager
def consumer(endpoint: str, ttl: float = 60, ack_wait: float | None = None) -> Iterator[Consumer]:
    program = [CONSUMER] if ack_wait is None else [WORKER]
    further = [] if ack_wait is None else [str(ack_wait)]
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", *program, endpoint, str(ttl), *further],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as process:
        try:
            yield Consumer(process)
        finally:
            process.kill()


class Place:
    """A node, and the events on its bus."""

    def __init__(self, bus: Bus, node: Node) -> None:
        self.bus = bus
        self.node = node
        self.reported: asyncio.Queue[Message] = asyncio.Queue()
        bus.regist_function("queue:dropped", self.reported.put_nowait)

    @property
    def endpoint(self) -> str:
        return self.node.endpoints[0]

    @property
    def queues(self) -> list[RemoteQueue]:
        return list(self.node.handler.queues)

    async def waiting(self, count: int) -> None:
        while self.node.statistics()["consumers_waiting"] != count:
            await asyncio.sleep(0.001)

    async def kept_alive(self) -> None:
        """Return when a ``get`` waits and no ttl runs, however short it is."""
        while not (
            self.node.statistics()["consumers_waiting"]
            and all(lease.pins for lease in self.node.handler.leases)
        ):
            await asyncio.sleep(0.001)


@asynccontextmanager
async def place(**options: Any) -> AsyncIterator[Place]:
    bus = Bus()
    async with Node("tcp://127.0.0.1:0", bus, **options) as node:
        yield Place(bus, node)


async def test_each_message_goes_to_one_of_those_who_share() -> None:
    async with place() as it:
        with consumer(it.endpoint) as one, consumer(it.endpoint) as two:
            assert [await one.line(), await two.line()] == ["ready", "ready"]
            await it.waiting(2)
            for number in range(100):
                it.bus.twitter("job:new", number)
            lines = [asyncio.create_task(each.line()) for each in (one, two)]
            taken: dict[int, list[int]] = {0: [], 1: []}
            while sum(map(len, taken.values())) < 100:
                await asyncio.wait(lines, return_when=asyncio.FIRST_COMPLETED)
                for index, each in enumerate((one, two)):
                    if lines[index].done():
                        taken[index].append(int(lines[index].result().split()[0]))
                        lines[index] = asyncio.create_task(each.line())
            # Each in order, and none twice.
            assert taken[0] == sorted(taken[0])
            assert taken[1] == sorted(taken[1])
            assert sorted(taken[0] + taken[1]) == [*range(100)]
            one.kill()
            two.kill()
            await asyncio.gather(*lines)


async def test_a_dead_consumer_loses_nothing() -> None:
    async with place() as it:
        with consumer(it.endpoint) as dead, consumer(it.endpoint) as living:
            assert [await dead.line(), await living.line()] == ["ready", "ready"]
            await it.waiting(2)
            dead.kill()
            await it.waiting(1)
            for number in range(10):
                it.bus.twitter("job:new", number)
            assert [await living.next() for _ in range(10)] == [*range(10)]


async def test_what_a_frozen_consumer_was_sent_comes_again_marked() -> None:
    async with place() as it:
        with consumer(it.endpoint) as frozen:
            assert await frozen.line() == "ready"
            await it.waiting(1)
            with consumer(it.endpoint) as living:
                assert await living.line() == "ready"
                # It is the second in the line, whatever time it takes to start.
                await it.waiting(2)
                frozen.freeze()
                it.bus.twitter("job:new", 1)
                it.bus.twitter("job:new", 2)
                # Not before the node knows that the first does not answer.
                assert [await living.line() for _ in range(2)] == ["2  0", "1 again 0"]


async def test_a_slow_consumer_gets_what_was_kept_for_it() -> None:
    async with place() as it:
        with consumer(it.endpoint) as slow:
            assert await slow.line() == "ready"
            await it.waiting(1)
            for number in range(1000):
                it.bus.twitter("job:new", number)
            assert it.node.statistics()["messages_waiting"] == 1000
            assert [await slow.next() for _ in range(1000)] == [*range(1000)]


async def test_a_queue_that_overflows(caplog: pytest.LogCaptureFixture) -> None:
    async with place(queue_size=3) as it:
        with consumer(it.endpoint) as slow:
            assert await slow.line() == "ready"
            await it.waiting(1)
            with caplog.at_level(logging.WARNING, "berrymq_rpc.exchange"):
                for number in range(10):
                    it.bus.twitter("job:new", number)
            # The node's log says so,
            assert caplog.messages == [
                f"remote queue job:*: full with 3 messages, {count} dropped so far"
                for count in range(1, 8)
            ]
            # its bus, at 1, 2, 4 and so on,
            reported = [await it.reported.get() for _ in range(3)]
            assert [message.kwargs["count"] for message in reported] == [1, 2, 4]
            assert {message.kwargs["identifier"] for message in reported} == {"job:*"}
            # its counts,
            assert it.node.statistics()["messages_dropped"] == 7
            # and the consumer, with the next message that it gets.
            assert [await slow.line() for _ in range(3)] == ["7  7", "8  0", "9  0"]


async def test_a_ttl_that_ends(caplog: pytest.LogCaptureFixture) -> None:
    async with place() as it:
        with consumer(it.endpoint, 0.5) as dead:
            assert await dead.line() == "ready"
            await it.kept_alive()
            # It lives for as long as it is kept alive.
            await asyncio.sleep(1)
            assert it.bus.twitter("job:new", 0) == 1
            assert await dead.next() == 0
            await it.kept_alive()
            dead.kill()
            await it.waiting(0)
            assert it.bus.twitter("job:new", 1) == 1
        # The node reports that messages were kept for no consumer.
        assert (await it.reported.get()).kwargs == {"identifier": "job:*", "count": 1}
        assert "remote queue job:*: closed with messages left, 1 dropped" in caplog.text
        assert it.bus.twitter("job:new", 2) == 0


async def test_a_consumer_that_was_frozen_for_longer_than_its_ttl() -> None:
    async with place() as it:
        with consumer(it.endpoint, 0.5) as frozen:
            assert await frozen.line() == "ready"
            await it.kept_alive()
            frozen.freeze()
            it.bus.twitter("job:new", 1)
            assert (await it.reported.get()).kwargs["count"] == 1
            while it.node.statistics()["connections"]:
                await asyncio.sleep(0.01)
            frozen.thaw()
            await it.kept_alive()
            it.bus.twitter("job:new", 2)
            # What had reached its host before is still there for it.
            while (number := await frozen.next()) == 1:
                pass
            assert number == 2
            frozen.kill()
            assert frozen.process.stderr is not None
            log = await asyncio.to_thread(frozen.process.stderr.read)
            assert "forgotten by the peer; registering again, messages may be missing" in log


@asynccontextmanager
async def working(it: Place) -> AsyncIterator[Consumer]:
    """A consumer that has got message 1, and not acknowledged it."""
    with consumer(it.endpoint, ack_wait=60) as worker:
        assert await worker.line() == "ready"
        await it.waiting(1)
        it.bus.twitter("job:new", 1)
        assert await worker.line() == "1"
        yield worker


async def test_a_worker_dies_at_its_work() -> None:
    async with place() as it, working(it) as dead:
        with consumer(it.endpoint, ack_wait=60) as living:
            assert await living.line() == "ready"
            await it.waiting(1)
            dead.kill()
            assert await living.line() == "1 again"
            living.work()
            assert await living.line() == "done"
            assert it.node.statistics()["messages_unacknowledged"] == 0


async def test_a_worker_freezes_at_its_work() -> None:
    async with place() as it, working(it) as frozen:
        frozen.freeze()
        with consumer(it.endpoint, ack_wait=60) as living:
            assert await living.line() == "ready"
            # Once the node knows that it does not answer, long before `ack_wait`.
            assert await living.line() == "1 again"
            living.work()
            assert await living.line() == "done"
            # It comes back and knows nothing of that.
            frozen.thaw()
            frozen.work()
            assert await frozen.line() in ("done", "lost")
            await it.waiting(2)
            it.bus.twitter("job:new", 2)
            done = {asyncio.create_task(each.line()) for each in (frozen, living)}
            first, other = await asyncio.wait(done, timeout=10, return_when=asyncio.FIRST_COMPLETED)
            assert [task.result() for task in first] == ["2"]
            frozen.kill()
            living.kill()
            await asyncio.wait(other)


async def test_a_job_that_kills_its_workers() -> None:
    async with place() as it:
        dead: asyncio.Queue[Message] = asyncio.Queue()
        it.bus.regist_function("dead:job", dead.put_nowait)
        with consumer(it.endpoint, ttl=60, ack_wait=60) as first:
            assert await first.line() == "ready"
            it.bus.twitter("job:new", 1)
            assert await first.line() == "1"
            first.work(fails=True)
            assert await first.line() == "refused"
            assert await first.line() == "1 again"
            with consumer(it.endpoint, ack_wait=60) as second:
                assert await second.line() == "ready"
                await it.waiting(1)
                first.kill()
                assert await second.line() == "1 again"
                second.kill()
                assert (await dead.get()).args == (1,)
                assert it.node.statistics()["messages_dead"] == 1
