"""What a plain handler returns that has to be awaited is awaited, or the error says what to do."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any

import pytest

from berrymq_rpc import rpc

user: ContextVar[str] = ContextVar("user", default="nobody")


def greeting(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that knows nothing of ``async``."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        user.set("somebody")
        return function(*args, **kwargs)

    return wrapper


async def work(value: Any) -> Any:
    await asyncio.sleep(0)
    if isinstance(value, str):
        raise LookupError(value)
    return value


class Handmade:
    def __await__(self) -> Any:
        return work(7).__await__()


class Handler(rpc.AttrHandler):
    def __init__(self) -> None:
        self.noted: list[Any] = []
        self.delivered: list[bool] = []
        self.waiting = asyncio.Event()
        self.cancelled = asyncio.Event()

    @rpc.method
    @greeting
    async def decorated(self, value: int) -> list[Any]:
        return [await work(value), user.get(), rpc.context().method]

    @rpc.method
    @greeting
    async def decorated_stream(self) -> AsyncIterator[int]:
        yield 1

    @rpc.method
    def coroutine(self, value: Any) -> Any:
        return work(value)

    @rpc.method
    def task(self, value: Any) -> Any:
        return asyncio.create_task(work(value))

    @rpc.method
    def handmade(self) -> Any:
        return Handmade()

    @rpc.method
    def watched(self, value: Any) -> Any:
        rpc.context().on_delivery(self.delivered.append)
        return work(value)

    @rpc.method
    def call_back(self, value: Any) -> Any:
        return rpc.context().peer.rpc.coroutine(value)

    @rpc.method
    def note(self, value: Any) -> Any:
        async def noting() -> None:
            self.noted.append((await work(value), user.get()))

        user.set("note")
        return noting()

    @rpc.method
    def wait(self) -> Any:
        async def waiting() -> None:
            self.waiting.set()
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise

        return waiting()

    @rpc.method
    async def forgotten(self) -> Any:
        return asyncio.ensure_future(work(1))

    @rpc.method(thread=True)
    def in_thread(self) -> Any:
        return Handmade()

    @rpc.method
    def generator(self) -> Any:
        return (number for number in range(3))


DIALECTS = ["native", "aiozmq", "jsonrpc"]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_awaited(pair: Any, dialect: str) -> None:
    async with pair(Handler(), dialect=dialect) as (server, client):
        assert list(await client.rpc.decorated(1)) == [1, "somebody", "decorated"]
        assert await client.rpc.coroutine(2) == 2
        assert await client.rpc.task(3) == 3
        assert await client.rpc.handmade() == 7
        for method in (client.rpc.coroutine, client.rpc.task, client.rpc.watched):
            with pytest.raises(LookupError, match="no"):
                await method("no")
        found = await asyncio.gather(*[client.rpc.coroutine(number) for number in range(500)])
        assert found == list(range(500))
        assert server.statistics()["calls_running"] == 0


async def test_a_notification_runs_to_its_end(pair: Any, until: Any) -> None:
    handler = Handler()
    async with pair(handler) as (_, client):
        client.notify.note(1)
        client.notify.note("failing")
        client.notify.note(2)
        await until(lambda: len(handler.noted) == 2)
        assert handler.noted == [(1, "note"), (2, "note")]


async def test_its_delivery_is_reported(pair: Any, until: Any) -> None:
    handler = Handler()
    async with pair(handler) as (_, client):
        assert await client.rpc.watched(5) == 5
        await until(lambda: handler.delivered == [True])


async def test_a_call_back_that_is_returned(pair: Any) -> None:
    async with pair(Handler(), handler=Handler()) as (_, client):
        assert await client.rpc.call_back(5) == 5
        with pytest.raises(LookupError):
            await client.rpc.call_back("no")


async def test_it_is_cancelled_with_its_call(pair: Any) -> None:
    handler = Handler()
    async with pair(handler) as (_, client):
        with pytest.raises(rpc.RPCTimeoutError):
            await client.with_timeout(0.1).rpc.wait()
        await asyncio.wait_for(handler.cancelled.wait(), 5)
        handler.waiting.clear()
        handler.cancelled.clear()
        call = client.rpc.wait()
        await asyncio.wait_for(handler.waiting.wait(), 5)
        call.cancel()
        await asyncio.wait_for(handler.cancelled.wait(), 5)


async def test_it_is_cancelled_before_it_has_begun(pair: Any, until: Any) -> None:
    """In the message that brings the call, so that nothing of it has run."""
    handler = Handler()
    async with pair(handler) as (server, client):
        assert await client.rpc.coroutine(1) == 1
        for method in ("wait", "handmade", "task"):
            args = (1,) if method == "task" else ()
            client.notify.note(0)
            client.call(method, *args).cancel()
        await until(lambda: len(handler.noted) == 3)
        assert server.statistics()["calls_running"] == 0


async def test_it_holds_a_slot_of_the_window(pair: Any, until: Any) -> None:
    limits = rpc.Limits(window=2, max_in_flight=3)
    handler = Handler()
    async with pair(handler, server={"limits": limits}, dialect="aiozmq") as (server, client):
        calls = [client.rpc.wait() for _ in range(4)]
        await until(lambda: server.statistics()["calls_running"] == 2)
        for call in calls:
            call.cancel()


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("method", "advice"),
    [
        ("forgotten", "await"),
        ("in_thread", "await"),
        ("generator", "async def"),
        ("decorated_stream", "async def"),
    ],
)
async def test_the_error_says_what_to_do(pair: Any, dialect: str, method: str, advice: str) -> None:
    async with pair(Handler(), dialect=dialect) as (_, client):
        with pytest.raises(TypeError, match=advice):
            await client.call(method)


def test_a_generator_function_is_refused_where_a_decorator_hid_it() -> None:
    def marked(function: Any) -> Any:
        # As that of aiozmq.rpc, which looks at nothing.
        function.__rpc__ = {}
        return function

    class Generating(rpc.AttrHandler):
        @marked
        def numbers(self) -> Any:
            yield 1

    async def serve() -> None:
        await rpc.start_server(Generating(), bind="mem://refused")

    with pytest.raises(TypeError, match="numbers is a generator function"):
        asyncio.run(serve())
