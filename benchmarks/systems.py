"""The systems that `rpc.py` compares: each a server and a client, in processes of their own.

Each offers ``add(a, b)``, ``echo(x)``, ``note(x)`` (one way, where there is such a thing) and
``count()``, how many notes arrived.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

__all__ = ["SYSTEMS", "Calls", "System", "make_keys"]


#: The environment variables of the keys, which `make_keys` makes for the processes of one run.
SERVER_KEY, CLIENT_KEY = "BENCHMARK_SERVER_KEY", "BENCHMARK_CLIENT_KEY"


class Calls(NamedTuple):
    """What a client can do."""

    add: Callable[[int, int], Awaitable[int]]
    echo: Callable[[Any], Awaitable[Any]]
    count: Callable[[], Awaitable[int]]
    note: Callable[[int], Awaitable[object] | None] | None


class System(NamedTuple):
    """One library.

    Args:
        title: its name in the tables.
        serve: runs a server at an endpoint.
        connect: gives a client of such a server.
    """

    title: str
    serve: Callable[[str], Any]
    connect: Callable[[str], Any]


def make_keys() -> None:
    """Make the keys of this process and of those that it starts."""
    from berrymq_rpc import rpc

    for name in (SERVER_KEY, CLIENT_KEY):
        os.environ[name] = rpc.KeyPair.generate().secret


@asynccontextmanager
async def _serve_with_keys(endpoint: str) -> AsyncIterator[None]:
    from berrymq_rpc import rpc

    keys, client = (rpc.KeyPair.from_environment(name) for name in (SERVER_KEY, CLIENT_KEY))
    async with _serve_berrymq(endpoint, security=rpc.CurveServer(keys, {client.public})):
        yield


@asynccontextmanager
async def _connect_with_keys(endpoint: str) -> AsyncIterator[Calls]:
    from berrymq_rpc import rpc

    server, keys = (rpc.KeyPair.from_environment(name) for name in (SERVER_KEY, CLIENT_KEY))
    security = rpc.CurveClient(keys, server=server.public)
    async with _connect_berrymq(endpoint, security=security) as calls:
        yield calls


@asynccontextmanager
async def _serve_berrymq(endpoint: str, **options: Any) -> AsyncIterator[None]:
    from berrymq_rpc import rpc

    class Handler(rpc.AttrHandler):
        notes = 0

        @rpc.method
        def add(self, a: int, b: int) -> int:
            return a + b

        @rpc.method
        def echo(self, x: Any) -> Any:
            return x

        @rpc.method
        def note(self, x: int) -> None:
            self.notes += 1

        @rpc.method
        def count(self) -> int:
            return self.notes

    async with await rpc.start_server(Handler(), bind=endpoint, **options):
        yield


@asynccontextmanager
async def _connect_berrymq(endpoint: str, **options: Any) -> AsyncIterator[Calls]:
    from berrymq_rpc import rpc

    async with await rpc.open_client(connect=endpoint, **options) as client:
        yield Calls(
            lambda a, b: client.rpc.add(a, b),
            lambda x: client.rpc.echo(x),
            lambda: client.rpc.count(),
            lambda x: client.notify.note(x),
        )


@asynccontextmanager
async def _serve_aiozmq(endpoint: str) -> AsyncIterator[None]:
    import aiozmq.rpc

    class Handler(aiozmq.rpc.AttrHandler):  # type: ignore[misc]
        notes = 0

        @aiozmq.rpc.method
        def add(self, a: int, b: int) -> int:
            return a + b

        @aiozmq.rpc.method
        def echo(self, x: Any) -> Any:
            return x

        @aiozmq.rpc.method
        def note(self, x: int) -> None:
            self.notes += 1

        @aiozmq.rpc.method
        def count(self) -> int:
            return self.notes

    handler = Handler()
    calls = await aiozmq.rpc.serve_rpc(handler, bind=endpoint)
    # It has no one-way call; its pipeline is the nearest to one.
    notes = await aiozmq.rpc.serve_pipeline(handler, bind=_next_port(endpoint))
    try:
        yield
    finally:
        for service in (calls, notes):
            service.close()
            await service.wait_closed()


@asynccontextmanager
async def _connect_aiozmq(endpoint: str) -> AsyncIterator[Calls]:
    import aiozmq.rpc

    client = await aiozmq.rpc.connect_rpc(connect=endpoint)
    pipe = await aiozmq.rpc.connect_pipeline(connect=_next_port(endpoint))
    try:
        yield Calls(
            lambda a, b: client.call.add(a, b),
            lambda x: client.call.echo(x),
            lambda: client.call.count(),
            lambda x: pipe.notify.note(x),
        )
    finally:
        for service in (client, pipe):
            service.close()
            await service.wait_closed()


def _next_port(endpoint: str) -> str:
    host, _, port = endpoint.rpartition(":")
    return f"{host}:{int(port) + 1}"


@asynccontextmanager
async def _serve_raw(endpoint: str) -> AsyncIterator[None]:
    """The least that one message a call can cost: pyzmq and msgpack, no dispatch, no futures."""
    import msgpack
    import zmq
    import zmq.asyncio

    with zmq.asyncio.Context() as context, context.socket(zmq.ROUTER) as router:
        router.bind(endpoint)

        async def answer() -> None:
            while True:
                identity, payload = await router.recv_multipart()
                number, name, args = msgpack.unpackb(payload, use_list=False)
                value = args[0] + args[1] if name == "add" else args[0]
                await router.send_multipart((identity, msgpack.packb((number, value))))

        task = asyncio.create_task(answer())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@asynccontextmanager
async def _connect_raw(endpoint: str) -> AsyncIterator[Calls]:
    import msgpack
    import zmq
    import zmq.asyncio

    with zmq.asyncio.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.connect(endpoint)
        pending: dict[int, asyncio.Future[Any]] = {}
        loop = asyncio.get_running_loop()

        async def read() -> None:
            while True:
                number, value = msgpack.unpackb(await dealer.recv(), use_list=False)
                pending.pop(number).set_result(value)

        async def call(name: str, *args: Any) -> Any:
            number = call.number = call.number + 1  # type: ignore[attr-defined]
            future = pending[number] = loop.create_future()
            await dealer.send(msgpack.packb((number, name, args)))
            return await future

        call.number = 0  # type: ignore[attr-defined]
        task = asyncio.create_task(read())

        async def count() -> int:
            raise NotImplementedError

        try:
            yield Calls(lambda a, b: call("add", a, b), lambda x: call("echo", x), count, None)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


SYSTEMS = {
    "aiozmq": System("aiozmq.rpc", _serve_aiozmq, _connect_aiozmq),
    "berrymq": System("berrymq_rpc", _serve_berrymq, _connect_berrymq),
    "keys": System("berrymq_rpc with keys", _serve_with_keys, _connect_with_keys),
    "berrymq-uvloop": System("berrymq_rpc on uvloop", _serve_berrymq, _connect_berrymq),
    "raw": System("pyzmq.asyncio alone", _serve_raw, _connect_raw),
}
