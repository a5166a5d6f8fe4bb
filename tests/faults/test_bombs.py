"""Messages that cost far more than they weigh: an error or a disconnection, at a bounded price."""

import asyncio
import contextlib
import struct
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgpack
import pytest
import zmq

from berrymq_rpc import rpc
from berrymq_rpc.rpc.wire.codec import Codec

#: Each fault is tried with keys as well.
pytestmark = [pytest.mark.keys, pytest.mark.slow]

#: Seconds that a busy machine may take longer than is asked for.
SLACK = 2.0

MEBIBYTE = 1 << 20


def array(length: int) -> bytes:
    return b"\xdd" + struct.pack(">I", length)


#: Arguments of a call, as arrays in msgpack.
BOMBS: dict[str, Callable[[], bytes]] = {
    "100,000 levels": lambda: b"\x91" * 100_000 + b"\xc0",
    "100,000 levels of maps": lambda: b"\x91" + b"\x81\xa1k" * 100_000 + b"\xc0",
    "an array of 2**32 - 1": lambda: array(2**32 - 1),
    "a map of 2**32 - 1": lambda: b"\x91\xdf" + b"\xff" * 4,
    "a str of 2**32 - 1": lambda: b"\x91\xdb" + b"\xff" * 4,
    "bytes of 2**32 - 1": lambda: b"\x91\xc6" + b"\xff" * 4,
    "an ext of 2**32 - 1": lambda: b"\x91\xc9" + b"\xff" * 4 + b"\x01",
    "a map of 1,000,000": lambda: b"\x91" + msgpack.packb(dict.fromkeys(range(1_000_000))),
    "a map of 200,000": lambda: b"\x91" + msgpack.packb(dict.fromkeys(range(200_000))),
    "30,000,000 empty arrays": lambda: b"\x91" + array(30_000_000) + b"\x90" * 30_000_000,
    "1,000,000 empty arrays": lambda: b"\x91" + array(1_000_000) + b"\x90" * 1_000_000,
    "4,000,000 empty arrays": lambda: b"\x91" + array(4_000_000) + b"\x90" * 4_000_000,
    "1,000,000 empty maps": lambda: b"\x91" + array(1_000_000) + b"\x80" * 1_000_000,
    "keys that collide": lambda: (
        b"\x91"
        + msgpack.packb(
            {number * (2**61 - 1): None for number in range(8)}
            | dict.fromkeys(float(number * 2**40) for number in range(100_000))
        )
    ),
    "colliding numbers": lambda: b"\x91" + colliding(50_000),
    "one argument of 1,000,000": lambda: array(1_000_000) + b"\xc0" * 1_000_000,
}


def colliding(count: int) -> bytes:
    """A map whose keys begin at the same slot of Python's table: 2**40 apart."""
    pairs = b"".join(b"\xcf" + struct.pack(">Q", number << 40) + b"\xc0" for number in range(count))
    return b"\xdf" + struct.pack(">I", count) + pairs


def huge(size: int, number: int = 1) -> int:
    """A whole number of so many bytes with the hash of another."""
    return number + (2**61 - 1) * ((1 << (8 * size)) - 1)


def packed_set(*members: Any, tag: int = 9) -> bytes:
    """What a peer of ours would pack, for whom it is too much to make the set itself."""
    return msgpack.packb(  # type: ignore[no-any-return]
        msgpack.ExtType(126, bytes((tag,)) + packed_array(*members))
    )


def packed_array(*members: Any) -> bytes:
    parts = [each if isinstance(each, bytes) else Codec().pack(each) for each in members]
    return array(len(parts)) + b"".join(parts)


#: A set or map that arrives in the native dialect alone. A comparison of a whole number and a
#: Decimal takes the square of its size, 10 s for 300,000 bytes, and Python compares keys with one
#: hash.
VALUES: dict[str, Callable[[], bytes]] = {
    "a number beside a Decimal in a set": lambda: packed_set(huge(300_000), Decimal(1)),
    "a number beside a Decimal in a map": lambda: (
        b"\x82" + Codec().pack(huge(300_000)) + b"\x01" + Codec().pack(Decimal(1)) + b"\x02"
    ),
    "a number beside a Decimal in tuples": lambda: packed_set(
        (huge(300_000), "x"), (Decimal(1), "x")
    ),
    "a number beside a Decimal in frozen sets": lambda: packed_set(
        packed_set(huge(300_000), 2, tag=10), packed_set(Decimal(1), 2, tag=10)
    ),
    "numbers beside Decimals": lambda: packed_set(
        *(one for n in range(300) for one in (huge(3000, n), Decimal(n)))
    ),
    "UUIDs with one hash": lambda: packed_set(
        *(UUID(int=1 + n * (2**61 - 1)) for n in range(2000))
    ),
}


class Cost:
    """What an attack cost a server in a process of its own.

    Attributes:
        waited: seconds that a good client waited at most.
        held: seconds that the event loop was held at most.
        memory: bytes of memory that it took at most.
    """

    def __init__(self, waited: float, before: dict[str, Any], after: dict[str, Any]) -> None:
        self.waited = waited
        self.held = after["held"]
        self.memory = after["most_memory"] - before["most_memory"]


async def cost(server_process: Any, good_client: Any, attack: Callable[[str], None]) -> Cost:
    server = server_process()
    async with await rpc.open_client(connect=server.endpoint) as client:
        before = await client.rpc.statistics()
        async with good_client(server.endpoint) as good:
            await asyncio.to_thread(attack, server.endpoint)
        after = await client.rpc.statistics()
        # The same process lives.
        assert await client.rpc.process() == server.process.pid
    return Cost(good.longest, before, after)


#: Over this an answer is not waited for: the sender is disconnected, or the message dropped.
ANSWERED = 20 * MEBIBYTE

#: The most that msgpack makes of one byte: an empty map of 64 bytes, with a place of 8 for it.
BYTES_FOR_A_BYTE = 80


@pytest.mark.nodebug
@pytest.mark.parametrize("name", BOMBS)
async def test_native(server_process: Any, good_client: Any, raw: Any, name: str) -> None:
    """The loop is held for less than 100 ms, as a message has 1 MiB at most."""
    arguments = BOMBS[name]()

    def attack(endpoint: str) -> None:
        for method in ("take", "nope"):
            call = msgpack.packb((raw.CALL, 7, method, []))[:-1] + arguments
            with raw.dealer(endpoint, linger=0) as enemy:
                enemy.send(raw.native_message(call))
                if len(arguments) < ANSWERED:
                    ((_, call_id, *_),) = enemy.native_answers(1)
                    assert call_id == 7

    spent = await cost(server_process, good_client, attack)
    assert spent.waited < 0.1 + SLACK
    assert spent.held < 0.1 + SLACK
    # What arrives is there twice, in ZeroMQ and here.
    assert spent.memory < BYTES_FOR_A_BYTE * MEBIBYTE + 2 * len(arguments) + 10 * MEBIBYTE


@pytest.mark.nodebug
@pytest.mark.parametrize("name", VALUES)
async def test_values(server_process: Any, good_client: Any, raw: Any, name: str) -> None:
    call = msgpack.packb((raw.CALL, 7, "take", []))[:-1] + b"\x91" + VALUES[name]()
    message = raw.native_message(call)

    def attack(endpoint: str) -> None:
        with raw.dealer(endpoint, linger=0) as enemy:
            enemy.send(message)
            ((kind, call_id, class_name, *_),) = enemy.native_answers(1)
            assert (kind, call_id) == (raw.ERROR, 7)
            assert class_name == "berrymq_rpc.errors.ProtocolError"

    spent = await cost(server_process, good_client, attack)
    assert spent.waited < 0.1 + SLACK
    assert spent.held < 0.1 + SLACK


@pytest.mark.nodebug
async def test_values_in_an_answer(raw: Any, until: Any) -> None:
    """A client is as safe from its server."""
    name = "a number beside a Decimal in a set"
    with zmq.Context() as context, context.socket(zmq.ROUTER) as enemy:
        enemy.linger = 0
        port = raw.bind(enemy)
        async with await rpc.open_client(connect=f"tcp://127.0.0.1:{port}") as client:
            call = client.rpc.anything()
            await until(lambda: enemy.poll(0))
            key, *_ = enemy.recv_multipart()
            answer = msgpack.packb((raw.RESULT, 1, 0))[:-1] + VALUES[name]()
            enemy.send_multipart([key, *raw.native_message(answer)])
            began = time.monotonic()
            with pytest.raises(rpc.ProtocolError, match="collide"):
                await call
            assert time.monotonic() - began < 0.1 + SLACK


@pytest.mark.nodebug
@pytest.mark.parametrize("name", BOMBS)
async def test_plain(server_process: Any, good_client: Any, raw: Any, name: str) -> None:
    """Of the dialect of aiozmq.rpc: less than a second, as it has 4 MiB."""
    arguments = BOMBS[name]()

    def attack(endpoint: str) -> None:
        for method in (b"take", b"nope"):
            with raw.dealer(endpoint, linger=0) as enemy:
                enemy.send([raw.REQUEST.pack(1, 2, 7, 0.0), method, arguments, b"\x80"])
                if len(arguments) < ANSWERED:
                    ((call_id, _, _),) = enemy.plain_answers(1)
                    assert call_id == 7

    spent = await cost(server_process, good_client, attack)
    assert spent.waited < 1.0 + SLACK
    assert spent.held < 1.0 + SLACK
    assert spent.memory < 4 * BYTES_FOR_A_BYTE * MEBIBYTE + 2 * len(arguments)


@pytest.mark.slow
@pytest.mark.nodebug
async def test_a_frame_of_200_megabytes(server_process: Any, good_client: Any, raw: Any) -> None:
    """Its sender is disconnected before it is read, and works when it connects again."""

    def attack(endpoint: str) -> None:
        with raw.dealer(endpoint, linger=0) as enemy:
            enemy.send([bytes(200_000_000)], copy=False)
            # The next message leaves when that one has: with the new connection.
            enemy.send(raw.native_message(raw.record(raw.CALL, 7, "add", [1])))
            enemy.native_answers(1)

    spent = await cost(server_process, good_client, attack)
    assert spent.waited < 0.1 + SLACK
    assert spent.held < 0.1 + SLACK
    assert spent.memory < 64 * MEBIBYTE


@pytest.mark.slow
@pytest.mark.nodebug
async def test_what_arrives_while_the_loop_is_held(server_process: Any, raw: Any) -> None:
    """A peer that goes on sending, and leaves while nothing is read, costs memory and no more."""
    server = server_process()
    message = [*raw.native_message(raw.record(raw.CALL, 7, "take", [])), bytes(MEBIBYTE)]

    def attack() -> None:
        with raw.dealer(server.endpoint, linger=0) as enemy:
            enemy.socket.sndtimeo = 2000
            with contextlib.suppress(zmq.Again):
                for _ in range(100):
                    enemy.send(message, copy=False)

    async with await rpc.open_client(connect=server.endpoint) as client:
        before = await client.rpc.statistics()
        held = client.rpc.hold(1.5)
        await asyncio.to_thread(attack)
        await held
        await client.rpc.collect()
        after = await client.rpc.statistics()
    assert after["memory"] - before["memory"] < 20 * MEBIBYTE


async def test_a_frame_over_the_bound_disconnects_its_sender_alone(
    pair: Any, good_client: Any, raw: Any
) -> None:
    def attack(endpoint: str) -> None:
        with raw.dealer(endpoint) as enemy:
            enemy.send([bytes(5 << 20)])

    limits = {"limits": rpc.Limits(max_frame=1 << 20)}
    async with pair({"add": rpc.method(lambda a, b=1: a + b)}, server=limits) as (server, client):
        async with good_client(server.endpoints[0]) as good:
            await asyncio.to_thread(attack, server.endpoints[0])
        assert good.longest < 0.1 + SLACK
        assert await client.rpc.add(1) == 2


@pytest.mark.nodebug
@pytest.mark.parametrize("name", [name for name in BOMBS if len(BOMBS[name]()) < ANSWERED])
async def test_from_a_server(raw: Any, name: str) -> None:
    """A client's loop is held no longer, its call fails, and the next one works."""
    value = BOMBS[name]()
    held = 0.0

    async def watch() -> None:
        nonlocal held
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.002)
            held = max(held, time.monotonic() - began)

    with zmq.Context() as context, context.socket(zmq.ROUTER) as enemy:
        enemy.linger = 0
        enemy.rcvtimeo = 5000
        port = raw.bind(enemy)

        def serve() -> None:
            answers = [value, b"\x02"]
            while answers:
                key, frame = enemy.recv_multipart()
                for kind, *fields in msgpack.unpackb(frame[12:], strict_map_key=False):
                    if kind == raw.CALL:
                        answer = msgpack.packb((raw.RESULT, fields[0], None))[:-1] + answers.pop(0)
                        enemy.send_multipart([key, *raw.native_message(answer)])

        serving = asyncio.create_task(asyncio.to_thread(serve))
        watching = asyncio.create_task(watch())
        try:
            async with await rpc.open_client(connect=f"tcp://127.0.0.1:{port}") as client:
                async with asyncio.timeout(5):
                    with contextlib.suppress(rpc.Error, ValueError):
                        await client.rpc.bomb()
                    assert await client.rpc.add(1) == 2
        finally:
            watching.cancel()
            await serving
    assert held < 0.1 + SLACK
