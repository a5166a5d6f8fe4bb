"""Streams: async generators at the server, ``async for`` at the client."""

import asyncio
import gc
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest

from berrymq_rpc import rpc

Until = Callable[..., Awaitable[None]]

#: Seconds within which the generator at the server ends after its reader has left.
SOON = 1.0


class Handler(rpc.AttrHandler):
    def __init__(self) -> None:
        self.made = 0
        self.open = 0
        self.go_on = asyncio.Event()

    @rpc.method
    async def count(self, count=None, size=0):
        self.open += 1
        try:
            number = 0
            while count is None or number < count:
                self.made += 1
                yield number if not size else bytes(size)
                number += 1
        finally:
            self.open -= 1

    @rpc.method
    async def slow_first(self, seconds):
        await asyncio.sleep(seconds)
        yield 1

    @rpc.method
    async def steps(self, seconds, count):
        for number in range(count):
            await asyncio.sleep(seconds)
            yield number

    @rpc.method
    async def gated(self):
        self.open += 1
        try:
            yield 1
            await self.go_on.wait()
            yield 2
        finally:
            self.open -= 1

    @rpc.method
    async def fails(self, after):
        for number in range(after):
            yield number
        raise ValueError("in the middle", after)

    @rpc.method
    async def empty(self):
        return
        yield

    @rpc.method
    async def cleans_up(self):
        self.open += 1
        try:
            while True:
                yield 1
        finally:
            await asyncio.sleep(0.01)
            self.open -= 1

    @rpc.method
    async def deadline(self):
        yield rpc.context().deadline
        await asyncio.sleep(0.06)
        yield rpc.context().deadline

    @rpc.method
    def add(self, a, b=1):
        return a + b


@pytest.fixture
def handler() -> Handler:
    return Handler()


async def collect(items: Any) -> list[Any]:
    return [item async for item in items]


@pytest.mark.parametrize("bind", ["mem://*", "tcp://127.0.0.1:*"])
async def test_all_items(pair: Any, handler: Handler, bind: str) -> None:
    async with pair(handler, bind=bind) as (server, client):
        for count in (1, 2, 63, 64, 65, 200, 1000):
            assert await collect(client.rpc.count(count)) == list(range(count))
        assert await collect(client.rpc.empty()) == []
        assert await collect(client.rpc.count(count=3)) == [0, 1, 2]
        assert handler.open == 0
        assert server.statistics()["calls_running"] == 0


@pytest.mark.nodebug
async def test_20_000_items(pair: Any, handler: Handler) -> None:
    async with pair(handler) as (_, client):
        assert await collect(client.rpc.count(20_000)) == list(range(20_000))


async def test_anext_and_aiter(pair: Any, handler: Handler) -> None:
    async with pair(handler) as (_, client):
        items = client.rpc.count(2)
        loop = aiter(items)
        assert aiter(loop) is loop
        assert await anext(loop) == 0
        assert await anext(items) == 1
        with pytest.raises(StopAsyncIteration):
            await anext(loop)
        for _ in range(2):
            with pytest.raises(StopAsyncIteration):
                await anext(items)
        assert await anext(client.rpc.empty(), "none") == "none"


async def test_items_that_came_before_anybody_iterated(
    pair: Any, handler: Handler, until: Until
) -> None:
    async with pair(handler) as (_, client):
        items = client.rpc.count(3)
        await until(lambda: handler.made == 3 and not handler.open)
        assert await client.rpc.add(1) == 2
        assert await collect(items) == [0, 1, 2]
        failing = client.rpc.fails(2)
        assert await client.rpc.add(1) == 2
        got = []
        with pytest.raises(ValueError, match="in the middle"):
            async for item in failing:
                got.append(item)
        assert got == [0, 1]


async def test_slow_reader_bounds_the_server(pair: Any, handler: Handler, until: Until) -> None:
    async with pair(handler, limits=rpc.Limits(stream_window=10)) as (_, client):
        items = client.rpc.count()
        assert await anext(items) == 0
        for number in range(1, 100):
            # As long as calls go back and forth, the server has all the time it wants.
            for _ in range(3):
                await client.rpc.add(1)
            assert handler.made <= number + 11
            assert await anext(items) == number
        await items.aclose()


async def test_window_is_the_smaller_of_both(pair: Any, handler: Handler, until: Until) -> None:
    limits = {"limits": rpc.Limits(stream_window=5)}
    async with pair(handler, server=limits) as (_, client):
        assert await client.rpc.add(1) == 2
        items = client.rpc.count()
        for _ in range(20):
            await client.rpc.add(1)
        assert handler.made <= 6
        for number in range(1000):
            assert await anext(items) == number
        await items.aclose()


@pytest.mark.parametrize("window", [1, 2, 3])
async def test_small_windows(pair: Any, handler: Handler, window: int) -> None:
    limits = rpc.Limits(stream_window=window)
    async with pair(handler, limits=limits, timeout=5) as (_, client):
        assert await collect(client.rpc.count(50)) == list(range(50))
    async with pair(handler, server={"limits": limits}, timeout=5) as (_, client):
        assert await collect(client.rpc.count(50)) == list(range(50))


async def test_unread_stream_of_large_items_bounds_both(pair: Any, handler: Handler) -> None:
    limits = {"limits": rpc.Limits(max_queued_bytes=1 << 20)}
    async with pair(handler, server=limits, limits=rpc.Limits(stream_window=8)) as (_, client):
        tracemalloc.start()
        try:
            items = client.rpc.count(size=1 << 20)
            assert len(await anext(items)) == 1 << 20
            for _ in range(50):
                await client.rpc.add(1)
            assert handler.made <= 10
            assert tracemalloc.get_traced_memory()[0] < 40 << 20
        finally:
            tracemalloc.stop()
        await items.aclose()


async def test_stream_of_large_items(pair: Any, handler: Handler) -> None:
    async with pair(handler) as (_, client):
        sizes = [len(item) async for item in client.rpc.count(50, 1 << 20)]
        assert sizes == [1 << 20] * 50
        sizes = [len(item) async for item in client.rpc.count(500, 10_000)]
        assert sizes == [10_000] * 500


async def test_break_ends_it(pair: Any, handler: Handler, until: Until) -> None:
    async with pair(handler) as (_, client):
        async for item in client.rpc.count():
            if item == 100:
                break
        await until(lambda: not handler.open, SOON)
        assert handler.made < 100 + 3 * 64
        assert client.statistics()["calls_in_flight"] == 0
        assert await client.rpc.add(1) == 2


async def test_break_before_the_first_item(pair: Any, handler: Handler, until: Until) -> None:
    async with pair(handler) as (_, client):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                async for _ in client.rpc.slow_first(60):
                    pytest.fail("there is an item")
        assert await client.rpc.add(1) == 2
        await until(lambda: client.statistics()["calls_in_flight"] == 0, SOON)


async def test_aclose(pair: Any, handler: Handler, until: Until) -> None:
    async with pair(handler) as (_, client):
        items = client.rpc.count()
        assert await anext(items) == 0
        await items.aclose()
        await items.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(items)
        await until(lambda: not handler.open, SOON)
        # Before anybody has iterated.
        items = client.rpc.count()
        await items.aclose()
        await until(lambda: not handler.open, SOON)
        # After its end.
        items = client.rpc.count(1)
        assert await collect(items) == [0]
        await items.aclose()
        assert await client.rpc.add(1) == 2


async def test_aclosing(pair: Any, handler: Handler, until: Until) -> None:
    async with pair(handler) as (_, client):
        async with aclosing(client.rpc.count()) as items:
            async for item in items:
                if item == 3:
                    break
            assert handler.open == 1
        await until(lambda: not handler.open, SOON)
        with pytest.raises(KeyError):
            async with aclosing(client.rpc.count()) as items:
                async for _ in items:
                    raise KeyError
        await until(lambda: not handler.open, SOON)


async def test_collection_ends_it(pair: Any, handler: Handler, until: Until) -> None:
    async with pair(handler) as (_, client):
        items: Any = client.rpc.count()
        assert await anext(items) == 0
        del items
        gc.collect()
        await until(lambda: not handler.open, SOON)
        # In a cycle, and before the first item was read.
        items = client.rpc.count()
        cycle: list[Any] = [aiter(items)]
        cycle.append(cycle)
        await until(lambda: handler.open)
        del items, cycle
        gc.collect()
        await until(lambda: not handler.open, SOON)
        assert client.statistics()["calls_in_flight"] == 0


async def test_cancelled_reader_ends_it(pair: Any, handler: Handler, until: Until) -> None:
    async with pair(handler) as (_, client):

        async def read() -> None:
            async for _ in client.rpc.gated():
                pass

        task = asyncio.create_task(read())
        await until(lambda: handler.open)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not handler.open, SOON)


async def test_cancel_of_a_stream(pair: Any, handler: Handler, until: Until) -> None:
    async with pair(handler) as (_, client):
        items = client.rpc.count()
        assert await anext(items) == 0
        assert items.cancel()
        await until(lambda: not handler.open, SOON)
        with pytest.raises(StopAsyncIteration):
            await anext(items)
        assert not items.cancel()


async def test_cancelled_read_can_be_tried_again(pair: Any, handler: Handler) -> None:
    async with pair(handler) as (_, client):
        items = client.rpc.gated()
        assert await anext(items) == 1
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await anext(items)
        handler.go_on.set()
        assert await anext(items) == 2
        with pytest.raises(StopAsyncIteration):
            await anext(items)


@pytest.mark.parametrize("way", ["cancelled", "timeout", "wait_for"])
@pytest.mark.parametrize("peer", ["client", "server"])
@pytest.mark.parametrize("where", ["waiting", "in its body"])
async def test_a_loop_that_is_cancelled_ends_the_stream_though_its_exception_is_kept(
    pair: Any, until: Until, way: str, peer: str, where: str
) -> None:
    class Endless(rpc.AttrHandler):
        running = 0

        @rpc.method
        async def numbers(self) -> Any:
            self.running += 1
            try:
                yield self.running
                await asyncio.get_running_loop().create_future()
            finally:
                self.running -= 1

        @rpc.method
        async def read_back(self) -> None:
            await read(rpc.context().peer)

    kept: list[BaseException] = []

    async def loop_over(asked: Any) -> None:
        # A frame of the traceback that holds the call.
        numbers = asked.rpc.numbers()
        async for _ in numbers:
            reading.set()
            if where == "in its body":
                await asyncio.get_running_loop().create_future()

    async def read(asked: Any) -> None:
        try:
            if way == "cancelled":
                task = asyncio.create_task(loop_over(asked))
                await reading.wait()
                task.cancel()
                await task
            elif way == "timeout":
                async with asyncio.timeout(0.05):
                    await loop_over(asked)
            else:
                await asyncio.wait_for(loop_over(asked), 0.05)
        except (TimeoutError, asyncio.CancelledError) as error:
            kept.append(error)

    served = Endless()
    reading = asyncio.Event()
    async with pair(served, handler=served) as (_, client):
        await (read(client) if peer == "client" else client.rpc.read_back())
        await until(lambda: not served.running, 1)
        assert len(kept) == 1


async def test_a_loop_that_is_left_otherwise_can_be_taken_up_again(
    pair: Any, handler: Handler, until: Until
) -> None:
    async with pair(handler) as (_, client):
        items = client.rpc.count(10)
        async for item in items:
            if item == 2:
                break
        with pytest.raises(LookupError):
            async for item in items:
                raise LookupError(item)
        assert await anext(items) == 4
        assert [item async for item in items] == [5, 6, 7, 8, 9]
        loop = aiter(client.rpc.count())
        assert await anext(loop) == 0
        await loop.aclose()
        await until(lambda: not handler.open, SOON)


async def test_an_anext_that_is_cancelled_does_not_keep_its_stream(
    pair: Any, handler: Handler, until: Until
) -> None:
    async with pair(handler) as (server, client):
        items = client.rpc.gated()
        assert await anext(items) == 1
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.02):
                await anext(items)
        del items
        await until(lambda: not server.statistics()["calls_running"], 1)
        assert caught.value.__cause__ is not None


async def test_two_readers(pair: Any, handler: Handler) -> None:
    async with pair(handler) as (_, client):
        items = client.rpc.gated()
        assert await anext(items) == 1
        first = asyncio.create_task(anext(items))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task"):
            await anext(items)
        handler.go_on.set()
        assert await first == 2


async def test_generator_that_cleans_up(pair: Any, handler: Handler, until: Until) -> None:
    async with pair(handler) as (_, client):
        async for _ in client.rpc.cleans_up():
            break
        await until(lambda: not handler.open, SOON)


async def test_server_closes_in_the_middle(pair: Any, handler: Handler) -> None:
    async with pair(handler) as (server, client):
        items = client.rpc.gated()
        assert await anext(items) == 1
        server.close()
        with pytest.raises((rpc.ServiceClosedError, rpc.ConnectionLostError)):
            await anext(items)
        await server.wait_closed()
        assert handler.open == 0


async def test_client_closes_in_the_middle(pair: Any, handler: Handler, until: Until) -> None:
    async with pair(handler) as (_, client):
        items = client.rpc.gated()
        assert await anext(items) == 1
        reading = asyncio.create_task(anext(items))
        await asyncio.sleep(0)
        client.close()
        with pytest.raises(rpc.ServiceClosedError):
            await reading
        with pytest.raises(StopAsyncIteration):
            await anext(items)
        await client.wait_closed()
        await until(lambda: not handler.open, SOON)


@pytest.mark.parametrize("after", [0, 1, 64, 65, 500])
async def test_error_in_the_middle(pair: Any, handler: Handler, after: int) -> None:
    async with pair(handler) as (_, client):
        got = []
        with pytest.raises(ValueError, match="in the middle") as caught:
            async for item in client.rpc.fails(after):
                got.append(item)
        assert got == list(range(after))
        assert caught.value.args == ("in the middle", after)
        assert await client.rpc.add(1) == 2


async def test_timeout_is_for_each_item(pair: Any, handler: Handler) -> None:
    async with pair(handler, timeout=0.25) as (_, client):
        assert await collect(client.rpc.steps(0.05, 10)) == list(range(10))


async def test_timeout_of_an_item(pair: Any, handler: Handler, until: Until) -> None:
    async with pair(handler, timeout=0.1) as (_, client):
        items = client.rpc.gated()
        assert await anext(items) == 1
        with pytest.raises(rpc.RPCTimeoutError, match="'gated'"):
            await anext(items)
        with pytest.raises(StopAsyncIteration):
            await anext(items)
        await until(lambda: not handler.open, SOON)
        assert client.statistics()["calls_in_flight"] == 0


async def test_slow_first_item(pair: Any, handler: Handler) -> None:
    async with pair(handler) as (_, client):
        assert await collect(client.rpc.slow_first(0.05)) == [1]
        assert await collect(client.with_timeout(5).rpc.slow_first(0.05)) == [1]
        with pytest.raises(rpc.RPCTimeoutError):
            await collect(client.with_timeout(0.05).rpc.slow_first(60))


async def test_reader_may_take_its_time(pair: Any, handler: Handler) -> None:
    """The timeout is how long the reader waits, not how long it works on an item."""
    async with pair(handler, timeout=0.05) as (_, client):
        got = []
        async for item in client.rpc.count(5):
            await asyncio.sleep(0.06)
            got.append(item)
        assert got == [0, 1, 2, 3, 4]


async def test_deadline_in_a_stream_is_never_past(pair: Any, handler: Handler) -> None:
    async with pair(handler, timeout=0.05) as (_, client):
        items = client.rpc.deadline()
        first = await anext(items)
        assert first is None or first > 0
    async with pair(handler, timeout=0.2) as (_, client):
        for left in await collect(client.rpc.deadline()):
            assert left is None or left > 0


async def test_many_streams_at_once(pair: Any, handler: Handler) -> None:
    async with pair(handler) as (server, client):
        got = await asyncio.gather(*[collect(client.rpc.count(100)) for _ in range(100)])
        assert got == [list(range(100))] * 100
        assert handler.open == 0
        assert server.statistics()["calls_running"] == 0


async def test_streams_leave_the_window(pair: Any, handler: Handler, until: Until) -> None:
    async with pair(handler, server={"limits": rpc.Limits(window=5)}) as (_, client):
        streams = [client.rpc.gated() for _ in range(50)]
        for items in streams:
            assert await anext(items) == 1
        assert await client.rpc.add(1) == 2
        handler.go_on.set()
        for items in streams:
            assert await collect(items) == [2]


async def test_blocked_stream_does_not_keep_others_waiting(pair: Any, handler: Handler) -> None:
    async with pair(handler) as (_, client):
        unread = [client.rpc.count() for _ in range(10)]
        for items in unread:
            assert await anext(items) == 0
        assert await collect(client.rpc.count(1000)) == list(range(1000))
        assert await client.rpc.add(1) == 2
        for items in unread:
            await items.aclose()


async def test_stream_as_a_notification(pair: Any, handler: Handler, until: Until) -> None:
    """Nobody reads it."""
    async with pair(handler) as (server, client):
        client.notify.count(1000)
        assert await client.rpc.add(1) == 2
        assert server.statistics()["notifications_dropped"] == 1
        assert not handler.made


async def test_stream_from_a_client_to_its_server(pair: Any, handler: Handler) -> None:
    """Over the same connection, the other way round."""

    async def read_back(count: int) -> list[int]:
        return [item async for item in rpc.context().peer.rpc.count(count)]

    async with pair({"read_back": rpc.method(read_back)}, handler=handler) as (_, client):
        assert await client.rpc.read_back(200) == tuple(range(200))
        assert handler.open == 0


async def test_relayed_stream(pair: Any, handler: Handler, until: Until) -> None:
    """Ending the outer stream ends the inner one."""

    async def relay():
        async for item in rpc.context().peer.rpc.count():
            yield item

    async with pair({"relay": rpc.method(relay)}, handler=handler) as (_, client):
        got = []
        async for item in client.rpc.relay():
            got.append(item)
            if item == 200:
                break
        assert got == list(range(201))
        await until(lambda: not handler.open, SOON)
