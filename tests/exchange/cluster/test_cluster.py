"""Nodes of a cluster: what somebody follows travels, once, in order, and gaps are told."""

import asyncio
import itertools
import queue
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from berrymq_rpc.bus import Bus, Message
from berrymq_rpc.errors import ConnectionLostError
from berrymq_rpc.exchange import Node, SyncNode
from berrymq_rpc.nats.options import Nats
from berrymq_rpc.testing.nats_server import NatsServer

pytest.importorskip("nats", reason="NATS needs nats-py")

from berrymq_rpc.nats.connection import Connection

Until = Callable[..., Any]

ROOT = Path(__file__).resolve().parents[3]

#: Seconds in which everything here happens.
PATIENCE = 10.0

_numbers = itertools.count()


@pytest.fixture
def namespace() -> str:
    return f"test-{next(_numbers)}"


class Place:
    """A node of a cluster, with its bus and what it heard."""

    def __init__(
        self, server: NatsServer | str, namespace: str, *bind: str, **options: Any
    ) -> None:
        self.bus = Bus()
        self.heard: list[Message] = []
        self.events: list[Message] = []
        self.errors: list[BaseException] = []
        self.bus.on_error = lambda error, message, receiver: self.errors.append(error)
        self.bus.regist_function("connection:*", self.events.append)
        url = server if isinstance(server, str) else server.url
        self.node = Node(bind or None, self.bus, cluster=url, namespace=namespace, **options)

    def follow(self, *identifiers: str) -> None:
        for identifier in identifiers:
            self.bus.regist_function(identifier, self.heard.append)

    def texts(self) -> list[Any]:
        return [(message.id, *message.args) for message in self.heard]

    def actions(self) -> list[str]:
        return [event.action for event in self.events]


@asynccontextmanager
async def places(*those: Place) -> AsyncIterator[tuple[Place, ...]]:
    async with asyncio.timeout(PATIENCE * 2):
        for place in those:
            await place.node.start()
        try:
            yield those
        finally:
            for place in those:
                await place.node.close()


async def settled(*those: Place) -> None:
    """What is followed is known to the server, and what was sent has come."""
    for place in those:
        assert await place.node.drain(PATIENCE)
    # What the server had sent before this answer has come before it.
    for place in those:
        assert await place.node.drain(PATIENCE)


@asynccontextmanager
async def raw(server: NatsServer) -> AsyncIterator[tuple[Connection, list[tuple[str, bytes]]]]:
    """A connection to NATS that is not a node, and what it heard."""
    heard: list[tuple[str, bytes]] = []
    connection = Connection(Nats(server.url))
    await connection.connect(PATIENCE)
    connection.subscribe(
        "berrymq.>", lambda subject, reply, payload, headers: heard.append((subject, payload))
    )
    await connection.flush(PATIENCE)
    try:
        yield connection, heard
    finally:
        await connection.close()


async def test_a_message_reaches_the_follower_at_another_node(
    nats_server: NatsServer, namespace: str
) -> None:
    one, other = Place(nats_server, namespace), Place(nats_server, namespace)
    other.follow("oven:*")
    async with places(one, other):
        assert one.bus.twitter("oven:log", 42, unit="C") == 0
        await settled(one, other)
        (message,) = other.heard
        assert (message.id, message.args, message.kwargs) == ("oven:log", (42,), {"unit": "C"})
        assert message.origin == one.node.name
        assert one.heard == []


async def test_only_what_is_followed_travels(nats_server: NatsServer, namespace: str) -> None:
    one, other = Place(nats_server, namespace), Place(nats_server, namespace)
    async with places(one, other):
        other.follow("wanted:*")
        await settled(other)
        one.bus.twitter("wanted:a")
        one.bus.twitter("other:a")
        one.bus.twitter("wanted@room:a")
        await settled(one, other)
        assert other.texts() == [("wanted:a",)]
        assert other.node.statistics()["cluster_received"] == 1
        other.bus.unfollow("wanted:*", other.heard.append)
        await settled(other)
        one.bus.twitter("wanted:a")
        await settled(one, other)
        assert other.node.statistics()["cluster_received"] == 1


async def test_once_though_subscriptions_overlap_and_in_order(
    nats_server: NatsServer, namespace: str
) -> None:
    one, other = Place(nats_server, namespace), Place(nats_server, namespace)
    other.follow("a:b", "a:*", "*:b", "*:*", "*@*:*")
    calls = 5
    async with places(one, other):
        for number in range(500):
            one.bus.twitter(("a:b", "c:b", "a:d")[number % 3], number)
            if number % 50 == 0:
                await asyncio.sleep(0)
        await settled(one, other)
        of_first = [m.args[0] for m in other.heard if m.id == "a:b"]
        assert of_first == sorted(number for number in range(0, 500, 3) for _ in range(calls))
        order = list(dict.fromkeys(m.args[0] for m in other.heard))
        assert order == list(range(500))
        assert other.node.statistics()["doubles"] == 0


async def test_wildcards_of_senders_and_receivers(nats_server: NatsServer, namespace: str) -> None:
    one, other = Place(nats_server, namespace), Place(nats_server, namespace)
    followed = ["start:go", "stop:*", "*:now", "here@room:x", "any@*:x"]
    other.follow(*followed)
    sent = [
        "start:*",
        "*:go",
        "*:*",
        "stop:me",
        "*:now",
        "here@*:x",
        "any:x",
        "any@room:x",
        "start@*:go",
        "else:where",
    ]
    here = Bus()
    expected: list[str] = []
    for identifier in followed:
        here.regist_function(identifier, lambda message: expected.append(message.id))
    async with places(one, other):
        for identifier in sent:
            here.twitter(identifier)
            one.bus.twitter(identifier)
        await settled(one, other)
        assert [m.id for m in other.heard] == expected


@pytest.mark.parametrize("part", ["ä ö", "a.b", ">", "%2A", "x" * 300, "\U0001f600", "a b"])
async def test_identifiers_come_back_equal(
    nats_server: NatsServer, namespace: str, part: str
) -> None:
    one, other = Place(nats_server, namespace), Place(nats_server, namespace)
    sent = [f"{part}:go", f"go:{part}", f"go@{part}:go"]
    other.follow(*sent, "*:go")
    async with places(one, other):
        for identifier in sent:
            one.bus.twitter(identifier)
        await settled(one, other)
        assert list(dict.fromkeys(m.id for m in other.heard)) == sent


async def test_local_names_stay(nats_server: NatsServer, namespace: str) -> None:
    one, other = Place(nats_server, namespace), Place(nats_server, namespace)
    other.follow("_private:*", "*:*")
    async with places(one, other), raw(nats_server) as (_, heard):
        one.bus.twitter("_private:a")
        one.bus.twitter("public:a")
        await settled(one, other)
        assert other.texts() == [("public:a",)]
        assert [s for s, _ in heard] == [f"berrymq.{namespace}.public.a"]


async def test_namespaces_are_apart(nats_server: NatsServer, namespace: str) -> None:
    one, other = Place(nats_server, namespace), Place(nats_server, f"{namespace}-b")
    other.follow("*:*")
    async with places(one, other):
        one.bus.twitter("a:b")
        await settled(one, other)
        assert other.heard == []


async def test_nodes_may_share_a_name(nats_server: NatsServer, namespace: str) -> None:
    nodes = [Place(nats_server, namespace, name="twin") for _ in range(3)]
    for place in nodes:
        place.follow("a:b")
    async with places(*nodes):
        nodes[0].bus.twitter("a:b", 1)
        await settled(*nodes)
        assert [place.texts() for place in nodes[1:]] == [[("a:b", 1)]] * 2


async def test_talk(nats_server: NatsServer, namespace: str, until: Until) -> None:
    one, other, third = (Place(nats_server, namespace) for _ in range(3))
    other.bus.regist_function("ask:*", lambda message: message.args[0] + 1)

    def fail(message: Message) -> None:
        raise LookupError("no such thing")

    third.bus.regist_function("ask:*", fail)
    one.follow("answer:*")
    third.follow("answer:*")
    async with places(one, other, third):
        one.bus.talk("ask:it", "answer:it", 41)
        await settled(one, other, third, one)
        await until(lambda: len(one.heard) == 2)
        results = {repr(m.error) if m.error else m.args[0]: m.origin for m in one.heard}
        assert results == {
            42: other.node.name,
            "LookupError('no such thing')": third.node.name,
        }
        assert third.heard == []


async def test_a_talk_that_nobody_hears(nats_server: NatsServer, namespace: str) -> None:
    """There is no answer, as there is none within a process: neither an error nor an event."""
    one, other = Place(nats_server, namespace), Place(nats_server, namespace)
    other.bus.regist_function("ask:two", lambda message: 2)
    one.follow("answer:*")
    async with places(one, other):
        await settled(one, other)
        assert one.bus.talk("ask:one", "answer:one") == 0
        assert one.bus.talk("ask:two", "answer:two") == 0
        async with asyncio.timeout(PATIENCE):
            while not one.heard:
                await asyncio.sleep(0.001)
        assert one.texts() == [("answer:two", 2)]
        assert one.events == []
        assert one.errors == []


async def test_what_waits_while_nats_is_away_is_sent(
    start_nats: Callable[..., NatsServer], namespace: str, until: Until
) -> None:
    server = start_nats()
    one, other = Place(server, namespace), Place(server, namespace)
    other.follow("a:*")
    async with places(one, other):
        one.bus.twitter("a:b", 0)
        await settled(one, other)
        server.kill()
        await until(lambda: "lost" in one.actions() and "lost" in other.actions())
        for number in range(1, 1000):
            one.bus.twitter("a:b", number)
        assert one.node.statistics()["cluster_connected"] == 0
        await until(lambda: one.node.statistics()["cluster_waiting"] == 999)
        await asyncio.to_thread(server.start)
        await until(lambda: "restored" in one.actions() and "restored" in other.actions())
        await until(lambda: len(other.heard) == 1000)
        assert [m.args[0] for m in other.heard] == list(range(1000))
        assert "missed" not in other.actions()
        assert one.actions().count("lost") == one.actions().count("restored") == 1


async def test_what_the_socket_had_taken_is_sent_again(
    start_nats: Callable[..., NatsServer], namespace: str, until: Until
) -> None:
    server = start_nats()
    one = Place(server, namespace)
    async with places(one):
        server.signal(signal.SIGSTOP)
        one.bus.twitter("a:b", 1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        server.kill()
        await until(lambda: "lost" in one.actions())
        assert one.node.statistics()["cluster_waiting"] == 1
        await asyncio.to_thread(server.start)
        async with raw(server) as (_, heard):
            await settled(one)
            await until(lambda: heard)
            assert [s for s, _ in heard] == [f"berrymq.{namespace}.a.b"]
            assert one.node.statistics()["cluster_waiting"] == 0


async def test_over_its_bound_the_oldest_goes_and_is_told(
    start_nats: Callable[..., NatsServer], namespace: str, until: Until
) -> None:
    server = start_nats()
    one, other = Place(server, namespace, line_size=10), Place(server, namespace)
    other.follow("a:*")
    async with places(one, other):
        one.bus.twitter("a:b", -1)
        await settled(one, other)
        server.kill()
        await until(lambda: "lost" in one.actions())
        for number in range(30):
            one.bus.twitter(f"a:{number}")
        await until(lambda: "dropped" in one.actions())
        dropped = next(e for e in one.events if e.action == "dropped")
        assert dropped.kwargs["count"] == one.node.statistics()["cluster_dropped"] == 20
        await asyncio.to_thread(server.start)
        await settled(one)


async def test_a_gap_is_told(nats_server: NatsServer, namespace: str, until: Until) -> None:
    one, other = Place(nats_server, namespace), Place(nats_server, namespace)
    other.follow("a:*")
    async with places(one, other), raw(nats_server) as (connection, heard):
        for number in range(3):
            one.bus.twitter("a:b", number)
            one.bus.twitter("else:where", number)
            await settled(one)
        await until(lambda: len(heard) == 6)
        await settled(other)
        assert other.actions() == []
        # Another node that saw only some of them: the second never came.
        late = Place(nats_server, f"{namespace}-late")
        late.follow("a:*")
        async with places(late):
            for _, payload in (heard[0], heard[4]):
                connection.publish(f"berrymq.{namespace}-late.a.b", payload)
            await connection.flush(PATIENCE)
            await settled(late)
            assert [m.args for m in late.heard] == [(0,), (2,)]
            (missed,) = late.events
            assert missed.action == "missed"
            assert missed.kwargs == {"origin": one.node.name, "first": 2, "last": 3, "count": 1}
            assert late.node.statistics()["messages_missed"] == 1
            # Duplicates are dropped.
            connection.publish(f"berrymq.{namespace}-late.a.b", heard[4][1])
            await connection.flush(PATIENCE)
            await settled(late)
            assert late.node.statistics()["doubles"] == 1
            assert len(late.heard) == 2


async def test_malformed_messages_are_counted(nats_server: NatsServer, namespace: str) -> None:
    one, other = Place(nats_server, namespace), Place(nats_server, namespace)
    other.follow("a:*", "b:*")
    async with places(one, other), raw(nats_server) as (connection, heard):
        one.bus.twitter("a:b", 1)
        await settled(one, other)
        good = heard[0][1]
        subject = f"berrymq.{namespace}.a.b"
        bad = [b"", b"{}", b'{"plain": "JSON"}', good[:-1], good + b"x", b"\x01\xff\xff\xff\xff"]
        bad += [good[:5] + b"\xc1" * len(good), b"\x02" + good[1:]]
        for payload in bad:
            connection.publish(subject, payload)
        # Not what its subject says: permissions of NATS are for subjects.
        connection.publish(f"berrymq.{namespace}.b.b", good)
        await connection.flush(PATIENCE)
        await settled(other)
        assert other.node.statistics()["messages_malformed"] == len(bad) + 1
        assert other.texts() == [("a:b", 1)]


async def test_too_large_for_nats(
    start_nats: Callable[..., NatsServer], namespace: str, until: Until
) -> None:
    server = start_nats("max_payload: 10000")
    one, other = Place(server, namespace), Place(server, namespace)
    other.follow("a:*")
    async with places(one, other):
        one.bus.twitter("a:b", b"x" * 20_000)
        for number in range(100):
            one.bus.twitter("a:b", number, "x" * 500)
        await settled(one, other)
        assert [m.args[0] for m in other.heard] == list(range(100))
        assert one.node.statistics()["messages_refused"] == 1
        assert "max_payload" in str(one.errors[0])


async def test_long_byte_strings(nats_server: NatsServer, namespace: str) -> None:
    one, other = Place(nats_server, namespace), Place(nats_server, namespace)
    other.follow("a:*")
    blob = bytes(range(256)) * 400
    async with places(one, other):
        one.bus.twitter("a:b", blob, [blob, {"k": blob[:9]}])
        await settled(one, other)
        assert other.heard[0].args == (blob, (blob, {"k": blob[:9]}))


async def test_nobody_there() -> None:
    node = Node(bus=Bus(), cluster="nats://127.0.0.1:1", connect_timeout=0.3)
    with pytest.raises(ConnectionLostError, match=r"127\.0\.0\.1:1"):
        await node.start()
    await node.close()


async def test_from_another_thread(nats_server: NatsServer, namespace: str, until: Until) -> None:
    one, other = Place(nats_server, namespace), Place(nats_server, namespace)
    async with places(one, other):
        await asyncio.to_thread(other.follow, "a:*")
        await settled(other)
        await asyncio.to_thread(one.bus.twitter, "a:b", 1)
        await settled(one, other)
        assert other.texts() == [("a:b", 1)]


def test_nodes_for_threads(nats_server: NatsServer, namespace: str) -> None:
    one, other = Bus(), Bus()
    heard: queue.SimpleQueue[Message] = queue.SimpleQueue()
    other.regist_function("a:*", heard.put)
    options = {"cluster": nats_server.url, "namespace": namespace}
    with SyncNode(one, **options) as sender, SyncNode(other, **options):
        one.twitter("a:b", 1)
        assert sender.drain(PATIENCE)
        message = heard.get(timeout=PATIENCE)
        assert (message.id, message.args) == ("a:b", (1,))


def test_without_nats_py() -> None:
    program = """
import asyncio, sys
sys.modules["nats"] = None
from berrymq_rpc import Bus, Node

async def main():
    async with Node("mem://plain", Bus()):
        pass
    try:
        await Node("mem://plain", Bus(), cluster="nats://127.0.0.1:1").start()
    except ModuleNotFoundError as error:
        print('extra "nats"' in str(error))
    # The address is free again.
    async with Node("mem://plain", Bus()):
        pass

asyncio.run(main())
"""
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30, cwd=ROOT)
    assert done.stdout == "True\n"
