"""Durable queues: messages that are taken at once or not at all, and queues that have ended."""

import asyncio
import os
import shutil
import threading
from collections.abc import Callable
from typing import Any

import pytest
from clustered import PATIENCE, clustered, emptied, take

from berrymq_rpc.bus import AsyncQueue, Bus, Empty, Queue
from berrymq_rpc.bus.durable import BoundMessage, DurableMessage
from berrymq_rpc.errors import Error, NotFoundError, ServiceClosedError
from berrymq_rpc.exchange import SyncNode
from berrymq_rpc.exchange.durable import consumer
from berrymq_rpc.testing.nats_server import NatsServer

pytest.importorskip("nats", reason="NATS needs nats-py")

Until = Callable[..., Any]


async def test_without_waiting(nats_server: NatsServer, namespace: str) -> None:
    async with clustered(nats_server, namespace) as bus:
        queue = AsyncQueue("job:*", durable="workers", bus=bus)
        with pytest.raises(Empty):
            # It is declared by that.
            await queue.get(block=False)
        for number in range(3):
            await bus.publish("job:new", number, durable=True)
        for number in range(3):
            message = await queue.get(block=False)
            assert isinstance(message, DurableMessage)
            assert message.args == (number,)
            assert await message.ack(confirm=True)
        with pytest.raises(Empty):
            await queue.get(block=False)
        assert await queue.size() == 0


async def test_what_is_here(nats_server: NatsServer, namespace: str, until: Until) -> None:
    async with clustered(nats_server, namespace) as bus:
        queue = AsyncQueue("job:*", durable="workers", bus=bus)
        with pytest.raises(RuntimeError, match="ready"):
            queue.get_nowait()
        await queue.ready()
        await bus.publish("job:new", 1)
        with pytest.raises(Empty):
            queue.get_nowait()
        # That has asked for it.
        await until(queue.qsize)
        message = queue.get_nowait()
        assert isinstance(message, DurableMessage)
        assert await message.ack(confirm=True)

        async def elsewhere() -> None:
            with pytest.raises(RuntimeError, match="block=False"):
                queue.get_nowait()
            await bus.publish("job:new", 2)
            async with queue.get(block=False) as message:
                assert message.args == (2,)
                assert await message.ack(confirm=True)

        await asyncio.to_thread(asyncio.run, elsewhere())
        assert await queue.size() == 0


def test_without_waiting_in_threads(nats_server: NatsServer, namespace: str) -> None:
    bus = Bus()
    with SyncNode(bus, cluster=nats_server.url, namespace=namespace) as node:
        queue = Queue("job:*", durable="workers", bus=bus)
        with pytest.raises(Empty):
            queue.get_nowait()
        node.publish("job:new", 1, durable=True)
        node.publish("job:new", 2, durable=True)
        message = queue.get_nowait()
        assert isinstance(message, BoundMessage)
        assert (message.args, message.ack(confirm=True)) == ((1,), True)
        with queue.get(block=False) as message:
            assert message.args == (2,)
        with pytest.raises(Empty):
            queue.get(block=False)
        assert queue.size() == 0


async def test_a_waiting_call_comes_before_one_that_does_not_wait(
    nats_server: NatsServer, namespace: str
) -> None:
    async with clustered(nats_server, namespace) as bus:
        queue = AsyncQueue("job:*", durable="workers", bus=bus)
        await queue.ready()
        waiting = asyncio.create_task(take(queue, 1))
        await asyncio.sleep(0)
        with pytest.raises(Empty):
            await queue.get(block=False)
        await bus.publish("job:new", 1)
        assert await waiting == [1]


async def test_who_is_busy_leaves_the_messages_to_others(
    nats_server: NatsServer, namespace: str
) -> None:
    async with (
        clustered(nats_server, namespace) as bus,
        clustered(nats_server, namespace) as other,
    ):
        queues = [AsyncQueue("job:*", durable="workers", bus=each) for each in (bus, other)]
        for queue in queues:
            await queue.ready()
        taken: list[list[int]] = [[], []]
        may_work = asyncio.Event()
        may_work.set()

        async def work(place: int) -> None:
            while True:
                async with queues[place].get() as message:
                    await asyncio.sleep(0.005)
                    if place:
                        await may_work.wait()
                    taken[place].append(message.args[0])

        workers = [asyncio.create_task(work(place)) for place in range(2)]
        try:
            # Both take messages fast, and so ask for some at a time.
            await asyncio.gather(*(bus.publish("job:new", number) for number in range(60)))
            async with asyncio.timeout(PATIENCE):
                while len(taken[0]) + len(taken[1]) < 60:
                    await asyncio.sleep(0.01)
            may_work.clear()
            for each in taken:
                each.clear()
            await asyncio.gather(*(bus.publish("job:new", number) for number in range(120)))
            async with asyncio.timeout(PATIENCE):
                # What the other one had asked for when its work began to take long is with it.
                while len(taken[0]) < 60:
                    await asyncio.sleep(0.01)
                may_work.set()
                while len(taken[0]) + len(taken[1]) < 120:
                    await asyncio.sleep(0.01)
            # After a second without work, each asks for what it does at once.
            await asyncio.sleep(1.2)
            may_work.clear()
            taken[0].clear()
            await asyncio.gather(*(bus.publish("job:new", number) for number in range(20)))
            async with asyncio.timeout(PATIENCE):
                while len(taken[0]) < 19:
                    await asyncio.sleep(0.01)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.wait(workers)


async def test_a_queue_that_was_deleted_while_nothing_was_asked(
    nats_server: NatsServer, namespace: str
) -> None:
    async with (
        clustered(nats_server, namespace) as bus,
        clustered(nats_server, namespace) as other,
    ):
        queues = [AsyncQueue("job:*", durable="workers", bus=bus) for _ in range(2)]
        for queue in queues:
            await queue.ready()
        assert await AsyncQueue("job:*", durable="workers", bus=other).delete()
        with pytest.raises(NotFoundError, match="workers"):
            await queues[0].get(timeout=PATIENCE)
        with pytest.raises(Empty):
            await queues[1].get(block=False)
        with pytest.raises(NotFoundError, match="workers"):
            await queues[1].get(timeout=PATIENCE)
        # Another one may be declared, and these stay ended.
        again = AsyncQueue("job:*", durable="workers", bus=bus)
        await again.ready()
        await bus.publish("job:new", 1, durable=True)
        with pytest.raises(NotFoundError, match="workers"):
            await queues[0].get(timeout=PATIENCE)
        assert await take(again, 1) == [1]


async def test_what_was_published_for_a_deleted_queue(
    nats_server: NatsServer, namespace: str
) -> None:
    async with clustered(nats_server, namespace) as bus:
        queue = AsyncQueue("job:*", durable="workers", bus=bus)
        await queue.ready()
        await bus.publish("job:new", 1, durable=True)
        assert await queue.delete()
        with pytest.raises(NotFoundError, match="job:new"):
            await bus.publish("job:new", 2, durable=True)


async def test_a_node_that_was_closed(nats_server: NatsServer, namespace: str) -> None:
    async with clustered(nats_server, namespace) as bus:
        queue = AsyncQueue("job:*", durable="workers", bus=bus)
        await queue.ready()
        for number in range(3):
            await bus.publish("job:new", number)
        in_hand, acknowledged = [await queue.get(timeout=PATIENCE) for _ in range(2)]
        assert await acknowledged.ack()
        assert await take(queue, 1) == [2]
        waiting = asyncio.create_task(queue.get())
        await asyncio.sleep(0.01)
        assert not queue.closed
    assert queue.closed
    with pytest.raises(Empty):
        await waiting
    assert [message async for message in queue] == []
    for call in (queue.ready, queue.size):
        with pytest.raises(ServiceClosedError, match="closed"):
            await call()
    assert not await in_hand.ack()
    async with clustered(nats_server, namespace) as bus:
        queue = AsyncQueue("job:*", durable="workers", bus=bus)
        await queue.ready()
        # What was acknowledged just before is; what was in hand is not.
        assert await queue.size() == 1


def test_a_node_for_threads_that_was_closed(nats_server: NatsServer, namespace: str) -> None:
    bus = Bus()
    with SyncNode(bus, cluster=nats_server.url, namespace=namespace) as node:
        queue = Queue("job:*", durable="workers", bus=bus)
        node.publish("job:new", 1)
        message = queue.get(timeout=PATIENCE)
        ended: list[BaseException] = []

        def wait() -> None:
            try:
                queue.get()
            except BaseException as error:
                ended.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        while not queue.waiting:
            thread.join(0.01)
    thread.join(PATIENCE)
    assert [type(error) for error in ended] == [Empty]
    assert queue.closed
    with pytest.raises(Empty):
        queue.get()
    with pytest.raises(ServiceClosedError):
        queue.size()
    with pytest.raises(ServiceClosedError):
        message.ack()


def test_an_open_queue_in_the_child_of_a_fork(nats_server: NatsServer, namespace: str) -> None:
    bus = Bus()
    with SyncNode(bus, cluster=nats_server.url, namespace=namespace):
        queue = Queue("job:*", durable="workers", bus=bus)
        child = os.fork()
        if not child:
            try:
                queue.get(timeout=PATIENCE)
            except Error:
                os._exit(7)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.parametrize("delay", [-1, float("nan"), "1", None, True])
async def test_invalid_words(nats_server: NatsServer, namespace: str, delay: Any) -> None:
    async with clustered(nats_server, namespace) as bus:
        queue = AsyncQueue("job:*", durable="workers", bus=bus)
        await queue.ready()
        await bus.publish("job:new", 1)
        async with queue.get(timeout=PATIENCE) as message:
            with pytest.raises(ValueError, match="delay"):
                await message.nak(delay)
            with pytest.raises(TypeError, match="reason"):
                await message.term(7)  # type: ignore[arg-type]
            # It is neither refused nor ended by that.
        await emptied(queue)


async def test_a_delay_without_end(nats_server: NatsServer, namespace: str) -> None:
    async with clustered(nats_server, namespace) as bus:
        queue = AsyncQueue("job:*", durable="workers", bus=bus)
        await queue.ready()
        await bus.publish("job:new", 1)
        message = await queue.get(timeout=PATIENCE)
        assert await message.nak(float("inf"))
        with pytest.raises(Empty):
            await queue.get(timeout=0.2)
        assert await queue.size() == 1


async def test_a_queue_that_was_deleted_as_the_link_was_lost(
    start_nats: Callable[..., NatsServer], namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_nats(jetstream=True)
    async with clustered(server, namespace) as bus:
        queue = AsyncQueue("job:*", durable="workers", bus=bus)
        await queue.ready()
        waiting = asyncio.create_task(queue.get())
        await asyncio.sleep(0.05)
        await asyncio.to_thread(server.stop)
        shutil.rmtree(server.folder / "jetstream")
        await asyncio.to_thread(server.start)
        # For as long as the server may still read its queues, it may be there.
        await asyncio.sleep(0.5)
        assert not waiting.done()
        monkeypatch.setattr(consumer, "ABSENCE", 0.1)
        with pytest.raises(NotFoundError, match="workers"):
            await asyncio.wait_for(waiting, PATIENCE)
