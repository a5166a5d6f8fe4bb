import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from berrymq_rpc import Bus, Node
from berrymq_rpc.exchange.dial_back import Allowed, Target, allowed_target
from berrymq_rpc.jsonrpc.bridge import Bridge
from berrymq_rpc.jsonrpc.http import open_http_client


@pytest.mark.parametrize(
    ("addr", "caller", "endpoint"),
    [
        ("tcp://127.0.0.1:5", "127.0.0.1", "tcp://127.0.0.1:5"),
        (("127.0.0.1", 5), "127.0.0.1", "tcp://127.0.0.1:5"),
        (["127.0.0.1", 5], "127.0.0.1", "tcp://127.0.0.1:5"),
        ("tcp://192.0.2.7:5", "192.0.2.7", "tcp://192.0.2.7:5"),
        ("tcp://192.0.2.7:5", "::ffff:192.0.2.7", "tcp://192.0.2.7:5"),
        (("::1", 5), "::1", "tcp://[::1]:5"),
        (("fe80::1", 5), "fe80::1%eth0", "tcp://[fe80::1]:5"),
        # By name, of which the address is taken.
        ("tcp://localhost:5", "127.0.0.1", "tcp://127.0.0.1:5"),
        # A peer that can only be of this host.
        ("tcp://127.0.0.1:5", "", "tcp://127.0.0.1:5"),
        ("mem://x", "", "mem://x"),
        ("ipc:///run/x", "", "ipc:///run/x"),
        ("ipc:///run/x", "127.0.0.1", "ipc:///run/x"),
    ],
)
async def test_the_caller_s_own_address(addr: Any, caller: str, endpoint: str) -> None:
    assert await allowed_target(addr, caller, False) == Target(endpoint)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_server_with_a_name_is_known_by_it(scheme: str) -> None:
    """But the address that was checked is the one that is dialled."""
    addr = f"{scheme}://localhost:80/JSON"
    assert await allowed_target(addr, "127.0.0.1", False) == Target(addr, "127.0.0.1")
    assert await allowed_target(["localhost", 80], "127.0.0.1", False, scheme) == Target(
        f"{scheme}://localhost:80", "127.0.0.1"
    )


@pytest.mark.parametrize(
    ("addr", "caller"),
    [
        ("tcp://192.0.2.8:5", "192.0.2.7"),
        ("tcp://127.0.0.1:5", "192.0.2.7"),
        ("tcp://192.0.2.7:5", ""),
        ("tcp://192.0.2.7:5", None),
        ("tcp://192.0.2.7:5", "no address"),
        ("mem://x", "192.0.2.7"),
        # Nothing of another process is there.
        ("mem://x", "127.0.0.1"),
        ("ipc:///run/x", None),
        ("ipc:///run/x", "no address"),
        ("tcp://localhost:5", "192.0.2.7"),
        ("tcp://*:5", "192.0.2.7"),
        ("http://192.0.2.8:5", "192.0.2.7"),
        ("nats://192.0.2.7:5", "192.0.2.7"),
        ("text", "192.0.2.7"),
        ("", "192.0.2.7"),
        ("tcp://no such host:5", "192.0.2.7"),
        ("tcp://" + "x" * 100 + ":5", "192.0.2.7"),
    ],
)
@pytest.mark.parametrize("allowed", [False, {"198.51.100.1"}])
async def test_no_one_else_s(addr: Any, caller: str | None, allowed: Allowed) -> None:
    with pytest.raises(ValueError, match=r"callback_allowed|is not a host|not an endpoint|no add"):
        await allowed_target(addr, caller, allowed)


#: Another host for one who reads it in another way.
AMBIGUOUS = [
    "http://192.0.2.7:80@192.0.2.8/",
    "http://192.0.2.7:80@192.0.2.8:80/",
    "http://192.0.2.8@192.0.2.7:80/",
    "http://user:password@192.0.2.7:80/",
    "http://@192.0.2.7:80/",
    "http://192.0.2.7:80\\@192.0.2.8:80/",
    "http://192.0.2.8\\@192.0.2.7:80/",
    "http://192.0.2.8#@192.0.2.7:80/",
    "http://192.0.2.8?@192.0.2.7:80/",
    "http://192.0.2.8#:80/",
    "http://192.0.2.8:80#192.0.2.7:80",
    "http://192.0.2.8 192.0.2.7:80/",
    "http://192.0.2.7:80/\r\nHost: 192.0.2.8",
    "http://[192.0.2.7]:80/",
    "http://[[::1]]:80/",
    "http://192.0.2.8:80:192.0.2.7:80/",
    "tcp://192.0.2.8@192.0.2.7:80",
    "tcp://192.0.2.7:80/192.0.2.8",
    "tcp://192.0.2.7:*",
    "tcp://192.0.2.7:0",
    "http://192.0.2.7:0/",
    ("192.0.2.7:80@192.0.2.8/", 80),
    ("192.0.2.8/", 80),
    ("192.0.2.8@192.0.2.7", 80),
]


@pytest.mark.parametrize("addr", AMBIGUOUS)
@pytest.mark.parametrize("allowed", [False, {"192.0.2.7"}, True])
@pytest.mark.parametrize("scheme", ["tcp", "http"])
async def test_what_may_be_read_in_two_ways(addr: Any, allowed: Allowed, scheme: str) -> None:
    with pytest.raises(ValueError, match=r"user part|no (address|host)|back") as info:
        await allowed_target(addr, "192.0.2.7", allowed, scheme)
    assert "password" not in str(info.value)


@pytest.mark.parametrize("addr", [5, ("x",), ["x", "5"], {}])
async def test_what_is_no_address(addr: Any) -> None:
    with pytest.raises(TypeError):
        await allowed_target(addr, "192.0.2.7", True)


@pytest.mark.parametrize("allowed", [True, {"192.0.2.8"}, ["192.0.2.8"]])
async def test_what_the_node_allows(allowed: Allowed) -> None:
    endpoint = "tcp://192.0.2.8:5"
    assert await allowed_target(endpoint, "192.0.2.7", allowed) == Target(endpoint)


async def test_all_means_all() -> None:
    assert await allowed_target("mem://x", None, True) == Target("mem://x")
    with pytest.raises(ValueError, match="not an endpoint"):
        await allowed_target("nats://x:5", None, True)


class Requests(asyncio.Queue[bytes]):
    """What an HTTP server at `port` is sent; it answers each request with `answer`."""

    port: int
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    async def next_message(self) -> bytes:
        while b'"send_message"' not in (request := await self.get()):
            pass
        assert b"job:new" in request
        return request

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        self.put_nowait(head + await reader.readexactly(length))
        writer.write(self.answer)
        writer.close()


@asynccontextmanager
async def requests(host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Requests]:
    """An HTTP server."""
    served = Requests()
    server = await asyncio.start_server(served.serve, host, port)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()
        await server.wait_closed()


def redirect(port: int, status: str = "307 Temporary Redirect") -> bytes:
    return (
        f"HTTP/1.1 {status}\r\nLocation: http://127.0.0.1:{port}/JSON\r\n"
        "Content-Length: 0\r\nConnection: close\r\n\r\n"
    ).encode()


@asynccontextmanager
async def called_back(addr: Any) -> AsyncIterator[Bus]:
    """The bus of a node that calls back at this address."""
    bus = Bus()
    async with (
        Node(None, bus) as node,
        Bridge(node) as bridge,
        await open_http_client(await bridge.serve_http()) as client,
    ):
        await client.rpc.interconnect(addr, "token", 100)
        yield bus


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Same", "308 Same"])
async def test_no_redirect_is_followed(status: str) -> None:
    async with requests() as own, requests() as other:
        own.answer = redirect(other.port, status)
        async with called_back(["127.0.0.1", own.port]) as bus:
            for number in range(3):
                bus.twitter("job:new", number)
                await own.next_message()
        assert other.empty()


async def test_a_name_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its address is looked up once: the one that was checked is dialled."""
    lookups = []

    def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "rebound.test":
            return original(host, port, *args, **kwargs)
        lookups.append(host)
        host = "127.0.0.1" if len(lookups) == 1 else "127.0.0.2"
        return original(host, port, *args, **kwargs)

    original = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    async with requests() as own, requests("127.0.0.2", own.port) as other:
        async with called_back(f"http://rebound.test:{own.port}") as bus:
            bus.twitter("job:new")
            request = await own.next_message()
            assert f"Host: rebound.test:{own.port}".encode() in request
        assert lookups == ["rebound.test"]
        assert other.empty()
