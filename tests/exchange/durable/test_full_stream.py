"""A stream that is full of batches, which `twitter` has sent: there is no room to split them up."""

import asyncio

import pytest
from clustered import PATIENCE, clustered, emptied

from berrymq_rpc.bus import AsyncQueue, Bus, Empty
from berrymq_rpc.errors import OverloadedError
from berrymq_rpc.nats.options import Durable
from berrymq_rpc.testing.nats_server import NatsServer

pytest.importorskip("nats", reason="NATS needs nats-py")

#: Messages of a batch, and batches.
COUNT = 10


async def fill(bus: Bus, queue: AsyncQueue) -> list[tuple[int, int]]:
    """Send batches until there is no room for one more, nor for a message; what there was for."""
    await queue.ready()
    batch = size = 0
    while batch == size:
        for number in range(COUNT):
            bus.twitter("job:new", batch, number, "x" * 100)
        batch += 1
        for _ in range(100):
            size = await queue.size()
            if size == batch:
                break
            await asyncio.sleep(0.005)
    for length in range(1000, 0, -40):
        with pytest.raises(OverloadedError):
            while True:
                await bus.publish("other:x", "y" * length)
    return [(b, n) for b in range(size) for n in range(COUNT)]


async def test_its_messages_are_delivered(nats_server: NatsServer, namespace: str) -> None:
    async with clustered(nats_server, namespace, durable=Durable(max_bytes=30_000)) as bus:
        filler = AsyncQueue("other:*", durable="filler", bus=bus)
        await filler.ready()
        queue = AsyncQueue("job:*", durable="workers", bus=bus)
        sent = await fill(bus, queue)
        assert len(sent) > 100
        taken = []
        for _ in range(3):
            message = await queue.get(timeout=PATIENCE)
            taken.append(message.args[:2])
            await message.ack()
        # The whole batch comes again, and what was acknowledged with it.
        await (await queue.get(timeout=PATIENCE)).nak()
        with pytest.raises(Empty):
            while True:
                message = await queue.get(timeout=1.0)
                taken.append(message.args[:2])
                await message.ack()
        assert set(taken) == set(sent)
        assert len(taken) <= len(sent) + COUNT
        await emptied(queue)
