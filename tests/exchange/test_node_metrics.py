"""What a node counts, of its bus and of its calls, with one meter."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from berrymq_rpc import Bus, Node, SyncNode, rpc

PATIENCE = 10.0


async def until(check: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not check():
            await asyncio.sleep(0.001)


async def test_messages_between_nodes_are_counted_at_both() -> None:
    here, there = Bus(), Bus()
    there.regist_function("oven:*", lambda message: None)
    async with (
        Node("tcp://127.0.0.1:*", there, metrics=True) as receiver,
        Node(None, here, metrics=True) as sender,
    ):
        await sender.interconnect(receiver.endpoints[0])
        here.twitter("oven:log", 1)
        await until(lambda: receiver.statistics()["messages_relayed"])
        assert receiver.statistics()["messages_relayed"] == 1
        assert sender.statistics()["messages_published"] == 1
        assert receiver.metrics is there.metrics
        assert sender.metrics is here.metrics
        assert sender.metrics is not None
        assert receiver.metrics is not None
        assert sender.metrics.snapshot()["messages"]["oven:log"]["published"] == 1
        assert receiver.metrics.snapshot()["messages"]["oven:log"]["relayed"] == 1
        # The nodes' own calls.
        assert sender.metrics.snapshot()["made"]
        assert receiver.metrics.snapshot()["served"]


async def test_nodes_of_a_bus_share_its_meter() -> None:
    bus = Bus(metrics=True)
    async with Node(None, bus, metrics=True) as first, Node(None, bus, metrics=True) as second:
        assert first.metrics is second.metrics is bus.metrics
        await until(lambda: first.metrics is not None and first.metrics.loop_delay.count)


async def test_a_node_with_a_meter_gives_it_to_its_bus() -> None:
    bus, meter = Bus(), rpc.Meter()
    async with Node(None, bus, metrics=meter) as node:
        assert node.metrics is bus.metrics is meter


async def test_measuring_begins_later() -> None:
    here, there = Bus(), Bus()
    async with Node("tcp://127.0.0.1:*", there) as receiver, Node(None, here) as sender:
        assert receiver.metrics is None
        assert "calls_ok" not in receiver.statistics()
        connection = await sender.connect_oneway(receiver.endpoints[0])
        meters = [node.measure() for node in (receiver, sender)]
        assert [node.measure() for node in (receiver, sender)] == meters
        await connection.send_message("oven:log", 1)
        assert receiver.statistics()["messages_relayed"] == 1
        assert sum(figures["ok"] for figures in meters[0].snapshot()["served"].values())
        assert sum(figures["ok"] for figures in meters[1].snapshot()["made"].values())


async def test_a_node_has_the_counts_of_its_server() -> None:
    class Calc(rpc.AttrHandler):
        @rpc.method
        def add(self, a: int, b: int) -> int:
            return a + b

    async with (
        Node("tcp://127.0.0.1:*", Bus(), Calc(), metrics=True) as node,
        await rpc.open_client(connect=node.endpoints[0]) as client,
    ):
        assert await client.rpc.add(1, 2) == 3
        counts = node.statistics()
        assert counts["peers"] == 1
        assert counts["calls"] == counts["calls_ok"] == 1


def test_a_sync_node_counts() -> None:
    with SyncNode(Bus(), metrics=True) as node:
        assert node.metrics is None
        node.init_connection(("127.0.0.1", 0))
        assert node.metrics is not None
        assert node.statistics()["messages_published"] == 0


def test_metrics_are_true_or_a_meter() -> None:
    wrong: Any = "yes"
    with pytest.raises(TypeError, match="metrics must be"):
        Node(None, Bus(), metrics=wrong)
