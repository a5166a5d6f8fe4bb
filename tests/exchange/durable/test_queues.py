"""Durable queues: what was told as sent arrives, is acknowledged, comes again, or is dead."""

import asyncio
import gc
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from clustered import PATIENCE, clustered, emptied, take

from berrymq_rpc.bus import AsyncQueue, Bus, Empty, Message, Queue
from berrymq_rpc.errors import (
    ConnectionLostError,
    NotFoundError,
    OverloadedError,
    RPCTimeoutError,
    ServiceClosedError,
    TooLargeError,
)
from berrymq_rpc.exchange import Node, SyncNode
from berrymq_rpc.nats.options import Durable, Nats
from berrymq_rpc.testing.nats_server import NatsServer

pytest.importorskip("nats", reason="NATS needs nats-py")

from berrymq_rpc.exchange.cluster import cluster as cluster_module
from berrymq_rpc.exchange.durable import kept as kept_module
from berrymq_rpc.exchange.durable import queues as queues_module
from berrymq_rpc.nats.connection import Connection

Until = Callable[..., Any]


async def test_what_is_published_is_kept_while_nobody_is_there(
    nats_server: NatsServer, namespace: str
) -> None:
    async with clustered(nats_server, namespace) as bus:
        queue = AsyncQueue("job:new", durable="workers", bus=bus)
        await queue.ready()
        queue.close()
        with pytest.raises(Empty):
            await queue.get()
    async with clustered(nats_server, namespace) as bus:
        for number in range(100):
            assert await bus.publish("job:new", number, key=number) == 0
        await bus.publish("job:old", -1)
    async with clustered(nats_server, namespace) as bus:
        queue = AsyncQueue("job:new", durable="workers", bus=bus)
        await queue.ready()
        assert await queue.size() == 100
        message = await queue.get(timeout=PATIENCE)
        assert isinstance(message, Message)
        assert (message.id, message.args, message.kwargs) == ("job:new", (0,), {"key": 0})
        assert not message.redelivered
        assert await message.ack(confirm=True)
        assert await take(queue, 99) == list(range(1, 100))
        with pytest.raises(Empty):
            await queue.get(timeout=0.05)
        assert await queue.size() == 0


async def test_each_message_goes_to_one_consumer_of_each_queue(
    nats_server: NatsServer, namespace: str
) -> None:
    async with (
        clustered(nats_server, namespace) as bus,
        clustered(nats_server, namespace) as other,
    ):
        queues = [AsyncQueue("job:*", durable="workers", bus=each) for each in (bus, other, other)]
        audit = AsyncQueue("*:new", durable="audit", bus=bus)
        heard: list[int] = []
        other.regist_function("job:new", lambda message: heard.append(message.args[0]))
        # The server gets what `other` follows before what it declares.
        for queue in (*queues, audit):
            await queue.ready()
        taken: list[int] = []

        async def work(queue: AsyncQueue) -> None:
            while True:
                async with queue.get() as message:
                    taken.append(message.args[0])

        workers = [asyncio.create_task(work(queue)) for queue in queues]
        await asyncio.gather(*(bus.publish("job:new", number) for number in range(300)))
        assert await take(audit, 300) == list(range(300))
        async with asyncio.timeout(PATIENCE):
            while len(taken) < 300 or len(heard) < 300:
                await asyncio.sleep(0.01)
        assert sorted(taken) == list(range(300))
        # Followers hear the same messages, in order.
        assert heard == list(range(300))
        for worker in workers:
            worker.cancel()
        await asyncio.wait(workers)


async def test_what_fails_comes_again_and_then_is_dead(
    nats_server: NatsServer, namespace: str
) -> None:
    dead: list[Message] = []
    async with (
        clustered(nats_server, namespace) as bus,
        clustered(nats_server, namespace) as other,
    ):
        for each in (bus, other):
            each.regist_function("dead:workers", dead.append)
        queue = AsyncQueue("job:*", durable="workers", tries=2, bus=bus)
        await queue.ready()
        await bus.publish("job:new", 7, key=8)
        with pytest.raises(LookupError):
            async with queue.get(timeout=PATIENCE) as message:
                assert not message.redelivered
                raise LookupError("no such job")
        message = await queue.get(timeout=PATIENCE)
        assert message.redelivered
        assert message.tries == 2
        await message.nak()
        with pytest.raises(Empty):
            await queue.get(timeout=0.3)
        letters = AsyncQueue("dead:workers", durable="letters", bus=other)
        async with letters.get(timeout=PATIENCE) as letter:
            assert (letter.id, letter.args, letter.kwargs) == ("dead:workers", (7,), {"key": 8})
            assert letter.dead == {
                "identifier": "job:new",
                "queue": "workers",
                "tries": 2,
                "error": "LookupError('no such job')",
            }
        assert [(m.args, m.dead["tries"]) for m in dead] == [((7,), 2)] * 2
        await emptied(queue)


async def test_words(nats_server: NatsServer, namespace: str) -> None:
    async with clustered(nats_server, namespace) as bus:
        queue = AsyncQueue("job:*", durable="workers", ack_wait=0.5, bus=bus)
        await queue.ready()
        await bus.publish("job:new", 1)
        message = await queue.get(timeout=PATIENCE)
        for _ in range(4):
            await asyncio.sleep(0.2)
            await message.in_progress()
        with pytest.raises(Empty):
            await queue.get(timeout=0.1)
        # Neither acknowledged nor in progress: it comes again.
        message = await queue.get(timeout=PATIENCE)
        assert message.redelivered
        await message.term("it makes no sense")
        with pytest.raises(Empty):
            await queue.get(timeout=0.8)
        await bus.publish("job:new", 2)
        message = await queue.get(timeout=PATIENCE)
        began = asyncio.get_running_loop().time()
        await message.nak(delay=0.4)
        message = await queue.get(timeout=PATIENCE)
        assert asyncio.get_running_loop().time() - began > 0.35
        await message.ack()


async def test_where_no_queue_keeps_it(nats_server: NatsServer, namespace: str) -> None:
    async with clustered(nats_server, namespace) as bus:
        assert await bus.publish("job:new") == 0
        with pytest.raises(NotFoundError, match="job:new"):
            await bus.publish("job:new", durable=True)
        queue = AsyncQueue("job:*", durable="workers", bus=bus)
        other = AsyncQueue("*:other", durable="others", bus=bus)
        await queue.ready()
        await other.ready()
        await bus.publish("job:new", 1, durable=True)
        # The stream has it among its subjects, but no queue wants it.
        with pytest.raises(NotFoundError, match="x:y"):
            await bus.publish("x:y", durable=True)
        assert await take(queue, 1) == [1]
        assert await queue.delete()
        assert queue.closed
    alone = Bus()
    with pytest.raises(NotFoundError, match="no cluster"):
        await alone.publish("job:new", durable=True)
    with pytest.raises(ValueError, match="cluster"):
        AsyncQueue("job:*", durable="workers", bus=alone)


async def test_other_settings(nats_server: NatsServer, namespace: str) -> None:
    async with clustered(nats_server, namespace) as bus:
        await AsyncQueue("job:*", durable="workers", bus=bus).ready()
        await AsyncQueue("job:*", durable="workers", bus=bus).ready()
        for identifier, options in (
            ("job:*", {"tries": 3}),
            ("job:*", {"ack_wait": 10.0}),
            ("job:new", {}),
        ):
            queue = AsyncQueue(identifier, durable="workers", bus=bus, **options)
            with pytest.raises(ValueError, match="'workers' exists with"):
                await queue.ready()
    async with clustered(nats_server, namespace, durable=Durable(max_bytes=1 << 20)) as bus:
        with pytest.raises(ValueError, match="max_bytes=1073741824, not 1048576"):
            await AsyncQueue("job:*", durable="workers", bus=bus).ready()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"durable": "a b"}, "durable queue"),
        ({"durable": ""}, "durable queue"),
        ({"durable": "w", "tries": 0}, "tries"),
        ({"durable": "w", "ack_wait": 0}, "ack_wait"),
        ({"durable": "w", "shared": True}, "durable"),
        ({"durable": "w", "maxsize": 3}, "durable"),
        ({"durable": "w", "since": datetime(2026, 1, 1)}, "time zone"),
        ({"tries": 3}, "durable="),
    ],
)
async def test_invalid_arguments(
    nats_server: NatsServer, namespace: str, options: dict[str, Any], problem: str
) -> None:
    async with clustered(nats_server, namespace) as bus:
        with pytest.raises(ValueError, match=problem):
            AsyncQueue("job:*", bus=bus, **options)
        with pytest.raises(ValueError, match="local"):
            AsyncQueue("_job:*", bus=bus, durable="w")


async def test_replay_from_a_time(nats_server: NatsServer, namespace: str) -> None:
    async with clustered(nats_server, namespace) as bus:
        queue = AsyncQueue("job:*", durable="w", since=datetime.now(UTC), bus=bus)
        with pytest.raises(ValueError, match="keep="):
            await AsyncQueue("job:*", durable="first", bus=bus).ready()
            await queue.ready()
    namespace += "-kept"
    async with clustered(nats_server, namespace, durable=Durable(keep=timedelta(days=1))) as bus:
        first = AsyncQueue("job:*", durable="first", bus=bus)
        await first.ready()
        for number in range(3):
            await bus.publish("job:new", number)
        assert await take(first, 3) == [0, 1, 2]
        since = datetime.now(UTC) - timedelta(hours=1)
        again = AsyncQueue("job:*", durable="again", since=since, bus=bus)
        assert await take(again, 3) == [0, 1, 2]
        late = AsyncQueue("job:*", durable="late", bus=bus)
        await late.ready()
        assert await late.size() == 0


async def test_a_full_stream(nats_server: NatsServer, namespace: str) -> None:
    async with clustered(nats_server, namespace, durable=Durable(max_bytes=20_000)) as bus:
        queue = AsyncQueue("job:*", durable="workers", bus=bus)
        await queue.ready()
        with pytest.raises(OverloadedError, match="full"):
            for number in range(100):
                await bus.publish("job:new", number, b"x" * 1000)
        size = await queue.size()
        assert 10 < size < 20
        assert await take(queue, size) == list(range(size))
        await bus.publish("job:new", 100)


async def test_jetstream_is_off(start_nats: Callable[..., NatsServer], namespace: str) -> None:
    async with clustered(start_nats(), namespace) as bus:
        with pytest.raises(NotFoundError, match="-js"):
            await AsyncQueue("job:*", durable="workers", bus=bus).ready()
        assert await bus.publish("job:new") == 0
        with pytest.raises(NotFoundError):
            await bus.publish("job:new", durable=True)


async def test_messages_of_twitter_are_acknowledged_singly(
    nats_server: NatsServer, namespace: str
) -> None:
    async with clustered(nats_server, namespace) as bus:
        queue = AsyncQueue("job:*", durable="workers", ack_wait=1.0, bus=bus)
        await queue.ready()
        for number in range(50):
            bus.twitter("job:new", number)
        assert sorted(await take(queue, 50)) == list(range(50))
        await emptied(queue)


async def test_what_is_not_taken_goes_back(nats_server: NatsServer, namespace: str) -> None:
    async with (
        clustered(nats_server, namespace) as bus,
        clustered(nats_server, namespace) as other,
    ):
        queue = AsyncQueue("job:*", durable="workers", bus=bus)
        await queue.ready()
        for number in range(200):
            await bus.publish("job:new", number)
        taken = await take(queue, 50)
        queue.close()
        second = AsyncQueue("job:*", durable="workers", bus=other)
        taken += await take(second, 150)
        assert sorted(taken) == list(range(200))


async def test_a_cancelled_get_takes_nothing(nats_server: NatsServer, namespace: str) -> None:
    async with clustered(nats_server, namespace) as bus:
        queue = AsyncQueue("job:*", durable="workers", bus=bus)
        await queue.ready()
        getting = asyncio.create_task(queue.get())
        await asyncio.sleep(0.01)
        getting.cancel()
        await asyncio.wait((getting,))
        await bus.publish("job:new", 1)
        message = await queue.get(timeout=PATIENCE)
        assert (message.args, message.redelivered) == ((1,), False)
        await message.ack()


async def test_nats_is_killed_in_the_middle(
    start_nats: Callable[..., NatsServer], namespace: str
) -> None:
    server = start_nats(jetstream=True)
    async with clustered(server, namespace) as bus, clustered(server, namespace) as other:
        queue = AsyncQueue("job:*", durable="workers", ack_wait=2.0, bus=other)
        await queue.ready()
        told: list[int] = []

        async def publish(numbers: range) -> None:
            for number in numbers:
                await bus.publish("job:new", number, durable=True)
                told.append(number)

        senders = [asyncio.create_task(publish(range(i, 400, 8))) for i in range(8)]
        while len(told) < 100:
            await asyncio.sleep(0.001)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await asyncio.gather(*senders)
        assert sorted(told) == list(range(400))
        taken: set[int] = set()
        async with asyncio.timeout(PATIENCE * 2):
            while len(taken) < 400:
                async with queue.get() as message:
                    taken.add(message.args[0])
        assert taken == set(range(400))


def test_queues_for_threads(nats_server: NatsServer, namespace: str) -> None:
    bus = Bus()
    with SyncNode(bus, cluster=nats_server.url, namespace=namespace) as node:
        queue = Queue("job:*", durable="workers", bus=bus)
        for number in range(3):
            assert node.publish("job:new", number, durable=True) == 0
        assert queue.size() == 3
        with queue.get(timeout=PATIENCE) as message:
            assert message.args == (0,)
        message = queue.get(timeout=PATIENCE)
        message.nak()
        assert queue.get(timeout=PATIENCE).args[0] in (1, 2)
        taken: list[Message] = []
        thread = threading.Thread(target=lambda: taken.append(queue.get(timeout=PATIENCE)))
        thread.start()
        thread.join(PATIENCE)
        assert taken[0].args[0] in (1, 2)
        with pytest.raises(Empty):
            queue.get(timeout=0.05)
        assert queue.delete()
        assert queue.closed


async def test_a_queue_for_threads_on_an_event_loop(
    nats_server: NatsServer, namespace: str
) -> None:
    async with clustered(nats_server, namespace) as bus:
        with pytest.raises(RuntimeError, match="AsyncQueue"):
            Queue("job:*", durable="workers", bus=bus)


async def test_from_another_event_loop(nats_server: NatsServer, namespace: str) -> None:
    async with clustered(nats_server, namespace) as bus:

        async def elsewhere() -> list[Any]:
            queue = AsyncQueue("job:*", durable="workers", bus=bus)
            await queue.ready()
            for number in range(5):
                await bus.publish("job:new", number, durable=True)
            return await take(queue, 5)

        assert await asyncio.to_thread(asyncio.run, elsewhere()) == list(range(5))


async def test_who_is_cancelled_on_another_loop_keeps_nothing(
    nats_server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    """Neither a place among what is to be stored, nor a message."""
    monkeypatch.setattr(queues_module, "MAX_UNSTORED", 3)
    async with clustered(nats_server, namespace) as bus:
        queue = AsyncQueue("job:*", durable="workers", ack_wait=60.0, tries=1000, bus=bus)
        await queue.ready()
        await bus.publish("job:new", 0)

        async def elsewhere() -> int:
            """Give up in the very moment in which a place, or a message, is there."""
            begun = 0
            for turns in range(100):
                for coroutine in (bus.publish("job:more", turns), queue.get()):
                    task = asyncio.create_task(coroutine)
                    for _ in range(turns % 10):
                        await asyncio.sleep(0.0003)
                    begun += not task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                    if not task.cancelled() and isinstance(task.result(), Message):
                        await task.result().nak()
            return begun

        await asyncio.to_thread(asyncio.run, elsewhere())
        # All three places are there, and all that is in the stream comes without `ack_wait`.
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(bus.publish("job:last", number) for number in range(3)))
        left = await queue.size()
        assert len(await take(queue, left)) == left


async def test_publish_waits_while_nats_is_away(
    start_nats: Callable[..., NatsServer], namespace: str
) -> None:
    server = start_nats(jetstream=True)
    async with clustered(server, namespace) as bus, clustered(server, namespace) as other:
        queue = AsyncQueue("job:*", durable="workers", bus=other)
        await queue.ready()
        server.kill()
        # This node has not asked yet whether a queue keeps it.
        publishing = asyncio.create_task(bus.publish("job:new", 1, durable=True))
        known = asyncio.create_task(other.publish("job:new", 2, durable=True))
        done, _ = await asyncio.wait((publishing, known), timeout=0.3)
        assert not done
        await asyncio.to_thread(server.start)
        await publishing
        await known
        assert sorted(await take(queue, 2)) == [1, 2]


async def test_publish_waits_for_its_time_alone(
    start_nats: Callable[..., NatsServer],
    namespace: str,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What NATS is not back for in a minute is an error; the message may be stored nevertheless."""
    monkeypatch.setattr(cluster_module, "TIMEOUT", 0.6)
    monkeypatch.setattr(kept_module, "TIMEOUT", 0.6)
    server = start_nats(jetstream=True)
    async with clustered(server, namespace) as bus, clustered(server, namespace) as other:
        events: list[str] = []
        bus.regist_function("connection:*", lambda message: events.append(message.action))
        queue = AsyncQueue("job:*", durable="workers", bus=bus)
        await queue.ready()
        server.kill()
        await until(lambda: events == ["lost"])
        loop = asyncio.get_running_loop()
        began = loop.time()
        # This node knows that a queue keeps it, the other one cannot ask.
        for publisher, kind in ((bus, RPCTimeoutError), (other, ConnectionLostError)):
            async with asyncio.timeout(PATIENCE):
                with pytest.raises(kind):
                    await publisher.publish("job:new", 1, durable=True)
        assert 0.4 < loop.time() - began < 3.0
        await asyncio.to_thread(server.start)
        await until(lambda: events == ["lost", "restored"])
        await bus.publish("job:new", 2, durable=True)
        assert await take(queue, 2) == [1, 2]


async def test_a_queue_that_is_deleted_elsewhere(nats_server: NatsServer, namespace: str) -> None:
    async with (
        clustered(nats_server, namespace) as bus,
        clustered(nats_server, namespace) as other,
    ):
        queue = AsyncQueue("job:*", durable="workers", bus=bus)
        await queue.ready()
        getting = asyncio.create_task(queue.get())
        await asyncio.sleep(0.05)
        assert await AsyncQueue("job:*", durable="workers", bus=other).delete()
        with pytest.raises(NotFoundError, match="workers"):
            await getting
        with pytest.raises(NotFoundError, match="workers"):
            await queue.size()
        assert not await AsyncQueue("job:*", durable="workers", bus=other).delete()


async def test_malformed_messages_in_the_stream(nats_server: NatsServer, namespace: str) -> None:
    connection = Connection(Nats(nats_server.url))
    await connection.connect(PATIENCE)
    try:
        async with clustered(nats_server, namespace) as bus:
            queue = AsyncQueue("job:*", durable="workers", bus=bus)
            await queue.ready()
            for payload in (b"", b"{}", b"\x01\x00\x00\x00\x01\xc0", b"x" * 5000):
                connection.publish(f"berrymq.{namespace}.job.new", payload)
            await connection.flush(PATIENCE)
            await bus.publish("job:new", 1)
            assert await take(queue, 1) == [1]
            await emptied(queue)
    finally:
        await connection.close()


async def test_an_acknowledgement_without_a_server(
    start_nats: Callable[..., NatsServer], namespace: str, until: Until
) -> None:
    server = start_nats(jetstream=True)
    async with clustered(server, namespace) as bus:
        lost: list[Message] = []
        bus.regist_function("connection:lost", lost.append)
        queue = AsyncQueue("job:*", durable="workers", ack_wait=1.0, bus=bus)
        await queue.ready()
        await bus.publish("job:new", 1)
        message = await queue.get(timeout=PATIENCE)
        server.kill()
        await until(lambda: lost)
        assert not await message.ack()
        with pytest.raises(ConnectionLostError):
            await message.ack(confirm=True)
        await asyncio.to_thread(server.start)
        # One that is killed may not have noted yet that it gave the message out.
        message = await queue.get(timeout=PATIENCE)
        assert message.args == (1,)
        assert await message.ack(confirm=True)


async def test_queues_are_listed_and_deleted(nats_server: NatsServer, namespace: str) -> None:
    bus = Bus()
    async with Node(None, bus, cluster=nats_server.url, namespace=namespace) as node:
        assert await node.durable_queues() == []
        workers = AsyncQueue("job:*", durable="workers", tries=3, ack_wait=7.0, bus=bus)
        letters = AsyncQueue("dead:workers", durable="letters", bus=bus)
        for queue in (workers, letters):
            await queue.ready()
        for number in range(3):
            await bus.publish("job:new", number)
        await workers.get(timeout=PATIENCE)
        first, second = await node.durable_queues()
        assert (first.name, first.identifier, first.is_of_dead) == ("letters", "dead:workers", True)
        assert (second.name, second.identifier) == ("workers", "job:*")
        assert (second.waiting, second.unacknowledged) == (2, 1)
        assert (second.tries, second.ack_wait) == (3, 7.0)
        assert await node.delete_durable_queue("workers")
        assert not await node.delete_durable_queue("workers")
        assert [each.name for each in await node.durable_queues()] == ["letters"]
    async with Node(None, Bus()) as alone:
        with pytest.raises(ValueError, match="cluster"):
            await alone.durable_queues()


async def test_dead_letters_are_sent_again(nats_server: NatsServer, namespace: str) -> None:
    bus = Bus()
    async with Node(None, bus, cluster=nats_server.url, namespace=namespace) as node:
        assert await node.replay_dead("workers") == 0
        queue = AsyncQueue("job:*", durable="workers", tries=1, bus=bus)
        letters = AsyncQueue("dead:workers", durable="letters", bus=bus)
        await letters.ready()
        await queue.ready()
        for number in range(3):
            await bus.publish("job:new", number, key="k")
            await (await queue.get(timeout=PATIENCE)).nak()
        with pytest.raises(Empty):
            await queue.get(timeout=0.2)
        for _ in range(3):
            await (await letters.get(timeout=PATIENCE)).nak(delay=100.0)
        assert await node.replay_dead("workers") == 3
        assert await node.replay_dead("workers") == 0
        for number in range(3):
            async with queue.get(timeout=PATIENCE) as message:
                assert (message.id, message.args, message.kwargs) == (
                    "job:new",
                    (number,),
                    {"key": "k"},
                )
        await emptied(letters)


async def test_it_is_told_before_the_stream_is_full(
    nats_server: NatsServer, namespace: str
) -> None:
    async with clustered(nats_server, namespace, durable=Durable(max_bytes=100_000)) as bus:
        events: list[Message] = []
        bus.regist_function("queue:filling", events.append)
        await AsyncQueue("job:*", durable="unread", bus=bus).ready()
        for number in range(85):
            await bus.publish("job:new", number, b"x" * 900)
        async with asyncio.timeout(PATIENCE):
            while not events:
                # Small ones: it looks again after a second.
                await bus.publish("job:new")
                await asyncio.sleep(0.1)
        (event,) = events
        assert event.kwargs["queue"] == "unread"
        assert event.kwargs["max_bytes"] == 100_000
        assert event.kwargs["bytes"] > 80_000


async def test_a_queue_that_is_forgotten_is_closed(nats_server: NatsServer, namespace: str) -> None:
    async with clustered(nats_server, namespace) as bus:
        queue = AsyncQueue("job:*", durable="workers", bus=bus)
        for number in range(200):
            await queue.ready()
            await bus.publish("job:new", number)
        taken = await take(queue, 50)
        del queue
        gc.collect()
        again = AsyncQueue("job:*", durable="workers", bus=bus)
        taken += await take(again, 150)
        assert sorted(taken) == list(range(200))


async def test_a_node_is_closed_while_publish_waits(
    start_nats: Callable[..., NatsServer], namespace: str
) -> None:
    server = start_nats(jetstream=True)
    async with clustered(server, namespace, line_size=3) as bus:
        queue = AsyncQueue("job:*", durable="workers", bus=bus)
        await queue.ready()
        await bus.publish("job:new", 0)
        server.kill()
        waiting = [asyncio.create_task(bus.publish("job:new", number)) for number in range(1, 6)]
        done, _ = await asyncio.wait(waiting, timeout=0.5)
        # The first one, which is stored, may still be among those that are kept.
        assert len(done) in (2, 3)
        for task in done:
            with pytest.raises(OverloadedError):
                task.result()
    for task in set(waiting) - done:
        with pytest.raises(ServiceClosedError):
            await task
    await asyncio.to_thread(server.start)


async def test_messages_that_cannot_be_stored(
    start_nats: Callable[..., NatsServer], namespace: str
) -> None:
    server = start_nats("max_payload: 20000", jetstream=True)
    async with clustered(server, namespace) as bus:
        heard: list[Message] = []
        bus.regist_function("job:*", heard.append)
        queue = AsyncQueue("job:*", durable="workers", bus=bus)
        await queue.ready()
        with pytest.raises(TooLargeError, match="max_payload"):
            await bus.publish("job:new", b"x" * 30_000)
        with pytest.raises(TypeError, match="object"):
            await bus.publish("job:new", object())
        await bus.publish("job:new", b"x" * 15_000, [1, 2])
        # Receivers here have all of them.
        assert len(heard) == 3
        async with queue.get(timeout=PATIENCE) as message:
            assert message.args == (b"x" * 15_000, (1, 2))


def test_nothing_durable_in_the_child_of_a_fork(nats_server: NatsServer, namespace: str) -> None:
    bus = Bus()
    with SyncNode(bus, cluster=nats_server.url, namespace=namespace):
        Queue("job:*", durable="workers", bus=bus)
        child = os.fork()
        if not child:
            try:
                asyncio.run(bus.publish("job:new", durable=True))
            except NotFoundError:
                os._exit(7)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


async def test_messages_for_later(nats_server: NatsServer, namespace: str) -> None:
    bus = Bus()
    async with Node(None, bus, cluster=nats_server.url, namespace=namespace) as node:
        with pytest.raises(NotFoundError, match="job:new"):
            await node.publish_later(1.0, "job:new")
        queue = AsyncQueue("job:*", durable="workers", bus=bus)
        spaced = AsyncQueue("job@room:*", durable="spaced", bus=bus)
        await queue.ready()
        await spaced.ready()
        heard: list[Message] = []
        bus.regist_function("job:*", heard.append)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await node.publish_later(1.5, "job:new", "later", key=1)
        await node.publish_later(datetime.now(UTC) + timedelta(seconds=1), "job@room:x", "there")
        await bus.publish("job:new", "now")
        assert await take(queue, 1) == ["now"]
        async with queue.get(timeout=PATIENCE) as message:
            assert (message.id, message.args, message.kwargs) == ("job:new", ("later",), {"key": 1})
            assert loop.time() - began > 1.0
        assert await take(spaced, 1) == ["there"]
        assert [m.args for m in heard] == [("now",)]
        for when in (-1.0, float("inf"), datetime(2026, 1, 1)):
            with pytest.raises(ValueError, match=r"when|zone"):
                await node.publish_later(when, "job:new")
