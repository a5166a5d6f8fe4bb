"""Peers that die, freeze, restart and lie: each in a process of its own."""

import asyncio
import contextlib
import logging
import os
import random
import resource
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from berrymq_rpc import rpc

Until = Callable[..., Awaitable[None]]

ROOT = Path(__file__).parents[2]

#: Seconds that a busy machine may take longer than is asked for.
SLACK = 1.0


def unused_tcp() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


async def outcomes(calls: list[Any], seconds: float) -> list[Any]:
    async with asyncio.timeout(seconds):
        return await asyncio.gather(*calls, return_exceptions=True)


# -- a server that is killed -------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["tcp", "ipc"])
async def test_killed_server(
    server_process: Any, until: Until, scheme: str, tmp_path: Path
) -> None:
    bind = "tcp://127.0.0.1:*" if scheme == "tcp" else f"ipc:///tmp/berrymq-{os.getpid()}"
    server = server_process("--bind", bind)
    async with await rpc.open_client(connect=server.endpoint) as client:
        accepted = [client.rpc.forever() for _ in range(10)]
        await until(lambda: len(server.lines) == 10)
        waiting = [client.rpc.wait() for _ in range(10)]
        await until(lambda: len(server.lines) == 20)
        ended: list[float] = []
        for call in accepted + waiting:
            call.add_done_callback(lambda _: ended.append(time.monotonic()))
        killed = server.send(signal.SIGKILL)
        got = await outcomes(accepted + waiting, 5)
        assert {type(error) for error in got} == {rpc.ConnectionLostError}
        assert isinstance(got[0], ConnectionError)
        assert max(ended) - killed < 0.1 + SLACK
        assert "'forever' was accepted, and running for " in str(got[0])
        assert client.statistics()["calls_in_flight"] == 0
    if scheme == "ipc":
        Path(bind.removeprefix("ipc://")).unlink(missing_ok=True)


async def test_progress_in_the_text(server_process: Any, until: Until) -> None:
    """It says of each call how far it came."""
    server = server_process()
    async with await rpc.open_client(
        connect=server.endpoint, limits=rpc.Limits(window=3)
    ) as client:
        assert await client.rpc.add(1) == 2
        accepted = client.rpc.forever()
        await until(lambda: server.lines == ["started"])
        while accepted.accepted_at is None:
            await asyncio.sleep(0.001)
        held = client.rpc.hold(30)
        await until(lambda: server.lines == ["started", "started"])
        sent = client.rpc.add(1)
        unsent = [client.rpc.forever() for _ in range(600)]
        await asyncio.sleep(0.05)
        server.send(signal.SIGKILL)
        texts = [str(error) for error in await outcomes([accepted, held, sent, *unsent], 5)]
        assert "'forever' was accepted, and running for" in texts[0]
        assert "'hold' was sent" in texts[1]
        assert "'add' was sent" in texts[2]
        assert "'forever' was not sent" in texts[-1]


async def test_killed_server_comes_back(server_process: Any, until: Until) -> None:
    endpoint = unused_tcp()
    async with await rpc.open_client(connect=endpoint, timeout=10) as client:
        processes = []
        for _ in range(3):
            server = server_process("--bind", endpoint)
            ready = time.monotonic()
            processes.append(await client.rpc.process())
            assert time.monotonic() - ready < 1.0 + SLACK
            call = client.rpc.forever()
            await until(lambda server=server: "started" in server.lines)
            server.send(signal.SIGKILL)
            with pytest.raises(rpc.ConnectionLostError):
                await call
            server.wait()
            await until(lambda: client.statistics()["peers"] == 0)
            # Between two servers calls wait for the next.
            waiting = client.rpc.add(1)
            assert not waiting.done()
            waiting.cancel()
        assert len(set(processes)) == 3


async def test_killed_server_in_a_stream(server_process: Any) -> None:
    server = server_process()
    async with await rpc.open_client(connect=server.endpoint) as client:
        got = 0
        with pytest.raises(rpc.ConnectionLostError):
            async with asyncio.timeout(5):
                async for _ in client.rpc.ticks():
                    got += 1
                    if got == 100:
                        server.send(signal.SIGKILL)
        assert got >= 100


async def test_killed_server_in_calls_back(server_process: Any, until: Until) -> None:
    """A handler of the client's that serves the server is cancelled."""
    program = """
    import asyncio, sys
    from berrymq_rpc import rpc

    async def serve():
        async def ask():
            await rpc.context().peer.rpc.forever()
        server = await rpc.start_server({"ask": rpc.method(ask)}, bind="tcp://127.0.0.1:*")
        print(server.endpoints[0], flush=True)
        await server.wait_closed()

    asyncio.run(serve())
    """
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def forever() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        try:
            assert server.stdout is not None
            endpoint = server.stdout.readline().strip()
            mine = {"forever": rpc.method(forever)}
            async with await rpc.open_client(connect=endpoint, handler=mine) as client:
                call = client.rpc.ask()
                await started.wait()
                server.kill()
                with pytest.raises(rpc.ConnectionLostError):
                    await call
                async with asyncio.timeout(SLACK):
                    await cancelled.wait()
        finally:
            server.kill()


async def test_one_of_two_servers_is_killed(server_process: Any, until: Until) -> None:
    first, second = server_process(), server_process()
    endpoints = [first.endpoint, second.endpoint]
    async with await rpc.open_client(connect=endpoints) as client:
        await until(lambda: client.statistics()["peers"] == 2)
        calls = [client.rpc.forever() for _ in range(20)]
        await until(lambda: len(first.lines) == len(second.lines) == 10)
        first.send(signal.SIGKILL)
        await until(lambda: sum(call.done() for call in calls) == 10)
        assert await asyncio.gather(*[client.rpc.add(number) for number in range(100)])
        assert sum(call.done() for call in calls) == 10
        for call in calls:
            call.cancel()
        await until(lambda: second.lines.count("cancelled") == 10)


# -- a server that freezes ---------------------------------------------------------------------


async def test_frozen_server(server_process: Any, until: Until) -> None:
    heartbeat = 0.4
    server = server_process("--heartbeat", str(heartbeat))
    limits = rpc.Limits(heartbeat=heartbeat)
    async with await rpc.open_client(connect=server.endpoint, limits=limits) as client:
        call = client.rpc.forever()
        await until(lambda: server.lines == ["started"])
        frozen = server.send(signal.SIGSTOP)
        with pytest.raises(rpc.ConnectionLostError):
            async with asyncio.timeout(5):
                await call
        assert time.monotonic() - frozen < 2 * heartbeat + SLACK
        with pytest.raises(rpc.RPCTimeoutError):
            await client.with_timeout(0.2).rpc.add(1)
        server.send(signal.SIGCONT)
        assert await client.with_timeout(5).rpc.add(1) == 2
        await until(lambda: "cancelled" in server.lines)


async def test_calls_that_timed_out_while_the_server_was_frozen_never_run(
    server_process: Any, until: Until
) -> None:
    """Those that it had received before it noticed anything, and those made meanwhile."""
    server = server_process("--heartbeat", "20")
    limits = rpc.Limits(heartbeat=20)
    async with await rpc.open_client(connect=server.endpoint, limits=limits) as client:
        await client.rpc.count()
        server.send(signal.SIGSTOP)
        quick = client.with_timeout(0.2)
        calls = [quick.rpc.count() for _ in range(2000)]
        got = await outcomes(calls, 10)
        assert {type(error) for error in got} == {rpc.RPCTimeoutError}
        server.send(signal.SIGCONT)
        assert await client.rpc.counted() == 1
        for _ in range(20):
            await client.rpc.add(1)
        assert await client.rpc.counted() == 1
        assert client.statistics()["calls_in_flight"] == 0


async def test_calls_that_timed_out_without_a_server_never_run(
    server_process: Any, until: Until
) -> None:
    endpoint = unused_tcp()
    server = server_process("--bind", endpoint)
    async with await rpc.open_client(connect=endpoint) as client:
        await client.rpc.count()
        server.send(signal.SIGKILL)
        server.wait()
        await until(lambda: client.statistics()["peers"] == 0)
        quick = client.with_timeout(0.2)
        got = await outcomes([quick.rpc.count() for _ in range(5000)], 10)
        assert {type(error) for error in got} == {rpc.RPCTimeoutError}
        server_process("--bind", endpoint)
        assert await client.with_timeout(10).rpc.counted() == 0
        assert client.statistics()["calls_in_flight"] == 0


async def test_our_timeout_is_ours_however_late_we_look(server_process: Any, until: Until) -> None:
    """The server's word that the time is over may be read before this side's own timer rings."""
    server = server_process()
    async with await rpc.open_client(connect=server.endpoint) as client:
        await client.rpc.add(1)
        call = client.with_timeout(0.1).rpc.forever()
        await until(lambda: "started" in server.lines)
        time.sleep(0.4)
        with pytest.raises(rpc.RPCTimeoutError, match="'forever'"):
            await call


async def test_a_handler_that_holds_the_loop_is_no_lost_server(server_process: Any) -> None:
    server = server_process("--heartbeat", "0.2")
    limits = rpc.Limits(heartbeat=0.2)
    async with await rpc.open_client(connect=server.endpoint, limits=limits) as client:
        assert await client.rpc.hold(1.0) is None


async def test_a_held_loop_is_no_lost_peer_in_memory() -> None:
    """Where both ends share the loop that a handler holds."""
    limits = rpc.Limits(heartbeat=0.1)
    hold = {"hold": rpc.method(lambda seconds: time.sleep(seconds))}
    async with (
        await rpc.start_server(hold, bind="mem://*", limits=limits) as server,
        await rpc.open_client(connect=server.endpoints, limits=limits) as client,
    ):
        for _ in range(5):
            assert await client.rpc.hold(0.3) is None


# -- clients that leave ------------------------------------------------------------------------

CLIENT = """
    import asyncio, sys
    from berrymq_rpc import rpc

    async def main():
        limits = rpc.Limits(heartbeat=float(sys.argv[2]))
        client = await rpc.open_client(connect=sys.argv[1], limits=limits)
        calls = [client.rpc.forever() for _ in range(5)]
        calls += [client.rpc.wait() for _ in range(5)]
        stream = client.rpc.stream()
        await anext(stream)
        print("calling", flush=True)
        await asyncio.gather(*calls)

    asyncio.run(main())
"""


class Waiting(rpc.AttrHandler):
    def __init__(self) -> None:
        self.running = 0

    @rpc.method
    async def forever(self):
        self.running += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.running -= 1

    @rpc.method(waits=True)
    async def wait(self):
        await self.forever()

    @rpc.method
    async def stream(self):
        self.running += 1
        try:
            while True:
                yield 1
        finally:
            self.running -= 1

    @rpc.method
    def add(self, a, b=1):
        return a + b


@contextlib.contextmanager
def client_process(endpoint: str, heartbeat: float) -> Any:
    command = [sys.executable, "-c", textwrap.dedent(CLIENT), endpoint, str(heartbeat)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("number", "heartbeat", "within"),
    [(signal.SIGKILL, 2.0, 0.1), (signal.SIGINT, 2.0, 0.1), (signal.SIGSTOP, 0.4, 0.8)],
)
async def test_client_that_leaves(
    until: Until, number: signal.Signals, heartbeat: float, within: float
) -> None:
    handler = Waiting()
    limits = rpc.Limits(heartbeat=heartbeat)
    async with await rpc.start_server(handler, bind="tcp://127.0.0.1:*", limits=limits) as server:
        with client_process(server.endpoints[0], heartbeat) as process:
            assert await asyncio.to_thread(process.stdout.readline) == "calling\n"
            await until(lambda: handler.running == 11)
            process.send_signal(number)
            left = time.monotonic()
            await until(lambda: handler.running == 0)
            assert time.monotonic() - left < within + SLACK
            assert server.statistics()["peers"] == 0
            assert server.statistics()["calls_served"] == 0
            async with await rpc.open_client(connect=server.endpoints) as client:
                assert await client.rpc.add(1) == 2


# -- Ctrl-C in a handler -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("interrupt", "in sync"),
        ("interrupt_coroutine", "in coroutine"),
        ("interrupt_thread", "in thread"),
    ],
)
async def test_keyboard_interrupt_in_a_handler(server_process: Any, name: str, text: str) -> None:
    """It is answered, then the server ends as Ctrl-C ends it."""
    server = server_process()
    async with await rpc.open_client(connect=server.endpoint) as client:
        with pytest.raises(rpc.GenericError) as caught:
            async with asyncio.timeout(5):
                await client.call(name)
        assert caught.value.exc_type == "builtins.KeyboardInterrupt"
        assert caught.value.arguments == (text,)
        code = await asyncio.to_thread(server.wait)
        assert code == 3
        assert server.lines[-1] == "interrupted"
        assert "Traceback" not in server.errors()


async def test_keyboard_interrupt_in_a_stream(server_process: Any) -> None:
    server = server_process()
    async with await rpc.open_client(connect=server.endpoint) as client:
        items = client.rpc.interrupt_stream()
        assert await anext(items) == 1
        with pytest.raises(rpc.GenericError, match="KeyboardInterrupt"):
            async with asyncio.timeout(5):
                await anext(items)
        assert await asyncio.to_thread(server.wait) == 3


async def test_ctrl_c_of_a_server(server_process: Any, until: Until) -> None:
    server = server_process()
    async with await rpc.open_client(connect=server.endpoint) as client:
        call = client.rpc.forever()
        await until(lambda: server.lines == ["started"])
        server.send(signal.SIGINT)
        with pytest.raises((rpc.ServiceClosedError, rpc.ConnectionLostError)):
            async with asyncio.timeout(10):
                await call
        assert await asyncio.to_thread(server.wait) == 3
        assert server.lines == ["started", "cancelled", "interrupted"]


# -- who sends what is no message --------------------------------------------------------------

REQUEST = struct.Struct("=HHLd")


def random_message(chance: random.Random) -> list[bytes]:
    """Frames that are nothing, or almost something."""
    native = b"\xc1bq\x01" + struct.pack(">Q", 5) + b"\xdd"
    heads = [
        b"",
        native,
        native + struct.pack(">I", chance.choice([0, 1, 2, 2**32 - 1])),
        native + struct.pack(">I", 1) + chance.randbytes(chance.randrange(40)),
        b"\xc1bq\x02" + chance.randbytes(20),
        b"\xc1bq",
        b'{"jsonrpc": "2.0", "method": "add", "id": 1}',
        b"[1, 2",
        REQUEST.pack(1, 2, chance.randrange(2**32), 0.0),
        struct.pack("=HHLd?", 1, 2, chance.randrange(100), 0.0, chance.random() < 0.5),
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


def record(*fields: Any) -> bytes:
    return msgpack.packb(fields)  # type: ignore[no-any-return]


def native_message(*records: bytes) -> list[bytes]:
    head = b"\xc1bq\x01" + struct.pack(">QBI", 5, 0xDD, len(records))
    return [head + b"".join(records)]


async def answers(client: rpc.Client, stop: asyncio.Event) -> float:
    """Call until told to stop; the longest time that an answer took."""
    longest = 0.0
    while not stop.is_set():
        began = time.monotonic()
        async with asyncio.timeout(5):
            assert await client.rpc.add(1) == 2
        longest = max(longest, time.monotonic() - began)
    return longest


async def hostile(server: rpc.Server, client: rpc.Client, send: Callable[[Any], None]) -> float:
    """Let a raw socket do its worst while a good client calls; its longest answer."""
    endpoint = server.endpoints[0]

    def attack() -> None:
        with zmq.Context() as context, context.socket(zmq.DEALER) as raw:
            raw.linger = 1000
            raw.sndtimeo = 5000
            raw.connect(endpoint)
            send(raw)

    stop = asyncio.Event()
    good = asyncio.create_task(answers(client, stop))
    try:
        await asyncio.to_thread(attack)
    finally:
        stop.set()
    return await good


@pytest.mark.nodebug
async def test_random_messages(pair: Any, caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(5)
    messages = [random_message(chance) for _ in range(3000)]

    def send(raw: Any) -> None:
        for message in messages:
            raw.send_multipart(message)

    caplog.set_level(logging.INFO)
    handler = {"add": rpc.method(lambda a, b=1: a + b)}
    async with pair(handler) as (server, client):
        longest = await hostile(server, client, send)
        assert longest < 0.1 + SLACK
        assert await client.rpc.add(1) == 2
        assert server.statistics()["malformed_messages"] > 100
        assert server.statistics()["calls_served"] == 0
    assert sum(len(record.getMessage()) for record in caplog.records) < 20_000


@pytest.mark.nodebug
async def test_random_messages_of_many_peers(pair: Any) -> None:
    """Each message is the first of its peer, by which the dialect is told."""
    chance = random.Random(6)

    def send(first: Any) -> None:
        with zmq.Context() as context:
            for _ in range(150):
                with context.socket(zmq.DEALER) as raw:
                    raw.linger = 1000
                    raw.connect(first.last_endpoint)
                    for _ in range(3):
                        raw.send_multipart(random_message(chance))

    async with pair({"add": rpc.method(lambda a, b=1: a + b)}) as (server, client):
        assert await hostile(server, client, send) < 0.1 + SLACK
        assert await client.rpc.add(1) == 2


@pytest.mark.nodebug
async def test_random_records(pair: Any) -> None:
    """Messages whose head is in order, with records that are not."""
    chance = random.Random(7)
    values: list[Any] = [None, 0, 1, -1, 2**63, "add", b"x", [], [1], {}, {"a": 1}, True, 1.5, "x"]

    def some_record() -> bytes:
        return record(
            chance.choice([*range(15), 255, -1, "x", None]),
            *(chance.choice(values) for _ in range(chance.randrange(6))),
        )

    def send(raw: Any) -> None:
        for _ in range(3000):
            records = [some_record() for _ in range(chance.randrange(4))]
            raw.send_multipart(native_message(*records))

    async with pair({"add": rpc.method(lambda a, b=1: a + b)}) as (server, client):
        assert await hostile(server, client, send) < 0.1 + SLACK
        assert await client.rpc.add(1) == 2
        assert server.statistics()["calls_served"] == 0


async def test_readable_calls_are_answered(pair: Any) -> None:
    """Where there is an id, there is an answer: none of these callers waits for ever."""
    calls = [
        record(1, 7, "nope", []),
        record(1, 7, "add", []),
        record(1, 7, "add", [1], {"c": 1}),
        record(1, 7, "add", {}),
        record(1, 7, 5, []),
        record(1, 7, "add"),
        record(1, 7, "add", [1], {}, "when"),
        record(1, 7, "add", [1], {}, 1, 2, 3),
        b"\x94\x01\x07\xa3add" + b"\x91" * 500 + b"\xc0",
        b"\x94\x01\x07\xa3add\xdd\xff\xff\xff\xff",
        b"\x94\x01\x07\xa3add\xc1",
    ]

    def ask(endpoint: str) -> list[int]:
        kinds = []
        for call in calls:
            with zmq.Context() as context, context.socket(zmq.DEALER) as raw:
                raw.linger = 0
                raw.rcvtimeo = 5000
                raw.connect(endpoint)
                raw.send_multipart(native_message(call))
                answered = None
                while answered is None:
                    (head,) = raw.recv_multipart()
                    for answer in msgpack.unpackb(head[12:], strict_map_key=False):
                        if answer[0] in (4, 5) and answer[1] == 7:
                            answered = answer[0]
                kinds.append(answered)
        return kinds

    async with pair({"add": rpc.method(lambda a, b=1: a + b)}) as (server, client):
        kinds = await asyncio.to_thread(ask, server.endpoints[0])
        assert kinds == [5] * len(calls)
        assert await client.rpc.add(1) == 2


async def test_one_id_for_two_calls(pair: Any, until: Until) -> None:
    """The second is refused; the first goes on."""
    handler = Waiting()

    def send(endpoint: str) -> list[Any]:
        with zmq.Context() as context, context.socket(zmq.DEALER) as raw:
            raw.linger = 0
            raw.rcvtimeo = 5000
            raw.connect(endpoint)
            calls = [record(1, 7, "forever", []), record(1, 7, "forever", [])]
            raw.send_multipart(native_message(*calls))
            found: list[Any] = []
            while not found:
                (head,) = raw.recv_multipart()
                found += [r for r in msgpack.unpackb(head[12:], strict_map_key=False) if r[0] == 5]
            return found

    async with pair(handler) as (server, client):
        found = await asyncio.to_thread(send, server.endpoints[0])
        assert len(found) == 1
        assert "in use" in found[0][4]
        await until(lambda: handler.running == 0)
        assert await client.rpc.add(1) == 2


async def test_large_frame_disconnects_its_sender_alone(pair: Any) -> None:
    def send(raw: Any) -> None:
        raw.send_multipart([bytes(5 << 20)])

    limits = {"limits": rpc.Limits(max_frame=1 << 20)}
    async with pair({"add": rpc.method(lambda a, b=1: a + b)}, server=limits) as (server, client):
        assert await hostile(server, client, send) < 0.1 + SLACK


async def test_bytes_that_are_no_zmtp(pair: Any, until: Until) -> None:
    chance = random.Random(8)
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16 + 1 + 31)

    def connect(host: str, port: int) -> None:
        for _ in range(200):
            with socket.create_connection((host, port), 5) as raw, contextlib.suppress(OSError):
                raw.sendall(greeting[: chance.randrange(65)])
                raw.sendall(chance.randbytes(chance.randrange(200)))

    async with pair({"add": rpc.method(lambda a, b=1: a + b)}) as (server, client):
        host, port = server.endpoints[0].removeprefix("tcp://").split(":")
        stop = asyncio.Event()
        good = asyncio.create_task(answers(client, stop))
        await asyncio.to_thread(connect, host, int(port))
        stop.set()
        assert await good < 0.1 + SLACK
        await until(lambda: server.statistics()["peers"] == 1)


async def test_hostile_server(until: Until) -> None:
    """A client is as safe from its server, and says what happened."""
    chance = random.Random(9)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as raw:
        raw.linger = 0
        port = raw.bind_to_random_port("tcp://127.0.0.1")
        stop = asyncio.Event()

        def serve() -> None:
            raw.rcvtimeo = 100
            while not stop.is_set():
                try:
                    key, *_ = raw.recv_multipart()
                except zmq.Again:
                    continue
                for _ in range(200):
                    raw.send_multipart([key, *random_message(chance)])
                for kind in range(14):
                    fields = [chance.choice([1, None, "x", [], {}]) for _ in range(3)]
                    raw.send_multipart([key, *native_message(record(kind, 1, *fields))])

        serving = asyncio.create_task(asyncio.to_thread(serve))
        try:
            endpoint = f"tcp://127.0.0.1:{port}"
            for _ in range(5):
                async with await rpc.open_client(connect=endpoint, timeout=0.3) as client:
                    calls = [client.rpc.add(number) for number in range(20)]
                    got = await outcomes(calls, 5)
                    assert len(got) == 20
        finally:
            stop.set()
            await serving


# -- over memory, with faults of its own -------------------------------------------------------


async def test_cut_connection_in_memory(until: Until) -> None:
    from berrymq_rpc.rpc.transport import memory

    endpoint = "mem://cut"
    faults = memory.faults(endpoint)
    handler = Waiting()
    async with (
        await rpc.start_server(handler, bind=endpoint) as server,
        await rpc.open_client(connect=endpoint) as client,
    ):
        call = client.rpc.forever()
        await until(lambda: handler.running)
        faults.cut()
        with pytest.raises(rpc.ConnectionLostError, match="'forever' was accepted"):
            await call
        await until(lambda: not handler.running)
        assert await client.with_timeout(5).rpc.add(1) == 2
        assert server.statistics()["peers"] == 1


async def test_silent_network_in_memory(until: Until) -> None:
    """Nobody is told, so both sides ping."""
    from berrymq_rpc.rpc.transport import memory

    endpoint = "mem://silence"
    faults = memory.faults(endpoint)
    handler = Waiting()
    limits = rpc.Limits(heartbeat=0.2)
    async with (
        await rpc.start_server(handler, bind=endpoint, limits=limits) as server,
        await rpc.open_client(connect=endpoint, limits=limits) as client,
    ):
        call = client.rpc.forever()
        await until(lambda: handler.running)
        faults.silence()
        began = time.monotonic()
        with pytest.raises(rpc.ConnectionLostError, match="silent"):
            await call
        assert time.monotonic() - began < 2 * 0.2 + SLACK
        await until(lambda: not handler.running)
        assert server.statistics()["peers"] == 0
        faults.restore()
        assert await client.with_timeout(5).rpc.add(1) == 2


async def test_idle_connection_stays(until: Until) -> None:
    limits = rpc.Limits(heartbeat=0.05)
    for endpoint in ("mem://*", "tcp://127.0.0.1:*"):
        async with (
            await rpc.start_server(Waiting(), bind=endpoint, limits=limits) as server,
            await rpc.open_client(connect=server.endpoints, limits=limits) as client,
        ):
            call = client.rpc.forever()
            await asyncio.sleep(0.5)
            assert not call.done()
            assert server.statistics()["peers"] == 1
            assert await client.rpc.add(1) == 2
            call.cancel()


async def test_frozen_and_thawed_in_memory(until: Until) -> None:
    """Calls that timed out meanwhile do not run, though they were received."""
    from berrymq_rpc.rpc.transport import memory

    endpoint = "mem://frozen"
    faults = memory.faults(endpoint)
    ran: list[int] = []
    limits = rpc.Limits(heartbeat=20)
    note = {"note": rpc.method(lambda number: ran.append(number))}
    async with (
        await rpc.start_server(note, bind=endpoint, limits=limits) as server,
        await rpc.open_client(connect=endpoint, limits=limits) as client,
    ):
        await client.rpc.note(0)
        faults.freeze()
        got = await outcomes([client.with_timeout(0.1).rpc.note(1) for _ in range(50)], 5)
        assert {type(error) for error in got} == {rpc.RPCTimeoutError}
        faults.thaw()
        await client.rpc.note(2)
        assert ran == [0, 2]
        assert server.statistics()["expired"] == 50


# -- what must be survived in numbers ----------------------------------------------------------


@pytest.mark.slow
@pytest.mark.nodebug
async def test_5_000_calls_of_a_client_whose_loop_is_held(server_process: Any) -> None:
    server = server_process()
    async with await rpc.open_client(connect=server.endpoint) as client:
        calls = [client.rpc.echo("x" * 1000) for _ in range(5_000)]
        await asyncio.sleep(0.01)
        time.sleep(3)
        assert set(await asyncio.gather(*calls)) == {"x" * 1000}
        calls = [client.rpc.echo("x" * 10_000) for _ in range(20_000)]
        assert set(await asyncio.gather(*calls)) == {"x" * 10_000}


@pytest.mark.slow
@pytest.mark.nodebug
async def test_100_000_slow_calls_of_one_client(until: Until) -> None:
    """Those over the bound are told so, and nothing is left when the client has left."""
    handler = Waiting()
    count = 100_000

    def ask(raw: Any) -> int:
        raw.linger = raw.sndhwm = raw.rcvhwm = 0
        raw.rcvtimeo = 5000
        for number in range(count):
            raw.send_multipart([REQUEST.pack(1, 2, number, 0.0), b"forever", b"\x90", b"\x80"])
        # The answer of one more says that all before it were dealt with.
        raw.send_multipart([REQUEST.pack(1, 2, count, 0.0), b"add", b"\x91\x01", b"\x80"])
        refused = 0
        while True:
            header, data = raw.recv_multipart()
            _, _, number, _, is_error = struct.unpack("=HHLd?", header)
            if number == count:
                return refused
            assert is_error
            assert b"max_queued_calls" in data
            refused += 1

    async with await rpc.start_server(handler, bind="tcp://127.0.0.1:*") as server:
        with zmq.Context() as context, context.socket(zmq.DEALER) as raw:
            raw.connect(server.endpoints[0])
            refused = await asyncio.to_thread(ask, raw)
            assert handler.running == 500
            assert count / 2 < refused < count - 500
        left = time.monotonic()
        await until(lambda: not handler.running)
        assert time.monotonic() - left < SLACK
        assert server.statistics()["calls_served"] == 0
        assert len(asyncio.all_tasks()) == 1


@pytest.mark.slow
@pytest.mark.nodebug
async def test_1_000_clients(until: Until) -> None:
    folder = Path("/proc/self/fd")
    if not folder.exists() or resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 8_000:
        pytest.skip("too few files may be open here, or they cannot be counted")
    async with await rpc.start_server(Waiting(), bind="tcp://127.0.0.1:*") as server:
        before = len(list(folder.iterdir()))
        clients = [await rpc.open_client(connect=server.endpoints) for _ in range(1_000)]
        calls = [client.rpc.add(number) for client in clients for number in range(10)]
        assert await asyncio.gather(*calls) == list(range(1, 11)) * 1_000
        for client in clients:
            client.close()
        for client in clients:
            await client.wait_closed()
        await until(lambda: not server.statistics()["peers"])
        await until(lambda: len(list(folder.iterdir())) <= before + 2)


UNREAD = """
    import asyncio, gc, struct
    import msgpack, zmq
    from berrymq_rpc import rpc

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    async def main():
        handler = {"give": rpc.method(lambda size: bytes(size)), "one": rpc.method(lambda: 1)}
        server = await rpc.start_server(handler, bind="tcp://127.0.0.1:*")
        client = await rpc.open_client(connect=server.endpoints)
        await client.rpc.one()
        context = zmq.Context()
        raws = [context.socket(zmq.DEALER) for _ in range(10)]
        for raw in raws:
            raw.linger, raw.rcvhwm, raw.sndhwm = 0, 1, 0
            raw.connect(server.endpoints[0])
        before = resident()
        for number in range(1500):
            header = struct.pack("=HHLd", 1, 2, number, 0.0)
            for raw in raws:
                raw.send_multipart([header, b"give", msgpack.packb((100_000,)), b"\\x80"])
            if number % 10 == 0:
                await client.rpc.one()
        for _ in range(100):
            await client.rpc.one()
        print((resident() - before) // 10)
        for raw in raws:
            raw.close()
        context.term()
        while server.statistics()["peers"] > 1:
            await asyncio.sleep(0.01)
        client.close()
        await client.wait_closed()
        server.close()
        await server.wait_closed()

    asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.xfail(reason="256 messages are in ZeroMQ's queue, of 100 KB each")
def test_memory_of_clients_that_do_not_read(run_program: Any) -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("memory cannot be measured here")
    finished = run_program(textwrap.dedent(UNREAD))
    if finished.returncode:
        pytest.fail(finished.stderr)
    assert int(finished.stdout) < 10_000_000
