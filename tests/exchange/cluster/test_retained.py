"""What is retained in a cluster: nodes that come later hear it, though its sender is gone."""

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from berrymq_rpc import Bus, Message, Node, Queue, SyncNode
from berrymq_rpc.exchange.cluster.bucket import RetainedBucket
from berrymq_rpc.nats.options import Durable
from berrymq_rpc.testing.nats_server import NatsServer

pytest.importorskip("nats", reason="NATS needs nats-py")

Until = Callable[..., Any]
StartNats = Callable[..., NatsServer]

PATIENCE = 15.0

_numbers = itertools.count()


class Place:
    """A node, and what its bus has heard."""

    def __init__(self, node: Node, bus: Bus) -> None:
        self.node = node
        self.bus = bus
        self.heard: list[Message] = []

    def follow(self, identifier: str = "oven:*") -> None:
        self.bus.regist_function(identifier, self.heard.append)

    @property
    def values(self) -> list[Any]:
        """The action, the value and whether it is a retained one, of each message."""
        return [(m.action, m.args[0], m.retained) for m in self.heard]

    @property
    def last(self) -> Any:
        return self.heard[-1].args[0] if self.heard else None

    def retained(self) -> dict[str, Any]:
        return {message.action: message.args[0] for message in self.bus.retained("oven:*")}


class Site:
    """Nodes of one namespace."""

    def __init__(self, stack: AsyncExitStack, url: str) -> None:
        self.stack = stack
        self.url = url
        self.namespace = f"retained-{next(_numbers)}"

    async def place(self, *peers: Place, is_in: bool = True, **options: Any) -> Place:
        bus = options.pop("bus", None) or Bus()
        if is_in:
            options |= {"cluster": self.url, "namespace": self.namespace}
        node = Node("tcp://127.0.0.1:0", bus, **options)
        await self.stack.enter_async_context(node)
        for peer in peers:
            await node.interconnect(peer.node.endpoints[0])
        assert await node.settle(PATIENCE)
        return Place(node, bus)

    async def sender(self, **options: Any) -> Place:
        """A node whose bus retains what ovens send."""
        place = await self.place(**options)
        place.bus.retain("oven:*")
        return place


@asynccontextmanager
async def site_at(server: NatsServer) -> AsyncIterator[Site]:
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        yield Site(stack, server.url)


async def test_a_late_node_hears_it_though_the_sender_is_gone(
    nats_server: NatsServer, until: Until
) -> None:
    async with site_at(nats_server) as site:
        sender = await site.sender()
        for value in range(100):
            sender.bus.twitter("oven:heat", value)
        sender.bus.twitter("oven:door", "open", b"x" * 20_000, why="draught")
        sender.bus.twitter("fridge:door", "shut")
        assert await sender.node.drain(PATIENCE)
        await sender.node.close()
        late = await site.place()
        late.follow()
        await until(lambda: len(late.heard) == 2, PATIENCE)
        assert sorted(late.values) == [("door", "open", True), ("heat", 99, True)]
        (door,) = [message for message in late.heard if message.action == "door"]
        assert door.args[1] == b"x" * 20_000
        assert door.kwargs == {"why": "draught"}
        assert door.origin == sender.node.name
        # What is followed later in the same node, too, and by others in it at once.
        late.follow("oven:heat")
        await until(lambda: len(late.heard) == 3, PATIENCE)
        assert late.retained() == {"door": "open", "heat": 99}


async def test_who_follows_hears_each_once(nats_server: NatsServer, until: Until) -> None:
    async with site_at(nats_server) as site:
        sender = await site.sender()
        other = await site.place()
        other.follow()
        assert await other.node.settle(PATIENCE)
        for value in range(200):
            sender.bus.twitter("oven:heat", value)
        assert await sender.node.drain(PATIENCE)
        await until(lambda: other.last == 199, PATIENCE)
        # It is read anew, and is not news.
        other.follow("*:heat")
        other.bus.regist_function("oven:heat", lambda message: None)
        late = await site.place()
        late.follow()
        await until(lambda: late.last == 199, PATIENCE)
        assert other.values[:200] == [("heat", value, False) for value in range(200)]
        assert [value for value in other.values[200:] if value != ("heat", 199, True)] == []


async def test_never_an_older_value_after_a_newer_one(
    nats_server: NatsServer, until: Until
) -> None:
    async with site_at(nats_server) as site:
        sender = await site.sender()
        late = [await site.place() for _ in range(3)]

        async def send() -> None:
            for value in range(2_000):
                sender.bus.twitter("oven:heat", value)
                if value % 20 == 0:
                    await asyncio.sleep(0.001)

        sending = asyncio.create_task(send())
        for place in late:
            await asyncio.sleep(0.02)
            place.follow()
        await sending
        await until(lambda: all(place.last == 1_999 for place in late), PATIENCE)
        for place in late:
            values = [message.args[0] for message in place.heard]
            assert values == sorted(set(values))


async def test_who_follows_much(nats_server: NatsServer, until: Until) -> None:
    async with site_at(nats_server) as site:
        sender = await site.sender()
        for number in range(300):
            sender.bus.twitter(f"oven:n{number}", number)
        assert await sender.node.drain(PATIENCE)
        late = await site.place()
        for number in range(300):
            late.follow(f"oven:n{number}")
        late.follow("*:n1")
        await until(lambda: len(late.retained()) == 300, PATIENCE)
        await until(lambda: len(late.heard) >= 300, PATIENCE)
        assert sorted({message.args[0] for message in late.heard}) == list(range(300))


@pytest.mark.parametrize("seconds", [0.5, 1.5])
async def test_who_follows_between_sending_and_storing(
    nats_server: NatsServer,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
) -> None:
    async with site_at(nats_server) as site:
        sender = await site.sender()
        late = await site.place()
        put, is_sent = RetainedBucket.put, asyncio.Event()

        async def put_slowly(*args: Any) -> int | None:
            is_sent.set()
            await asyncio.sleep(seconds)
            return await put(*args)

        monkeypatch.setattr(RetainedBucket, "put", put_slowly)
        sender.bus.twitter("oven:heat", 1)
        await is_sent.wait()
        late.follow()
        await until(lambda: late.heard, PATIENCE)
        assert late.values == [("heat", 1, True)]


async def test_two_senders_of_one_identifier(nats_server: NatsServer, until: Until) -> None:
    """The bucket ends with the value that all buses have, whoever stored last."""
    async with site_at(nats_server) as site:
        one, two = await site.sender(), await site.sender()
        one.follow()
        two.follow()
        for value in range(100):
            one.bus.twitter("oven:heat", ("one", value))
            two.bus.twitter("oven:heat", ("two", value))
            await asyncio.sleep(0)
        assert await one.node.drain(PATIENCE)
        assert await two.node.drain(PATIENCE)
        await until(lambda: one.retained() == two.retained(), PATIENCE)
        late = await site.place()
        late.follow()
        await until(lambda: late.retained() == one.retained() == two.retained(), PATIENCE)


async def test_what_is_malformed_in_the_bucket(nats_server: NatsServer, until: Until) -> None:
    """Readers count it, and the next message takes its place."""
    async with site_at(nats_server) as site:
        sender = await site.sender()
        sender.bus.twitter("oven:heat", 1)
        assert await sender.node.drain(PATIENCE)
        cluster = sender.node._cluster
        assert cluster is not None
        subjects = [f"berrymq-retained.{site.namespace}.message.oven.{n}" for n in ("heat", "door")]
        subjects.append(f"berrymq-retained.{site.namespace}.forgotten.oven.heat")
        for subject in subjects:
            for headers in ({}, {"Berrymq-Retained": "9.9.9"}, {"Berrymq-Retained": "1.1"}):
                await cluster.queues.js.publish(subject, b"\xff", headers)
        late = await site.place()
        late.follow()
        await until(lambda: late.node.statistics()["messages_malformed"] == 3, PATIENCE)
        sender.bus.twitter("oven:heat", 2)
        sender.bus.twitter("oven:door", 3)
        assert await sender.node.drain(PATIENCE)
        last = await site.place()
        last.follow()
        await until(lambda: last.retained() == {"heat": 2, "door": 3}, PATIENCE)


async def test_what_is_newer_than_what_was_forgotten(nats_server: NatsServer, until: Until) -> None:
    """It may be deleted with the older ones, and is stored again."""
    async with site_at(nats_server) as site:
        sender = await site.sender()
        sender.bus.twitter("oven:heat", 1)
        assert await sender.node.drain(PATIENCE)
        cluster = (await site.place()).node._cluster
        assert cluster is not None
        js, stream = cluster.queues.js, f"BERRYMQ_{site.namespace}_RETAINED"
        subject = f"berrymq-retained.{site.namespace}.forgotten.oven.%2A"
        # Another node, with an older clock.
        ack = await js.publish(subject, b"oven:*", {"Berrymq-Retained": "1000.1"})
        await js.purge(stream, f"berrymq-retained.{site.namespace}.message.>", ack.sequence)
        await until(lambda: sender.node.statistics()["cluster_retained_waiting"] == 0, PATIENCE)
        late = await site.place()
        late.follow()
        await until(lambda: late.retained() == {"heat": 1}, PATIENCE)


@pytest.mark.parametrize("forgotten", ["oven:heat", "oven:*", "*:*", "oven@*:heat"])
async def test_forget_reaches_those_here_and_those_away(
    nats_server: NatsServer, until: Until, forgotten: str
) -> None:
    async with site_at(nats_server) as site:
        sender, other = await site.sender(), await site.place()
        other.follow()
        assert await other.node.settle(PATIENCE)
        away = Bus()
        place = await site.place(bus=away)
        place.follow()
        sender.bus.twitter("oven:heat", 1)
        await until(lambda: place.retained() == other.retained() == {"heat": 1}, PATIENCE)
        assert await sender.node.drain(PATIENCE)
        await place.node.close()
        sender.bus.forget(forgotten)
        await until(lambda: other.retained() == {}, PATIENCE)
        assert await sender.node.drain(PATIENCE)
        # It has what was forgotten, and comes back.
        assert place.retained() == {"heat": 1}
        back = await site.place(bus=away)
        back.follow("oven:*")
        await until(lambda: back.retained() == {}, PATIENCE)
        late = await site.place()
        late.follow()
        sender.bus.twitter("oven:heat", 2)
        await until(lambda: late.last == 2, PATIENCE)
        assert [value for _, value, _ in late.values] == [2]
        await until(lambda: back.retained() == {"heat": 2}, PATIENCE)


async def test_without_jetstream(
    start_nats: StartNats, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    server = start_nats()
    with caplog.at_level(logging.WARNING, "berrymq_rpc"):
        async with site_at(server) as site:
            sender, other = await site.sender(), await site.place()
            other.follow()
            assert await other.node.settle(PATIENCE)
            for value in range(10):
                sender.bus.twitter("oven:heat", value)
                assert await sender.node.drain(PATIENCE)
            await until(lambda: other.last == 9, PATIENCE)
            sender.bus.forget("oven:*")
            assert await sender.node.drain(PATIENCE)
    texts = [record.getMessage() for record in caplog.records]
    (text,) = [text for text in texts if "retained" in text]
    assert "JetStream is not enabled" in text


async def test_gateways(nats_server: NatsServer, until: Until) -> None:
    """What is retained passes two gateways both ways, and goes round no circle."""
    async with site_at(nats_server) as site:
        outside = await site.place(is_in=False)
        outside.bus.retain("oven:*")
        outside.bus.twitter("oven:outside", 1)
        inside = await site.sender()
        inside.follow()
        inside.bus.twitter("oven:inside", 1)
        assert await inside.node.drain(PATIENCE)
        outside.follow()
        gateways = [await site.place(outside) for _ in range(2)]
        places = [outside, inside, *gateways]
        both = {"outside": 1, "inside": 1}
        await until(lambda: all(place.retained() == both for place in places), PATIENCE)
        for value in range(2, 50):
            outside.bus.twitter("oven:outside", value)
            inside.bus.twitter("oven:inside", value)
        both = {"outside": 49, "inside": 49}
        await until(lambda: all(place.retained() == both for place in places), PATIENCE)
        for place in places:
            assert await place.node.drain(PATIENCE)
        late = await site.place()
        late.follow()
        await until(lambda: late.retained() == both, PATIENCE)
        for place in (outside, inside):
            for action in both:
                values = [m.args[0] for m in place.heard if m.action == action and not m.retained]
                assert values == sorted(set(values))
        outside.bus.forget("oven:outside")
        places.append(late)
        await until(lambda: all(place.retained() == {"inside": 49} for place in places), PATIENCE)
        info = await stream_of(late)
        assert info["state"]["last_seq"] < 400
        before = info["state"]["last_seq"]
        await asyncio.sleep(0.5)
        assert (await stream_of(late))["state"]["last_seq"] == before


async def test_its_settings_and_bounds(nats_server: NatsServer, until: Until) -> None:
    async with site_at(nats_server) as site:
        durable = Durable(keep=timedelta(days=1), max_bytes=100_000)
        sender = await site.sender(durable=durable)
        for number in range(50):
            sender.bus.twitter(f"oven:n{number}", number, b"x" * 5_000)
        assert await sender.node.drain(PATIENCE)
        info = await stream_of(sender)
        assert info["config"]["max_bytes"] == 100_000
        assert info["config"]["max_msgs_per_subject"] == 1
        assert info["state"]["bytes"] <= 100_000
        late = await site.place()
        late.follow()
        await until(lambda: late.heard and "n49" in late.retained(), PATIENCE)
        assert 0 < len(late.heard) < 20


async def test_what_others_may_not_send_and_get(nats_server: NatsServer, until: Until) -> None:
    async with site_at(nats_server) as site:
        sender = await site.sender(allow_receive={"*": ["oven:heat"]})
        other = await site.sender()
        late = await site.place(allow_send={"*": ["oven:heat"]})
        for place, value in ((sender, 1), (other, 2)):
            place.bus.twitter("oven:secret", value)
            place.bus.twitter("oven:heat", value)
            assert await place.node.drain(PATIENCE)
        late.follow()
        await until(lambda: late.retained() == {"heat": 2}, PATIENCE)
        other.bus.forget("oven:secret")
        other.bus.forget("oven:*")
        other.bus.twitter("oven:heat", 3)
        await until(lambda: late.retained() == {"heat": 3}, PATIENCE)
        assert late.node.statistics()["messages_denied"] >= 1


async def test_what_was_retained_before_the_node_joined(
    nats_server: NatsServer, until: Until
) -> None:
    async with site_at(nats_server) as site:
        other = await site.place()
        other.follow()
        assert await other.node.settle(PATIENCE)
        bus = Bus()
        bus.retain("oven:*")
        bus.twitter("oven:heat", 1)
        await site.place(bus=bus)
        await until(lambda: other.values == [("heat", 1, True)], PATIENCE)


def test_threads(nats_server: NatsServer) -> None:
    namespace = f"retained-{next(_numbers)}"
    bus, late = Bus(), Bus()
    with SyncNode(bus, cluster=nats_server.url, namespace=namespace) as node:
        bus.retain("oven:*")
        bus.twitter("oven:heat", 1)
        assert node.drain(PATIENCE)
    node = SyncNode(late, cluster=nats_server.url, namespace=namespace)
    with node, Queue("oven:*", bus=late) as queue:
        message = queue.get(timeout=PATIENCE)
        assert (message.args, message.retained) == ((1,), True)


async def stream_of(place: Place) -> Any:
    """What JetStream says of the bucket."""
    cluster = place.node._cluster
    assert cluster is not None
    info = await cluster.queues.js.stream(f"BERRYMQ_{cluster.namespace}_RETAINED")
    assert info is not None
    return info
