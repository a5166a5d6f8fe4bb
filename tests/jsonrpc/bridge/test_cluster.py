"""A bridge in front of a cluster, and of what listens behind NATS."""

import asyncio
import itertools
import json
import os
from typing import Any

import aiohttp
import pytest

pytest.importorskip("nats", reason="NATS needs nats-py")

from berrymq_rpc import AsyncQueue, Bus, Node, rpc
from berrymq_rpc.jsonrpc.bridge import Bridge
from berrymq_rpc.testing.nats_server import NatsServer

V2 = {"jsonrpc": "2.0", "id": 1}

_numbers = itertools.count()


@pytest.fixture
def namespace() -> str:
    return f"bridge-{os.getpid()}-{next(_numbers)}"


class Adding(rpc.AttrHandler):
    @rpc.method
    def add(self, a: int, b: int = 1) -> int:
        """Add two numbers."""
        return a + b


async def ask(line: Any, method: str, *params: Any) -> Any:
    answer = await line.ask(V2 | {"method": method, "params": list(params)})
    return answer.get("result", answer.get("error"))


async def test_subscribers_hear_the_cluster(
    nats_server: NatsServer, namespace: str, line_to: Any, pushing_listener: str
) -> None:
    """What another node sends after the answer to "subscribe" arrives, and in its order."""
    cluster = {"cluster": nats_server.url, "namespace": namespace}
    oven = Bus()
    async with (
        Node(None, Bus(), **cluster) as node,
        Node(None, oven, **cluster),
        Bridge(node) as bridge,
        line_to(bridge, pushing_listener) as line,
    ):
        for turn in range(5):
            subscription = await ask(line, "subscribe", "oven:*")
            for number in range(10):
                oven.twitter("oven:log", turn, number)
                oven.twitter("other:log")
            for number in range(10):
                message = json.loads(await line.receive())["params"]
                assert message["args"] == [turn, number]
                assert message["subscription"] == subscription
            assert await ask(line, "unsubscribe", subscription) is True


async def test_the_answer_waits_for_nats(
    nats_server: NatsServer, namespace: str, line_to: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was told that it is subscribed misses nothing that any node sends after that."""
    may_settle, settling = asyncio.Event(), asyncio.Event()

    async def settle(timeout: float | None = None) -> bool:
        settling.set()
        await may_settle.wait()
        return True

    async with Node(None, Bus(), cluster=nats_server.url, namespace=namespace) as node:
        monkeypatch.setattr(node, "settle", settle)
        async with Bridge(node) as bridge, line_to(bridge, "tcp") as line:
            answer = asyncio.create_task(ask(line, "subscribe", "oven:*"))
            await settling.wait()
            done, _ = await asyncio.wait([answer], timeout=0.1)
            assert not done
            may_settle.set()
            assert isinstance(await answer, str)


async def test_what_is_sent_reaches_the_cluster(
    nats_server: NatsServer, namespace: str, line_to: Any, listener: str
) -> None:
    """Over every listener, POST too."""
    cluster = {"cluster": nats_server.url, "namespace": namespace}
    oven = Bus()
    async with (
        Node(None, Bus(), **cluster) as node,
        Node(None, oven, **cluster) as other,
        Bridge(node) as bridge,
        line_to(bridge, listener) as line,
        AsyncQueue("door:*", bus=oven) as queue,
    ):
        assert await other.settle(10)
        token = await ask(line, "connect_oneway")
        assert await ask(line, "send_message", token, "door:open", [1], {"by": "me"}) == "ok"
        message = await queue.get(timeout=10)
        assert (message.id, message.args, message.kwargs) == ("door:open", (1,), {"by": "me"})


async def test_a_subscription_while_nats_is_away(
    start_nats: Any, namespace: str, line_to: Any
) -> None:
    """It is answered, and hears what is sent when NATS is back."""
    server = start_nats()
    cluster = {"cluster": server.url, "namespace": namespace}
    oven = Bus()
    async with (
        Node(None, Bus(), **cluster) as node,
        Node(None, oven, **cluster),
        Bridge(node) as bridge,
        line_to(bridge, "tcp") as line,
    ):
        server.kill()
        assert isinstance(await ask(line, "subscribe", "oven:*"), str)
        oven.twitter("oven:log", 1)
        server.start()
        assert json.loads(await line.receive())["params"]["args"] == [1]


async def test_in_front_of_a_service(
    nats_server: NatsServer, namespace: str, line_to: Any, listener: str
) -> None:
    address = f"{nats_server.url}/{namespace}"
    async with (
        await rpc.start_server(Adding(), bind=address),
        await rpc.open_client(connect=address) as client,
        Bridge(client) as bridge,
        line_to(bridge, listener) as line,
    ):
        assert await ask(line, "add", 1, 2) == 3
        assert (await ask(line, "add", "x"))["code"] == -32000
        assert (await ask(line, "nothing"))["code"] == -32601
        methods = {each["name"]: each for each in (await ask(line, "rpc.discover"))["methods"]}
        assert methods["add"]["summary"] == "Add two numbers."


async def test_in_front_of_a_node_behind_nats(
    nats_server: NatsServer, namespace: str, line_to: Any
) -> None:
    address = f"{nats_server.url}/{namespace}"
    bus = Bus()
    async with (
        Node(address, bus),
        await rpc.open_client(connect=address) as client,
        Bridge(client) as bridge,
        line_to(bridge, "tcp") as line,
    ):
        assert isinstance(await ask(line, "subscribe", "oven:*"), str)
        bus.twitter("oven:log", 1)
        assert json.loads(await line.receive())["params"]["args"] == [1]


@pytest.mark.parametrize("place", ["nats://127.0.0.1:1", "nats://alice:secret@127.0.0.1:1/service"])
async def test_a_listener_for_zeromq_is_not_at_nats(place: str) -> None:
    async with Bridge(Adding()) as bridge:
        with pytest.raises(ValueError, match=r"service|no ZeroMQ socket") as raised:
            await bridge.serve_zeromq(place)
    assert "secret" not in str(raised.value)


async def test_the_page_shows_the_durable_queues(nats_server: NatsServer, namespace: str) -> None:
    cluster = {"cluster": nats_server.url, "namespace": namespace}
    oven, bus = Bus(), Bus()
    async with (
        Node(None, oven, **cluster) as other,
        Node(None, bus, **cluster) as node,
        Bridge(node) as bridge,
        aiohttp.ClientSession() as session,
    ):
        url = await bridge.serve_http(page=True)
        async with AsyncQueue("oven:*", durable="workers", bus=oven) as queue:
            await queue.ready()
            for number in range(3):
                await oven.publish("oven:log", number, durable=True)
            await other.drain()
            async with asyncio.timeout(20):
                while not (state := await state_of(session, url))["queues"]:
                    await asyncio.sleep(0.05)
        (shown,) = state["queues"]
        assert (shown["kind"], shown["peer"], shown["identifier"]) == (
            *("durable", "workers"),
            "oven:*",
        )
        assert (shown["depth"], shown["consumers"]) == (3, 0)
        assert [each["style"] for each in state["connections"]] == ["cluster", "http"]
        # Nothing comes to this node only because there is a page.
        assert state["identifiers"] == []


async def state_of(session: aiohttp.ClientSession, url: str) -> Any:
    async with session.get(f"{url}/state") as response:
        return await response.json()
