"""What ``await`` takes, and what becomes of it."""

import asyncio
import types
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from berrymq_rpc.common.awaitable import as_coroutine, discard, is_awaitable


@types.coroutine
def from_generator() -> Iterator[None]:
    yield


async def coroutine() -> None: ...


def generator() -> Iterator[None]:
    yield


async def async_generator() -> AsyncIterator[None]:
    yield


class Any_:
    def __getattr__(self, name: str) -> Any:
        return self


async def test_awaitables() -> None:
    awaitables = [coroutine(), from_generator(), asyncio.get_running_loop().create_future()]
    assert all(map(is_awaitable, awaitables))
    awaitables[0].close()


@pytest.mark.parametrize(
    "value",
    [None, 1, "x", coroutine, generator(), async_generator(), Any_(), Any_],
    ids=lambda value: type(value).__name__,
)
def test_others(value: object) -> None:
    assert not is_awaitable(value)


async def test_a_coroutine_is_itself_and_others_are_awaited() -> None:
    own = coroutine()
    assert as_coroutine(own) is own
    await own
    future = asyncio.get_running_loop().create_future()
    future.set_result(7)
    task = asyncio.create_task(as_coroutine(future))
    assert await asyncio.wait_for(task, 10) == 7


async def test_what_is_discarded_was_closed_without_a_warning() -> None:
    own = coroutine()
    discard(own)
    with pytest.raises(RuntimeError, match="already awaited"):
        await own
    discard(asyncio.get_running_loop().create_future())
    discard(None)
