"""Each row of the table for programs of zerorpc, in its new form."""

import asyncio
import shlex
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from berrymq_rpc import Bus, rpc
from berrymq_rpc.testing import Kit

from .conftest import PAGES, SECONDS, pair, rows


class Shop(rpc.AttrHandler):
    def __init__(self) -> None:
        self.ordered: asyncio.Queue[str] = asyncio.Queue()
        self.stopped = asyncio.Event()
        self.open = asyncio.Event()

    @rpc.method
    def order(self, what: str) -> str:
        self.ordered.put_nowait(what)
        return f"1 x {what}"

    def unmarked(self) -> None: ...

    @rpc.method
    async def menu(self) -> AsyncIterator[str]:
        yield "bread"
        yield "roll"

    @rpc.method
    def fails(self, own: bool = False) -> None:
        raise OutOfStock("roll") if own else LookupError("roll")

    @rpc.method
    async def hangs(self) -> None:
        try:
            await self.open.wait()
        finally:
            self.stopped.set()


class OutOfStock(Exception):
    pass


@asynccontextmanager
async def sync_pair(**options: Any) -> AsyncIterator[rpc.SyncClient]:
    """A client without asyncio, used on threads."""
    async with await rpc.start_server(Shop(), bind="tcp://127.0.0.1:*") as server:
        client = rpc.SyncClient(connect=server.endpoints[0], **options)
        try:
            yield client
        finally:
            await asyncio.to_thread(client.close)


async def serve() -> None:
    server = await rpc.start_server(Shop(), bind="mem://migrate-shop")
    serving = asyncio.create_task(server.serve_forever())
    async with await rpc.open_client(connect="mem://migrate-shop", timeout=SECONDS) as client:
        assert await client.rpc.order("bread") == "1 x bread"
        with pytest.raises(rpc.NotFoundError):
            await client.rpc.unmarked()
    serving.cancel()
    await asyncio.wait([serving], timeout=SECONDS)
    server.close()
    await server.wait_closed()


async def sync_client() -> None:
    async with sync_pair(timeout=SECONDS) as client:
        results = await asyncio.gather(
            *(asyncio.to_thread(client.rpc.order, what) for what in ("bread", "roll"))
        )
        assert results == ["1 x bread", "1 x roll"]


async def call() -> None:
    async with pair(Shop()) as client:
        assert await client.rpc.order("bread") == await client.call("order", "bread")
        assert await client.rpc.order(what="bread") == "1 x bread"


async def timeouts() -> None:
    async with sync_pair(timeout=SECONDS) as client:
        short = client.with_timeout(0.05)
        assert await asyncio.to_thread(client.with_timeout(5).rpc.order, "roll") == "1 x roll"
        with pytest.raises(rpc.RPCTimeoutError) as raised:
            await asyncio.to_thread(short.rpc.hangs)
        assert isinstance(raised.value, TimeoutError)


async def at_the_same_time() -> None:
    async with pair(Shop()) as client:
        task = asyncio.ensure_future(client.rpc.order("bread"))
        assert await asyncio.gather(task, client.rpc.order("roll")) == ["1 x bread", "1 x roll"]


async def stream() -> None:
    async with sync_pair(timeout=SECONDS) as client:
        assert await asyncio.to_thread(lambda: list(client.stream.menu())) == ["bread", "roll"]
    async with pair(Shop()) as client:
        assert [what async for what in client.rpc.menu()] == ["bread", "roll"]


async def errors() -> None:
    async with pair(Shop()) as client:
        with pytest.raises(LookupError):
            await client.rpc.fails()
        with pytest.raises(rpc.GenericError) as raised:
            await client.rpc.fails(True)
        assert raised.value.exc_type == f"{__name__}.OutOfStock"
        assert raised.value.exc_repr == "OutOfStock('roll')"


async def traceback() -> None:
    for server, is_sent in (({}, False), ({"send_traceback": True}, True)):
        async with pair(Shop(), server) as client:
            with pytest.raises(LookupError) as raised:
                await client.rpc.fails()
            notes = "".join(getattr(raised.value, "__notes__", ()))
            assert ("Traceback" in notes) is is_sent


async def lost() -> None:
    async with Kit() as kit:
        server = await kit.serve(Shop())
        client = await kit.client(server, connect_timeout=0.05)
        server.kill()
        with pytest.raises(ConnectionError) as raised:
            await client.rpc.order("bread")
        assert isinstance(raised.value, rpc.ConnectionLostError)
        await server.restart()
        assert await client.with_timeout(SECONDS).rpc.order("bread") == "1 x bread"


async def heartbeat() -> None:
    limits = rpc.Limits(heartbeat=2)
    async with pair(Shop(), {"limits": limits}, limits=limits) as client:
        assert await client.rpc.order("bread") == "1 x bread"


async def pool_size() -> None:
    shop = Shop()
    async with pair(shop, {"limits": rpc.Limits(max_in_flight=10)}) as client:
        running = [client.rpc.hangs() for _ in range(10)]
        with pytest.raises(rpc.OverloadedError):
            await client.rpc.hangs()
        shop.open.set()
        await asyncio.gather(*running)


async def push() -> None:
    shop = Shop()
    async with (
        await rpc.open_client(bind="tcp://127.0.0.1:*", timeout=SECONDS) as client,
        await rpc.start_server(shop, connect=client.endpoints[0]),
    ):
        client.notify.order("bread")
        assert await shop.ordered.get() == "bread"


async def publish() -> None:
    bus = Bus()
    heard: list[Any] = []
    bus.regist_function("shop:*", heard.append)
    assert bus.twitter("shop:order", "bread") == 1
    assert heard[0].args == ("bread",)


async def describe() -> None:
    async with pair(Shop()) as client:
        assert "order" in [method["name"] for method in (await client.describe())["methods"]]


async def command() -> None:
    page = (PAGES / "zerorpc.rst").read_text(encoding="utf-8")
    async with await rpc.start_server(Shop(), bind="tcp://127.0.0.1:*") as server:
        for line, shown in (
            ("berrymq call ADDRESS order bread", '"1 x bread"\n'),
            ("berrymq methods ADDRESS", "order(what: str) -> str"),
        ):
            assert line in page
            arguments = shlex.split(line.replace("ADDRESS", server.endpoints[0]))[1:]
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "berrymq_rpc", *arguments),
                stdout=asyncio.subprocess.PIPE,
            )
            async with asyncio.timeout(2 * SECONDS):
                output, _ = await process.communicate()
            assert shown in output.decode()


ROWS: dict[str, Callable[[], Awaitable[None]]] = {
    "``zerorpc.Server(Shop())``, ``bind``, ``run``": serve,
    "``zerorpc.Client(address)``": sync_client,
    '``client.order("bread")``, ``client("order", "bread")``': call,
    '``Client(timeout=30)``, ``client.order("bread", timeout=5)``': timeouts,
    '``client.order("bread", **{"async": True})``': at_the_same_time,
    "``@zerorpc.stream``": stream,
    "``RemoteError``": errors,
    "``RemoteError.traceback``": traceback,
    "``TimeoutExpired``": timeouts,
    "``LostRemote``": lost,
    "``heartbeat=5``": heartbeat,
    "``pool_size=10``": pool_size,
    "``zerorpc.Pusher``, ``zerorpc.Puller``": push,
    "``zerorpc.Publisher``, ``zerorpc.Subscriber``": publish,
    "``client._zerorpc_inspect()``": describe,
    "``zerorpc ADDRESS order bread``": command,
}


def test_all_rows() -> None:
    assert rows("zerorpc.rst") == set(ROWS)


@pytest.mark.parametrize("new_form", dict.fromkeys(ROWS.values()))
async def test_row(new_form: Callable[[], Awaitable[None]]) -> None:
    await new_form()
