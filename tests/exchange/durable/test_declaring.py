"""Durable queues: how they are declared, by many at once, and why they cannot be."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from clustered import PATIENCE, clustered, take

from berrymq_rpc.bus import AsyncQueue, Bus
from berrymq_rpc.errors import Error, OverloadedError
from berrymq_rpc.exchange import Node
from berrymq_rpc.nats.options import Durable, Nats
from berrymq_rpc.testing.nats_server import NatsServer

pytest.importorskip("nats", reason="NATS needs nats-py")

from berrymq_rpc.nats.connection import Connection
from berrymq_rpc.nats.jetstream import NANOSECONDS, JetStream


@asynccontextmanager
async def jetstream(server: NatsServer) -> AsyncIterator[JetStream]:
    connection = Connection(Nats(server.url))
    await connection.connect(PATIENCE)
    try:
        yield JetStream(connection, server.url)
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("settings", "kind", "problem"),
    [
        (Durable(replicas=3), Error, "replicas > 1 not supported"),
        (Durable(max_bytes=1 << 60), OverloadedError, "no room for the stream .*max_bytes"),
        (Durable(keep=timedelta(milliseconds=1)), Error, "(?i)max age"),
    ],
)
async def test_a_stream_that_cannot_be_made(
    nats_server: NatsServer, namespace: str, settings: Durable, kind: type[Error], problem: str
) -> None:
    async with clustered(nats_server, namespace, durable=settings) as bus:
        with pytest.raises(kind, match=problem):
            await AsyncQueue("job:*", durable="workers", bus=bus).ready()


async def test_messages_that_are_kept_for_less_than_a_second(
    nats_server: NatsServer, namespace: str
) -> None:
    settings = Durable(keep=timedelta(milliseconds=200))
    async with clustered(nats_server, namespace, durable=settings) as bus:
        queue = AsyncQueue("job:*", durable="workers", bus=bus)
        await queue.ready()
        await bus.publish("job:new", 1, durable=True)
        assert await take(queue, 1) == [1]


async def test_another_stream_has_the_subjects(nats_server: NatsServer, namespace: str) -> None:
    name = f"OTHER_{namespace}"
    async with jetstream(nats_server) as js:
        config = {"name": name, "subjects": [f"berrymq.{namespace}.>"]}
        await js.create_stream(config)
        async with clustered(nats_server, namespace) as bus:
            with pytest.raises(Error, match="subjects overlap with an existing stream"):
                await AsyncQueue("job:*", durable="workers", bus=bus).ready()


async def test_a_consumer_that_something_else_has_made(
    nats_server: NatsServer, namespace: str
) -> None:
    async with clustered(nats_server, namespace) as bus, jetstream(nats_server) as js:
        await AsyncQueue("job:*", durable="workers", bus=bus).ready()
        config = {"durable_name": "theirs", "ack_policy": "explicit"}
        await js.create_consumer(f"BERRYMQ_{namespace}", config)
        with pytest.raises(ValueError, match="'theirs' exists with identifier=None, not 'job:"):
            await AsyncQueue("job:*", durable="theirs", bus=bus).ready()


async def test_many_nodes_declare_at_once(nats_server: NatsServer, namespace: str) -> None:
    identifiers = ["a:x", "a:*", "*:y", "b:x", "c@room:x", "c@room:*", "d:x", "e:x"]
    async with AsyncExitStack() as stack:
        buses = [
            await stack.enter_async_context(clustered(nats_server, namespace)) for _ in identifiers
        ]
        queues = [
            AsyncQueue(identifier, durable=f"q{place}", bus=bus)
            for place, (identifier, bus) in enumerate(zip(identifiers, buses, strict=True))
        ]
        await asyncio.gather(*(queue.ready() for queue in queues))
        for sent in ("a:x", "z:y", "b:x", "c@room:x", "d:x", "e:x"):
            await buses[0].publish(sent, sent, durable=True)
        got = [await take(queue, await queue.size()) for queue in queues]
        # A message in a namespace reaches those who follow without one too.
        assert got == [
            ["a:x"],
            ["a:x"],
            ["z:y"],
            ["b:x"],
            ["c@room:x"],
            ["c@room:x"],
            ["d:x"],
            ["e:x"],
        ]


async def test_one_queue_is_declared_with_two_settings_at_once(
    nats_server: NatsServer, namespace: str
) -> None:
    async with (
        clustered(nats_server, namespace) as bus,
        clustered(nats_server, namespace) as other,
    ):
        queues = [
            AsyncQueue("job:*", durable="workers", tries=tries, bus=each)
            for tries, each in ((3, bus), (4, other), (3, other), (4, bus))
        ]
        ready = await asyncio.gather(*(q.ready() for q in queues), return_exceptions=True)
        failed = [error for error in ready if error is not None]
        assert len(failed) == 2
        for error in failed:
            assert isinstance(error, ValueError)
            assert "tries=" in str(error)


async def test_a_bus_whose_node_has_no_cluster() -> None:
    bus = Bus()
    async with Node("mem://no-cluster", bus):
        with pytest.raises(ValueError, match="cluster"):
            AsyncQueue("job:*", durable="workers", bus=bus)


@pytest.mark.parametrize("name", ["a b", "", "a.b", "ü", "x" * 65, "a*", "a/b", ">"])
async def test_invalid_names(nats_server: NatsServer, namespace: str, name: Any) -> None:
    async with clustered(nats_server, namespace) as bus:
        with pytest.raises(ValueError, match="durable queue"):
            AsyncQueue("job:*", durable=name, bus=bus)


async def test_names_at_their_bounds(nats_server: NatsServer, namespace: str) -> None:
    async with clustered(nats_server, namespace) as bus:
        for name in ("x" * 64, "a", "A-_9"):
            queue = AsyncQueue("job:*", durable=name, bus=bus)
            await queue.ready()
            assert await queue.delete()
        with pytest.raises(TypeError, match="durable queue"):
            AsyncQueue("job:*", durable=7, bus=bus)  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", ["_DEAD", "_LATER"])
async def test_a_namespace_whose_stream_is_that_of_another(
    nats_server: NatsServer, namespace: str, suffix: str
) -> None:
    async with clustered(nats_server, namespace + suffix) as bus:
        with pytest.raises(ValueError, match=suffix):
            AsyncQueue("job:*", durable="workers", bus=bus)


@pytest.mark.parametrize(
    ("options", "kind", "problem"),
    [
        ({"tries": 1.5}, ValueError, "tries"),
        ({"tries": True}, ValueError, "tries"),
        ({"tries": None}, ValueError, "tries"),
        ({"ack_wait": None}, ValueError, "ack_wait"),
        ({"ack_wait": "30"}, ValueError, "ack_wait"),
        ({"ack_wait": float("nan")}, ValueError, "ack_wait"),
        ({"ack_wait": -1}, ValueError, "ack_wait"),
        ({"since": 5}, TypeError, "since is a datetime"),
        ({"since": "2026-01-01"}, TypeError, "since is a datetime"),
    ],
)
async def test_invalid_settings(
    nats_server: NatsServer,
    namespace: str,
    options: dict[str, Any],
    kind: type[Exception],
    problem: str,
) -> None:
    async with clustered(nats_server, namespace) as bus:
        with pytest.raises(kind, match=problem):
            AsyncQueue("job:*", durable="workers", bus=bus, **options)


@pytest.mark.parametrize("ack_wait", [0.01, 86_400.0, 1e12, float("inf")])
async def test_ack_wait_at_its_bounds(
    nats_server: NatsServer, namespace: str, ack_wait: float
) -> None:
    async with clustered(nats_server, namespace) as bus:
        queue = AsyncQueue("job:*", durable="workers", ack_wait=ack_wait, bus=bus)
        await queue.ready()
        # A day is the most, whatever more was given.
        async with jetstream(nats_server) as js:
            info = await js.consumer(f"BERRYMQ_{namespace}", "workers")
        assert info is not None
        assert info["config"]["ack_wait"] == min(ack_wait, 86_400) * NANOSECONDS
        await AsyncQueue("job:*", durable="workers", ack_wait=ack_wait, bus=bus).ready()
