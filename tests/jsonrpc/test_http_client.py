"""The client over HTTP: results, errors, bounds, and its end."""

import asyncio
from typing import Any

import pytest

from berrymq_rpc import rpc
from berrymq_rpc.jsonrpc import RPCError
from berrymq_rpc.jsonrpc.bridge import Bridge
from berrymq_rpc.jsonrpc.http import HTTPClient, open_http_client


class Handler(rpc.AttrHandler):
    def __init__(self) -> None:
        self.told: list[Any] = []
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()

    @rpc.method
    def add(self, a: int, b: int = 1) -> int:
        return a + b

    @rpc.method
    def fail(self) -> None:
        raise KeyError("it")

    @rpc.method
    def own(self) -> None:
        raise RPCError(-5, "of its own", data=[1])

    @rpc.method
    def note(self, value: Any) -> None:
        self.told.append(value)

    @rpc.method
    def large(self) -> str:
        return "x" * 10_000

    @rpc.method
    async def wait(self) -> None:
        self.begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.cancelled.set()


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.mark.parametrize("version", ["1.0", "2.0"])
async def test_calls(handler: Handler, version: str) -> None:
    async with (
        Bridge(handler) as bridge,
        await open_http_client(await bridge.serve_http(), version=version) as client,
    ):
        assert await client.rpc.add(1, 2) == 3
        assert await client.call("add", 4) == 5
        calls = [client.rpc.add(number) for number in range(200)]
        assert await asyncio.gather(*calls) == list(range(1, 201))
        with pytest.raises(KeyError, match="it"):
            await client.rpc.fail()
        with pytest.raises(rpc.NotFoundError):
            await client.rpc.nothing()
        with pytest.raises(rpc.ParametersError):
            await client.rpc.add()
        with pytest.raises(RPCError) as caught:
            await client.rpc.own()
        assert (caught.value.code, caught.value.message) == (-5, "of its own")
        client.notify.note(7)
        while not handler.told:
            await asyncio.sleep(0.001)
        assert handler.told == [7]


async def test_names_and_both(handler: Handler) -> None:
    async with (
        Bridge(handler) as bridge,
        await open_http_client(await bridge.serve_http()) as client,
    ):
        assert await client.rpc.add(a=1, b=5) == 6
        with pytest.raises(TypeError, match="not both"):
            client.rpc.add(1, b=2)
        with pytest.raises(TypeError):
            client.rpc.note(object())


async def test_cancelling_and_time(handler: Handler) -> None:
    async with (
        Bridge(handler) as bridge,
        await open_http_client(await bridge.serve_http()) as client,
    ):
        call = client.rpc.wait()
        await handler.begun.wait()
        call.cancel()
        await handler.cancelled.wait()
        with pytest.raises(rpc.RPCTimeoutError, match="wait"):
            await client.with_timeout(0.05).rpc.wait()
        assert await client.rpc.add(1) == 2


async def test_what_the_server_refuses(handler: Handler) -> None:
    async with Bridge(handler, max_body=5000) as bridge:
        url = await bridge.serve_http(token="sesame")
        async with await open_http_client(url) as client:
            with pytest.raises(rpc.AuthenticationError, match="token"):
                await client.rpc.add(1)
        async with await open_http_client(url, token="sesame") as client:
            assert await client.rpc.add(1) == 2
            with pytest.raises(rpc.TooLargeError):
                await client.rpc.note("x" * 10_000)
        async with await open_http_client(url + "/elsewhere", token="sesame") as client:
            with pytest.raises(rpc.ProtocolError, match="404"):
                await client.rpc.add(1)


async def test_an_answer_too_large(handler: Handler) -> None:
    async with (
        Bridge(handler) as bridge,
        await open_http_client(await bridge.serve_http(), max_size=1000) as client,
    ):
        with pytest.raises(rpc.TooLargeError):
            await client.rpc.large()
        assert await client.rpc.add(1) == 2


async def test_the_end(handler: Handler) -> None:
    async with Bridge(handler) as bridge:
        url = await bridge.serve_http()
        client = await open_http_client(url)
        call = client.rpc.wait()
        await handler.begun.wait()
        client.close()
        await client.wait_closed()
        assert call.cancelled()
        with pytest.raises(rpc.ServiceClosedError):
            client.rpc.add(1)
        await client.wait_closed()
    async with await open_http_client(url) as client:
        with pytest.raises(rpc.ConnectionLostError):
            await client.rpc.add(1)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\xfe",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{}",
        b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"junk\r\n\r\n",
        b"",
    ],
)
async def test_servers_that_answer_what_is_none(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with await open_http_client(f"http://127.0.0.1:{port}") as client:
        assert isinstance(client, HTTPClient)
        with pytest.raises((rpc.ProtocolError, rpc.ConnectionLostError)):
            await client.rpc.add(1)
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:1", "127.0.0.1:80", "", "ftp://a"])
async def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        await open_http_client(url)


async def test_what_is_no_version() -> None:
    with pytest.raises(ValueError, match="version"):
        await open_http_client("http://127.0.0.1:1", version="3.0")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    """A call and its token stay with the server that they were meant for."""
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode().split()[1])
        head = f"HTTP/1.1 {status} Elsewhere\r\nLocation: http://127.0.0.1:{port}/other\r\n"
        writer.write(head.encode() + b"Content-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with await open_http_client(f"http://127.0.0.1:{port}/", token="secret") as client:
        with pytest.raises(rpc.ProtocolError, match=f"{status}: redirects are not followed"):
            await client.rpc.add(1)
    server.close()
    await server.wait_closed()
    assert asked == ["/"]


async def test_a_user_part_is_sent_as_basic_and_shown_nowhere() -> None:
    heads: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with await open_http_client(f"http://me:pass%40word@127.0.0.1:{port}") as client:
        with pytest.raises(rpc.AuthenticationError) as info:
            await client.rpc.add(1)
        shown = f"{client!r} {client.endpoints} {info.value}"
    server.close()
    await server.wait_closed()
    assert "Authorization: Basic bWU6cGFzc0B3b3Jk" in heads[0]
    assert "pass" not in shown
    assert f"http://127.0.0.1:{port}/" in shown
    with pytest.raises(ValueError, match="token"):
        await open_http_client("http://me:pw@127.0.0.1:1", token="x")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:80@other.host#x", "http://127.0.0.1:0", "http://a b:80", "http://"]
)
async def test_urls_without_a_server(url: str) -> None:
    with pytest.raises(ValueError, match=r"no port|no address|not an endpoint"):
        await open_http_client(url)
