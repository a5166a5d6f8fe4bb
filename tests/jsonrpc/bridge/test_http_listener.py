"""The HTTP listener: statuses, who may use it, bodies in pieces, and the WebSocket."""

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hmac import compare_digest
from typing import Any

import aiohttp
import pytest

from berrymq_rpc import Bus, Node, rpc
from berrymq_rpc.jsonrpc.bridge import Bridge

JSON = {"Content-Type": "application/json"}
ASKED = b'{"jsonrpc": "2.0", "method": "sum", "params": [1, 2], "id": 1}'
ANSWERED = {"jsonrpc": "2.0", "result": 3, "id": 1}


@asynccontextmanager
async def served(
    handler: Any, *, options: dict[str, Any] | None = None, **http: Any
) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    async with Bridge(handler, **(options or {})) as bridge, aiohttp.ClientSession() as session:
        yield session, await bridge.serve_http(**http)


async def status(session: aiohttp.ClientSession, method: str, url: str, **request: Any) -> int:
    async with session.request(method, url, **request) as response:
        await response.read()
        return response.status


async def test_statuses(handler: Any) -> None:
    async with served(handler, options={"max_body": 1000}) as (session, url):
        post = {"data": ASKED, "headers": JSON}
        assert await status(session, "POST", url, **post) == 200
        assert await status(session, "POST", url + "/", **post) == 200
        told = {"data": b'{"jsonrpc": "2.0", "method": "sum"}', "headers": JSON}
        assert await status(session, "POST", url, **told) == 204
        assert await status(session, "POST", url + "/elsewhere", **post) == 404
        assert await status(session, "GET", url) == 405
        assert await status(session, "OPTIONS", url) == 405
        assert await status(session, "POST", url + "/ws", **post) == 405
        assert await status(session, "GET", url + "/ws") == 426
        large = {"data": b" " * 1001, "headers": JSON}
        assert await status(session, "POST", url, **large) == 413
        assert await status(session, "POST", url, **post) == 200


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ('Application/JSON; Charset="UTF-8"', 200),
        ("application/json-rpc", 200),
        ("application/json; charset=latin-1", 415),
        ("text/plain", 415),
        ("text/xml", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("", 415),
    ],
)
async def test_content_types(handler: Any, content_type: str, expected: int) -> None:
    async with served(handler) as (session, url):
        headers = {"Content-Type": content_type}
        assert await status(session, "POST", url, data=ASKED, headers=headers) == expected


async def test_what_is_compressed(handler: Any) -> None:
    async with served(handler) as (session, url):
        headers = JSON | {"Content-Encoding": "gzip"}
        assert await status(session, "POST", url, data=ASKED, headers=headers) == 415


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", 200),
        ("LOCALHOST:99", 200),
        ("127.0.0.1", 200),
        ("[::1]:80", 200),
        ("mine.example", 200),
        ("mine.example:8080", 200),
        ("evil.example", 403),
        ("evil.example:8080", 403),
        ("127.0.0.1.evil.example", 403),
        ("", 403),
    ],
)
async def test_hosts(handler: Any, host: str, expected: int) -> None:
    async with served(handler, hosts=["mine.example"]) as (session, url):
        for _ in range(2):
            headers = JSON | {"Host": host}
            assert await status(session, "POST", url, data=ASKED, headers=headers) == expected


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (None, 200),
        ("http://{here}", 200),
        ("https://app.example", 200),
        ("https://app.example:8443", 403),
        ("http://app.example", 403),
        ("https://evil.example", 403),
        ("null", 403),
        ("file://", 403),
        ("http://127.0.0.1:1", 403),
    ],
)
async def test_origins(handler: Any, origin: str | None, expected: int) -> None:
    async with served(handler, origins=["https://app.example"]) as (session, url):
        here = url.removeprefix("http://")
        headers = {} if origin is None else {"Origin": origin.format(here=here)}
        assert await status(session, "POST", url, data=ASKED, headers=JSON | headers) == expected
        if expected == 200:
            async with session.ws_connect(url + "/ws", headers=headers):
                return
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            await session.ws_connect(url + "/ws", headers=headers)


async def test_no_page_is_named_where_none_is_allowed(handler: Any) -> None:
    async with served(handler) as (session, url):
        for origin in (url, "http://127.0.0.1:1", "null", None):
            for method in ("POST", "OPTIONS"):
                headers = JSON | {"Access-Control-Request-Method": "POST"}
                headers |= {} if origin is None else {"Origin": origin}
                async with session.request(method, url, data=ASKED, headers=headers) as response:
                    assert response.status in ((200, 405) if origin in (url, None) else (403,))
                    assert not any(name.startswith("Access-Control") for name in response.headers)


async def test_pages_of_other_origins(handler: Any) -> None:
    app = "https://app.example"
    options = {"max_body": 1000}
    async with served(handler, origins=[app], token="sesame", options=options) as (session, url):
        # A browser asks first, and without the token.
        asks = {
            "Origin": app,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type,x-request-id",
        }
        async with session.options(url, headers=asks) as response:
            assert (response.status, await response.read()) == (204, b"")
            fields = {name: value for name, value in response.headers.items() if "Access" in name}
            assert fields == {
                "Access-Control-Allow-Origin": app,
                "Access-Control-Allow-Methods": "POST",
                "Access-Control-Allow-Headers": "Authorization, Content-Type, "
                "content-type,x-request-id",
                "Access-Control-Max-Age": "600",
            }
            assert response.headers["Vary"] == "Origin"
        private = asks | {"Access-Control-Request-Private-Network": "true"}
        async with session.options(url + "/JSON", headers=private) as response:
            assert response.headers["Access-Control-Allow-Private-Network"] == "true"
        assert await status(session, "OPTIONS", url + "/elsewhere", headers=asks) == 404
        for refused in (asks | {"Origin": "https://evil.example"}, asks | {"Host": "evil.example"}):
            assert await status(session, "OPTIONS", url, headers=refused) == 403
        # It may read whatever answers it.
        token = {"Authorization": "Bearer sesame"}
        told = b'{"jsonrpc": "2.0", "method": "sum"}'
        for expected, headers, data in (
            (200, JSON | token, ASKED),
            (204, JSON | token, told),
            (401, JSON, ASKED),
            (413, JSON | token, b" " * 1001),
            (415, token, ASKED),
        ):
            headers = headers | {"Origin": app}
            async with session.post(url, data=data, headers=headers) as response:
                assert response.status == expected
                assert response.headers["Access-Control-Allow-Origin"] == app
                assert "Access-Control-Allow-Credentials" not in response.headers


async def test_pages_of_any_origin(handler: Any) -> None:
    async with served(handler, origins=["*"]) as (session, url):
        for origin in ("https://app.example", "null"):
            headers = JSON | {"Origin": origin}
            async with session.post(url, data=ASKED, headers=headers) as response:
                assert await response.json() == ANSWERED
                assert response.headers["Access-Control-Allow-Origin"] == origin


def basic(credentials: bytes) -> str:
    return "Basic " + base64.b64encode(credentials).decode()


async def test_a_token(handler: Any) -> None:
    async with served(handler, host="0.0.0.0", token="sésame", insecure=True) as (session, url):
        url = url.replace("0.0.0.0", "127.0.0.1")
        post = {"data": ASKED}
        async with session.post(url, headers=JSON, **post) as response:
            assert response.status == 401
            assert response.headers.getall("WWW-Authenticate") == [
                "Bearer",
                'Basic realm="JSON-RPC", charset="UTF-8"',
            ]
        for wrong in (
            "Bearer",
            "Bearer x",
            "Bearer sésame2",
            "Basic sésame",
            "sésame",
            "Basic",
            "Basic =",
            basic("sésame".encode()),
            basic("sésame:".encode()),
            basic(b"user:sesame"),
            basic("user:sésame:".encode()),
        ):
            headers = JSON | {"Authorization": wrong}
            assert await status(session, "POST", url, headers=headers, **post) == 401
        for right in (
            "Bearer sésame",
            "bearer sésame",
            basic("user:sésame".encode()),
            basic(":sésame".encode()),
            basic("user:sésame".encode("latin-1")),
            basic("user:sésame".encode()).replace("Basic", "BASIC"),
        ):
            headers = JSON | {"Authorization": right}
            assert await status(session, "POST", url, headers=headers, **post) == 200
            async with session.ws_connect(url + "/ws", headers=headers):
                pass
        with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
            await session.ws_connect(url + "/ws")


async def test_a_token_is_compared_in_constant_time(
    handler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return compare_digest(one, other)

    monkeypatch.setattr("hmac.compare_digest", compare)
    async with served(handler, token="sesame") as (session, url):
        for shown in ("Bearer wrong", basic(b"user:wrong")):
            headers = JSON | {"Authorization": shown}
            assert await status(session, "POST", url, data=ASKED, headers=headers) == 401
        with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
            await session.ws_connect(url + "/ws", protocols=("jsonrpc", "bearer.wrong"))
    assert compared == [(b"wrong", b"sesame")] * 3


async def test_a_token_in_a_browsers_way(handler: Any) -> None:
    async with served(handler, token="sesame") as (session, url):
        protocols = ("jsonrpc", "bearer.sesame")
        async with session.ws_connect(url + "/ws", protocols=protocols) as socket:
            assert socket.protocol == "jsonrpc"
            await socket.send_bytes(ASKED)
            assert json.loads(await socket.receive_str()) == ANSWERED


@pytest.mark.parametrize("protocols", [("bearer.sesame",), ("other", "bearer.sesame"), ()])
async def test_a_token_is_in_no_log(
    handler: Any, caplog: pytest.LogCaptureFixture, protocols: tuple[str, ...]
) -> None:
    caplog.set_level(logging.DEBUG)
    headers = {"Authorization": "Bearer sesame"}
    async with Bridge(handler) as bridge, aiohttp.ClientSession() as session:
        url = await bridge.serve_http(token="sesame")
        async with session.ws_connect(url + "/ws", protocols=protocols, headers=headers) as socket:
            assert socket.protocol is None
            await socket.send_bytes(ASKED)
            assert json.loads(await socket.receive_str()) == ANSWERED
        # aiohttp's parser quotes what it cannot read.
        for malformed in (
            b"POST / HTTP/1.1\r\nHost: localhost\r\nAuthorization Bearer sesame\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: localhost\r\nAuthorization: sesame\x00\r\n\r\n",
            b"POST /sesame sesame HTTP/1.1 sesame\r\n\r\n",
        ):
            answer = await exchange(url, malformed)
            assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400"))
            assert answer.endswith(b"\r\n\r\nthe request is malformed\n")
        assert "sesame" not in repr(bridge)
        assert "sesame" not in str(bridge.urls)
    assert "malformed HTTP request" in caplog.text
    assert "sesame" not in caplog.text


async def test_an_empty_token() -> None:
    async with Bridge({}) as bridge:
        with pytest.raises(ValueError, match="empty"):
            await bridge.serve_http(token="")
        with pytest.raises(TypeError, match="origins"):
            await bridge.serve_http(origins="http://x")


async def exchange(url: str, *pieces: bytes) -> bytes:
    """What answers these pieces of a connection, each sent in a turn of its own."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_body_in_pieces(handler: Any) -> None:
    async with served(handler) as (_, url):
        head = (
            "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(ASKED)}\r\n\r\n"
        ).encode()
        answer = await exchange(url, head, *(ASKED[n : n + 1] for n in range(len(ASKED))))
        assert json.loads(answer.partition(b"\r\n\r\n")[2]) == ANSWERED


async def test_a_body_that_waits_for_a_word(handler: Any) -> None:
    head = (
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n" % len(ASKED)
    )
    async with served(handler, options={"max_body": 1000}, token="sesame") as (_, url):
        head += b"Authorization: Bearer sesame\r\n"
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        for _ in range(2):
            writer.write(head + b"Expect: 100-Continue\r\n\r\n")
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(ASKED)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert json.loads(await reader.readexactly(35)) == ANSWERED
        # Who does not wait is not told.
        writer.write(head + b"Expect: 100-continue\r\n\r\n" + ASKED)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.close()
        await writer.wait_closed()
        expects = b"Expect: 100-continue\r\n\r\n"
        for refused, expected in (
            (head.replace(b"sesame", b"wrong") + expects, b"401"),
            (head.replace(b"Length: ", b"Length: 10") + expects, b"413"),
            (head.replace(b"POST / ", b"POST /elsewhere ") + expects, b"404"),
            (head + b"Expect: the unexpected\r\n\r\n", b"417"),
        ):
            # It is refused before its body, and the connection ends: who knows what comes next.
            answer = await exchange(url, refused)
            assert answer.startswith(b"HTTP/1.1 " + expected)
            assert b"\r\nConnection: close\r\n" in answer
        # HTTP/1.0 knows no such word.
        old = (head + expects).replace(b"HTTP/1.1", b"HTTP/1.0")
        answer = await exchange(url, old, ASKED)
        assert answer.startswith(b"HTTP/1.0 200 ")


async def test_another_path_and_status(handler: Any) -> None:
    post = {"data": ASKED, "headers": JSON}
    told = {"data": b'{"jsonrpc": "2.0", "method": "sum"}', "headers": JSON}
    http = {"path": "/api/rpc", "notification_status": 202}
    async with served(handler, **http) as (session, url):
        assert url.count("/") == 2
        async with session.post(url + "/api/rpc", **post) as response:
            assert await response.json() == ANSWERED
        async with session.post(url + "/api/rpc", **told) as response:
            assert (response.status, await response.read()) == (202, b"")
        async with session.post(url, **post) as response:
            assert response.status == 404
            assert "calls are posted to /api/rpc" in await response.text()
        async with session.get(url + "/metrics") as response:
            assert response.status == 404
            assert "without --metrics" in await response.text()
        async with session.ws_connect(url + "/ws"):
            pass
        legacy = {"data": ASKED, "headers": {"Content-Type": "text/xml"}}
        assert await status(session, "POST", url + "/JSON", **legacy) == 200
        assert await status(session, "POST", url + "/api/rpc", **legacy) == 415


async def test_no_content_type(handler: Any) -> None:
    async with served(handler, token="sesame", require_content_type=False) as (session, url):
        token = {"Authorization": "Bearer sesame"}
        skip = ("Content-Type",)
        post: dict[str, Any] = {"data": ASKED, "skip_auto_headers": skip}
        assert await status(session, "POST", url, headers=token, **post) == 200
        for content_type, expected in (
            ("text/plain", 200),
            ("text/plain; charset=utf-8", 200),
            ("application/x-www-form-urlencoded", 200),
            ("text/plain; charset=latin-1", 415),
        ):
            headers = token | {"Content-Type": content_type}
            assert await status(session, "POST", url, data=ASKED, headers=headers) == expected
        assert await status(session, "POST", url, **post) == 401
        # A browser adds what its user has once logged in with to the forms of all pages.
        page = token | {"Origin": url, "Content-Type": "text/plain"}
        assert await status(session, "POST", url, data=ASKED, headers=page) == 415
        page["Content-Type"] = "application/json"
        assert await status(session, "POST", url, data=ASKED, headers=page) == 200


async def test_options_that_cannot_be() -> None:
    async with Bridge({}) as bridge:
        for path in ("", "rpc", "/ws", "/JSON", "/a?b", "/a#b", "/a b", "http://here/"):
            with pytest.raises(ValueError, match="path"):
                await bridge.serve_http(path=path)
        for code in (100, 201, 404, "204", None, 204.5):
            with pytest.raises(ValueError, match="notification_status"):
                await bridge.serve_http(notification_status=code)
        with pytest.raises(ValueError, match="needs a token"):
            await bridge.serve_http(require_content_type=False)


async def test_a_chunked_body_over_the_bound(handler: Any) -> None:
    async with served(handler, options={"max_body": 1000}) as (_, url):
        head = (
            b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
            b"Content-Type: application/json\r\n\r\n"
        )
        answer = await exchange(url, head, *[b"64\r\n" + b" " * 100 + b"\r\n"] * 11)
        assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "junk",
    [b"\r\n\r\n\r\n", b"\x00" * 100, b"GET\r\n\r\n", b"POST / HTTP/1.1\r\nA:" + b"a" * 20_000],
)
async def test_junk(handler: Any, junk: bytes) -> None:
    async with served(handler) as (session, url):
        host, port = url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(junk)
        writer.close()
        await writer.wait_closed()
        assert await status(session, "POST", url, data=ASKED, headers=JSON) == 200


async def test_more_peers_than_there_may_be(handler: Any) -> None:
    async with Bridge(handler, max_peers=2) as bridge, aiohttp.ClientSession() as session:
        url = await bridge.serve_http()
        async with session.ws_connect(url + "/ws"), session.ws_connect(url + "/ws"):
            with pytest.raises(aiohttp.ClientError):
                await session.ws_connect(url + "/ws")
            assert bridge.statistics()["peers_refused"] >= 1
        async with session.ws_connect(url + "/ws") as socket:
            await socket.send_bytes(ASKED)
            assert json.loads(await socket.receive_str()) == ANSWERED


async def test_a_notification_outlives_its_connection() -> None:
    begun, go, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @rpc.method
    async def work() -> None:
        begun.set()
        await go.wait()
        ended.set()

    async with Bridge({"work": work}) as bridge:
        url = await bridge.serve_http()
        async with aiohttp.ClientSession() as session:
            told = {"data": b'{"jsonrpc": "2.0", "method": "work"}', "headers": JSON}
            assert await status(session, "POST", url, **told) == 204
        await begun.wait()
        go.set()
        await ended.wait()


async def test_a_websocket_with_too_large_a_message(handler: Any) -> None:
    async with served(handler, options={"max_body": 1000}) as (session, url):
        async with session.ws_connect(url + "/ws") as socket:
            await socket.send_bytes(b" " * 1001)
            message = await socket.receive()
            assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1009)
        assert await status(session, "POST", url, data=ASKED, headers=JSON) == 200


async def test_close_tells_websockets(handler: Any) -> None:
    bridge = await Bridge(handler).start()
    url = await bridge.serve_http()
    async with aiohttp.ClientSession() as session, session.ws_connect(url + "/ws") as socket:
        closing = asyncio.create_task(bridge.close())
        message = await socket.receive()
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1001)
        await closing
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.post(url, data=ASKED, headers=JSON)


async def test_pipelined_and_kept_alive(handler: Any) -> None:
    async with served(handler) as (_, url):
        head = (
            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(ASKED)}\r\n\r\n"
        ).encode()
        last = head.replace(b"Host", b"Connection: close\r\nHost")
        answer = await exchange(url, (head + ASKED) * 3 + last + ASKED)
        assert answer.count(b'"result":3') == 4


async def test_who_does_not_read_an_answer(handler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from berrymq_rpc.jsonrpc.bridge import http

    monkeypatch.setattr(http, "SEND_TIMEOUT", 0.1)
    async with Bridge(handler, max_body=50_000_000) as bridge:
        url = await bridge.serve_http()
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1)
        asked = b'{"jsonrpc": "2.0", "method": "large", "params": [40000000], "id": 1}'
        writer.write(
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(asked), asked)
        )
        while bridge.statistics()["calls"] == 0:
            await asyncio.sleep(0.01)
        while bridge.statistics()["peers"]:
            await asyncio.sleep(0.01)
        writer.transport.abort()
        del reader


async def test_a_body_that_does_not_come(handler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from berrymq_rpc.jsonrpc.bridge import http

    monkeypatch.setattr(http, "BODY_TIMEOUT", 0.1)
    async with served(handler) as (_, url):
        head = (
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        assert (await exchange(url, head)).startswith(b"HTTP/1.1 408 ")


async def test_a_head_that_does_not_come(handler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from berrymq_rpc.jsonrpc.bridge import http

    monkeypatch.setattr(http, "IDLE_TIMEOUT", 0.1)
    async with served(handler) as (_, url):
        assert await exchange(url, b"POST / HTTP/1.1\r\nHost:") == b""
        assert await exchange(url) == b""


async def test_an_interconnection_needs_a_way_back() -> None:
    ask = {"jsonrpc": "2.0", "method": "interconnect", "id": 1}
    async with Node(bus=Bus()) as node, served(node) as (session, url):
        async with session.post(url, data=json.dumps(ask), headers=JSON) as response:
            error = (await response.json())["error"]
        assert error["data"]["type"] == "builtins.ValueError"
        assert "connect by WebSocket" in error["message"]
        async with session.ws_connect(url + "/ws") as socket:
            await socket.send_json(ask)
            token = (await asyncio.wait_for(socket.receive_json(), 5))["result"]
            node.bus.twitter("job:new", 1)
            message = await asyncio.wait_for(socket.receive_json(), 5)
        assert message["method"] == "send_message"
        assert message["params"][:3] == [token, "job:new", [1]]
