"""Gateways between a cluster and interconnected nodes, when NATS or the link behind them fails."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from berrymq_rpc.bus import Bus, Message
from berrymq_rpc.exchange import Node
from berrymq_rpc.rpc import Limits
from berrymq_rpc.testing.nats_server import NatsServer

pytest.importorskip("nats", reason="NATS needs nats-py")

# Each of these needs servers of its own, and most of them seconds.
pytestmark = pytest.mark.slow

Until = Callable[..., Any]
StartNats = Callable[..., NatsServer]

PATIENCE = 20.0
LIMITS = Limits(heartbeat=0.5)


class Net:
    """A node of the cluster alone, one with ZeroMQ alone, and gateways between them."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.heard: dict[str, list[Message]] = {}
        self.events: dict[str, list[Message]] = {}
        self.sent = 0

    async def open(self, stack: AsyncExitStack, letter: str, bind: str | None, url: str) -> Node:
        bus = Bus()
        self.heard[letter], self.events[letter] = heard, events = [], []
        bus.regist_function("a:*", heard.append)
        bus.regist_function("connection:*", events.append)
        node = Node(bind, bus, cluster=url or None, name=letter, limits=LIMITS)
        self.nodes[letter] = await stack.enter_async_context(node)
        return node

    def send(self) -> None:
        for letter, node in self.nodes.items():
            node.bus.twitter("a:b", letter, self.sent)
        self.sent += 1

    def numbers(self, letter: str, sender: str) -> list[int]:
        return [m.args[1] for m in self.heard[letter] if m.args[0] == sender]

    def has_last(self) -> bool:
        """Whether all have what was sent last."""
        return all(
            self.numbers(letter, sender)[-1:] == [self.sent - 1]
            for letter in self.nodes
            for sender in self.nodes
        )

    def count(self, letter: str, action: str) -> int:
        return sum(event.action == action for event in self.events[letter])

    async def send_until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self.send()
                await asyncio.sleep(0.005)

    def check(self) -> None:
        """Nothing came twice or out of order, and no gap is silent."""
        for letter in self.nodes:
            for sender in self.nodes:
                numbers = self.numbers(letter, sender)
                assert numbers == sorted(set(numbers)), (letter, sender)
                if numbers != list(range(numbers[0], self.sent)):
                    missed = [e for e in self.events[letter] if e.action == "missed"]
                    assert sender in {event.kwargs["origin"] for event in missed}, (letter, sender)


async def all_hear_all(net: Net, until: Until) -> None:
    await net.send_until(
        lambda: all(net.numbers(letter, sender) for letter in net.nodes for sender in net.nodes)
    )
    await until(net.has_last, PATIENCE)


@pytest.mark.parametrize("gateways", ["g", "gh"])
async def test_nats_is_killed(start_nats: StartNats, until: Until, gateways: str) -> None:
    server = start_nats()
    net = Net()
    async with AsyncExitStack() as stack:
        await net.open(stack, "c", None, server.url)
        z = await net.open(stack, "z", "tcp://127.0.0.1:0", "")
        for letter in gateways:
            gateway = await net.open(stack, letter, None, server.url)
            await gateway.interconnect(z.endpoints[0])
        await all_hear_all(net, until)
        inside = ["c", *gateways]
        server.kill()
        await net.send_until(lambda: all(net.count(letter, "lost") for letter in inside))
        for _ in range(50):
            net.send()
        await asyncio.to_thread(server.start)
        await net.send_until(lambda: all(net.count(letter, "restored") for letter in inside))
        for _ in range(50):
            net.send()
        await until(net.has_last, PATIENCE)
        net.check()
        # The nodes that meet over ZeroMQ did not depend on it.
        assert all(net.numbers("z", gateway) == list(range(net.sent)) for gateway in gateways)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["cut", "close"])
async def test_a_link_behind_a_gateway_fails(
    nats_server: NatsServer, link: Any, until: Until, how: str
) -> None:
    net = Net()
    async with AsyncExitStack() as stack:
        await net.open(stack, "c", None, nats_server.url)
        z = await net.open(stack, "z", "tcp://127.0.0.1:0", "")
        gateway = await net.open(stack, "g", None, nats_server.url)
        line = await stack.enter_async_context(link(z.endpoints[0]))
        await gateway.interconnect(line.endpoint)
        await all_hear_all(net, until)
        if how == "cut":
            line.cut()
        else:
            line.close()
        await net.send_until(lambda: net.count("g", "lost"))
        for _ in range(50):
            net.send()
        line.restore()
        await net.send_until(lambda: net.count("g", "restored"))
        for _ in range(50):
            net.send()
        await until(net.has_last, PATIENCE)
        net.check()
        assert net.numbers("c", "g") == list(range(net.sent))
