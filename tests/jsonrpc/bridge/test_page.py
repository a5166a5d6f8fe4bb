"""The page without a browser: what it is served with, to whom, and what it may do."""

import base64
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from berrymq_rpc import Bus, Node, rpc
from berrymq_rpc.jsonrpc.bridge import Bridge
from berrymq_rpc.jsonrpc.bridge.page_passes import MAX_PASSES, TTL, Passes
from berrymq_rpc.rpc import Context

JSON = {"Content-Type": "application/json"}
ASKED = b'{"jsonrpc": "2.0", "method": "get_data", "id": 1}'
FILES = {
    "/": "text/html; charset=utf-8",
    "/page/app.js": "text/javascript; charset=utf-8",
    "/page/style.css": "text/css; charset=utf-8",
    "/page/icon.svg": "image/svg+xml",
}


@asynccontextmanager
async def served(
    handler: Any, *, options: dict[str, Any] | None = None, **http: Any
) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    async with Bridge(handler, **(options or {})) as bridge, aiohttp.ClientSession() as session:
        yield session, await bridge.serve_http(**{"page": True} | http)


async def got(
    session: aiohttp.ClientSession, url: str, method: str = "GET", **request: Any
) -> tuple[int, Mapping[str, str], bytes]:
    async with session.request(method, url, **request) as response:
        return response.status, response.headers, await response.read()


async def asked(
    session: aiohttp.ClientSession,
    url: str,
    method: str,
    *params: Any,
    path: str = "/page/ws",
    **options: Any,
) -> Any:
    """What the page gets for a call: a result, or the text of the error."""
    async with session.ws_connect(url + path, **options) as socket:
        await socket.send_json({"jsonrpc": "2.0", "method": method, "params": params, "id": 1})
        answer = await socket.receive_json(timeout=10)
        return answer["result"] if "result" in answer else answer["error"]["data"]


def basic(password: str) -> dict[str, str]:
    """The field by which a browser sends a password."""
    return {"Authorization": f"Basic {base64.b64encode(f'anybody:{password}'.encode()).decode()}"}


async def test_the_files(handler: Any) -> None:
    async with served(handler) as (session, url):
        for path, content_type in FILES.items():
            status, headers, body = await got(session, url + path)
            assert (status, headers["Content-Type"]) == (200, content_type)
            assert body
            again = {"If-None-Match": f'"other", {headers["ETag"]}'}
            status, headers, body = await got(session, url + path, headers=again)
            assert (status, body) == (304, b"")
            assert headers["Cache-Control"] == "no-cache"
            status, headers, body = await got(session, url + path, "HEAD")
            assert (status, body) == (200, b"")
        for path in ("/page/", "/page/page.py", "/page/../page.py", "/page/%2e%2e/page.py"):
            assert (await got(session, url + path))[0] == 404


async def test_a_browser_runs_and_loads_nothing_else(handler: Any) -> None:
    async with served(handler) as (session, url):
        for path in (*FILES, "/state"):
            _, headers, _ = await got(session, url + path)
            policy = dict(
                directive.split(" ", 1)
                for directive in headers["Content-Security-Policy"].split("; ")
            )
            assert policy.pop("require-trusted-types-for") == "'script'"
            assert policy.pop("default-src") == "'none'"
            assert policy.pop("frame-ancestors") == "'none'"
            assert set(policy.values()) == {"'self'", "'none'"}
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["X-Frame-Options"] == "DENY"
            assert headers["Referrer-Policy"] == "no-referrer"
            assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        _, _, body = await got(session, url)
        text = body.decode()
        assert not re.search(r"style=|<style|\son\w+=|https?://", text)
        assert re.findall(r"<script[^>]*>(.*?)</script>", text, re.DOTALL) == [""]
        for place in re.findall(r'(?:src|href)="([^"#]+)"', text):
            assert (await got(session, url + place))[0] == 200


async def test_modules_that_are_imported_are_there(handler: Any) -> None:
    async with served(handler) as (session, url):
        seen: set[str] = set()
        waiting = ["app.js"]
        while waiting:
            name = waiting.pop()
            seen.add(name)
            status, _, body = await got(session, f"{url}/page/{name}")
            assert status == 200
            text = body.decode()
            assert "innerHTML" not in text
            assert "insertAdjacentHTML" not in text
            waiting += set(re.findall(r'from "\./([\w.]+)"', text)) - seen
        assert len(seen) > 5


async def test_calls_are_still_posted_there(handler: Any) -> None:
    async with served(handler) as (session, url):
        status, _, body = await got(session, url, "POST", data=ASKED, headers=JSON)
        assert (status, json.loads(body)["result"]) == (200, ["hello", 5])
        assert (await got(session, url, "PUT"))[0] == 405
        assert (await got(session, url + "/state", "POST", data=ASKED, headers=JSON))[0] == 404


async def test_without_a_page(handler: Any) -> None:
    async with served(handler, page=False) as (session, url):
        assert (await got(session, url))[0] == 405
        for path in ("/state", "/page/app.js", "/page/ws"):
            assert (await got(session, url + path))[0] == 404


async def test_the_state() -> None:
    bus = Bus()
    bus.regist_function("job:done", print)
    node = Node("mem://page-state", bus, name="worker")
    async with node, served(node) as (session, url):
        status, headers, body = await got(session, url + "/state")
        assert (status, headers["Content-Type"]) == (200, "application/json")
        assert headers["Cache-Control"] == "no-store"
        state = json.loads(body)
        assert (state["version"], state["name"], state["urls"]) == (1, "worker", [url])
        assert "job:done" in {node["label"] for node in state["graph"]["nodes"]}
        assert {each["style"] for each in state["connections"]} == {"http"}
        assert await asked(session, url, "rpc.page") == {"write": False, "messages": True}
        shown = await asked(session, url, "rpc.state")
        assert shown.keys() == state.keys()


@pytest.mark.parametrize("path", ["/", "/state", "/page/app.js", "/page/ws"])
async def test_other_hosts_and_pages_are_refused(handler: Any, path: str) -> None:
    async with served(handler) as (session, url):
        status, _, _ = await got(session, url + path, headers={"Host": "evil.example"})
        assert status == 403
        status, _, _ = await got(session, url + path, headers={"Origin": "http://evil.example"})
        assert status == 403


async def test_a_page_of_another_site_gets_no_websocket(handler: Any) -> None:
    async with served(handler, page_write=True) as (session, url):
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await asked(session, url, "get_data", origin="http://evil.example")
        assert caught.value.status == 403
        assert await asked(session, url, "get_data", origin=url) == ["hello", 5]


async def test_behind_a_token(handler: Any) -> None:
    async with served(handler, token="secret") as (session, url):
        for path in ("/", "/state", "/page/app.js", "/page/ws"):
            status, headers, body = await got(session, url + path)
            assert (status, body) == (401, b"the token is missing or wrong\n")
            assert 'Basic realm="JSON-RPC"' in ", ".join(headers.getall("WWW-Authenticate"))
        right = basic("secret")
        assert (await got(session, url, headers=right))[0] == 200
        assert (await got(session, url + "/state", headers=right))[0] == 200
        assert "version" in await asked(session, url, "rpc.state", headers=right)
        wrong = basic("wrong")
        assert (await got(session, url + "/state", headers=wrong))[0] == 401


async def test_a_pass_opens_one_websocket() -> None:
    """Some browsers send no password with a WebSocket."""
    users: list[str | None] = []

    def authorize(context: Context, name: str) -> bool:
        users.append(context.peer.user)
        return True

    async with served({}, options={"authorize": authorize}, token={"a": "alice"}) as (session, url):
        assert (await got(session, url + "/page/pass"))[0] == 401
        _, headers, body = await got(session, url + "/page/pass", headers=basic("a"))
        assert headers["Cache-Control"] == "no-store"
        protocols = ["jsonrpc", f"bearer.{body.decode()}"]
        for path in ("/ws", "/page/ws"):
            if path == "/ws":
                with pytest.raises(aiohttp.WSServerHandshakeError):
                    await asked(session, url, "rpc.page", path=path, protocols=protocols)
            else:
                shown = await asked(session, url, "rpc.page", path=path, protocols=protocols)
                assert shown == {"write": False, "messages": False}
        assert users == ["alice"]
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await asked(session, url, "rpc.page", protocols=protocols)
        assert caught.value.status == 401


def test_passes_end() -> None:
    now = [0.0]
    passes = Passes(lambda: now[0])
    issued = passes.issue("alice")
    assert passes.redeem(["jsonrpc", "bearer.wrong"]) is None
    assert passes.redeem(["jsonrpc", f"bearer.{issued}"]) == ("alice",)
    assert passes.redeem([f"bearer.{issued}"]) is None
    late, first = passes.issue(None), passes.issue("bob")
    for _ in range(MAX_PASSES - 1):
        last = passes.issue("carol")
    assert passes.redeem([f"bearer.{late}"]) is None
    assert passes.redeem([f"bearer.{first}"]) == ("bob",)
    now[0] = TTL
    assert passes.redeem([f"bearer.{last}"]) is None


async def test_it_may_look_only(handler: Any) -> None:
    async with served(handler) as (session, url):
        assert await asked(session, url, "rpc.page") == {"write": False, "messages": False}
        names = {each["name"] for each in (await asked(session, url, "rpc.describe"))["methods"]}
        assert "get_data" in names
        text = await asked(session, url, "get_data")
        assert text.startswith("the page may look only")
        text = await asked(session, url, "no_such_method")
        assert text.startswith("the page may look only")


@pytest.mark.parametrize("path", ["/", "/JSON"])
async def test_it_may_not_post_instead(handler: Any, path: str) -> None:
    async with served(handler) as (session, url):
        page = JSON | {"Origin": url}
        status, _, body = await got(session, url + path, "POST", data=ASKED, headers=page)
        assert (status, body) == (403, b"the page of this address may look only\n")
        assert (await got(session, url + path, "POST", data=ASKED, headers=JSON))[0] == 200
    async with served(handler, page_write=True) as (session, url):
        page = JSON | {"Origin": url}
        assert (await got(session, url + path, "POST", data=ASKED, headers=page))[0] == 200


async def test_it_may_not_use_the_other_websocket(handler: Any) -> None:
    async with served(handler) as (session, url):
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await asked(session, url, "get_data", path="/ws", origin=url)
        assert caught.value.status == 403
        assert await asked(session, url, "get_data", path="/ws") == ["hello", 5]
    async with served(handler, origins=["http://127.0.0.1:1"]) as (session, url):
        named = {"path": "/ws", "origin": "http://127.0.0.1:1"}
        assert await asked(session, url, "get_data", **named) == ["hello", 5]


async def test_it_may_write(handler: Any) -> None:
    async with served(handler, page_write=True) as (session, url):
        assert await asked(session, url, "rpc.page") == {"write": True, "messages": False}
        assert await asked(session, url, "get_data") == ["hello", 5]
        assert (await asked(session, url, "no_such_method")).startswith("no method")


async def test_authorize_decides_on_the_page_too(handler: Any) -> None:
    def authorize(context: Context, name: str) -> bool:
        return context.peer.user == "alice"

    tokens = {"a": "alice", "b": "bob"}
    async with served(handler, options={"authorize": authorize}, token=tokens) as (session, url):
        alice, bob = basic("a"), basic("b")
        assert (await got(session, url + "/state", headers=alice))[0] == 200
        status, _, body = await got(session, url + "/state", headers=bob)
        assert status == 403
        assert b"'bob' may not call 'rpc.state'" in body
        assert "may not call" in await asked(session, url, "rpc.state", headers=bob)


async def test_before_a_remote_server() -> None:
    async with Node("tcp://127.0.0.1:0", Bus()) as node:
        client = await rpc.open_client(connect=node.endpoints[0])
        async with client, served(client) as (session, url):
            status, _, body = await got(session, url + "/state")
            assert (status, json.loads(body)["counts"]["client"]["peers"]) == (200, 1)
            described = await asked(session, url, "rpc.describe")
            assert "send_message" in {each["name"] for each in described["methods"]}
            text = await asked(session, url, "send_message", "token", "a:b", [], {})
            assert text.startswith("the page may look only")


async def test_messages_of_the_page() -> None:
    bus = Bus()
    node = Node("mem://page-messages", bus)
    async with (
        node,
        served(node) as (session, url),
        session.ws_connect(url + "/page/ws") as socket,
    ):
        await socket.send_json({"method": "subscribe", "params": ["job:*"], "id": 1})
        subscribed = await socket.receive_json(timeout=10)
        bus.twitter("job:done", 7)
        message = await socket.receive_json(timeout=10)
        (params,) = message["params"]
        assert params["subscription"] == subscribed["result"]
        assert (params["id"], params["args"]) == ("job:done", [7])


@pytest.mark.parametrize(
    "options",
    [{"page_write": True}, {"page": True, "path": "/state"}, {"page": True, "path": "/page/x"}],
)
async def test_arguments_that_are_refused(handler: Any, options: dict[str, Any]) -> None:
    async with Bridge(handler) as bridge:
        with pytest.raises(ValueError, match="page"):
            await bridge.serve_http(**options)
