"""Peers that send what is no message, or almost one: the others notice nothing."""

import asyncio
import contextlib
import logging
import random
import signal
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgpack
import pytest
import zmq

from berrymq_rpc import rpc

#: Each fault is tried with keys as well.
pytestmark = pytest.mark.keys

Until = Callable[..., Awaitable[None]]

#: Seconds that a busy machine may take longer than is asked for.
SLACK = 2.0

MEBIBYTE = 1 << 20


class Bytes:
    """Makes what is nothing, and what is almost something."""

    def __init__(self, raw: Any, seed: int) -> None:
        self.raw = raw
        self.chance = random.Random(seed)

    def message(self) -> list[bytes]:
        """1 to 11 frames."""
        chance = self.chance
        native = self.raw.head(1)[:-4]
        heads = [
            b"",
            native,
            native + struct.pack(">I", chance.choice([0, 1, 2, 2**32 - 1])),
            native + struct.pack(">I", 1) + chance.randbytes(chance.randrange(40)),
            b"\xc1bq\x02" + chance.randbytes(20),
            b"\xc1bq",
            b'{"jsonrpc": "2.0", "method": "add", "id": 1}',
            b"[1, 2",
            self.raw.REQUEST.pack(1, 2, chance.randrange(2**32), 0.0),
            self.raw.RESPONSE.pack(1, 2, chance.randrange(100), 0.0, chance.random() < 0.5),
            chance.randbytes(chance.randrange(21)),
        ]
        parts = [
            msgpack.packb(chance.choice([None, 1, "x", [1], {"a": 1}, {1: 2}, [[[[]]]]])),
            b"add",
            b"__class__",
            b"\xff\xfe",
            b"\xdd\xff\xff\xff\xff",
            b"\xdf\xff\xff\xff\xff",
            b"\xc6\xff\xff\xff\xff",
            b"\x91" * 2000,
            msgpack.packb(msgpack.ExtType(chance.randrange(128), chance.randbytes(10))),
            chance.randbytes(chance.randrange(100)),
        ]
        frames = [chance.choice(heads)]
        for _ in range(chance.randrange(11)):
            frames.append(chance.choice(chance.choice([heads, parts])))
        return frames

    def noise(self) -> list[bytes]:
        """1 to 11 frames of nothing, the first of 0 to 20 bytes."""
        chance = self.chance
        first = chance.randbytes(chance.randrange(21))
        return [
            first,
            *(chance.randbytes(chance.randrange(50)) for _ in range(chance.randrange(11))),
        ]

    def record(self) -> bytes:
        """A record in order, with elements that are not."""
        chance = self.chance
        values: list[Any] = [None, 0, 1, -1, 2**63, "add", b"x", [], [1], {}, {"a": 1}, True, 1.5]
        kinds = [*range(15), 255, -1, "x", None]
        fields = [chance.choice(values) for _ in range(chance.randrange(6))]
        return self.raw.record(chance.choice(kinds), *fields)  # type: ignore[no-any-return]

    def damaged(self) -> list[bytes]:
        """A good message, of which some bytes are others."""
        chance = self.chance
        record = self.raw.record(1, chance.randrange(100), "add", [1], {"b": 2}, 10**9)
        good = self.raw.native_message(record, self.raw.record(6, 7))
        if chance.random() < 0.5:
            good = self.raw.plain_call(chance.randrange(100), "add", 1, 2)
        frames = [bytearray(frame) for frame in good]
        for _ in range(chance.randrange(1, 4)):
            frame = chance.choice(frames)
            if frame and chance.random() < 0.7:
                frame[chance.randrange(len(frame))] = chance.randrange(256)
            else:
                del frame[chance.randrange(len(frame) + 1) :]
        return [bytes(frame) for frame in frames]

    def any(self) -> list[bytes]:
        """One of all these."""
        records = [self.record() for _ in range(self.chance.randrange(4))]
        return self.chance.choice(  # type: ignore[no-any-return]
            [self.message(), self.noise(), self.damaged(), self.raw.native_message(*records)]
        )


async def attacked(
    raw: Any, good_client: Any, endpoint: str, attack: Callable[[Any], None]
) -> float:
    """Run an attack in a thread while a good client calls; the longest that it waited."""

    def run() -> None:
        with raw.dealer(endpoint) as enemy:
            attack(enemy)

    async with good_client(endpoint) as good:
        await asyncio.to_thread(run)
    return good.longest  # type: ignore[no-any-return]


# -- 100,000 messages --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.nodebug
async def test_100_000_messages(server_process: Any, raw: Any, good_client: Any) -> None:
    """Memory and log are bounded, nothing is left, and a good client is answered throughout."""
    server = server_process()
    source = Bytes(raw, 5)
    messages = [source.any() for _ in range(5_000)]
    last = [
        raw.native_message(raw.record(raw.CALL, LAST, "add", [1])),
        raw.plain_call(LAST, "add", 1),
        [b'{"jsonrpc": "2.0", "method": "add", "params": [1], "id": %d}' % LAST],
    ]

    def attack(count: int) -> None:
        # Each peer's first message tells its dialect, so there are many peers.
        for number in range(count // 1000):
            with raw.dealer(server.endpoint, linger=0) as enemy:
                for index in range(1000):
                    enemy.send(messages[(number * 997 + index) % len(messages)])
                for call in last:
                    enemy.send(call)
                # All before it were read: none is dropped as its sender leaves.
                while not is_last_answer(raw, enemy.socket.recv_multipart()):
                    pass

    async with await rpc.open_client(connect=server.endpoint) as client:

        async def measured(count: int) -> tuple[float, dict[str, int]]:
            async with good_client(server.endpoint) as good:
                await asyncio.to_thread(attack, count)
            await until_alone(client)
            await client.rpc.collect()
            return good.longest, await client.rpc.statistics()

        # Buffers and caches that are made once are not what is asked for.
        _, before = await measured(5_000)
        longest, after = await measured(100_000)
    assert longest < 0.1 + SLACK
    assert after["malformed_messages"] - before["malformed_messages"] > 50_000
    assert after["calls_running"] == 0
    assert after["files"] <= before["files"] + 2
    assert after["memory"] - before["memory"] < 5 * MEBIBYTE
    log = await asyncio.to_thread(log_of, server)
    assert len(log) < 100_000
    # Nothing was a surprise.
    assert "Traceback" not in log


#: The id of a call that tells that the messages before it were read.
LAST = 4_242_424


def is_last_answer(raw: Any, frames: list[bytes]) -> bool:
    if len(frames[0]) == raw.RESPONSE.size:
        return raw.RESPONSE.unpack(frames[0])[2] == LAST  # type: ignore[no-any-return]
    if frames[-1][:1] in (b"{", b"["):
        return b"%d" % LAST in frames[-1]
    return raw.record(raw.RESULT, LAST, 2) in frames[0]  # type: ignore[no-any-return]


def log_of(server: Any) -> str:
    """End the server; what it logged."""
    server.send(signal.SIGKILL)
    server.wait()
    return server.errors()  # type: ignore[no-any-return]


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def until_alone(client: rpc.Client) -> None:
    """Wait until the server has seen all others leave."""
    async with asyncio.timeout(10):
        while (await client.rpc.statistics())["peers"] > 1:
            await asyncio.sleep(0.01)


@pytest.mark.nodebug
@pytest.mark.parametrize("kind", ["message", "noise", "record", "damaged"])
async def test_some_messages(
    pair: Any, raw: Any, good_client: Any, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    source = Bytes(raw, 6)
    messages = [
        raw.native_message(source.record(), source.record())
        if kind == "record"
        else getattr(source, kind)()
        for _ in range(2000)
    ]

    def attack(enemy: Any) -> None:
        for message in messages:
            enemy.send(message)

    caplog.set_level(logging.INFO)
    async with pair({"add": rpc.method(lambda a, b=1: a + b)}) as (server, client):
        assert await attacked(raw, good_client, server.endpoints[0], attack) < 0.1 + SLACK
        assert await client.rpc.add(1) == 2
        assert (server.statistics()["malformed_messages"] > 100) is (kind != "record")
        assert server.statistics()["calls_running"] == 0
    assert sum(len(line.getMessage()) for line in caplog.records) < 20_000


@pytest.mark.nodebug
async def test_records_about_calls_that_run(
    server_process: Any, raw: Any, good_client: Any, until: Until
) -> None:
    """Invalid credits, cancels and answers, for calls and streams that are in flight."""
    server = server_process()
    chance = random.Random(7)
    ids = list(range(20))
    values: list[Any] = [
        *(0, 1, -1, 2**63, 2**64 - 1, -(2**63), None, "x", b"x", 1.5, True, float("nan"), [], {}),
        *([[number], [number]] for number in ids),
        ids,
        [ids, ids],
    ]

    def attack(enemy: Any) -> None:
        begun = [raw.record(raw.CALL, i, ("ticks", "forever", "wait")[i % 3], []) for i in ids]
        enemy.send(raw.native_message(*begun))
        for _ in range(3000):
            records = [
                raw.record(
                    chance.choice(range(3, 15)),
                    chance.choice(ids),
                    *(chance.choice(values) for _ in range(chance.randrange(3))),
                )
                for _ in range(chance.randrange(1, 4))
            ]
            enemy.send(raw.native_message(*records))
            if chance.random() < 0.05:
                enemy.send(raw.native_message(*begun))

    async with await rpc.open_client(connect=server.endpoint) as client:
        assert await attacked(raw, good_client, server.endpoint, attack) < 0.1 + SLACK
        await until_alone(client)
        assert (await client.rpc.statistics())["calls_running"] == 0
    await until(lambda: server.lines.count("started") == server.lines.count("cancelled"))
    assert "Traceback" not in await asyncio.to_thread(log_of, server)


# -- what is no ZMTP ---------------------------------------------------------------------------

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16 + 1 + 31)
READY = b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"

#: Whole openings of former versions, each with a message of one byte.
ZMTP_1 = b"\x01\x00\x02\x00x"
ZMTP_2 = b"\xff" + bytes(8) + b"\x7f\x01\x05\x00\x00\x00\x01x"


@pytest.mark.keys(never=True)
@pytest.mark.parametrize("opening", [ZMTP_1, ZMTP_2])
async def test_peers_of_former_versions_of_zmtp(
    server_process: Any, until: Until, opening: bytes
) -> None:
    server = server_process()
    host, _, port = server.endpoint.removeprefix("tcp://").rpartition(":")
    async with await rpc.open_client(connect=server.endpoint, connect_timeout=1) as client:
        before = (await client.rpc.statistics())["malformed_messages"]
        _, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(opening)
            async with asyncio.timeout(5):
                while (await client.rpc.statistics())["malformed_messages"] == before:
                    await asyncio.sleep(0.01)
        finally:
            await closed(writer)
        assert await client.rpc.add(1) == 2


@pytest.mark.slow
@pytest.mark.nodebug
async def test_1_000_connections_that_are_no_zmtp(server_process: Any, good_client: Any) -> None:
    server = server_process()
    chance = random.Random(8)
    host, _, port = server.endpoint.removeprefix("tcp://").rpartition(":")

    def opening(number: int) -> bytes:
        openings = [
            ZMTP_1,
            ZMTP_2,
            GREETING[: chance.randrange(65)],
            # A peer like any other, that then forgets how to speak.
            GREETING + READY,
            GREETING + READY + b"\x00\x01x",
        ]
        return openings[number % len(openings)] + chance.randbytes(chance.randrange(200))

    def connect() -> None:
        for number in range(1000):
            with (
                socket.create_connection((host, int(port)), 5) as enemy,
                contextlib.suppress(BrokenPipeError, ConnectionResetError),
            ):
                enemy.sendall(opening(number))

    async with await rpc.open_client(connect=server.endpoint) as client:
        before = await client.rpc.statistics()
        async with good_client(server.endpoint) as good:
            await asyncio.to_thread(connect)
        assert good.longest < 0.1 + SLACK
        await until_alone(client)
        async with asyncio.timeout(10):
            while (await client.rpc.statistics())["files"] > before["files"] + 2:
                await asyncio.sleep(0.05)
        after = await client.rpc.statistics()
    assert after["memory"] - before["memory"] < 5 * MEBIBYTE
    assert len(await asyncio.to_thread(log_of, server)) < 100_000


async def test_connections_that_say_nothing(server_process: Any, good_client: Any) -> None:
    """They are closed after two heartbeats, but at least a second."""
    server = server_process("--heartbeat", "0.5")
    host, _, port = server.endpoint.removeprefix("tcp://").rpartition(":")
    began = time.monotonic()
    async with good_client(server.endpoint) as good, contextlib.AsyncExitStack() as stack:
        readers = []
        for _ in range(50):
            reader, writer = await asyncio.open_connection(host, int(port))
            stack.push_async_callback(closed, writer)
            readers.append(reader)
        async with asyncio.timeout(10):
            await asyncio.gather(*[reader.read() for reader in readers])
        assert time.monotonic() - began < 1.0 + SLACK
    assert good.longest < 0.1 + SLACK


@pytest.mark.keys(alone=True)
async def test_a_message_that_is_changed_on_its_way(
    server_process: Any, link: Any, good_client: Any, outcomes: Any
) -> None:
    """It ends its connection, and nothing else: libzmq can abort the process then."""
    heartbeat = 0.2
    server = server_process("--heartbeat", str(heartbeat))
    limits = rpc.Limits(heartbeat=heartbeat)

    def changed(data: bytes) -> bytes:
        return data[:-1] + bytes((data[-1] ^ 1,))

    async with (
        good_client(server.endpoint) as good,
        link(server.endpoint) as line,
        await rpc.open_client(connect=line.endpoint, limits=limits) as client,
    ):
        for _ in range(3):
            assert await client.with_timeout(10).rpc.echo("x") == "x"
            line.damage = changed
            call = client.rpc.echo("x")
            (error,) = await outcomes([call], 5)
            assert type(error) is rpc.ConnectionLostError
            # A while without a connection: an end that was put off would come now.
            line.close()
            await asyncio.sleep(3 * heartbeat)
            line.damage = None
            async with asyncio.timeout(20):
                while isinstance((await outcomes([client.rpc.echo("x")], 10))[0], Exception):
                    await asyncio.sleep(0.02)
    assert server.process.poll() is None
    assert good.answers


@pytest.mark.slow
@pytest.mark.nodebug
async def test_a_link_that_changes_bytes(
    server_process: Any, link: Any, outcomes: Any, good_client: Any, keys: bool
) -> None:
    """Of a good client and a good server, both ways: each call ends, and both go on."""
    heartbeat = 0.4
    server = server_process("--heartbeat", str(heartbeat))
    chance = random.Random(10)

    def damaged(data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(chance.randrange(3)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        return bytes(changed)

    limits = rpc.Limits(heartbeat=heartbeat)
    async with (
        good_client(server.endpoint) as good,
        link(server.endpoint) as line,
        await rpc.open_client(connect=line.endpoint, limits=limits, timeout=0.5) as client,
    ):
        failed = 0
        for _ in range(6):
            # One that was sent before the loss was noticed is lost; a handshake with keys that was
            # damaged is a refusal, after which the client tries again.
            async with asyncio.timeout(20):
                while True:
                    try:
                        assert await client.with_timeout(10).rpc.echo("x") == "x"
                        break
                    except rpc.ConnectionLostError as error:
                        reason = getattr(error, "reason", None)
                    assert reason is None or (keys and reason == "handshake")
                    await asyncio.sleep(0.02)
            line.damage = damaged
            for _ in range(3):
                got = await outcomes([client.rpc.echo("x" * 100) for _ in range(20)], 5)
                failed += sum(isinstance(value, Exception) for value in got)
            line.damage = None
            # What it waits for may never come, and may be long.
            line.close()
        assert failed > 5
    assert good.longest < 0.1 + SLACK
    assert "Traceback" not in await asyncio.to_thread(log_of, server)


# -- what can be read is answered --------------------------------------------------------------


async def test_readable_calls_are_answered(server_process: Any, raw: Any) -> None:
    """Where there is an id, there is an answer: none of these callers waits forever."""
    server = server_process()
    calls = [
        raw.record(1, 7, "nope", []),
        raw.record(1, 7, "add", []),
        raw.record(1, 7, "add", [1], {"c": 1}),
        raw.record(1, 7, "add", {}),
        raw.record(1, 7, 5, []),
        raw.record(1, 7, "add"),
        raw.record(1, 7, "add", [1], {}, "when"),
        raw.record(1, 7, "add", [1], {}, 1, 2, 3),
        b"\x94\x01\x07\xa3add" + b"\x91" * 500 + b"\xc0",
        b"\x94\x01\x07\xa3add\xdd\xff\xff\xff\xff",
        b"\x94\x01\x07\xa3add\xc1",
    ]

    def ask() -> list[int]:
        kinds = []
        for call in calls:
            with raw.dealer(server.endpoint) as enemy:
                enemy.send(raw.native_message(call))
                ((kind, call_id, *_),) = enemy.native_answers(1)
                assert call_id == 7
                kinds.append(kind)
        return kinds

    assert await asyncio.to_thread(ask) == [raw.ERROR] * len(calls)
    async with await rpc.open_client(connect=server.endpoint) as client:
        assert await client.rpc.add(1) == 2


async def test_readable_calls_of_the_other_dialect_are_answered(
    server_process: Any, raw: Any
) -> None:
    server = server_process()
    header = raw.REQUEST.pack(1, 2, 7, 0.0)
    calls = [
        [header, b"nope", b"\x90", b"\x80"],
        [header, b"\xff\xfe", b"\x90", b"\x80"],
        [header, b"add", b"\x90", b"\x80"],
        [header, b"add", b"\x80", b"\x80"],
        [header, b"add", b"\x91\x01", b"\x91\x01"],
        [header, b"add", b"\xc1", b"\x80"],
        [header, b"add", b"", b""],
        [header, b"add", b"\x91" * 500 + b"\xc0", b"\x80"],
        [header, b"add", b"\xdd\xff\xff\xff\xff", b"\x80"],
        [header, b"add", b"\x91\x01", b"\x81\x01\x01"],
        [header, b"add", b"\x91\x01" * 2, b"\x80"],
    ]

    def ask() -> None:
        for call in calls:
            with raw.dealer(server.endpoint) as enemy:
                enemy.send(call)
                ((call_id, is_error, _),) = enemy.plain_answers(1)
                assert (call_id, is_error) == (7, True)

    await asyncio.to_thread(ask)


async def test_one_id_for_two_calls(server_process: Any, raw: Any, until: Until) -> None:
    """The second is refused; the first goes on."""
    server = server_process()

    def send() -> list[Any]:
        with raw.dealer(server.endpoint, linger=0) as enemy:
            calls = [raw.record(raw.CALL, 7, "forever", []) for _ in range(2)]
            enemy.send(raw.native_message(*calls))
            return enemy.native_answers(1)  # type: ignore[no-any-return]

    ((kind, call_id, *told),) = await asyncio.to_thread(send)
    assert (kind, call_id) == (raw.ERROR, 7)
    assert "in use" in told[2]
    await until(lambda: server.lines == ["started", "cancelled"])


# -- the other way round -----------------------------------------------------------------------


@pytest.mark.nodebug
async def test_hostile_server(raw: Any, outcomes: Any) -> None:
    """A client is as safe from its server: each call ends, and the client works on."""
    source = Bytes(raw, 9)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as enemy:
        enemy.linger = 0
        port = raw.bind(enemy)
        stop = asyncio.Event()

        def serve() -> None:
            enemy.rcvtimeo = 100
            while not stop.is_set():
                try:
                    key, *_ = enemy.recv_multipart()
                except zmq.Again:
                    continue
                for _ in range(200):
                    enemy.send_multipart([key, *source.any()])
                for kind in range(14):
                    fields = [source.chance.choice([1, None, "x", [], {}]) for _ in range(3)]
                    enemy.send_multipart([key, *raw.native_message(raw.record(kind, 1, *fields))])

        serving = asyncio.create_task(asyncio.to_thread(serve))
        good = {"add": rpc.method(lambda a, b=1: a + b)}
        try:
            async with await rpc.start_server(good, bind="tcp://127.0.0.1:*") as server:
                for _ in range(5):
                    endpoints = [f"tcp://127.0.0.1:{port}", *server.endpoints]
                    async with await rpc.open_client(connect=endpoints, timeout=0.3) as client:
                        while client.statistics()["peers"] < 2:
                            await asyncio.sleep(0.001)
                        got = await outcomes([client.rpc.add(number) for number in range(20)], 5)
                        assert len(got) == 20
                        # Those that the good server had.
                        assert any(isinstance(value, int) for value in got)
        finally:
            stop.set()
            await serving
