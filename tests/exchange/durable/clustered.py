"""Helpers for tests of durable queues: a bus in a cluster, and messages that are taken."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from berrymq_rpc.bus import AsyncQueue, Bus
from berrymq_rpc.exchange import Node
from berrymq_rpc.testing.nats_server import NatsServer

#: Seconds in which what has to happen happens.
PATIENCE = 10.0


@asynccontextmanager
async def clustered(server: NatsServer, namespace: str, **options: Any) -> AsyncIterator[Bus]:
    """The bus of a node in a cluster."""
    bus = Bus()
    async with Node(None, bus, cluster=server.url, namespace=namespace, **options):
        yield bus


async def take(queue: AsyncQueue, count: int) -> list[Any]:
    """Take and acknowledge so many messages; their first arguments."""
    taken = []
    for _ in range(count):
        async with queue.get(timeout=PATIENCE) as message:
            taken.append(message.args[0])
    return taken


async def emptied(queue: AsyncQueue) -> None:
    """Wait until JetStream knows that all is done: nobody waits for what it is told of that."""
    async with asyncio.timeout(PATIENCE):
        while await queue.size():
            await asyncio.sleep(0.01)
