"""`Peer.on_lost`: a handler that wants to know when the connection of its peer is over."""

import asyncio
import itertools
from collections.abc import Callable

import pytest

from berrymq_rpc import rpc
from berrymq_rpc.testing import link_faults

_numbers = itertools.count()


class Handler(rpc.AttrHandler):
    def __init__(self) -> None:
        self.lost: list[str] = []
        self.peers: list[rpc.Peer] = []
        self.callbacks: list[Callable[[], object]] = []

    @rpc.method
    def watch(self, name: str) -> None:
        peer = rpc.context().peer
        self.peers.append(peer)
        self.callbacks.append(lambda: self.lost.append(name))
        peer.on_lost(self.callbacks[-1])

    @rpc.method
    def watch_badly(self) -> None:
        rpc.context().peer.on_lost(lambda: 1 / 0)


async def until_lost(handler: Handler, names: list[str]) -> None:
    async with asyncio.timeout(10):
        while handler.lost != names:
            await asyncio.sleep(0.001)


async def test_each_connection_by_itself() -> None:
    handler = Handler()
    endpoint = f"mem://lost-{next(_numbers)}"
    async with (
        await rpc.start_server(handler, bind=endpoint),
        await rpc.open_client(connect=endpoint) as first,
    ):
        await first.rpc.watch("first")
        async with await rpc.open_client(connect=endpoint) as second:
            await second.rpc.watch("second")
            assert handler.lost == []
        await until_lost(handler, ["second"])
        link_faults(endpoint).cut()
        await until_lost(handler, ["second", "first"])


async def test_over_sockets() -> None:
    handler = Handler()
    async with await rpc.start_server(handler, bind="tcp://127.0.0.1:*") as server:
        async with await rpc.open_client(connect=server.endpoints[0]) as client:
            await client.rpc.watch("only")
        await until_lost(handler, ["only"])


async def test_when_the_server_closes() -> None:
    handler = Handler()
    endpoint = f"mem://lost-{next(_numbers)}"
    server = await rpc.start_server(handler, bind=endpoint)
    async with await rpc.open_client(connect=endpoint) as client:
        await client.rpc.watch("only")
        server.close()
        await server.wait_closed()
        await until_lost(handler, ["only"])


async def test_once_and_not_at_all() -> None:
    handler = Handler()
    endpoint = f"mem://lost-{next(_numbers)}"
    async with await rpc.start_server(handler, bind=endpoint):
        async with await rpc.open_client(connect=endpoint) as client:
            await client.rpc.watch("kept")
            await client.rpc.watch("forgotten")
            handler.peers[0].on_lost(handler.callbacks[0])
            handler.peers[1].forget_on_lost(handler.callbacks[1])
            # One that is not there.
            handler.peers[1].forget_on_lost(handler.callbacks[1])
        await until_lost(handler, ["kept"])
        handler.peers[0].forget_on_lost(handler.callbacks[0])
    assert handler.lost == ["kept"]


async def test_one_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    handler = Handler()
    endpoint = f"mem://lost-{next(_numbers)}"
    async with await rpc.start_server(handler, bind=endpoint):
        async with await rpc.open_client(connect=endpoint) as client:
            await client.rpc.watch_badly()
            await client.rpc.watch("after it")
        await until_lost(handler, ["after it"])
    assert "an on_lost callback failed" in caplog.text


async def test_an_account_for_each_connection() -> None:
    handler = Handler()
    endpoint = f"mem://lost-{next(_numbers)}"
    async with await rpc.start_server(handler, bind=endpoint):
        for name in ("a", "b"):
            async with await rpc.open_client(connect=endpoint) as client:
                await client.rpc.watch(name)
                await client.rpc.watch(name)
    accounts = [peer.account for peer in handler.peers]
    assert len(set(accounts)) == 2
    assert accounts[0] == accounts[1]
    assert handler.peers[0].with_timeout(1).account == accounts[0]
