"""What holds at every listener: versions, values, errors, calls back, hostile texts, the end."""

import asyncio
import json
from contextvars import ContextVar
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from berrymq_rpc import Bus, Node, rpc
from berrymq_rpc.jsonrpc.bridge import Bridge

V2 = {"jsonrpc": "2.0", "id": 1}


async def test_version_1_is_answered_as_version_1(
    handler: Any, line_to: Any, listener: str
) -> None:
    async with Bridge(handler) as bridge, line_to(bridge, listener) as line:
        asked = {"method": "subtract", "params": [42, 23], "id": 1}
        assert await line.ask(asked) == {"result": 19, "error": None, "id": 1}
        failed = await line.ask({"method": "fail", "params": [], "id": "x"})
        assert (failed["result"], failed["error"]["code"]) == (None, -32000)
        await line.told(b'{"method": "update", "params": [1], "id": null}')
        assert handler.told == [(1,)]
        batch = [{"version": "1.1", **asked}, V2 | {"method": "sum", "params": None, "id": 2}]
        answers = await line.ask(batch)
        assert sorted(answers, key=lambda answer: answer["id"]) == [
            {"result": 19, "error": None, "id": 1},
            {"jsonrpc": "2.0", "result": 0, "id": 2},
        ]


async def test_too_many_values(handler: Any, line_to: Any, listener: str) -> None:
    """They are counted before the text is read."""
    limits = rpc.Limits(max_values=100)
    async with Bridge(handler, limits=limits) as bridge, line_to(bridge, listener) as line:
        answer = await line.ask(V2 | {"method": "sum", "params": [1] * 90})
        assert answer["result"] == 90
        answer = await line.ask(V2 | {"method": "sum", "params": [1] * 110})
        assert answer["error"]["code"] == -32700
        assert "100 values" in str(answer["error"])


async def test_namespaces_names_and_later_results(
    handler: Any, line_to: Any, listener: str
) -> None:
    async with Bridge(handler) as bridge, line_to(bridge, listener) as line:
        named = await line.ask(V2 | {"method": "math.add", "params": {"a": 3}})
        assert named["result"] == 4
        assert (await line.ask(V2 | {"method": "later", "params": [None]}))["result"] is None
        batch = [V2 | {"method": "later", "params": [n], "id": n} for n in range(100)]
        answers = await line.ask(batch)
        assert sorted(answer["result"] for answer in answers) == list(range(100))


async def test_what_a_handler_sets_in_its_context_is_not_there_for_the_next(
    line_to: Any, listener: str
) -> None:
    user: ContextVar[str] = ContextVar("user", default="nobody")

    class Visited(rpc.AttrHandler):
        @rpc.method
        def plain(self, name: str) -> str:
            found = user.get()
            user.set(name)
            return found

        @rpc.method
        async def later(self, name: str) -> str:
            return self.plain(name)

    async with Bridge(Visited()) as bridge, line_to(bridge, listener) as line:
        for method in ("plain", "plain", "later", "later"):
            answer = await line.ask(V2 | {"method": method, "params": ["alice"]})
            assert answer["result"] == "nobody"
        batch = [V2 | {"method": "plain", "params": [name], "id": name} for name in "abc"]
        assert [answer["result"] for answer in await line.ask(batch)] == ["nobody"] * 3


async def test_what_a_plain_handler_returns_is_awaited(line_to: Any, listener: str) -> None:
    async def work(value: Any) -> Any:
        await asyncio.sleep(0)
        if value is None:
            raise LookupError("none")
        return value

    class Working(rpc.AttrHandler):
        @rpc.method
        def start(self, value: Any = None) -> Any:
            return work(value)

    async with Bridge(Working()) as bridge, line_to(bridge, listener) as line:
        assert (await line.ask(V2 | {"method": "start", "params": [7]}))["result"] == 7
        failed = (await line.ask(V2 | {"method": "start"}))["error"]
        assert (failed["code"], failed["data"]["type"]) == (-32000, "builtins.LookupError")


async def test_errors_of_handlers(handler: Any, line_to: Any, listener: str) -> None:
    async with Bridge(handler) as bridge, line_to(bridge, listener) as line:
        failed = (await line.ask(V2 | {"method": "fail"}))["error"]
        assert failed["code"] == -32000
        assert failed["data"] == {
            "type": "builtins.ValueError",
            "args": ["not so", 7],
            "repr": "ValueError('not so', 7)",
        }
        unwritable = (await line.ask(V2 | {"method": "unwritable"}))["error"]
        assert (unwritable["code"], unwritable["message"]) == (-32603, "Internal error")
        assert unwritable["data"]["type"] == "builtins.TypeError"
        assert (await line.ask(V2))["error"]["data"] == "a request must have a method"
        wrong = (await line.ask(V2 | {"method": "subtract", "params": [1]}))["error"]
        assert wrong["code"] == -32602
        for name in ("_told", "told", "__init__", "math", "math.__class__", "rpc.nothing", ""):
            assert (await line.ask(V2 | {"method": name}))["error"]["code"] == -32601


async def test_tracebacks_travel_when_asked_to(handler: Any, line_to: Any) -> None:
    async with Bridge(handler, send_traceback=True) as bridge, line_to(bridge, "tcp") as line:
        data = (await line.ask(V2 | {"method": "fail"}))["error"]["data"]
        assert "raise ValueError" in data["traceback"]


async def test_the_address_is_known(handler: Any, line_to: Any, listener: str) -> None:
    async with Bridge(handler) as bridge, line_to(bridge, listener) as line:
        assert (await line.ask(V2 | {"method": "caller"}))["result"] == "127.0.0.1"


async def test_a_handler_calls_its_peer(handler: Any, line_to: Any, pushing_listener: str) -> None:
    async with Bridge(handler) as bridge, line_to(bridge, pushing_listener) as line:
        await line.send(json.dumps(V2 | {"method": "ask_back"}).encode())
        question = json.loads(await line.receive())
        assert question["method"] == "whoami"
        await line.send(json.dumps(V2 | {"result": "me", "id": question["id"]}).encode())
        assert json.loads(await line.receive()) == V2 | {"result": "me"}


async def test_a_peer_by_post_cannot_be_called(handler: Any, line_to: Any) -> None:
    async with Bridge(handler) as bridge, line_to(bridge, "http") as line:
        error = (await line.ask(V2 | {"method": "ask_back"}))["error"]
        assert "cannot" in error["message"] or "not called" in error["message"]


async def test_bounds(handler: Any, line_to: Any, listener: str) -> None:
    limits = rpc.Limits(max_depth=20)
    async with (
        Bridge(handler, max_batch=3, limits=limits, max_body=10_000) as bridge,
        line_to(bridge, listener) as line,
    ):
        deep = V2 | {"method": "update", "params": json.loads("[" * 30 + "]" * 30)}
        assert (await line.ask(deep))["error"]["code"] == -32700
        over = [V2 | {"method": "get_data"}] * 4
        assert (await line.ask(over))["error"]["code"] == -32600
        large = (await line.ask(V2 | {"method": "large", "params": [20_000]}))["error"]
        assert (large["code"], large["data"]["type"]) == (
            -32603,
            "berrymq_rpc.errors.TooLargeError",
        )
        assert (await line.ask(V2 | {"method": "sum"}))["result"] == 0


HOSTILE = [
    b"",
    b" ",
    b"{",
    b"null",
    b"\xff\xfe",
    b"NaN",
    b"[" * 5_000,
    b'{"a":' * 5_000,
    b"1e999999",
    b"9" * 9_000,
    b'"\\ud800"',
    b'{"jsonrpc": "2.0", "method": "update", "params": ["\\ud800"], "id": 1}',
    b'{"jsonrpc": "2.0", "result": 1, "id": 1}',
    b'{"jsonrpc": "2.0", "error": {"code": 1, "message": "m"}, "id": null}',
    b'{"jsonrpc": "2.0", "method": "sum", "params": [1], "id": {}}',
    b'{"jsonrpc": "2.0", "method": "sum", "params": 1, "id": 1}',
    b'{"jsonrpc": 2.0, "method": "sum", "id": 1}',
    b'[{"jsonrpc": "2.0", "result": 1, "id": 1}]',
    b"\0" * 100,
]


async def test_hostile_texts_end_no_listener(handler: Any, line_to: Any, listener: str) -> None:
    async with Bridge(handler) as bridge, line_to(bridge, listener) as line:
        for text in HOSTILE:
            await line.send(text)
            if listener == "http":
                await line.receive()
        probe = json.dumps(V2 | {"method": "sum", "params": [3], "id": "probe"}).encode()
        await line.send(probe)
        while True:
            answer = json.loads(await line.receive())
            if isinstance(answer, dict) and answer["id"] == "probe":
                break
        assert answer["result"] == 3


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.binary(max_size=200), max_size=10))
async def test_any_bytes_end_no_listener(
    line_to: Any, pushing_listener: str, texts: list[bytes]
) -> None:
    async with Bridge({}) as bridge, line_to(bridge, pushing_listener) as line:
        for text in texts:
            await line.send(text)
        await line.send(json.dumps(V2 | {"method": "rpc.describe", "id": "probe"}).encode())
        while True:
            answer = json.loads(await line.receive())
            if isinstance(answer, dict) and answer["id"] == "probe":
                return


async def test_close_lets_calls_end(line_to: Any, pushing_listener: str) -> None:
    go = asyncio.Event()

    @rpc.method
    async def work() -> str:
        await go.wait()
        return "done"

    bridge = await Bridge({"work": work}).start()
    async with line_to(bridge, pushing_listener) as line:
        await line.send(json.dumps(V2 | {"method": "work"}).encode())
        await line.send(json.dumps(V2 | {"method": "rpc.discover", "id": 2}).encode())
        assert json.loads(await line.receive())["id"] == 2
        closing = asyncio.create_task(bridge.close())
        await asyncio.sleep(0)
        go.set()
        assert json.loads(await line.receive()) == V2 | {"result": "done"}
        await closing
    await bridge.close()


async def test_a_peer_that_goes_stops_its_calls(handler: Any, line_to: Any, listener: str) -> None:
    async with Bridge(handler) as bridge:
        async with line_to(bridge, listener) as line:
            sending = asyncio.create_task(line.send(json.dumps(V2 | {"method": "wait"}).encode()))
            await handler.waiting.wait()
            sending.cancel()
            await asyncio.wait((sending,))
        await handler.cancelled.wait()


async def test_before_a_remote_server(handler: Any, line_to: Any, listener: str) -> None:
    async with (
        await rpc.start_server(handler, bind="tcp://127.0.0.1:*") as server,
        await rpc.open_client(connect=server.endpoints[0], timeout=10) as client,
        Bridge(client) as bridge,
        line_to(bridge, listener) as line,
    ):
        assert (await line.ask(V2 | {"method": "math.add", "params": [1, 2]}))["result"] == 3
        assert (await line.ask(V2 | {"method": "math.add", "params": {"a": 1}}))["result"] == 2
        failed = (await line.ask(V2 | {"method": "fail"}))["error"]["data"]
        assert failed["repr"] == "ValueError('not so', 7)"
        assert (await line.ask(V2 | {"method": "nothing"}))["error"]["code"] == -32601
        assert (await line.ask(V2 | {"method": "sum", "params": {"a": 1}}))["error"][
            "code"
        ] == -32602
        await line.told(b'{"jsonrpc": "2.0", "method": "notify_hello", "params": [5]}')
        while not handler.told:
            await asyncio.sleep(0.001)
        document = (await line.ask(V2 | {"method": "rpc.discover"}))["result"]
        assert "math.add" in [method["name"] for method in document["methods"]]


async def test_a_node_takes_messages(line_to: Any, listener: str) -> None:
    bus = Bus()
    heard: asyncio.Queue[Any] = asyncio.Queue()
    bus.regist_function("job:*", heard.put_nowait)
    async with (
        Node("tcp://127.0.0.1:0", bus) as node,
        Bridge(node) as bridge,
        line_to(bridge, listener) as line,
    ):
        token = (await line.ask(V2 | {"method": "connect_oneway", "params": [10]}))["result"]
        sent = V2 | {"method": "send_message", "params": [token, "job:done", [1], {"by": "me"}]}
        assert (await line.ask(sent))["result"] == "ok"
        message = await heard.get()
        assert (message.args, message.kwargs) == ((1,), {"by": "me"})
        queue = (await line.ask(V2 | {"method": "connect_via_queue", "params": ["a:*", 9]}))[
            "result"
        ]
        await line.send(json.dumps(V2 | {"method": "get_nowait", "params": [queue]}).encode())
        assert json.loads(await line.receive())["result"] == "timeout"
        bus.twitter("a:b", 1, two=2)
        got = (await line.ask(V2 | {"method": "get", "params": [queue, True, 5]}))["result"]
        assert got == {"id": "a:b", "args": [1], "kwargs": {"two": 2}}
        closed = V2 | {"method": "close_connection", "params": [queue]}
        assert (await line.ask(closed))["result"] == "ok"
        assert (await line.ask(closed))["result"] == "invalid token"


async def test_a_peer_over_its_own_connection_is_interconnected(
    line_to: Any, pushing_listener: str
) -> None:
    bus = Bus()
    async with (
        Node("tcp://127.0.0.1:0", bus) as node,
        Bridge(node) as bridge,
        line_to(bridge, pushing_listener) as line,
    ):
        asked = V2 | {"method": "interconnect", "params": [None, "my own token", 100]}
        assert (await line.ask(asked))["result"] == "my own token"
        bus.twitter("a:b", 1, two=2)
        message = json.loads(await line.receive())
        assert message == {
            "jsonrpc": "2.0",
            "method": "send_message",
            "params": ["my own token", "a:b", [1], {"two": 2}],
        }


@pytest.mark.parametrize("name", ["max_body", "max_batch", "max_peers", "queue_size"])
@pytest.mark.parametrize("value", [0, -1, True, 1.5, None])
def test_what_is_no_bound(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        Bridge({}, **{name: value})


def test_what_is_no_target() -> None:
    with pytest.raises(TypeError):
        Bridge(object())


async def test_outside_of_its_life() -> None:
    bridge = Bridge({})
    with pytest.raises(rpc.Error, match="async with"):
        await bridge.serve_tcp()
    async with bridge:
        with pytest.raises(RuntimeError):
            await bridge.start()
    with pytest.raises(rpc.ServiceClosedError):
        await bridge.serve_http()


@pytest.mark.parametrize("serve", ["serve_http", "serve_tcp", "serve_zeromq"])
async def test_nobody_is_let_in_by_accident(serve: str) -> None:
    async with Bridge({}) as bridge:
        where = ("tcp://0.0.0.0:*",) if serve == "serve_zeromq" else ("0.0.0.0", 0)
        with pytest.raises(ValueError, match="insecure=True"):
            await getattr(bridge, serve)(*where)
        assert await getattr(bridge, serve)(*where, insecure=True)


async def test_close_ends_what_waits(line_to: Any, pushing_listener: str) -> None:
    async with Node("tcp://127.0.0.1:0", Bus()) as node:
        bridge = await Bridge(node, grace=60).start()
        async with line_to(bridge, pushing_listener) as line:
            asked = V2 | {"method": "connect_via_queue", "params": ["a:*"]}
            queue = (await line.ask(asked))["result"]
            await line.send(json.dumps(V2 | {"method": "get", "params": [queue]}).encode())
            while not bridge.statistics()["calls_in_progress"]:
                await asyncio.sleep(0.001)
            await asyncio.gather(bridge.close(), line.receive())


async def test_a_zeromq_peer_too_many_is_told(line_to: Any) -> None:
    async with (
        Bridge({}, max_peers=1) as bridge,
        line_to(bridge, "zeromq") as one,
        line_to(bridge, "zeromq") as two,
    ):
        asked = V2 | {"method": "rpc.describe"}
        assert "result" in await one.ask(asked)
        error = (await two.ask(asked))["error"]
        assert error["data"]["type"] == "berrymq_rpc.errors.OverloadedError"
        assert "result" in await one.ask(asked)
        assert bridge.statistics()["peers_refused"] == 1
