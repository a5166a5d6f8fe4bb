"""Ids of calls that come round again while one of them is pending."""

import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from berrymq_rpc import rpc

#: Each fault is tried with keys as well.
pytestmark = pytest.mark.keys

Until = Callable[..., Awaitable[None]]


@pytest.mark.parametrize("dialect", ["native", "aiozmq"])
@pytest.mark.keys(quick=True)
async def test_an_id_that_is_in_use_is_passed_over(
    server_process: Any, until: Until, dialect: str
) -> None:
    """32-bit ones of the dialect of aiozmq.rpc; those of the native one do not end."""
    server = server_process()
    async with await rpc.open_client(connect=server.endpoint, dialect=dialect) as client:
        pending = client.rpc.forever()
        await until(lambda: server.lines == ["started"])
        pool = client.pool
        start = (
            pending.id
            + (0 if dialect == "native" else 2**32)
            + (2**40 if dialect == "native" else 0)
        )
        pool.ids = itertools.count(start)
        for connection in pool.connections:
            connection.session.ids = pool.ids
        assert [await client.rpc.add(number) for number in range(100)] == list(range(1, 101))
        assert not pending.done()
        pending.cancel()
