"""Opening and closing: every way to meet, every state to be closed in."""

import asyncio
import contextlib
import errno
import itertools
import os
import socket
import sys
import tempfile
import textwrap
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from berrymq_rpc import rpc

Until = Callable[..., Awaitable[None]]

numbers = itertools.count()


class Handler(rpc.AttrHandler):
    def __init__(self, name: str = "") -> None:
        self.name = name
        self.started = 0
        self.cancelled = 0
        self.go_on = asyncio.Event()

    @rpc.method
    def who(self):
        return self.name

    @rpc.method
    def add(self, a, b=1):
        return a + b

    @rpc.method
    async def hold(self):
        self.started += 1
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return "done"

    @rpc.method(waits=True)
    async def wait(self):
        return await self.hold()


@pytest.fixture
def handler() -> Handler:
    return Handler()


def unused_tcp() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture(params=["mem", "tcp", "ipc"])
def address(request: pytest.FixtureRequest) -> Iterator[Callable[[], str]]:
    """Gives unused addresses."""
    with tempfile.TemporaryDirectory() as folder:
        yield {
            "mem": lambda: f"mem://lifecycle-{next(numbers)}",
            "tcp": unused_tcp,
            "ipc": lambda: f"ipc://{folder}/{next(numbers)}",
        }[request.param]


Address = Callable[[], str]


# -- who binds and who connects ----------------------------------------------------------------


@pytest.mark.parametrize("server_first", [True, False])
async def test_server_binds(address: Address, handler: Handler, server_first: bool) -> None:
    endpoint = address()
    async with contextlib.AsyncExitStack() as stack:
        if server_first:
            await stack.enter_async_context(await rpc.start_server(handler, bind=endpoint))
        client = await stack.enter_async_context(await rpc.open_client(connect=endpoint))
        call = client.rpc.add(1)
        if not server_first:
            await stack.enter_async_context(await rpc.start_server(handler, bind=endpoint))
        assert await call == 2
        assert client.endpoints == (endpoint,)


@pytest.mark.parametrize("server_first", [True, False])
async def test_client_binds(address: Address, handler: Handler, server_first: bool) -> None:
    endpoint = address()
    async with contextlib.AsyncExitStack() as stack:
        if server_first:
            await stack.enter_async_context(await rpc.start_server(handler, connect=endpoint))
        client = await stack.enter_async_context(await rpc.open_client(bind=endpoint))
        call = client.rpc.add(1)
        if not server_first:
            await stack.enter_async_context(await rpc.start_server(handler, connect=endpoint))
        assert await call == 2
        assert await client.rpc.add(2) == 3


async def test_both_bind_and_connect(address: Address) -> None:
    """Two servers, one at each way of meeting."""
    at_client, at_server = address(), address()
    client = await rpc.open_client(bind=at_client, connect=at_server)
    async with client:
        assert sorted(client.endpoints) == sorted([at_client, at_server])
        first = await rpc.start_server(Handler("bound"), bind=at_server)
        second = await rpc.start_server(Handler("connected"), connect=at_client)
        async with first, second:
            while client.statistics()["peers"] < 2:
                await asyncio.sleep(0.001)
            names = await asyncio.gather(*[client.rpc.who() for _ in range(20)])
            assert set(names) == {"bound", "connected"}


async def test_server_that_binds_and_connects(address: Address, handler: Handler) -> None:
    at_client, at_server = address(), address()
    server = await rpc.start_server(handler, bind=at_server, connect=at_client)
    async with server:
        assert sorted(server.endpoints) == sorted([at_client, at_server])
        async with (
            await rpc.open_client(connect=at_server) as first,
            await rpc.open_client(bind=at_client) as second,
        ):
            assert await first.rpc.add(1) == 2
            assert await second.rpc.add(2) == 3


async def test_several_endpoints_of_a_server(handler: Handler) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bind = ["tcp://127.0.0.1:*", f"ipc://{folder}/s", "mem://*"]
        async with await rpc.start_server(handler, bind=bind) as server:
            assert len(server.endpoints) == 3
            for endpoint in server.endpoints:
                async with await rpc.open_client(connect=endpoint) as client:
                    assert await client.rpc.add(1) == 2


async def test_calls_go_to_the_least_loaded(address: Address, until: Until) -> None:
    handlers = [Handler("a"), Handler("b")]
    servers = [await rpc.start_server(handler, bind=address()) for handler in handlers]
    async with servers[0], servers[1]:
        endpoints = [server.endpoints[0] for server in servers]
        async with await rpc.open_client(connect=endpoints) as client:
            await until(lambda: client.statistics()["peers"] == 2)
            calls = [client.rpc.hold() for _ in range(20)]
            await until(lambda: sum(handler.started for handler in handlers) == 20)
            assert [handler.started for handler in handlers] == [10, 10]
            for handler in handlers:
                handler.go_on.set()
            assert set(await asyncio.gather(*calls)) == {"done"}


async def test_lost_server_fails_only_its_own_calls(address: Address, until: Until) -> None:
    handlers = [Handler("a"), Handler("b")]
    servers = [await rpc.start_server(handler, bind=address(), grace=0.05) for handler in handlers]
    async with servers[0], servers[1]:
        endpoints = [server.endpoints[0] for server in servers]
        async with await rpc.open_client(connect=endpoints) as client:
            await until(lambda: client.statistics()["peers"] == 2)
            calls = [client.rpc.hold() for _ in range(20)]
            await until(lambda: sum(handler.started for handler in handlers) == 20)
            servers[0].close()
            await servers[0].wait_closed()
            handlers[1].go_on.set()
            got = await asyncio.gather(*calls, return_exceptions=True)
            assert sum(value == "done" for value in got) == 10
            lost = [error for error in got if isinstance(error, Exception)]
            assert len(lost) == 10
            assert {await client.rpc.who() for _ in range(10)} == {"b"}


async def test_unreachable_server_among_others(address: Address, handler: Handler) -> None:
    async with (
        await rpc.start_server(handler, bind=address()) as server,
        await rpc.open_client(connect=[address(), *server.endpoints], timeout=5) as client,
    ):
        assert [await client.rpc.add(number) for number in range(20)] == list(range(1, 21))


async def test_wildcard_ports(handler: Handler) -> None:
    for wildcard in ("tcp://127.0.0.1:*", "tcp://127.0.0.1:0", "tcp://localhost:*"):
        async with await rpc.start_server(handler, bind=wildcard) as server:
            (endpoint,) = server.endpoints
            assert "*" not in endpoint
            assert int(endpoint.rpartition(":")[2]) > 0
            async with await rpc.open_client(connect=endpoint) as client:
                assert await client.rpc.add(1) == 2


async def test_wildcard_of_a_client(handler: Handler) -> None:
    async with (
        await rpc.open_client(bind="tcp://127.0.0.1:*") as client,
        await rpc.start_server(handler, connect=client.endpoints),
    ):
        assert await client.rpc.add(1) == 2


async def test_ipv6(handler: Handler) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    async with (
        await rpc.start_server(handler, bind="tcp://[::1]:*") as server,
        await rpc.open_client(connect=server.endpoints, timeout=5) as client,
    ):
        assert server.endpoints[0].startswith("tcp://[::1]:")
        assert await client.rpc.add(1) == 2


# -- what is refused ---------------------------------------------------------------------------


async def test_no_endpoint(handler: Handler) -> None:
    for nothing in ({}, {"connect": None, "bind": None}, {"connect": ()}, {"bind": []}):
        with pytest.raises(ValueError, match="connect"):
            await rpc.open_client(**nothing)
        with pytest.raises(ValueError, match="connect"):
            await rpc.start_server(handler, **nothing)


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "tcp",
        "tcp://",
        "127.0.0.1:5555",
        "http://127.0.0.1:1",
        "inproc://x",
        "mem://",
        " tcp://a:1",
    ],
)
async def test_what_is_no_endpoint(handler: Handler, endpoint: str) -> None:
    with pytest.raises(ValueError, match=r"connect|bind"):
        await rpc.open_client(connect=endpoint)
    with pytest.raises(ValueError, match=r"connect|bind"):
        await rpc.start_server(handler, bind=endpoint)


async def test_endpoint_of_a_wrong_type(handler: Handler) -> None:
    for endpoint in (5, [5], [None], b"tcp://127.0.0.1:1"):
        with pytest.raises(TypeError):
            await rpc.open_client(connect=endpoint)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:",
        "tcp://127.0.0.1:x",
        "tcp://127.0.0.1:99999",
        "tcp://:1",
    ],
)
async def test_address_that_cannot_be_bound(handler: Handler, endpoint: str) -> None:
    with pytest.raises((OSError, ValueError), match=r"127|:1"):
        await rpc.start_server(handler, bind=endpoint)


async def test_address_in_use(address: Address, handler: Handler) -> None:
    async with await rpc.start_server(handler, bind=address()) as server:
        with pytest.raises(OSError, match=r"in use|listens") as caught:
            await rpc.start_server(handler, bind=server.endpoints)
        assert caught.value.errno == errno.EADDRINUSE
        with pytest.raises(OSError, match=r"in use|listens"):
            await rpc.start_server(handler, bind=[address(), *server.endpoints, address()])
        async with await rpc.open_client(connect=server.endpoints) as client:
            assert await client.rpc.add(1) == 2


async def test_failed_start_leaves_nothing(handler: Handler) -> None:
    """What was bound before the address that could not be is free again."""
    free = unused_tcp()
    async with await rpc.start_server(handler, bind="tcp://127.0.0.1:*") as server:
        with pytest.raises(OSError, match="in use"):
            await rpc.start_server(handler, bind=[free, *server.endpoints])
        async with asyncio.timeout(5):
            while True:
                try:
                    again = await rpc.start_server(handler, bind=free)
                except OSError:
                    await asyncio.sleep(0.01)
                else:
                    break
        async with again:
            pass


@pytest.mark.parametrize(
    "endpoint",
    ["tcp://*:0", "tcp://0.0.0.0:0", "tcp://[::]:0", "tcp://eth0:0", "tcp://example.org:0"],
)
async def test_exposure(handler: Handler, endpoint: str) -> None:
    with pytest.raises(ValueError, match="insecure=True"):
        await rpc.start_server(handler, bind=endpoint)
    with pytest.raises(ValueError, match="insecure=True"):
        await rpc.open_client(bind=endpoint)
    with pytest.raises(ValueError, match="insecure=True"):
        await rpc.start_server(handler, bind=["tcp://127.0.0.1:*", endpoint])


@pytest.mark.parametrize(
    "endpoint", ["tcp://127.0.0.1:*", "tcp://127.9.9.9:*", "tcp://localhost:*", "mem://*"]
)
async def test_no_exposure(handler: Handler, endpoint: str) -> None:
    async with await rpc.start_server(handler, bind=endpoint):
        pass


async def test_insecure(handler: Handler) -> None:
    async with await rpc.start_server(handler, bind="tcp://0.0.0.0:*", insecure=True) as server:
        port = server.endpoints[0].rpartition(":")[2]
        async with await rpc.open_client(connect=f"tcp://127.0.0.1:{port}") as client:
            assert await client.rpc.add(1) == 2


async def test_loop_argument(handler: Handler) -> None:
    loop = asyncio.get_running_loop()
    async with (
        await rpc.start_server(handler, bind="mem://*", loop=loop) as server,
        await rpc.open_client(connect=server.endpoints, loop=loop) as client,
    ):
        assert server.get_loop() is loop
        assert client.get_loop() is loop
        assert await client.rpc.add(1) == 2
    other = asyncio.new_event_loop()
    try:
        with pytest.raises(ValueError, match="loop"):
            await rpc.start_server(handler, bind="mem://*", loop=other)
        with pytest.raises(ValueError, match="loop"):
            await rpc.open_client(connect="mem://x", loop=other)
    finally:
        other.close()


async def test_unknown_dialect(handler: Handler) -> None:
    with pytest.raises(ValueError, match="one of 'native', 'aiozmq'"):
        await rpc.open_client(connect="mem://x", dialect="other")
    with pytest.raises(ValueError, match="one of 'native', 'aiozmq'"):
        await rpc.start_server(handler, bind="mem://*", dialects=["native", "other"])
    with pytest.raises(ValueError, match="one of 'native', 'aiozmq'"):
        await rpc.start_server(handler, bind="mem://*", dialects=[])


BAD = [
    ("both", "limits", 5),
    ("both", "limits", {}),
    ("both", "error_table", 5),
    ("both", "error_table", {"x": int}),
    ("both", "error_table", {5: ValueError}),
    ("both", "slow_handler", None),
    ("both", "slow_handler", 0),
    ("both", "slow_handler", "1"),
    ("both", "threads", 0),
    ("both", "threads", 1.5),
    ("both", "exclude_log_exceptions", 5),
    ("both", "exclude_log_exceptions", [int]),
    ("server", "grace", None),
    ("server", "grace", -1),
    ("server", "grace", "1"),
    ("client", "timeout", "1"),
    ("client", "timeout", True),
    ("client", "timeout", 0),
    ("client", "connect_timeout", None),
    ("client", "connect_timeout", 0),
    ("client", "connect_timeout", float("nan")),
    ("client", "handler", 5),
]


@pytest.mark.parametrize(("who", "name", "value"), BAD)
async def test_bad_arguments(handler: Handler, who: str, name: str, value: Any) -> None:
    if who != "client":
        with pytest.raises((TypeError, ValueError), match=name):
            await rpc.start_server(handler, bind="mem://*", **{name: value})
    if who != "server":
        with pytest.raises((TypeError, ValueError), match=name):
            await rpc.open_client(connect="mem://x", **{name: value})


async def test_endless_times(address: Address, handler: Handler) -> None:
    endless = float("inf")
    limits = rpc.Limits(heartbeat=endless)
    server = await rpc.start_server(
        handler, bind=address(), grace=endless, slow_handler=endless, limits=limits
    )
    async with (
        server,
        await rpc.open_client(
            connect=server.endpoints, timeout=endless, connect_timeout=endless, limits=limits
        ) as client,
    ):
        assert client.timeout is None
        assert await client.rpc.add(1) == 2
        assert await client.with_timeout(1e300).rpc.add(1) == 2


# -- asyncio.AbstractServer --------------------------------------------------------------------


async def test_as_an_asyncio_server(handler: Handler) -> None:
    server = await rpc.start_server(handler, bind="mem://*")
    client = await rpc.open_client(connect=server.endpoints)
    for each in (server, client):
        assert isinstance(each, asyncio.AbstractServer)
        assert each.is_serving()
        await each.start_serving()
        assert server.endpoints[0] in repr(each)
    for each in (client, server):
        each.close()
        assert not each.is_serving()
        await each.wait_closed()


async def test_wait_closed_waits_for_the_close(address: Address, handler: Handler) -> None:
    for opened in (
        await rpc.start_server(handler, bind=address()),
        await rpc.open_client(connect=address()),
    ):
        waiting = asyncio.create_task(opened.wait_closed())
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
        opened.close()
        await waiting


async def test_serve_forever(handler: Handler) -> None:
    for opened in (
        await rpc.start_server(handler, bind="tcp://127.0.0.1:*"),
        await rpc.open_client(connect="tcp://127.0.0.1:9"),
    ):
        serving = asyncio.create_task(opened.serve_forever())
        await asyncio.sleep(0)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert not opened.is_serving()
    server = await rpc.start_server(handler, bind="tcp://127.0.0.1:*")
    serving = asyncio.create_task(server.serve_forever())
    await asyncio.sleep(0)
    server.close()
    await serving


# -- closing -----------------------------------------------------------------------------------


async def test_close_at_once(address: Address, handler: Handler) -> None:
    for _ in range(3):
        endpoint = address()
        server = await rpc.start_server(handler, bind=endpoint)
        client = await rpc.open_client(connect=endpoint)
        client.close()
        server.close()
        await client.wait_closed()
        await server.wait_closed()


async def test_close_again_and_again(address: Address, handler: Handler) -> None:
    server = await rpc.start_server(handler, bind=address())
    client = await rpc.open_client(connect=server.endpoints)
    await client.rpc.add(1)
    for opened in (client, server):
        opened.close()
        opened.close()
        await asyncio.gather(opened.wait_closed(), opened.wait_closed())
        await opened.wait_closed()
        opened.close()
        await opened.wait_closed()
        async with opened:
            pass


async def test_cancelled_wait_closed(handler: Handler) -> None:
    server = await rpc.start_server(handler, bind="tcp://127.0.0.1:*", grace=0.05)
    async with await rpc.open_client(connect=server.endpoints) as client:
        call = client.rpc.hold()
        while not handler.started:
            await asyncio.sleep(0.001)
        server.close()
        waiting = asyncio.create_task(server.wait_closed())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await server.wait_closed()
        with pytest.raises((rpc.ServiceClosedError, rpc.ConnectionLostError)):
            await call


async def test_close_of_a_client_fails_its_calls(
    address: Address, handler: Handler, until: Until
) -> None:
    async with await rpc.start_server(handler, bind=address()) as server:
        client = await rpc.open_client(connect=server.endpoints)
        call = client.rpc.hold()
        await until(lambda: handler.started)
        client.close()
        with pytest.raises(rpc.ServiceClosedError, match=r"closed.*'hold'"):
            await call
        with pytest.raises(rpc.ServiceClosedError, match="closed"):
            client.notify.add(1)
        for late in (client.rpc.add(1), client.with_timeout(1).rpc.add(1)):
            with pytest.raises(rpc.ServiceClosedError, match="closed"):
                await late
        await client.wait_closed()
        with pytest.raises(rpc.ServiceClosedError, match="closed"):
            await client.rpc.add(1)
        await until(lambda: handler.cancelled, 1)
        await until(lambda: server.statistics()["peers"] == 0, 1)


async def test_close_of_a_client_that_never_met_anybody(address: Address) -> None:
    client = await rpc.open_client(connect=address())
    calls = [client.rpc.add(number) for number in range(10)]
    client.notify.add(1)
    client.close()
    got = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(error) for error in got} == {rpc.ServiceClosedError}
    await client.wait_closed()


async def test_notifications_before_the_close_arrive(address: Address, until: Until) -> None:
    got: list[int] = []
    note = rpc.method(lambda number: got.append(number))
    async with await rpc.start_server({"note": note}, bind=address()) as server:
        for _ in range(5):
            async with await rpc.open_client(connect=server.endpoints) as client:
                while not client.statistics()["peers"]:
                    await asyncio.sleep(0.001)
                for number in range(100):
                    client.notify.note(number)
        await until(lambda: len(got) == 500)
        assert got == list(range(100)) * 5


async def test_closed_client_costs_nothing_to_ask_again(handler: Handler) -> None:
    """Each refusal is an exception of its own: one that is kept would gather tracebacks."""
    client = await rpc.open_client(connect="mem://nobody")
    client.close()
    await client.wait_closed()

    def entries(error: BaseException) -> int:
        return sum(1 for _ in traceback.walk_tb(error.__traceback__))

    lengths = []
    for _ in range(3):
        with pytest.raises(rpc.ServiceClosedError) as caught:
            await client.rpc.add(1)
        lengths.append(entries(caught.value))
    assert len(set(lengths)) == 1


async def test_grace_lets_calls_finish(address: Address, handler: Handler, until: Until) -> None:
    server = await rpc.start_server(handler, bind=address(), grace=5)
    async with await rpc.open_client(connect=server.endpoints) as client:
        call = client.rpc.hold()
        await until(lambda: handler.started)
        server.close()
        assert not server.is_serving()
        with pytest.raises((rpc.ServiceClosedError, rpc.ConnectionLostError)):
            await client.with_timeout(0.5).rpc.add(1)
        handler.go_on.set()
        assert await call == "done"
        async with asyncio.timeout(2):
            await server.wait_closed()


async def test_grace_ends(address: Address, handler: Handler, until: Until) -> None:
    server = await rpc.start_server(handler, bind=address(), grace=0.1)
    async with await rpc.open_client(connect=server.endpoints) as client:
        call = client.rpc.hold()
        await until(lambda: handler.started)
        began = time.monotonic()
        server.close()
        with pytest.raises(rpc.ServiceClosedError, match="closing"):
            await call
        await server.wait_closed()
        assert 0.09 < time.monotonic() - began < 2
        assert handler.cancelled == 1


async def test_waiting_calls_get_no_grace(address: Address, handler: Handler, until: Until) -> None:
    server = await rpc.start_server(handler, bind=address(), grace=5)
    async with await rpc.open_client(connect=server.endpoints) as client:
        call = client.rpc.wait()
        await until(lambda: handler.started)
        server.close()
        with pytest.raises(rpc.ServiceClosedError, match="closing"):
            await call
        async with asyncio.timeout(2):
            await server.wait_closed()


async def test_close_with_a_thread_that_runs(pair: Any, until: Until) -> None:
    release = threading.Event()
    inside: list[int] = []

    def block() -> str:
        inside.append(1)
        release.wait(10)
        return "done"

    server = await rpc.start_server(
        {"block": rpc.method(block, thread=True)}, bind="tcp://127.0.0.1:*", grace=0.1
    )
    async with await rpc.open_client(connect=server.endpoints) as client:
        call = client.rpc.block()
        await until(lambda: inside)
        server.close()
        with pytest.raises((rpc.ServiceClosedError, rpc.ConnectionLostError)):
            async with asyncio.timeout(5):
                await call
        async with asyncio.timeout(5):
            await server.wait_closed()
        release.set()


async def test_close_with_a_handler_that_will_not_end(until: Until) -> None:
    release = asyncio.Event()
    started: list[int] = []

    async def stubborn() -> None:
        started.append(1)
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()

    server = await rpc.start_server(
        {"stubborn": rpc.method(stubborn)}, bind="tcp://127.0.0.1:*", grace=0.05
    )
    async with await rpc.open_client(connect=server.endpoints) as client:
        call = client.rpc.stubborn()
        await until(lambda: started)
        server.close()
        async with asyncio.timeout(5):
            with pytest.raises((rpc.ServiceClosedError, rpc.ConnectionLostError)):
                await call
            await server.wait_closed()
        release.set()
        await asyncio.sleep(0)


async def test_close_from_within_a_handler(address: Address, until: Until) -> None:
    servers: list[rpc.Server] = []

    async def end() -> str:
        servers[0].close()
        return "ending"

    def end_now() -> str:
        servers[0].close()
        return "ending"

    for function in (end, end_now):
        server = await rpc.start_server({"end": rpc.method(function)}, bind=address())
        servers[:] = [server]
        async with await rpc.open_client(connect=server.endpoints) as client:
            assert await client.rpc.end() == "ending"
            async with asyncio.timeout(2):
                await server.wait_closed()


async def test_client_closes_itself_in_a_callback(address: Address, handler: Handler) -> None:
    async with await rpc.start_server(handler, bind=address()) as server:
        client = await rpc.open_client(connect=server.endpoints)
        call = client.rpc.add(1)
        call.add_done_callback(lambda _: client.close())
        assert await call == 2
        await client.wait_closed()


async def test_exception_in_the_block_is_kept(address: Address, handler: Handler) -> None:
    with pytest.raises(KeyError):
        async with (
            await rpc.start_server(handler, bind=address()) as server,
            await rpc.open_client(connect=server.endpoints),
        ):
            raise KeyError


async def test_2_servers_in_turn_at_one_address(address: Address) -> None:
    endpoint = address()
    async with await rpc.open_client(connect=endpoint, timeout=5) as client:
        for name in ("first", "second", "third"):
            async with await rpc.start_server(Handler(name), bind=endpoint):
                assert await client.rpc.who() == name


async def test_calls_in_a_restart_either_answer_or_fail(address: Address) -> None:
    """None hangs, and the client works on."""
    endpoint = address()
    async with await rpc.open_client(connect=endpoint) as client:
        for _ in range(5):
            server = await rpc.start_server(Handler(), bind=endpoint, grace=0.1)
            calls = [client.rpc.add(number) for number in range(100)]
            assert await client.rpc.add(1) == 2
            server.close()
            calls += [client.rpc.add(number) for number in range(100)]
            async with asyncio.timeout(10):
                await server.wait_closed()
                async with await rpc.start_server(Handler(), bind=endpoint, grace=0.1):
                    got = await asyncio.gather(*calls, return_exceptions=True)
                    assert await client.rpc.add(1) == 2
            for number, value in enumerate(got):
                if isinstance(value, Exception):
                    assert isinstance(value, rpc.ServiceClosedError | rpc.ConnectionLostError)
                else:
                    assert value == number % 100 + 1


# -- before there is a server ------------------------------------------------------------------


async def test_calls_before_the_server(address: Address, handler: Handler) -> None:
    endpoint = address()
    async with await rpc.open_client(connect=endpoint) as client:
        calls = [client.rpc.add(number) for number in range(1000)]
        client.notify.add(1)
        await asyncio.sleep(0.05)
        async with await rpc.start_server(handler, bind=endpoint):
            assert await asyncio.gather(*calls) == list(range(1, 1001))


async def test_connect_timeout(address: Address) -> None:
    endpoint = address()
    async with await rpc.open_client(connect=endpoint, connect_timeout=0.1) as client:
        for _ in range(2):
            began = time.monotonic()
            calls = [client.rpc.add(number) for number in range(10)]
            got = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(error) for error in got} == {rpc.ConnectionLostError}
            assert str(got[0]).startswith(f"{endpoint}: no connection within 0.1 s")
            assert 0.09 < time.monotonic() - began < 2
        client.notify.add(1)
        while not client.statistics()["notifications_lost"]:
            await asyncio.sleep(0.01)


async def test_connect_timeout_and_timeout(address: Address) -> None:
    async with await rpc.open_client(connect=address(), connect_timeout=0.1, timeout=30) as client:
        with pytest.raises(rpc.ConnectionLostError):
            await client.rpc.add(1)
    async with await rpc.open_client(connect=address(), connect_timeout=30, timeout=0.1) as client:
        with pytest.raises(rpc.RPCTimeoutError):
            await client.rpc.add(1)


async def test_a_listener_that_is_no_server() -> None:
    """TCP connects, and the peer sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        async with await rpc.open_client(connect=endpoint, connect_timeout=0.2) as client:
            with pytest.raises(rpc.ConnectionLostError, match="no connection"):
                await client.rpc.add(1)


# -- other loops, threads and processes --------------------------------------------------------


def test_client_of_a_loop_that_is_over(handler: Handler) -> None:
    async def leave() -> rpc.Client:
        server = await rpc.start_server(handler, bind="tcp://127.0.0.1:*")
        client = await rpc.open_client(connect=server.endpoints)
        assert await client.rpc.add(1) == 2
        client.close()
        await client.wait_closed()
        server.close()
        await server.wait_closed()
        return client

    client = asyncio.run(leave())

    async def use() -> None:
        with pytest.raises((rpc.ServiceClosedError, RuntimeError)):
            await client.rpc.add(1)

    asyncio.run(use())


def test_client_of_another_loop(handler: Handler) -> None:
    """In the same thread, the other loop not running at the moment."""
    first = asyncio.new_event_loop()
    second = asyncio.new_event_loop()

    async def open_both() -> tuple[rpc.Server, rpc.Client]:
        server = await rpc.start_server(Handler(), bind="tcp://127.0.0.1:*")
        client = await rpc.open_client(connect=server.endpoints)
        assert await client.rpc.add(1) == 2
        return server, client

    async def use(client: rpc.Client) -> None:
        with pytest.raises(RuntimeError, match="another event loop or thread"):
            client.rpc.add(1)
        with pytest.raises(RuntimeError, match="another event loop or thread"):
            client.notify.add(1)

    async def close(*opened: Any) -> None:
        for each in opened:
            each.close()
            await each.wait_closed()

    try:
        server, client = first.run_until_complete(open_both())
        second.run_until_complete(use(client))
        first.run_until_complete(close(client, server))
    finally:
        first.close()
        second.close()


async def test_client_in_another_thread(address: Address, handler: Handler) -> None:
    async with (
        await rpc.start_server(handler, bind=address()) as server,
        await rpc.open_client(connect=server.endpoints) as client,
    ):
        assert await client.rpc.add(1) == 2

        def use() -> None:
            with pytest.raises(RuntimeError, match=r"another event loop or thread.*SyncClient"):
                client.rpc.add(1)

        async def use_in_a_loop() -> None:
            use()

        await asyncio.to_thread(use)
        await asyncio.to_thread(asyncio.run, use_in_a_loop())
        assert await client.rpc.add(1) == 2


async def test_client_and_server_on_loops_of_their_own(address: Address) -> None:
    """Each in a thread of its own, over each transport."""
    endpoint = address()
    ready, done = threading.Event(), threading.Event()

    async def serve() -> None:
        async with await rpc.start_server(Handler("there"), bind=endpoint):
            ready.set()
            await asyncio.to_thread(done.wait, 10)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert await asyncio.to_thread(ready.wait, 10)
        async with await rpc.open_client(connect=endpoint, timeout=5) as client:
            assert await asyncio.gather(*[client.rpc.who() for _ in range(100)]) == ["there"] * 100
    finally:
        done.set()
        await asyncio.to_thread(thread.join)


FORKED = """
    import asyncio, os, sys
    from berrymq_rpc import rpc

    async def main():
        server = await rpc.start_server({"one": rpc.method(lambda: 1)}, bind="tcp://127.0.0.1:*")
        client = await rpc.open_client(connect=server.endpoints)
        assert await client.rpc.one() == 1
        child = os.fork()
        if child == 0:
            status = 1
            try:
                try:
                    client.rpc.one()
                except rpc.Error as error:
                    assert "fork" in str(error), error
                    try:
                        client.notify.one()
                    except rpc.Error as error:
                        assert "fork" in str(error), error
                        status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        for _ in range(10):
            assert await client.rpc.one() == 1
        # A child that opens its own has nothing of the parent's in its way.
        endpoint = server.endpoints[0]
        child = os.fork()
        if child == 0:
            status = 1
            try:
                async def own():
                    async with await rpc.open_client(connect=endpoint, timeout=5) as mine:
                        return await mine.rpc.one()
                asyncio.events._set_running_loop(None)
                status = 0 if asyncio.run(own()) == 1 else 2
            finally:
                os._exit(status)
        status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status[1]) == 0, status
        client.close()
        await client.wait_closed()
        server.close()
        await server.wait_closed()
        print("fine")

    asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_fork(run_program: Any) -> None:
    program = textwrap.dedent(FORKED)
    if sys.version_info >= (3, 12):
        # Python warns of forks in a process with threads, and ZeroMQ has some.
        program = "import warnings; warnings.simplefilter('ignore', DeprecationWarning)\n" + program
    finished = run_program(program)
    assert finished.stderr == ""
    assert finished.stdout == "fine\n"


def test_a_program_that_closes_nothing(run_program: Any) -> None:
    """It ends, whatever is open and in flight."""
    finished = run_program(
        textwrap.dedent(
            """
            import asyncio, warnings
            from berrymq_rpc import rpc

            async def forever():
                await asyncio.Event().wait()

            async def main():
                server = await rpc.start_server(
                    {"forever": rpc.method(forever)}, bind=["tcp://127.0.0.1:*", "mem://*"]
                )
                for endpoint in server.endpoints:
                    client = await rpc.open_client(connect=endpoint)
                    client.rpc.forever()
                    client.notify.forever()
                await asyncio.sleep(0.1)
                print("leaving", flush=True)

            warnings.simplefilter("ignore", ResourceWarning)
            asyncio.run(main())
            """
        )
    )
    assert finished.stdout == "leaving\n"
    assert finished.returncode == 0


async def test_open_files_and_memory_of_many_connections(handler: Handler, until: Until) -> None:
    """What is opened and closed leaves no file open."""
    folder = Path("/proc/self/fd")
    if not folder.exists():
        pytest.skip("open files cannot be counted here")
    async with await rpc.start_server(handler, bind="tcp://127.0.0.1:*") as server:

        async def use() -> None:
            async with await rpc.open_client(connect=server.endpoints) as client:
                assert await client.rpc.add(1) == 2

        await use()
        await until(lambda: server.statistics()["peers"] == 0)
        before = len(list(folder.iterdir()))
        for _ in range(20):
            await asyncio.gather(*[use() for _ in range(5)])
        await until(lambda: server.statistics()["peers"] == 0)
        await until(lambda: len(list(folder.iterdir())) <= before + 2)
