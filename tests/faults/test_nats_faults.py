"""Calls over NATS when the network, NATS or a peer fails: what each caller sees, and how soon."""

import asyncio
import gc
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nats", reason="NATS needs nats-py")

from berrymq_rpc import AsyncQueue, Bus, Empty, Node, rpc
from berrymq_rpc.testing.nats_server import NatsServer

# Keys are ZeroMQ's.
pytestmark = [pytest.mark.keys(never=True), pytest.mark.slow]

StartNats = Callable[..., NatsServer]
Until = Callable[..., Awaitable[None]]

#: Seconds: twice as long, and what is frozen or cut is noticed.
HEARTBEAT = 0.5
LIMITS = rpc.Limits(heartbeat=HEARTBEAT)

#: Seconds that a busy machine may take longer than is asked for.
SLACK = 1.0


class Handler(rpc.AttrHandler):
    def __init__(self) -> None:
        self.running = 0
        self.taken = 0

    @rpc.method
    def take(self, data: bytes) -> None:
        self.taken += 1

    @rpc.method
    def add(self, a: int, b: int = 0) -> int:
        return a + b

    @rpc.method
    async def forever(self) -> None:
        self.running += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.running -= 1


@asynccontextmanager
async def pair(at_server: str, at_client: str) -> AsyncIterator[tuple[Handler, rpc.Client]]:
    handler = Handler()
    async with (
        await rpc.start_server(handler, bind=at_server, limits=LIMITS, grace=0.2),
        await rpc.open_client(connect=at_client, limits=LIMITS) as client,
    ):
        yield handler, client


async def lost_within(call: rpc.Call, seconds: float) -> rpc.ConnectionLostError:
    began = time.monotonic()
    with pytest.raises(rpc.ConnectionLostError) as caught:
        async with asyncio.timeout(10):
            await call
    assert time.monotonic() - began < seconds + SLACK
    assert caught.value.sent is True
    assert "'forever' was " in str(caught.value)
    return caught.value


@pytest.mark.parametrize("which", ["client", "server"])
async def test_a_side_that_is_cut_off(
    nats_server: NatsServer, link: Any, until: Until, which: str
) -> None:
    """Every byte to NATS and back vanishes: both sides notice, and come back by themselves."""
    async with link(f"tcp://127.0.0.1:{nats_server.port}") as line:
        through = f"{line.endpoint.replace('tcp', 'nats')}/cut-{which}-{os.getpid()}"
        direct = f"{nats_server.url}/cut-{which}-{os.getpid()}"
        places = (direct, through) if which == "client" else (through, direct)
        async with pair(*places) as (handler, client):
            call = client.rpc.forever()
            await until(lambda: handler.running == 1)
            line.cut()
            await lost_within(call, 2 * HEARTBEAT)
            # The server stops what nobody waits for.
            await until(lambda: handler.running == 0)
            line.restore()
            assert await client.with_timeout(10).rpc.add(1, 2) == 3


@pytest.mark.parametrize("how", ["close", "half_close"])
async def test_a_link_that_is_closed(
    nats_server: NatsServer, link: Any, until: Until, how: str
) -> None:
    async with link(f"tcp://127.0.0.1:{nats_server.port}") as line:
        service = f"closed-{how}-{os.getpid()}"
        through = f"{line.endpoint.replace('tcp', 'nats')}/{service}"
        async with pair(f"{nats_server.url}/{service}", through) as (handler, client):
            call = client.rpc.forever()
            await until(lambda: handler.running == 1)
            if how == "close":
                line.close()
            else:
                line.half_close("down")
            await lost_within(call, 2 * HEARTBEAT)
            await until(lambda: handler.running == 0)
            assert await client.with_timeout(10).rpc.add(1, 2) == 3


async def test_a_server_that_is_back_at_once(
    nats_server: NatsServer, link: Any, until: Until
) -> None:
    """It has forgotten its sessions, and says that it is new: no beat is waited for."""
    async with link(f"tcp://127.0.0.1:{nats_server.port}") as line:
        service = f"back-{os.getpid()}"
        through = f"{line.endpoint.replace('tcp', 'nats')}/{service}"
        handler = Handler()
        limits = rpc.Limits(heartbeat=60)
        async with (
            await rpc.start_server(handler, bind=through, limits=limits),
            await rpc.open_client(connect=f"{nats_server.url}/{service}", limits=limits) as client,
        ):
            call = client.rpc.forever()
            await until(lambda: handler.running == 1)
            line.close()
            # The first attempt to connect is made after 50 ms.
            error = await lost_within(call, 0.1)
            assert "has lost its connection to NATS" in str(error)
            assert await client.with_timeout(10).rpc.add(1, 2) == 3


async def test_a_slow_link(nats_server: NatsServer, link: Any) -> None:
    """What takes long on its way is not lost."""
    async with link(f"tcp://127.0.0.1:{nats_server.port}") as line:
        line.delay = 0.1
        service = f"slow-{os.getpid()}"
        through = f"{line.endpoint.replace('tcp', 'nats')}/{service}"
        async with pair(f"{nats_server.url}/{service}", through) as (_, client):
            for number in range(10):
                assert await client.with_timeout(10).rpc.add(number) == number
            await asyncio.sleep(4 * HEARTBEAT)  # It stays so while nothing is called.
            assert client.statistics()["peers"] == 1


async def test_a_frozen_nats_server(start_nats: StartNats, until: Until) -> None:
    nats = start_nats()
    address = f"{nats.url}/frozen"
    async with pair(address, address) as (handler, client):
        call = client.rpc.forever()
        await until(lambda: handler.running == 1)
        nats.signal(signal.SIGSTOP)
        await lost_within(call, 2 * HEARTBEAT)
        await until(lambda: handler.running == 0)
        waiting = client.with_timeout(10).rpc.add(1, 2)
        nats.signal(signal.SIGCONT)
        assert await waiting == 3


async def test_notifications_without_a_nats_server(start_nats: StartNats, until: Until) -> None:
    """They wait as calls do: those that NATS is back for in time arrive, the others are counted."""
    nats = start_nats()
    address = f"{nats.url}/away"
    handler = Handler()
    async with (
        await rpc.start_server(handler, bind=address, limits=LIMITS),
        await rpc.open_client(connect=address, limits=LIMITS, connect_timeout=0.5) as hasty,
        await rpc.open_client(connect=address, limits=LIMITS, connect_timeout=20) as client,
    ):
        for each in (client, hasty):
            assert await each.rpc.add(1, 2) == 3
        nats.kill()
        await until(lambda: not client.statistics()["peers"] and not hasty.statistics()["peers"])
        for _ in range(100):
            client.notify.take(b"x")
            hasty.notify.take(b"x")
        await until(lambda: hasty.statistics()["notifications_lost"] == 100)
        await asyncio.to_thread(nats.start)
        await until(lambda: handler.taken == 100)
        assert await client.with_timeout(10).rpc.add(1, 2) == 3
        assert handler.taken == 100
        assert client.statistics()["notifications_lost"] == 0


@pytest.mark.parametrize("how", ["frozen", pytest.param("cut", marks=pytest.mark.slow), "killed"])
async def test_closing_without_an_answer(
    start_nats: StartNats, link: Any, until: Until, how: str
) -> None:
    """It is bounded, whatever NATS does, and nothing is left."""
    nats = start_nats(jetstream=True)
    async with link(f"tcp://127.0.0.1:{nats.port}") as line:
        url = line.endpoint.replace("tcp", "nats")
        # So that a link that is lost does not end it sooner.
        limits = rpc.Limits(heartbeat=60)
        server = await rpc.start_server(Handler(), bind=f"{url}/close", limits=limits, grace=0.2)
        client = await rpc.open_client(connect=f"{url}/close", limits=limits)
        bus = Bus()
        node = await Node(None, bus, cluster=url, limits=limits).start()
        queue = AsyncQueue("job:*", durable="workers", bus=bus)
        await queue.ready()
        getting = asyncio.create_task(queue.get())
        assert await client.rpc.add(1, 2) == 3
        call = client.rpc.forever()
        match how:
            case "frozen":
                nats.signal(signal.SIGSTOP)
            case "cut":
                line.cut()
            case "killed":
                nats.kill()
        publishing = asyncio.create_task(bus.publish("job:new", 1, durable=True))
        bus.twitter("a:b", 1)
        client.notify.add(1)
        await asyncio.sleep(0)
        for each in (client, server):
            began = time.monotonic()
            each.close()
            async with asyncio.timeout(10):
                await each.wait_closed()
            assert time.monotonic() - began < 3 + SLACK
        with pytest.raises((rpc.ServiceClosedError, rpc.ConnectionLostError)):
            await call
        began = time.monotonic()
        async with asyncio.timeout(20):
            await node.close()
        assert time.monotonic() - began < 8 + SLACK
        with pytest.raises((rpc.ServiceClosedError, rpc.ConnectionLostError)):
            await publishing
        with pytest.raises(Empty):
            await getting


async def test_a_frozen_client(
    nats_server: NatsServer, until: Until, program: Any, tmp_path: Path
) -> None:
    """The server cancels its calls, and forgets it."""
    handler = Handler()
    address = f"{nats_server.url}/frozen-client-{os.getpid()}"
    source = tmp_path / "client.py"
    source.write_text(CLIENT)
    async with await rpc.start_server(handler, bind=address, limits=LIMITS) as server:
        client = program(source, address)
        await until(lambda: handler.running == 1)
        client.send(signal.SIGSTOP)
        await until(lambda: handler.running == 0, 2 * HEARTBEAT + SLACK)
        assert server.statistics()["peers"] == 0
        client.send(signal.SIGCONT)
        # It learns that it was forgotten, and calls again.
        await until(lambda: handler.running == 1)
        client.send(signal.SIGKILL)
        await until(lambda: handler.running == 0, 2 * HEARTBEAT + SLACK)


CLIENT = """
import asyncio, sys
from berrymq_rpc import rpc

async def main():
    async with await rpc.open_client(
        connect=sys.argv[1], limits=rpc.Limits(heartbeat=0.5)
    ) as client:
        print("serving", flush=True)
        while True:
            try:
                await client.rpc.forever()
            except rpc.ConnectionLostError:
                pass

asyncio.run(main())
"""


# -- several NATS servers ------------------------------------------------------------------------


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def start_cluster(start_nats: StartNats, more: str = "") -> list[NatsServer]:
    """Two servers with routes to each other."""
    ports = free_ports(2)
    routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
    return [
        start_nats(
            f"server_name: s{number}\n{more}\n"
            f"cluster {{ name: c, listen: '127.0.0.1:{port}', routes: [{routes}] }}\n"
        )
        for number, port in enumerate(ports)
    ]


async def test_a_cluster(start_nats: StartNats, until: Until, server_process: Any) -> None:
    """Client and server at different NATS servers; the death of the server crosses the route."""
    one, other = start_cluster(start_nats)
    server = server_process("--bind", f"{one.url}/calc", "--heartbeat", "20")
    limits = rpc.Limits(heartbeat=20)
    async with await rpc.open_client(
        connect=f"{other.url}/calc", limits=limits, timeout=10
    ) as client:
        assert await client.rpc.add(1, 2) == 3
        assert await client.rpc.echo(bytes(3 << 20)) == bytes(3 << 20)
        server.send(signal.SIGKILL)
        server.wait()
        began = time.monotonic()
        with pytest.raises(rpc.ConnectionLostError, match="NATS has nobody"):
            while True:
                await client.rpc.add(1)
        assert time.monotonic() - began < 1 + SLACK


async def test_a_killed_nats_server_of_a_cluster(start_nats: StartNats, until: Until) -> None:
    """Who was at it goes to the other one, which it was never told of."""
    one, other = start_cluster(start_nats)
    handler = Handler()
    async with (
        await rpc.start_server(handler, bind=f"{one.url}/calc", limits=LIMITS),
        await rpc.open_client(connect=f"{one.url}/calc", limits=LIMITS, timeout=10) as client,
    ):
        assert await client.rpc.add(1, 2) == 3
        call = client.rpc.forever()
        await until(lambda: handler.running == 1)
        await until(lambda: "connect_urls" in client.pool.ports[0].port.connection.server_info)
        one.kill()
        await lost_within(call, HEARTBEAT)
        assert await client.rpc.add(1, 2) == 3
        assert client.pool.ports[0].port.connection.server.endswith(str(other.port))


@pytest.mark.parametrize("which", ["client", "server"])
async def test_a_nats_server_in_lame_duck_mode(
    start_nats: StartNats, until: Until, which: str
) -> None:
    """Who is at a server that is about to stop moves to another one before it does.

    The calls in flight fail, all others are answered: this is how NATS is restarted.
    """
    one, other = start_cluster(start_nats, "lame_duck_duration: 30s\nlame_duck_grace_period: 1s")
    limits = rpc.Limits(heartbeat=60)
    handler = Handler()
    places = {"client": other, "server": other, which: one}
    async with (
        await rpc.start_server(
            handler, bind=f"{places['server'].url}/calc", limits=limits
        ) as server,
        await rpc.open_client(
            connect=f"{places['client'].url}/calc", limits=limits, timeout=10
        ) as client,
    ):
        assert await client.rpc.add(1, 2) == 3
        moving = (client.pool if which == "client" else server._runtime).ports[0]
        connection = moving.port.connection
        call = client.rpc.forever()
        await until(lambda: handler.running == 1)
        await until(lambda: "connect_urls" in connection.server_info)
        one.signal(signal.SIGUSR2)
        results: list[object] = []
        while not connection.server.endswith(str(other.port)) or len(results) < 100:
            (result,) = await asyncio.gather(client.rpc.add(1, 2), return_exceptions=True)
            results.append(result)
        failed = [result for result in results if result != 3]
        # The one that was in flight, if any.
        assert len(failed) <= 1
        assert all(isinstance(error, rpc.ConnectionLostError) for error in failed)
        await lost_within(call, 0.0)
        await until(lambda: handler.running == 0)


async def test_a_rolling_restart(start_nats: StartNats, until: Until) -> None:
    """One NATS server after the other, each left before it stops: a few calls in flight fail."""
    servers = start_cluster(start_nats, "lame_duck_duration: 30s\nlame_duck_grace_period: 1s")
    place = rpc.Nats([server.url for server in servers], "calc")
    async with (
        await rpc.start_server(Handler(), bind=place, limits=LIMITS) as server,
        await rpc.open_client(connect=place, limits=LIMITS, timeout=10) as client,
    ):
        connections = [each.ports[0].port.connection for each in (server._runtime, client.pool)]
        results: list[object] = []

        async def call_until(condition: Callable[[], object]) -> None:
            async with asyncio.timeout(20):
                while not condition():
                    results.extend(
                        await asyncio.gather(client.rpc.add(1, 2), return_exceptions=True)
                    )

        await call_until(lambda: len(results) > 100)
        moves = 0
        for stopping, staying in (servers, servers[::-1]):
            moves += sum(each.server.endswith(str(stopping.port)) for each in connections)
            stopping.signal(signal.SIGUSR2)
            await call_until(
                lambda port=staying.port: all(c.server.endswith(str(port)) for c in connections)
            )
            restarting = asyncio.create_task(asyncio.to_thread(restart, stopping))
            await call_until(restarting.done)
            await restarting
            begun = len(results)
            await call_until(lambda begun=begun: len(results) > begun + 100)
        failed = [result for result in results if result != 3]
        assert all(isinstance(error, rpc.ConnectionLostError) for error in failed)
        # One call is in flight at a time.
        assert len(failed) <= moves


def restart(server: NatsServer) -> None:
    server.stop()
    server.start()


async def test_a_cut_between_nats_servers(start_nats: StartNats, link: Any, until: Until) -> None:
    """A leaf node that loses its hub: both sides are connected to NATS, and not to each other."""
    (port,) = free_ports(1)
    hub = start_nats(f"leafnodes {{ listen: '127.0.0.1:{port}' }}\n")
    async with link(f"tcp://127.0.0.1:{port}") as line:
        remote = line.endpoint.replace("tcp", "nats")
        leaf = await asyncio.to_thread(
            start_nats, f"leafnodes {{ reconnect: 1, remotes: [{{ url: '{remote}' }}] }}\n"
        )
        handler = Handler()
        async with (
            await rpc.start_server(handler, bind=f"{hub.url}/calc", limits=LIMITS),
            await rpc.open_client(connect=f"{leaf.url}/calc", limits=LIMITS, timeout=10) as client,
        ):
            assert await client.rpc.add(1, 2) == 3
            call = client.rpc.forever()
            await until(lambda: handler.running == 1)
            line.cut()
            await lost_within(call, 2 * HEARTBEAT)
            await until(lambda: handler.running == 0, 2 * HEARTBEAT + SLACK)
            waiting = client.rpc.add(1, 2)
            line.restore()
            assert await waiting == 3


# -- nothing is left -----------------------------------------------------------------------------


def open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


@pytest.mark.timeout(120)
async def test_nothing_is_left(start_nats: StartNats, until: Until) -> None:
    """After clients that come and go, and a NATS server that is killed again and again."""
    nats = start_nats()
    address = f"{nats.url}/left"
    async with await rpc.start_server(Handler(), bind=address, limits=LIMITS) as server:
        counts = []
        for rounds in range(6):
            for _ in range(5):
                async with await rpc.open_client(connect=address, timeout=10) as client:
                    assert await client.rpc.add(1, 2) == 3
            await until(lambda: server.statistics()["peers"] == 0)
            nats.kill()
            nats.start()
            async with await rpc.open_client(connect=address, timeout=10) as client:
                assert await client.rpc.add(1, 2) == 3
            await until(lambda: server.statistics()["peers"] == 0)
            gc.collect()
            if rounds:
                counts.append((len(asyncio.all_tasks()), open_files()))
        assert len(set(counts[1:])) == 1, counts
