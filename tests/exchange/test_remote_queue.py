import asyncio
import gc
import logging
import random
import sys
import threading
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from berrymq_rpc.bus import Message
from berrymq_rpc.exchange.remote_queue import RemoteQueue
from berrymq_rpc.exchange.stored_message import OVERHEAD, MessagePacker, StoredMessage
from berrymq_rpc.identifier import Identifier

PACKER = MessagePacker()


def message(number: Any) -> Message:
    return Message(Identifier("job:new"), (number,), {})


def queue(max_messages: int = 1000, *, holding: int = 0, **options: Any) -> RemoteQueue:
    made = RemoteQueue(Identifier("job:*"), max_messages, packer=PACKER, **options)
    for number in range(holding):
        made.put(message(number))
    return made


def number(stored: StoredMessage | None) -> Any:
    return None if stored is None else PACKER.message(stored).args[0]


def numbers(box: RemoteQueue) -> list[int]:
    found = []
    while (stored := box.take()) is not None:
        found.append(number(stored))
    return found


async def waiting(box: RemoteQueue, count: int = 1) -> list[asyncio.Task[StoredMessage | None]]:
    """Consumers that wait, in order."""
    tasks = [asyncio.create_task(box.get(None)) for _ in range(count)]
    while box.consumers < count:
        await asyncio.sleep(0)
    return tasks


async def test_first_in_first_out() -> None:
    box = queue(holding=3)
    assert len(box) == 3
    assert [number(await box.get(None)), number(box.take()), number(await box.get(0.0))] == [
        0,
        1,
        2,
    ]
    assert box.take() is None


async def test_nothing_in_time() -> None:
    box = queue()
    assert await box.get(0.0) is None
    assert await box.get(0.01) is None
    assert box.consumers == 0
    box.put(message(1))
    assert number(box.take()) == 1


async def test_consumers_are_served_in_order_and_once() -> None:
    box = queue()
    tasks = await waiting(box, 3)
    for value in range(4):
        box.put(message(value))
    assert [number(await task) for task in tasks] == [0, 1, 2]
    assert numbers(box) == [3]


async def test_a_newcomer_waits_behind_those_who_wait() -> None:
    box = queue()
    (task,) = await waiting(box)
    box.put(message(0))
    newcomer = asyncio.create_task(box.get(0.0))
    assert number(await task) == 0
    assert await newcomer is None


async def test_from_another_thread() -> None:
    box = queue()
    tasks = await waiting(box, 50)
    threads = [
        threading.Thread(target=lambda: [box.put(message(n)) for n in range(25)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    found = [number(await task) for task in tasks]
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert sorted([*found, *numbers(box)]) == sorted([*range(25)] * 4)


async def test_a_cancelled_consumer_leaves_the_message() -> None:
    box = queue()
    (task,) = await waiting(box)
    box.put(message(0))
    # The message is handed over in the same tick in which the consumer is cancelled.
    await asyncio.sleep(0)
    assert box.consumers == len(box) == 0
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    box.put(message(1))
    assert numbers(box) == [0, 1]


async def test_a_cancelled_consumer_takes_nothing() -> None:
    box = queue()
    first, second = await waiting(box, 2)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    box.put(message(0))
    assert number(await second) == 0


async def test_a_message_that_comes_as_the_time_is_over_is_taken() -> None:
    box = queue()
    task = asyncio.create_task(box.get(0.001))
    while not box.consumers:
        await asyncio.sleep(0)
    box.put(message(0))
    await asyncio.sleep(0)
    assert box.consumers == len(box) == 0
    # The time is over before the consumer runs.
    time.sleep(0.002)
    assert number(await task) == 0


class TestPutBack:
    async def test_goes_before_the_others(self) -> None:
        box = queue(holding=3)
        stored = box.take()
        assert stored is not None
        box.put_back(stored)
        assert numbers(box) == [0, 1, 2]

    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
    async def test_several_keep_their_order(self, order: tuple[int, ...]) -> None:
        box = queue(holding=5)
        messages = [box.take() for _ in range(3)]
        for index in order:
            stored = messages[index]
            assert stored is not None
            box.put_back(stored)
        assert numbers(box) == [0, 1, 2, 3, 4]

    async def test_many_come_back_in_linear_time(self) -> None:
        count = 30_000
        box = queue(count, holding=count)
        messages = [stored for _ in range(count) if (stored := box.take()) is not None]
        assert len(messages) == count
        random.Random(1).shuffle(messages)
        began = time.perf_counter()
        for stored in messages:
            box.put_back(stored)
        # A search for the place of each takes minutes.
        assert time.perf_counter() - began < 2
        box.put(message(count))
        assert numbers(box) == [*range(1, count + 1)]

    async def test_goes_to_who_waits(self) -> None:
        box = queue(holding=1)
        stored = box.take()
        assert stored is not None
        (task,) = await waiting(box)
        box.put_back(stored)
        assert await task is stored

    async def test_is_the_oldest_of_a_full_one(self) -> None:
        box = queue(2, holding=2)
        stored = box.take()
        assert stored is not None
        box.put(message(2))
        box.put_back(stored)
        assert numbers(box) == [1, 2]
        assert box.dropped == 1


class TestFull:
    async def test_drops_the_oldest(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING, "berrymq_rpc.exchange"):
            box = queue(3, holding=103)
        assert box.dropped == 100
        assert numbers(box) == [100, 101, 102]
        assert caplog.messages == [
            f"remote queue job:*: full with 3 messages, {count} dropped so far"
            for count in range(1, 11)
        ]

    async def test_counts_what_cannot_be_sent(self, caplog: pytest.LogCaptureFixture) -> None:
        box = queue(holding=1)
        stored = box.take()
        assert stored is not None
        box.discard(stored)
        assert box.dropped == 1
        assert "cannot be sent, 1 dropped so far" in caplog.text

    async def test_bytes(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING, "berrymq_rpc.exchange"):
            box = queue(max_bytes=3 * (OVERHEAD + 1010))
            for value in range(5):
                box.put(message(bytes([value] * 1000)))
        assert [stored[0] for stored in numbers(box)] == [2, 3, 4]
        assert box.dropped == 2
        assert box.bytes == 0
        assert caplog.messages[0].startswith("remote queue job:*: full with 3,930 bytes, 1 dropped")

    async def test_bytes_of_one_that_is_too_large(self) -> None:
        box = queue(max_bytes=OVERHEAD + 1000)
        box.put(message(0))
        box.put(message("x" * 1000))
        assert box.dropped == 1
        assert numbers(box) == [0]

    async def test_bytes_of_what_comes_back(self) -> None:
        box = queue(max_bytes=2 * (OVERHEAD + 1010), holding=0)
        for value in (0, 1):
            box.put(message(bytes([value] * 1000)))
        stored = box.take()
        assert stored is not None
        box.put(message(bytes([2] * 1000)))
        box.put_back(stored)
        # It was the oldest.
        assert [found[0] for found in numbers(box)] == [1, 2]
        assert box.bytes == 0

    async def test_a_consumer_is_reported_once(self) -> None:
        box = queue(2, holding=5)
        stored = box.take()
        assert stored is not None
        assert stored.dropped == 3
        box.put_back(stored)
        messages = [box.take(), box.take()]
        assert [stored and stored.dropped for stored in messages] == [3, 0]

    async def test_the_sender_is_reported_at_a_bounded_rate(self) -> None:
        reported: list[int] = []
        box = queue(2, holding=102, on_dropped=lambda box: reported.append(box.dropped))
        assert reported == [1, 2, 4, 8, 16, 32, 64]
        # What is called may send messages that are kept here.
        box = queue(2, on_dropped=lambda box: box.put(message(0)))
        for value in range(100):
            box.put(message(value))
        assert 98 <= box.dropped < 110

    async def test_counts_what_cannot_be_packed(self) -> None:
        reported: list[int] = []
        box = queue(on_dropped=lambda box: reported.append(box.dropped))
        with pytest.raises(TypeError, match=r"args\[0\]"):
            box.put(message(object()))
        assert (box.dropped, reported, len(box)) == (1, [1], 0)
        with pytest.raises(TypeError, match=r"kwargs\['b'\]"):
            box.put(Message(Identifier("job:new"), (1,), {"a": 1, "b": object()}))


class TestClosed:
    async def test_lets_consumers_go(self) -> None:
        box = queue()
        tasks = await waiting(box, 2)
        box.close()
        assert [await task for task in tasks] == [None, None]

    async def test_keeps_nothing(self) -> None:
        box = queue(holding=2)
        stored = box.take()
        assert stored is not None
        box.close()
        box.put(message(5))
        box.put_back(stored)
        assert box.take() is None
        assert await box.get(None) is None

    def test_with_its_loop_and_a_consumer_left(self) -> None:
        async def leave() -> tuple[RemoteQueue, Coroutine[Any, Any, Any]]:
            box = queue()
            consumer = box.get(None)
            # It waits from now on.
            consumer.send(None)
            return box, consumer

        box, consumer = asyncio.run(leave())
        # Another thread may send for a moment longer.
        box.put(message(0))
        assert box.is_closed
        consumer.close()


class TestPackedOnce:
    async def test_for_all_queues(self) -> None:
        boxes = [queue() for _ in range(3)]
        sent = message("x" * 10_000)
        for box in boxes:
            box.put(sent)
        taken = [box.take() for box in boxes]
        assert len({id(stored) for stored in taken}) == 3
        assert len({id(stored.data) for stored in taken if stored is not None}) == 1
        assert [number(stored) for stored in taken] == ["x" * 10_000] * 3

    async def test_each_message_is_itself(self) -> None:
        box = queue()
        for value in range(100):
            # Objects of the same place in memory, one after another.
            box.put(message(value))
        assert numbers(box) == [*range(100)]

    async def test_nothing_is_kept_of_one_that_is_over(self) -> None:
        packer = MessagePacker()
        sent = message([1])
        packed = packer.pack(sent)
        references = sys.getrefcount(packed.data)
        del sent
        gc.collect()
        left = sys.getrefcount(packed.data)
        assert left == references - 1
