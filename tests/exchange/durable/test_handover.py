"""A result that crosses to another thread has one owner, whenever its taker gives up."""

import asyncio
import gc
import threading
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from berrymq_rpc.errors import ServiceClosedError
from berrymq_rpc.exchange.durable import handover
from berrymq_rpc.exchange.durable.handover import Handover


@pytest.fixture
def other_loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


async def made(*after: Any) -> str:
    for each in after:
        each()
    return "a result"


async def settled(loop: asyncio.AbstractEventLoop) -> None:
    """Wait until what was handed to the loop before has run."""
    for _ in range(5):
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop))


async def begin(coroutine: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
    """A task that has begun: to wait for a thread that is done begins none, from Python 3.14 on."""
    task = asyncio.create_task(coroutine)
    await asyncio.sleep(0)
    return task


async def test_the_taker_has_it(other_loop: asyncio.AbstractEventLoop) -> None:
    unclaimed: list[str] = []
    handover = Handover(made(), other_loop, unclaimed.append)
    assert await handover.wait() == "a result"
    assert await asyncio.to_thread(Handover(made(), other_loop, unclaimed.append).result) == (
        "a result"
    )
    await settled(other_loop)
    assert unclaimed == []


async def test_cancelled_when_it_is_made(other_loop: asyncio.AbstractEventLoop) -> None:
    """It was made, and the taker was cancelled before its loop has heard so."""
    unclaimed: list[str] = []
    is_made = threading.Event()
    taking = await begin(Handover(made(), other_loop, unclaimed.append).wait())
    other_loop.call_soon_threadsafe(is_made.set)
    # This loop runs nothing meanwhile.
    assert is_made.wait(10)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    await settled(other_loop)
    assert unclaimed == ["a result"]


async def test_cancelled_while_it_is_made(other_loop: asyncio.AbstractEventLoop) -> None:
    """Its loop has not heard that the taker was cancelled when it is made."""
    unclaimed: list[str] = []
    begun, goes_on = threading.Event(), threading.Event()
    handover = Handover(made(begun.set, lambda: goes_on.wait(10)), other_loop, unclaimed.append)
    taking = await begin(handover.wait())
    assert await asyncio.to_thread(begun.wait, 10)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    goes_on.set()
    await settled(other_loop)
    assert unclaimed == ["a result"]


async def test_cancelled_before(other_loop: asyncio.AbstractEventLoop) -> None:
    """Nothing is made then."""
    unclaimed: list[str] = []
    cancelled = threading.Event()

    async def never() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return "never"

    taking = await begin(Handover(never(), other_loop, unclaimed.append).wait())
    await settled(other_loop)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert await asyncio.to_thread(cancelled.wait, 10)
    assert unclaimed == []


async def test_an_error(other_loop: asyncio.AbstractEventLoop) -> None:
    unclaimed: list[str] = []

    async def failing() -> str:
        raise LookupError("none")

    with pytest.raises(LookupError, match="none"):
        await Handover(failing(), other_loop, unclaimed.append).wait()
    assert unclaimed == []


def test_a_closed_loop() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.raises(RuntimeError):
        Handover(made(), loop)


async def test_cancelled_before_it_begins(other_loop: asyncio.AbstractEventLoop) -> None:
    may_go_on = threading.Event()
    # The loop is busy until then.
    other_loop.call_soon_threadsafe(may_go_on.wait, 10)
    began: list[str] = []
    taking = await begin(Handover(made(lambda: began.append("")), other_loop).wait())
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    may_go_on.set()
    await settled(other_loop)
    # A coroutine that is not awaited is a warning, and so an error, as it is collected.
    gc.collect()
    assert began == []


@pytest.fixture
def ended_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that runs no more and is not closed, as that of a program that has stopped it."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


async def test_the_loop_has_ended(
    ended_loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "LOOK", 0.05)
    with pytest.raises(ServiceClosedError, match="ended"):
        await Handover(made(), ended_loop).wait()
    with pytest.raises(ServiceClosedError, match="ended"):
        await asyncio.to_thread(Handover(made(), ended_loop).result)
    gc.collect()


async def test_what_it_runs_is_cancelled(other_loop: asyncio.AbstractEventLoop) -> None:
    """As by the end of `asyncio.run`: the one who waits was not cancelled."""

    async def end() -> None:
        for task in asyncio.all_tasks():
            if task is not asyncio.current_task():
                task.cancel()

    for wait in (Handover.wait, lambda each: asyncio.to_thread(each.result)):
        taking = await begin(wait(Handover(asyncio.sleep(100), other_loop)))
        await settled(other_loop)
        await Handover(end(), other_loop).wait()
        with pytest.raises(ServiceClosedError, match="ended"):
            await taking
