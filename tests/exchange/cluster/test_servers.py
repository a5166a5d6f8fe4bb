"""Nodes at several NATS servers: a cluster of these, a leaf node, and rolling restarts."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from berrymq_rpc.bus import Bus, Message
from berrymq_rpc.exchange import Node
from berrymq_rpc.nats.options import Nats
from berrymq_rpc.testing.nats_server import NatsServer

pytest.importorskip("nats", reason="NATS needs nats-py")

Until = Callable[..., Any]
StartNats = Callable[..., NatsServer]

PATIENCE = 20.0


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def start_cluster(start_nats: StartNats, count: int) -> list[NatsServer]:
    """So many servers, each with routes to all others."""
    ports = free_ports(count)
    routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
    return [
        start_nats(
            f"server_name: s{number}\n"
            f"cluster {{ name: c, listen: '127.0.0.1:{port}', routes: [{routes}] }}\n"
        )
        for number, port in enumerate(ports)
    ]


class Place:
    def __init__(self, *servers: NatsServer) -> None:
        self.bus = Bus()
        self.heard: list[Message] = []
        self.events: list[Message] = []
        for identifier in ("a:*", "*:x", "a:x"):
            self.bus.regist_function(identifier, self.take)
        self.bus.regist_function("connection:*", self.events.append)
        self.node = Node(None, self.bus, cluster=Nats([s.url for s in servers]))

    def take(self, message: Message) -> None:
        self.heard.append(message)

    def numbers(self, sender: str) -> list[int]:
        """The numbers that came from a sender, each of its calls once."""
        return [m.args[1] for m in self.heard if m.args[0] == sender]

    def actions(self) -> list[str]:
        return [event.action for event in self.events]


async def open_places(stack: AsyncExitStack, *places: Place, until: Until) -> None:
    """Start them, and wait until each hears the others: servers learn from each other what for."""
    for place in places:
        await stack.enter_async_context(place.node)
    heard: set[tuple[int, int]] = set()
    probes = len(places) * (len(places) - 1)
    for number, place in enumerate(places):
        place.bus.regist_function(
            "probe:*", lambda message, number=number: heard.add((message.args[0], number))
        )
    async with asyncio.timeout(PATIENCE):
        while len(heard - {(n, n) for n in range(len(places))}) < probes:
            for number, place in enumerate(places):
                place.bus.twitter("probe:it", number)
            await asyncio.sleep(0.01)


async def test_a_cluster_of_servers(start_nats: StartNats, until: Until) -> None:
    one, other = start_cluster(start_nats, 2)
    places = {"one": Place(one), "two": Place(one), "three": Place(other)}
    async with AsyncExitStack() as stack:
        await open_places(stack, *places.values(), until=until)
        for number in range(600):
            for name, place in places.items():
                place.bus.twitter(("a:x", "a:y", "b:x")[number % 3], name, number)
            if number % 50 == 0:
                await asyncio.sleep(0)
        await until(
            lambda: all(
                place.numbers(name)[-1:] == [599] for place in places.values() for name in places
            ),
            PATIENCE,
        )
        for place in places.values():
            for name in places:
                assert list(dict.fromkeys(place.numbers(name))) == list(range(600))
            assert place.node.statistics()["doubles"] == 0
            assert "missed" not in place.actions()


async def test_a_leaf_node(start_nats: StartNats, until: Until) -> None:
    (port,) = free_ports(1)
    hub = start_nats(f"leafnodes {{ listen: '127.0.0.1:{port}' }}\n")
    leaf = start_nats(f"leafnodes {{ remotes: [{{ url: 'nats://127.0.0.1:{port}' }}] }}\n")
    places = {"hub": Place(hub), "leaf": Place(leaf)}
    async with AsyncExitStack() as stack:
        await open_places(stack, *places.values(), until=until)
        for number in range(600):
            for name, place in places.items():
                place.bus.twitter(("a:x", "a:y", "b:x")[number % 3], name, number)
        await until(
            lambda: all(
                place.numbers(name)[-1:] == [599] for place in places.values() for name in places
            ),
            PATIENCE,
        )
        for place in places.values():
            for name in places:
                assert list(dict.fromkeys(place.numbers(name))) == list(range(600))
            assert place.node.statistics()["doubles"] == 0
            assert "missed" not in place.actions()


async def test_a_rolling_restart(start_nats: StartNats, until: Until) -> None:
    servers = start_cluster(start_nats, 2)
    one, other = Place(*servers), Place(*servers)
    async with AsyncExitStack() as stack:
        await open_places(stack, one, other, until=until)
        sent = 0

        async def send(condition: Callable[[], bool]) -> None:
            nonlocal sent
            async with asyncio.timeout(PATIENCE):
                while not condition():
                    one.bus.twitter("a:y", "one", sent)
                    sent += 1
                    await asyncio.sleep(0.001)

        for server in servers:
            begun = sent
            restart = asyncio.create_task(asyncio.to_thread(restarted, server))
            await send(lambda begun=begun, restart=restart: restart.done() and sent > begun + 100)
            await restart
            await send(
                lambda: (
                    one.node.statistics()["cluster_connected"]
                    and other.node.statistics()["cluster_connected"]
                )
            )
        # They hear each other again.
        await send(lambda: other.numbers("one")[-1:] > [sent - 50])
        last = sent
        one.bus.twitter("a:y", "one", last)
        await until(lambda: other.numbers("one")[-1:] == [last], PATIENCE)
        numbers = other.numbers("one")
        assert numbers == sorted(set(numbers))
        if len(numbers) <= last:
            assert "missed" in other.actions()


def restarted(server: NatsServer) -> None:
    server.stop()
    server.start()
