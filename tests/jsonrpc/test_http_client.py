"""The client over HTTP: results, errors, bounds, and its end."""

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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


@asynccontextmanager
async def answering(
    status: int, body: Any, **options: Any
) -> AsyncIterator[tuple[HTTPClient, list[dict[str, Any]]]]:
    """A client of a server that always answers the same, and the requests that it gets."""
    requests: list[dict[str, Any]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        (length,) = re.findall(rb"(?i)content-length: (\d+)", head)
        requests.append(json.loads(await reader.readexactly(int(length))))
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(text), text))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        async with await open_http_client(f"http://127.0.0.1:{port}", **options) as client:
            yield client, requests
    finally:
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("status", [200, 400, 401, 404, 413, 429, 500, 503])
async def test_an_error_object_comes_with_any_status(status: int) -> None:
    error = {"code": -5, "message": "of its own", "data": [1]}
    for answer in (
        {"jsonrpc": "2.0", "error": error, "id": 1},
        {"result": None, "error": error, "id": 1},
        # The server could not read the id.
        {"jsonrpc": "2.0", "error": error, "id": None},
        {"jsonrpc": "2.0", "error": error},
    ):
        async with answering(status, answer) as (client, _):
            with pytest.raises(RPCError) as caught:
                await client.rpc.add(1)
            assert (caught.value.code, caught.value.data) == (-5, [1])


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, rpc.ProtocolError),
        (401, rpc.AuthenticationError),
        (403, rpc.AuthenticationError),
        (413, rpc.TooLargeError),
        (503, rpc.OverloadedError),
        (500, rpc.ProtocolError),
    ],
)
async def test_a_status_without_an_error_object(status: int, error: type[Exception]) -> None:
    result = {"jsonrpc": "2.0", "result": 1, "id": 1}
    for answer in (b"", b"no", b"[]", b"{}", b'{"jsonrpc": "2.0", "method": "a"}', result):
        async with answering(status, answer) as (client, _):
            with pytest.raises(error, match=str(status)):
                await client.rpc.add(1)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("wrong", [2, 0, "1", 1.0, None])
async def test_the_id_is_checked(wrong: Any, version: str) -> None:
    async with answering(200, {"result": 1, "error": None, "id": wrong}, version=version) as (
        client,
        requests,
    ):
        with pytest.raises(rpc.ProtocolError, match=r"with the id .*, not 1"):
            await client.rpc.add(1)
        assert requests[0]["id"] == 1
    if wrong is not None:
        error = {"code": -5, "message": "not ours"}
        async with answering(400, {"jsonrpc": "2.0", "error": error, "id": wrong}) as (client, _):
            with pytest.raises(rpc.ProtocolError, match=r"with the id .*, not 1"):
                await client.rpc.add(1)


async def test_a_notification_that_is_not_taken_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with answering(403, b"not you") as (client, requests):
        client.notify.note(1)
        while "notification 'note' was not delivered" not in caplog.text:
            await asyncio.sleep(0.001)
    assert "status 403: not you" in caplog.text
    assert "id" not in requests[0]
    caplog.clear()
    async with answering(202, b"") as (client, requests):
        client.notify.note(1)
        while not requests:
            await asyncio.sleep(0.001)
    assert caplog.text == ""


async def test_a_host_that_takes_no_connection() -> None:
    """It is about the connection, however long the call might have waited for its answer."""
    with socket.socket() as full, contextlib.ExitStack() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        # The kernel keeps one or two more than it says, and then answers nobody.
        for _ in range(4):
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        for timeout in (30, None):
            async with await open_http_client(url, timeout=timeout, connect_timeout=0.2) as client:
                with pytest.raises(rpc.ConnectionLostError):
                    await asyncio.wait_for(client.rpc.add(1, 2), 10)
        async with await open_http_client(url, timeout=0.2, connect_timeout=30) as client:
            with pytest.raises(rpc.RPCTimeoutError, match=r"within 0\.2 s"):
                await asyncio.wait_for(client.rpc.add(1, 2), 10)


async def test_answers_larger_than_other_texts_may_be() -> None:
    answer = {"jsonrpc": "2.0", "result": "x" * (5 << 20), "id": 1}
    async with answering(200, answer, max_size=6 << 20) as (client, _):
        assert len(await client.rpc.large()) == 5 << 20


async def test_connections_are_bounded(handler: Handler) -> None:
    async with Bridge(handler) as bridge:
        url = await bridge.serve_http()
        async with await open_http_client(url, max_connections=2) as client:
            waiting = [client.rpc.wait() for _ in range(2)]
            await handler.begun.wait()
            third = client.with_timeout(0.1).rpc.add(1)
            with pytest.raises(rpc.RPCTimeoutError):
                await third
            assert bridge.statistics()["peers"] == 2
            waiting[0].cancel()
            assert await client.rpc.add(1) == 2
            waiting[1].cancel()
    for wrong, error in ((0, ValueError), (-1, ValueError), (True, TypeError), ("2", TypeError)):
        with pytest.raises(error, match="max_connections"):
            await open_http_client("http://127.0.0.1:1", max_connections=wrong)


async def test_secrets_are_in_no_error() -> None:
    for url in (
        "htp://me:pass@here",
        "me:pass@here:80",
        "http://me:pass@",
        "http://me:pass@a:x",
        "http://me:a/pass@here",
        "http://me:a/pass@here:80/\n",
    ):
        with pytest.raises(ValueError, match=r"URL|endpoint|port|address") as caught:
            await open_http_client(url)
        assert "pass" not in str(caught.value)
    async with await open_http_client("http://me@127.0.0.1:1/rpc?key=pass") as client:
        with pytest.raises(rpc.ConnectionLostError) as lost:
            await client.rpc.add(1)
        assert "pass" not in f"{client!r} {client.endpoints} {lost.value!r}"
        assert client.endpoints == ("http://127.0.0.1:1/rpc",)


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


async def other_program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello\n")
    writer.close()
    await writer.wait_closed()


async def test_why_there_is_no_connection() -> None:
    other = await asyncio.start_server(other_program, "127.0.0.1", 0)
    port = other.sockets[0].getsockname()[1]
    for url, text in (
        ("http://127.0.0.1:1", "no connection (.*): is the server running, and is the address"),
        (f"https://127.0.0.1:{port}", "no connection by TLS .*Where it does not, write http://$"),
        (
            f"http://127.0.0.1:{port}/?key=pass",
            "does not answer as an HTTP server: is the port right",
        ),
    ):
        async with await open_http_client(url, timeout=10) as client:
            with pytest.raises(rpc.ConnectionLostError, match=text) as raised:
                await client.rpc.add(1, 2)
            assert type(raised.value) is rpc.ConnectionLostError
            assert "pass" not in str(raised.value)
    other.close()
    await other.wait_closed()
