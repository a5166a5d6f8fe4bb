"""The loop on a thread of its own; `SyncClient`'s tests hold the rest."""

import asyncio
import concurrent.futures
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from berrymq_rpc import rpc
from berrymq_rpc.runtime.loop_thread import LoopThread

PATIENCE = 20


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ctrl-C as the result is there, but was not returned yet."""
    result = concurrent.futures.Future.result
    interrupts = [KeyboardInterrupt()]

    def interrupt(self: concurrent.futures.Future[Any], timeout: float | None = None) -> Any:
        value = result(self, timeout)
        if interrupts:
            raise interrupts.pop()
        return value

    monkeypatch.setattr(concurrent.futures.Future, "result", interrupt)
    yield
    assert not interrupts


async def give(value: Any) -> Any:
    return value


async def fail() -> None:
    raise ValueError("x")


def test_a_result_whose_caller_was_interrupted(interrupted: None) -> None:
    unclaimed: list[Any] = []
    told = threading.Event()

    def keep(value: Any) -> None:
        unclaimed.append((value, threading.current_thread().name))
        told.set()

    loop_thread = LoopThread("thing", keep)
    with pytest.raises(KeyboardInterrupt):
        loop_thread.run(give(5))
    assert told.wait(PATIENCE)
    assert unclaimed == [(5, "berrymq_rpc thing")]
    assert loop_thread.run(give(6)) == 6
    loop_thread.close()


def test_an_error_is_nobodys_result() -> None:
    unclaimed: list[Any] = []
    loop_thread = LoopThread("thing", unclaimed.append)
    with pytest.raises(ValueError, match="x"):
        loop_thread.run(fail())
    loop_thread.close()
    assert unclaimed == []
    assert loop_thread.is_closed
    with pytest.raises(rpc.ServiceClosedError, match="the thing is closed"):
        loop_thread.run(give(5))


def test_what_fails_at_the_end_is_told() -> None:
    loop_thread = LoopThread("thing")
    waiting = threading.Thread(target=_wait_for_ever, args=(loop_thread,))
    waiting.start()
    with pytest.raises(ValueError, match="x"):
        loop_thread.close(fail)
    waiting.join(PATIENCE)
    assert not waiting.is_alive()
    assert loop_thread.is_closed
    assert loop_thread.loop.is_closed()
    loop_thread.close(fail)


def _wait_for_ever(loop_thread: LoopThread) -> None:
    with pytest.raises(rpc.ServiceClosedError):
        loop_thread.run(asyncio.Event().wait())


def test_a_wait_that_has_a_bound() -> None:
    loop_thread = LoopThread("thing")
    cancelled = threading.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(TimeoutError, match="the thread of the thing is blocked"):
        loop_thread.run(wait(), 0.01)
    assert cancelled.wait(PATIENCE)

    async def late() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        loop_thread.run(late(), PATIENCE)
    loop_thread.close()


def test_a_thread_that_is_held(caplog: pytest.LogCaptureFixture) -> None:
    loop_thread = LoopThread("thing")
    held, go_on = threading.Event(), threading.Event()
    outcomes: list[Any] = []

    async def hold() -> None:
        held.set()
        assert go_on.wait(PATIENCE)

    def wait_for_it() -> None:
        try:
            outcomes.append(loop_thread.run(hold()))
        except rpc.Error as error:
            outcomes.append(type(error))

    waiting = threading.Thread(target=wait_for_it)
    waiting.start()
    assert held.wait(PATIENCE)
    loop_thread.close(patience=0.01)
    # What waited for the loop does so no longer, though it is held still.
    waiting.join(PATIENCE)
    assert outcomes == [rpc.ServiceClosedError]
    assert "the thread of a thing did not end" in caplog.text
    called: list[int] = []
    loop_thread.call_soon(called.append, 1)
    loop_thread.close()
    go_on.set()
    assert loop_thread.stop(PATIENCE)
    assert loop_thread.loop.is_closed()
    assert called == []


def test_called_soon() -> None:
    loop_thread = LoopThread("thing")
    called = threading.Event()
    loop_thread.call_soon(called.set)
    assert called.wait(PATIENCE)
    loop_thread.close()
    loop_thread.call_soon(called.clear)
    assert called.is_set()
