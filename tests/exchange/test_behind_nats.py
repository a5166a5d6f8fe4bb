"""Nodes that listen behind NATS, and what addresses of NATS are to a node."""

import asyncio
import itertools
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("nats", reason="NATS needs nats-py")

from berrymq_rpc import Bus, Node, SyncNode, rpc
from berrymq_rpc.testing.nats_server import NatsServer

_numbers = itertools.count()

USERS = "authorization { users = [{user: alice, password: secret}] }"


@pytest.fixture
def place(nats_server: NatsServer) -> str:
    return f"{nats_server.url}/nodes-{os.getpid()}-{next(_numbers)}"


def heard_by(bus: Bus) -> list[tuple[Any, ...]]:
    heard: list[tuple[Any, ...]] = []
    bus.regist_function("job:*", lambda message: heard.append(message.args))
    return heard


async def test_both_hear_each_other(place: str, until: Callable[..., Any]) -> None:
    buses = Bus(), Bus()
    async with Node(place, buses[0]), Node(None, buses[1]) as node:
        await node.interconnect(place)
        heard = list(map(heard_by, buses))
        for number in range(100):
            buses[number % 2].twitter("job:new", number)
        await until(lambda: [len(each) for each in heard] == [100, 100])
        for each in heard:
            assert sorted(each) == [(number,) for number in range(100)]


async def test_a_connection_is_with_one_node(place: str, until: Callable[..., Any]) -> None:
    """Several nodes of a service share the connections, and not what goes over one of them."""
    buses = Bus(), Bus(), Bus()
    heard = list(map(heard_by, buses))
    async with (
        Node(place, buses[0]),
        Node(place, buses[1]),
        Node(place, buses[2]),
        Node(None, Bus()) as visitor,
    ):
        for turn in range(6):
            async with await visitor.connect_via_queue("job:*", place) as connection:
                for number in range(20):
                    assert await connection.send_message("job:new", turn, number) == "ok"
                for number in range(20):
                    assert (await connection.get(timeout=10)).args == (turn, number)
            (whose,) = [each for each in heard if each]
            assert whose == [(turn, number) for number in range(20)]
            whose.clear()


async def test_settings_in_place_of_text(start_nats: Callable[..., NatsServer]) -> None:
    """A user and a password: in the text or not, they are in no text of the nodes."""
    server = start_nats(USERS)
    shown = f"{server.url}/nodes"
    settings = rpc.Nats(shown, user="alice", password="secret")
    text = f"nats://alice:secret@127.0.0.1:{server.port}/nodes"
    for here in (settings, text):
        async with Node(here, Bus()) as node, Node(None, Bus()) as visitor:
            assert node.endpoints == (shown,)
            for connection in (
                await visitor.connect_oneway(here),
                await visitor.connect_via_queue("job:*", here),
                await visitor.interconnect(here),
            ):
                assert connection.endpoint == shown
                assert "secret" not in repr(connection)
            with pytest.raises(ValueError, match="would arrive twice") as raised:
                await visitor.interconnect(here)
            assert "secret" not in str(raised.value)
    async with Node(None, Bus()) as node:
        assert await node.listen(settings) == (shown,)
        assert await node.listen(["tcp://127.0.0.1:0", settings]) == node.endpoints[1:]


async def test_a_loss_has_no_password(
    start_nats: Callable[..., NatsServer],
    caplog: pytest.LogCaptureFixture,
    until: Callable[..., Any],
) -> None:
    server = start_nats(USERS)
    text = f"nats://alice:secret@127.0.0.1:{server.port}/nodes"
    bus = Bus()
    events: list[Any] = []
    bus.regist_function("connection:*", lambda m: events.append((m.id, m.kwargs)))
    with caplog.at_level(logging.DEBUG):
        async with Node(text, Bus()), Node(None, bus) as visitor:
            await visitor.interconnect(text)
            server.kill()
            await until(lambda: [id for id, _ in events] == ["connection:lost"])
            server.start()
            await until(lambda: [id for id, _ in events][-1] == "connection:restored")
    assert "secret" not in f"{caplog.text} {events}"


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Node("nats://a:secret@host", Bus()), "Node(cluster='nats://host:4222')"),
        (lambda: Node(rpc.Nats("nats://a:secret@host"), Bus()), "names no service"),
        (lambda: Node(None, Bus(), cluster="nats://a:secret@host/calc"), "leave the service away"),
        (lambda: Node(None, Bus(), cluster="tcp://a:secret@host:1"), "write nats://host:4222"),
        (lambda: Node(None, Bus(), cluster="host:4222"), "write nats://host:4222"),
        (lambda: Node(None, Bus(), cluster="nats://h", namespace="a.b"), "characters A-Z"),
    ],
)
def test_what_is_not_an_address_of_a_node(make: Callable[[], Node], text: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011  (the text is compared below)
        make()
    assert text in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("function", ["connect_oneway", "interconnect", "connect_via_queue"])
def test_a_cluster_is_no_node(function: str) -> None:
    arguments = ("job:*",) if function == "connect_via_queue" else ()
    with SyncNode(Bus()) as node:
        with pytest.raises(ValueError, match=r"Node\(cluster='nats://host:4222'\)"):
            getattr(node, function)("nats://alice:secret@host", *arguments)
        with pytest.raises(ValueError, match=r"Node\(cluster='nats://host:4222'\)"):
            node.init_connection("nats://alice:secret@host")


def test_threads(start_nats: Callable[..., NatsServer]) -> None:
    server = start_nats(USERS)
    place = f"nats://alice:secret@127.0.0.1:{server.port}/nodes"
    bus = Bus()
    with SyncNode(bus) as node, SyncNode(Bus()) as visitor:
        assert node.init_connection(place) == f"{server.url}/nodes"
        # A second time changes nothing.
        assert node.init_connection(place) == f"{server.url}/nodes"
        visitor.connect_via_queue(place, "job:*")
        assert visitor.send_message("job:new", 1) == "ok"
        assert visitor.get(timeout=10).args == (1,)
        visitor.close_connection(place)
        with pytest.raises(RuntimeError, match="needs a connection"):
            visitor.send_message("job:new", 2)


def test_where_a_node_of_threads_is(nats_server: NatsServer) -> None:
    address = nats_server.url.replace("//", "//alice:secret@")
    with SyncNode(Bus(), cluster=address, namespace="shown") as node:
        assert repr(node) == f"<SyncNode {nats_server.url}>"
        endpoint = node.init_connection(("127.0.0.1", 0))
        assert repr(node) == f"<SyncNode {endpoint}, {nats_server.url}>"
    assert repr(node) == "<SyncNode nowhere>"


def test_a_cluster_that_was_never_joined(nats_server: NatsServer) -> None:
    """Who forgets to start a node learns why nobody has heard its messages."""
    for start in ("", ".start()"):
        program = (
            "from berrymq_rpc import SyncNode, twitter\n"
            f"node = SyncNode(cluster={nats_server.url!r}){start}\n"
            "twitter('job:new')\n"
        )
        ended = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True
        )
        assert ("was never started" in ended.stderr) == (not start), ended.stderr


async def test_what_is_followed_is_known(nats_server: NatsServer) -> None:
    """What another node sends after `settle` is not missed."""
    cluster = {"cluster": nats_server.url, "namespace": f"settle-{os.getpid()}"}
    buses = Bus(), Bus()
    async with Node(None, buses[0], **cluster) as node, Node(None, buses[1], **cluster):
        for number in range(50):
            came = asyncio.Event()
            buses[0].regist_function(f"job:n{number}", lambda _, came=came: came.set())
            assert await node.settle(10)
            buses[1].twitter(f"job:n{number}")
            await asyncio.wait_for(came.wait(), 10)
    async with Node(None, Bus()) as alone:
        assert alone.cluster is None
        assert await alone.settle()


async def test_settle_while_nats_is_away(start_nats: Callable[..., NatsServer]) -> None:
    server = start_nats()
    async with Node(None, Bus(), cluster=server.url) as node:
        assert node.cluster == server.url
        server.kill()
        assert not await node.settle(0.1)
