"""What one peer may send to take the event loop of a server for itself, over each way to reach it.

Run as a program it tells how long each has a well-behaved client wait::

    python tests/faults/attacks.py [PART OF A NAME]
"""

import asyncio
import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgpack
import zmq

from berrymq_rpc import rpc
from berrymq_rpc.rpc.wire.codec import Codec

HERE = Path(__file__).parent
MIB = 1 << 20

CALL, NOTIFY, ACCEPTED, RESULT, ERROR = 1, 2, 3, 4, 5
CANCEL, ITEM, CREDIT, ACKNOWLEDGE, PING, PONG, END, CLOSED = 6, 7, 8, 9, 10, 11, 13, 14

#: Seconds between two calls of the well-behaved client.
PACE = 0.02

#: Seconds after the last byte was sent for which its effect is watched.
AFTERWARDS = 1.0

#: Seconds that an attack goes on at most.
PATIENCE = 10.0


def native(*records: bytes) -> list[bytes]:
    """A message of the native dialect."""
    return [b"\xc1bq\x01" + struct.pack(">QBI", 5, 0xDD, len(records)) + b"".join(records)]


def record(*fields: Any) -> bytes:
    return msgpack.packb(fields)  # type: ignore[no-any-return]


def many(count: int, *fields: Any) -> list[bytes]:
    """A native message of the same record, again and again."""
    return native(*[record(*fields)] * count)


def calls(count: int, method: str) -> list[bytes]:
    return native(*(record(CALL, number, method, []) for number in range(count)))


def plain(call_id: int, method: bytes, arguments: bytes = b"\x90") -> list[bytes]:
    """A call of the dialect of aiozmq.rpc."""
    return [struct.pack("=HHLd", 1, 2, call_id, 0.0), method, arguments, b"\x80"]


def array(length: int) -> bytes:
    return b"\xdd" + struct.pack(">I", length)


def huge(size: int = 300_000) -> int:
    """A whole number with the hash of 1."""
    return 1 + (2**61 - 1) * ((1 << (8 * size)) - 1)


def requests(count: int, method: str, **more: Any) -> list[dict[str, Any]]:
    return [{"jsonrpc": "2.0", "method": method, "id": n} | more for n in range(count)]


def notifications(count: int, method: str, **more: Any) -> list[dict[str, Any]]:
    return [{"jsonrpc": "2.0", "method": method} | more for _ in range(count)]


def text(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def filled(start: bytes, part: bytes, end: bytes, size: int = MIB) -> bytes:
    """A text of almost `size` bytes, with as many parts as fit."""
    return start + part * ((size - len(start) - len(end)) // len(part)) + end


def lines(text: bytes, size: int = 2 * MIB) -> bytes:
    return (text + b"\n") * (size // (len(text) + 1))


# -- what is sent --------------------------------------------------------------------------

#: Messages of ZeroMQ to the node, by a name.
NATIVE: dict[str, Callable[[], list[list[bytes]]]] = {
    "40,000 failing notifications": lambda: [many(40_000, NOTIFY, "connect_via_queue", [""])],
    "60,000 notifications of rpc.describe": lambda: [many(60_000, NOTIFY, "rpc.describe", [])],
    "60,000 calls of rpc.describe": lambda: [calls(60_000, "rpc.describe")],
    "40,000 calls of a plain function": lambda: [calls(40_000, "add")],
    "60,000 calls of a coroutine": lambda: [calls(60_000, "later")],
    "60,000 notifications of a coroutine": lambda: [many(60_000, NOTIFY, "later", [])],
    "110,000 notifications of an unknown name": lambda: [many(110_000, NOTIFY, "nope", [])],
    "80,000 calls of an unknown name": lambda: [calls(80_000, "nope")],
    "349,000 PING": lambda: [many(349_000, PING, 1)],
    "349,000 PONG": lambda: [many(349_000, PONG, 1)],
    "262,000 CREDIT": lambda: [many(262_000, CREDIT, 1, 1)],
    "349,000 CANCEL": lambda: [many(349_000, CANCEL, 1)],
    "349,000 ACKNOWLEDGE": lambda: [many(349_000, ACKNOWLEDGE, 1)],
    "262,000 RESULT": lambda: [many(262_000, RESULT, 1, 1)],
    "349,000 END": lambda: [many(349_000, END, 1)],
    "262,000 ITEM": lambda: [many(262_000, ITEM, 1, 1)],
    "349,000 malformed calls": lambda: [many(349_000, CALL, 1)],
    "1,000,000 empty records": lambda: [native(*[b"\x90"] * 1_000_000)],
    "64 messages of 2,000 failing notifications": lambda: (
        [many(2000, NOTIFY, "connect_via_queue", [""])] * 64
    ),
    "30 messages of 349,000 CANCEL": lambda: [many(349_000, CANCEL, 1)] * 30,
    "30 messages of 40,000 calls": lambda: [calls(40_000, "add")] * 30,
    "100,000 messages of one notification": lambda: [many(1, NOTIFY, "nope", [])] * 100_000,
    "a number and a Decimal in a set": lambda: [
        native(
            record(CALL, 1, "take", [])[:-1]
            + b"\x91"
            + msgpack.packb(msgpack.ExtType(126, b"\x09" + Codec().pack((huge(), Decimal(1)))))
        )
    ],
    "a number and a Decimal in a map": lambda: [
        native(
            record(CALL, 1, "take", [])[:-1]
            + b"\x91\x82"
            + b"".join(Codec().pack(each) for each in (huge(), 1, Decimal(1), 2))
        )
    ],
    "1,000,000 empty arrays": lambda: [
        native(record(CALL, 1, "take", [])[:-1] + b"\x91" + array(1_000_000) + b"\x90" * 1_000_000)
    ],
    "1,000,000 empty maps": lambda: [
        native(record(CALL, 1, "take", [])[:-1] + b"\x91" + array(1_000_000) + b"\x80" * 1_000_000)
    ],
}

PLAIN: dict[str, Callable[[], list[list[bytes]]]] = {
    "60,000 failing calls": lambda: [
        plain(n, b"connect_via_queue", b"\x91\xa0") for n in range(60_000)
    ],
    "60,000 calls of rpc.describe": lambda: [plain(n, b"rpc.describe") for n in range(60_000)],
    "60,000 calls of an unknown name": lambda: [plain(n, b"nope") for n in range(60_000)],
    "60,000 answers": lambda: (
        [plain(1, b"add", b"\x91\x01")]
        + [[struct.pack("=HHLd?", 1, 2, 7, 0.0, False), b"\xc0"]] * 60_000
    ),
    "4,000,000 empty arrays": lambda: [
        plain(1, b"take", b"\x91" + array(4_000_000) + b"\x90" * 4_000_000)
    ],
    "4,000,000 empty maps": lambda: [
        plain(1, b"take", b"\x91" + array(4_000_000) + b"\x80" * 4_000_000)
    ],
}


def asks(part: bytes) -> list[bytes]:
    """A call whose arguments are so many of one part as there can be."""
    return [filled(b'{"jsonrpc":"2.0","id":1,"method":"add","params":[', part, b"1]}")]


#: JSON texts, which go over each way that carries them.
TEXTS: dict[str, Callable[[], list[bytes]]] = {
    "batches of rpc.discover": lambda: [text(requests(1000, "rpc.discover"))] * 30,
    "batches of failing notifications": lambda: (
        [text(notifications(1000, "connect_via_queue", params=[""]))] * 30
    ),
    "batches of an unknown name": lambda: [text(requests(1000, "nope"))] * 30,
    "batches of a coroutine": lambda: [text(requests(1000, "get", params=["x", True, 0]))] * 30,
    "batches of answers": lambda: (
        [text([{"jsonrpc": "2.0", "result": 1, "id": n} for n in range(1000)])] * 30
    ),
    "too many answers": lambda: [filled(b"[", b'{"id":1,"result":1},', b"{}]")],
    "malformed batches": lambda: [text([1] * 1000)] * 30,
    "empty arrays": lambda: asks(b"[],"),
    "empty objects": lambda: asks(b"{},"),
    "a batch of empty arrays": lambda: [filled(b"[", b"[],", b"1]")],
    "objects": lambda: asks(b'{"":0},'),
    "ones": lambda: asks(b"1,"),
    "tiny numbers": lambda: asks(b"5e-324,"),
    "digits": lambda: asks(b"9" * 4000 + b","),
    "a long number": lambda: asks(b"9" * 1_000_000 + b","),
    "a long fraction": lambda: asks(b"0." + b"9" * 1_000_000 + b","),
    "escapes": lambda: asks(b'"' + rb"\u00e9" * 1000 + b'",'),
    "open strings": lambda: [filled(b"[[" * 60, b'"\\', b"")],
    "brackets": lambda: [filled(b"", b"[", b"")],
}

#: Single texts, of which as many follow one another as fill 2 MB.
FLOODS: dict[str, bytes] = {
    "empty lines": b"",
    "spaces": b" ",
    "rpc.discover": text(requests(1, "rpc.discover")[0]),
    "failing notifications": text(notifications(1, "connect_via_queue", params=[""])[0]),
    "an unknown name": text(requests(1, "nope")[0]),
    "answers": b'{"jsonrpc":"2.0","result":1,"id":1}',
    "malformed texts": b"x",
    "a coroutine": text(requests(1, "get", params=["x", True, 0])[0]),
}


# -- ways to send it -------------------------------------------------------------------------


def over_zeromq(address: str, messages: list[list[bytes]]) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.sndhwm = dealer.rcvhwm = 0
        dealer.connect(address)
        end = time.monotonic() + PATIENCE
        for message in messages:
            dealer.send_multipart(message)
        # What is sent last is answered last.
        quiet = time.monotonic() + AFTERWARDS
        while time.monotonic() < min(end, quiet):
            if dealer.poll(100):
                quiet = time.monotonic() + AFTERWARDS
                with contextlib.suppress(zmq.Again):
                    for _ in range(1000):
                        dealer.recv_multipart(zmq.NOBLOCK)


def over_stream(address: str, data: bytes) -> None:
    """Bytes over TCP."""
    host, port = address.rsplit("//", 1)[1].rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=AFTERWARDS) as connection:
        end = time.monotonic() + PATIENCE
        connection.setblocking(False)
        rest = memoryview(data)
        quiet = time.monotonic() + AFTERWARDS
        while time.monotonic() < min(end, quiet):
            busy = False
            with contextlib.suppress(BlockingIOError):
                if rest:
                    rest = rest[connection.send(rest) :]
                    busy = True
            try:
                if not connection.recv(MIB):
                    return
                busy = True
            except BlockingIOError:
                pass
            except ConnectionError:
                return
            if busy or rest:
                quiet = time.monotonic() + AFTERWARDS
            if not busy:
                time.sleep(0.002)


def post(body: bytes) -> bytes:
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def frame(data: bytes) -> bytes:
    """A WebSocket's text message, with a mask that changes nothing."""
    size = len(data)
    if size < 126:
        head = bytes((0x81, 0x80 | size))
    elif size < 1 << 16:
        head = bytes((0x81, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x81, 0x80 | 127)) + size.to_bytes(8, "big")
    return head + bytes(4) + data


Attack = Callable[[dict[str, str]], None]


def _attacks() -> Iterator[tuple[str, Attack]]:
    for name, messages in NATIVE.items():
        yield f"native: {name}", lambda to, m=messages: over_zeromq(to["node"], m())
    for name, messages in PLAIN.items():
        yield f"aiozmq: {name}", lambda to, m=messages: over_zeromq(to["node"], m())
    for name, texts in TEXTS.items():
        yield (
            f"JSON over ZeroMQ: {name}",
            lambda to, t=texts: over_zeromq(to["zeromq"], [[each] for each in t()]),
        )
        yield (
            f"JSON at the node: {name}",
            lambda to, t=texts: over_zeromq(to["node"], [[each] for each in t()]),
        )
        yield f"POST: {name}", lambda to, t=texts: over_stream(to["http"], b"".join(map(post, t())))
        yield (
            f"WebSocket: {name}",
            lambda to, t=texts: over_stream(to["http"], UPGRADE + b"".join(map(frame, t()))),
        )
        yield (
            f"TCP: {name}",
            lambda to, t=texts: over_stream(to["tcp"], b"".join(each + b"\n" for each in t())),
        )
    for name, each in FLOODS.items():
        count = 2 * MIB // (len(each) + 1)
        yield (
            f"TCP: a flood of {name}",
            lambda to, e=each, n=count: over_stream(to["tcp"], (e + b"\n") * n),
        )
        yield (
            f"WebSocket: a flood of {name}",
            lambda to, e=each, n=count: over_stream(to["http"], UPGRADE + frame(e) * n),
        )
        yield (
            f"POST: a flood of {name}",
            lambda to, e=each, n=count: over_stream(to["http"], post(e) * min(n, 20_000)),
        )
        yield (
            f"JSON over ZeroMQ: a flood of {name}",
            lambda to, e=each, n=count: over_zeromq(to["zeromq"], [[e]] * n),
        )
    yield "HTTP: bad requests", lambda to: over_stream(to["http"], b"\x00\r\n" * 400_000)
    yield (
        "HTTP: heads",
        lambda to: over_stream(to["http"], b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 40_000),
    )


ATTACKS: dict[str, Attack] = dict(_attacks())


# -- what it does to others ------------------------------------------------------------------


class Victim:
    """A server in a process of its own, and a client of it that measures."""

    def __init__(self, addresses: dict[str, str], client: rpc.Client, log: Path) -> None:
        self.addresses = addresses
        self._client = client
        self._log = log

    async def longest_wait(self, attack: Attack) -> float:
        """Seconds that a call of another client waits at most meanwhile."""
        attacking = asyncio.ensure_future(asyncio.to_thread(attack, self.addresses))
        longest = 0.0
        while not attacking.done():
            began = time.monotonic()
            async with asyncio.timeout(60):
                assert await self._client.rpc.add(1) == 2
            longest = max(longest, time.monotonic() - began)
            await asyncio.sleep(PACE)
        await attacking
        return longest

    @property
    def logged(self) -> int:
        """Bytes that it has logged."""
        return self._log.stat().st_size


@contextlib.asynccontextmanager
async def victim(log: Path) -> AsyncIterator[Victim]:
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [sys.executable, str(HERE / "attacked_server.py")],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            addresses = json.loads(await asyncio.to_thread(process.stdout.readline))
            async with await rpc.open_client(connect=addresses["node"]) as client:
                yield Victim(addresses, client, log)
        finally:
            process.kill()


async def main(wanted: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for name, attack in ATTACKS.items():
            if wanted not in name:
                continue
            async with victim(Path(folder) / "log") as server:
                began = time.monotonic()
                longest = await server.longest_wait(attack)
                took = time.monotonic() - began
                print(
                    f"{longest * 1000:8.0f} ms {took:6.1f} s {server.logged >> 10:8} KiB  {name}",
                    flush=True,
                )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else ""))
