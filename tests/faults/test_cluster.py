"""Nodes of a cluster while the NATS server is frozen, and killed again and again."""

import asyncio
import gc
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from berrymq_rpc.bus import AsyncQueue, Bus, Message
from berrymq_rpc.exchange import Node
from berrymq_rpc.rpc import Limits
from berrymq_rpc.testing.nats_server import NatsServer

pytest.importorskip("nats", reason="NATS needs nats-py")

Until = Callable[..., Any]
StartNats = Callable[..., NatsServer]

PATIENCE = 20.0
HEARTBEAT = 0.5


class Place:
    def __init__(self, server: NatsServer) -> None:
        self.bus = Bus()
        self.heard: list[int] = []
        self.events: list[Message] = []
        self.bus.regist_function("a:*", lambda message: self.heard.append(message.args[0]))
        self.bus.regist_function("connection:*", self.events.append)
        self.node = Node(None, self.bus, cluster=server.url, limits=Limits(heartbeat=HEARTBEAT))

    def count(self, action: str) -> int:
        return sum(event.action == action for event in self.events)


async def test_a_frozen_server(start_nats: StartNats, until: Until) -> None:
    server = start_nats()
    one, other = Place(server), Place(server)
    async with one.node, other.node:
        one.bus.twitter("a:b", 0)
        await until(lambda: other.heard == [0])
        loop = asyncio.get_running_loop()
        began = loop.time()
        server.signal(signal.SIGSTOP)
        one.bus.twitter("a:b", 1)
        await until(lambda: one.count("lost") and other.count("lost"), PATIENCE)
        # Twice the heartbeat, and what a busy machine takes.
        assert loop.time() - began < 4 * HEARTBEAT + 1.0
        one.bus.twitter("a:b", 2)
        server.signal(signal.SIGCONT)
        await until(lambda: one.count("restored") and other.count("restored"), PATIENCE)
        one.bus.twitter("a:b", 3)
        await until(lambda: other.heard[-1:] == [3], PATIENCE)
        # The frozen server may send what it had, or drop it: once each, in order, or reported.
        assert other.heard == sorted(set(other.heard))
        assert other.heard == [0, 1, 2, 3] or other.count("missed")


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts files by /proc")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("restarts", [5, pytest.param(30, marks=pytest.mark.slow)])
async def test_nothing_is_left_by_restarts(
    start_nats: StartNats, until: Until, restarts: int
) -> None:
    server = start_nats(jetstream=True)
    one, other = Place(server), Place(server)
    async with one.node, other.node:
        queue = AsyncQueue("a:*", durable="workers", bus=other.bus)
        await queue.ready()
        sent = 0
        counts: list[tuple[int, int]] = []
        for restart in range(restarts):
            server.kill()
            await until(lambda n=restart: one.count("lost") > n and other.count("lost") > n)
            for _ in range(100):
                one.bus.twitter("a:b", sent)
                sent += 1
            await asyncio.to_thread(server.start)
            await until(
                lambda n=restart: one.count("restored") > n and other.count("restored") > n,
                PATIENCE,
            )
            await one.bus.publish("a:b", sent, durable=True)
            sent += 1
            await until(lambda last=sent - 1: other.heard[-1:] == [last], PATIENCE)
            gc.collect()
            counts.append((open_files(), len(asyncio.all_tasks())))
            assert await one.node.drain(PATIENCE)
            assert one.node.statistics()["cluster_waiting"] == 0
        # A node that was back much earlier than the other may have sent before that had subscribed.
        assert other.heard == sorted(set(other.heard))
        assert len(other.heard) == sent or other.count("missed")
        # From the second time on: the same number of files and tasks, but for one that ends.
        assert max(files for files, _ in counts[1:]) <= counts[1][0] + 2
        assert max(tasks for _, tasks in counts[1:]) <= counts[1][1] + 2
