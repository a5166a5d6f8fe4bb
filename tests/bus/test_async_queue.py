"""Queues that are awaited."""

import asyncio
import gc
import threading
from typing import Any

import pytest

import berrymq_rpc
from berrymq_rpc.bus import AsyncQueue, Bus, Empty, Message, Queue

BOUND = 20.0


def drain(queue: AsyncQueue) -> list[Any]:
    return [queue.get_nowait().args[0] for _ in range(queue.qsize())]


async def until_waiting(queue: AsyncQueue, count: int) -> None:
    async with asyncio.timeout(BOUND):
        while queue.waiting < count:
            await asyncio.sleep(0)


async def test_first_in_first_out(bus: Bus) -> None:
    queue = AsyncQueue("task", bus=bus)
    for number in range(3):
        assert bus.twitter("task:run", number) == 1
    assert (queue.qsize(), queue.empty(), queue.full()) == (3, False, False)
    message = await queue.get()
    assert isinstance(message, Message)
    assert (message.id, message.args) == ("task:run", (0,))
    assert drain(queue) == [1, 2]
    assert str(queue.identifier) == "task:*"
    assert repr(queue) == "<AsyncQueue task:* 0 waiting>"


async def test_nothing_there(bus: Bus) -> None:
    queue = AsyncQueue("task", bus=bus)
    for get in (
        lambda: queue.get(False),
        lambda: queue.get(block=False, timeout=100),
        lambda: queue.get(timeout=0),
        lambda: queue.get(True, 0.001),
    ):
        with pytest.raises(Empty):
            await get()
    with pytest.raises(Empty):
        queue.get_nowait()
    assert queue.waiting == 0


@pytest.mark.parametrize("timeout", [-1, float("nan")])
async def test_bad_timeout(bus: Bus, timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        await AsyncQueue("task", bus=bus).get(timeout=timeout)


@pytest.mark.parametrize("timeout", [None, BOUND])
async def test_get_waits(bus: Bus, timeout: float | None) -> None:
    queue = AsyncQueue("task", bus=bus)
    getting = [asyncio.ensure_future(queue.get(timeout=timeout)) for _ in range(2)]
    await until_waiting(queue, 2)
    bus.twitter("task:run", 1)
    bus.twitter("task:run", 2)
    async with asyncio.timeout(BOUND):
        # Who waits longest gets the first.
        assert [(await task).args for task in getting] == [(1,), (2,)]


async def test_sent_from_other_threads(bus: Bus) -> None:
    count, threads = 200, 4
    queue = AsyncQueue("task", bus=bus)

    def send(number: int) -> None:
        for turn in range(count):
            assert bus.twitter("task:run", number, turn) == 1

    senders = [threading.Thread(target=send, args=(number,)) for number in range(threads)]
    for sender in senders:
        sender.start()
    async with asyncio.timeout(BOUND):
        seen = [(await queue.get()).args for _ in range(count * threads)]
    for sender in senders:
        sender.join(BOUND)
    for number in range(threads):
        assert [turn for other, turn in seen if other == number] == list(range(count))


async def test_iteration(bus: Bus) -> None:
    queue = AsyncQueue("task", bus=bus)
    for number in range(3):
        bus.twitter("task:run", number)
    seen: list[Any] = []

    async def consume() -> None:
        async for message in queue:
            seen.append(message.args[0])

    consuming = asyncio.ensure_future(consume())
    await until_waiting(queue, 1)
    bus.twitter("task:run", 3)
    await until_waiting(queue, 1)
    bus.twitter("task:run", 4)
    queue.close()
    await asyncio.wait_for(consuming, BOUND)
    assert seen == [0, 1, 2, 3, 4]
    assert [message async for message in queue] == []


async def test_breaking_out_leaves_the_rest(bus: Bus) -> None:
    queue = AsyncQueue("task", bus=bus)
    for number in range(3):
        bus.twitter("task:run", number)
    async for message in queue:
        assert message.args == (0,)
        break
    assert drain(queue) == [1, 2]


async def test_bounds(bus: Bus, caplog: Any) -> None:
    queue = AsyncQueue("task", maxsize=2, bus=bus)
    for number in range(5):
        bus.twitter("task:run", number)
    assert queue.full()
    assert (queue.dropped, queue.maxsize) == (3, 2)
    assert drain(queue) == [3, 4]
    assert "2 dropped so far" in caplog.text


async def test_close(bus: Bus) -> None:
    async with AsyncQueue("task", bus=bus) as queue:
        waiting = [asyncio.ensure_future(queue.get()) for _ in range(3)]
        await until_waiting(queue, 3)
    assert queue.closed
    assert repr(queue) == "<AsyncQueue task:* closed>"
    for task in waiting:
        with pytest.raises(Empty):
            await asyncio.wait_for(task, BOUND)
    assert bus.twitter("task:run") == 0
    with AsyncQueue("task", bus=bus) as queue:
        bus.twitter("task:run", 1)
    # What is there can still be taken.
    assert (await queue.get()).args == (1,)
    with pytest.raises(Empty):
        await queue.get()


async def test_shared(bus: Bus) -> None:
    """One backlog, also with those that threads read."""
    one, other = AsyncQueue("task", True, bus=bus), AsyncQueue("task:*", shared=True, bus=bus)
    blocking = Queue("task", shared=True, bus=bus)
    alone = AsyncQueue("task", bus=bus)
    assert bus.twitter("task:run", 0) == 2
    bus.twitter("task:run", 1)
    bus.twitter("task:run", 2)
    assert (await one.get()).args == (0,)
    assert blocking.get_nowait().args == (1,)
    assert (await other.get()).args == (2,)
    assert drain(alone) == [0, 1, 2]
    getting = [asyncio.ensure_future(queue.get()) for queue in (one, other)]
    await until_waiting(one, 2)
    one.close()
    with pytest.raises(Empty):
        await asyncio.wait_for(getting[0], BOUND)
    bus.twitter("task:run", 3)
    assert (await asyncio.wait_for(getting[1], BOUND)).args == (3,)


async def test_cancelled_get_takes_nothing(bus: Bus) -> None:
    """Also if it was chosen for a message already, and not run since."""
    queue = AsyncQueue("task", bus=bus)
    first, second, third = (asyncio.ensure_future(queue.get()) for _ in range(3))
    await until_waiting(queue, 3)
    second.cancel()
    bus.twitter("task:run", 1)
    first.cancel()
    for task in (first, second):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (await asyncio.wait_for(third, BOUND)).args == (1,)
    assert queue.empty()


async def test_a_quicker_reader(bus: Bus) -> None:
    """The one that was woken finds nothing, and waits on."""
    queue = AsyncQueue("task", bus=bus)
    getting = asyncio.ensure_future(queue.get())
    await until_waiting(queue, 1)
    bus.twitter("task:run", 1)
    assert queue.get_nowait().args == (1,)
    await until_waiting(queue, 1)
    assert not getting.done()
    bus.twitter("task:run", 2)
    assert (await asyncio.wait_for(getting, BOUND)).args == (2,)


async def test_threads_and_coroutines_wait_together(bus: Bus) -> None:
    one, other = AsyncQueue("task", True, bus=bus), Queue("task", True, bus=bus)
    taken: list[Any] = []

    def pull() -> None:
        for message in other:
            taken.append(message.args[0])

    async def get() -> None:
        async for message in one:
            taken.append(message.args[0])

    thread = threading.Thread(target=pull, daemon=True)
    thread.start()
    getting = asyncio.ensure_future(get())
    await until_waiting(one, 1)
    for number in range(500):
        bus.twitter("task:run", number)
        if number % 50 == 0:
            await asyncio.sleep(0)
    async with asyncio.timeout(BOUND):
        while len(taken) < 500:
            await asyncio.sleep(0)
    one.close()
    other.close()
    await asyncio.wait_for(getting, BOUND)
    thread.join(BOUND)
    assert sorted(taken) == list(range(500))


def test_a_loop_that_was_closed(bus: Bus) -> None:
    """Whoever waited there is passed over."""
    queue = AsyncQueue("task", bus=bus)
    loop = asyncio.new_event_loop()
    task = loop.create_task(queue.get())
    loop.run_until_complete(until_waiting(queue, 1))
    lost = task.get_coro()
    loop.close()
    sender = threading.Thread(target=bus.twitter, args=("task:run", 1))
    sender.start()
    sender.join(BOUND)
    assert asyncio.run(queue.get()).args == (1,)
    # asyncio says that a task was left behind, which is so.
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError):
        lost.throw(RuntimeError())  # type: ignore[union-attr]


async def test_forgotten_queue_is_not_filled(bus: Bus) -> None:
    queue = AsyncQueue("task", bus=bus)
    assert bus.twitter("task:run") == 1
    del queue
    gc.collect()
    assert bus.twitter("task:run") == 0


async def test_default_bus() -> None:
    with AsyncQueue("test-default-async-queue") as queue:
        assert berrymq_rpc.twitter("test-default-async-queue:x", 1) == 1
        assert (await queue.get()).args == (1,)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [({"identifier": ""}, ValueError), ({"identifier": "a", "maxsize": -1}, ValueError)],
)
def test_refused(bus: Bus, arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        AsyncQueue(**arguments, bus=bus)
