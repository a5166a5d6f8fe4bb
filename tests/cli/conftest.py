"""Run the command in processes of its own.

They are forks of one that has imported the command; `test_entry.py` starts it as its users do.
"""

import atexit
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache, partial
from pathlib import Path

import pytest

from .fork_server import Forked, ForkServer

ROOT = Path(__file__).resolve().parents[2]
BERRYMQ = [sys.executable, "-m", "berrymq_rpc"]
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")
} | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "PYTHONUTF8": "1", "COLUMNS": "100"}

#: No server is listening there: the port is a reserved one, and needs rights to bind.
SILENT = "tcp://127.0.0.1:1"

SECONDS = 20


class Running:
    """A running command, whose output is read line by line."""

    def __init__(self, process: "subprocess.Popen[bytes] | Forked", files: dict[str, int]) -> None:
        self.process = process
        self._lines: dict[str, queue.SimpleQueue[str]] = {}
        self._readers: list[threading.Thread] = []
        for name, file in files.items():
            lines = self._lines[name] = queue.SimpleQueue()
            reader = threading.Thread(target=self._read, args=(file, lines))
            self._readers.append(reader)
            reader.start()

    @staticmethod
    def _read(file: int, lines: "queue.SimpleQueue[str]") -> None:
        with open(file, encoding="utf-8") as stream:
            for line in stream:
                lines.put(line.rstrip("\n"))
        lines.put("(end)")

    def line(self) -> str:
        """The next line of standard output."""
        return self._next("stdout")

    def note(self) -> str:
        """The next line of standard error."""
        return self._next("stderr")

    def _next(self, name: str) -> str:
        try:
            return self._lines[name].get(timeout=SECONDS)
        except queue.Empty:
            pytest.fail(f"no line on {name} within {SECONDS} s")

    def rest(self, name: str = "stdout") -> list[str]:
        """The remaining lines, once it has ended."""
        lines: list[str] = []
        while (line := self._next(name)) != "(end)":
            lines.append(line)
        return lines

    def finish(self) -> None:
        """Wait for the reading threads, which end with the process."""
        for reader in self._readers:
            reader.join(SECONDS)

    def end(self, number: signal.Signals | None = None) -> int:
        """Its exit status, after a signal if one is given."""
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(SECONDS)


Start = Callable[..., AbstractContextManager[Running]]


@contextmanager
def reading(start: Callable[[int, int], "subprocess.Popen[bytes] | Forked"]) -> Iterator[Running]:
    """A program that `start` has started with two files to write to."""
    pipes = {"stdout": os.pipe(), "stderr": os.pipe()}
    process = start(*(write for _, write in pipes.values()))
    for _, write in pipes.values():
        os.close(write)
    running = Running(process, {name: read for name, (read, _) in pipes.items()})
    try:
        yield running
    finally:
        process.kill()
        process.wait(SECONDS)
        running.finish()


def started(arguments: list[str], **environment: str) -> AbstractContextManager[Running]:
    """Start a program."""
    return reading(
        lambda stdout, stderr: subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=ENVIRONMENT | environment,
            cwd=ROOT,
        )
    )


@cache
def fork_server() -> ForkServer:
    server = ForkServer(ENVIRONMENT)
    atexit.register(server.close)
    return server


def started_command(*arguments: str, **environment: str) -> AbstractContextManager[Running]:
    """Start the command."""
    return reading(partial(fork_server().start, list(arguments), ENVIRONMENT | environment))


def run_command(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the command to its end."""
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        files = stdout.fileno(), stderr.fileno()
        process = fork_server().start(list(arguments), ENVIRONMENT | environment, *files)
        try:
            status = process.wait(SECONDS)
        finally:
            process.kill()
        texts = []
        for file in (stdout, stderr):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess(["berrymq", *arguments], status, *texts)


def endpoint_of(node: Running) -> str:
    """Return the endpoint of a node that has been started; read all lines of its start."""
    first = node.line()
    found = re.fullmatch(r"The node is at (\S+)", first)
    assert found, (first, node.rest("stderr"))
    while not node.line().endswith("Ctrl-C ends the node."):
        pass
    return found[1]


@pytest.fixture
def berrymq() -> Callable[..., subprocess.CompletedProcess[str]]:
    return run_command


@pytest.fixture
def start() -> Start:
    return started_command


@pytest.fixture
def node() -> Iterator[Running]:
    """A node that shows the messages that arrive, with its `endpoint`."""
    with started_command("serve", "--bind", "tcp://127.0.0.1:*", "--show") as running:
        running.endpoint = endpoint_of(running)  # type: ignore[attr-defined]
        yield running


@pytest.fixture
def server() -> Iterator[str]:
    """The endpoint of a server with methods of all kinds."""
    with started([sys.executable, str(Path(__file__).parent / "methods_server.py")]) as running:
        yield running.line()
