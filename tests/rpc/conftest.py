"""What the tests of whole clients and servers share, as fixtures that are functions."""

import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, TextIO

import pytest

from berrymq_rpc import rpc

ROOT = Path(__file__).parents[2]
SERVER_PROGRAM = Path(__file__).with_name("server_process.py")

#: The package need not be installed.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}

#: Seconds in which what has to happen happens, on a machine that is busy with other things.
PATIENCE = 10.0


class Pair(Protocol):
    def __call__(
        self, handler: Any, /, *, bind: Any = ..., server: Any = ..., **client: Any
    ) -> AbstractAsyncContextManager[tuple[rpc.Server, rpc.Client]]: ...


@pytest.fixture
def pair() -> Pair:
    """``async with pair(handler) as (server, client)``; `server` holds the server's settings."""

    @asynccontextmanager
    async def opened(
        handler: Any,
        /,
        *,
        bind: Any = "tcp://127.0.0.1:*",
        server: dict[str, Any] | None = None,
        **client: Any,
    ) -> AsyncIterator[tuple[rpc.Server, rpc.Client]]:
        settings = {"grace": 0.2, **(server or {})}
        async with (
            await rpc.start_server(handler, bind=bind, **settings) as serving,
            await rpc.open_client(connect=serving.endpoints, **client) as calling,
        ):
            yield serving, calling

    return opened


class ServerProcess:
    """A server in a process of its own. What it prints is in `lines`."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
            # Ctrl-C in the terminal of the tests is not for it.
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.endpoint = self.process.stdout.readline().strip().removeprefix("serving ")
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,))
        self._reader.start()

    def _read(self, stdout: TextIO) -> None:
        self.lines.extend(line.strip() for line in stdout)

    def send(self, number: signal.Signals) -> float:
        """Send a signal; the time of it. After SIGSTOP, the process is frozen."""
        self.process.send_signal(number)
        if number == signal.SIGSTOP:
            # On a busy machine, some of its threads run on for a moment.
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)
        return time.monotonic()

    def wait(self) -> int:
        """Wait for its end; the exit code."""
        code = self.process.wait(PATIENCE)
        self._reader.join()
        return code

    def errors(self) -> str:
        """What it wrote to stderr, when it has ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def end(self) -> None:
        self.process.kill()
        self.wait()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


@pytest.fixture
def program(request: pytest.FixtureRequest) -> Iterator[Callable[..., ServerProcess]]:
    """``program("beside_the_test.py")`` starts one, whose end the test need not see to."""
    started: list[ServerProcess] = []

    def start(name: str | Path, *arguments: str) -> ServerProcess:
        started.append(ServerProcess(str(request.path.parent / name), *arguments))
        return started[-1]

    yield start
    for process in started:
        process.end()


@pytest.fixture
def server_process(program: Any) -> Callable[..., ServerProcess]:
    """``server_process("--heartbeat", "0.4")`` starts `server_process.py`."""
    return functools.partial(program, SERVER_PROGRAM)


@pytest.fixture
def run_program() -> Callable[..., subprocess.CompletedProcess[str]]:
    """``run_program(text, *arguments)`` runs a program in a process of its own."""

    def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", program, *arguments],
            capture_output=True,
            text=True,
            env=ENVIRONMENT,
            timeout=30,
            start_new_session=True,
        )

    return run
