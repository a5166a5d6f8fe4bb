"""A bridge before a handler, and one way to ask through each of its listeners."""

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import zmq
import zmq.asyncio

from berrymq_rpc import rpc
from berrymq_rpc.jsonrpc.bridge import Bridge

JSON = {"Content-Type": "application/json"}


class Math(rpc.AttrHandler):
    @rpc.method
    def add(self, a: int, b: int = 1) -> int:
        """Add two numbers."""
        return a + b


class Handler(rpc.AttrHandler):
    """The methods of the specification's examples, and some that go wrong."""

    def __init__(self) -> None:
        self.math = Math()
        self.told: list[Any] = []
        self.waiting = asyncio.Event()
        self.cancelled = asyncio.Event()

    @rpc.method
    def subtract(self, minuend: float, subtrahend: float) -> float:
        return minuend - subtrahend

    @rpc.method
    def sum(self, *numbers: int) -> int:
        return sum(numbers)

    @rpc.method
    def get_data(self) -> list[Any]:
        return ["hello", 5]

    @rpc.method
    def update(self, *values: Any) -> None:
        self.told.append(values)

    @rpc.method
    def notify_hello(self, number: int) -> None:
        self.told.append(number)

    @rpc.method
    def notify_sum(self, *numbers: int) -> None:
        self.told.append(sum(numbers))

    @rpc.method
    async def later(self, value: Any) -> Any:
        await asyncio.sleep(0)
        return value

    @rpc.method
    async def wait(self) -> None:
        self.waiting.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    @rpc.method
    def fail(self) -> None:
        raise ValueError("not so", 7)

    @rpc.method
    def unwritable(self) -> object:
        return object()

    @rpc.method
    def caller(self) -> str | None:
        return rpc.context().peer.address

    @rpc.method
    async def ask_back(self) -> Any:
        return await rpc.context().peer.rpc.whoami()

    @rpc.method
    def large(self, size: int) -> str:
        return "x" * size


class Line(ABC):
    """Texts to a listener and back."""

    @abstractmethod
    async def send(self, text: bytes) -> None: ...

    @abstractmethod
    async def receive(self) -> bytes:
        """The next text; empty where the listener says that there is none."""

    async def ask(self, message: Any) -> Any:
        text = message if isinstance(message, bytes) else json.dumps(message).encode()
        await self.send(text)
        answer = await self.receive()
        return json.loads(answer) if answer else None

    async def told(self, text: bytes) -> None:
        """Send what is not answered."""
        await self.send(text)
        probe = {"jsonrpc": "2.0", "method": "get_data", "id": "probe"}
        assert await self.ask(probe) == {"jsonrpc": "2.0", "result": ["hello", 5], "id": "probe"}


class PostLine(Line):
    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session, self.url = session, url
        self.texts: list[bytes] = []

    async def send(self, text: bytes) -> None:
        async with self.session.post(self.url, data=text, headers=JSON) as response:
            self.texts.append(await response.read())
            assert response.status == (200 if self.texts[-1] else 204)

    async def receive(self) -> bytes:
        return self.texts.pop(0)

    async def told(self, text: bytes) -> None:
        await self.send(text)
        assert self.texts.pop() == b""


class SocketLine(Line):
    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def send(self, text: bytes) -> None:
        await self.socket.send_bytes(text)

    async def receive(self) -> bytes:
        return (await self.socket.receive_str()).encode()


class TCPLine(Line):
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, text: bytes) -> None:
        # Outside of texts, which have none inside in JSON, line breaks are spaces.
        self.writer.write(text.replace(b"\n", b" ") + b"\n")

    async def receive(self) -> bytes:
        return await self.reader.readline()


class ZeroMQLine(Line):
    def __init__(self, socket: zmq.asyncio.Socket, prefix: list[bytes]) -> None:
        self.socket, self.prefix = socket, prefix

    async def send(self, text: bytes) -> None:
        await self.socket.send_multipart([*self.prefix, text])

    async def receive(self) -> bytes:
        frames = await self.socket.recv_multipart()
        assert frames[:-1] == self.prefix
        return frames[-1]


LISTENERS = ["http", "websocket", "tcp", "zeromq", "zeromq-req"]
PUSHING = ["websocket", "tcp", "zeromq"]


@asynccontextmanager
async def opened(bridge: Bridge, listener: str) -> AsyncIterator[Line]:
    """A line to a new listener of the bridge."""
    if listener in ("http", "websocket"):
        url = await bridge.serve_http()
        async with aiohttp.ClientSession() as session:
            if listener == "http":
                yield PostLine(session, url + "/")
            else:
                async with session.ws_connect(url + "/ws") as socket:
                    yield SocketLine(socket)
    elif listener == "tcp":
        host, port = (await bridge.serve_tcp()).removeprefix("tcp://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            yield TCPLine(reader, writer)
        finally:
            writer.close()
            await writer.wait_closed()
    else:
        endpoint = await bridge.serve_zeromq("tcp://127.0.0.1:*")
        with zmq.asyncio.Context() as context:
            # A REQ's empty frame; a socket of that type would not take the next request before
            # it has the answer, and there may be none.
            prefix = [b""] if listener == "zeromq-req" else []
            with context.socket(zmq.DEALER) as socket:
                socket.linger = 0
                socket.connect(endpoint)
                yield ZeroMQLine(socket, prefix)


@pytest.fixture(params=LISTENERS)
def listener(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=PUSHING)
def pushing_listener(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture
def line_to() -> Any:
    """A line to a new listener of a bridge: ``async with line_to(bridge, listener) as line``."""
    return opened
