"""Any thread may send, follow, unfollow, pull and forget, all at once."""

import asyncio
import contextlib
import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from berrymq_rpc.bus import AsyncQueue, Bus, Empty, Message, Queue
from berrymq_rpc.bus.thread_pool import pools

BOUND = 30.0
THREADS = 8


@pytest.fixture(autouse=True)
def switch_often() -> Iterator[None]:
    """Let Python change between threads after nearly each instruction."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.fixture
def bus() -> Bus:
    bus = Bus()
    bus.on_error = lambda error, message, receiver: problems.append(error)
    problems: list[BaseException] = []
    bus.problems = problems  # type: ignore[attr-defined]
    return bus


def together(*functions: Callable[[], Any]) -> None:
    """Run each function in a thread of its own, all from the same moment; raise what they raise."""
    barrier = threading.Barrier(len(functions))
    errors: list[BaseException] = []

    def run(function: Callable[[], Any]) -> None:
        barrier.wait(BOUND)
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(f,), daemon=True) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND)
    assert not any(thread.is_alive() for thread in threads)
    if errors:
        raise errors[0]


class Listener:
    """Counts what it hears, in any thread."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def hear(self, message: Message) -> None:
        self.heard.append(message.args)


def test_hammer(bus: Bus) -> None:
    """One receiver that stays hears all, whatever comes and goes around it."""
    stays, wild = Listener(), Listener()
    bus.regist_method("a:b", stays.hear)
    bus.regist_method("*:*", wild.hear)
    rounds = 200

    def send(number: int) -> Callable[[], None]:
        def run() -> None:
            for turn in range(rounds):
                assert bus.twitter("a:b", number, turn) >= 2
                bus.twitter("a:*", number, turn)
                bus.twitter(f"once-{number}-{turn}:x")

        return run

    def come_and_go() -> None:
        def receive(message: Message) -> None: ...

        for turn in range(rounds):
            bus.regist_function("a:b", receive)
            assert bus.twitter("a:b", "mine") >= 3
            passing = Listener()
            bus.regist_method("a:*", passing.hear)
            bus.regist_method(f"n{turn % 7}:b", passing.hear)
            assert bus.unfollow("a:b", receive) == 1
            del passing

    def pull() -> None:
        for _ in range(rounds // 4):
            with Queue("a:b", shared=True, bus=bus) as shared, Queue("a", bus=bus) as queue:
                bus.twitter("a:b", "pulled")
                queue.get_nowait()
                # Another thread may have been quicker.
                with contextlib.suppress(Empty):
                    shared.get_nowait()

    together(*[send(number) for number in range(3)], *[come_and_go] * 3, *[pull] * 2)
    gc.collect()
    assert bus.problems == []  # type: ignore[attr-defined]
    assert len(bus.registrations()) == 2
    assert bus.statistics()["changes_waiting"] == 0
    for number in range(3):
        mine = [args for args in stays.heard if args[0] == number]
        assert mine == [(number, turn) for turn in range(rounds) for _ in range(2)]
    assert len(wild.heard) == len(stays.heard) + 3 * rounds


def test_following_is_in_force_when_it_returns(bus: Bus) -> None:
    """Even if another thread made the change on behalf of this one."""

    def follow_and_send(number: int) -> Callable[[], None]:
        def run() -> None:
            for turn in range(300):
                listener = Listener()
                bus.regist_method(f"own{number}:x", listener.hear)
                assert bus.twitter(f"own{number}:x", turn) == 1
                assert listener.heard == [(turn,)]
                assert bus.unfollow(f"own{number}:x", listener.hear) == 1
                assert bus.twitter(f"own{number}:x", turn) == 0

        return run

    together(*[follow_and_send(number) for number in range(THREADS)])
    assert bus.registrations() == []


def test_competing_consumers_take_each_message_once(bus: Bus) -> None:
    count = 500
    queues = [Queue("task", shared=True, bus=bus) for _ in range(4)]
    taken: list[Any] = []
    sent = threading.Barrier(4)

    def consume(queue: Queue) -> Callable[[], None]:
        def run() -> None:
            for message in queue:
                taken.append(message.args)

        return run

    def produce(number: int) -> Callable[[], None]:
        def run() -> None:
            for turn in range(count):
                assert bus.twitter("task:run", number, turn) == 1
            if sent.wait(BOUND) == 0:
                for queue in queues:
                    queue.close()

        return run

    together(*[consume(queue) for queue in queues], *[produce(number) for number in range(4)])
    for queue in queues:
        taken += [message.args for message in queue]
    assert sorted(taken) == [(number, turn) for number in range(4) for turn in range(count)]


def test_one_consumer_sees_each_sender_in_order(bus: Bus) -> None:
    queue = Queue("task", bus=bus)
    count = 300

    def produce(number: int) -> Callable[[], None]:
        return lambda: [bus.twitter("task:run", number, turn) for turn in range(count)]

    together(*[produce(number) for number in range(4)])
    seen = [queue.get(timeout=BOUND).args for _ in range(4 * count)]
    for number in range(4):
        assert [turn for sender, turn in seen if sender == number] == list(range(count))


def test_shared_queues_opened_and_closed_at_once(bus: Bus) -> None:
    def run() -> None:
        for _ in range(100):
            queue = Queue("task", shared=True, bus=bus)
            assert bus.twitter("task:run") == 1
            queue.close()

    together(*[run] * THREADS)
    assert bus.registrations() == []
    assert bus.twitter("task:run") == 0


def test_bounded_queue_loses_only_what_it_counts(bus: Bus) -> None:
    queue = Queue("task", maxsize=10, bus=bus)
    together(*[lambda: [bus.twitter("task:run") for _ in range(200)]] * THREADS)
    assert queue.qsize() == 10
    assert queue.dropped == THREADS * 200 - 10


def test_collection_never_waits_for_another_thread(bus: Bus) -> None:
    """An object dies here while a change is being made there: its end must not wait for that."""
    changing, died = threading.Event(), threading.Event()
    in_time: list[bool] = []
    listener = Listener()
    bus.regist_method("a:b", listener.hear)
    holder = [listener]
    del listener

    class SlowGuard:
        def __call__(self, message: Message) -> bool:
            return True

        def __del__(self) -> None:
            changing.set()
            in_time.append(died.wait(BOUND))

    def receive(message: Message) -> None: ...

    # Its registration has the only reference to the guard, which ends in the midst of a change.
    bus.regist_function("a:b", receive, SlowGuard())

    def die() -> None:
        assert changing.wait(BOUND)
        holder.clear()
        died.set()

    together(lambda: bus.unfollow("a:b", receive), die)
    assert in_time == [True]
    assert bus.registrations() == []
    assert bus.statistics()["changes_waiting"] == 0


def test_depth_is_counted_for_each_thread(bus: Bus) -> None:
    @bus.following_function("count:down")
    def count(message: Message) -> None:
        if message.args[0]:
            bus.twitter("count:down", message.args[0] - 1)

    together(*[lambda: bus.twitter("count:down", 60)] * THREADS)
    assert bus.problems == []  # type: ignore[attr-defined]


def test_objects_made_and_forgotten_in_all_threads(bus: Bus) -> None:
    def run() -> None:
        for turn in range(200):
            listener = Listener()
            listener.itself = listener  # type: ignore[attr-defined]
            bus.regist_method("a:b", listener.hear)
            bus.twitter("a:b")
            if turn % 20 == 0:
                gc.collect(0)

    together(*[run] * THREADS)
    gc.collect()
    bus.twitter("a:b")
    assert bus.registrations() == []
    assert bus.statistics()["changes_waiting"] == 0


@pytest.mark.parametrize("multiplicity", [0, 4])
def test_hammer_of_all_kinds(bus: Bus, multiplicity: int) -> None:
    """Senders, talkers, publishers, sync, pooled and async receivers, and readers of all kinds."""
    rounds = 200
    listener = Listener()
    threads_of_loops = set()
    answers = Queue("answer", bus=bus)
    taken: list[Any] = []
    senders = threading.Barrier(4)
    shared = [Queue("task", shared=True, bus=bus), AsyncQueue("task", shared=True, bus=bus)]
    bus.set_multiplicity(multiplicity)
    bus.regist_method("task:run", listener.hear)

    @bus.following_function("task:run")
    async def receive(message: Message) -> None:
        threads_of_loops.add(threading.current_thread().name)

    bus.regist_function("ask:x", lambda message: message.args)

    @bus.following_function("ask:x")
    async def answer(message: Message) -> Any:
        await asyncio.sleep(0)
        return message.args

    def sent() -> None:
        if senders.wait(BOUND) == 0:
            for queue in shared:
                queue.close()

    def send(number: int) -> Callable[[], None]:
        def run() -> None:
            for turn in range(rounds):
                assert bus.twitter("task:run", number, turn) == 3
                bus.set_multiplicity(multiplicity + turn % 2 * multiplicity)
            sent()

        return run

    def publish() -> None:
        async def main() -> None:
            for turn in range(rounds):
                async with asyncio.timeout(BOUND):
                    assert await bus.publish("task:run", 2, turn) == 3

        asyncio.run(main())
        sent()

    def talk() -> None:
        for turn in range(rounds):
            assert bus.talk("ask:x", "answer:x", turn) == 2
        sent()

    def pull() -> None:
        for message in shared[0]:
            taken.append(message.args)

    def pull_by_coroutine() -> None:
        async def main() -> None:
            async with asyncio.timeout(BOUND):
                async for message in shared[1]:
                    taken.append(message.args)

        asyncio.run(main())

    def look() -> None:
        for _ in range(rounds // 10):
            assert "task:run" in bus.show_followers()
            assert bus.show_network().startswith("digraph")

    together(send(0), send(1), publish, talk, pull, pull_by_coroutine, look)
    bus.set_multiplicity(0)
    for pool in pools():
        if pool.is_closed:
            assert pool.join(time.monotonic() + BOUND) == 0
    expected = [(number, turn) for number in range(3) for turn in range(rounds)]
    taken += [message.args for message in shared[0]]
    assert sorted(taken) == expected
    assert sorted(listener.heard) == expected
    found = [answers.get(timeout=BOUND) for _ in range(2 * rounds)]
    assert sorted(message.args[0][0] for message in found) == sorted([*range(rounds)] * 2)
    assert all(message.error is None for message in found)
    assert bus.problems == []  # type: ignore[attr-defined]
