"""Nodes of a cluster when the network, the NATS server or a node fails."""

import asyncio
import gc
import itertools
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

import pytest

from berrymq_rpc.bus import AsyncQueue, Bus, Message
from berrymq_rpc.exchange import Node
from berrymq_rpc.nats.options import Nats
from berrymq_rpc.rpc import Limits
from berrymq_rpc.testing.nats_server import NatsServer

pytest.importorskip("nats", reason="NATS needs nats-py")

from berrymq_rpc.nats import connection

# Each of these needs servers of its own, and most of them seconds.
pytestmark = pytest.mark.slow

Until = Callable[..., Any]
StartNats = Callable[..., NatsServer]

PATIENCE = 20.0
HEARTBEAT = 0.5


#: Seconds that a busy machine may take longer than is asked for.
SLACK = 1.0


class Place:
    def __init__(self, server: NatsServer | str) -> None:
        self.bus = Bus()
        self.heard: list[int] = []
        self.events: list[Message] = []
        self.bus.regist_function("a:*", lambda message: self.heard.append(message.args[0]))
        self.bus.regist_function("connection:*", self.events.append)
        url = server if isinstance(server, str) else server.url
        self.node = Node(None, self.bus, cluster=url, limits=Limits(heartbeat=HEARTBEAT))

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
        assert loop.time() - began < 2 * HEARTBEAT + SLACK
        one.bus.twitter("a:b", 2)
        server.signal(signal.SIGCONT)
        await until(lambda: one.count("restored") and other.count("restored"), PATIENCE)
        one.bus.twitter("a:b", 3)
        await until(lambda: other.heard[-1:] == [3], PATIENCE)
        # The frozen server may send what it had, or drop it: once each, in order, or reported.
        assert other.heard == sorted(set(other.heard))
        assert other.heard == [0, 1, 2, 3] or other.count("missed")


@pytest.mark.parametrize("how", ["cut", "close", "half-close"])
@pytest.mark.parametrize("which", ["sender", "receiver"])
async def test_a_link_that_fails(
    start_nats: StartNats, link: Any, until: Until, which: str, how: str
) -> None:
    """It is noticed; what was sent meanwhile arrives once and in order, or is told as missed."""
    server = start_nats()
    async with link(f"tcp://127.0.0.1:{server.port}") as line:
        through = line.endpoint.replace("tcp", "nats")
        places = [Place(server), Place(server)]
        behind = Place(through)
        places[which == "receiver"] = behind
        one, other = places
        async with one.node, other.node:
            one.bus.twitter("a:b", 0)
            await until(lambda: other.heard == [0])
            loop = asyncio.get_running_loop()
            began = loop.time()
            match how:
                case "cut":
                    line.cut()
                case "close":
                    line.close()
                case "half-close":
                    line.half_close("down")
            one.bus.twitter("a:b", 1)
            await until(lambda: behind.count("lost"))
            assert loop.time() - began < (2 * HEARTBEAT if how == "cut" else 0.0) + SLACK
            one.bus.twitter("a:b", 2)
            line.restore()
            await until(lambda: behind.count("restored"), PATIENCE)
            one.bus.twitter("a:b", 3)
            await until(lambda: other.heard[-1:] == [3], PATIENCE)
            if which == "sender":
                assert other.heard == [0, 1, 2, 3]
            else:
                assert other.heard == sorted(set(other.heard))
                assert other.heard == [0, 1, 2, 3] or other.count("missed")
            assert places[which == "sender"].count("lost") == 0


async def test_what_is_sent_after_a_link_is_restored_arrives(
    start_nats: StartNats, link: Any, until: Until
) -> None:
    """``connection:restored`` is told when the server knows again what is followed."""
    server = start_nats()
    async with link(f"tcp://127.0.0.1:{server.port}") as line:
        one, other = Place(server), Place(line.endpoint.replace("tcp", "nats"))
        async with one.node, other.node:
            line.close()
            await until(lambda: other.count("lost"))
            line.delay = 0.1
            line.restore()
            await until(lambda: other.count("restored"), PATIENCE)
            one.bus.twitter("a:b", 1)
            await until(lambda: other.heard == [1], PATIENCE)


async def test_a_sender_that_is_frozen_and_killed(
    start_nats: StartNats, until: Until, program: Any
) -> None:
    """Its messages stop, and go on; nobody else notices."""
    server = start_nats()
    other = Place(server)
    async with other.node:
        await other.node.drain(PATIENCE)
        speaker = program("cluster_node.py", server.url, "speaker")
        await until(lambda: other.heard, PATIENCE)
        speaker.send(signal.SIGSTOP)
        # What it had sent has come when the server has answered this.
        await other.node.drain(PATIENCE)
        frozen_at = len(other.heard)
        await asyncio.sleep(3 * HEARTBEAT)
        assert len(other.heard) == frozen_at
        speaker.send(signal.SIGCONT)
        await until(lambda: len(other.heard) > frozen_at + 10, PATIENCE)
        speaker.send(signal.SIGKILL)
        speaker.wait()
        assert other.heard == list(range(len(other.heard)))
        assert other.events == []


async def test_a_receiver_that_is_frozen(start_nats: StartNats, until: Until, program: Any) -> None:
    """What it did not read is sent when it goes on, and the others do not wait for it."""
    server = start_nats()
    one, third = Place(server), Place(server)
    async with one.node, third.node:
        hearer = program("cluster_node.py", server.url, "hearer", "10")
        one.bus.twitter("a:b", 0)
        await until(lambda: hearer.lines == ["0"], PATIENCE)
        hearer.send(signal.SIGSTOP)
        for number in range(1, 100):
            one.bus.twitter("a:b", number)
        await until(lambda: third.heard == list(range(100)), 2 * SLACK)
        hearer.send(signal.SIGCONT)
        await until(lambda: hearer.lines == [str(n) for n in range(100)], PATIENCE)


async def test_a_receiver_that_nats_cuts_off(
    start_nats: StartNats, until: Until, program: Any
) -> None:
    """One that reads nothing while much is sent learns that it has missed some."""
    server = start_nats('max_payload: 100000\nmax_pending: 200000\nwrite_deadline: "500ms"')
    one, third = Place(server), Place(server)
    async with one.node, third.node:
        hearer = program("cluster_node.py", server.url, "hearer")
        one.bus.twitter("a:b", 0, b"")
        await until(lambda: hearer.lines == ["0"], PATIENCE)
        hearer.send(signal.SIGSTOP)
        number = 0
        while "Slow Consumer" not in server.log:
            number += 1
            one.bus.twitter("a:b", number, bytes(50_000))
            await until(lambda n=number: third.heard[-1:] == [n], PATIENCE)
        hearer.send(signal.SIGCONT)
        await until(lambda: "restored" in hearer.lines, PATIENCE)
        last = number + 1
        one.bus.twitter("a:b", last, b"")
        await until(lambda: str(last) in hearer.lines, PATIENCE)
        heard = [int(line) for line in hearer.lines if line.isdecimal()]
        assert heard == sorted(set(heard))
        assert len(heard) < last
        assert "lost" in hearer.lines
        assert "missed" in hearer.lines
        assert third.heard == list(range(last + 1))


def start_cluster(start_nats: StartNats) -> list[NatsServer]:
    """Two servers with routes to each other."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
    return [
        start_nats(
            f"server_name: s{number}\nlame_duck_duration: 30s\nlame_duck_grace_period: 1s\n"
            f"cluster {{ name: c, listen: '127.0.0.1:{port}', routes: [{routes}] }}\n"
        )
        for number, port in enumerate(ports)
    ]


async def test_a_cut_between_nats_servers(start_nats: StartNats, link: Any, until: Until) -> None:
    """A leaf node that loses its hub: no node is lost, and what did not arrive is told."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    hub = start_nats(f"leafnodes {{ listen: '127.0.0.1:{port}' }}\n")
    async with link(f"tcp://127.0.0.1:{port}") as line:
        remote = line.endpoint.replace("tcp", "nats")
        leaf = await asyncio.to_thread(
            start_nats, f"leafnodes {{ reconnect: 1, remotes: [{{ url: '{remote}' }}] }}\n"
        )
        one, other, near = Place(leaf), Place(hub), Place(leaf)
        sent = 0

        async def send(condition: Callable[[], object]) -> None:
            nonlocal sent
            async with asyncio.timeout(PATIENCE):
                while not condition():
                    one.bus.twitter("a:b", sent)
                    sent += 1
                    await asyncio.sleep(0.002)

        async with one.node, other.node, near.node:
            await send(lambda: other.heard and near.heard)
            line.cut()
            begun = sent
            await send(lambda: sent > begun + 100)
            line.restore()
            await send(lambda: other.heard[-1] > begun + 100)
            last = sent
            one.bus.twitter("a:b", last)
            await until(lambda: other.heard[-1] == near.heard[-1] == last, PATIENCE)
            assert other.heard == sorted(set(other.heard))
            gaps = sum(b - a > 1 for a, b in itertools.pairwise(other.heard))
            assert gaps == other.count("missed") == 1
            assert near.heard == list(range(near.heard[0], last + 1))
            assert not any(place.count("lost") for place in (one, other, near))


@pytest.mark.parametrize("how", ["killed", "lame duck"])
@pytest.mark.parametrize("which", ["sender", "receiver"])
async def test_a_server_of_a_cluster_that_ends(
    start_nats: StartNats, until: Until, which: str, how: str
) -> None:
    """Nodes at different servers: who was at it goes to the other one, which it was not told of.

    Nothing comes twice or out of order, and what is missing is told.
    """
    ends, stays = start_cluster(start_nats)
    one = Place(ends if which == "sender" else stays)
    other = Place(stays if which == "sender" else ends)
    moving, staying = (one, other) if which == "sender" else (other, one)
    sent = 0

    async def send(condition: Callable[[], object]) -> None:
        nonlocal sent
        async with asyncio.timeout(PATIENCE):
            while not condition():
                one.bus.twitter("a:b", sent)
                sent += 1
                await asyncio.sleep(0.001)

    async with one.node, other.node:
        # The servers tell each other first what is followed, and each other's address.
        await send(lambda: other.heard)
        link = moving.node._cluster.connection
        await send(lambda: "connect_urls" in link.server_info)
        await send(lambda: len(other.heard) > 100)
        if how == "killed":
            ends.kill()
        else:
            ends.signal(signal.SIGUSR2)
        await send(lambda: moving.count("restored"))
        assert link.server.endswith(str(stays.port))
        begun = sent
        await send(lambda: other.heard[-1] > begun)
        last = sent
        one.bus.twitter("a:b", last)
        await until(lambda: other.heard[-1] == last, PATIENCE)
        assert other.heard == sorted(set(other.heard))
        gaps = sum(b - a > 1 for a, b in itertools.pairwise(other.heard))
        assert gaps == other.count("missed")
        assert which == "receiver" or not gaps
        assert staying.count("lost") == 0
        assert moving.count("lost") == moving.count("restored") == 1


async def test_a_password_that_is_changed_while_it_runs(
    start_nats: StartNats, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node is thrown out, says so on its bus, and sends what waits when it may come back."""
    monkeypatch.setattr(connection, "REFUSED_PAUSE", 0.2)
    config = "authorization {{ user: alice, password: {} }}"
    server = start_nats(config.format("first-secret"))
    place = Nats(server.url, user="alice", password="first-secret")
    bus = Bus()
    events: list[Message] = []
    bus.regist_function("connection:*", events.append)
    async with Node(None, bus, cluster=place, limits=Limits(heartbeat=HEARTBEAT)) as node:
        await node.drain(PATIENCE)
        server.reload(config.format("other-secret"))
        await until(lambda: any(event.action == "refused" for event in events), PATIENCE)
        assert "secret" not in str([event.kwargs for event in events])
        bus.twitter("a:b", 1)
        assert node.statistics()["cluster_connected"] == 0
        server.reload(config.format("first-secret"))
        await until(lambda: events[-1].action == "restored", PATIENCE)
        assert await node.drain(PATIENCE)
        assert node.statistics()["cluster_waiting"] == 0
        assert [event.action for event in events].count("lost") == 1


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
            # That it is back at NATS does not say that NATS knows yet what it follows.
            assert await other.node.drain(PATIENCE)
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
