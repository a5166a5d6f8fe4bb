"""What becomes of a message when its `get` is cancelled in any of its moments, and who shares."""

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from berrymq_rpc import rpc
from berrymq_rpc.bus import Bus, Empty
from berrymq_rpc.exchange import Node, PulledMessage, QueueConnection
from berrymq_rpc.exchange.remote_queue import RemoteQueue
from berrymq_rpc.identifier import Identifier
from berrymq_rpc.rpc import Call

_numbers = itertools.count()


@asynccontextmanager
async def queue(
    transport: str = "mem", **options: Any
) -> AsyncIterator[tuple[Bus, Node, QueueConnection]]:
    """A bus whose messages are kept, its node, and the connection to the queue."""
    bus = Bus()
    endpoint = "tcp://127.0.0.1:0" if transport == "tcp" else f"mem://queue-{next(_numbers)}"
    async with (
        Node(endpoint, bus, **options) as server,
        Node(None, Bus()) as node,
        await node.connect_via_queue("job:*", server.endpoints[0]) as connection,
    ):
        yield bus, server, connection


async def test_a_new_queue_begins_with_what_is_retained() -> None:
    bus = Bus()
    bus.retain("*:*")
    bus.twitter("job:a", 1)
    bus.twitter("job:b", 2)
    bus.twitter("_job:b", 3)
    async with (
        Node("tcp://127.0.0.1:0", bus) as server,
        Node(None, Bus()) as node,
        await node.connect_via_queue("*:*", server.endpoints[0], shared=True) as first,
    ):
        bus.twitter("job:a", 4)
        async with await node.connect_via_queue("*:*", server.endpoints[0], shared=True) as second:
            got = [await queue.get() for queue in (first, second, first)]
            assert [(each.args, each.retained) for each in got] == [
                ((1,), True),
                ((2,), True),
                ((4,), False),
            ]
            with pytest.raises(Empty):
                await second.get_nowait()
        async with await rpc.open_client(connect=server.endpoints[0]) as client:
            token = await client.rpc.connect_via_queue("job:a")
            answer = await client.rpc.get(token)
            assert answer == {"id": "job:a", "args": (4,), "kwargs": {}, "retained": True}


def queue_of(server: Node) -> RemoteQueue:
    (queue,) = server.handler.queues
    assert isinstance(queue, RemoteQueue)
    return queue


async def waiting(server: Node, count: int = 1) -> None:
    while server.statistics()["consumers_waiting"] != count:
        await asyncio.sleep(0)


def pulled(number: int) -> PulledMessage:
    return PulledMessage(
        Identifier("job:new"), (number,), {}, origin="mem://elsewhere", redelivered=False
    )


@pytest.fixture
def cancel_on_answer(monkeypatch: pytest.MonkeyPatch) -> list[asyncio.Task[Any]]:
    """Tasks, each cancelled as the next call has its answer, before they know of it."""
    tasks: list[asyncio.Task[Any]] = []

    def succeed(self: Call, value: Any) -> None:
        self.set_result(value)
        if tasks:
            tasks.pop(0).cancel()

    monkeypatch.setattr(Call, "succeed", succeed)
    return tasks


async def test_cancelled_as_the_message_has_come(
    cancel_on_answer: list[asyncio.Task[Any]],
) -> None:
    async with queue() as (bus, server, connection):
        task = asyncio.create_task(connection.get())
        await waiting(server)
        cancel_on_answer.append(task)
        bus.twitter("job:new", 1)
        with pytest.raises(asyncio.CancelledError):
            await task
        # Its arrival was confirmed to the node, which does not have it any more.
        assert server.statistics()["messages_waiting"] == 0
        message = await connection.get()
        assert (message.args, message.redelivered) == ((1,), False)


async def test_then_one_that_waits_already_gets_it(
    cancel_on_answer: list[asyncio.Task[Any]],
) -> None:
    async with queue() as (bus, server, connection):
        tasks = [asyncio.create_task(connection.get()) for _ in range(3)]
        await waiting(server, 3)
        cancel_on_answer.append(tasks[0])
        bus.twitter("job:new", 1)
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        assert (await tasks[1]).args == (1,)
        # What the second waited for at the node is for others.
        await waiting(server, 1)
        bus.twitter("job:new", 2)
        assert (await tasks[2]).args == (2,)
        with pytest.raises(Empty):
            await connection.get_nowait()


async def test_cancelled_at_any_moment() -> None:
    """However the cancel and the message cross, each comes once; some may be marked."""
    async with queue("tcp") as (bus, _, connection):
        taken: list[int] = []
        for number in range(200):
            task = asyncio.create_task(connection.get())
            for _ in range(number % 7):
                await asyncio.sleep(0)
            bus.twitter("job:new", number)
            for _ in range(number % 11):
                await asyncio.sleep(0)
            task.cancel()
            if (await asyncio.wait((task,)))[0] and not task.cancelled():
                taken.append(task.result().args[0])
        while len(taken) < 200:
            taken.append((await connection.get(timeout=5)).args[0])
        assert sorted(taken) == [*range(200)]
        with pytest.raises(Empty):
            await connection.get_nowait()


async def test_a_timeout_loses_nothing() -> None:
    async with queue("tcp") as (bus, _, connection):
        taken: list[int] = []
        for number in range(100):
            asyncio.get_running_loop().call_later(0.001, bus.twitter, "job:new", number)
            try:
                async with asyncio.timeout(0.001):
                    taken.append((await connection.get()).args[0])
            except TimeoutError:
                continue
        while len(taken) < 100:
            taken.append((await connection.get(timeout=5)).args[0])
        assert sorted(taken) == [*range(100)]


async def test_what_is_put_back_comes_first() -> None:
    async with queue() as (bus, _, connection):
        bus.twitter("job:new", 3)
        connection.put_back(pulled(1))
        connection.put_back(pulled(2))
        assert [(await connection.get()).args[0] for _ in range(3)] == [1, 2, 3]


async def test_what_is_no_message_is_no_matter(
    cancel_on_answer: list[asyncio.Task[Any]],
) -> None:
    async with queue() as (_, server, connection):
        task = asyncio.create_task(connection.get(timeout=0.01))
        await waiting(server)
        cancel_on_answer.append(task)
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(Empty):
            await connection.get_nowait()


class TestShared:
    async def test_each_message_is_for_one(self) -> None:
        bus = Bus()
        async with (
            Node(f"mem://queue-{next(_numbers)}", bus) as server,
            Node(None, Bus()) as one,
            Node(None, Bus()) as two,
        ):
            where = server.endpoints[0]
            shared = [
                await node.connect_via_queue("job:*", where, shared=True) for node in (one, two)
            ]
            alone = await one.connect_via_queue("job:*", where)
            other = await two.connect_via_queue("job:new", where, shared=True)
            assert bus.twitter("job:new", 0) == 3
            tasks = [asyncio.create_task(connection.get()) for connection in shared]
            assert (await tasks[0]).args == (0,)
            for number in range(1, 10):
                bus.twitter("job:new", number)
            taken = [(await tasks[1]).args[0]]
            for _ in range(4):
                taken += [(await connection.get()).args[0] for connection in shared]
            assert sorted(taken) == [*range(1, 10)]
            for connection in (alone, other):
                numbers = [(await connection.get()).args[0] for _ in range(10)]
                assert numbers == [*range(10)]

    async def test_one_that_leaves_takes_nothing_with_it(self) -> None:
        bus = Bus()
        async with (
            Node(f"mem://queue-{next(_numbers)}", bus) as server,
            Node(None, Bus()) as one,
            Node(None, Bus()) as two,
        ):
            where = server.endpoints[0]
            first = await one.connect_via_queue("job:*", where, shared=True)
            second = await two.connect_via_queue("job:*", where, shared=True)
            for number in range(3):
                bus.twitter("job:new", number)
            assert (await first.get()).args == (0,)
            await first.close()
            counts = server.statistics()
            assert (counts["messages_waiting"], counts["messages_dropped"]) == (2, 0)
            assert (await second.get()).args == (1,)
            await second.close()
            assert server.statistics()["messages_dropped"] == 1
            assert bus.twitter("job:new") == 0
            # It is a new queue.
            third = await one.connect_via_queue("job:*", where, shared=True)
            with pytest.raises(Empty):
                await third.get_nowait()

    async def test_only_those_of_a_token_end_with_it(self) -> None:
        bus = Bus()
        async with (
            Node(f"mem://queue-{next(_numbers)}", bus) as server,
            await rpc.open_client(connect=server.endpoints[0], timeout=10) as client,
        ):
            tokens = [await client.rpc.connect_via_queue("job:*", 10, True) for _ in "ab"]
            calls = [client.rpc.get(token) for token in tokens]
            await waiting(server, 2)
            await client.rpc.close_connection(tokens[0])
            assert await calls[0] == "invalid token"
            bus.twitter("job:new")
            assert (await calls[1])["id"] == "job:new"


@pytest.mark.nodebug
async def test_10_000_that_wait() -> None:
    async with queue("tcp") as (bus, server, connection):
        threads = threading.active_count()
        tasks = [asyncio.create_task(connection.get()) for _ in range(10_000)]
        await waiting(server, 10_000)
        assert threading.active_count() == threads
        # No other caller is held up.
        assert await connection.send_message("other:new") == "ok"
        for number in range(10_000):
            bus.twitter("job:new", number)
        numbers = [(await task).args[0] for task in tasks]
        # The node handed them out in the order in which they were asked for.
        assert numbers == [*range(10_000)]
        assert connection.gets_waiting == 0
        assert server.statistics()["consumers_waiting"] == 0
