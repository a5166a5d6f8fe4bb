"""Durable queues when consumers, links and the NATS server fail: what was told as sent arrives."""

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from berrymq_rpc.bus import AsyncQueue, Bus, Empty, Message
from berrymq_rpc.errors import ConnectionLostError, Error
from berrymq_rpc.exchange import Node
from berrymq_rpc.nats.options import Durable, Nats
from berrymq_rpc.rpc import Limits
from berrymq_rpc.testing.nats_server import NatsServer

pytest.importorskip("nats", reason="NATS needs nats-py")

# Each of these needs servers of its own, and most of them seconds.
pytestmark = pytest.mark.slow

StartNats = Callable[..., NatsServer]
Until = Callable[..., Any]

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
    start_nats: StartNats, tmp_path: Path, count: int
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


#: Seconds: twice as long, and a link that is cut is noticed.
HEARTBEAT = 0.5

#: Seconds that `cluster_node.py` has for a message, and that a busy machine may take longer.
ACK_WAIT = 1.0
SLACK = 1.0

PATIENCE = 20.0


@asynccontextmanager
async def workers_at(url: str) -> AsyncIterator[tuple[Bus, AsyncQueue]]:
    """A node with the queue that `cluster_node.py` has as well."""
    bus = Bus()
    async with Node(None, bus, cluster=url, limits=Limits(heartbeat=HEARTBEAT)):
        queue = AsyncQueue("job:*", durable="workers", ack_wait=ACK_WAIT, tries=3, bus=bus)
        await queue.ready()
        yield bus, queue


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_consumer_that_fails(
    start_nats: StartNats, until: Until, program: Any, number: signal.Signals
) -> None:
    """The message that it has goes to another one when its time is over, marked.

    A frozen one that waits for more may be given it once more, and no more often: a message that
    nobody has worked on is no dead letter.
    """
    server = start_nats(jetstream=True)
    async with workers_at(server.url) as (bus, queue):
        holder = program("cluster_node.py", server.url, "holder")
        loop = asyncio.get_running_loop()
        await bus.publish("job:new", 7)
        await until(lambda: holder.lines == ["7 1"], PATIENCE)
        began = loop.time()
        holder.send(number)
        if number == signal.SIGKILL:
            message = await queue.get(timeout=PATIENCE)
            assert loop.time() - began < ACK_WAIT + SLACK
        else:
            # Nobody else waits for as long as all of its tries would take.
            await asyncio.sleep(3.5 * ACK_WAIT)
            message = await queue.get(timeout=ACK_WAIT + SLACK)
        assert message.args == (7,)
        assert message.tries in (2, 3)
        assert await message.ack(confirm=True)
        assert await queue.size() == 0


@pytest.mark.parametrize("how", ["cut", "close", "half-close"])
async def test_a_link_of_a_consumer_that_fails(
    start_nats: StartNats, link: Any, until: Until, how: str
) -> None:
    """Its message goes to another one; its own acknowledgement says that it was not heard."""
    server = start_nats(jetstream=True)
    async with (
        link(f"tcp://127.0.0.1:{server.port}") as line,
        workers_at(server.url) as (bus, queue),
        workers_at(line.endpoint.replace("tcp", "nats")) as (behind, cut_off),
    ):
        lost: list[Message] = []
        behind.regist_function("connection:lost", lost.append)
        await bus.publish("job:new", 7)
        held = await cut_off.get(timeout=PATIENCE)
        match how:
            case "cut":
                line.cut()
            case "close":
                line.refuse()
            case "half-close":
                line.half_close("down")
                line.refuse()
        await until(lambda: lost)
        assert not await held.ack()
        with pytest.raises(ConnectionLostError):
            await held.ack(confirm=True)
        async with queue.get(timeout=ACK_WAIT + SLACK) as message:
            assert (message.args, message.redelivered) == ((7,), True)
        line.restore()
        # It gets messages again, as soon as it is back.
        for number in range(10):
            await bus.publish("job:new", number)
        async with asyncio.timeout(PATIENCE):
            async with cut_off.get() as message:
                assert message.args[0] in range(10)


@pytest.mark.parametrize("how", ["cut", "close", "half-close", "frozen"])
async def test_publish_over_a_link_that_fails(
    start_nats: StartNats, link: Any, until: Until, how: str
) -> None:
    """It waits, and sends the same again; the queue has each message once."""
    server = start_nats(jetstream=True)
    async with (
        link(f"tcp://127.0.0.1:{server.port}") as line,
        workers_at(server.url) as (_, queue),
        workers_at(line.endpoint.replace("tcp", "nats")) as (bus, _),
    ):
        lost: list[Message] = []
        bus.regist_function("connection:lost", lost.append)
        await bus.publish("job:new", -1)
        sending = [asyncio.create_task(bus.publish("job:new", n)) for n in range(50)]
        # Some are on their way.
        await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
        match how:
            case "cut":
                line.cut()
            case "close":
                line.close()
            case "half-close":
                line.half_close("down")
            case "frozen":
                server.signal(signal.SIGSTOP)
        sending += [asyncio.create_task(bus.publish("job:new", n)) for n in range(50, 100)]
        await until(lambda: lost)
        if how == "frozen":
            server.signal(signal.SIGCONT)
        line.restore()
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*sending)
            taken = []
            while await queue.size():
                message = await queue.get()
                taken.append(message.args[0])
                assert await message.ack(confirm=True)
        assert sorted(taken) == list(range(-1, 100))


@pytest.mark.slow
async def test_a_message_that_kills_its_consumers(
    start_nats: StartNats, until: Until, program: Any
) -> None:
    """It is a dead letter after its tries, though no consumer ever said a word about it."""
    server = start_nats(jetstream=True)
    async with workers_at(server.url) as (bus, queue):
        dead: list[Message] = []
        bus.regist_function("dead:workers", dead.append)
        await bus.publish("job:new", 7)
        for _ in range(3):
            assert program("cluster_node.py", server.url, "victim").wait() == 1
        with pytest.raises(Empty):
            await queue.get(timeout=ACK_WAIT + SLACK)
        await until(lambda: dead)
        (letter,) = dead
        assert letter.args == (7,)
        assert letter.dead == {
            "identifier": "job:new",
            "queue": "workers",
            "tries": 3,
            "error": None,
        }
        async with asyncio.timeout(PATIENCE):
            while await queue.size():
                await asyncio.sleep(0.01)


def start_cluster(start_nats: StartNats) -> list[NatsServer]:
    """Three servers with JetStream that elect a leader among them."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
    return [
        start_nats(
            f"server_name: s{number}\n"
            f"cluster {{ name: c, listen: '127.0.0.1:{port}', routes: [{routes}] }}\n",
            jetstream=True,
        )
        for number, port in enumerate(ports)
    ]


@pytest.mark.slow
@pytest.mark.nodebug
@pytest.mark.timeout(400)
@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_a_server_of_three_that_keep_each_message(start_nats: StartNats, how: str) -> None:
    """With ``replicas=3`` any one of them may fail, and is not missed."""
    servers = start_cluster(start_nats)
    place = Nats([server.url for server in servers])
    durable = Durable(replicas=3)
    bus, other = Bus(), Bus()
    limits = Limits(heartbeat=HEARTBEAT)
    async with AsyncExitStack() as stack:
        for each in (bus, other):
            node = Node(None, each, cluster=place, durable=durable, limits=limits)
            await stack.enter_async_context(node)
        queue = AsyncQueue("job:*", durable="workers", ack_wait=3.0, tries=100, bus=other)
        async with asyncio.timeout(60.0):
            # They elect a leader first.
            while True:
                try:
                    await queue.ready()
                    break
                except (Error, OSError):
                    await asyncio.sleep(0.2)
        told: set[int] = set()
        taken: set[int] = set()
        numbers = itertools.count()
        stopped = False

        async def send() -> None:
            while not stopped:
                number = next(numbers)
                await bus.publish("job:new", number, durable=True)
                told.add(number)

        async def work() -> None:
            while True:
                async with queue.get() as message:
                    taken.add(message.args[0])

        async def fail() -> None:
            nonlocal stopped
            for server in servers:
                begun = len(told)
                while len(told) < begun + 200:
                    await asyncio.sleep(0.01)
                if how == "killed":
                    await asyncio.to_thread(server.kill)
                else:
                    server.signal(signal.SIGSTOP)
                begun = len(told)
                while len(told) < begun + 200:
                    await asyncio.sleep(0.01)
                if how == "killed":
                    await asyncio.to_thread(server.start)
                else:
                    server.signal(signal.SIGCONT)
                # It has caught up when the others can do without one again.
                await asyncio.sleep(3.0)
            stopped = True

        async with asyncio.timeout(120.0):
            working = asyncio.create_task(work())
            try:
                await asyncio.gather(fail(), *(send() for _ in range(20)))
                # All that was told by now arrives.
                while not taken >= told:
                    assert not working.done()
                    await asyncio.sleep(0.05)
            finally:
                working.cancel()
                await asyncio.wait((working,))
