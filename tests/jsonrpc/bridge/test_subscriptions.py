"""Messages that peers have asked for: order, bounds, what is dropped, and the end."""

import asyncio
import json
import logging
from typing import Any

import pytest

from berrymq_rpc import Bus, Node, rpc
from berrymq_rpc.jsonrpc.bridge import Bridge

V2 = {"jsonrpc": "2.0", "id": 1}


@pytest.fixture
def bus() -> Bus:
    return Bus()


async def subscribe(line: Any, identifier: str) -> str:
    return str((await line.ask(V2 | {"method": "subscribe", "params": [identifier]}))["result"])


async def test_messages_come_as_they_are_sent(
    bus: Bus, line_to: Any, pushing_listener: str
) -> None:
    async with (
        Node("tcp://127.0.0.1:0", bus) as node,
        Bridge(node) as bridge,
        line_to(bridge, pushing_listener) as line,
    ):
        one = await subscribe(line, "a:*")
        for number in range(300):
            bus.twitter("a:b", number, half=number / 2)
            bus.twitter("other:b")
            bus.twitter("_a:b")
        for number in range(300):
            message = json.loads(await line.receive())
            assert message == {
                "jsonrpc": "2.0",
                "method": "message",
                "params": {
                    "subscription": one,
                    "id": "a:b",
                    "args": [number],
                    "kwargs": {"half": number / 2},
                },
            }
        ended = V2 | {"method": "unsubscribe", "params": [one]}
        assert (await line.ask(ended))["result"] is True
        bus.twitter("a:b", "nobody hears it")
        assert (await line.ask(ended))["error"]["code"] == -32000


async def test_what_is_retained_comes_at_once(
    bus: Bus, line_to: Any, pushing_listener: str
) -> None:
    bus.retain("*:*")
    bus.twitter("oven:heat", 20)
    bus.twitter("oven:door", "open", by="me")
    bus.twitter("_oven:secret", 1)
    async with (
        Node("tcp://127.0.0.1:0", bus) as node,
        Bridge(node) as bridge,
        line_to(bridge, pushing_listener) as line,
    ):
        await subscribe(line, "*:*")
        bus.twitter("oven:heat", 21)
        got = [json.loads(await line.receive())["params"] for _ in range(3)]
        for params in got:
            del params["subscription"]
        assert got == [
            {"id": "oven:heat", "args": [20], "kwargs": {}, "retained": True},
            {"id": "oven:door", "args": ["open"], "kwargs": {"by": "me"}, "retained": True},
            {"id": "oven:heat", "args": [21], "kwargs": {}},
        ]


async def test_what_a_remote_node_retains(bus: Bus, line_to: Any) -> None:
    bus.retain("*:*")
    bus.twitter("oven:heat", 20)
    async with (
        Node("tcp://127.0.0.1:0", bus) as node,
        await rpc.open_client(connect=node.endpoints[0]) as client,
        Bridge(client) as bridge,
        line_to(bridge, "tcp") as line,
    ):
        await subscribe(line, "oven:*")
        bus.twitter("oven:heat", 21)
        got = [json.loads(await line.receive())["params"] for _ in range(2)]
        assert [(each["args"], each.get("retained")) for each in got] == [
            ([20], True),
            ([21], None),
        ]


async def test_version_1_is_sent_version_1(bus: Bus, line_to: Any, pushing_listener: str) -> None:
    async with (
        Node("tcp://127.0.0.1:0", bus) as node,
        Bridge(node) as bridge,
        line_to(bridge, pushing_listener) as line,
    ):
        asked = {"version": "1.1", "method": "subscribe", "params": ["a:*"], "id": 1}
        subscription = (await line.ask(asked))["result"]
        bus.twitter("a:b", 1, by="me")
        message = {"subscription": subscription, "id": "a:b", "args": [1], "kwargs": {"by": "me"}}
        assert json.loads(await line.receive()) == {
            "method": "message",
            "params": [message],
            "id": None,
        }
        # It is the version of the peer's latest request that counts.
        await line.ask(V2 | {"method": "get_nowait", "params": ["x"]})
        bus.twitter("a:b", 1, by="me")
        assert json.loads(await line.receive()) == {
            "jsonrpc": "2.0",
            "method": "message",
            "params": message,
        }


async def test_version_1_is_called_in_version_1(
    handler: Any, line_to: Any, pushing_listener: str
) -> None:
    async with Bridge(handler) as bridge, line_to(bridge, pushing_listener) as line:
        await line.send(b'{"method": "ask_back", "params": [], "id": "b"}')
        call = json.loads(await line.receive())
        assert call == {"method": "whoami", "params": [], "id": call["id"]}
        answer = {"result": "me", "error": None, "id": call["id"]}
        await line.send(json.dumps(answer).encode())
        assert json.loads(await line.receive()) == {"result": "me", "error": None, "id": "b"}


async def test_from_another_thread(bus: Bus, line_to: Any, pushing_listener: str) -> None:
    async with (
        Node("tcp://127.0.0.1:0", bus) as node,
        Bridge(node) as bridge,
        line_to(bridge, pushing_listener) as line,
    ):
        await subscribe(line, "*:*")
        await asyncio.to_thread(bus.twitter, "a:b", 1)
        assert json.loads(await line.receive())["params"]["args"] == [1]


async def test_local_messages_stay(bus: Bus, line_to: Any) -> None:
    async with (
        Node("tcp://127.0.0.1:0", bus) as node,
        Bridge(node) as bridge,
        line_to(bridge, "tcp") as line,
    ):
        for wrong in ("_a:b", "", "a:b:c", 3, None):
            refused = V2 | {"method": "subscribe", "params": [wrong]}
            assert (await line.ask(refused))["error"]["code"] == -32602
        for wrong in (3, None, []):
            refused = V2 | {"method": "unsubscribe", "params": [wrong]}
            assert (await line.ask(refused))["error"]["code"] == -32602
        await subscribe(line, "*:*")
        bus.twitter("_a:b", 1)
        bus.twitter("a:b", 2)
        assert json.loads(await line.receive())["params"]["args"] == [2]


async def test_what_is_dropped_is_counted_and_told(bus: Bus, line_to: Any) -> None:
    async with (
        Node("tcp://127.0.0.1:0", bus) as node,
        Bridge(node, queue_size=10) as bridge,
        line_to(bridge, "tcp") as line,
    ):
        await subscribe(line, "a:*")
        for number in range(25):
            bus.twitter("a:b", number)
        first = json.loads(await line.receive())["params"]
        assert (first["args"], first["dropped"]) == ([15], 15)
        second = json.loads(await line.receive())["params"]
        assert second["args"] == [16]
        assert "dropped" not in second
        assert bridge.statistics()["messages_dropped"] == 15


async def test_a_peer_that_does_not_read_costs_little(bus: Bus, line_to: Any) -> None:
    async with (
        Node("tcp://127.0.0.1:0", bus) as node,
        Bridge(node, queue_size=10, grace=0) as bridge,
        line_to(bridge, "tcp") as line,
        line_to(bridge, "tcp") as other,
    ):
        await subscribe(line, "a:*")
        for _ in range(400):
            bus.twitter("a:b", "x" * 100_000)
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        assert bridge.statistics()["messages_dropped"] > 100
        assert bridge.statistics()["bytes_queued"] < 1_000_000
        assert await other.ask(V2 | {"method": "subscribe", "params": ["b:c"]})
        line.writer.transport.abort()


async def test_what_cannot_be_written(
    bus: Bus, line_to: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        Node("tcp://127.0.0.1:0", bus) as node,
        Bridge(node) as bridge,
        line_to(bridge, "tcp") as line,
    ):
        await subscribe(line, "a:*")
        with caplog.at_level(logging.WARNING):
            bus.twitter("a:b", object())
            bus.twitter("a:b", 2)
            params = json.loads(await line.receive())["params"]
        assert (params["args"], params["dropped"]) == ([2], 1)
        assert "cannot be encoded" in caplog.text


async def test_not_too_many(bus: Bus, line_to: Any) -> None:
    async with (
        Node("tcp://127.0.0.1:0", bus) as node,
        Bridge(node) as bridge,
        line_to(bridge, "websocket") as line,
    ):
        for number in range(100):
            await subscribe(line, f"a{number}:*")
        error = (await line.ask(V2 | {"method": "subscribe", "params": ["b:*"]}))["error"]
        assert error["data"]["type"] == "berrymq_rpc.errors.OverloadedError"


async def test_not_by_post(bus: Bus, line_to: Any) -> None:
    async with (
        Node("tcp://127.0.0.1:0", bus) as node,
        Bridge(node) as bridge,
        line_to(bridge, "http") as line,
    ):
        error = (await line.ask(V2 | {"method": "subscribe", "params": ["b:*"]}))["error"]
        assert "/ws" in error["message"]


async def test_they_end_with_their_peer(bus: Bus, line_to: Any, pushing_listener: str) -> None:
    async with Node("tcp://127.0.0.1:0", bus) as node, Bridge(node) as bridge:
        before = bus.show_followers()
        async with line_to(bridge, pushing_listener) as line:
            await subscribe(line, "a:*")
            assert bus.show_followers() != before
        while bus.show_followers() != before:
            await asyncio.sleep(0.01)


async def test_before_a_remote_node(bus: Bus, line_to: Any, pushing_listener: str) -> None:
    async with (
        Node("tcp://127.0.0.1:0", bus) as node,
        await rpc.open_client(connect=node.endpoints[0], timeout=10) as client,
        Bridge(client) as bridge,
        line_to(bridge, pushing_listener) as line,
    ):
        one = await subscribe(line, "a:*")
        for number in range(100):
            bus.twitter("a:b", number)
        for number in range(100):
            params = json.loads(await line.receive())["params"]
            assert params == {"subscription": one, "id": "a:b", "args": [number], "kwargs": {}}
        assert (await line.ask(V2 | {"method": "unsubscribe", "params": [one]}))["result"] is True
        while node.statistics()["connections"]:
            await asyncio.sleep(0.01)


async def test_before_a_remote_server_that_is_no_node(line_to: Any) -> None:
    async with (
        await rpc.start_server({}, bind="tcp://127.0.0.1:*") as server,
        await rpc.open_client(connect=server.endpoints[0], timeout=10) as client,
        Bridge(client) as bridge,
        line_to(bridge, "tcp") as line,
    ):
        error = (await line.ask(V2 | {"method": "subscribe", "params": ["a:*"]}))["error"]
        assert error["code"] == -32601


async def test_a_clash_of_names() -> None:
    @rpc.method
    def subscribe() -> None: ...

    node = Node("tcp://127.0.0.1:0", Bus(), handler={"subscribe": subscribe})
    with pytest.raises(ValueError, match="subscribe"):
        Bridge(node)
    Bridge({"subscribe": subscribe})
