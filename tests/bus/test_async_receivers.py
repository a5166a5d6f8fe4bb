"""Receivers that are `async def`."""

import asyncio
import contextvars
import gc
import threading
import weakref
from typing import Any

import pytest

from berrymq_rpc.bus import Bus, Message, Queue, async_receivers

BOUND = 20.0

Errors = list[tuple[BaseException, Message, Any]]


async def finished(bus: Bus) -> None:
    async with asyncio.timeout(10):
        while bus.statistics()["async_receivers"]:
            await asyncio.sleep(0)


async def test_runs_on_the_running_loop(bus: Bus, errors: Errors) -> None:
    heard: list[Any] = []
    done = asyncio.Event()

    @bus.following_function("a:b")
    async def receive(message: Message) -> None:
        heard.append((message.args, asyncio.get_running_loop()))
        await asyncio.sleep(0)
        done.set()

    assert bus.twitter("a:b", 1) == 1
    assert heard == []
    await asyncio.wait_for(done.wait(), 10)
    assert heard == [((1,), asyncio.get_running_loop())]
    await finished(bus)
    assert errors == []


async def test_methods_guards_and_callables(bus: Bus, errors: Errors) -> None:
    heard: list[str] = []

    class Receiver:
        async def method(self, message: Message) -> None:
            heard.append("method")

        async def __call__(self, message: Message) -> None:
            heard.append("object")

    async def receive(label: str, message: Message) -> None:
        heard.append(label)

    receiver = Receiver()
    bus.regist_method("a:b", receiver.method)
    bus.regist_method("a:b", receiver.method, lambda message: bool(message.args))
    bus.regist_function("a:b", receiver)
    bus.regist_function("a:b", lambda message: receive("lambda", message))
    assert bus.twitter("a:b") == 3
    await finished(bus)
    assert heard == ["method", "object", "lambda"]
    assert errors == []


async def test_tasks_are_held(bus: Bus) -> None:
    """An event loop holds its tasks weakly: one that only waits could be collected."""
    gates: list[asyncio.Future[None]] = []
    heard: list[int] = []

    @bus.following_function("a:b")
    async def receive(message: Message) -> None:
        gate = asyncio.get_running_loop().create_future()
        gates.append(gate)
        await gate
        heard.append(1)

    bus.twitter("a:b")
    await asyncio.sleep(0)
    gc.collect()
    assert bus.statistics()["async_receivers"] == 1
    gates.pop().set_result(None)
    await finished(bus)
    assert heard == [1]


async def test_tasks_outlive_their_bus() -> None:
    """Nothing else holds the future for which the task waits, nor the task."""
    bus = Bus()
    heard: list[int] = []

    @bus.following_function("a:b")
    async def receive(message: Message) -> None:
        gate = asyncio.get_running_loop().create_future()
        gates.add(gate)
        await gate
        heard.append(1)

    gates: weakref.WeakSet[asyncio.Future[None]] = weakref.WeakSet()
    bus.twitter("a:b")
    await asyncio.sleep(0)
    reference = weakref.ref(bus)
    del bus, receive
    gc.collect()
    assert reference() is None
    (gate,) = gates
    gate.set_result(None)
    async with asyncio.timeout(BOUND):
        while not heard:
            await asyncio.sleep(0)


async def test_errors(bus: Bus, errors: Errors, caplog: Any) -> None:
    @bus.following_function("a:b")
    async def fail(message: Message) -> None:
        await asyncio.sleep(0)
        raise ValueError("later")

    bus.twitter("a:b", 5)
    await finished(bus)
    ((error, message, receiver),) = errors
    assert isinstance(error, ValueError)
    assert message.args == (5,)
    assert receiver is fail
    (record,) = caplog.records
    assert record.name == "berrymq_rpc.bus"
    assert record.exc_info[1] is error


async def test_cancelled_is_no_error(bus: Bus, errors: Errors) -> None:
    tasks: list[asyncio.Task[Any]] = []

    @bus.following_function("a:b")
    async def receive(message: Message) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        await asyncio.get_running_loop().create_future()

    bus.twitter("a:b")
    await asyncio.sleep(0)
    assert "a:b" in tasks[0].get_name()
    tasks.pop().cancel()
    await finished(bus)
    assert errors == []


async def test_sync_and_async_together(bus: Bus) -> None:
    heard: list[str] = []

    @bus.following_function("a:b")
    async def later(message: Message) -> None:
        heard.append("async")

    bus.regist_function("a:b", lambda message: heard.append("sync"))
    assert bus.twitter("a:b") == 2
    assert heard == ["sync"]
    await finished(bus)
    assert heard == ["sync", "async"]


async def test_receiver_that_sends_without_end_does_not_block(bus: Bus, errors: Errors) -> None:
    """Each message is a task of its own: that is a loop, no recursion, and the event loop runs."""
    count = 0

    @bus.following_function("a:b")
    async def again(message: Message) -> None:
        nonlocal count
        count += 1
        if count < 1_000:
            bus.twitter("a:b")

    bus.twitter("a:b")
    await finished(bus)
    assert count == 1_000
    assert errors == []


class TestWithoutALoop:
    """The sender's thread has none: the receiver runs in another one."""

    def test_runs_in_a_thread_of_the_package(self, bus: Bus, errors: Errors) -> None:
        heard = Queue("heard", bus=bus)
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")

        @bus.following_function("a:b")
        async def receive(message: Message) -> None:
            await asyncio.sleep(0)
            bus.twitter("heard:x", message.args, variable.get(), threading.current_thread())
            # It has a loop to run on now.
            bus.twitter("c:d")

        @bus.following_function("c:d")
        async def further(message: Message) -> None:
            bus.twitter("heard:y", threading.current_thread())

        variable.set("sender's")
        assert bus.twitter("a:b", 1) == 1
        args, value, thread = heard.get(timeout=BOUND).args
        assert (args, value) == ((1,), "sender's")
        assert thread is not threading.current_thread()
        assert thread.daemon
        assert heard.get(timeout=BOUND).args == (thread,)
        # There is one such thread for all.
        other = Bus()
        other.regist_function("a:b", receive)
        other.twitter("a:b", 2)
        assert heard.get(timeout=BOUND).args[2] is thread
        assert errors == []

    def test_tasks_are_held(self, bus: Bus) -> None:
        heard = Queue("heard", bus=bus)
        gates: list[asyncio.Future[None]] = []

        @bus.following_function("a:b")
        async def receive(message: Message) -> None:
            gates.append(asyncio.get_running_loop().create_future())
            bus.twitter("heard:x")
            await gates[-1]
            bus.twitter("heard:y")

        bus.twitter("a:b")
        heard.get(timeout=BOUND)
        gc.collect()
        gate = gates.pop()
        gate.get_loop().call_soon_threadsafe(gate.set_result, None)
        del gate
        assert heard.get(timeout=BOUND).id == "heard:y"

    @pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
    def test_errors(self, bus: Bus, error: type[BaseException], caplog: Any) -> None:
        """None of them ends the loop, on which others run."""
        reported = Queue("reported", bus=bus)
        bus.on_error = lambda error, message, receiver: bus.twitter("reported:x", error, receiver)

        @bus.following_function("a:b")
        async def fail(message: Message) -> None:
            raise error

        for _ in range(2):
            bus.twitter("a:b")
            found, receiver = reported.get(timeout=BOUND).args
            assert type(found) is error
            assert receiver is fail

    async def test_loop_of_a_node(self, bus: Bus) -> None:
        loops: list[Any] = []
        done = asyncio.Event()

        @bus.following_function("a:b")
        async def receive(message: Message) -> None:
            loops.append(asyncio.get_running_loop())
            done.set()

        bus.gateway.set_loop(asyncio.get_running_loop())
        sender = threading.Thread(target=bus.twitter, args=("a:b",))
        sender.start()
        await asyncio.wait_for(done.wait(), BOUND)
        sender.join(BOUND)
        assert loops == [asyncio.get_running_loop()]

    def test_loop_that_runs_no_more(self, bus: Bus) -> None:
        heard = Queue("heard", bus=bus)

        @bus.following_function("a:b")
        async def receive(message: Message) -> None:
            bus.twitter("heard:x", asyncio.get_running_loop())

        loop = asyncio.new_event_loop()
        bus.gateway.set_loop(loop)
        for _ in range(2):
            bus.twitter("a:b")
            assert heard.get(timeout=BOUND).args != (loop,)
            loop.close()
        bus.gateway.set_loop(None)
        bus.twitter("a:b")
        assert heard.get(timeout=BOUND).args != (loop,)

    def test_loop_that_is_closed_in_the_meantime(
        self, bus: Bus, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        heard = Queue("heard", bus=bus)

        @bus.following_function("a:b")
        async def receive(message: Message) -> None:
            bus.twitter("heard:x")

        loop = asyncio.new_event_loop()
        loop.close()
        monkeypatch.setattr(loop, "is_running", lambda: True)
        bus.gateway.set_loop(loop)
        assert bus.twitter("a:b") == 1
        assert heard.get(timeout=BOUND).id == "heard:x"

    def test_no_thread_for_a_loop(
        self, bus: Bus, errors: Errors, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It runs in the sender's thread, as a sync receiver does."""
        monkeypatch.setattr(async_receivers, "background_loop", lambda: None)
        heard: list[Any] = []

        @bus.following_function("a:b")
        async def receive(message: Message) -> None:
            await asyncio.sleep(0)
            heard.append(threading.current_thread())

        @bus.following_function("a:b")
        async def fail(message: Message) -> None:
            await asyncio.sleep(0)
            raise ValueError

        assert bus.twitter("a:b") == 2
        assert heard == [threading.current_thread()]
        assert [type(error) for error, _, _ in errors] == [ValueError]

    def test_loop_that_ends_before_the_receiver_begins(self, bus: Bus, errors: Errors) -> None:
        """That is an error of the receiver, not silence."""
        heard: list[int] = []
        answers = Queue("answer", bus=bus)

        @bus.following_function("a:b")
        async def receive(message: Message) -> None:
            heard.append(1)

        async def main() -> None:
            loop = asyncio.get_running_loop()
            bus.gateway.set_loop(loop)
            loop.stop()
            sender = threading.Thread(target=bus.talk, args=("a:b", "answer:x"))
            sender.start()
            sender.join(BOUND)

        loop = asyncio.new_event_loop()
        task = loop.create_task(main())
        loop.run_forever()
        assert task.done()
        # Nothing runs what waits there.
        loop.close()
        gc.collect()
        ((error, message, receiver),) = errors
        assert "ended before the receiver could begin" in str(error)
        assert (message.id, receiver) == ("a:b", receive)
        assert isinstance(answers.get_nowait().error, RuntimeError)
        assert heard == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_loop_is_not_reported(
    bus: Bus, errors: Errors, error: type[BaseException]
) -> None:
    @bus.following_function("a:b")
    async def stop(message: Message) -> None:
        raise error

    async def main() -> None:
        bus.twitter("a:b")
        await asyncio.get_running_loop().create_future()

    with pytest.raises(error):
        asyncio.run(main())
    assert errors == []
    assert bus.statistics()["async_receivers"] == 0


def test_thread_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(async_receivers, "_current", None)
    monkeypatch.setattr(threading.Thread, "start", start)
    for _ in range(2):
        assert async_receivers.background_loop() is None
