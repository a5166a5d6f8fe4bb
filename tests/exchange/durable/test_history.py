"""What durable queues keep, read from a time or a number on, and left where it is."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

pytest.importorskip("nats", reason="NATS needs nats-py")

from clustered import PATIENCE

from berrymq_rpc import rpc
from berrymq_rpc.bus import AsyncQueue, Bus
from berrymq_rpc.errors import NotFoundError
from berrymq_rpc.exchange import DurableHistory, KeptMessage, Node
from berrymq_rpc.testing.nats_server import NatsServer


async def read(history: DurableHistory) -> list[Any]:
    return [message.args[0] async for message in history]


async def test_history(nats_server: NatsServer, namespace: str) -> None:
    bus = Bus()
    durable = rpc.Durable(keep=timedelta(hours=1))
    options: dict[str, Any] = {"cluster": nats_server.url, "namespace": namespace}
    async with Node(None, bus, name="oven", durable=durable, **options) as node:
        with pytest.raises(NotFoundError, match="no durable queue"):
            await read(node.durable_history(1))
        queue = AsyncQueue("job:*", durable="workers", bus=bus)
        await queue.ready()
        assert await read(node.durable_history(1)) == []
        for number in range(5):
            await bus.publish("job:new", number, of=namespace)
        history = node.durable_history(1)
        kept = [message async for message in history]
        assert all(isinstance(each, KeptMessage) for each in kept)
        assert [each.sequence for each in kept] == [1, 2, 3, 4, 5]
        assert {(each.id, each.origin) for each in kept} == {("job:new", "oven")}
        assert kept[0].kwargs == {"of": namespace}
        # A further loop goes on.
        assert await read(history) == []
        await bus.publish("job:new", 5)
        assert await read(history) == [5]
        # From each of the times on.
        for place, message in enumerate(kept):
            assert await read(node.durable_history(message.time)) == list(range(place, 6))
        assert await read(node.durable_history(datetime(2020, 1, 1, tzinfo=UTC))) == list(range(6))
        assert await read(node.durable_history(datetime.now(UTC) + timedelta(days=1))) == []
        assert await read(node.durable_history(99)) == []
        # The queue has all of them.
        for number in range(6):
            async with queue.get(timeout=PATIENCE) as got:
                assert got.args == (number,)
    # So has another node, after they were acknowledged.
    async with Node(None, Bus(), **options) as other:
        assert await read(other.durable_history(3)) == [2, 3, 4, 5]


async def test_what_is_kept_no_more(nats_server: NatsServer, namespace: str) -> None:
    bus = Bus()
    async with Node(None, bus, cluster=nats_server.url, namespace=namespace) as node:
        queue = AsyncQueue("job:*", durable="workers", bus=bus)
        await queue.ready()
        for number in range(4):
            await bus.publish("job:new", number)
        for _ in range(2):
            message: Any = await queue.get(timeout=PATIENCE)
            await message.ack(confirm=True)
        history = node.durable_history(1)
        assert await read(history) == [2, 3]
        assert history.missing == 2
        history = node.durable_history(datetime(2020, 1, 1, tzinfo=UTC))
        assert await read(history) == [2, 3]
        assert history.missing == 1
        later = node.durable_history(3)
        assert await read(later) == [2, 3]
        assert later.missing == 0


@pytest.mark.parametrize("since", [0, -1, True, 1.5, "1", datetime(2026, 1, 1), None])
async def test_since_is_checked(nats_server: NatsServer, namespace: str, since: Any) -> None:
    async with Node(None, Bus(), cluster=nats_server.url, namespace=namespace) as node:
        with pytest.raises((TypeError, ValueError), match=r"since|time zone|begin with 1"):
            node.durable_history(since)


async def test_without_a_cluster() -> None:
    async with Node("tcp://127.0.0.1:*", Bus()) as node:
        with pytest.raises(ValueError, match="no cluster"):
            node.durable_history(1)
