"""`Interval`, on threads and on event loops."""

import asyncio
import itertools
import os
import threading
import time
from typing import Any

import pytest

from berrymq_rpc import Interval, Message
from berrymq_rpc.bus import Bus, Queue

BOUND = 20.0


@pytest.fixture
def bus() -> Bus:
    return Bus()


def test_ticks_on_a_thread(bus: Bus) -> None:
    with Queue("tick:tick", bus=bus) as queue, Interval("tick", 0.01, bus) as interval:
        got = [queue.get(timeout=BOUND) for _ in range(3)]
    numbers = [message.args[0] for message in got]
    assert numbers == sorted(set(numbers))
    assert numbers[0] >= 1
    assert interval.closed
    assert interval.count >= numbers[-1]
    assert "berrymq_rpc Interval" not in [thread.name for thread in threading.enumerate()]


async def test_ticks_on_the_event_loop(bus: Bus) -> None:
    threads: set[int] = set()
    ticks: asyncio.Queue[int] = asyncio.Queue()

    @bus.following_function("tick@plant:tick")
    def receive(message: Message) -> None:
        threads.add(threading.get_ident())
        # Raises in any thread but that of the loop, in debug mode.
        asyncio.get_running_loop().call_soon(ticks.put_nowait, message.args[0])

    async with Interval("tick@plant", 0.01, bus) as interval:
        async with asyncio.timeout(BOUND):
            for _ in range(3):
                await ticks.get()
    assert threads == {threading.get_ident()}
    count = interval.count
    await asyncio.sleep(0.03)
    assert interval.count == count
    assert interval.name == "tick@plant"


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_what_a_receiver_raises_does_not_end_it(bus: Bus, error: type[BaseException]) -> None:
    with Queue("tick:tick", bus=bus) as queue:

        @bus.following_function("tick:tick")
        def fail(message: Message) -> None:
            raise error

        with Interval("tick", 0.005, bus):
            first, second = (queue.get(timeout=BOUND).args[0] for _ in range(2))
    assert first < second


def test_an_interrupt_on_a_loop_does_not_end_it(bus: Bus) -> None:
    loop = asyncio.new_event_loop()
    got: list[int] = []

    @bus.following_function("tick:tick")
    def receive(message: Message) -> None:
        got.append(message.args[0])
        if len(got) == 1:
            raise KeyboardInterrupt
        loop.stop()

    async def start() -> Interval:
        return Interval("tick", 0.005, bus)

    interval = loop.run_until_complete(start())
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    loop.run_forever()
    assert len(got) == 2
    loop.close()
    assert interval.closed
    interval.close()


def test_slow_receivers_skip_ticks(bus: Bus) -> None:
    with Queue("tick:tick", bus=bus) as queue:
        interval = Interval("tick", 0.01, bus)

        @bus.following_function("tick:tick")
        def receive(message: Message) -> None:
            time.sleep(0.035)

        numbers = [queue.get(timeout=BOUND).args[0] for _ in range(4)]
        interval.close()
    gaps = [later - earlier for earlier, later in itertools.pairwise(numbers[1:])]
    assert all(gap >= 3 for gap in gaps)
    assert interval.skipped >= sum(gaps) - len(gaps)


def test_a_receiver_may_close_it(bus: Bus) -> None:
    interval: list[Interval] = []
    with Queue("tick:tick", bus=bus) as queue:
        ready = threading.Event()

        @bus.following_function("tick:tick")
        def receive(message: Message) -> None:
            ready.wait(BOUND)
            interval[0].close()

        interval.append(Interval("tick", 0.005, bus))
        ready.set()
        queue.get(timeout=BOUND)
        interval[0].close()
        assert queue.empty()


async def test_another_thread_may_close_it(bus: Bus) -> None:
    interval = Interval("tick", 3600, bus)
    await asyncio.to_thread(interval.close)
    assert interval.closed
    await interval.aclose()
    assert "closed" in repr(interval)


def test_after_a_fork(bus: Bus) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    with Queue("tick:tick", bus=bus) as queue, Interval("tick", 0.01, bus) as interval:
        queue.get(timeout=BOUND)
        child = os.fork()
        if child == 0:
            # Nothing but the outcome leaves the child.
            interval.close()
            os._exit(0 if interval.closed else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        while not queue.empty():
            queue.get_nowait()
        assert queue.get(timeout=BOUND)


@pytest.mark.parametrize(
    ("name", "seconds", "error", "text"),
    [
        ("tick:tock", 1, ValueError, "has an action"),
        ("*", 1, ValueError, "wildcard"),
        ("tick@*", 1, ValueError, "wildcard"),
        ("", 1, ValueError, "identifier"),
        (3, 1, TypeError, "identifier"),
        ("tick", 0, ValueError, "above 0"),
        ("tick", -1, ValueError, "above 0"),
        ("tick", float("inf"), ValueError, "above 0"),
        ("tick", float("nan"), ValueError, "above 0"),
        ("tick", "1", TypeError, "number"),
        ("tick", True, TypeError, "number"),
    ],
)
def test_bad_arguments(bus: Bus, name: Any, seconds: Any, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        Interval(name, seconds, bus)
