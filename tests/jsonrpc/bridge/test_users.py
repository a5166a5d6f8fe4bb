"""The users of a bridge, by their tokens: who they are, and what each of them may do."""

import asyncio
import base64
import json
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from berrymq_rpc import Bus, Node, rpc
from berrymq_rpc.jsonrpc.bridge import Bridge, json_lines
from berrymq_rpc.jsonrpc.http import open_http_client

TOKENS = {"open sesame": "alice", "close sesame": "bob"}
LISTENERS = ["http", "websocket", "tcp"]
JSON = {"Content-Type": "application/json"}


class Handler(rpc.AttrHandler):
    def __init__(self) -> None:
        self.calls: list[str] = []

    @rpc.method
    def who(self) -> list[str | None]:
        peer = rpc.context().peer
        return [peer.key, peer.user]

    @rpc.method(allow={"alice"})
    def open_valve(self) -> str:
        self.calls.append("open_valve")
        return "open"


def request(method: str, *params: Any, id: Any = 1) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": list(params), "id": id}


Ask = Callable[[dict[str, Any]], Any]


@asynccontextmanager
async def lines(url: str, **options: Any) -> AsyncIterator[Any]:
    """A connection over TCP, which sends texts and returns the answers."""
    host, port = url.partition("://")[2].rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port), **options)

    async def ask(message: Any) -> Any:
        text = message if isinstance(message, bytes) else json.dumps(message).encode()
        writer.write(text + b"\n")
        line = await asyncio.wait_for(reader.readline(), 10)
        return json.loads(line) if line else None

    try:
        yield ask
    finally:
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def asking(
    bridge: Bridge, listener: str, token: str, serve: Any, **options: Any
) -> AsyncIterator[Ask]:
    """A line to a listener of the bridge, as the user who has the token."""
    if listener == "tcp":
        url = await bridge.serve_tcp(token=serve)
        async with lines(url, **options) as ask:
            answer = await ask(request("authorize", token))
            assert answer == {"jsonrpc": "2.0", "result": True, "id": 1}
            yield ask
        return
    url = await bridge.serve_http(token=serve)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
        if listener == "http":

            async def post(message: dict[str, Any]) -> Any:
                async with session.post(url, json=message) as response:
                    return await response.json()

            yield post
            return
        async with session.ws_connect(url + "/ws") as socket:

            async def send(message: dict[str, Any]) -> Any:
                await socket.send_json(message)
                return await socket.receive_json(timeout=10)

            yield send


GIVEN = {
    "users by their tokens": (TOKENS, "alice", "bob"),
    "a function": (TOKENS.get, "alice", "bob"),
    "several": (list(TOKENS), None, None),
    "one": ("open sesame", None, None),
    "a function without names": (lambda token: token in TOKENS, None, None),
}


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("given", GIVEN)
async def test_a_token_and_its_user(listener: str, given: str) -> None:
    token, first, second = GIVEN[given]
    async with Bridge(Handler()) as bridge:
        async with asking(bridge, listener, "open sesame", token) as ask:
            assert (await ask(request("who")))["result"] == [None, first]
        if given != "one":
            async with asking(bridge, listener, "close sesame", token) as ask:
                assert (await ask(request("who")))["result"] == [None, second]


@pytest.mark.parametrize("listener", LISTENERS)
async def test_what_a_user_may_not_call(listener: str) -> None:
    handler = Handler()
    async with Bridge(handler) as bridge:
        async with asking(bridge, listener, "close sesame", TOKENS) as ask:
            error = (await ask(request("open_valve")))["error"]
            assert error["code"] == -32001
            assert error["data"] == (
                "the user 'bob' may not call 'open_valve': allow= of the method, or authorize= of "
                "the server, decides"
            )
        assert handler.calls == []
        async with asking(bridge, listener, "open sesame", TOKENS) as ask:
            assert (await ask(request("open_valve")))["result"] == "open"


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("is_remote", [False, True])
async def test_a_function_that_decides(listener: str, is_remote: bool) -> None:
    asked: list[tuple[str | None, str]] = []

    def authorize(context: rpc.Context, name: str) -> bool:
        asked.append((context.peer.user, name))
        return context.peer.user == "alice" or name == "rpc.discover"

    async with (
        await rpc.start_server(Handler(), bind="mem://users"),
        await rpc.open_client(connect="mem://users", timeout=10) as client,
        Bridge(client if is_remote else Handler(), authorize=authorize) as bridge,
    ):
        async with asking(bridge, listener, "open sesame", TOKENS) as ask:
            assert (await ask(request("who")))["result"] == [None, None if is_remote else "alice"]
        async with asking(bridge, listener, "close sesame", TOKENS) as ask:
            assert (await ask(request("who")))["error"]["code"] == -32001
            assert "result" in await ask(request("rpc.discover"))
    assert asked == [("alice", "who"), ("bob", "who"), ("bob", "rpc.discover")]


async def test_what_cannot_decide() -> None:
    async def later(context: Any, name: str) -> bool:
        return True

    for authorize in (later, "alice"):
        with pytest.raises(TypeError, match="authorize must be a"):
            Bridge({}, authorize=authorize)


async def test_one_connection_with_the_requests_of_two_users() -> None:
    """A proxy sends them one after another, and none is taken for another's."""
    async with Bridge(Handler()) as bridge:
        url = await bridge.serve_http(token=TOKENS)
        connector = aiohttp.TCPConnector(limit=1)
        async with aiohttp.ClientSession(connector=connector) as session:
            for token in ("open sesame", "close sesame") * 3:
                headers = {"Authorization": f"Bearer {token}"}
                async with session.post(url, json=request("who"), headers=headers) as response:
                    assert (await response.json())["result"] == [None, TOKENS[token]]
            assert bridge.statistics()["peers"] == 1


async def test_the_token_of_a_connection_belongs_to_its_user() -> None:
    """berryMQ's functions: the token that one user got is of no use to another."""
    async with Node(None, Bus()) as node, Bridge(node) as bridge:
        url = await bridge.serve_http(token=TOKENS)
        async with (
            await open_http_client(url, token="open sesame") as alice,
            await open_http_client(url, token="close sesame") as bob,
        ):
            token = await alice.rpc.connect_oneway(100)
            assert await bob.rpc.send_message(token, "job:done", [1]) == "invalid token"
            assert await bob.rpc.close_connection(token) == "invalid token"
            assert await alice.rpc.send_message(token, "job:done", [1]) == "ok"
            queue = await bob.rpc.connect_via_queue("job:*", 100)
            assert await alice.rpc.get_nowait(queue) == "invalid token"
            assert await bob.rpc.get_nowait(queue) == "timeout"


# -- functions that do not answer well ----------------------------------------------------------


async def answers_later(token: str) -> bool:
    return True


WRONG_ANSWERS = [
    lambda token: 1 / 0,
    lambda token: {}[token],
    lambda token: 1,
    lambda token: "",
    lambda token: None,
    lambda token: answers_later(token),
    lambda: True,
]


@pytest.mark.parametrize("function", WRONG_ANSWERS)
async def test_whatever_is_no_answer_refuses(
    function: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with Bridge(Handler()) as bridge, aiohttp.ClientSession() as session:
        url = await bridge.serve_http(token=function)
        headers = {"Authorization": "Bearer s3cret"}
        async with session.post(url, json=request("who"), headers=headers) as response:
            assert response.status == 401
        async with lines(await bridge.serve_tcp(token=function)) as ask:
            assert (await ask(request("authorize", "s3cret")))["error"]["code"] == -32001
        assert bridge.statistics()["tokens_refused"] == 2
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize(
    ("token", "error"),
    [
        (5, TypeError),
        (b"sesame", TypeError),
        ([5], TypeError),
        ([b"sesame"], TypeError),
        ({"sesame": 5}, TypeError),
        (answers_later, TypeError),
        ("", ValueError),
        ([], ValueError),
        ({}, ValueError),
        ([""], ValueError),
        ({"sesame": ""}, ValueError),
    ],
)
async def test_what_is_no_token(token: Any, error: type[Exception]) -> None:
    async with Bridge({}) as bridge:
        for serve in (bridge.serve_http, bridge.serve_tcp):
            with pytest.raises(error, match="token") as raised:
                await serve(token=token)
            assert "sesame" not in str(raised.value)


async def test_a_request_shows_few_tokens() -> None:
    asked: list[str] = []
    async with Bridge(Handler()) as bridge, aiohttp.ClientSession() as session:
        url = await bridge.serve_http(token=lambda token: asked.append(token))
        protocols = [f"bearer.guess{i}" for i in range(100)]
        with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
            await session.ws_connect(url + "/ws", protocols=protocols)
    assert len(asked) == 2


async def test_bearer_and_basic_for_a_function() -> None:
    """What is not UTF-8 is Latin-1, as some clients still write it."""
    asked: list[str] = []
    async with Bridge(Handler()) as bridge, aiohttp.ClientSession() as session:
        url = await bridge.serve_http(token=lambda token: not asked.append(token))
        for encoding in ("utf-8", "latin-1"):
            credentials = base64.b64encode("any:sésame".encode(encoding)).decode()
            headers = {"Authorization": f"Basic {credentials}"}
            async with session.post(url, json=request("who"), headers=headers) as response:
                assert response.status == 200
    assert asked == ["sésame", "sésame"]


# -- the first text over TCP ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code", "reason"),
    [
        (request("who"), -32001, "the first text must be"),
        (request("authorize", "wrong"), -32001, "the token is wrong"),
        (request("authorize"), -32001, "the first text must be"),
        (request("authorize", 5), -32001, "the first text must be"),
        (request("authorize", "open sesame", 1), -32001, "the first text must be"),
        (request("authorize", "\ud800"), -32700, ""),
        ({"jsonrpc": "2.0", "method": "who"}, -32001, "the first text must be"),
        (b"{", -32700, ""),
        (b"[]", -32600, ""),
        (b"[" * 100, -32700, ""),
        (b" " * 17_000 + b"1", -32700, ""),
    ],
)
async def test_what_comes_before_the_token(text: Any, code: int, reason: str) -> None:
    async with Bridge(Handler()) as bridge:
        async with lines(await bridge.serve_tcp(token=TOKENS)) as ask:
            error = (await ask(text))["error"]
            assert error["code"] == code
            assert reason in str(error["data"])
            # It was the last.
            assert await ask(request("authorize", "open sesame")) is None
        assert bridge.statistics()["calls"] == 0


async def test_each_request_of_a_batch_before_the_token_is_answered() -> None:
    async with (
        Bridge(Handler()) as bridge,
        lines(await bridge.serve_tcp(token=TOKENS)) as ask,
    ):
        batch = [request("authorize", "open sesame"), request("who", id=2)]
        answers = await ask(json.dumps(batch).encode())
        assert [(each["id"], each["error"]["code"]) for each in answers] == [
            (1, -32001),
            (2, -32001),
        ]


async def test_what_follows_at_once_is_not_served(caplog: pytest.LogCaptureFixture) -> None:
    """A refused peer reads why, whatever else it has sent already."""
    handler = Handler()
    async with Bridge(handler) as bridge:
        host, port = (await bridge.serve_tcp(token=TOKENS)).removeprefix("tcp://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        call = json.dumps(request("open_valve")).encode() + b"\n"
        writer.write(json.dumps(request("authorize", "s3cret")).encode() + b"\n" + call * 1000)
        writer.write_eof()
        texts = (await asyncio.wait_for(reader.read(), 10)).splitlines()
        assert [json.loads(text)["error"]["data"] for text in texts] == ["the token is wrong"]
        writer.close()
        await writer.wait_closed()
    assert handler.calls == []
    assert "no valid token" in caplog.text
    assert "s3cret" not in caplog.text


async def test_version_1_by_name_and_as_a_notification() -> None:
    async with Bridge(Handler()) as bridge:
        url = await bridge.serve_tcp(token=TOKENS)
        async with lines(url) as ask:
            answer = await ask({"method": "authorize", "params": ["open sesame"], "id": 7})
            assert answer == {"result": True, "error": None, "id": 7}
            assert (await ask(request("who")))["result"] == [None, "alice"]
            # It has no meaning after the first text.
            assert (await ask(request("authorize", "x")))["error"]["code"] == -32601
        async with lines(url) as ask:
            told = {"jsonrpc": "2.0", "method": "authorize", "params": {"token": "open sesame"}}
            both = b"\n\n" + json.dumps(told).encode() + b"\n" + json.dumps(request("who")).encode()
            assert (await ask(both))["result"] == [None, "alice"]


async def test_a_peer_that_never_shows_a_token(monkeypatch: pytest.MonkeyPatch, until: Any) -> None:
    monkeypatch.setattr(json_lines, "AUTHORIZE_TIMEOUT", 0.1)
    async with Bridge(Handler()) as bridge:
        host, port = (await bridge.serve_tcp(token=TOKENS)).removeprefix("tcp://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b'{"jsonrpc"')
        with pytest.raises(ConnectionError):
            assert not await asyncio.wait_for(reader.read(), 10)
            raise ConnectionResetError
        writer.close()
        await until(lambda: not bridge.statistics()["peers"])


async def test_closing_while_a_peer_has_not_shown_its_token(until: Any) -> None:
    loop = asyncio.get_running_loop()
    async with Bridge(Handler(), grace=30) as bridge:
        host, port = (await bridge.serve_tcp(token=TOKENS)).removeprefix("tcp://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        await until(lambda: bridge.statistics()["peers"])
        began = loop.time()
    assert loop.time() - began < 5
    writer.close()


async def test_what_peers_send_before_their_token_is_bounded() -> None:
    async with Bridge(Handler(), max_host_bytes=2 << 20) as bridge:
        host, port = (await bridge.serve_tcp(token=TOKENS)).removeprefix("tcp://").split(":")
        writers = []
        async with asyncio.timeout(20):
            while not bridge.statistics()["peers_closed"]:
                _, writer = await asyncio.open_connection(host, int(port))
                writers.append(writer)
                writer.write(b"x" * 900_000)
                for _ in range(100):
                    await asyncio.sleep(0)
        assert len(writers) <= 10
        assert bridge.statistics()["bytes_held"] <= 2 << 20
        for writer in writers:
            writer.transport.abort()


async def test_an_http_request_before_the_token(caplog: pytest.LogCaptureFixture) -> None:
    async with Bridge(Handler()) as bridge, lines(await bridge.serve_tcp(token=TOKENS)) as ask:
        assert await ask(b"POST / HTTP/1.1") is None
    assert "an HTTP request" in caplog.text


# -- beyond loopback -----------------------------------------------------------------------------


@pytest.mark.parametrize("serve", ["serve_http", "serve_tcp"])
async def test_what_other_hosts_may_reach(serve: str) -> None:
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    asks = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    asks.verify_mode = ssl.CERT_REQUIRED
    may = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    may.verify_mode = ssl.CERT_OPTIONAL
    async with Bridge({}) as bridge:
        open_at = getattr(bridge, serve)
        refused: list[tuple[dict[str, Any], str]] = [
            ({}, "no authentication. Give token= and ssl="),
            ({"token": "sesame"}, "whoever sees the traffic has the token. Give ssl="),
            ({"ssl": plain}, "Give token=, or ask for client certificates"),
            ({"ssl": may}, "Give token=, or ask for client certificates"),
        ]
        for options, problem in refused:
            with pytest.raises(ValueError, match="insecure=True") as raised:
                await open_at("0.0.0.0", 0, **options)
            assert problem in str(raised.value)
            assert await open_at("0.0.0.0", 0, insecure=True, **options)
        for options in ({"ssl": asks}, {"ssl": plain, "token": "sesame"}):
            assert await open_at("0.0.0.0", 0, **options)
        with pytest.raises(TypeError, match=r"ssl must be an ssl\.SSLContext"):
            await open_at(ssl=True)
