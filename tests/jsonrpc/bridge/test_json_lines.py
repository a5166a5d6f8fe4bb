"""The TCP listener: long lines, half-closed connections, browsers, TLS, slow readers."""

import asyncio
import json
from typing import Any

import pytest

from berrymq_rpc import rpc
from berrymq_rpc.jsonrpc.bridge import Bridge

ASKED = b'{"jsonrpc": "2.0", "method": "later", "params": [7], "id": 1}'


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = url.removeprefix("tcp://").rsplit(":", 1)
    return await asyncio.open_connection(host.strip("[]"), int(port), limit=1 << 20)


async def exchange(url: str, data: bytes, *, eof: bool = True) -> list[Any]:
    """All that answers this, until the listener closes the connection."""
    reader, writer = await connect(url)
    try:
        writer.write(data)
        if eof:
            writer.write_eof()
        return [json.loads(line) for line in (await reader.read()).splitlines()]
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\n\n\n"])
async def test_what_was_said_before_the_end_is_answered(handler: Any, end: bytes) -> None:
    async with Bridge(handler) as bridge:
        url = await bridge.serve_tcp()
        assert [answer["result"] for answer in await exchange(url, ASKED + end)] == [7]


async def test_a_line_too_long(handler: Any) -> None:
    async with Bridge(handler, max_body=1000) as bridge:
        url = await bridge.serve_tcp()
        (answer,) = await exchange(url, b" " * 2000 + b"\n" + ASKED + b"\n", eof=False)
        assert answer["error"]["code"] == -32700
        assert len(await exchange(url, ASKED + b"\n")) == 1


@pytest.mark.parametrize("method", [b"POST", b"GET", b"OPTIONS", b"PUT"])
async def test_a_page_in_a_browser_is_not_listened_to(handler: Any, method: bytes) -> None:
    told = b'{"jsonrpc": "2.0", "method": "update", "params": [1]}'
    async with Bridge(handler) as bridge:
        url = await bridge.serve_tcp()
        head = method + b" / HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n\r\n"
        assert await exchange(url, head + told + b"\n" + ASKED + b"\n", eof=False) == []
        assert handler.told == []
        assert bridge.statistics()["malformed_messages"] == 1


async def test_calls_of_a_peer_that_closed_are_stopped(handler: Any) -> None:
    async with Bridge(handler) as bridge:
        url = await bridge.serve_tcp()
        asked = b'{"jsonrpc": "2.0", "method": "wait", "id": 1}\n'
        assert await exchange(url, asked) == []
        await handler.cancelled.wait()


async def test_more_peers_than_there_may_be(handler: Any) -> None:
    async with Bridge(handler, max_peers=1) as bridge:
        url = await bridge.serve_tcp()
        reader, writer = await connect(url)
        writer.write(ASKED + b"\n")
        assert await reader.readline()
        (refused,) = await exchange(url, b"")
        assert refused["error"]["message"] == "OverloadedError('max_peers=1 is reached')"
        assert refused["id"] is None
        assert bridge.statistics()["peers"] == 1
        assert bridge.statistics()["peers_refused"] == 1
        writer.close()
        await writer.wait_closed()


async def test_who_does_not_read_is_not_read(handler: Any) -> None:
    counted = 0

    @rpc.method
    def large() -> str:
        nonlocal counted
        counted += 1
        return "x" * 100_000

    async with Bridge({"large": large}, grace=0) as bridge:
        reader, writer = await connect(await bridge.serve_tcp())
        asked = b'{"jsonrpc": "2.0", "method": "large", "id": 1}\n' * 1000
        writer.write(asked)
        before = -1
        while before != counted:
            before = counted
            await asyncio.sleep(0.05)
        assert counted < 500
        for _ in range(1000):
            assert len(await reader.readline()) > 100_000
        assert counted == 1000
        writer.close()
        await writer.wait_closed()


async def test_ipv6(handler: Any) -> None:
    async with Bridge(handler) as bridge:
        try:
            url = await bridge.serve_tcp("::1")
        except OSError:
            pytest.skip("this host has no IPv6")
        assert url.startswith("tcp://[::1]:")
        assert len(await exchange(url, ASKED + b"\n")) == 1


async def test_a_port_in_use(handler: Any) -> None:
    async with Bridge(handler) as bridge:
        url = await bridge.serve_tcp()
        port = int(url.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            await bridge.serve_tcp(port=port)
        with pytest.raises(OSError, match="in use"):
            await bridge.serve_http(port=port)
        with pytest.raises(OSError, match="in use"):
            await bridge.serve_zeromq(url)
