"""Nodes with interconnections and a cluster: gateways, in all arrangements, without loops."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from berrymq_rpc.bus import Bus, Message
from berrymq_rpc.exchange import Node
from berrymq_rpc.exchange.policy import Allow
from berrymq_rpc.testing.nats_server import NatsServer

pytest.importorskip("nats", reason="NATS needs nats-py")

Until = Callable[..., Any]

PATIENCE = 10.0

_numbers = itertools.count()


class Net:
    """Nodes by one letter each, with or without a cluster, and the lines between them."""

    def __init__(self, server: NatsServer, until: Until) -> None:
        self.server = server
        self.until = until
        self.namespace = f"gateway-{next(_numbers)}"
        self.nodes: dict[str, Node] = {}
        self.heard: dict[str, list[Message]] = {}
        self.events: dict[str, list[Message]] = {}

    async def open(self, stack: AsyncExitStack, inside: str, both: str, outside: str) -> None:
        """Start nodes: of the cluster alone, with ZeroMQ as well, and with ZeroMQ alone."""
        for letter in inside + both + outside:
            bus = Bus()
            self.heard[letter] = heard = []
            self.events[letter] = events = []
            bus.regist_function("a:*", heard.append)
            bus.regist_function("connection:*", events.append)
            node = Node(
                None if letter in inside else f"mem://{self.namespace}-{letter}",
                bus,
                cluster=None if letter in outside else self.server.url,
                namespace=self.namespace,
                name=letter,
            )
            self.nodes[letter] = await stack.enter_async_context(node)

    async def join(self, *pairs: str) -> None:
        for one, other in pairs:
            await self.nodes[one].interconnect(self.nodes[other].endpoints[0])
        await self.settle()

    async def settle(self) -> None:
        for _ in range(3):
            for node in self.nodes.values():
                assert await node.drain(PATIENCE)

    async def send(self, count: int = 200) -> None:
        """All nodes send numbers, and all others get them, once each and in order."""
        for heard in self.heard.values():
            heard.clear()
        for number in range(count):
            for letter, node in self.nodes.items():
                node.bus.twitter(f"a:{'xyz'[number % 3]}", letter, number)
                node.bus.twitter("b:x", number)
            if number % 20 == 0:
                await asyncio.sleep(0)
        expected = len(self.nodes) * count
        await self.settle()
        await self.until(
            lambda: all(len(heard) >= expected for heard in self.heard.values()), PATIENCE
        )
        await self.settle()
        for letter, heard in self.heard.items():
            for sender in self.nodes:
                numbers = [m.args[1] for m in heard if m.args[0] == sender]
                assert numbers == list(range(count)), (letter, sender)
            assert len(heard) == expected


@pytest.mark.parametrize(
    ("inside", "both", "outside", "lines"),
    [
        ("c", "g", "z", ["zg"]),
        ("cd", "g", "yz", ["zg", "yg"]),
        # A ring with one gateway, and with two.
        ("c", "g", "xyz", ["gx", "xy", "yz", "zg"]),
        ("c", "gh", "xy", ["gx", "xh", "hy", "yg"]),
        # Two gateways with a line between them: each gets everything by both ways.
        ("c", "gh", "", ["gh"]),
        ("", "ghi", "z", ["gh", "hi", "ig", "zi"]),
    ],
)
async def test_each_message_once_and_in_order(
    nats_server: NatsServer,
    until: Until,
    inside: str,
    both: str,
    outside: str,
    lines: list[str],
) -> None:
    net = Net(nats_server, until)
    async with AsyncExitStack() as stack:
        await net.open(stack, inside, both, outside)
        await net.join(*lines)
        # Gateways begin to get everything: what was sent before may be reported as missed.
        for letter in net.nodes:
            net.nodes[letter].bus.twitter("a:x", letter, -1)
        await net.settle()
        await net.until(lambda: all(len(heard) >= len(net.nodes) for heard in net.heard.values()))
        for events in net.events.values():
            events.clear()
        await net.send()
        counted = Counter(e.action for events in net.events.values() for e in events)
        assert counted["missed"] == 0, counted


async def test_a_gateway_and_none_again(nats_server: NatsServer, until: Until) -> None:
    net = Net(nats_server, until)
    async with AsyncExitStack() as stack:
        await net.open(stack, "c", "g", "z")
        await net.settle()
        for _ in range(2):
            received = net.nodes["g"].statistics()["cluster_received"]
            net.nodes["c"].bus.twitter("b:x", 1)
            net.nodes["c"].bus.twitter("a:x", "c", 1)
            await net.settle()
            assert net.nodes["g"].statistics()["cluster_received"] == received + 1
            line = await net.nodes["z"].interconnect(net.nodes["g"].endpoints[0])
            await net.settle()
            await net.send(30)
            await line.close()
            await net.until(lambda: not net.nodes["g"].statistics()["connections"])
            net.heard["g"].clear()
            await net.settle()
            net.nodes["c"].bus.twitter("a:x", "c", 2)
            await net.settle()
            assert [m.args for m in net.heard["g"]] == [("c", 2)]


async def test_talk_through_a_gateway(nats_server: NatsServer, until: Until) -> None:
    net = Net(nats_server, until)
    async with AsyncExitStack() as stack:
        await net.open(stack, "cd", "g", "yz")
        await net.join("yg", "zg")
        for letter, node in net.nodes.items():
            node.bus.regist_function("ask:*", lambda message, letter=letter: letter)
        answers: dict[str, list[Any]] = {}
        for letter, node in net.nodes.items():
            answers[letter] = []
            node.bus.regist_function(
                "answer:*", lambda m, heard=answers[letter]: heard.append(m.args[0])
            )
        await net.settle()
        for letter in "czg":
            net.nodes[letter].bus.talk("ask:who", f"answer:{letter}")
            await net.settle()
            await until(lambda letter=letter: len(answers[letter]) == 5)
            assert sorted(answers[letter]) == sorted("cdgyz")
        assert {letter: len(heard) for letter, heard in answers.items()} == {
            "c": 5,
            "d": 0,
            "g": 5,
            "y": 0,
            "z": 5,
        }


async def test_grants_hold_in_a_cluster(nats_server: NatsServer, until: Until) -> None:
    namespace = f"gateway-{next(_numbers)}"
    allow: Allow = {"*": ["open:*"]}
    heard: list[str] = []
    other_heard: list[str] = []
    one = Node(
        None,
        Bus(),
        cluster=nats_server.url,
        namespace=namespace,
        allow_send=allow,
        allow_receive=allow,
    )
    other = Node(None, Bus(), cluster=nats_server.url, namespace=namespace)
    one.bus.regist_function("*:*", lambda message: heard.append(message.id))
    other.bus.regist_function("*:*", lambda message: other_heard.append(message.id))
    async with one, other:
        for node in (one, other):
            node.bus.twitter("secret:a")
            node.bus.twitter("open:a")
        for node in (one, other, one):
            assert await node.drain(PATIENCE)
        assert other_heard == ["secret:a", "open:a", "open:a"]
        assert [i for i in heard if i != "connection:refused"] == ["secret:a", "open:a", "open:a"]
        assert one.statistics()["messages_denied"] == 1
        assert one.statistics()["messages_withheld"] == 1
