import queue
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from berrymq_rpc.runtime.worker_thread import WorkerThread

PATIENCE = 20


@pytest.fixture
def thread() -> Iterator[WorkerThread]:
    made = WorkerThread("tests")
    yield made
    made.stop(PATIENCE)


class Held:
    """Holds the thread until it is let go."""

    def __init__(self, thread: WorkerThread) -> None:
        self._begun, self._go = threading.Event(), threading.Event()
        thread.put(self._hold)
        assert self._begun.wait(PATIENCE)

    def _hold(self) -> None:
        self._begun.set()
        assert self._go.wait(PATIENCE)

    def let_go(self) -> None:
        self._go.set()


def test_one_after_another_on_one_thread(thread: WorkerThread) -> None:
    done: queue.Queue[tuple[int, int]] = queue.Queue()
    for number in range(1000):
        thread.put(lambda number=number: done.put((number, threading.get_ident())))
    results = [done.get(timeout=PATIENCE) for _ in range(1000)]
    assert [number for number, _ in results] == [*range(1000)]
    ((ident,),) = ({ident for _, ident in results},)
    assert ident != threading.get_ident()


def test_from_many_threads(thread: WorkerThread) -> None:
    done: queue.Queue[tuple[int, int]] = queue.Queue()

    def put(sender: int) -> None:
        for number in range(500):
            thread.put(partial(done.put, (sender, number)))
            done_with = threading.Event()
            thread.put(done_with.set)
            assert done_with.wait(PATIENCE)

    senders = [threading.Thread(target=put, args=(sender,)) for sender in range(4)]
    for sender in senders:
        sender.start()
    results = [done.get(timeout=PATIENCE) for _ in range(2000)]
    for number in range(4):
        assert [value for sender, value in results if sender == number] == [*range(500)]
    for sender in senders:
        sender.join(PATIENCE)


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(1), KeyboardInterrupt()])
def test_what_fails_stops_nothing(
    thread: WorkerThread, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise error

    done = threading.Event()
    thread.put(fail)
    thread.put(done.set)
    assert done.wait(PATIENCE)
    assert "berrymq_rpc tests failed" in caplog.text


class TestBounds:
    def test_the_oldest_go(self) -> None:
        told: list[int] = []
        thread = WorkerThread(
            "tests", max_items=3, on_dropped=lambda thread: told.append(thread.dropped)
        )
        held = Held(thread)
        done: list[int] = []
        for number in range(103):
            thread.put(lambda number=number: done.append(number))
        assert (len(thread), thread.dropped) == (3, 100)
        assert told == [1, 2, 4, 8, 16, 32, 64]
        held.let_go()
        assert thread.stop(PATIENCE) == 0
        assert done == [100, 101, 102]

    def test_in_bytes(self) -> None:
        thread = WorkerThread("tests", max_bytes=1000)
        held = Held(thread)
        done: list[Any] = []
        for number in range(5):
            thread.put(lambda number=number: done.append(number), 400)
        assert (len(thread), thread.dropped) == (2, 3)
        # The last one stays, whatever its size.
        thread.put(lambda: done.append("large"), 5000)
        assert (len(thread), thread.dropped) == (1, 5)
        held.let_go()
        assert thread.stop(PATIENCE) == 0
        assert done == ["large"]


class TestStop:
    def test_does_what_came_before(self) -> None:
        thread = WorkerThread("tests")
        held = Held(thread)
        done = threading.Event()
        thread.put(done.set)
        held.let_go()
        assert thread.stop(PATIENCE) == 0
        assert done.is_set()
        thread.put(lambda: pytest.fail("it was stopped"))
        assert len(thread) == 0
        assert thread.stop(PATIENCE) == 0

    def test_waits_for_so_long_only(self) -> None:
        thread = WorkerThread("tests")
        held = Held(thread)
        thread.put(lambda: pytest.fail("it was dropped"))
        assert thread.stop(0.01) == 1
        held.let_go()
        assert thread.join(PATIENCE)
        assert not thread.is_alive

    def test_by_itself(self) -> None:
        thread = WorkerThread("tests")
        left: queue.Queue[int] = queue.Queue()
        thread.put(lambda: left.put(thread.stop(PATIENCE)))
        assert left.get(timeout=PATIENCE) == 0
        assert thread.join(PATIENCE)
        assert not thread.is_alive
