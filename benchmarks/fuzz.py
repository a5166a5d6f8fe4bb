"""Millions of messages that are almost right, from an authorized peer with keys.

    python benchmarks/fuzz.py [--millions N] [--seed S]

A server with keys runs in a process of its own, and so does the peer that attacks it: it takes good
messages of the three dialects, changes some bytes or frames of each, and sends them as fast as the
server reads. Meanwhile a client goes by a link that changes encrypted bytes, and a good client
calls. The exit status is 1 if the server ends, a good call fails or takes over a second, or memory
grows by more than 64 MiB.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import struct
import subprocess
import sys
import time
from typing import Any

import msgpack
import zmq

from berrymq_rpc import rpc

SERVER_KEY, CLIENT_KEY = "FUZZ_SERVER_KEY", "FUZZ_CLIENT_KEY"

#: Good messages that are changed, messages between two answers that are waited for, and of one
#: connection.
POOL, BURST, CONNECTION = 2_000, 2_000, 100_000

#: Seconds that a good call may take, and MiB by which the server may grow.
LONGEST, GROWTH = 1.0, 64

VALUES: list[Any] = [None, 0, -1, 2**63, 1.5, "add", b"x" * 9000, [1, 2], {"b": 2}, True]

#: The id of a call that is answered after all that was sent before it.
LAST = 7_777_777


def keys_of(name: str) -> rpc.KeyPair:
    return rpc.KeyPair.from_environment(name)


def memory(process: int) -> float:
    """MiB that a process has in memory."""
    with open(f"/proc/{process}/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


# -- the server ----------------------------------------------------------------------------------


class Handler(rpc.AttrHandler):
    @rpc.method
    def add(self, a: Any, b: Any = 1) -> Any:
        return a + b

    @rpc.method
    async def later(self, *args: Any) -> None:
        await asyncio.sleep(0.01)

    @rpc.method
    async def numbers(self, count: int) -> Any:
        for number in range(min(count, 10)):
            yield number


async def serve() -> None:
    security = rpc.CurveServer(keys_of(SERVER_KEY), {keys_of(CLIENT_KEY).public})
    endpoint = "tcp://127.0.0.1:*"
    async with await rpc.start_server(Handler(), bind=endpoint, security=security) as server:
        print(*server.endpoints, flush=True)
        await asyncio.to_thread(sys.stdin.read)
        print(json.dumps(server.statistics()), flush=True)


# -- the attacker --------------------------------------------------------------------------------


def good_message(chance: random.Random, dialect: int) -> list[bytes]:
    """A message of a dialect, in order as far as its form goes."""
    number, name = chance.randrange(200), chance.choice(["add", "later", "numbers", "rpc.describe"])
    arguments = [chance.choice(VALUES) for _ in range(chance.randrange(3))]
    if dialect == 2:
        records = [
            msgpack.packb([chance.choice([*range(15)]), number, name, arguments, {}, 10**9])
            for _ in range(chance.randrange(1, 5))
        ]
        return native(records)
    return call(dialect, number, name, *arguments[: 2 * (dialect == 0)])


def native(records: list[bytes]) -> list[bytes]:
    return [b"\xc1bq\x01" + struct.pack(">QBI", 5, 0xDD, len(records)) + b"".join(records)]


def call(dialect: int, number: int, name: str, *arguments: Any) -> list[bytes]:
    """A call, of aiozmq's dialect, of JSON-RPC, or a native one."""
    if dialect == 0:
        head = struct.pack("=HHLd", 1, 2, number, 0.0)
        return [head, name.encode(), msgpack.packb(arguments), b"\x80"]
    if dialect == 1:
        text = {"jsonrpc": "2.0", "method": name, "params": arguments, "id": number}
        return [json.dumps(text).encode()]
    return native([msgpack.packb([1, number, name, arguments, {}])])


def wait_for_last(socket: Any) -> bool:
    """Read the answers up to the last one's, for five seconds at most."""
    marks = struct.pack("=L", LAST), msgpack.packb(LAST), str(LAST).encode()
    end = time.monotonic() + 5
    while socket.poll(max(0, int((end - time.monotonic()) * 1000))):
        data = b"".join(socket.recv_multipart())
        if any(mark in data for mark in marks):
            return True
    return False


def changed(chance: random.Random, message: list[bytes]) -> list[bytes]:
    frames = [bytearray(frame) for frame in message]
    for _ in range(chance.randrange(4)):
        frame = chance.choice(frames)
        match chance.randrange(8):
            case 0:
                del frame[chance.randrange(len(frame) + 1) :]
            case 1:
                frames.insert(chance.randrange(len(frames) + 1), bytearray(chance.randbytes(9)))
            case 2:
                frame += chance.randbytes(chance.randrange(20))
            case _ if frame:
                frame[chance.randrange(len(frame))] = chance.randrange(256)
    return [bytes(frame) for frame in frames]


def attack(endpoint: str, count: int, seed: int) -> None:
    chance = random.Random(seed)
    pools = [[good_message(chance, dialect) for _ in range(POOL)] for dialect in range(3)]
    client, server = keys_of(CLIENT_KEY), keys_of(SERVER_KEY).public
    sent = unanswered = 0
    with zmq.Context() as context:
        while sent < count:
            dialect = sent // CONNECTION % 3
            with context.socket(zmq.DEALER) as socket:
                socket.linger = 0
                socket.sndtimeo = 20_000
                # Its own queue of answers is read after each burst.
                socket.rcvhwm = 0
                socket.curve_publickey = client.public.encode()
                socket.curve_secretkey = client.secret.encode()
                socket.curve_serverkey = server.encode()
                socket.connect(endpoint)
                # The first message says which dialect it is.
                socket.send_multipart(call(dialect, 1, "add", 1, 2))
                for _ in range(max(1, min(CONNECTION, count - sent) // BURST)):
                    for _ in range(BURST):
                        socket.send_multipart(changed(chance, chance.choice(pools[dialect])))
                    sent += BURST
                    socket.send_multipart(call(dialect, LAST, "nothing"))
                    unanswered += not wait_for_last(socket)
            print(f"{sent:,} sent, {unanswered} calls without an answer", flush=True)


# -- what is measured ----------------------------------------------------------------------------


async def damage(endpoint: str, chance: random.Random) -> None:
    """A link that changes encrypted bytes, and a client that goes by it again and again."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := bytearray(await reader.read(1 << 16)):
                if chance.random() < 0.3:
                    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
                writer.write(data)
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(host, int(port))
        await asyncio.gather(carry(reader, there[1]), carry(there[0], writer))

    security = rpc.CurveClient(keys_of(CLIENT_KEY), server=keys_of(SERVER_KEY).public)
    async with await asyncio.start_server(accept, "127.0.0.1", 0) as link:
        by_link = f"tcp://127.0.0.1:{link.sockets[0].getsockname()[1]}"
        while True:
            async with await rpc.open_client(
                connect=by_link, security=security, timeout=0.3, connect_timeout=0.3
            ) as client:
                for _ in range(20):
                    with contextlib.suppress(rpc.Error):
                        await client.rpc.add(1)


async def run(millions: float, seed: int) -> int:
    for name in (SERVER_KEY, CLIENT_KEY):
        os.environ[name] = rpc.KeyPair.generate().secret
    command = [sys.executable, __file__]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    server = subprocess.Popen([*command, "server"], stderr=subprocess.PIPE, **pipes)
    assert server.stdin is not None
    assert server.stdout is not None
    assert server.stderr is not None
    log = asyncio.create_task(asyncio.to_thread(server.stderr.read))
    endpoint = server.stdout.readline().strip()
    security = rpc.CurveClient(keys_of(CLIENT_KEY), server=keys_of(SERVER_KEY).public)
    longest, answers, began = 0.0, 0, time.monotonic()
    failures: list[str] = []
    count = int(millions * 1_000_000)
    async with await rpc.open_client(connect=endpoint, security=security, timeout=10) as client:
        await client.rpc.add(1)
        before = memory(server.pid)
        damaging = asyncio.create_task(damage(endpoint, random.Random(seed)))
        enemy = subprocess.Popen([*command, "attack", endpoint, str(count), str(seed)])
        while enemy.poll() is None and server.poll() is None and not failures:
            asked = time.monotonic()
            try:
                answers += (await client.rpc.add(1)) == 2
            except rpc.Error as error:
                failures.append(f"a good call failed: {error!r}")
            longest = max(longest, time.monotonic() - asked)
            await asyncio.sleep(0.01)
        enemy.kill()
        enemy.wait()
        damaging.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await damaging
        grown = memory(server.pid) - before if server.poll() is None else 0.0
    took = time.monotonic() - began
    if server.poll() is not None:
        failures.append(f"the server has ended with status {server.returncode}")
        statistics = ""
    else:
        server.stdin.close()
        statistics = server.stdout.readline().strip()
        server.wait(30)
    written = len(await log)
    if longest > LONGEST:
        failures.append(f"a good call took {longest:.2f} s")
    if grown > GROWTH:
        failures.append(f"the server grew by {grown:.0f} MiB")
    print(f"{count:,} messages in {took:.0f} s, seed {seed}")
    print(f"good calls: {answers:,}, the longest took {longest * 1000:.0f} ms")
    print(f"the server grew by {grown:.1f} MiB and logged {written:,} characters")
    print(statistics)
    print(*failures or ["nothing failed"], sep="\n")
    return 1 if failures else 0


def main() -> None:
    match sys.argv[1:]:
        case ["server"]:
            asyncio.run(serve())
        case ["attack", endpoint, count, seed]:
            attack(endpoint, int(count), int(seed))
        case _:
            parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
            parser.add_argument("--millions", type=float, default=1.0)
            parser.add_argument("--seed", type=int, default=1)
            options = parser.parse_args()
            sys.exit(asyncio.run(run(options.millions, options.seed)))


if __name__ == "__main__":
    main()
