"""Timeouts: of calls to a peer, and beside the time that a connection may take."""

import asyncio
from typing import Any

import pytest

import berrymq_rpc
from berrymq_rpc import rpc


class Slow(rpc.AttrHandler):
    def __init__(self) -> None:
        self.cancelled = asyncio.Event()

    @rpc.method
    async def wait(self) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    @rpc.method
    async def stream(self) -> Any:
        yield 1
        await self.wait()

    @rpc.method
    def quick(self, value: Any) -> Any:
        return value

    @rpc.method
    def deadline(self) -> float | None:
        return rpc.context().deadline


class Asking(rpc.AttrHandler):
    @rpc.method
    async def ask(self, method: str, *args: Any) -> Any:
        peer = rpc.context().peer
        assert peer.timeout is None
        timed = peer.with_timeout(0.2)
        assert (timed, timed.timeout, timed.identity) == (peer, 0.2, peer.identity)
        assert timed.with_timeout(None).timeout is None
        try:
            if method == "stream":
                return [item async for item in timed.rpc.stream()]
            if method == "quick":
                timed.notify.quick(0)
                return await timed.call("quick", *args)
            return await timed.call(method, *args)
        except rpc.RPCTimeoutError as error:
            return [error.method, error.sent]


async def test_a_call_back_with_a_timeout(pair: Any) -> None:
    handler = Slow()
    async with pair(Asking(), handler=handler) as (_, client), asyncio.timeout(10):
        assert await client.rpc.ask("quick", 5) == 5
        assert 0 < await client.rpc.ask("deadline") <= 0.2
        for method in ("wait", "stream"):
            assert list(await client.rpc.ask(method)) == [method, True]
            await handler.cancelled.wait()
            handler.cancelled.clear()


async def test_a_client_calls_its_server_as_a_peer(pair: Any) -> None:
    handler = Slow()
    async with pair(handler) as (_, client):
        assert await client.rpc.quick(1) == 1
        with pytest.raises(rpc.RPCTimeoutError):
            await client.peer.with_timeout(0.1).rpc.wait()
        await asyncio.wait_for(handler.cancelled.wait(), 5)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "1", True])
async def test_what_is_no_timeout(pair: Any, timeout: Any) -> None:
    async with pair(Slow()) as (_, client):
        assert await client.rpc.quick(1) == 1
        with pytest.raises((TypeError, ValueError), match="timeout"):
            client.peer.with_timeout(timeout)


@pytest.mark.parametrize("dialect", ["native", "aiozmq", "jsonrpc"])
@pytest.mark.parametrize(
    ("timeout", "connect_timeout", "expected"),
    [
        (0.1, 0.1, rpc.ConnectionLostError),
        (5.0, 0.1, rpc.ConnectionLostError),
        (None, 0.1, rpc.ConnectionLostError),
        (0.1, 5.0, rpc.RPCTimeoutError),
    ],
)
async def test_no_server(
    dialect: str, timeout: float | None, connect_timeout: float, expected: type[Exception]
) -> None:
    async with await rpc.open_client(
        connect="ipc:///tmp/nobody-listens-here-berrymq",
        dialect=dialect,
        timeout=timeout,
        connect_timeout=connect_timeout,
    ) as client:
        calls = [client.rpc.quick(number) for number in range(5)]
        async with asyncio.timeout(10):
            for error in await asyncio.gather(*calls, return_exceptions=True):
                assert type(error) is expected
                assert error.sent is False


def test_the_name_that_aiozmq_has_for_clients() -> None:
    assert rpc.RPCClient is rpc.Client
    assert "RPCClient" in rpc.__all__
    assert berrymq_rpc.rpc.RPCClient is rpc.RPCClient
