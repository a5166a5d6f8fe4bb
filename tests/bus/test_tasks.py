"""Receivers that are `async def`."""

import asyncio
import gc
from typing import Any

import pytest

from berrymq_rpc.bus import Bus, Message

Errors = list[tuple[BaseException, Message, Any]]


@pytest.fixture
def bus() -> Bus:
    return Bus()


@pytest.fixture
def errors(bus: Bus) -> Errors:
    seen: Errors = []
    bus.on_error = lambda error, message, receiver: seen.append((error, message, receiver))
    return seen


async def finished(bus: Bus) -> None:
    async with asyncio.timeout(10):
        while len(bus._tasks):
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
    assert len(bus._tasks) == 1
    gates.pop().set_result(None)
    await finished(bus)
    assert heard == [1]


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


def test_without_a_loop(bus: Bus, errors: Errors, caplog: Any) -> None:
    heard: list[int] = []

    @bus.following_function("a:b")
    async def receive(message: Message) -> None:
        heard.append(1)

    bus.regist_function("a:b", lambda message: heard.append(2))
    assert bus.twitter("a:b") == 1
    assert heard == [2]
    ((error, message, receiver),) = errors
    assert isinstance(error, RuntimeError)
    assert "needs an event loop" in str(error)
    assert message.id == "a:b"
    assert receiver is receive
    assert "receive failed" in caplog.text


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
    assert len(bus._tasks) == 0
