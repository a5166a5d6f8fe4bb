"""Calls that are counted: by method and outcome, at both sides, and none where nothing counts."""

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from berrymq_rpc import rpc
from berrymq_rpc.common.measures import OUTCOMES
from berrymq_rpc.common.series import OTHER
from berrymq_rpc.rpc.runtime import COUNTS
from berrymq_rpc.runtime.loop_delay import sample_loop
from berrymq_rpc.runtime.loop_thread import LoopThread

from .conftest import PATIENCE, Pair


class Handler(rpc.AttrHandler):
    def __init__(self) -> None:
        self.began = asyncio.Event()

    @rpc.method
    def add(self, a: int, b: int) -> int:
        return a + b

    @rpc.method
    def with_context(self) -> int:
        return len(str(rpc.context().peer.user))

    @rpc.method
    def fails(self) -> None:
        raise LookupError("not here")

    @rpc.method
    def unsendable(self) -> object:
        return object()

    @rpc.method
    def unsendable_with_context(self) -> object:
        rpc.context()
        return object()

    @rpc.method
    async def later(self) -> int:
        return 5

    @rpc.method
    def returns_awaitable(self) -> Awaitable[int]:
        return self.later()

    @rpc.method
    async def fails_later(self) -> None:
        raise LookupError("not here")

    @rpc.method
    async def unsendable_later(self) -> object:
        return object()

    @rpc.method(thread=True)
    def in_thread(self) -> int:
        return 7

    @rpc.method
    async def forever(self) -> None:
        self.began.set()
        await asyncio.Event().wait()

    @rpc.method
    async def count(self, to: int) -> AsyncIterator[int]:
        self.began.set()
        for number in range(to):
            yield number

    @rpc.method
    async def count_and_fail(self) -> AsyncIterator[int]:
        yield 1
        raise LookupError("no more")

    @rpc.method(allow={"alice"})
    def secret(self) -> None: ...


def outcomes(figures: dict[str, Any]) -> dict[str, int]:
    return {name: figures[name] for name in OUTCOMES if figures[name]}


async def until(check: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not check():
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("method", "args", "served", "made"),
    [
        ("add", (1, 2), "ok", "ok"),
        ("with_context", (), "ok", "ok"),
        ("fails", (), "error", "error"),
        ("unsendable", (), "error", "error"),
        ("unsendable_with_context", (), "error", "error"),
        ("later", (), "ok", "ok"),
        ("returns_awaitable", (), "ok", "ok"),
        ("fails_later", (), "error", "error"),
        ("unsendable_later", (), "error", "error"),
        ("in_thread", (), "ok", "ok"),
        ("add", (1,), "refused", "refused"),
        ("secret", (), "refused", "refused"),
    ],
)
async def test_an_outcome_is_counted_once_at_each_side(
    pair: Pair, method: str, args: tuple[Any, ...], served: str, made: str
) -> None:
    async with pair(Handler(), server={"metrics": True}, metrics=True) as (server, client):
        with contextlib.suppress(Exception):
            await client.call(method, *args)
        assert server.metrics is not None
        assert client.metrics is not None
        theirs = server.metrics.snapshot()["served"]
        ours = client.metrics.snapshot()["made"]
        assert outcomes(theirs[method]) == {served: 1}
        assert outcomes(ours[method]) == {made: 1}
        # A call that never ran took no time.
        assert theirs[method]["seconds"]["count"] == (served != "refused")
        assert server.statistics()[f"calls_{served}"] == 1
        assert client.statistics()[f"calls_made_{made}"] == 1
        assert list(theirs) == list(ours) == [method]


async def test_a_call_that_cannot_be_packed_is_refused_here(pair: Pair) -> None:
    async with pair(Handler(), metrics=True) as (_, client):
        with pytest.raises(TypeError):
            await client.rpc.add(object(), 1)
        assert client.metrics is not None
        assert outcomes(client.metrics.snapshot()["made"]["add"]) == {"refused": 1}


async def test_a_call_of_a_closed_client_is_refused(pair: Pair) -> None:
    async with pair(Handler(), metrics=True) as (_, client):
        client.close()
        with pytest.raises(rpc.ServiceClosedError):
            await client.rpc.add(1, 2)
        assert client.metrics is not None
        assert outcomes(client.metrics.snapshot()["made"]["add"]) == {"refused": 1}


async def test_cancelled_calls(pair: Pair) -> None:
    handler = Handler()
    async with pair(handler, server={"metrics": True}, metrics=True) as (server, client):
        call = client.rpc.forever()
        await asyncio.wait_for(handler.began.wait(), PATIENCE)
        call.cancel()
        call.cancel()
        await until(lambda: server.statistics()["calls_cancelled"])
        assert server.statistics()["calls_cancelled"] == 1
        assert client.statistics()["calls_made_cancelled"] == 1


async def test_expired_calls(pair: Pair) -> None:
    async with pair(Handler(), server={"metrics": True}, metrics=True) as (server, client):
        with pytest.raises(rpc.RPCTimeoutError):
            await client.with_timeout(0.05).rpc.forever()
        await until(lambda: server.statistics()["calls_expired"])
        assert client.statistics()["calls_made_expired"] == 1
        assert server.statistics()["calls_ok"] == 0


async def test_calls_whose_deadline_is_over_before_they_are_read_have_expired(pair: Pair) -> None:
    if type(asyncio.get_running_loop()).__module__.startswith("uvloop"):
        pytest.skip("uvloop writes and reads within one turn")
    async with pair(Handler(), server={"metrics": True}) as (server, client):
        await client.rpc.add(1, 2)
        call = client.with_timeout(0.02).rpc.add(1, 2)
        # Both are in this loop: what has been sent is read too late.
        await asyncio.sleep(0)
        time.sleep(0.1)
        with pytest.raises(rpc.RPCTimeoutError):
            await call
        await until(lambda: server.statistics()["calls_expired"])


@pytest.mark.parametrize("way", ["to the end", "closed", "collected"])
async def test_a_stream_is_one_call(pair: Pair, way: str) -> None:
    handler = Handler()
    async with pair(handler, server={"metrics": True}, metrics=True) as (server, client):
        if way == "to the end":
            assert [number async for number in client.rpc.count(3)] == [0, 1, 2]
            expected = "ok"
        else:
            stream = client.rpc.count(1_000_000)
            assert await anext(stream) == 0
            if way == "closed":
                await stream.aclose()
            else:
                del stream
                gc.collect()
            expected = "cancelled"
        await until(lambda: server.statistics()[f"calls_{expected}"])
        assert client.metrics is not None
        assert server.metrics is not None
        assert outcomes(client.metrics.snapshot()["made"]["count"]) == {expected: 1}
        assert outcomes(server.metrics.snapshot()["served"]["count"]) == {expected: 1}


async def test_a_stream_that_fails(pair: Pair) -> None:
    async with pair(Handler(), server={"metrics": True}, metrics=True) as (server, client):
        with pytest.raises(LookupError):
            async for _ in client.rpc.count_and_fail():
                pass
        assert server.statistics()["calls_error"] == client.statistics()["calls_made_error"] == 1


async def test_a_stream_that_is_awaited_is_not_counted_twice(pair: Pair) -> None:
    async with pair(Handler(), metrics=True) as (_, client):
        with pytest.raises(rpc.ProtocolError):
            await client.rpc.count(1)
        with pytest.raises(rpc.ProtocolError):
            async for _ in client.rpc.add(1, 2):
                pass
        assert client.metrics is not None
        made = client.metrics.snapshot()["made"]
        assert sum(outcomes(made["add"]).values()) == 1
        assert sum(outcomes(made.get("count", dict.fromkeys(OUTCOMES, 0))).values()) <= 1


async def test_notifications_are_counted_where_they_are_served(pair: Pair) -> None:
    async with pair(Handler(), server={"metrics": True}) as (server, client):
        client.notify.add(1, 2)
        client.notify.fails()
        client.notify.add(1)
        await client.rpc.add(3, 4)
        assert server.metrics is not None
        served = server.metrics.snapshot()["served"]
        assert outcomes(served["add"]) == {"ok": 2, "refused": 1}
        assert outcomes(served["fails"]) == {"error": 1}


async def test_names_that_a_peer_makes_up_are_counted_together(pair: Pair) -> None:
    async with pair(Handler(), server={"metrics": True}) as (server, client):
        for number in range(300):
            with pytest.raises(rpc.NotFoundError):
                await client.call(f'x{number}"}}\n#{{ü')
        assert server.metrics is not None
        snapshot = server.metrics.snapshot()
        assert list(snapshot["served"]) == [OTHER]
        assert outcomes(snapshot["served"][OTHER]) == {"refused": 300}
        assert snapshot["names_left_out"] == 300


async def test_nothing_counts_unless_it_is_asked_for(pair: Pair) -> None:
    async with pair(Handler()) as (server, client):
        assert server.metrics is None
        assert client.metrics is None
        await client.rpc.add(1, 2)
        assert "calls_ok" not in server.statistics()
        assert "calls_made_ok" not in client.statistics()


async def test_measuring_begins_later(pair: Pair) -> None:
    handler = Handler()
    async with pair(handler) as (server, client):
        running = client.rpc.forever()
        await asyncio.wait_for(handler.began.wait(), PATIENCE)
        meter = server.measure()
        assert server.measure() is meter is server.metrics
        assert client.measure(meter) is meter is client.metrics
        await client.rpc.add(1, 2)
        running.cancel()
        await until(lambda: server.statistics()["calls_cancelled"])
        snapshot = meter.snapshot()
        assert outcomes(snapshot["served"]["add"]) == outcomes(snapshot["made"]["add"]) == {"ok": 1}
        # It began before: how long it took is not known.
        assert snapshot["served"]["forever"]["seconds"]["count"] == 0
        another = rpc.Meter()
        assert server.measure(another) is another
        await client.rpc.add(1, 2)
        assert outcomes(another.snapshot()["served"]["add"]) == {"ok": 1}
        assert outcomes(meter.snapshot()["served"]["add"]) == {"ok": 1}


async def test_calls_back_are_counted_as_made(pair: Pair) -> None:
    class Caller(rpc.AttrHandler):
        @rpc.method
        async def ask(self) -> Any:
            return await rpc.context().peer.rpc.add(2, 2)

    async with pair(Caller(), server={"metrics": True}, handler=Handler()) as (server, client):
        assert await client.rpc.ask() == 4
        assert server.metrics is not None
        assert outcomes(server.metrics.snapshot()["made"]["add"]) == {"ok": 1}


async def test_calls_that_wait_for_a_server_are_counted() -> None:
    async with await rpc.open_client(
        connect="tcp://127.0.0.1:9", connect_timeout=0.05, metrics=True
    ) as client:
        with pytest.raises(rpc.ConnectionLostError):
            await client.rpc.add(1, 2)
        assert client.statistics()["calls_made_refused"] == 1


async def test_what_waits_when_its_peer_leaves_is_cancelled(pair: Pair) -> None:
    handler = Handler()
    limits = rpc.Limits(window=1)
    settings = {"metrics": True, "limits": limits, "dialects": "aiozmq"}
    async with await rpc.start_server(handler, bind="mem://meter-leaves", **settings) as server:
        async with await rpc.open_client(connect="mem://meter-leaves", dialect="aiozmq") as client:
            calls = [client.rpc.forever() for _ in range(3)]
            await asyncio.wait_for(handler.began.wait(), PATIENCE)
            await until(lambda: server.statistics()["call_bytes_queued"])
            client.close()
            await asyncio.gather(*calls, return_exceptions=True)
        await until(lambda: server.statistics()["calls_cancelled"] == 3)
        assert server.metrics is not None
        assert outcomes(server.metrics.snapshot()["served"]["forever"]) == {"cancelled": 3}


async def test_a_failure_that_nobody_looks_at_is_still_reported(pair: Pair) -> None:
    loop, reports = asyncio.get_running_loop(), list[Any]()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda loop, report: reports.append(report["message"]))
    try:
        async with pair(Handler(), metrics=True) as (_, client):
            call = client.rpc.fails()
            await until(call.done)
            del call
            gc.collect()
    finally:
        loop.set_exception_handler(before)
    assert reports == ["MeteredCall exception was never retrieved"]


def test_a_sync_client_counts() -> None:
    thread = LoopThread("server")
    try:
        server = thread.run(rpc.start_server({"add": rpc.method(add)}, bind="tcp://127.0.0.1:*"))
        with rpc.SyncClient(connect=server.endpoints, metrics=True, timeout=PATIENCE) as client:
            assert client.rpc.add(1, 2) == 3
            assert client.statistics()["calls_made_ok"] == 1
            assert client.metrics is not None
            assert outcomes(client.metrics.snapshot()["made"]["add"]) == {"ok": 1}
        with pytest.raises(rpc.ServiceClosedError):
            client.statistics()
    finally:

        async def close() -> None:
            server.close()
            await server.wait_closed()

        thread.close(close)


def add(a: int, b: int) -> int:
    return a + b


async def test_the_delay_of_the_loop_is_sampled_once_for_all_that_share_a_meter() -> None:
    loop, meter = asyncio.get_running_loop(), rpc.Meter()
    stops = [sample_loop(loop, meter) for _ in range(3)]
    try:
        await until(lambda: meter.loop_delay.count)
        time.sleep(0.6)
        await until(lambda: meter.loop_delay.count == 2)
        assert meter.loop_delay.greatest > 0.09
    finally:
        for stop in stops:
            stop()
            stop()
    again = sample_loop(loop, meter)
    again()


async def test_samples_end_with_the_server() -> None:
    of_server, others = rpc.Meter(), rpc.Meter()
    server = await rpc.start_server({}, bind="tcp://127.0.0.1:*", metrics=of_server)
    stop = sample_loop(asyncio.get_running_loop(), others)
    try:
        await until(lambda: of_server.loop_delay.count)
        server.close()
        await server.wait_closed()
        taken, seen = of_server.loop_delay.count, others.loop_delay.count
        await until(lambda: others.loop_delay.count > seen + 1)
        assert of_server.loop_delay.count == taken
    finally:
        stop()


@pytest.mark.parametrize("metrics", ["yes", 1])
async def test_metrics_are_true_or_a_meter(metrics: Any) -> None:
    with pytest.raises(TypeError, match="metrics must be"):
        await rpc.open_client(connect="tcp://127.0.0.1:9", metrics=metrics)
    with pytest.raises(TypeError, match="metrics must be"):
        await rpc.start_server({}, bind="tcp://127.0.0.1:*", metrics=metrics)


async def test_the_names_of_what_is_counted(pair: Pair) -> None:
    async with pair(Handler()) as (server, client):
        assert set(server.statistics()) == set(client.statistics()) == set(COUNTS)
