"""Each row of the table for programs of aiorpcX, in its new form."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import aiorpcx
import pytest

from berrymq_rpc import jsonrpc, rpc
from berrymq_rpc.jsonrpc.bridge import Bridge

from .conftest import SECONDS, pair, rows


class Handler(rpc.AttrHandler):
    def __init__(self) -> None:
        self.noted: asyncio.Queue[Any] = asyncio.Queue()
        self.stopped = asyncio.Event()

    @rpc.method
    async def add(self, a: int, b: int) -> int:
        return a + b

    def unmarked(self) -> None: ...

    @rpc.method
    def note(self, value: int) -> None:
        self.noted.put_nowait(value)

    @rpc.method
    def fails(self, code: int | None = None) -> None:
        raise LookupError("no rolls") if code is None else jsonrpc.RPCError(code, "no rolls")

    @rpc.method
    async def hangs(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped.set()

    @rpc.method
    async def calls_back(self) -> Any:
        peer = rpc.context().peer
        peer.on_lost(lambda: self.noted.put_nowait("lost"))
        return peer.address, await peer.with_timeout(SECONDS).rpc.add(20, 22)


async def serve() -> None:
    async with await rpc.start_server(Handler(), bind="tcp://127.0.0.1:*") as server:
        (address,) = server.endpoints
        async with await rpc.open_client(connect=address, timeout=SECONDS) as client:
            assert await client.rpc.add(1, 2) == 3


async def connect() -> None:
    async with await rpc.open_client(connect="mem://migrate-later", timeout=SECONDS) as client:
        for _ in range(2):
            async with await rpc.start_server(Handler(), bind="mem://migrate-later"):
                assert await client.rpc.add(1, 2) == 3


async def methods() -> None:
    async with pair(Handler()) as client:
        with pytest.raises(rpc.NotFoundError):
            await client.rpc.unmarked()


async def send_request() -> None:
    async with pair(Handler()) as client:
        assert await client.rpc.add(1, 2) == await client.call("add", 1, 2) == 3
        assert await client.rpc.add(a=1, b=2) == 3


async def send_notification() -> None:
    handler = Handler()
    async with pair(handler) as client:
        client.notify.note(5)
        assert await handler.noted.get() == 5


async def send_batch() -> None:
    async with pair(Handler()) as client:
        assert await asyncio.gather(client.rpc.add(1, 2), client.rpc.add(3, 4)) == [3, 7]


async def calls_back() -> None:
    handler = Handler()
    async with pair(handler, handler=Handler()) as client:
        address, answer = await client.rpc.calls_back()
        assert (type(address), answer) == (str, 42)
    assert await handler.noted.get() == "lost"


async def time_is_over() -> None:
    handler = Handler()
    async with pair(handler, timeout=0.05) as client:
        with pytest.raises(rpc.RPCTimeoutError) as raised:
            await client.rpc.hangs()
        assert isinstance(raised.value, TimeoutError)
    await handler.stopped.wait()


async def connection_lost() -> None:
    server = await rpc.start_server(Handler(), bind="mem://migrate-lost", grace=0)
    async with await rpc.open_client(
        connect="mem://migrate-lost", timeout=SECONDS, connect_timeout=0.05
    ) as client:
        assert await client.rpc.add(1, 2) == 3
        server.close()
        await server.wait_closed()
        with pytest.raises(rpc.ConnectionLostError) as raised:
            await client.rpc.add(1, 2)
        assert raised.value.sent is False


async def errors() -> None:
    async with pair(Handler()) as client:
        with pytest.raises(LookupError, match="no rolls"):
            await client.rpc.fails()
    async with pair(Handler(), dialect="jsonrpc") as client:
        with pytest.raises(jsonrpc.RPCError) as raised:
            await client.rpc.fails(7)
        assert (raised.value.code, raised.value.message) == (7, "no rolls")


async def limits() -> None:
    limits = rpc.Limits(window=1, max_message=100_000)
    async with pair(Handler(), {"limits": limits}, limits=limits) as client:
        with pytest.raises(rpc.TooLargeError):
            await client.rpc.add(["roll"] * 30_000, 2)


async def closing() -> None:
    server = await rpc.start_server(Handler(), bind="mem://migrate-closing")
    client = await rpc.open_client(connect="mem://migrate-closing", timeout=SECONDS)
    assert await client.rpc.add(1, 2) == 3
    client.close()
    await client.wait_closed()
    server.close()
    await server.wait_closed()


async def web_socket() -> None:
    async with Bridge(Handler()) as bridge, aiohttp.ClientSession() as session:
        url = await bridge.serve_http("127.0.0.1", 0)
        async with session.ws_connect(f"{url}/ws") as socket:
            await socket.send_json({"jsonrpc": "2.0", "method": "add", "params": [1, 2], "id": 1})
            assert (await socket.receive_json(timeout=SECONDS))["result"] == 3


async def old_clients() -> None:
    async with Bridge(Handler()) as bridge:
        url = await bridge.serve_tcp("127.0.0.1", 0)
        port = int(url.rpartition(":")[2])
        async with asyncio.timeout(SECONDS), aiorpcx.connect_rs("127.0.0.1", port) as session:
            assert await session.send_request("add", [1, 2]) == 3


ROWS: dict[str, Callable[[], Awaitable[None]]] = {
    "``serve_rs(Session, host, port)``": serve,
    "``connect_rs(host, port)``": connect,
    "``handle_request``, ``handler_invocation``": methods,
    '``session.send_request("add", [1, 2])``': send_request,
    '``session.send_notification("note", [5])``': send_notification,
    "``async with session.send_batch() as batch``": send_batch,
    "``send_request`` of a server's session": calls_back,
    "``session.remote_address()``": calls_back,
    "``connection_lost()``": calls_back,
    "``sent_request_timeout = 30.0``": time_is_over,
    "``TaskTimeout``": time_is_over,
    "``CancelledError`` of a call whose connection is lost": connection_lost,
    "``RPCError(code, message)``": errors,
    "``initial_concurrent``, ``NewlineFramer(max_size)``": limits,
    "``session.close()``": closing,
    "``serve_ws(Session, host, port)``": web_socket,
    "a client of ``connect_rs`` that stays": old_clients,
}


def test_all_rows() -> None:
    assert rows("aiorpcx.rst") == set(ROWS)


@pytest.mark.parametrize("new_form", dict.fromkeys(ROWS.values()))
async def test_row(new_form: Callable[[], Awaitable[None]]) -> None:
    await new_form()
