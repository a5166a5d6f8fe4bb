"""Each row of the table for programs of Pyro5, in its new form."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from berrymq_rpc import rpc
from berrymq_rpc.testing import Kit

from .conftest import SECONDS, pair, rows


@dataclass
class Order:
    what: str
    count: int = 1


TABLE = {1: rpc.dataclass_translation(Order)}


class Shop(rpc.AttrHandler):
    #: Neither it nor a property is offered.
    name = "shop"

    def __init__(self) -> None:
        self.ordered: asyncio.Queue[Any] = asyncio.Queue()
        self.carts: dict[rpc.Peer, list[str]] = {}
        self.forgotten = asyncio.Event()

    @rpc.method
    def order(self, what: Any) -> Any:
        self.ordered.put_nowait(what)
        return what if isinstance(what, Order) else f"1 x {what}"

    @rpc.method
    def put(self, what: str) -> tuple[str, ...]:
        peer = rpc.context().peer
        if peer not in self.carts:
            self.carts[peer] = []
            peer.on_lost(lambda: self.forget(peer))
        self.carts[peer].append(what)
        return tuple(self.carts[peer])

    def forget(self, peer: rpc.Peer) -> None:
        del self.carts[peer]
        if not self.carts:
            self.forgotten.set()

    @rpc.method
    async def menu(self) -> AsyncIterator[str]:
        yield "bread"
        yield "roll"

    @rpc.method
    async def asks(self) -> tuple[Any, str | None]:
        peer = rpc.context().peer
        return await peer.with_timeout(SECONDS).rpc.order("salt"), peer.address

    @rpc.method(thread=True)
    def blocks(self) -> str:
        return "read"

    @rpc.method
    async def hangs(self) -> None:
        await asyncio.Event().wait()

    @rpc.method
    def fails(self) -> None:
        raise LookupError("roll")


@asynccontextmanager
async def sync_pair(**options: Any) -> AsyncIterator[rpc.SyncClient]:
    """A client without asyncio, used on threads."""
    async with await rpc.start_server({"shop": Shop()}, bind="tcp://127.0.0.1:*") as server:
        client = rpc.SyncClient(connect=server.endpoints[0], **options)
        try:
            yield client
        finally:
            await asyncio.to_thread(client.close)


async def daemon() -> None:
    async with await rpc.start_server({"shop": Shop()}, bind="tcp://127.0.0.1:*") as server:
        serving = asyncio.create_task(server.serve_forever())
        assert not server.endpoints[0].endswith("*")
        async with await rpc.open_client(connect=server.endpoints, timeout=SECONDS) as client:
            assert await client.rpc.shop.order("bread") == "1 x bread"
        serving.cancel()
        await asyncio.wait([serving], timeout=SECONDS)


async def expose() -> None:
    async with pair({"shop": Shop()}) as client:
        for name in ("shop.name", "shop.forget"):
            with pytest.raises(rpc.NotFoundError):
                await client.call(name)


async def proxy() -> None:
    async with sync_pair(timeout=SECONDS) as client:
        shop = client.rpc.shop
        results = await asyncio.gather(
            *(asyncio.to_thread(shop.order, what) for what in ("bread", "roll"))
        )
        assert results == ["1 x bread", "1 x roll"]


async def timeouts() -> None:
    async with sync_pair(timeout=0.05) as client:
        with pytest.raises(rpc.RPCTimeoutError) as raised:
            await asyncio.to_thread(client.rpc.shop.hangs)
        assert isinstance(raised.value, TimeoutError)
        patient = client.with_timeout(5)
        assert await asyncio.to_thread(patient.rpc.shop.order, "roll") == "1 x roll"


async def sent() -> None:
    async with await rpc.open_client(connect="mem://migrate-none", connect_timeout=0.05) as client:
        with pytest.raises(rpc.ConnectionLostError) as raised:
            await client.rpc.shop.order("bread")
    assert raised.value.sent is False


async def oneway() -> None:
    shop = Shop()
    async with pair({"shop": shop}) as client:
        client.notify.shop.order("bread")
        assert await shop.ordered.get() == "bread"


async def batch() -> None:
    async with pair({"shop": Shop()}) as client:
        calls = (client.rpc.shop.order(what) for what in ("bread", "roll"))
        assert await asyncio.gather(*calls) == ["1 x bread", "1 x roll"]


async def generator() -> None:
    async with sync_pair(timeout=SECONDS) as client:
        items = await asyncio.to_thread(lambda: list(client.stream.shop.menu()))
        assert items == ["bread", "roll"]


async def callback() -> None:
    async with sync_pair(timeout=SECONDS, handler=Shop()) as client:
        answer, address = await asyncio.to_thread(client.rpc.shop.asks)
        assert answer == "1 x salt"
        assert address is not None


async def classes() -> None:
    options = {"translation_table": TABLE}
    async with pair(Shop(), options, **options) as client:
        assert await client.rpc.order(Order("roll", 2)) == Order("roll", 2)


async def session() -> None:
    shop = Shop()
    async with pair(shop) as client:
        assert await client.rpc.put("bread") == ("bread",)
        assert await client.rpc.put("roll") == ("bread", "roll")
        assert len(shop.carts) == 1
    async with asyncio.timeout(SECONDS):
        await shop.forgotten.wait()


async def on_a_thread() -> None:
    async with pair(Shop()) as client:
        assert await client.rpc.blocks() == "read"


async def keys() -> None:
    server_key, client_key = rpc.KeyPair.generate(), rpc.KeyPair.generate()
    async with (
        await rpc.start_server(
            Shop(),
            bind="tcp://127.0.0.1:*",
            security=rpc.CurveServer(server_key, authorized=[client_key.public]),
        ) as server,
        await rpc.open_client(
            connect=server.endpoints,
            timeout=SECONDS,
            security=rpc.CurveClient(client_key, server=server_key.public),
        ) as client,
    ):
        assert await client.rpc.order("bread") == "1 x bread"


async def lost() -> None:
    async with Kit() as kit:
        server = await kit.serve(Shop())
        client = await kit.client(server, connect_timeout=0.05)
        server.kill()
        with pytest.raises(rpc.ConnectionLostError):
            await client.rpc.order("bread")
        await server.restart()
        assert await client.with_timeout(SECONDS).rpc.order("bread") == "1 x bread"


async def traceback() -> None:
    async with pair(Shop(), {"send_traceback": True}) as client:
        with pytest.raises(LookupError) as raised:
            await client.rpc.fails()
        assert "Traceback" in "".join(raised.value.__notes__)


async def describe() -> None:
    # What `berrymq methods` shows.
    async with pair({"shop": Shop()}) as client:
        assert "shop.order" in [method["name"] for method in (await client.describe())["methods"]]


ROWS: dict[str, Callable[..., Awaitable[None]]] = {
    "``Daemon(host, port)``, ``requestLoop()``": daemon,
    '``daemon.register(Shop(), "shop")``': daemon,
    "``@expose``": expose,
    '``Proxy("PYRO:shop@host:5555")``': proxy,
    "``proxy._pyroTimeout = 5``, ``config.COMMTIMEOUT``": timeouts,
    "``proxy._pyroMaxRetries``": sent,
    "``@oneway``": oneway,
    "``BatchProxy(proxy)``": batch,
    "a method that returns a generator": generator,
    "``@callback``, a daemon in the client": callback,
    "``register_class_to_dict``, ``register_dict_to_class``": classes,
    '``@behavior(instance_mode="session")``': session,
    "``current_context.client_sock_addr``": callback,
    '``config.SERVERTYPE = "thread"``': on_a_thread,
    "``config.SSL``": keys,
    "``CommunicationError``, ``ConnectionClosedError``": lost,
    "``Pyro5.errors.TimeoutError``": timeouts,
    "``get_pyro_traceback()``": traceback,
    "``Pyro5.nsc list``": describe,
}


def test_all_rows() -> None:
    assert rows("pyro5.rst") == set(ROWS)


@pytest.mark.parametrize("new_form", dict.fromkeys(ROWS.values()))
async def test_row(new_form: Callable[..., Awaitable[None]]) -> None:
    await new_form()
