"""More calls than a server can serve at once: none is lost, those over a bound get an error."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from berrymq_rpc import rpc

#: Each fault is tried with keys as well.
pytestmark = pytest.mark.keys

Until = Callable[..., Awaitable[None]]

#: Seconds that a busy machine may take longer than is asked for.
SLACK = 2.0

SLOW_CALLS = 100_000


async def all_answered(client: rpc.Client, count: int, size: int, *, held: float = 0) -> None:
    """Make `count` calls at once, and hold the loop for so many seconds once they are sent."""
    calls = [client.rpc.padded(number, size) for number in range(count)]
    if held:
        await asyncio.sleep(0.01)
        time.sleep(held)
    for number, call in enumerate(calls):
        assert await call == str(number).rjust(size)
    assert client.statistics()["calls_in_flight"] == 0


@pytest.mark.nodebug
@pytest.mark.parametrize("size", [1_000, 10_000])
async def test_20_000_calls_at_once(server_process: Any, size: int) -> None:
    server = server_process()
    async with await rpc.open_client(connect=server.endpoint) as client:
        await all_answered(client, 20_000, size)


@pytest.mark.slow
@pytest.mark.nodebug
@pytest.mark.parametrize("size", [1_000, 10_000])
async def test_5_000_calls_of_a_client_whose_loop_is_held(server_process: Any, size: int) -> None:
    server = server_process()
    async with await rpc.open_client(connect=server.endpoint) as client:
        await all_answered(client, 5_000, size, held=3)


# -- more than the server takes --------------------------------------------------------------


def plain_calls(raw: Any) -> Iterator[list[bytes]]:
    """Those of a client without a window; the last says that all before it were dealt with."""
    for number in range(SLOW_CALLS):
        yield raw.plain_call(number, "forever")
    yield raw.plain_call(SLOW_CALLS, "add", 1)


def native_calls(raw: Any) -> Iterator[list[bytes]]:
    """The same of a native client that does not keep to the window."""
    at_once = 500
    for first in range(0, SLOW_CALLS, at_once):
        numbers = range(first, first + at_once)
        yield raw.native_message(*[raw.record(raw.CALL, n, "forever", []) for n in numbers])
    yield raw.native_message(raw.record(raw.CALL, SLOW_CALLS, "add", [1]))


def refusals(raw: Any, client: Any, dialect: str) -> Counter[str]:
    """What the calls over the bounds were answered with, by the name of the class."""
    found = Counter[str]()
    while True:
        if dialect == "plain":
            answers = client.plain_answers(1)
            answers = [
                (call_id, value[0] if is_error else "") for call_id, is_error, value in answers
            ]
        else:
            answers = [(call_id, value) for _, call_id, value, *_ in client.native_answers(1)]
        for call_id, type_name in answers:
            if call_id == SLOW_CALLS:
                return found
            found[type_name] += 1


@pytest.mark.slow
@pytest.mark.nodebug
@pytest.mark.parametrize("dialect", ["plain", "native"])
async def test_100_000_slow_calls_of_one_client(
    server_process: Any, raw: Any, good_client: Any, until: Until, dialect: str
) -> None:
    """Those over the bound get an error, and nothing is left when the client has left."""
    server = server_process()

    def flood(client: Any) -> Counter[str]:
        for message in (plain_calls if dialect == "plain" else native_calls)(raw):
            client.send(message)
        return refusals(raw, client, dialect)

    async with await rpc.open_client(connect=server.endpoint) as observer:
        before = await observer.rpc.statistics()
        with raw.dealer(server.endpoint, linger=0, unread=0) as client:
            async with good_client(server.endpoint) as good:
                refused = await asyncio.to_thread(flood, client)
            assert good.longest < 0.1 + SLACK
            during = await observer.rpc.statistics()
            assert set(refused) == {"berrymq_rpc.errors.OverloadedError"}
            waiting = SLOW_CALLS - refused.total() - rpc.Limits().window
            # 16 MiB of those of a client that knows no window may wait.
            assert 0 <= waiting < (40_000 if dialect == "plain" else 100)
            assert during["calls_running"] == rpc.Limits().window
            assert during["memory"] - before["memory"] < 100 << 20
        left = time.monotonic()
        while (now := await observer.rpc.statistics())["calls_running"]:
            assert time.monotonic() - left < 10
        assert time.monotonic() - left < 1 + SLACK
        assert now["tasks"] == before["tasks"]
        assert now["peers"] == 1


@pytest.mark.slow
@pytest.mark.nodebug
async def test_100_000_slow_calls_of_a_client_that_keeps_to_the_window(
    server_process: Any, until: Until
) -> None:
    """None is refused: those that the server does not take yet wait at the client."""
    server = server_process()
    async with await rpc.open_client(connect=server.endpoint) as observer:
        before = await observer.rpc.statistics()
        async with await rpc.open_client(connect=server.endpoint) as client:
            assert await client.rpc.add(1) == 2
            calls = [client.rpc.forever() for _ in range(SLOW_CALLS)]
            await until(lambda: server.lines.count("started") == rpc.Limits().window)
            during = await observer.rpc.statistics()
            assert during["calls_running"] == rpc.Limits().window
            assert during["memory"] - before["memory"] < 20 << 20
            assert not any(call.done() for call in calls)
            client.close()
            await asyncio.wait([asyncio.gather(*calls, return_exceptions=True)])
            assert {type(call.exception()) for call in calls} == {rpc.ServiceClosedError}
        left = time.monotonic()
        while (now := await observer.rpc.statistics())["calls_running"]:
            assert time.monotonic() - left < 10
        assert time.monotonic() - left < 1 + SLACK
        assert now["tasks"] == before["tasks"]
        assert server.lines.count("started") == rpc.Limits().window
