"""What one host can take of a bridge's listeners, and what is left to others."""

import asyncio
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from berrymq_rpc import rpc
from berrymq_rpc.jsonrpc.bridge import Bridge

Until = Callable[..., Any]

TEXT = b'{"jsonrpc":"2.0","method":"add","params":[1,2],"id":1}'
ANSWER = {"jsonrpc": "2.0", "result": 3, "id": 1}
HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


#: Two hosts are seen here: that of 127.0.0.1, and that of ::1.
needs_another_host = pytest.mark.usefixtures("ipv6")


@rpc.method
def add(a: int, b: int) -> int:
    return a + b


def post(body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return HEAD + b"Content-Length: %d\r\n\r\n" % size + body


class Peer:
    """A connection that sends bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def response(self) -> tuple[int, bytes]:
        head = await self.reader.readuntil(b"\r\n\r\n")
        fields = dict(
            line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line
        )
        body = await self.reader.readexactly(int(fields.get(b"content-length", b"0")))
        return int(head.split(b" ")[1]), body

    async def call(self) -> Any:
        self.writer.write(post(TEXT))
        status, body = await self.response()
        assert status == 200, body
        return json.loads(body)

    async def closed(self) -> bool:
        """Wait for the end of the connection."""
        try:
            return await self.reader.read() == b""
        except ConnectionError:
            return True


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[Peer]:
    host, _, port = url.partition("://")[2].rpartition(":")
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port), **options)
    try:
        yield Peer(reader, writer)
    finally:
        writer.transport.abort()


@asynccontextmanager
async def crowd(url: str, count: int) -> AsyncIterator[list[Peer]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(connected(url)) for _ in range(count)]


async def told(peers: list[Peer], count: int, response: tuple[int, bytes]) -> None:
    """Wait until so many of these peers have got this response, and no peer another one."""
    enough = asyncio.Event()
    responses: list[tuple[int, bytes]] = []

    async def wait(peer: Peer) -> None:
        responses.append(await peer.response())
        if len(responses) >= count:
            enough.set()

    async with asyncio.TaskGroup() as waiting:
        tasks = [waiting.create_task(wait(peer)) for peer in peers]
        await enough.wait()
        for task in tasks:
            task.cancel()
    assert set(responses) == {response}


# -- places -----------------------------------------------------------------------------------


async def test_idle_connections_count(until: Until) -> None:
    async with Bridge({"add": add}, max_peers=10) as bridge:
        urls = [await bridge.serve_http(), await bridge.serve_tcp()]
        async with crowd(urls[0], 4) as http, crowd(urls[1], 3):
            assert await http[0].call() == ANSWER
            await until(lambda: bridge.statistics()["peers"] == 7)
        await until(lambda: bridge.statistics()["peers"] == 0)


@needs_another_host
@pytest.mark.parametrize("scheme", ["http", "tcp"])
async def test_a_host_that_holds_all_places(until: Until, scheme: str) -> None:
    async with Bridge({"add": add}, max_peers=20, max_host_peers=20) as bridge:
        url = await (bridge.serve_http() if scheme == "http" else bridge.serve_tcp())
        other = await bridge.serve_http("::1")
        async with crowd(url, 20) as peers:
            await until(lambda: bridge.statistics()["peers"] == 20)
            async with connected(other) as peer:
                # The oldest gives way: all of them are idle.
                assert await peer.call() == ANSWER
                assert await peers[0].closed()
            assert bridge.statistics()["peers_closed"] == 1
            assert bridge.statistics()["peers_refused"] == 0


@needs_another_host
async def test_a_host_has_a_tenth(until: Until) -> None:
    async with Bridge({"add": add}, max_peers=200) as bridge:
        url = await bridge.serve_tcp()
        other = await bridge.serve_tcp("::1")
        async with crowd(url, 20) as peers:
            for peer in peers:
                # They are served, and do not give way.
                peer.writer.write(TEXT + b"\n")
                assert json.loads(await peer.reader.readline()) == ANSWER
            async with connected(url) as further:
                refused = json.loads(await further.reader.readline())
                assert "max_host_peers=20 is reached" in refused["error"]["message"]
                assert await further.closed()
            assert bridge.statistics()["peers_refused"] == 1
            async with connected(other) as peer:
                peer.writer.write(TEXT + b"\n")
                assert json.loads(await peer.reader.readline()) == ANSWER


async def test_a_refused_client_is_told(until: Until) -> None:
    @rpc.method
    async def wait() -> None:
        await asyncio.Event().wait()

    async with Bridge({"add": add, "wait": wait}, max_peers=1, grace=0) as bridge:
        url = await bridge.serve_http()
        async with connected(url) as first:
            first.writer.write(post(b'{"jsonrpc":"2.0","method":"wait","id":1}'))
            await until(lambda: bridge.statistics()["calls_in_progress"] == 1)
            async with connected(url) as second:
                second.writer.write(post(TEXT))
                assert await second.response() == (503, b"max_peers=1 is reached\n")
                assert await second.closed()
        await until(lambda: bridge.statistics()["peers"] == 0)
        async with connected(url) as third:
            assert await third.call() == ANSWER


# -- calls by plain HTTP ------------------------------------------------------------------------


class Slow(rpc.AttrHandler):
    """Methods that end when they are let."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    @rpc.method
    async def work(self) -> int:
        await self.go.wait()
        return 1

    @rpc.method(waits=True)
    async def get(self) -> int:
        return await self.work()

    @rpc.method
    def add(self, a: int, b: int) -> int:
        return a + b


def batch(method: str, count: int) -> bytes:
    calls = [{"jsonrpc": "2.0", "method": method, "id": number} for number in range(count)]
    return post(json.dumps(calls).encode())


@needs_another_host
async def test_calls_of_one_host_by_post(until: Until) -> None:
    slow = Slow()
    async with Bridge(slow, limits=rpc.Limits(max_in_flight=100)) as bridge:
        url = await bridge.serve_http()
        other = await bridge.serve_http("::1")
        async with crowd(url, 12) as peers, connected(other) as good:
            for number, peer in enumerate(peers[:10]):
                peer.writer.write(batch("work", 8))
                if number < 2:
                    # In flight: a tenth is passed by the second.
                    running = 8 * (number + 1)
                    await until(lambda now=running: statistics(bridge) == now)
            for peer in peers[2:10]:
                assert await peer.response() == (503, b"one host may have 10 calls in flight\n")
            assert bridge.statistics()["posts_refused"] == 8
            assert await good.call() == ANSWER
            slow.go.set()
            for peer in peers[:2]:
                status, body = await peer.response()
                assert (status, len(json.loads(body))) == (200, 8)
            assert await peers[10].call() == ANSWER
            # Those of a connection that was closed are over.
            slow.go.clear()
            for peer in peers[:2]:
                peer.writer.write(batch("work", 8))
            await until(lambda: statistics(bridge) == 16)
            for peer in peers[:2]:
                peer.writer.transport.abort()
            await until(lambda: statistics(bridge) == 0)
            assert await peers[11].call() == ANSWER


def statistics(bridge: Bridge) -> int:
    return bridge.statistics()["calls_in_progress"]


@needs_another_host
async def test_calls_that_wait_of_one_host_by_post(until: Until) -> None:
    slow = Slow()
    async with Bridge(slow, limits=rpc.Limits(max_waiting=10)) as bridge:
        url = await bridge.serve_http()
        other = await bridge.serve_http("::1")
        async with crowd(url, 4) as peers, connected(other) as good:
            for number, peer in enumerate(peers[:2]):
                peer.writer.write(batch("get", 6))
                running = 6 * (number + 1)
                await until(lambda now=running: statistics(bridge) == now)
            peers[2].writer.write(batch("get", 6))
            assert await peers[2].response() == (503, b"one host may have 10 calls waiting\n")
            good.writer.write(batch("get", 6))
            await until(lambda: statistics(bridge) == 18)
            slow.go.set()
            for peer in (*peers[:2], good):
                status, body = await peer.response()
                assert (status, len(json.loads(body))) == (200, 6)
            assert await peers[3].call() == ANSWER


# -- TLS that is not agreed on ----------------------------------------------------------------


@pytest.fixture(scope="module")
def server_tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder: Path = tmp_path_factory.mktemp("tls")
    key, certificate = str(folder / "key.pem"), str(folder / "certificate.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "1", "-subj", "/CN=localhost", "-keyout", key, "-out", certificate],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    return server


def trusting() -> ssl.SSLContext:
    client = ssl.create_default_context()
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    return client


def resident_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    pytest.skip("needs /proc")


@needs_another_host
@pytest.mark.parametrize("scheme", ["https", "tls"])
async def test_unfinished_handshakes(until: Until, server_tls: ssl.SSLContext, scheme: str) -> None:
    async with Bridge({"add": add}, max_host_peers=300) as bridge:
        serve = bridge.serve_http if scheme == "https" else bridge.serve_tcp
        url = await serve(ssl=server_tls)
        other = await serve("::1", ssl=server_tls)
        before = resident_bytes()
        async with crowd(url, 300):
            await until(lambda: bridge.statistics()["peers"] == 300)
            # asyncio has 350 KB for each that it agrees with: 105 MB for all of them.
            assert resident_bytes() - before < 30 << 20
            async with connected(other, ssl=trusting()) as peer:
                if scheme == "https":
                    assert await peer.call() == ANSWER
                else:
                    peer.writer.write(TEXT + b"\n")
                    assert json.loads(await peer.reader.readline()) == ANSWER
        await until(lambda: bridge.statistics()["peers"] == 0)


async def test_many_handshakes_at_once(until: Until, server_tls: ssl.SSLContext) -> None:
    async with Bridge({"add": add}) as bridge:
        url = await bridge.serve_http(ssl=server_tls)
        client = trusting()

        async def call() -> Any:
            async with connected(url, ssl=client) as peer:
                return await peer.call()

        assert await asyncio.gather(*(call() for _ in range(100))) == [ANSWER] * 100
        assert bridge.statistics()["peers_refused"] == 0


# -- heads and bodies that drip ---------------------------------------------------------------


@needs_another_host
async def test_bodies_that_drip(until: Until) -> None:
    size = 100_000
    async with Bridge({"add": add}, max_body=size, max_host_bytes=5 * size) as bridge:
        url = await bridge.serve_http()
        other = await bridge.serve_http("::1")
        async with crowd(url, 20) as peers:
            for peer in peers:
                peer.writer.write(post(b" " * (size - 1000), size))
            await until(lambda: bridge.statistics()["peers_closed"] >= 15)
            assert bridge.statistics()["bytes_held"] <= 5 * size
            # Those that were closed were told why.
            await told(peers, 15, (503, b"the server has too much to do\n"))
            async with connected(other) as peer:
                assert await peer.call() == ANSWER
        await until(lambda: bridge.statistics()["peers"] == 0)
        assert bridge.statistics()["bytes_held"] == 0


async def test_lines_that_drip(until: Until) -> None:
    size = 100_000
    async with Bridge({"add": add}, max_body=size, max_host_bytes=5 * size) as bridge:
        url = await bridge.serve_tcp()
        async with crowd(url, 20) as peers:
            for peer in peers:
                peer.writer.write(b" " * (size - 1000))
            await until(lambda: bridge.statistics()["peers_closed"] >= 15)
            assert bridge.statistics()["bytes_held"] <= 5 * size
        await until(lambda: bridge.statistics()["peers"] == 0)
        async with connected(url) as peer:
            # What has arrived whole does not count.
            for _ in range(20):
                peer.writer.write(b" " * (size - 1000) + TEXT + b"\n")
                assert json.loads(await peer.reader.readline()) == ANSWER
            assert bridge.statistics()["bytes_held"] == 0


async def test_web_sockets_that_drip(until: Until) -> None:
    size = 100_000
    upgrade = (
        b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    async with Bridge({"add": add}, max_body=size, max_host_bytes=5 * size) as bridge:
        url = await bridge.serve_http()
        async with crowd(url, 20) as peers:
            for peer in peers:
                peer.writer.write(upgrade)
                assert (await peer.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
                # The first half of a text.
                head = b"\x01\xff" + (size - 1000).to_bytes(8, "big") + b"\0\0\0\0"
                peer.writer.write(head + b" " * (size - 1000))
            await until(lambda: bridge.statistics()["peers_closed"] >= 15)
            assert bridge.statistics()["bytes_held"] <= 5 * size + 10_000
        await until(lambda: bridge.statistics()["peers"] == 0)


async def test_answers_that_are_not_read(until: Until) -> None:
    @rpc.method
    def large() -> str:
        return "x" * 500_000

    async with Bridge({"large": large}, max_host_bytes=4_000_000) as bridge:
        url = await bridge.serve_tcp()
        async with crowd(url, 10) as peers:
            for peer in peers:
                peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
                peer.writer.write(b'{"jsonrpc":"2.0","method":"large","id":1}\n' * 10)
            await until(lambda: bridge.statistics()["peers_closed"] > 0)
            await until(lambda: bridge.statistics()["bytes_held"] <= 4_000_000)
        await until(lambda: bridge.statistics()["peers"] == 0)
        assert bridge.statistics()["bytes_held"] == 0


# -- files ------------------------------------------------------------------------------------

FEW_FILES = """
import asyncio, json, logging, os, resource
from berrymq_rpc import rpc
from berrymq_rpc.jsonrpc.bridge import Bridge, places

@rpc.method
def add(a, b):
    return a + b

@rpc.method
async def wait():
    await asyncio.Event().wait()

async def main():
    # None gives way, however long its request takes to come.
    places.IDLE_TIME = 60.0
    async with Bridge({"add": add, "wait": wait}, grace=0) as bridge:
        url = await bridge.serve_http()
        # The first that is free; files with higher numbers may have been inherited.
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 41, free + 41))
        print(url, flush=True)
        while await asyncio.to_thread(input):
            # The rest of the process still has files.
            with open(os.devnull):
                print(json.dumps(bridge.statistics()), flush=True)

logging.basicConfig(level=logging.WARNING)
asyncio.run(main())
"""


@asynccontextmanager
async def with_few_files(program: str) -> AsyncIterator[tuple[str, Callable[[], Awaitable[bytes]]]]:
    """Run a program that serves: its URL, and a function that sends it a line and reads one."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    writer, reader = process.stdin, process.stdout
    assert writer is not None
    assert reader is not None

    async def ask() -> bytes:
        writer.write(b"go on\n")
        return await reader.readline()

    try:
        yield (await reader.readline()).decode().strip(), ask
    finally:
        _, err = await asyncio.wait_for(process.communicate(b"\n"), 20)
        assert b"Traceback" not in err, err.decode()
    assert len(err) < 5000, err.decode()


async def test_no_files_are_left() -> None:
    async with with_few_files(FEW_FILES) as (url, ask):

        async def statistics() -> dict[str, int]:
            return json.loads(await ask())  # type: ignore[no-any-return]

        async with crowd(url, 100) as peers:
            for peer in peers:
                # While it waits, the connection does not give way.
                peer.writer.write(post(b'{"jsonrpc":"2.0","method":"wait","id":1}'))
            while True:
                now = await statistics()
                if now["calls_in_progress"] + now["peers_refused"] + now["peers_closed"] == 100:
                    break
            assert 25 < now["calls_in_progress"] < 35
            await told(peers, now["peers_refused"], (503, b"no files left\n"))
        while (await statistics())["peers"]:
            pass
        async with connected(url) as peer:
            assert await peer.call() == ANSWER


GIVING_WAY = """
import asyncio, os, resource, sys
from berrymq_rpc import rpc
from berrymq_rpc.jsonrpc.bridge import Bridge, places

async def main():
    # Any connection that has sent nothing yet gives way.
    places.IDLE_TIME = 0.0
    async with Bridge({}, grace=0) as bridge:
        url = await bridge.serve_http()
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 41, free + 41))
        print(url, flush=True)
        # The loop stands still until all have connected.
        sys.stdin.readline()
        for _ in range(100):
            await asyncio.sleep(0)
            # The rest of the process still has files, in each turn.
            with open(os.devnull), open(os.devnull):
                pass
        print("done", flush=True)

asyncio.run(main())
"""


async def test_the_files_of_those_that_give_way_are_not_used_before_they_are_free() -> None:
    async with with_few_files(GIVING_WAY) as (url, ask), crowd(url, 100):
        assert await ask() == b"done\n"


async def test_not_one_file_is_left(until: Until) -> None:
    resource = pytest.importorskip("resource", reason="Windows has no such bound")
    async with Bridge({"add": add}) as bridge:
        url = await bridge.serve_http()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        in_use = 1 + max(map(int, os.listdir("/proc/self/fd")))
        async with AsyncExitStack() as stack:
            connecting = [socket.socket() for _ in range(20)]
            for each in connecting:
                stack.callback(each.close)
                each.setblocking(False)
            files = [
                stack.enter_context(open(os.devnull))  # noqa: SIM115
                for _ in range(in_use + 20 - connecting[-1].fileno())
            ]
            resource.setrlimit(resource.RLIMIT_NOFILE, (files[-1].fileno() + 1, hard))
            stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
            host, _, port = url.removeprefix("http://").rpartition(":")
            loop = asyncio.get_running_loop()
            for each in connecting:
                await loop.sock_connect(each, (host, int(port)))
                assert (await loop.sock_recv(each, 100)).startswith(b"HTTP/1.1 503 ")
            assert bridge.statistics()["peers_refused"] == 20
        async with connected(url) as peer:
            assert await peer.call() == ANSWER
        await until(lambda: bridge.statistics()["peers"] == 0)


CROWDED = """
import asyncio, resource
from berrymq_rpc import rpc
from berrymq_rpc.jsonrpc.bridge import Bridge

@rpc.method
def add(a, b):
    return a + b

async def main():
    async with Bridge({"add": add}) as bridge:
        print(await bridge.serve_http(), flush=True)
        await asyncio.to_thread(input)
        print(bridge.statistics()["peers_refused"], bridge.statistics()["peers_closed"])

_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
asyncio.run(main())
"""


@pytest.mark.slow
async def test_a_thousand_connections_of_one_host() -> None:
    resource = pytest.importorskip("resource", reason="Windows has no such bound")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 1200
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"needs {wanted} files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CROWDED, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        url = (await process.stdout.readline()).decode().strip()
        async with crowd(url, 1000) as peers:
            for peer in peers:
                assert await peer.call() == ANSWER
            assert await peers[0].call() == ANSWER
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        out, _ = await asyncio.wait_for(process.communicate(b"\n"), 20)
    assert out.split() == [b"0", b"0"]
