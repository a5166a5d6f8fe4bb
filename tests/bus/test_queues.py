"""Queues: order, bounds, sharing, closing, waiting."""

import gc
import logging
import queue as standard
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import berrymq_rpc
from berrymq_rpc.bus import Bus, Empty, Message, Queue

# How long anything may take before a test gives up.
BOUND = 30.0


def drain(queue: Queue) -> list[Any]:
    taken = []
    while not queue.empty():
        taken.append(queue.get_nowait().args[0])
    return taken


def in_thread(function: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Run `function`, and gather what it returns or raises."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, results


def until_waiting(queue: Queue, count: int = 1) -> None:
    """Wait until it is empty and this many threads wait in `get`."""
    deadline = time.monotonic() + BOUND
    while queue.waiting != count or not queue.empty():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_first_in_first_out(bus: Bus) -> None:
    queue = Queue("task:*", bus=bus)
    for number in range(5):
        assert bus.twitter("task:run", number) == 1
    assert bus.twitter("other:run") == 0
    assert queue.qsize() == 5
    assert not queue.empty()
    message = queue.get()
    assert isinstance(message, Message)
    assert (message.id, message.args) == ("task:run", (0,))
    assert drain(queue) == [1, 2, 3, 4]
    assert queue.empty()
    assert queue.qsize() == 0


def test_nothing_there(bus: Bus) -> None:
    queue = Queue("task", bus=bus)
    for get in (
        queue.get_nowait,
        lambda: queue.get(False),
        lambda: queue.get(block=False, timeout=100),
        lambda: queue.get(timeout=0),
        lambda: queue.get(True, 0.001),
    ):
        with pytest.raises(Empty):
            get()
    assert Empty is standard.Empty


@pytest.mark.parametrize("timeout", [-1, -0.001, float("nan")])
def test_bad_timeout(bus: Bus, timeout: float) -> None:
    queue = Queue("task", bus=bus)
    with pytest.raises(ValueError, match="timeout"):
        queue.get(timeout=timeout)


def test_get_waits(bus: Bus) -> None:
    queue = Queue("task", bus=bus)
    for timeout in (None, BOUND):
        thread, results = in_thread(lambda timeout=timeout: queue.get(timeout=timeout))
        until_waiting(queue)
        bus.twitter("task:run", 7)
        thread.join(BOUND)
        assert [message.args for message in results] == [(7,)]


def test_standalone_queues_get_all(bus: Bus) -> None:
    queues = [Queue("task", bus=bus), Queue("task", bus=bus), Queue("*:run", bus=bus)]
    assert bus.twitter("task:run", 1) == 3
    assert [drain(queue) for queue in queues] == [[1], [1], [1]]


def test_shared_queues_have_one_backlog(bus: Bus) -> None:
    one = Queue("task", shared=True, bus=bus)
    other = Queue("task:*", True, bus=bus)
    alone = Queue("task", bus=bus)
    elsewhere = Queue("task:run", shared=True, bus=bus)
    assert bus.twitter("task:run", 1) == 3
    assert bus.twitter("task:run", 2) == 3
    assert one.qsize() == other.qsize() == 2
    assert one.get_nowait().args == (1,)
    assert other.get_nowait().args == (2,)
    assert one.empty()
    assert other.empty()
    assert drain(alone) == drain(elsewhere) == [1, 2]
    assert (one.shared, alone.shared) == (True, False)


def test_shared_queues_of_two_buses_are_apart(bus: Bus) -> None:
    one, other = Queue("task", True, bus=bus), Queue("task", True, bus=Bus())
    bus.twitter("task:run", 1)
    assert (one.qsize(), other.qsize()) == (1, 0)


def test_shared_queues_agree_on_maxsize(bus: Bus) -> None:
    one = Queue("task", shared=True, maxsize=3, bus=bus)
    with pytest.raises(ValueError, match=r"'task:\*' have maxsize=3, not 0"):
        Queue("task", shared=True, bus=bus)
    assert Queue("task", shared=True, maxsize=3, bus=bus).maxsize == 3
    one.close()


def test_overflow_drops_the_oldest(bus: Bus, caplog: Any) -> None:
    queue = Queue("task", maxsize=3, bus=bus)
    assert not queue.full()
    for number in range(3):
        bus.twitter("task:run", number)
    assert queue.full()
    assert queue.dropped == 0
    for number in range(3, 13):
        bus.twitter("task:run", number)
    assert queue.dropped == 10
    assert drain(queue) == [10, 11, 12]
    assert queue.dropped == 10
    assert not queue.full()
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 10
    assert "queue task:* is full with 3 messages: 8 dropped so far" in caplog.text


def test_unbounded_is_never_full(bus: Bus) -> None:
    queue = Queue("task", bus=bus)
    for _ in range(1_000):
        bus.twitter("task:run", 1)
    assert not queue.full()
    assert (queue.qsize(), queue.dropped, queue.maxsize) == (1_000, 0, 0)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"identifier": ""}, ValueError),
        ({"identifier": None}, TypeError),
        ({"identifier": "a", "maxsize": -1}, ValueError),
        ({"identifier": "a", "maxsize": 1.5}, TypeError),
        ({"identifier": "a", "maxsize": None}, TypeError),
    ],
)
def test_refused(bus: Bus, arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Queue(**arguments, bus=bus)
    assert bus.registrations() == []


def test_close(bus: Bus) -> None:
    queue = Queue("task", bus=bus)
    bus.twitter("task:run", 1)
    assert not queue.closed
    assert repr(queue) == "<Queue task:* 1 waiting>"
    queue.close()
    queue.close()
    assert queue.closed
    assert repr(queue) == "<Queue task:* closed>"
    assert bus.twitter("task:run", 2) == 0
    assert queue.get().args == (1,)
    with pytest.raises(Empty):
        queue.get()
    assert bus.registrations() == []


def test_close_wakes_who_waits(bus: Bus) -> None:
    queue = Queue("task", bus=bus)
    waiting = [in_thread(queue.get) for _ in range(3)]
    until_waiting(queue, 3)
    queue.close()
    for thread, results in waiting:
        thread.join(BOUND)
        assert [type(result) for result in results] == [Empty]


def test_closing_a_shared_queue_leaves_the_backlog_to_the_others(bus: Bus) -> None:
    one, other = Queue("task", True, bus=bus), Queue("task", True, bus=bus)
    bus.twitter("task:run", 1)
    thread, results = in_thread(one.get)
    thread.join(BOUND)
    assert results[0].args == (1,)
    thread, results = in_thread(one.get)
    until_waiting(one)
    one.close()
    thread.join(BOUND)
    assert [type(result) for result in results] == [Empty]
    assert bus.twitter("task:run", 2) == 1
    with pytest.raises(Empty):
        one.get()
    assert other.get_nowait().args == (2,)
    bus.twitter("task:run", 3)
    other.close()
    assert bus.twitter("task:run", 4) == 0
    # All are closed: either may take what is left.
    assert one.get().args == (3,)
    with pytest.raises(Empty):
        other.get()
    # A later one begins afresh.
    again = Queue("task", True, bus=bus)
    assert again.empty()
    assert bus.twitter("task:run", 5) == 1
    other.close()
    assert bus.twitter("task:run", 6) == 1
    assert drain(again) == [5, 6]


def test_iteration(bus: Bus) -> None:
    queue = Queue("task", bus=bus)
    for number in range(3):
        bus.twitter("task:run", number)
    thread, results = in_thread(lambda: [message.args[0] for message in queue])
    until_waiting(queue)
    bus.twitter("task:run", 3)
    until_waiting(queue)
    bus.twitter("task:run", 4)
    queue.close()
    thread.join(BOUND)
    assert results == [[0, 1, 2, 3, 4]]
    assert list(queue) == []


def test_context_manager(bus: Bus) -> None:
    with Queue("task", bus=bus) as queue:
        assert bus.twitter("task:run") == 1
    assert queue.closed
    assert bus.twitter("task:run") == 0


@pytest.mark.parametrize("shared", [False, True])
def test_forgotten_queue_is_not_filled(bus: Bus, shared: bool) -> None:
    queue = Queue("task", shared=shared, bus=bus)
    bus.twitter("task:run", 1)
    del queue
    gc.collect()
    assert bus.twitter("task:run", 2) == 0
    assert bus.registrations() == []
    again = Queue("task", shared=shared, maxsize=1, bus=bus)
    assert again.empty()


def test_forgotten_shared_queue_does_not_keep_the_backlog_from_being_drained(bus: Bus) -> None:
    one, other = Queue("task", True, bus=bus), Queue("task", True, bus=bus)
    bus.twitter("task:run", 1)
    del other
    gc.collect()
    one.close()
    assert bus.twitter("task:run", 2) == 0
    assert drain(one) == [1]


def test_interrupted_wait_passes_its_message_on(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is interrupted may have been the one that was woken for a message."""
    queue = Queue("task", bus=bus)
    original = threading.Condition.wait
    interrupted = threading.Event()

    def wait(self: threading.Condition, timeout: float | None = None) -> bool:
        result = original(self, timeout)
        is_main = threading.current_thread() is threading.main_thread()
        if not is_main and not interrupted.is_set():
            interrupted.set()
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(threading.Condition, "wait", wait)
    waiting = [in_thread(queue.get) for _ in range(2)]
    until_waiting(queue, 2)
    bus.twitter("task:run", 1)
    for thread, _ in waiting:
        thread.join(BOUND)
    results = [result for _, results in waiting for result in results]
    assert sorted(type(result).__name__ for result in results) == ["KeyboardInterrupt", "Message"]


def test_timeout_counts_from_the_call(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages that another thread takes do not give it more time."""
    original = threading.Condition.wait
    woken: list[float | None] = []

    def wake_early(self: threading.Condition, timeout: float | None = None) -> bool:
        woken.append(timeout)
        assert len(woken) < 1_000
        return original(self, 0.001)

    queue = Queue("task", bus=bus)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Condition, "wait", wake_early)
        with pytest.raises(Empty):
            queue.get(timeout=0.05)
    assert len(woken) > 1
    assert woken == sorted(woken, reverse=True)  # type: ignore[type-var]


def test_default_bus() -> None:
    with Queue("test-default-queue") as queue:
        assert berrymq_rpc.twitter("test-default-queue:x", 1) == 1
        assert queue.get_nowait().args == (1,)
        assert str(queue.identifier) == "test-default-queue:*"


def test_guarded_and_local_names(bus: Bus) -> None:
    queue = Queue("*", bus=bus)
    assert bus.twitter("_local:x", 1) == 1
    assert drain(queue) == [1]
