"""What a cluster retains when NATS servers are killed, restarted and lose what they had."""

import asyncio
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from berrymq_rpc.bus import Bus
from berrymq_rpc.exchange import Node
from berrymq_rpc.nats.options import Durable, Nats
from berrymq_rpc.rpc import Limits
from berrymq_rpc.testing.nats_server import NatsServer

pytest.importorskip("nats", reason="NATS needs nats-py")

# Each of these needs servers of its own, and most of them seconds.
pytestmark = pytest.mark.slow

StartNats = Callable[..., NatsServer]
Until = Callable[..., Any]

PATIENCE = 30.0


class Place:
    """A node, with what its bus retains and what a follower has heard last."""

    def __init__(self, *servers: NatsServer, durable: Durable | None = None) -> None:
        self.bus = Bus()
        self.values: list[Any] = []
        place = Nats([server.url for server in servers])
        limits = Limits(heartbeat=0.5)
        self.node = Node(None, self.bus, cluster=place, durable=durable, limits=limits)

    def follow(self) -> None:
        self.bus.regist_function("oven:*", lambda message: self.values.append(message.args[0]))

    @property
    def retained(self) -> dict[str, Any]:
        return {message.action: message.args[0] for message in self.bus.retained("oven:*")}

    @property
    def is_connected(self) -> bool:
        return self.node.statistics()["cluster_connected"] == 1


@asynccontextmanager
async def running(*places: Place) -> AsyncIterator[None]:
    async with asyncio.timeout(120), AsyncExitStack() as stack:
        for place in places:
            await stack.enter_async_context(place.node)
            assert await place.node.settle(PATIENCE)
        yield


async def test_a_killed_server(start_nats: StartNats, until: Until) -> None:
    """What is sent and forgotten while there is no server is known afterwards, by all."""
    server = start_nats(jetstream=True)
    sender, other, late = Place(server), Place(server), Place(server)
    async with running(sender, other):
        sender.bus.retain("oven:*")
        other.follow()
        sender.bus.twitter("oven:heat", 1)
        sender.bus.twitter("oven:door", "open")
        assert await sender.node.drain(PATIENCE)
        await until(lambda: other.retained == {"heat": 1, "door": "open"}, PATIENCE)
        server.kill()
        await until(lambda: not sender.is_connected, PATIENCE)
        for value in range(2, 100):
            sender.bus.twitter("oven:heat", value)
        sender.bus.forget("oven:door")
        server.start()
        await until(lambda: other.retained == {"heat": 99}, PATIENCE)
        assert await sender.node.drain(PATIENCE)
        async with running(late):
            late.follow()
            await until(lambda: late.values == [99], PATIENCE)
            assert late.retained == {"heat": 99}


async def test_a_server_that_has_lost_everything(start_nats: StartNats, until: Until) -> None:
    server = start_nats(jetstream=True)
    sender, late = Place(server), Place(server)
    async with running(sender):
        sender.bus.retain("oven:*")
        for number in range(20):
            sender.bus.twitter(f"oven:n{number}", number)
        assert await sender.node.drain(PATIENCE)
        server.kill()
        await until(lambda: not sender.is_connected, PATIENCE)
        shutil.rmtree(server.folder / "jetstream")
        server.start()
        await until(lambda: sender.is_connected, PATIENCE)
        async with running(late):
            late.follow()
            await until(lambda: sorted(late.values) == list(range(20)), PATIENCE)


async def test_jetstream_that_is_switched_on_later(start_nats: StartNats, until: Until) -> None:
    server = start_nats()
    sender, late = Place(server), Place(server)
    async with running(sender):
        sender.bus.retain("oven:*")
        sender.bus.twitter("oven:heat", 1)
        assert await sender.node.drain(PATIENCE)
        server.kill()
        server._arguments += ["--jetstream", "--store_dir", str(server.folder / "jetstream")]
        await until(lambda: not sender.is_connected, PATIENCE)
        server.start()
        await until(lambda: sender.is_connected, PATIENCE)
        async with running(late):
            late.follow()
            await until(lambda: late.values == [1], PATIENCE)


async def test_a_frozen_server(start_nats: StartNats, until: Until) -> None:
    server = start_nats(jetstream=True)
    sender, late = Place(server), Place(server)
    async with running(sender):
        sender.bus.retain("oven:*")
        sender.bus.twitter("oven:heat", 1)
        assert await sender.node.drain(PATIENCE)
        server.signal(signal.SIGSTOP)
        sender.bus.twitter("oven:heat", 2)
        await until(lambda: not sender.is_connected, PATIENCE)
        server.signal(signal.SIGCONT)
        async with running(late):
            late.follow()
            await until(lambda: late.values and late.values[-1] == 2, PATIENCE)
            assert late.values in ([2], [1, 2])


async def test_one_of_several_servers_is_killed(start_nats: StartNats, until: Until) -> None:
    """With three replicas, any server has what is retained."""
    servers = start_cluster(start_nats)
    durable = Durable(replicas=3, max_bytes=1 << 20)
    sender, late = Place(*servers[:2], durable=durable), Place(*servers[1:])
    async with running(sender):
        sender.bus.retain("oven:*")
        sender.bus.twitter("oven:heat", 1)
        assert await sender.node.drain(PATIENCE)
        servers[0].kill()
        sender.bus.twitter("oven:heat", 2)
        async with running(late):
            late.follow()
            await until(lambda: late.values and late.values[-1] == 2, PATIENCE)
            assert late.values in ([2], [1, 2])
            sender.bus.forget("oven:*")
            await until(lambda: late.retained == {}, PATIENCE)


def start_cluster(start_nats: StartNats) -> list[NatsServer]:
    """Three servers with JetStream, each with routes to all others."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
    return [
        start_nats(
            f"server_name: s{number}\n"
            f"cluster {{ name: c, listen: '127.0.0.1:{port}', routes: [{routes}] }}\n",
            jetstream=True,
        )
        for number, port in enumerate(ports)
    ]
