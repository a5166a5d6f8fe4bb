"""Receivers on a pool of threads."""

import asyncio
import contextvars
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from berrymq_rpc.bus import Bus, Message, Queue, thread_pool
from berrymq_rpc.bus.delivery import MAX_DEPTH, sending
from berrymq_rpc.bus.thread_pool import ThreadPool

Errors = list[tuple[BaseException, Message, Any]]
BOUND = 30.0


@pytest.fixture
def bus() -> Iterator[Bus]:
    bus = Bus()
    bus.set_multiplicity(4)
    yield bus
    finish(bus)


def finish(bus: Bus) -> None:
    """Wait until all that was given to the pool is done, and return to the sender's thread."""

    def is_done() -> bool:
        counts = bus.statistics()
        return counts["receivers_waiting"] == counts["receivers_running"] == 0

    until(is_done)
    bus.set_multiplicity(0)
    for pool in thread_pool.pools():
        if pool.is_closed:
            assert pool.join(time.monotonic() + BOUND) == 0


def until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + BOUND
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def thread_name() -> str:
    return threading.current_thread().name


def test_receivers_run_at_the_same_time(bus: Bus) -> None:
    together = threading.Barrier(4)

    def receive(message: Message) -> None:
        together.wait(BOUND)

    bus.regist_function("a:b", receive)
    assert sum(bus.twitter("a:b") for _ in range(4)) == 4
    finish(bus)
    assert not together.broken


def test_sender_does_not_wait(bus: Bus) -> None:
    release, done = threading.Event(), threading.Event()

    class Listener:
        def hear(self, message: Message) -> None:
            assert release.wait(BOUND)
            done.set()

    listener = Listener()
    bus.regist_method("a:b", listener.hear)
    assert bus.twitter("a:b") == 1
    # It is there for the messages that were sent while it lived.
    reference = weakref.ref(listener)
    del listener
    release.set()
    assert done.wait(BOUND)
    finish(bus)
    assert reference() is None
    assert bus.twitter("a:b") == 0


def test_zero_and_one_are_the_senders_thread(bus: Bus) -> None:
    names: list[str] = []
    bus.regist_function("a:b", lambda message: names.append(thread_name()))
    for number in (0, 1):
        bus.twitter("a:b")
        finish(bus)
        bus.set_multiplicity(number)
        assert bus.multiplicity == 1
        bus.twitter("a:b")
        bus.set_multiplicity(2)
    assert names[1::2] == [thread_name()] * 2
    assert thread_name() not in names[::2]


@pytest.mark.parametrize("number", [-1, 1.5, "2", None])
def test_refused(bus: Bus, number: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        bus.set_multiplicity(number)
    assert bus.multiplicity == 4


def test_a_replaced_pool_does_what_it_accepted(bus: Bus) -> None:
    release = threading.Event()
    heard: list[int] = []

    def receive(message: Message) -> None:
        assert release.wait(BOUND)
        heard.append(message.args[0])

    bus.regist_function("a:b", receive)
    for number in range(20):
        bus.twitter("a:b", number)
    was_open = [pool for pool in thread_pool.pools() if not pool.is_closed]
    bus.set_multiplicity(2)
    (replaced,) = [pool for pool in was_open if pool.is_closed]
    bus.twitter("a:b", 20)
    release.set()
    assert replaced.join(time.monotonic() + BOUND) == 0
    finish(bus)
    assert sorted(heard) == list(range(21))


def test_guards_and_queues_are_the_senders(bus: Bus, errors: Errors) -> None:
    names: list[str] = []

    def guard(message: Message) -> bool:
        names.append(thread_name())
        return bool(message.args)

    bus.regist_function("a:b", lambda message: None, guard)
    bus.regist_function("c:d", lambda message: None, lambda message: 1 / 0)
    with Queue("a", bus=bus) as queue:
        assert bus.twitter("a:b") == 1
        assert bus.twitter("a:b", 1) == 2
        assert [queue.get_nowait().args for _ in range(2)] == [(), (1,)]
    assert names == [thread_name()] * 2
    assert bus.twitter("c:d") == 0
    assert [type(error) for error, _, _ in errors] == [ZeroDivisionError]


def test_errors(bus: Bus, errors: Errors, caplog: Any) -> None:
    names: list[str] = []

    class Listener:
        def hear(self, message: Message) -> None:
            names.append(thread_name())
            raise message.args[0]

    listener = Listener()
    bus.regist_method("a:b", listener.hear)
    for error in (ValueError(), SystemExit(), KeyboardInterrupt(), RecursionError()):
        assert bus.twitter("a:b", error) == 1
    finish(bus)
    assert {type(error) for error, _, _ in errors} == {
        ValueError,
        SystemExit,
        KeyboardInterrupt,
        RecursionError,
    }
    assert all(receiver == listener.hear for _, _, receiver in errors)
    assert thread_name() not in names
    assert "Listener.hear failed" in caplog.text


def test_context_variables_travel(bus: Bus) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    heard: list[str] = []

    def receive(message: Message) -> None:
        heard.append(variable.get())
        variable.set("receiver's")

    bus.regist_function("a:b", receive)
    variable.set("sender's")
    bus.twitter("a:b")
    finish(bus)
    assert heard == ["sender's"]
    assert variable.get() == "sender's"


def test_async_receivers_do_not_take_a_thread(bus: Bus) -> None:
    heard = Queue("heard", bus=bus)

    class Receiver:
        async def __call__(self, message: Message) -> None:
            bus.twitter("heard:x", thread_name())

    @bus.following_function("a:b")
    async def receive(message: Message) -> None:
        bus.twitter("heard:x", thread_name())

    bus.regist_function("a:b", Receiver())
    assert bus.twitter("a:b") == 2
    names = {heard.get(timeout=BOUND).args[0] for _ in range(2)}
    assert names == {"berrymq_rpc async receivers"}
    assert bus.statistics()["pool_threads"] == 0


def test_when_too_much_waits_senders_do_it(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_pool, "MAX_WAITING", 3)
    release = threading.Event()
    names: list[str] = []

    def receive(message: Message) -> None:
        names.append(thread_name())
        if thread_name() == "berrymq_rpc receivers":
            assert release.wait(BOUND)

    bus.regist_function("a:b", receive)
    # Four run or are about to, and three wait.
    for _ in range(100):
        bus.twitter("a:b")
    assert names.count(thread_name()) >= 93
    release.set()
    finish(bus)
    assert len(names) == 100


async def test_coroutine_of_a_receiver_that_the_sender_ran_is_waited_for(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thread_pool, "MAX_WAITING", 0)
    heard: list[str] = []

    async def receive(message: Message) -> None:
        heard.append(message.id)

    # Not an `async def` itself, so that it is for the pool.
    bus.regist_function("a:b", lambda message: receive(message))
    async with asyncio.timeout(BOUND):
        assert await bus.publish("a:b") == 1
    assert heard == ["a:b"]


def test_when_no_thread_can_be_started(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    names: list[str] = []
    bus.regist_function("a:b", lambda message: names.append(thread_name()))
    assert bus.twitter("a:b") == 1
    assert names == [thread_name()]


def test_idle_threads_end(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_pool, "IDLE", 0.001)
    heard: list[int] = []
    bus.regist_function("a:b", lambda message: heard.append(1))
    for count in (1, 2):
        bus.twitter("a:b")
        until(lambda: bus.statistics()["pool_threads"] == 0)
        assert len(heard) == count


def test_nothing_keeps_the_message(bus: Bus) -> None:
    class Argument:
        pass

    done = threading.Event()
    argument = Argument()
    reference = weakref.ref(argument)
    bus.regist_function("a:b", lambda message: done.set())
    bus.twitter("a:b", argument)
    del argument
    assert done.wait(BOUND)
    finish(bus)
    gc.collect()
    assert reference() is None


def test_join_has_a_bound() -> None:
    release = threading.Event()

    class Work:
        def run(self) -> None:
            assert release.wait(BOUND)

    pool = ThreadPool(1)
    assert pool.submit(Work())
    assert pool.submit(Work())
    pool.close()
    assert not pool.submit(Work())
    assert pool.join(time.monotonic() + 0.001) == 2
    release.set()
    assert pool.join(time.monotonic() + BOUND) == 0


class TestRecursion:
    def test_cycle_is_named_once(self, bus: Bus, errors: Errors) -> None:
        calls: list[str] = []

        def first(message: Message) -> None:
            calls.append("first")
            bus.twitter("c:d")

        def second(message: Message) -> None:
            calls.append("second")
            bus.twitter("a:b")

        bus.regist_function("a:b", first)
        bus.regist_function("c:d", second)
        assert bus.twitter("a:b") == 1
        finish(bus)
        ((error, _, receiver),) = errors
        assert isinstance(error, RecursionError)
        assert f"{MAX_DEPTH} levels deep" in str(error)
        assert "the cycle is a:b -> c:d -> a:b" in str(error)
        assert receiver in (first, second)
        assert len(calls) == MAX_DEPTH

    def test_branches_end(self, bus: Bus, errors: Errors, monkeypatch: pytest.MonkeyPatch) -> None:
        """2**100 calls would fill the memory long before any of them is 100 deep."""
        monkeypatch.setattr(thread_pool, "MAX_WAITING", 50)

        def branch(message: Message) -> None:
            bus.twitter("a:b")
            bus.twitter("a:b")

        bus.regist_function("a:b", branch)
        bus.twitter("a:b")
        finish(bus)
        assert {type(error) for error, _, _ in errors} == {RecursionError}
        # One that each of the threads was in the middle of.
        assert len(errors) <= 4

    def test_others_go_on(self, bus: Bus, errors: Errors) -> None:
        heard: list[str] = []
        bus.regist_function("a:b", lambda message: bus.twitter("a:b"), lambda m: not m.args)
        bus.regist_function("a:c", lambda message: heard.append(message.id))
        bus.twitter("a:b")
        bus.twitter("a:c")
        finish(bus)
        assert heard == ["a:c"]
        assert len(errors) == 1
        assert sending.stack == []

    def test_depth_that_is_allowed(self, bus: Bus, errors: Errors) -> None:
        @bus.following_function("count:down")
        def count(message: Message) -> None:
            if message.args[0] > 1:
                bus.twitter("count:down", message.args[0] - 1)

        bus.twitter("count:down", MAX_DEPTH)
        finish(bus)
        assert errors == []

    async def test_waiting_for_a_cycle(self, bus: Bus, errors: Errors) -> None:
        bus.regist_function("a:b", lambda message: bus.twitter("a:b"))
        assert await bus.publish("a:b") == 1
        finish(bus)
        assert len(errors) == 1

    def test_an_outermost_receiver_that_goes_on_is_no_second_error(
        self, bus: Bus, errors: Errors, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(thread_pool, "MAX_WAITING", 20)
        cut_off: list[str] = []

        def begin(message: Message) -> None:
            bus.twitter("a:b")
            until = time.monotonic() + 20
            while not errors:
                assert time.monotonic() < until
                time.sleep(0.001)
            try:
                bus.twitter("a:b")
            except RecursionError as error:
                cut_off.append(str(error))
                raise

        def again(message: Message) -> None:
            bus.twitter("a:b")
            bus.twitter("a:b")

        bus.regist_function("begin:now", begin)
        bus.regist_function("a:b", again)
        bus.twitter("begin:now")
        finish(bus)
        assert len(cut_off) == 1
        assert [type(error) for error, _, _ in errors] == [RecursionError]

    def test_every_question_of_a_cycle_is_answered(
        self, bus: Bus, errors: Errors, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also those whose receivers are not called any more."""
        monkeypatch.setattr(thread_pool, "MAX_WAITING", 20)
        counts = {"called": 0, "told": 0}
        lock = threading.Lock()

        def count(what: str) -> Callable[..., None]:
            def add(*_: Any) -> None:
                with lock:
                    counts[what] += 1

            return add

        asked = 0

        def ask(message: Message) -> None:
            nonlocal asked
            for _ in range(2):
                reached = bus.gateway.relay("a:b", (), {}, "peer", count("told"))
                with lock:
                    asked += reached

        bus.regist_function("a:b", ask)
        bus.gateway.relay("a:b", (), {}, "peer", count("told"))
        finish(bus)
        assert counts["told"] >= asked + 1
        assert [type(error) for error, _, _ in errors] == [RecursionError]
