"""What stands in for a coroutine does all that one does."""

import inspect
from collections.abc import Generator
from typing import Any

import pytest

from berrymq_rpc.common.coroutine_wrapper import CoroutineWrapper


class Pause:
    def __await__(self) -> Generator[str, int, int]:
        return (yield "paused")


async def double() -> int:
    return 2 * await Pause()


def result_of(coroutine: Any, value: int) -> Any:
    assert coroutine.send(None) == "paused"
    with pytest.raises(StopIteration) as ended:
        coroutine.send(value)
    return ended.value.value


def test_it_is_driven_as_a_coroutine() -> None:
    assert result_of(CoroutineWrapper(double()), 21) == 42


def test_it_is_awaited() -> None:
    async def outer() -> int:
        return await CoroutineWrapper(double()) + 1

    assert result_of(outer(), 21) == 43


def test_errors_reach_it() -> None:
    wrapper = CoroutineWrapper(double())
    wrapper.send(None)
    with pytest.raises(LookupError, match="no such"):
        wrapper.throw(LookupError("no such"))


def test_it_is_closed() -> None:
    inner = double()
    CoroutineWrapper(inner).close()
    assert inspect.getcoroutinestate(inner) == inspect.CORO_CLOSED
