"""``berrymq doctor tcp://...`` and ``ipc://...``, at all that may be there."""

import asyncio
import contextlib
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq
import zmq.asyncio

from berrymq_rpc import Bus, Node, rpc
from berrymq_rpc.cli.doctor import first_words, network
from berrymq_rpc.cli.doctor.check import Check
from berrymq_rpc.cli.doctor.zeromq import examine
from berrymq_rpc.jsonrpc.bridge import Bridge
from berrymq_rpc.jsonrpc.zeromq import RPCServer
from berrymq_rpc.security import CurveClient, CurveServer, KeyPair, Security

from .conftest import LONG, MEDIUM, SHORT, collected, statuses

ROOT = Path(__file__).resolve().parents[3]

REACHED = {"name": "ok", "address": "ok", "port": "ok"}
WELL = REACHED | dict.fromkeys(("protocol", "keys", "version", "clock", "latency", "limits"), "ok")


async def examined(
    endpoint: str, security: Security | None = None, timeout: float = LONG
) -> dict[str, Check]:
    return await collected(examine(endpoint, security, timeout, "0.1.0"))


def advice(check: Check) -> str:
    assert check.advice is not None
    return check.advice


@asynccontextmanager
async def saying(first: bytes, answer: bytes = b"", *, close: bool = False) -> AsyncIterator[str]:
    """A server that says something at once, and answers whatever it is asked."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        with contextlib.suppress(ConnectionError):
            if not close and await reader.read(100):
                writer.write(answer)
                if not answer:
                    await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"


# -- all is well -----------------------------------------------------------------------------


async def test_a_server() -> None:
    async with await rpc.start_server({}, bind="tcp://127.0.0.1:*") as server:
        found = await examined(server.endpoints[0])
        assert statuses(found) == WELL
        assert found["limits"].details["window"] == 500
        assert found["latency"].details["count"] == 10
        assert found["protocol"].details["dialect"] == "native"
        assert server.statistics()["malformed"] == 0


async def test_a_slow_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A greeting that comes after the other questions is one all the same."""
    monkeypatch.setattr(first_words, "UNASKED", 0.0)
    async with await rpc.start_server({}, bind="tcp://127.0.0.1:*") as server:
        assert statuses(await examined(server.endpoints[0])) == WELL


async def test_a_node_by_its_name() -> None:
    async with Node("tcp://127.0.0.1:*", Bus()) as node:
        port = node.endpoints[0].rpartition(":")[2]
        found = await examined(f"tcp://localhost:{port}")
    assert statuses(found) == WELL
    assert "127.0.0.1" in found["name"].details["addresses"]


async def test_ipv6(ipv6: None) -> None:
    async with await rpc.start_server({}, bind="tcp://[::1]:*") as server:
        found = await examined(server.endpoints[0])
    assert statuses(found) == WELL
    assert "IPv6" in found["name"].text


# -- name, address, port ----------------------------------------------------------------------


async def test_a_wrong_name() -> None:
    found = await examined("tcp://no.such.host.invalid:5555")
    assert statuses(found) == {"name": "failed"}
    assert "spelt" in advice(found["name"])


async def test_a_name_server_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver blocks a thread, which nothing waits for."""
    blocked, done = asyncio.Event(), socket.socketpair()
    loop = asyncio.get_running_loop()

    def hang(*arguments: Any, **options: Any) -> Any:
        loop.call_soon_threadsafe(blocked.set)
        done[0].recv(1)
        raise OSError("over")

    with monkeypatch.context() as patch:
        patch.setattr(network.socket, "getaddrinfo", hang)
        found = await examined("tcp://a.slow.name:5555", timeout=SHORT)
    assert blocked.is_set()
    for each in done:
        each.close()
    assert statuses(found) == {"name": "failed"}
    assert "not resolved within" in found["name"].text


async def test_nothing_listens() -> None:
    found = await examined("tcp://127.0.0.1:1")
    assert statuses(found) == {"name": "ok", "address": "ok", "port": "failed"}
    assert "berrymq serve --bind tcp://127.0.0.1:1" in advice(found["port"])


async def test_a_firewall_that_drops() -> None:
    """A queue of connections that is full drops what comes, as a firewall does."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = []
        for _ in range(8):
            each = socket.socket()
            each.setblocking(False)
            each.connect_ex(listener.getsockname())
            waiting.append(each)
        try:
            found = await examined(f"tcp://127.0.0.1:{listener.getsockname()[1]}", timeout=SHORT)
        finally:
            for each in waiting:
                each.close()
    assert statuses(found) == {"name": "ok", "address": "failed"}
    assert "firewall" in advice(found["address"])


async def test_a_network_without_a_way(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unreachable(*arguments: object) -> Any:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(asyncio, "open_connection", unreachable)
    found = await examined("tcp://192.0.2.1:5555")
    assert statuses(found) == {"name": "ok", "address": "failed"}
    assert "route" in advice(found["address"])


async def test_one_address_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of 127.0.0.1 at a name that is an IPv6 address too is nothing to warn of."""
    monkeypatch.setattr(network, "_addresses", lambda host, port: ["::1", "127.0.0.1"])
    async with await rpc.start_server({}, bind="tcp://127.0.0.1:*") as server:
        port = int(server.endpoints[0].rpartition(":")[2])
        _, places = await network.resolve("two.names", port, LONG)
        address, open_port = (await network.connect(places, LONG)).checks
        monkeypatch.setattr(network, "_addresses", lambda host, port: ["127.9.9.9", "127.0.0.1"])
        _, places = await network.resolve("two.names", port, LONG)
        warned, _ = (await network.connect(places, LONG)).checks
    assert (address.status, open_port.status) == ("ok", "ok")
    assert "::1" in address.text
    assert warned.status == "warning"


# -- who answers ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "answer", "word"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", b"", "ssh"),
        (b"", b"HTTP/1.1 404 Not Found\r\n\r\n", "http"),
        (b'INFO {"version": "2.12.1"}\r\n', b"", "nats"),
        (b"", b"-ERR unknown command\r\n", "redis"),
        (b"welcome", b"", "other"),
    ],
)
async def test_other_servers(first: bytes, answer: bytes, word: str) -> None:
    async with saying(first, answer) as endpoint:
        found = await examined(endpoint)
    assert statuses(found) == REACHED | {"protocol": "failed"}
    assert found["protocol"].details["speaker"] == word


async def test_one_that_closes() -> None:
    async with saying(b"", close=True) as endpoint:
        found = await examined(endpoint)
    assert found["protocol"].details["speaker"] == "closed"


async def test_a_listener_of_a_bridge() -> None:
    async with Bridge({}) as bridge:
        http = (await bridge.serve_http()).replace("http", "tcp")
        lines = await bridge.serve_tcp()
        assert (await examined(http))["protocol"].details["speaker"] == "http"
        assert (await examined(lines))["protocol"].details["speaker"] == "json"
        zeromq = await bridge.serve_zeromq("tcp://127.0.0.1:*")
        found = await examined(zeromq, timeout=LONG)
    assert found["protocol"].details["dialect"] == "jsonrpc"
    assert found["protocol"].status == "warning"


@pytest.mark.parametrize("kind", [zmq.PUB, zmq.PULL, zmq.SUB])
async def test_sockets_of_other_types(kind: int) -> None:
    context = zmq.asyncio.Context()
    try:
        with context.socket(kind) as other:
            port = other.bind_to_random_port("tcp://127.0.0.1")
            found = await examined(f"tcp://127.0.0.1:{port}")
    finally:
        context.term()
    assert statuses(found) == REACHED | {"protocol": "failed"}
    assert zmq.SocketType(kind).name in found["protocol"].text


async def test_a_rep_server() -> None:
    server = RPCServer(endpoint="tcp://127.0.0.1:*")
    server.start()
    try:
        found = await examined(server.endpoint, timeout=LONG)
    finally:
        await asyncio.to_thread(server.stop)
        server.close()
    assert found["protocol"].details["dialect"] == "jsonrpc"


@asynccontextmanager
async def router(answer: Any) -> AsyncIterator[str]:
    """A ROUTER that answers each message by what a function makes of its frames."""
    context = zmq.asyncio.Context()
    made = context.socket(zmq.ROUTER)
    made.linger = 0

    async def serve() -> None:
        while True:
            key, *frames = await made.recv_multipart()
            said = answer(frames)
            if said is not None:
                await made.send_multipart([key, *said])

    port = made.bind_to_random_port("tcp://127.0.0.1")
    task = asyncio.create_task(serve())
    try:
        yield f"tcp://127.0.0.1:{port}"
    finally:
        task.cancel()
        await asyncio.wait({task})
        made.close()
        context.term()


async def test_a_plain_aiozmq_server() -> None:
    def answer(frames: list[bytes]) -> list[bytes] | None:
        if len(frames) != 4:
            # It logs what it cannot read.
            return None
        *ids, _ = struct.unpack("=HHLd", frames[0])
        error = ("aiozmq.rpc.base.NotFoundError", (frames[1].decode(),), "NotFoundError()")
        return [struct.pack("=HHLd?", *ids, 0.0, True), msgpack.packb(error)]

    async with router(answer) as endpoint:
        found = await examined(endpoint, timeout=MEDIUM)
    assert statuses(found) == REACHED | {"protocol": "warning"}
    assert "--dialect aiozmq" in advice(found["protocol"])


async def test_a_router_that_says_nothing() -> None:
    async with router(lambda frames: None) as endpoint:
        found = await examined(endpoint, timeout=MEDIUM)
    assert statuses(found) == REACHED | {"protocol": "failed"}
    assert "answers nothing" in found["protocol"].text


async def test_a_server_of_another_version() -> None:
    head = b"\xc1bq\x01" + bytes(8) + b"\xdd" + (2).to_bytes(4, "big")
    greeting = msgpack.packb([0, {"versions": [7], "window": 9}])
    goodbye = msgpack.packb([12, "no version in common"])
    async with router(lambda frames: [head + greeting + goodbye]) as endpoint:
        found = await examined(endpoint)
    assert found["version"].status == "failed"
    assert "this command" in advice(found["version"])


async def test_a_frozen_server() -> None:
    program = "import zmq; s = zmq.Context().socket(zmq.ROUTER); "
    program += "print(s.bind_to_random_port('tcp://127.0.0.1'), flush=True); s.recv()"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        server.send_signal(signal.SIGSTOP)
        try:
            found = await examined(f"tcp://127.0.0.1:{port}", timeout=SHORT)
        finally:
            server.kill()
    assert statuses(found) == REACHED | {"protocol": "failed"}
    assert found["protocol"].details["speaker"] == "silent"
    assert "frozen" in advice(found["protocol"])


# -- keys -----------------------------------------------------------------------------------


@pytest.fixture
def pair() -> KeyPair:
    return KeyPair.generate()


async def test_keys(pair: KeyPair) -> None:
    own = KeyPair.generate()
    security = CurveServer(pair, {own.public})
    async with await rpc.start_server({}, bind="tcp://127.0.0.1:*", security=security) as server:
        endpoint = server.endpoints[0]
        good = await examined(endpoint, CurveClient(own, server=pair.public))
        assert statuses(good) == WELL
        assert own.public in good["keys"].text
        none = await examined(endpoint)
        assert (none["keys"].status, none["keys"].details["reason"]) == ("failed", "keys wanted")
        other = await examined(endpoint, CurveClient(KeyPair.generate(), server=pair.public))
        assert other["keys"].details["reason"] == "key"
        assert "berrymq authorize" in advice(other["keys"])
        wrong = await examined(endpoint, CurveClient(own, server=own.public))
        assert wrong["keys"].details["reason"] == "handshake"


async def test_keys_at_a_server_without(pair: KeyPair) -> None:
    async with await rpc.start_server({}, bind="tcp://127.0.0.1:*") as server:
        found = await examined(server.endpoints[0], CurveClient(None, server=pair.public))
    assert found["keys"].details["reason"] == "no keys"


# -- files ----------------------------------------------------------------------------------


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A path that fits into the name of a socket."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "node"


async def test_a_socket(short_path: Path) -> None:
    endpoint = f"ipc://{short_path}"
    found = await examined(endpoint)
    assert statuses(found) == {"file": "failed"}
    assert f"berrymq serve --bind {endpoint}" in advice(found["file"])
    async with await rpc.start_server({}, bind=endpoint):
        found = await examined(endpoint)
        assert statuses(found) == dict.fromkeys(found, "ok")
        assert set(found) == {*WELL, "file"} - {"name", "address"}
        assert found["file"].details["mode"] == "0600"
        os.chmod(short_path, 0o666)
        assert (await examined(endpoint))["file"].status == "warning"
    nowhere = await examined(f"ipc://{short_path}/there/node")
    assert "folder" in advice(nowhere["file"])


async def test_a_file_that_is_left_over(short_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(short_path))
    found = await examined(f"ipc://{short_path}")
    assert found["port"].status == "failed"
    assert "left over" in advice(found["port"])
    short_path.unlink()
    short_path.touch()
    assert stat.S_ISREG(short_path.stat().st_mode)
    found = await examined(f"ipc://{short_path}")
    assert statuses(found) == {"file": "failed"}
    assert "no socket" in found["file"].text
