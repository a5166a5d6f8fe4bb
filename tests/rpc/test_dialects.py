"""Several dialects at one port, told apart by the frames alone."""

import asyncio
import contextlib
import datetime
import itertools
import logging
import os
import pickle
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from berrymq_rpc import rpc
from berrymq_rpc.rpc import runtime

try:
    from aiozmq import rpc as plain
except ImportError:
    plain = None

Until = Callable[..., Awaitable[None]]

needs_aiozmq = pytest.mark.skipif(plain is None, reason="aiozmq.rpc cannot be imported")

REQUEST = struct.Struct("=HHLd")
RESPONSE = struct.Struct("=HHLd?")


class Handler(rpc.AttrHandler):
    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.running = 0

    @rpc.method
    def add(self, a, b=1):
        return a + b

    @rpc.method
    async def add_later(self, a, b=1):
        await asyncio.sleep(0)
        return a + b

    @rpc.method
    def echo(self, value):
        return value

    @rpc.method
    async def hold(self):
        self.running += 1
        try:
            await self.go_on.wait()
        finally:
            self.running -= 1

    @rpc.method
    async def ticks(self, count):
        for number in range(count):
            yield number

    @rpc.method(waits=True)
    async def wait(self):
        await self.go_on.wait()
        return "done"

    @rpc.method
    def peer(self):
        return rpc.context().peer.identity

    @rpc.method
    async def back(self, name):
        return await rpc.context().peer.call(name)


@contextlib.asynccontextmanager
async def plain_client(endpoint: str, **settings: Any) -> AsyncIterator[Any]:
    client = await plain.connect_rpc(connect=endpoint, **settings)
    try:
        yield client
    finally:
        client.close()
        await client.wait_closed()


def raw_call(number: int, name: str, *args: Any, **kwargs: Any) -> list[bytes]:
    header = REQUEST.pack(7, 8, number, 0.0)
    return [header, name.encode(), msgpack.packb(args), msgpack.packb(kwargs)]


@needs_aiozmq
async def test_all_at_one_port() -> None:
    async with await rpc.start_server(Handler(), bind="tcp://127.0.0.1:*") as server:
        endpoint = server.endpoints[0]
        async with (
            await rpc.open_client(connect=endpoint) as native,
            await rpc.open_client(connect=endpoint, dialect="aiozmq") as ours,
            plain_client(endpoint) as theirs,
        ):
            for _ in range(3):
                calls = []
                for number in range(100):
                    calls += [
                        native.rpc.add(number),
                        ours.rpc.add_later(number),
                        theirs.call.add_later(number),
                        theirs.call.add(number),
                    ]
                expected = [number + 1 for number in range(100) for _ in range(4)]
                assert await asyncio.gather(*calls) == expected
            assert [item async for item in native.rpc.ticks(5)] == [0, 1, 2, 3, 4]
            assert server.statistics()["peers"] == 3
            peers = {await native.rpc.peer(), await ours.rpc.peer(), await theirs.call.peer()}
            assert len(peers) == 3


@pytest.mark.parametrize("bind", ["mem://*", "tcp://127.0.0.1:*"])
async def test_native_alone(bind: str, caplog: pytest.LogCaptureFixture) -> None:
    for dialects in (("native",), "native"):
        server = await rpc.start_server(Handler(), bind=bind, dialects=dialects)
        async with (
            server,
            await rpc.open_client(connect=server.endpoints) as native,
            await rpc.open_client(
                connect=server.endpoints, dialect="aiozmq", timeout=0.2
            ) as foreign,
        ):
            assert await native.rpc.add(1) == 2
            with pytest.raises(rpc.RPCTimeoutError):
                await foreign.rpc.add(1)
            assert server.statistics()["peers"] == 1
            assert server.statistics()["malformed_messages"] == 1
            assert await native.rpc.add(1) == 2
        assert "no dialect of this port" in caplog.text


async def test_aiozmq_alone() -> None:
    server = await rpc.start_server(Handler(), bind="tcp://127.0.0.1:*", dialects=["aiozmq"])
    async with (
        server,
        await rpc.open_client(connect=server.endpoints, dialect="aiozmq") as foreign,
        await rpc.open_client(connect=server.endpoints, timeout=0.2) as native,
    ):
        assert await foreign.rpc.add(1) == 2
        with pytest.raises(rpc.RPCTimeoutError):
            await native.rpc.add(1)
        assert await foreign.rpc.add(1) == 2


async def test_what_the_other_dialect_does_not_know(pair: Any, until: Until) -> None:
    handler = Handler()
    async with pair(handler, dialect="aiozmq") as (server, client):
        error = None
        try:
            await client.rpc.ticks(3)
        except Exception as raised:
            error = raised
        assert isinstance(error, TypeError)
        assert "stream" in str(error)
        with pytest.raises(TypeError, match="stream"):
            async for _ in client.rpc.ticks(3):
                pytest.fail("there is an item")
        # It cannot be told of a timeout: the method runs on, the caller does not wait.
        with pytest.raises(rpc.RPCTimeoutError):
            await client.with_timeout(0.05).rpc.hold()
        assert handler.running == 1
        handler.go_on.set()
        await until(lambda: handler.running == 0)
        assert await client.rpc.wait() == "done"
        assert await client.rpc.add(1) == 2
        assert server.statistics()["malformed_messages"] == 0


async def test_abandoned_calls_of_the_other_dialect_give_their_slots_back(pair: Any) -> None:
    """A server that never answers takes no more than its own share."""
    handler = Handler()
    limits = rpc.Limits(window=5)
    async with pair(handler, dialect="aiozmq", limits=limits) as (_, client):
        for _ in range(3):
            calls = [client.with_timeout(0.02).rpc.hold() for _ in range(5)]
            got = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(error) for error in got} == {rpc.RPCTimeoutError}
        assert await client.rpc.add(1) == 2
        handler.go_on.set()
        assert client.statistics()["calls_in_flight"] == 0


@needs_aiozmq
async def test_plain_client_that_leaves(until: Until) -> None:
    handler = Handler()
    async with await rpc.start_server(handler, bind="tcp://127.0.0.1:*") as server:
        async with plain_client(server.endpoints[0]) as theirs:
            calls = [theirs.call.hold() for _ in range(10)]
            await until(lambda: handler.running == 10)
        await until(lambda: handler.running == 0)
        await until(lambda: server.statistics()["peers"] == 0)
        await asyncio.gather(*calls, return_exceptions=True)


@needs_aiozmq
async def test_plain_client_after_a_restart_of_the_server(until: Until, tmp_path: Path) -> None:
    endpoint = f"ipc:///tmp/berrymq-dialects-{os.getpid()}"
    async with await rpc.start_server(Handler(), bind=endpoint):
        client = await plain.connect_rpc(connect=endpoint, timeout=5)
        assert await client.call.add(1) == 2
    try:
        async with await rpc.start_server(Handler(), bind=endpoint):
            assert await client.call.add(1) == 2
    finally:
        client.close()
        await client.wait_closed()


@needs_aiozmq
async def test_plain_client_and_closing_server(until: Until) -> None:
    handler = Handler()
    server = await rpc.start_server(handler, bind="tcp://127.0.0.1:*", grace=0.1)
    async with plain_client(server.endpoints[0]) as theirs:
        call = theirs.call.hold()
        await until(lambda: handler.running)
        server.close()
        # Of that class it makes a generic error, as its table has other two alone.
        with pytest.raises(plain.GenericError, match="ServiceClosedError"):
            async with asyncio.timeout(5):
                await call
        await server.wait_closed()


@needs_aiozmq
async def test_plain_client_that_is_bound() -> None:
    """A server that connects speaks aiozmq's dialect at once when it has no other."""
    client = await plain.connect_rpc(bind="tcp://127.0.0.1:*")
    try:
        endpoint = next(iter(client.transport.bindings()))
        async with await rpc.start_server(Handler(), connect=endpoint, dialects="aiozmq"):
            async with asyncio.timeout(5):
                assert await client.call.add(1) == 2
    finally:
        client.close()
        await client.wait_closed()


@needs_aiozmq
async def test_plain_client_that_is_bound_gets_a_greeting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It logs that it cannot read it, and works."""
    caplog.set_level(logging.CRITICAL + 1, "aiozmq.rpc")
    client = await plain.connect_rpc(bind="tcp://127.0.0.1:*")
    try:
        endpoint = next(iter(client.transport.bindings()))
        async with await rpc.start_server(Handler(), connect=endpoint):
            async with asyncio.timeout(5):
                assert await client.call.add(1) == 2
                assert await client.call.add_later(5) == 6
    finally:
        client.close()
        await client.wait_closed()


@needs_aiozmq
async def test_plain_server_that_connects(until: Until) -> None:
    """Our client is bound; that server says nothing until it is called."""

    class Theirs(plain.AttrHandler):
        @plain.method
        def add(self, a, b=1):
            return a + b

    async with await rpc.open_client(bind="tcp://127.0.0.1:*", dialect="aiozmq") as client:
        server = await plain.serve_rpc(Theirs(), connect=client.endpoints[0])
        try:
            async with asyncio.timeout(5):
                assert await client.rpc.add(1) == 2
        finally:
            server.close()
            await server.wait_closed()


@needs_aiozmq
async def test_plain_server_that_goes_away_and_comes_back() -> None:
    class Theirs(plain.AttrHandler):
        @plain.method
        def add(self, a, b=1):
            return a + b

        @plain.method
        async def hold(self):
            await asyncio.Event().wait()

    first = await plain.serve_rpc(Theirs(), bind="tcp://127.0.0.1:*")
    endpoint = next(iter(first.transport.bindings()))
    async with await rpc.open_client(connect=endpoint, dialect="aiozmq") as client:
        assert await client.rpc.add(1) == 2
        call = client.rpc.hold()
        first.close()
        with pytest.raises(rpc.ConnectionLostError, match="'hold' was sent"):
            async with asyncio.timeout(5):
                await call
        await first.wait_closed()
        second = await plain.serve_rpc(Theirs(), bind=endpoint)
        try:
            assert await client.with_timeout(5).rpc.add(1) == 2
        finally:
            second.close()
            await second.wait_closed()


async def test_frames_before_the_header_come_back(pair: Any) -> None:
    """The way back of a REQ socket, and of proxies."""

    def ask(endpoint: str) -> None:
        with zmq.Context() as context, context.socket(zmq.DEALER) as raw:
            raw.linger = 0
            raw.rcvtimeo = 5000
            raw.connect(endpoint)
            # As the first message, and as a later one.
            for route in ([], [b""], [b"proxy", b""], [b"x" * 16]):
                raw.send_multipart([*route, *raw_call(1, "add", 1)])
                *back, header, data = raw.recv_multipart()
                assert back == route
                assert RESPONSE.unpack(header)[2] == 1
                assert msgpack.unpackb(data) == 2
        with zmq.Context() as context, context.socket(zmq.REQ) as raw:
            raw.linger = 0
            raw.rcvtimeo = 5000
            raw.connect(endpoint)
            for _ in range(3):
                raw.send_multipart(raw_call(2, "add_later", 1))
                header, data = raw.recv_multipart()
                assert msgpack.unpackb(data) == 2

    async with pair(Handler()) as (server, _):
        await asyncio.to_thread(ask, server.endpoints[0])


async def test_pickles_of_anything_else_never_run(pair: Any, tmp_path: Path) -> None:
    """Nor in the native dialect, nor from a server to a client."""
    victim = tmp_path / "made"

    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(victim),)

    payloads = [pickle.dumps(Evil(), protocol) for protocol in range(6)]
    payloads += [pickle.dumps(datetime.datetime(2024, 1, 1)) + payloads[0]]
    exts = [
        msgpack.ExtType(code, payload)
        for payload in payloads
        for code in (*range(0, 128, 9), *range(122, 128))
    ]

    def ask(endpoint: str) -> int:
        with zmq.Context() as context, context.socket(zmq.DEALER) as raw:
            raw.linger = 0
            raw.rcvtimeo = 5000
            raw.connect(endpoint)
            for number, ext in enumerate(exts):
                raw.send_multipart(raw_call(number, "echo", ext))
            return len([raw.recv_multipart() for _ in exts])

    async with pair(Handler()) as (server, client):
        assert await asyncio.to_thread(ask, server.endpoints[0]) == len(exts)
        for ext in exts:
            with contextlib.suppress(rpc.ProtocolError, TypeError, ValueError):
                await client.rpc.echo(ext)
        assert await client.rpc.add(1) == 2
    give = {f"give{i}": rpc.method(lambda ext=ext: ext) for i, ext in enumerate(exts)}
    for dialect in ("native", "aiozmq"):
        async with pair(give, dialect=dialect) as (_, client):
            for index in range(len(exts)):
                with contextlib.suppress(rpc.ProtocolError, TypeError, ValueError):
                    await client.call(f"give{index}")
    assert not victim.exists()


@needs_aiozmq
async def test_hostile_plain_server_sends_a_pickle(tmp_path: Path) -> None:
    victim = tmp_path / "made"

    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(victim),)

    class Theirs(plain.AttrHandler):
        @plain.method
        def evil(self):
            return Evil()

        @plain.method
        def add(self, a, b=1):
            return a + b

    table = {125: (Evil, pickle.dumps, pickle.loads)}
    server = await plain.serve_rpc(Theirs(), bind="tcp://127.0.0.1:*", translation_table=table)
    try:
        endpoint = next(iter(server.transport.bindings()))
        async with await rpc.open_client(connect=endpoint, dialect="aiozmq", timeout=5) as client:
            with pytest.raises(rpc.ProtocolError):
                await client.rpc.evil()
            assert await client.rpc.add(1) == 2
    finally:
        server.close()
        await server.wait_closed()
    assert not victim.exists()


@needs_aiozmq
async def test_ids_wrap(pair: Any, until: Until, monkeypatch: pytest.MonkeyPatch) -> None:
    """A 32-bit number that is in use is passed over."""
    handler = Handler()
    ids = itertools.chain([1], itertools.count(2**32 + 1))
    monkeypatch.setattr(runtime, "count", lambda start: ids)
    async with pair(handler, dialect="aiozmq") as (_, client):
        held = client.rpc.hold()
        await until(lambda: handler.running == 1)
        assert held.id == 1
        assert [await client.rpc.add(number) for number in range(5)] == [1, 2, 3, 4, 5]
        handler.go_on.set()
        assert await held is None


@pytest.mark.parametrize("dialect", ["aiozmq", "jsonrpc"])
async def test_a_stream_is_refused_before_it_runs(pair: Any, dialect: str) -> None:
    ran: list[int] = []

    @rpc.method
    async def numbers(count: int = 0) -> Any:
        ran.append(count)
        for number in range(count):
            yield number

    async with pair({"numbers": numbers}, dialect=dialect) as (server, client):
        for count in (0, 3):
            with pytest.raises(TypeError, match=r"'numbers' is a stream, which .* peer does not"):
                await client.rpc.numbers(count)
            with pytest.raises(TypeError, match=r"returns a list"):
                async for _ in client.rpc.numbers(count):
                    pytest.fail("there is an item")
        assert server.statistics()["calls_running"] == 0
    assert ran == []
