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
