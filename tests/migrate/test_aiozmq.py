"""Each row of the table for programs of aiozmq.rpc, in its new form."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from berrymq_rpc import Bus, Node, rpc

from .conftest import rows


class OutOfStock(Exception):
    pass


class Celsius:
    def __init__(self, degrees: int) -> None:
        self.degrees = degrees


TRANSLATION = {
    5: (Celsius, lambda it: bytes([it.degrees]), lambda packed: Celsius(packed[0])),
}


class Inner(rpc.AttrHandler):
    @rpc.method
    def method(self, value: int) -> int:
        return value + 1


class Handler(rpc.AttrHandler):
    def __init__(self) -> None:
        self.ns = Inner()
        self.noted: asyncio.Queue[int] = asyncio.Queue()
        self.stopped = asyncio.Event()

    @rpc.method
    def add(self, a: int, b: int) -> int:
        return a + b

    @rpc.method
    def note(self, value: int) -> None:
        self.noted.put_nowait(value)

    @rpc.method
    def warmer(self, value: Any) -> Celsius:
        return Celsius(value.degrees + 1)

    @rpc.method(thread=True, allow=None)
    def blocks(self) -> int:
        return 7

    @rpc.method
    def fails(self, name: str) -> None:
        raise {"stock": OutOfStock, "time": TimeoutError, "parameters": ValueError}[name](name)

    @rpc.method
    async def method(self) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            self.stopped.set()


@asynccontextmanager
async def pair(
    handler: Any = None, server: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[rpc.Client]:
    async with await rpc.start_server(
        Handler() if handler is None else handler, bind="tcp://127.0.0.1:*", **(server or {})
    ) as started:
        (endpoint,) = started.endpoints
        async with await rpc.open_client(connect=endpoint, **options) as client:
            yield client


async def serve() -> None:
    async with await rpc.start_server(Handler(), bind="tcp://127.0.0.1:*") as server:
        assert server.endpoints[0].startswith("tcp://127.0.0.1:")
        assert not server.endpoints[0].endswith("*")


async def connect() -> None:
    async with await rpc.open_client(connect="mem://no-one", connect_timeout=0.05) as client:
        with pytest.raises(rpc.ConnectionLostError):
            await client.rpc.add(1, 2)


async def call() -> None:
    async with pair() as client:
        assert await client.rpc.ns.method(1) == 2
        assert await client.call("ns.method", 1) == 2


async def with_timeout() -> None:
    handler = Handler()
    async with pair(handler) as client:
        with pytest.raises(rpc.RPCTimeoutError):
            await client.with_timeout(0.2).rpc.method()
        await handler.stopped.wait()


async def timeout_error() -> None:
    async with pair(timeout=0.05) as client:
        with pytest.raises(TimeoutError) as own:
            await client.rpc.method()
        assert type(own.value) is rpc.RPCTimeoutError
        with pytest.raises(TimeoutError) as remote:
            await client.with_timeout(5).rpc.fails("time")
        assert type(remote.value) is TimeoutError


async def error_table() -> None:
    table = {f"{__name__}.OutOfStock": OutOfStock}
    async with pair(error_table=table) as client:
        with pytest.raises(OutOfStock):
            await client.rpc.fails("stock")


async def translation_table() -> None:
    server = {"translation_table": TRANSLATION}
    async with pair(server=server, translation_table=TRANSLATION) as client:
        assert (await client.rpc.warmer(Celsius(20))).degrees == 21


async def handlers() -> None:
    class Asked(rpc.AbstractHandler):
        def __getitem__(self, name: str) -> Any:
            return rpc.method(lambda value: (name, value))

    async with pair(Asked()) as client:
        assert await client.rpc.anything(1) == ("anything", 1)
    async with pair({"inc": rpc.method(lambda value: value + 1)}) as client:
        assert await client.rpc.inc(1) == 2


async def plain_handlers() -> None:
    aiozmq_rpc = pytest.importorskip("aiozmq.rpc", exc_type=ImportError)

    class Plain(aiozmq_rpc.AttrHandler):  # type: ignore[misc, name-defined]
        @aiozmq_rpc.method  # type: ignore[untyped-decorator]
        def inc(self, value: int) -> int:
            return value + 1

    async with pair(Plain()) as client:
        assert await client.rpc.inc(1) == 2


async def method() -> None:
    async with pair() as client:
        assert await client.rpc.blocks() == 7
        with pytest.raises(rpc.NotFoundError):
            await client.rpc.noted()


async def pipeline() -> None:
    handler = Handler()
    async with pair(handler) as client:
        client.notify.note(5)
        assert await handler.noted.get() == 5


async def workers() -> None:
    handler = Handler()
    async with await rpc.open_client(bind="tcp://127.0.0.1:*") as client:
        (endpoint,) = client.endpoints
        async with await rpc.start_server(handler, connect=endpoint):
            client.notify.note(6)
            assert await handler.noted.get() == 6


async def pubsub() -> None:
    bus, heard = Bus(), asyncio.Queue[Any]()
    sender = Bus()
    async with Node("tcp://127.0.0.1:*", sender) as at, Node("tcp://127.0.0.1:*", bus) as node:
        bus.regist_function("topic:*", lambda message: heard.put_nowait((message.id, message.args)))
        async with await node.interconnect(at.endpoints[0]):
            sender.twitter("topic:method", 1)
            assert await heard.get() == ("topic:method", (1,))


async def errors() -> None:
    async with pair() as client:
        for name, args, error in (
            ("no_such", (), rpc.NotFoundError),
            ("add", (1,), rpc.ParametersError),
            ("fails", ("stock",), rpc.GenericError),
        ):
            with pytest.raises(error) as raised:
                await client.call(name, *args)
            assert isinstance(raised.value, rpc.Error)
            assert raised.value.method == name


async def closed() -> None:
    async with pair() as client:
        pass
    with pytest.raises(rpc.ServiceClosedError):
        await client.rpc.add(1, 2)


async def logged() -> None:
    server = {"log_exceptions": True, "exclude_log_exceptions": (OutOfStock,)}
    async with pair(server=server) as client:
        with pytest.raises(rpc.GenericError):
            await client.rpc.fails("stock")


async def server_timeout() -> None:
    async with pair(timeout=0.05) as client:
        with pytest.raises(TimeoutError):
            await client.rpc.method()


async def close() -> None:
    server = await rpc.start_server(Handler(), bind="tcp://127.0.0.1:*")
    client = await rpc.open_client(connect=server.endpoints)
    assert await client.rpc.add(1, 2) == 3
    client.close()
    await client.wait_closed()
    server.close()
    await server.wait_closed()


ROWS: dict[str, list[Callable[[], Awaitable[None]]]] = {
    "``serve_rpc(handler, bind=...)``": [serve],
    "``connect_rpc(connect=...)``": [connect],
    "``client.call.ns.method(1)``": [call],
    "``client.with_timeout(0.2).call.method()``": [with_timeout],
    "``asyncio.TimeoutError`` of a call": [timeout_error],
    "``connect_rpc(error_table={...})``": [error_table],
    "``connect_rpc(translation_table={...})``": [translation_table],
    "``AttrHandler``, ``AbstractHandler``, ``dict``": [handlers, plain_handlers],
    "``@aiozmq.rpc.method``": [method],
    "``connect_pipeline``, ``client.notify.method()``": [pipeline],
    "``serve_pipeline(handler)``": [workers],
    '``connect_pubsub``, ``client.publish("topic").method(1)``': [pubsub],
    '``serve_pubsub(handler, subscribe="topic")``': [pubsub],
    "``GenericError``, ``NotFoundError``, ``ParametersError``": [errors],
    "``ServiceClosedError``": [closed],
    "``serve_rpc(log_exceptions=True)``, ``exclude_log_exceptions=(...)``": [logged],
    "``serve_rpc(timeout=5)``": [server_timeout],
    "``client.close()``, ``await client.wait_closed()``": [close],
}


def test_all_rows() -> None:
    assert rows("aiozmq.rst") == set(ROWS)


@pytest.mark.parametrize(
    "new_form", dict.fromkeys(each for found in ROWS.values() for each in found)
)
async def test_row(new_form: Callable[[], Awaitable[None]]) -> None:
    await new_form()
