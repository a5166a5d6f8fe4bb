"""A `get` that waits when its connection ends: the next message goes to a peer that is there."""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import zmq

from berrymq_rpc import Bus, Node, rpc
from berrymq_rpc.jsonrpc.bridge import Bridge

#: How often each way to leave is tried: a message is lost each time, or never.
TIMES = 5

#: Seconds within which the end of a connection is seen, far below those that calls which run have.
SOON = 0.5


def asked(token: str) -> bytes:
    request = {"jsonrpc": "2.0", "method": "get", "params": [token], "id": 1}
    return json.dumps(request).encode()


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, port = url.rpartition("//")[2].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


class Peer:
    """A peer that waits in a `get`, over a stream; each name of `leave` is a way to end it."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer

    def close(self) -> None:
        self.writer.close()

    def half_close(self) -> None:
        self.writer.write_eof()

    def reset(self) -> None:
        """Close it so that the other side is told that it was broken off."""
        own: socket.socket = self.writer.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def say_goodbye(self) -> None:
        """A WebSocket's close frame, masked with zeros."""
        self.writer.write(b"\x88\x80" + bytes(4))


@asynccontextmanager
async def over_tcp(bridge: Bridge, token: str) -> AsyncIterator[Any]:
    async with opened(await bridge.serve_tcp()) as (_, writer):
        writer.write(asked(token) + b"\n")
        yield Peer(writer)


@asynccontextmanager
async def over_http(bridge: Bridge, token: str) -> AsyncIterator[Any]:
    async with opened(await bridge.serve_http()) as (_, writer):
        body = asked(token)
        head = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        yield Peer(writer)


@asynccontextmanager
async def over_websocket(bridge: Bridge, token: str) -> AsyncIterator[Any]:
    async with opened(await bridge.serve_http()) as (reader, writer):
        writer.write(
            b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        text = asked(token)
        assert len(text) < 126
        writer.write(bytes((0x81, 0x80 | len(text))) + bytes(4) + text)
        yield Peer(writer)


class Dealer:
    def __init__(self, context: zmq.Context[Any]) -> None:
        self.socket = context.socket(zmq.DEALER)

    def close(self) -> None:
        self.socket.close(0)


@asynccontextmanager
async def over_zeromq(bridge: Bridge, token: str) -> AsyncIterator[Any]:
    url = await bridge.serve_zeromq("tcp://127.0.0.1:*")
    with zmq.Context() as context:
        dealer = Dealer(context)
        dealer.socket.connect(url)
        dealer.socket.send(asked(token))
        yield dealer


WAYS = [
    (over_tcp, "close"),
    (over_tcp, "half_close"),
    (over_tcp, "reset"),
    (over_http, "close"),
    (over_http, "half_close"),
    (over_http, "reset"),
    (over_websocket, "close"),
    (over_websocket, "half_close"),
    (over_websocket, "say_goodbye"),
    (over_websocket, "reset"),
    (over_zeromq, "close"),
]


@asynccontextmanager
async def node(target: str) -> AsyncIterator[tuple[Bus, Node, Bridge]]:
    """A node, and a bridge with it as the target: itself, or a client of it."""
    bus = Bus()
    async with Node("tcp://127.0.0.1:0", bus) as it:
        if target == "node":
            async with Bridge(it) as bridge:
                yield bus, it, bridge
            return
        async with (
            await rpc.open_client(connect=it.endpoints[0]) as client,
            Bridge(client) as bridge,
        ):
            yield bus, it, bridge


@pytest.mark.parametrize("target", ["node", "client"])
@pytest.mark.parametrize(("wait", "leave"), WAYS, ids=lambda v: getattr(v, "__name__", v))
async def test_the_next_message_is_not_lost(wait: Any, leave: str, target: str, until: Any) -> None:
    async with (
        node(target) as (bus, it, bridge),
        await rpc.open_client(connect=it.endpoints[0]) as other,
    ):
        token = await other.rpc.connect_via_queue("job:*", 100)
        for number in range(TIMES):
            async with wait(bridge, token) as peer:
                await until(lambda: it.statistics()["consumers_waiting"] == 1, 5)
                getattr(peer, leave)()
                await until(lambda: it.statistics()["consumers_waiting"] == 0, SOON)
                bus.twitter("job:new", number)
                got = await other.rpc.get(token, True, 2)
                assert got["args"] == (number,)


async def test_what_is_there_is_answered_to_a_half_closed_peer() -> None:
    async with node("node") as (bus, it, bridge):
        url = await bridge.serve_tcp()
        async with await rpc.open_client(connect=it.endpoints[0]) as other:
            token = await other.rpc.connect_via_queue("job:*", 100)
        for text in (asked(token), asked(token) + b"\n"):
            bus.twitter("job:new", 5)
            async with opened(url) as (reader, writer):
                writer.write(text)
                writer.write_eof()
                assert json.loads(await reader.read())["result"]["args"] == [5]


async def test_calls_that_run_are_answered_to_a_half_closed_peer() -> None:
    """Here and at a remote server, while a `get` beside them is given up at once."""
    begun = asyncio.Event()

    @rpc.method
    async def slow() -> str:
        begun.set()
        await asyncio.sleep(0.2)
        return "done"

    async with Node("tcp://127.0.0.1:0", Bus(), {"slow": slow}) as it:
        client = await rpc.open_client(connect=it.endpoints[0])
        async with client, Bridge(it) as direct, Bridge(client) as forwarding:
            for bridge in (direct, forwarding):
                begun.clear()
                token = await client.rpc.connect_via_queue("job:*", 100)
                async with opened(await bridge.serve_tcp()) as (reader, writer):
                    writer.write(asked(token) + b"\n")
                    writer.write(b'{"jsonrpc": "2.0", "method": "slow", "id": 2}\n')
                    await begun.wait()
                    writer.write_eof()
                    answers = [json.loads(line) for line in (await reader.read()).splitlines()]
                first, last = answers
                assert (first["id"], last["id"], last["result"]) == (1, 2, "done")
                assert first["error"]["data"]["type"] == "asyncio.exceptions.CancelledError"
