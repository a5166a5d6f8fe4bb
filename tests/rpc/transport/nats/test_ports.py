"""Calls over NATS: several servers of a service, and what happens when one or NATS itself fails."""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("nats", reason="NATS needs nats-py")

from berrymq_rpc import rpc
from berrymq_rpc.nats.connection import Connection
from berrymq_rpc.nats.options import Nats
from berrymq_rpc.rpc.transport.nats import listener, search
from berrymq_rpc.rpc.transport.nats import port as nats_port
from berrymq_rpc.rpc.transport.nats.dialler import NatsDialler
from berrymq_rpc.rpc.transport.nats.records import (
    BYE,
    DATA,
    OPEN,
    Found,
    pack_found,
    pack_head,
    parse_head,
    parse_token,
)
from berrymq_rpc.testing.nats_server import NatsServer

_numbers = itertools.count()

StartNats = Callable[..., NatsServer]

# They measure how long something takes.
pytestmark = pytest.mark.xdist_group("faults-nats")


@pytest.fixture
def address(nats_server: NatsServer) -> str:
    """That of a service that nobody else has."""
    return f"{nats_server.url}/calc-{os.getpid()}-{next(_numbers)}"


class Handler(rpc.AttrHandler):
    def __init__(self, name: str = "") -> None:
        self.name = name
        self.running = 0
        self.taken: list[int] = []

    @rpc.method
    def take(self, number: int, data: bytes) -> None:
        self.taken.append(number)

    @rpc.method
    def who(self) -> str:
        return self.name

    @rpc.method
    async def who_later(self, seconds: float = 0.01) -> str:
        await asyncio.sleep(seconds)
        return self.name

    @rpc.method
    async def forever(self) -> None:
        self.running += 1
        await asyncio.Event().wait()

    @rpc.method
    def echo(self, value: Any) -> Any:
        return value

    @rpc.method
    async def numbers(self, count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield bytes(10_000)


@asynccontextmanager
async def served(address: str, *names: str, **options: Any) -> AsyncIterator[list[Handler]]:
    """Servers of one service, in this process."""
    handlers = [Handler(name) for name in names]
    servers = [await rpc.start_server(h, bind=address, **options) for h in handlers]
    try:
        yield handlers
    finally:
        for server in servers:
            server.close()
        for server in servers:
            await server.wait_closed()


async def test_several_servers_share_the_load(address: str, until: Any) -> None:
    async with (
        served(address, *"abcd"),
        await rpc.open_client(connect=address) as client,
    ):
        await until(lambda: client.statistics()["peers"] == 4)
        got = Counter(await asyncio.gather(*[client.rpc.who_later() for _ in range(400)]))
        assert got == dict.fromkeys("abcd", 100)


@pytest.mark.slow
async def test_many_clients(address: str, until: Any) -> None:
    """All have their own session at the server, and leave nothing there."""
    async with await rpc.start_server(Handler("a"), bind=address) as server:
        opening = [rpc.open_client(connect=address, connect_timeout=30) for _ in range(200)]
        clients = await asyncio.gather(*opening)
        calls = [client.rpc.echo(n) for n, client in enumerate(clients) for _ in range(5)]
        assert await asyncio.gather(*calls) == [n for n in range(200) for _ in range(5)]
        (port,) = nats_ports(server)
        assert len(port.sessions) == 200
        # Each may have less under way, so that NATS never holds more than it may for the server.
        assert port._window() * 200 <= nats_port.ALL_WINDOWS
        for client in clients:
            client.close()
        await asyncio.gather(*(client.wait_closed() for client in clients))
        await until(lambda: not port.sessions)
        assert server.statistics()["peers"] == 0


async def test_max_servers(address: str, until: Any) -> None:
    async with (
        served(address, *"abcd"),
        await rpc.open_client(connect=address, max_servers=2) as client,
        await rpc.open_client(connect=address, max_servers=1) as lone,
    ):
        await until(lambda: client.statistics()["peers"] == 2)
        assert len({await client.rpc.who() for _ in range(20)}) <= 2
        assert len({await lone.rpc.who() for _ in range(20)}) == 1
        assert lone.peer is not None
        # What comes later than the second is left alone.
        async with served(address, "e"):
            assert len({await client.rpc.who() for _ in range(20)}) <= 2
        assert client.statistics()["peers"] == 2


async def test_a_server_that_starts_later_is_used(address: str, until: Any) -> None:
    async with await rpc.open_client(connect=address) as client:
        waiting = client.rpc.who()
        async with served(address, "a"):
            assert await waiting == "a"
            async with served(address, "b"):
                await until(lambda: client.statistics()["peers"] == 2)
                got = await asyncio.gather(*[client.rpc.who_later() for _ in range(10)])
                assert set(got) == {"a", "b"}


async def test_no_server(nats_server: NatsServer, address: str) -> None:
    async with await rpc.open_client(connect=address, connect_timeout=0.3) as client:
        with pytest.raises(rpc.ConnectionLostError, match=r"calc.*was not sent") as caught:
            await client.rpc.who()
        assert caught.value.sent is False
        assert "NATS answers, but no server of the service 'calc-" in str(caught.value)


async def test_no_nats_server(start_nats: StartNats, until: Any) -> None:
    """`open_client` returns all the same; `start_server` does not."""
    nats = start_nats()
    nats.kill()
    address = f"{nats.url}/calc"
    async with await rpc.open_client(connect=address, connect_timeout=0.3) as client:
        with pytest.raises(rpc.ConnectionLostError, match="no NATS server answers") as caught:
            await client.rpc.who()
        assert caught.value.sent is False
        assert address in str(caught.value)
        nats.start()
        async with served(address, "a"):
            await until(lambda: client.statistics()["peers"] == 1)
            assert await client.rpc.who() == "a"


def test_without_nats_py(run_program: Any) -> None:
    """All else works, and whoever wants NATS learns which extra brings it."""
    done = run_program(WITHOUT)
    assert (done.stdout, done.stderr) == ('works\nextra "nats"\nextra "nats"\n', "")


def test_without_nkeys(run_program: Any) -> None:
    """nats-py alone does not bring it: who needs it learns which extra does."""
    done = run_program(WITHOUT_NKEYS)
    assert (done.stdout, done.stderr) == (4 * 'nkeys extra "nats"\n', "")


WITHOUT_NKEYS = """
import asyncio, re, sys
sys.modules["nkeys"] = None
from berrymq_rpc import rpc

async def main():
    for proof in ({"nkey": "/nowhere"}, {"credentials": "/nowhere"}):
        place = rpc.Nats("nats://127.0.0.1:1/calc", **proof)
        for opening in (rpc.start_server({}, bind=place), rpc.open_client(connect=place)):
            try:
                await opening
            except ModuleNotFoundError as error:
                print(error.name, re.search("extra .nats.", str(error))[0])

asyncio.run(main())
"""

WITHOUT = """
import asyncio, re, sys
sys.modules["nats"] = None
from berrymq_rpc import rpc

class Handler(rpc.AttrHandler):
    @rpc.method
    def who(self):
        return "works"

async def main():
    async with (
        await rpc.start_server(Handler(), bind="mem://x"),
        await rpc.open_client(connect="mem://x") as client,
    ):
        print(await client.rpc.who())
    for opening in (
        rpc.start_server(Handler(), bind="nats://127.0.0.1/calc"),
        rpc.open_client(connect="nats://127.0.0.1/calc"),
    ):
        try:
            await opening
        except ModuleNotFoundError as error:
            print(re.search("extra .nats.", str(error))[0])

asyncio.run(main())
"""


async def test_a_killed_server_fails_its_own_calls_alone(
    address: str, server_process: Any, until: Any
) -> None:
    one, other = (server_process("--bind", address) for _ in range(2))
    async with await rpc.open_client(connect=address) as client:
        await until(lambda: client.statistics()["peers"] == 2)
        calls = [client.rpc.forever() for _ in range(100)]
        await until(lambda: len(one.lines) + len(other.lines) == 100)
        assert len(one.lines) == len(other.lines) == 50
        killed = one.send(signal.SIGKILL)
        await until(lambda: sum(call.done() for call in calls) == 50)
        assert time.monotonic() - killed < 1 + 1
        assert client.statistics()["peers"] == 1
        # New ones run at the other, at once.
        pids = {await client.rpc.process() for _ in range(10)}
        assert pids == {other.process.pid}
        failed = [call for call in calls if call.done()]
        got = await asyncio.gather(*failed, return_exceptions=True)
        assert {type(error) for error in got} == {rpc.ConnectionLostError}
        assert "'forever' was accepted, and running for " in str(got[0])
        for call in calls:
            call.cancel()


async def test_a_new_call_after_a_kill_is_bounced(
    address: str, server_process: Any, until: Any
) -> None:
    """NATS says at once that nobody is there; no beat is waited for."""
    server = server_process("--bind", address, "--heartbeat", "20")
    limits = rpc.Limits(heartbeat=20)
    async with await rpc.open_client(connect=address, limits=limits) as client:
        assert await client.rpc.add(1) == 2
        server.send(signal.SIGKILL)
        server.wait()
        began = time.monotonic()
        with pytest.raises(rpc.ConnectionLostError, match="NATS has nobody"):
            while True:
                # Until NATS itself has noticed.
                await client.rpc.add(1)
        assert time.monotonic() - began < 2


async def test_a_frozen_server_is_lost(address: str, server_process: Any, until: Any) -> None:
    server = server_process("--bind", address, "--heartbeat", "0.4")
    limits = rpc.Limits(heartbeat=0.4)
    async with await rpc.open_client(connect=address, limits=limits) as client:
        call = client.rpc.forever()
        await until(lambda: server.lines)
        frozen = server.send(signal.SIGSTOP)
        with pytest.raises(rpc.ConnectionLostError, match="silent"):
            await call
        assert 0.3 < time.monotonic() - frozen < 0.8 + 1
        server.send(signal.SIGCONT)
        # It is the same process, and a new session.
        assert await client.rpc.process() == server.process.pid


async def test_a_frozen_server_holds_up_no_other(
    address: str, server_process: Any, until: Any
) -> None:
    """Who opens a session with it is not answered, and goes on to the next."""
    frozen = server_process("--bind", address, "--heartbeat", "20")
    frozen.send(signal.SIGSTOP)
    # It has answered to nobody, but says that it is there.
    async with (
        served(address, "lives"),
        await rpc.open_client(connect=address, timeout=10) as client,
    ):
        assert await client.rpc.who() == "lives"
        frozen.send(signal.SIGCONT)


async def test_a_restarted_nats_server(start_nats: StartNats, until: Any) -> None:
    nats = start_nats()
    address = f"{nats.url}/calc"
    async with served(address, "a") as (handler,), await rpc.open_client(connect=address) as client:
        assert await client.rpc.who() == "a"
        call = client.rpc.forever()
        await until(lambda: handler.running)
        nats.kill()
        with pytest.raises(rpc.ConnectionLostError, match="the connection to NATS was lost"):
            await call
        waiting = client.rpc.who()
        nats.start()
        assert await waiting == "a"


async def test_a_closing_server_is_left(address: str, until: Any) -> None:
    """It is drained: what runs is answered, and what comes runs elsewhere."""
    async with served(address, "stays"):
        leaving = await rpc.start_server(Handler("leaves"), bind=address, grace=5)
        async with await rpc.open_client(connect=address) as client:
            await until(lambda: client.statistics()["peers"] == 2)
            running = [client.rpc.who_later(0.5) for _ in range(100)]
            await until(lambda: leaving.statistics()["calls_running"] == 50)
            leaving.close()
            later = [client.rpc.who_later() for _ in range(100)]
            assert Counter(await asyncio.gather(*running)) == {"stays": 50, "leaves": 50}
            assert Counter(await asyncio.gather(*later)) == {"stays": 100}
            await leaving.wait_closed()
            await until(lambda: client.statistics()["peers"] == 1)
            # Nobody finds it any more.
            async with await rpc.open_client(connect=address) as another:
                assert await another.rpc.who() == "stays"


@pytest.mark.parametrize("size", [0, 100_000, 8 << 20])
async def test_sizes(address: str, size: int) -> None:
    async with served(address, "a"), await rpc.open_client(connect=address) as client:
        value = os.urandom(size)
        assert await client.rpc.echo([value, b"x", value]) == (value, b"x", value)


async def test_too_large_an_argument(address: str) -> None:
    """`max_message` bounds it, and not what the NATS server takes."""
    async with served(address, "a"), await rpc.open_client(connect=address) as client:
        with pytest.raises(rpc.TooLargeError, match="max_message"):
            await client.rpc.echo("x" * (2 << 20))
        assert await client.rpc.echo("x" * (1 << 19)) == "x" * (1 << 19)


async def test_a_reader_that_reads_nothing_is_no_slow_consumer(
    start_nats: StartNats, server_process: Any, until: Any
) -> None:
    """What it does not take stays with its sender, and NATS does not cut it off."""
    nats = start_nats("max_pending: 8MB")
    address = f"{nats.url}/calc"
    limits = rpc.Limits(heartbeat=20, max_queued_bytes=1 << 20)
    server = server_process("--bind", address, "--heartbeat", "20")
    async with await rpc.open_client(connect=address, limits=limits) as client:
        assert await client.rpc.add(1) == 2
        server.send(signal.SIGSTOP)
        with pytest.raises(rpc.OverloadedError):
            for _ in range(1000):
                client.notify.take(bytes(100_000))
                await asyncio.sleep(0)
        queued = client.statistics()["bytes_queued"]
        assert queued >= 1 << 20
        server.send(signal.SIGCONT)
        assert await client.rpc.add(1) == 2
        assert client.statistics()["bytes_queued"] == 0
    assert "Slow Consumer" not in nats.log


async def test_what_nats_does_not_read_counts(start_nats: StartNats, until: Any) -> None:
    """Whatever a peer allows, as one that is hostile does."""
    nats = start_nats()
    address = f"{nats.url}/calc"
    limits = rpc.Limits(heartbeat=20, max_queued_bytes=1 << 20)
    handler = Handler("a")
    async with (
        await rpc.start_server(handler, bind=address, limits=rpc.Limits(heartbeat=20)) as server,
        await rpc.open_client(connect=address, limits=limits) as client,
    ):
        assert await client.rpc.who() == "a"
        (at_client,), (at_server,) = nats_ports(client), nats_ports(server)
        (session,), (other,) = at_client.sessions.values(), at_server.sessions.values()
        session.channel._credit = other.channel.window = other.channel._told = 1 << 40
        nats.signal(signal.SIGSTOP)
        sent = 0
        with pytest.raises(rpc.OverloadedError):
            while sent < 100:
                client.notify.take(sent, bytes(500_000))
                sent += 1
                await asyncio.sleep(0)
        assert at_client.connection.queued_bytes < nats_port.MAX_UNSENT + (1 << 20)
        assert at_client.all_queued_bytes() >= nats_port.MAX_UNSENT
        nats.signal(signal.SIGCONT)
        await until(lambda: len(handler.taken) == sent)
        assert handler.taken == list(range(sent))
        assert at_client.all_queued_bytes() == client.statistics()["bytes_queued"] == 0


async def test_answers_to_all_who_do_not_read_are_bounded(
    nats_server: NatsServer, address: str, until: Any
) -> None:
    """Each is below its own bound; together they are not."""
    service = address.rpartition("/")[2]
    limits = rpc.Limits(
        max_queued_bytes=100 << 20, max_all_queued_bytes=2 << 20, window=10_000, heartbeat=20
    )
    async with (
        await rpc.start_server(Handler("a"), bind=address, limits=limits) as server,
        await rpc.open_client(connect=address, timeout=10) as client,
        Raw(nats_server.url) as raw,
    ):
        (port,) = nats_ports(server)
        to = f"berrymq-rpc.{service}.to.{port.id}"
        tokens = []
        for number in range(4):
            name = f"peer{number}"
            # It allows nothing to be sent.
            raw.connection.publish(f"{to}.open", pack_head(OPEN), f"{raw.connection.inbox}.{name}")
            await until(lambda name=name: raw.kinds(name))
            tokens.append(parse_token(next(p for t, _, p in raw.got if t == name)))
        text = json.dumps({"jsonrpc": "2.0", "method": "echo", "params": ["x" * 20_000], "id": 1})
        for number in range(1, 151):
            for token in tokens:
                raw.connection.publish(f"{to}.{token}", pack_head(DATA, 1, number) + text.encode())
            if number % 50 == 0:
                assert await client.rpc.who() == "a"
        assert await client.rpc.who() == "a"
        assert len(port.sessions) == 5
        assert (2 << 20) < server.statistics()["bytes_queued"] < 4 << 20
        assert port.all_queued_bytes() == server.statistics()["bytes_queued"]
    assert port.all_queued_bytes() == 0


async def test_a_stream_whose_reader_waits(address: str) -> None:
    async with served(address, "a"), await rpc.open_client(connect=address) as client:
        count = 0
        async for item in client.rpc.numbers(2000):
            assert len(item) == 10_000
            count += 1
        assert count == 2000


async def test_a_lost_message_is_no_silence(address: str, until: Any, monkeypatch: Any) -> None:
    """The next one, or the mark after the last, shows that it is missing."""
    limits = rpc.Limits(heartbeat=0.4)
    async with (
        served(address, "a", limits=limits),
        await rpc.open_client(connect=address, limits=limits) as client,
    ):
        assert await client.rpc.who() == "a"
        publish_parts = Connection.publish_parts
        lost: list[Any] = []

        def lose_one(connection: Connection, subject: str, parts: Any, *rest: Any) -> bool:
            if not lost and parts[0][0] == DATA:
                lost.append(subject)
                return True
            return publish_parts(connection, subject, parts, *rest)

        monkeypatch.setattr(Connection, "publish_parts", lose_one)
        with pytest.raises(rpc.ConnectionLostError, match="lost within NATS"):
            await client.rpc.who()
        assert len(lost) == 1
        assert await client.rpc.who() == "a"


async def test_beats_are_few(address: str, nats_server: NatsServer, until: Any) -> None:
    """An idle client and its server say that they live, and nothing else."""
    settings = Nats(nats_server.url)
    seen: Counter[str] = Counter()
    limits = rpc.Limits(heartbeat=0.4)
    service = address.rpartition("/")[2]
    watcher = Connection(settings)
    await watcher.connect(10)
    try:
        async with (
            served(address, "a", limits=limits),
            await rpc.open_client(connect=address, limits=limits) as client,
        ):
            assert await client.rpc.who() == "a"
            await asyncio.sleep(0.6)  # The marks of the call are said.
            watcher.subscribe(
                f"berrymq-rpc.{service}.>", lambda subject, *_: seen.update([subject])
            )
            assert await watcher.flush(10)
            began = time.monotonic()
            await asyncio.sleep(1.0)  # What is sent in this time is counted.
            assert client.statistics()["peers"] == 1
            most = (time.monotonic() - began) / 0.1 + 3
    finally:
        await watcher.close()
    beats = {subject: n for subject, n in seen.items() if "beat" in subject.split(".")}
    assert len(beats) == 2
    # A busy machine makes them fewer, but never more.
    assert all(3 <= count <= most for count in beats.values()), beats


async def test_bound_clients_and_servers_that_connect(address: str, until: Any) -> None:
    async with await rpc.open_client(bind=address) as client:
        handlers = [Handler("a"), Handler("b")]
        servers = [await rpc.start_server(h, connect=address) for h in handlers]
        await until(lambda: client.statistics()["peers"] == 2)
        got = await asyncio.gather(*[client.rpc.who_later() for _ in range(20)])
        assert Counter(got) == {"a": 10, "b": 10}
        for server in servers:
            server.close()
            await server.wait_closed()


async def test_call_backs(address: str) -> None:
    class Asks(rpc.AttrHandler):
        @rpc.method
        async def ask(self) -> Any:
            peer = rpc.context().peer
            return await peer.rpc.who()

    async with await rpc.start_server(Asks(), bind=address) as server:
        assert server.endpoints == (address,)
        async with await rpc.open_client(connect=address, handler=Handler("me")) as client:
            assert await client.rpc.ask() == "me"
            assert any(m["name"] == "ask" for m in (await client.describe())["methods"])


def test_a_client_for_threads(address: str) -> None:
    async def serve() -> rpc.Server:
        return await rpc.start_server(Handler("a"), bind=address)

    with asyncio.Runner() as runner:
        server = runner.run(serve())

        async def call() -> str:
            loop = asyncio.get_running_loop()

            def calling() -> str:
                with rpc.SyncClient(connect=address, timeout=10) as client:
                    name: str = client.rpc.who()
                    return name

            return await loop.run_in_executor(None, calling)

        async def end() -> None:
            server.close()
            await server.wait_closed()

        try:
            assert runner.run(call()) == "a"
        finally:
            runner.run(end())


class Raw:
    """A plain NATS client that speaks to the ports."""

    def __init__(self, url: str) -> None:
        self.connection = Connection(Nats(url))
        self.got: list[tuple[str, str, bytes]] = []

    async def __aenter__(self) -> "Raw":
        await self.connection.connect(10)
        self.connection.subscribe(f"{self.connection.inbox}.*", self._note)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.connection.close()

    def _note(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        self.got.append((subject.rpartition(".")[2], reply, payload))

    def kinds(self, token: str) -> list[int]:
        heads = [parse_head(p) for t, _, p in self.got if t == token]
        return [head.kind for head in heads if head is not None]


async def test_a_record_of_each_kind(nats_server: NatsServer, address: str, until: Any) -> None:
    """A client that is written from the page about the protocol."""
    service = address.rpartition("/")[2]
    root = f"berrymq-rpc.{service}"
    async with Raw(nats_server.url) as raw:
        connection = raw.connection
        connection.subscribe(f"{root}.up", raw._note)
        connection.subscribe(f"{root}.beat.*", raw._note)
        assert await connection.flush(10)
        limits = rpc.Limits(heartbeat=0.4)
        async with await rpc.start_server(Handler("a"), bind=address, limits=limits):
            await until(lambda: raw.kinds("up"))
            connection.publish(f"{root}.find", b"", f"{connection.inbox}.f")
            await until(lambda: raw.kinds("f"))
            (found,) = [payload for token, _, payload in raw.got if token == "f"]
            assert found[:22] == bytes.fromhex("06 01" + "00" * 20)
            server = found[22:].decode()
            to = f"{root}.to.{server}"
            head = "01 01 0000 00000000 0000000000010000 0000"
            connection.publish(f"{to}.open", bytes.fromhex(head), f"{connection.inbox}.1")
            await until(lambda: raw.kinds("1"))
            (welcome,) = [payload for token, _, payload in raw.got if token == "1"]
            assert welcome[:16].hex(" ", 8) == "0201000000000000 0000000000400000"
            token = welcome[18:].decode()
            # A call in the dialect of JSON-RPC, in two parts.
            text = b'{"jsonrpc": "2.0", "method": "who", "id": 1}'
            part = bytes.fromhex("05 01 0001 00000001 0000000000010000 0000")
            data = bytes.fromhex("00 01 0001 00000002 0000000000010000 0000")
            connection.publish(f"{to}.{token}", part + text[:10])
            connection.publish(f"{to}.{token}", data + text[10:])
            await until(lambda: len(raw.kinds("1")) > 1)
            answer, reply = next((p, r) for t, r, p in raw.got if t == "1" and p[0] == 0)
            assert answer[:8].hex() == "0001000100000001"
            assert json.loads(answer[18:]) == {"jsonrpc": "2.0", "result": "a", "id": 1}
            assert reply == f"{to}.!{token}"
            # The marks: the last number, twice; then beats alone.
            beat = bytes.fromhex("08 01" + "00" * 16) + token.encode()
            for _ in range(3):
                connection.publish(f"{to}.beat", beat, f"{connection.inbox}.!1")
                await asyncio.sleep(0.2)  # A peer that sends no beats is lost.
            assert raw.kinds("1")[2:] == [4, 4]
            assert [p[4:8].hex() for t, _, p in raw.got if t == "1"][-1] == "00000001"
            assert set(raw.kinds(server)) == {8}
            connection.publish(f"{to}.beat", beat + b"x", f"{connection.inbox}.!1")
            await until(lambda: raw.kinds("!1") == [3])
        await until(lambda: raw.kinds("1")[-1] == 3)
        assert raw.kinds("up") == [6, 3]
        assert [p[22:].decode() for t, _, p in raw.got if t == "up"] == [server] * 2


async def test_hostile_bytes(nats_server: NatsServer, address: str, until: Any) -> None:
    """Whatever arrives at any of its subjects, the server works on, and counts it."""
    service = address.rpartition("/")[2]
    async with (
        await rpc.start_server(Handler("a"), bind=address) as serving,
        await rpc.open_client(connect=address, timeout=10) as client,
        Raw(nats_server.url) as raw,
    ):
        assert await client.rpc.who() == "a"
        connection = raw.connection
        connection.publish(f"berrymq-rpc.{service}.find", b"", f"{connection.inbox}.f")
        await until(lambda: raw.got)
        server = raw.got[0][2][22:].decode()
        to = f"berrymq-rpc.{service}.to.{server}"
        long = "x" * 2000
        payloads = [b"", b"\0", bytes(17), bytes(18), b"\xff" * 100, os.urandom(1000)]
        payloads += [pack_head(kind, 3, 1, 1 << 63) + os.urandom(20) for kind in range(10)]
        for payload in payloads:
            for reply in ("", f"{connection.inbox}.x", long, "a.*.>", to):
                for token in ("open", "beat", "!x", "!", "unknown", "éè", "find"):
                    connection.publish(f"{to}.{token}", payload, reply)
                connection.publish(f"berrymq-rpc.{service}.find", payload, reply)
                connection.publish(f"berrymq-rpc.{service}.up", payload, reply)
        assert await connection.flush(10)
        # A session of its own, in which it breaks the protocol.
        connection.publish(f"{to}.open", pack_head(OPEN, credit=1000), f"{connection.inbox}.y")
        await until(lambda: raw.kinds("y"))
        token = parse_token(next(p for t, _, p in raw.got if t == "y"))
        connection.publish(f"{to}.{token}", pack_head(DATA, 7, 1) + b"short")
        await until(lambda: raw.kinds("y")[-1] == BYE)
        assert await client.rpc.who() == "a"
        # Of each payload: searches and sessions with a reply subject that is none or too long, and
        # what is no OPEN.
        assert serving.statistics()["malformed_messages"] >= 2 * len(payloads) + len(payloads) - 1
        assert client.statistics()["malformed_messages"] >= len(payloads) - 2
        for side in (serving, client):
            assert {port.connection.callback_errors for port in nats_ports(side)} == {0}


def nats_ports(side: Any) -> list[Any]:
    """The ports of a client or a server at NATS."""
    engine = side.pool if isinstance(side, rpc.Client) else side._runtime
    found = [connections.port for connections in engine.ports]
    return [port for port in found if isinstance(port, nats_port.NatsPort)]


async def test_no_answer_goes_to_a_subject_of_nats_itself(
    nats_server: NatsServer, address: str, until: Any
) -> None:
    """As ``$JS.API.STREAM.DELETE``, where a server may do what the one who asks may not."""
    service = address.rpartition("/")[2]
    async with (
        await rpc.start_server(Handler("a"), bind=address) as serving,
        await rpc.open_client(connect=address, timeout=10) as client,
        Raw(nats_server.url) as raw,
    ):
        assert await client.rpc.who() == "a"
        (port,) = nats_ports(serving)
        (of_client,) = nats_ports(client)
        connection = raw.connection
        connection.subscribe(f"$own-{service}.>", raw._note)
        connection.subscribe(f"berrymq-rpc.own-{service}.>", raw._note)
        to = f"berrymq-rpc.{service}.to.{port.id}"
        subjects = [f"berrymq-rpc.{service}.find", f"{to}.open", f"{to}.unknown", f"{to}.beat"]
        subjects += [f"{service}.who", f"$SRV.PING.{service}", f"{of_client.connection.inbox}.9"]
        for subject in subjects:
            for root in ("$own", "berrymq-rpc.own"):
                connection.publish(subject, pack_head(OPEN), f"{root}-{service}.{subject}")
        assert await connection.flush(10)
        # The answers to these come after all others.
        for subject in subjects[:-1]:
            connection.publish(subject, pack_head(OPEN), f"{connection.inbox}.x")
        await until(lambda: len(raw.got) >= len(subjects) - 1)
        assert {token for token, _, _ in raw.got} == {"x"}
        assert serving.statistics()["malformed_messages"] == 2 * 3


async def test_a_service_by_the_name_of_inboxes(nats_server: NatsServer) -> None:
    """Its methods would be called by all answers at that NATS."""
    async with (
        await rpc.start_server(Handler("a"), bind=f"{nats_server.url}/_INBOX") as server,
        Raw(nats_server.url) as raw,
    ):
        raw.connection.publish(
            f"{raw.connection.inbox}.x", b"an answer", f"{raw.connection.inbox}.y"
        )
        assert await raw.connection.flush(10)
        assert raw.got == [("x", f"{raw.connection.inbox}.y", b"an answer")]
        async with await rpc.open_client(connect=f"{nats_server.url}/_INBOX") as client:
            assert await client.rpc.who() == "a"
        assert server.statistics()["malformed"] == 0


async def test_hostile_servers(nats_server: NatsServer, address: str, until: Any) -> None:
    """A client takes no subject from a peer that could be another command of NATS's."""
    service = address.rpartition("/")[2]
    async with (
        Raw(nats_server.url) as raw,
        await rpc.open_client(connect=address, timeout=10) as client,
    ):
        connection = raw.connection
        asked: list[str] = []
        connection.subscribe(
            f"berrymq-rpc.{service}.find", lambda s, reply, p, h: asked.append(reply)
        )
        await until(lambda: asked)
        for name in (b"x y", b"x\r\nPUB a 0\r\n\r\n", b"", b"a" * 65, b"*", b">", b"\xff"):
            head = pack_found(Found("", 0))
            connection.publish(asked[0], head + name)
            connection.publish(f"berrymq-rpc.{service}.up", head + name)
        for payload in (b"", bytes(18), os.urandom(100)):
            connection.publish(asked[0], payload)
            connection.publish(f"{asked[0][:-2]}.!1", payload)
            connection.publish(f"{asked[0][:-2]}.1", payload, "x" * 2000)
        assert await connection.flush(10)
        async with served(address, "a"):
            assert await client.rpc.who() == "a"


async def test_a_full_server_refuses(address: str, monkeypatch: Any, until: Any) -> None:
    monkeypatch.setattr(listener, "MAX_SESSIONS", 1)
    async with (
        served(address, "a"),
        await rpc.open_client(connect=address, timeout=10) as one,
    ):
        assert await one.rpc.who() == "a"
        async with await rpc.open_client(connect=address, timeout=10, max_servers=1) as other:
            call = other.rpc.who()
            # One of the two gets the server that comes; the other one's calls go to a third.
            async with served(address, "b"):
                await until(lambda: call.done() or one.statistics()["peers"] == 2)
                async with served(address, "c"):
                    assert await call in ("b", "c")


async def test_a_server_with_max_peers_is_left_alone(address: str, until: Any) -> None:
    """Its clients are at others, and none of their calls fails."""
    async with (
        served(address, "full", limits=rpc.Limits(max_peers=2)),
        served(address, "free"),
        contextlib.AsyncExitStack() as opened,
    ):
        clients = [
            await opened.enter_async_context(await rpc.open_client(connect=address, timeout=10))
            for _ in range(6)
        ]
        await until(lambda: all(client.statistics()["peers"] for client in clients))
        await until(lambda: sum(client.statistics()["peers"] for client in clients) == 2 + 6)
        calls = [client.rpc.who_later() for client in clients for _ in range(10)]
        got = Counter(await asyncio.gather(*calls))
        assert got == {"full": 10, "free": 50}


async def test_where_all_servers_are_full(address: str, until: Any, monkeypatch: Any) -> None:
    """Calls fail at once, until there is room; where there is no server, they wait for one."""
    monkeypatch.setattr(search, "AVOID", 0.1)

    async def outcome(client: rpc.Client) -> object:
        try:
            return await client.rpc.who()
        except (rpc.OverloadedError, rpc.ConnectionLostError) as error:
            return type(error)

    async with contextlib.AsyncExitStack() as opened:
        first = await opened.enter_async_context(await rpc.open_client(connect=address, timeout=10))
        async with served(address, "a", limits=rpc.Limits(max_peers=1)):
            assert await first.rpc.who() == "a"
            late = await opened.enter_async_context(
                await rpc.open_client(connect=address, timeout=10, connect_timeout=0.5)
            )
            with pytest.raises(rpc.OverloadedError, match=r"all servers .* are full") as caught:
                await late.rpc.who()
            assert caught.value.sent is False
            assert await first.rpc.who() == "a"
            first.close()
            while (got := await outcome(late)) is rpc.OverloadedError:
                await asyncio.sleep(0.01)
            assert got == "a"
            last = await opened.enter_async_context(
                await rpc.open_client(connect=address, timeout=10, connect_timeout=0.5)
            )
            assert await outcome(last) is rpc.OverloadedError
        # The server has left.
        while (got := await outcome(last)) is rpc.OverloadedError:
            await asyncio.sleep(0.01)
        assert got is rpc.ConnectionLostError


async def test_peers_at_all_ports_are_counted(address: str, until: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(search, "AVOID", 0.1)
    handler = Handler("a")
    async with (
        await rpc.start_server(
            handler, bind=[address, "tcp://127.0.0.1:*"], limits=rpc.Limits(max_peers=2)
        ) as server,
        await rpc.open_client(connect=server.endpoints[1]) as one,
        await rpc.open_client(connect=address) as two,
    ):
        assert [await one.rpc.who(), await two.rpc.who()] == ["a", "a"]
        async with await rpc.open_client(connect=address, timeout=10) as third:
            with pytest.raises(rpc.OverloadedError):
                await third.rpc.who()
            one.close()
            await until(lambda: third.statistics()["peers"] == 1)
            assert await third.rpc.who() == "a"


async def test_windows_shrink_with_peers(address: str) -> None:
    class Counted:
        sessions: dict[int, int]

    counted: Any = Counted()
    windows = []
    for count in (0, 1, 8, 16, 512, 10_000):
        counted.sessions = dict.fromkeys(range(count), 0)
        windows.append(nats_port.NatsPort._window(counted) >> 10)
    assert windows == [4096, 4096, 4096, 2048, 64, 64]


async def test_a_server_that_forgot_the_session_says_so(address: str, until: Any) -> None:
    """As after a silence that only one side has noticed."""
    limits = rpc.Limits(heartbeat=0.4)
    async with (
        served(address, "a", limits=limits),
        await rpc.open_client(connect=address, limits=limits) as client,
    ):
        assert await client.rpc.who() == "a"
        (port,) = client.pool.ports
        assert isinstance(port.port, NatsDialler)
        (session,) = port.port.sessions.values()
        session.subject = session.subject[:-1] + "Z"
        with pytest.raises(rpc.ConnectionLostError, match="knows no such session"):
            await client.rpc.forever()
        assert await client.rpc.who() == "a"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"connect": "nats://127.0.0.1"}, "names no service"),
        ({"connect": "nats://127.0.0.1/*"}, "names no service"),
        ({"connect": "nats://127.0.0.1:x/calc"}, r"connect: .*address of NATS"),
        ({"connect": "nats://127.0.0.1/calc", "max_servers": 0}, "max_servers"),
        ({"connect": "nats://127.0.0.1/calc", "security": True}, "at NATS, its server decides"),
    ],
)
async def test_arguments_that_are_refused(options: dict[str, Any], text: str) -> None:
    if "security" in options:
        options["security"] = rpc.CurveClient(server=rpc.KeyPair.generate().public)
    with pytest.raises(ValueError, match=text):
        await rpc.open_client(**options)
