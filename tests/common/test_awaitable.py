"""`is_awaitable`, which says what ``await`` takes."""

import asyncio
import types
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from berrymq_rpc.common.awaitable import is_awaitable


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
