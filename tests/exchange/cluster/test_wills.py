"""Wills in a cluster: a few nodes hold each, and one word of them is enough."""

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from berrymq_rpc import Bus, Node
from berrymq_rpc.exchange.cluster.watch import HOLDERS
from berrymq_rpc.testing.nats_server import NatsServer
from berrymq_rpc.testing.tcp_proxy import TcpProxy

from ..sensors import LIMITS, PATIENCE, Place, Sensor

pytest.importorskip("nats", reason="NATS needs nats-py")

Until = Callable[..., Any]
StartNats = Callable[..., NatsServer]

_numbers = itertools.count()


class Site:
    """Nodes of a cluster in this process, and sensors in others."""

    def __init__(self, stack: AsyncExitStack, url: str) -> None:
        self.stack = stack
        self.url = url
        self.namespace = f"wills-{next(_numbers)}"

    async def place(self, *peers: Place, is_in: bool = True, **options: Any) -> Place:
        bus = Bus()
        if is_in:
            options |= {"cluster": self.url, "namespace": self.namespace}
        node = Node("tcp://127.0.0.1:0", bus, limits=LIMITS, **options)
        await self.stack.enter_async_context(node)
        for peer in peers:
            await node.interconnect(peer.endpoint)
        place = Place(node, bus)
        assert await node.settle(PATIENCE)
        return place

    async def sensor(self, delay: float, *places: Place, url: str = "") -> Sensor:
        endpoints = [place.endpoint for place in places]
        sensor = Sensor("01", delay, url or self.url, *endpoints, namespace=self.namespace)
        self.stack.callback(sensor.end)
        await sensor.ready()
        return sensor


@asynccontextmanager
async def site_at(server: NatsServer) -> AsyncIterator[Site]:
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        yield Site(stack, server.url)


async def test_a_killed_node(nats_server: NatsServer, until: Until) -> None:
    """Each node that follows it hears it once, though several hold it."""
    async with site_at(nats_server) as site:
        places = [await site.place() for _ in range(4)]
        sensor = await site.sensor(0.6)
        await until(lambda: held(places) == HOLDERS, PATIENCE)
        sensor.signal(signal.SIGKILL)
        await until(lambda: all(place.wills for place in places), PATIENCE)
        await until(lambda: published(places) == HOLDERS or held(places) == 0, PATIENCE)
        for place in places:
            place.bus.twitter("sensor:value", "later")
        await until(lambda: all(place.values.count("later") == 4 for place in places), PATIENCE)
        for place in places:
            assert place.values[:4] == [0, 1, 2, "gone"]
            assert place.wills == 1
            assert place.heard[3].origin == "oven 3"


async def test_a_frozen_node_that_thaws_too_late(nats_server: NatsServer, until: Until) -> None:
    async with site_at(nats_server) as site:
        places = [await site.place() for _ in range(2)]
        sensor = await site.sensor(0.3)
        sensor.signal(signal.SIGSTOP)
        await until(lambda: all(place.wills == 1 for place in places), PATIENCE)
        await until(lambda: held(places) == 0, PATIENCE)
        sensor.signal(signal.SIGCONT)
        sensor.say("back")
        await until(lambda: all(place.values[-1] == "back" for place in places), PATIENCE)
        # It looks for somebody again.
        await until(lambda: held(places) == 2, PATIENCE)
        sensor.signal(signal.SIGKILL)
        await until(lambda: all(place.wills == 2 for place in places), PATIENCE)
        await until(lambda: held(places) == 0, PATIENCE)
        for place in places:
            assert place.values == [0, 1, 2, "gone", "back", "gone"]
            assert place.node.statistics()["messages_missed"] == 0


async def test_a_clean_close_and_a_thaw_in_time(nats_server: NatsServer, until: Until) -> None:
    async with site_at(nats_server) as site:
        place = await site.place()
        sensor = await site.sensor(3.0)
        sensor.signal(signal.SIGSTOP)
        await until(lambda: place.node.handler.mesh.wills.table.next_due() is not None, PATIENCE)
        sensor.signal(signal.SIGCONT)
        sensor.say("still here")
        await until(lambda: "still here" in place.values, PATIENCE)
        await until(lambda: held([place]) == 1, PATIENCE)
        await until(lambda: place.node.handler.mesh.wills.table.next_due() is None, PATIENCE)
        await sensor.close()
        await until(lambda: held([place]) == 0, PATIENCE)
        await asyncio.sleep(1.0)
        assert place.values == [0, 1, 2, "still here"]


async def test_a_holder_that_is_lost_is_replaced(nats_server: NatsServer, until: Until) -> None:
    async with site_at(nats_server) as site:
        place = await site.place()
        sensor = await site.sensor(0.3)
        assert held([place]) == 1
        await place.node.close()
        other = await site.place()
        await until(lambda: held([other]) == 1, PATIENCE)
        sensor.signal(signal.SIGKILL)
        await until(lambda: other.wills == 1, PATIENCE)


async def test_a_restarted_nats_server(start_nats: StartNats, until: Until) -> None:
    """Nobody is lost, as all are: the time runs when those who hold a will have a link again."""
    server = start_nats()
    async with site_at(server) as site:
        places = [await site.place() for _ in range(2)]
        sensor = await site.sensor(0.0)
        await until(lambda: held(places) == 2, PATIENCE)
        server.kill()
        await until(lambda: not any(connected(place) for place in places), PATIENCE)
        await asyncio.sleep(1.5)
        server.start()
        await until(lambda: all(connected(place) for place in places), PATIENCE)
        sensor.say("still here")
        await until(lambda: all("still here" in place.values for place in places), PATIENCE)
        await asyncio.sleep(2.0)
        assert [place.wills for place in places] == [0, 0]
        await until(lambda: held(places) == 2, PATIENCE)
        sensor.signal(signal.SIGKILL)
        await until(lambda: all(place.wills == 1 for place in places), PATIENCE)


async def test_a_node_that_is_cut_off_from_nats(start_nats: StartNats, until: Until) -> None:
    server = start_nats()
    async with site_at(server) as site:
        place = await site.place()
        proxy = TcpProxy("127.0.0.1", int(server.url.rpartition(":")[2]))
        await proxy.start()
        site.stack.push_async_callback(proxy.aclose)
        url = f"nats://127.0.0.1:{proxy.endpoint.rpartition(':')[2]}"
        sensor = await site.sensor(0.3, url=url)
        proxy.cut()
        await until(lambda: place.wills == 1, PATIENCE)
        sensor.say("while away")
        proxy.restore()
        await until(lambda: "while away" in place.values, PATIENCE)
        await until(lambda: held([place]) == 1, PATIENCE)
        sensor.signal(signal.SIGKILL)
        await until(lambda: place.wills == 2, PATIENCE)
        assert place.values == [0, 1, 2, "gone", "while away", "gone"]


async def test_gateways(nats_server: NatsServer, until: Until) -> None:
    """A node behind two gateways is lost: those in the cluster and those outside hear it once."""
    async with site_at(nats_server) as site:
        outside = await site.place(is_in=False)
        gateways = [await site.place(outside) for _ in range(2)]
        inside = await site.place()
        sensor = Sensor("01", 0.3, outside.endpoint, gateways[0].endpoint)
        site.stack.callback(sensor.end)
        await sensor.ready()
        places = [outside, *gateways, inside]
        await until(lambda: all(place.values == [0, 1, 2] for place in places), PATIENCE)
        sensor.signal(signal.SIGKILL)
        await until(lambda: all(place.wills for place in places), PATIENCE)
        for place in places:
            place.bus.twitter("sensor:value", "later")
        await until(lambda: all(place.values.count("later") == 4 for place in places), PATIENCE)
        assert [place.wills for place in places] == [1, 1, 1, 1]


async def test_a_way_beside_the_cluster(start_nats: StartNats, until: Until) -> None:
    """A node that is cut off from NATS is reached by its link, and the other way round."""
    server = start_nats()
    async with site_at(server) as site:
        gateway = await site.place()
        inside = await site.place()
        proxy = TcpProxy("127.0.0.1", int(server.url.rpartition(":")[2]))
        await proxy.start()
        site.stack.push_async_callback(proxy.aclose)
        url = f"nats://127.0.0.1:{proxy.endpoint.rpartition(':')[2]}"
        sensor = await site.sensor(0.3, gateway, url=url)
        await until(lambda: held([inside]) == 1, PATIENCE)
        proxy.cut()
        await until(lambda: held([inside]) == 0, PATIENCE)
        await asyncio.sleep(1.0)
        assert gateway.wills == inside.wills == 0
        sensor.signal(signal.SIGKILL)
        await until(lambda: gateway.wills == inside.wills == 1, PATIENCE)


def held(places: list[Place]) -> int:
    """How many of them hold a will."""
    return sum(place.node.statistics()["wills_held"] for place in places)


def published(places: list[Place]) -> int:
    return sum(place.node.statistics()["wills_published"] for place in places)


def connected(place: Place) -> int:
    return place.node.statistics()["cluster_connected"]
