"""What a call is to the caller: a future, a coroutine, and something to be cancelled."""

import asyncio
import gc
import inspect
import time
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from berrymq_rpc import rpc

Until = Callable[..., Awaitable[None]]

#: Seconds within which the other side has heard of a cancellation or a timeout: many times what it
#: takes, for a machine that is busy.
SOON = 1.0


class Handler(rpc.AttrHandler):
    def __init__(self) -> None:
        self.started = 0
        self.cancelled = 0
        self.deadlines: list[float | None] = []

    @rpc.method
    def add(self, a, b=1):
        return a + b

    @rpc.method
    async def add_later(self, a, b=1):
        await asyncio.sleep(0)
        return a + b

    @rpc.method
    def fail(self):
        raise ValueError("failed")

    @rpc.method
    async def forever(self):
        self.started += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    @rpc.method
    async def numbers(self, count):
        for number in range(count):
            yield number

    @rpc.method
    def deadline(self):
        self.deadlines.append(rpc.context().deadline)
        return self.deadlines[-1]

    @rpc.method
    async def deadline_later(self):
        await asyncio.sleep(0.02)
        return rpc.context().deadline

    @rpc.method(thread=True)
    def deadline_in_thread(self):
        return rpc.context().deadline


@pytest.fixture
def handler() -> Handler:
    return Handler()


# -- a future and a coroutine ------------------------------------------------------------------


async def test_is_sent_at_once(pair: Any, handler: Handler, until: Until) -> None:
    async with pair(handler) as (_, client):
        call = client.rpc.forever()
        await until(lambda: handler.started)
        call.cancel()


async def test_await(pair: Any, handler: Handler) -> None:
    async with pair(handler) as (_, client):
        call = client.rpc.add(1)
        assert isinstance(call, rpc.Call)
        assert isinstance(call, asyncio.Future)
        assert asyncio.isfuture(call)
        assert inspect.isawaitable(call)
        assert not call.done()
        assert await call == 2
        assert call.done()
        assert await call == 2, "it can be awaited again"
        assert call.result() == 2
        assert call.exception() is None


async def test_call_by_name(pair: Any, handler: Handler) -> None:
    async with pair({"a b": {"1": rpc.method(lambda x: x)}}) as (_, client):
        assert await client.call("a b.1", 5) == 5
        assert await client.call("a b.1", x=6) == 6
        with pytest.raises(TypeError):
            client.call()
        with pytest.raises(TypeError):
            client.call(method="a b.1")


async def test_names_are_kept(pair: Any, handler: Handler) -> None:
    async with pair(handler) as (_, client):
        assert client.rpc.a is client.rpc.a
        assert client.rpc.a.b is not client.rpc.b
        assert repr(client.rpc.a.b) == "<MethodProxy a.b>"
        with pytest.raises(AttributeError):
            _ = client.rpc._private
        with pytest.raises(AttributeError):
            _ = client.rpc.a.__wrapped__
        for number in range(2_000):
            getattr(client.rpc, f"name{number}")
        assert await client.rpc.add(1) == 2


async def test_gather(pair: Any, handler: Handler) -> None:
    async with pair(handler) as (_, client):
        got = await asyncio.gather(
            client.rpc.add(1), client.rpc.fail(), client.rpc.add_later(2), return_exceptions=True
        )
        assert got[0] == 2
        assert isinstance(got[1], ValueError)
        assert got[2] == 3


async def test_gather_cancelled(pair: Any, handler: Handler, until: Until) -> None:
    async with pair(handler) as (_, client):
        both = asyncio.gather(client.rpc.forever(), client.rpc.forever())
        await until(lambda: handler.started == 2)
        both.cancel()
        with pytest.raises(asyncio.CancelledError):
            await both
        await until(lambda: handler.cancelled == 2, SOON)


async def test_wait_for(pair: Any, handler: Handler, until: Until) -> None:
    async with pair(handler) as (_, client):
        assert await asyncio.wait_for(client.rpc.add(1), 5) == 2
        with pytest.raises(TimeoutError) as caught:
            await asyncio.wait_for(client.rpc.forever(), 0.05)
        assert not isinstance(caught.value, rpc.RPCTimeoutError)
        await until(lambda: handler.cancelled == handler.started, SOON)


async def test_timeout_of_asyncio(pair: Any, handler: Handler, until: Until) -> None:
    async with pair(handler) as (_, client):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.rpc.forever()
        await until(lambda: handler.started == handler.cancelled == 1, SOON)


async def test_ensure_future(pair: Any, handler: Handler) -> None:
    async with pair(handler) as (_, client):
        call = client.rpc.add(1)
        assert asyncio.ensure_future(call) is call
        assert await call == 2


async def test_wait_and_as_completed(pair: Any, handler: Handler) -> None:
    async with pair(handler) as (_, client):
        # It takes no coroutines, which a call passes for.
        calls = [asyncio.create_task(client.rpc.add(number)) for number in range(5)]
        done, pending = await asyncio.wait(calls)
        assert (len(done), len(pending)) == (5, 0)
        calls = [client.rpc.add(number) for number in range(5)]
        assert sorted([await each for each in asyncio.as_completed(calls)]) == [1, 2, 3, 4, 5]


async def test_shield(pair: Any, handler: Handler, until: Until) -> None:
    async with pair(handler) as (_, client):
        call = client.rpc.forever()
        outer = asyncio.shield(call)
        await until(lambda: handler.started)
        outer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await outer
        assert await client.rpc.add(1) == 2
        assert not handler.cancelled
        call.cancel()


async def test_create_task(pair: Any, handler: Handler) -> None:
    async with pair(handler) as (_, client):
        task = asyncio.create_task(client.rpc.add(1), name="a task")
        assert await task == 2
        task = asyncio.create_task(client.rpc.fail())
        with pytest.raises(ValueError, match="failed"):
            await task
        # Answered before the task takes its first step.
        call = client.rpc.add(5)
        assert await call == 6
        assert await asyncio.create_task(call) == 6


async def test_task_group(pair: Any, handler: Handler, until: Until) -> None:
    async with pair(handler) as (_, client):
        async with asyncio.TaskGroup() as group:
            first = group.create_task(client.rpc.add(1))
            second = group.create_task(client.rpc.add_later(2))
        assert (first.result(), second.result()) == (2, 3)
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(client.rpc.forever())
                await until(lambda: handler.started)
                group.create_task(client.rpc.fail())
        assert waiting.cancelled()
        assert [type(error) for error in caught.value.exceptions] == [ValueError]
        await until(lambda: handler.cancelled == 1, SOON)


async def test_run_coroutine_threadsafe(pair: Any, handler: Handler) -> None:
    async with pair(handler) as (_, client):
        loop = asyncio.get_running_loop()

        async def call() -> Any:
            return await client.rpc.add(1)

        def in_a_thread() -> Any:
            return asyncio.run_coroutine_threadsafe(call(), loop).result(5)

        assert await asyncio.to_thread(in_a_thread) == 2


async def test_callback(pair: Any, handler: Handler) -> None:
    async with pair(handler) as (_, client):
        called: list[Any] = []
        call = client.rpc.add(1)
        call.add_done_callback(lambda done: called.append(done.result()))
        await call
        await asyncio.sleep(0)
        assert called == [2]


# -- cancelling --------------------------------------------------------------------------------


async def test_cancel_the_call(pair: Any, handler: Handler, until: Until) -> None:
    async with pair(handler) as (_, client):
        call = client.rpc.forever()
        await until(lambda: handler.started)
        assert call.cancel("why")
        assert call.cancelled()
        assert not call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(lambda: handler.cancelled, SOON)
        assert client.statistics()["calls_in_flight"] == 0
        assert await client.rpc.add(1) == 2


async def test_cancel_the_awaiting_task(pair: Any, handler: Handler, until: Until) -> None:
    async with pair(handler) as (_, client):

        async def waits() -> None:
            await client.rpc.forever()

        task = asyncio.create_task(waits())
        await until(lambda: handler.started)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: handler.cancelled, SOON)
        assert await client.rpc.add(1) == 2


async def test_cancel_a_task_of_the_call(pair: Any, handler: Handler, until: Until) -> None:
    async with pair(handler) as (server, client):
        task = asyncio.create_task(client.rpc.forever())
        await until(lambda: handler.started)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: handler.cancelled, SOON)
        await until(lambda: server.statistics()["calls_running"] == 0)


async def test_cancel_a_task_before_its_first_step(
    pair: Any, handler: Handler, until: Until
) -> None:
    async with pair(handler) as (_, client):
        await client.rpc.add(1)
        task = asyncio.create_task(client.rpc.forever())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert client.statistics()["calls_in_flight"] == 0
        await until(lambda: handler.cancelled == handler.started)
        assert await client.rpc.add(1) == 2


async def test_cancel_in_the_tick_of_the_call(pair: Any, handler: Handler, until: Until) -> None:
    async with pair(handler) as (server, client):
        await client.rpc.add(1)
        for _ in range(100):
            client.rpc.forever().cancel()
        assert await client.rpc.add(1) == 2
        await until(lambda: handler.cancelled == handler.started)
        await until(lambda: server.statistics()["calls_running"] == 0)


async def test_cancel_before_there_is_a_connection(handler: Handler) -> None:
    async with await rpc.open_client(connect="mem://nobody") as client:
        call = client.rpc.forever()
        call.cancel()
        async with await rpc.start_server(handler, bind="mem://nobody"):
            assert await client.rpc.add(1) == 2
    assert not handler.started


async def test_cancel_what_waits_for_the_window(pair: Any, handler: Handler, until: Until) -> None:
    limits = rpc.Limits(window=2)
    async with pair(handler, server={"limits": limits}) as (_, client):
        await client.rpc.add(1)
        holding = [client.rpc.forever() for _ in range(2)]
        await until(lambda: handler.started == 2)
        waiting = [client.rpc.forever() for _ in range(10)]
        later = client.rpc.add(1)
        for call in waiting:
            call.cancel()
        for call in holding:
            call.cancel()
        assert await later == 2
        assert handler.started == 2


async def test_close_of_a_call(pair: Any, handler: Handler, until: Until) -> None:
    """`close` ends a coroutine that will not be run."""
    async with pair(handler) as (_, client):
        call = client.rpc.forever()
        await until(lambda: handler.started)
        call.close()
        assert call.cancelled()
        await until(lambda: handler.cancelled, SOON)


async def test_a_call_that_nobody_awaits(pair: Any, handler: Handler, until: Until) -> None:
    """It runs on, as what was begun, and is forgotten when it is answered."""
    async with pair(handler) as (_, client):
        reference = weakref.ref(client.rpc.add(1))
        await client.rpc.add(1)
        await until(lambda: client.statistics()["calls_in_flight"] == 0)
        gc.collect()
        assert reference() is None


async def test_a_failure_that_nobody_awaits(pair: Any, handler: Handler, until: Until) -> None:
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    async with pair(handler) as (_, client):
        client.rpc.fail()
        await client.rpc.add(1)

        def collected() -> bool:
            gc.collect()
            return bool(told)

        await until(collected)
        assert "never retrieved" in told[0]["message"]


async def test_handler_that_holds_out_against_cancelling(
    pair: Any, handler: Handler, until: Until
) -> None:
    ended: list[int] = []

    async def stubborn() -> int:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
        ended.append(1)
        return 5

    async with pair({"stubborn": rpc.method(stubborn)}) as (server, client):
        with pytest.raises(rpc.RPCTimeoutError):
            await client.with_timeout(0.05).rpc.stubborn()
        await until(lambda: ended)
        await until(lambda: server.statistics()["calls_running"] == 0)
        with pytest.raises(rpc.NotFoundError):
            await client.rpc.add(1)


# -- time --------------------------------------------------------------------------------------


async def test_timeout_reaches_the_handler(pair: Any, handler: Handler, until: Until) -> None:
    async with pair(handler, timeout=0.1) as (server, client):
        began = time.monotonic()
        with pytest.raises(
            rpc.RPCTimeoutError, match="no answer in time: 'forever' was accepted"
        ) as caught:
            await client.rpc.forever()
        assert 0.09 < time.monotonic() - began < 0.1 + SOON
        assert isinstance(caught.value, TimeoutError)
        await until(lambda: handler.cancelled == 1, SOON)
        await until(lambda: server.statistics()["calls_running"] == 0)
        assert client.statistics()["calls_in_flight"] == 0
        assert await client.rpc.add(1) == 2


async def test_with_timeout(pair: Any, handler: Handler, until: Until) -> None:
    async with pair(handler) as (server, client):
        assert client.timeout is None
        quick = client.with_timeout(0.05)
        assert quick.timeout == 0.05
        assert quick.endpoints == client.endpoints
        with pytest.raises(rpc.RPCTimeoutError):
            await quick.rpc.forever()
        with pytest.raises(rpc.RPCTimeoutError):
            await quick.call("forever")
        assert await quick.with_timeout(None).rpc.add(1) == 2
        assert await client.rpc.deadline() is None
        assert server.statistics()["peers"] == 1, "they share the connection"
        await until(lambda: handler.cancelled == 2, SOON)


@pytest.mark.parametrize("timeout", [0, -1, -0.5, float("nan")])
async def test_timeouts_that_are_none(pair: Any, handler: Handler, timeout: float) -> None:
    async with pair(handler) as (_, client):
        with pytest.raises(ValueError, match="timeout"):
            client.with_timeout(timeout)
        with pytest.raises(ValueError, match="timeout"):
            await rpc.open_client(connect="mem://x", timeout=timeout)


async def test_deadline_in_the_context(pair: Any, handler: Handler) -> None:
    async with pair(handler) as (_, client):
        for name in ("deadline", "deadline_later", "deadline_in_thread"):
            assert await client.call(name) is None
            left = await client.with_timeout(5).call(name)
            assert 4 < left <= 5


async def test_many_timeouts(pair: Any, handler: Handler, until: Until) -> None:
    async with pair(handler, timeout=0.2) as (server, client):
        calls = [client.rpc.forever() for _ in range(1000)]
        got = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(error) for error in got} == {rpc.RPCTimeoutError}
        assert client.statistics()["calls_in_flight"] == 0
        await until(lambda: handler.cancelled == handler.started)
        await until(lambda: server.statistics()["calls_running"] == 0)
        assert await client.with_timeout(None).rpc.add(1) == 2


async def test_timeout_without_a_server() -> None:
    async with await rpc.open_client(connect="tcp://127.0.0.1:9", timeout=0.1) as client:
        with pytest.raises(rpc.RPCTimeoutError, match="not sent"):
            await client.rpc.add(1)


async def test_answer_after_the_timeout_is_dropped(pair: Any, until: Until) -> None:
    release = asyncio.Event()

    async def late() -> int:
        try:
            await release.wait()
        except asyncio.CancelledError:
            await release.wait()
        return 5

    async with pair({"late": rpc.method(late), "one": rpc.method(lambda: 1)}) as (_, client):
        with pytest.raises(rpc.RPCTimeoutError):
            await client.with_timeout(0.05).rpc.late()
        release.set()
        assert [await client.rpc.one() for _ in range(10)] == [1] * 10
        assert client.statistics()["malformed_messages"] == 0


# -- streams and what is none ------------------------------------------------------------------


async def test_awaiting_a_stream(pair: Any, handler: Handler) -> None:
    async with pair(handler) as (_, client):
        for count in (0, 1, 1000):
            with pytest.raises(rpc.ProtocolError, match="'numbers' is a stream: use 'async for'"):
                await client.rpc.numbers(count)
        assert await client.rpc.add(1) == 2


async def test_iterating_over_what_is_no_stream(pair: Any, handler: Handler) -> None:
    async with pair(handler) as (_, client):
        for name in ("add", "add_later"):
            with pytest.raises(rpc.ProtocolError, match=f"'{name}' is not a stream: use 'await'"):
                async for _ in client.call(name, 1):
                    pytest.fail("there is an item")
        with pytest.raises(ValueError, match="failed"):
            async for _ in client.rpc.fail():
                pytest.fail("there is an item")
        with pytest.raises(rpc.NotFoundError):
            async for _ in client.rpc.nope():
                pytest.fail("there is an item")
        # It had been answered when somebody began to iterate.
        call = client.rpc.add(1)
        await call
        with pytest.raises(rpc.ProtocolError, match="'add' is not a stream"):
            await anext(call)
        assert await client.rpc.add(1) == 2


async def test_call_outside_of_the_loop(pair: Any, handler: Handler) -> None:
    async with pair(handler) as (_, client):

        def call() -> None:
            with pytest.raises(RuntimeError, match="another event loop or thread"):
                client.rpc.add(1)
            with pytest.raises(RuntimeError, match="another event loop or thread"):
                client.notify.add(1)

        await asyncio.to_thread(call)
        assert await client.rpc.add(1) == 2
