"""What the tests of faults share: whole clients and servers, and peers that fail."""

import asyncio
import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from berrymq_rpc import rpc
from berrymq_rpc.testing import tcp_proxy


def _load(path: Path) -> ModuleType:
    """A module of the tests', which are no packages and so cannot import one another."""
    spec = importlib.util.spec_from_file_location(f"faults_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look for the module of their class there.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


HERE = Path(__file__).parent

_fixtures = _load(HERE.parent / "rpc" / "conftest.py")
pair = _fixtures.pair
program = _fixtures.program
run_program = _fixtures.run_program
server_process = _fixtures.server_process

_raw = _load(HERE / "raw.py")
_attacks = _load(HERE / "attacks.py")
_with_keys = _load(HERE / "with_keys" / "sitecustomize.py")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "attack" in metafunc.fixturenames:
        metafunc.parametrize("attack", list(_attacks.ATTACKS))
    marker = metafunc.definition.get_closest_marker("keys")
    if marker is not None and not marker.kwargs.get("never"):
        marks = () if marker.kwargs.get("quick") else (pytest.mark.slow,)
        values = [pytest.param(False, id="plain"), pytest.param(True, marks=marks, id="keys")]
        if marker.kwargs.get("alone"):
            values = [pytest.param(True, id="keys")]
        metafunc.parametrize("keys", values, indirect=True)


@pytest.fixture(autouse=True)
def keys(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether servers and clients have keys: ``@pytest.mark.keys`` runs a test with and without.

    The run with keys is a slow one unless the marker says ``quick=True``; with ``never=True``
    there is none, with ``alone=True`` no other.
    """
    if not getattr(request, "param", False):
        return False
    server, client = rpc.KeyPair.generate(), rpc.KeyPair.generate()
    for name, pair in ((_with_keys.SERVER, server), (_with_keys.CLIENT, client)):
        monkeypatch.setenv(name, pair.secret)
        monkeypatch.setitem(_fixtures.ENVIRONMENT, name, pair.secret)
    path = f"{HERE / 'with_keys'}{os.pathsep}{_fixtures.ENVIRONMENT['PYTHONPATH']}"
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setitem(_fixtures.ENVIRONMENT, "PYTHONPATH", path)
    monkeypatch.setattr(_raw, "KEYS", (client, server))
    _with_keys.install(monkeypatch.setattr)
    return True


@pytest.fixture
def link() -> Callable[..., Any]:
    """``async with link(endpoint) as line``: a TCP proxy that can fail, see `TcpProxy`."""
    return tcp_proxy.opened


@pytest.fixture
def raw() -> ModuleType:
    """The module `raw.py`: peers that are nothing but a socket of pyzmq's."""
    return _raw


@pytest.fixture
def attacks() -> ModuleType:
    """The module `attacks.py`: what one peer may send, and a server to send it to."""
    return _attacks


@pytest.fixture
def unused_tcp() -> Callable[[], str]:
    """``unused_tcp()`` gives an endpoint at which no server listens."""

    def endpoint() -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return f"tcp://127.0.0.1:{probe.getsockname()[1]}"

    return endpoint


@pytest.fixture
def outcomes() -> Callable[..., Any]:
    """``await outcomes(calls, seconds)``: the results and exceptions of calls that must end."""

    async def gathered(calls: list[Any], seconds: float) -> list[Any]:
        async with asyncio.timeout(seconds):
            return await asyncio.gather(*calls, return_exceptions=True)

    return gathered


class Waiting(rpc.AttrHandler):
    """Methods that end when they are cancelled, and how many of them run."""

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


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()


class GoodClient:
    """Calls `add` again and again, as those do who are no part of the fault."""

    def __init__(self) -> None:
        self.answers = 0
        #: Seconds that the slowest answer took.
        self.longest = 0.0

    async def call(self, client: rpc.Client) -> None:
        while True:
            began = time.monotonic()
            async with asyncio.timeout(10):
                assert await client.rpc.add(1) == 2
            self.longest = max(self.longest, time.monotonic() - began)
            self.answers += 1
            # Its own rate is not what is tested.
            await asyncio.sleep(0.001)


@pytest.fixture
def good_client() -> Callable[..., Any]:
    """``async with good_client(endpoint) as good`` calls meanwhile, on a connection of its own."""

    @contextlib.asynccontextmanager
    async def calling(endpoint: str) -> AsyncIterator[GoodClient]:
        good = GoodClient()
        async with await rpc.open_client(connect=endpoint) as client:
            assert await client.rpc.add(1) == 2
            task = asyncio.create_task(good.call(client))
            try:
                yield good
                # One that began after all the rest must be answered too.
                enough = good.answers + 2
                async with asyncio.timeout(10):
                    while good.answers < enough and not task.done():
                        await asyncio.sleep(0.001)
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    return calling


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


@pytest.fixture
def client_process() -> Callable[..., Any]:
    """``with client_process(endpoint, heartbeat) as process``: a client with 11 calls in flight.

    It prints a line when they are sent.
    """

    @contextlib.contextmanager
    def started(endpoint: str, heartbeat: float) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, "-c", textwrap.dedent(CLIENT), endpoint, str(heartbeat)]
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            env=_fixtures.ENVIRONMENT,
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    return started
