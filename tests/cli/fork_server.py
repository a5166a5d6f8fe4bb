"""Start the command by a fork of a process that has imported it: in a tenth of the time.

    python fork_server.py LISTENER

LISTENER is the number of a socket. Each connection to it starts one command: a line of JSON with
its arguments and environment comes with the files for standard output and error; the pid and, at
the end, the exit status go back, a line each. The server ends at the end of its standard input.
"""

import contextlib
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MAIN = str(ROOT / "berrymq_rpc" / "__main__.py")
#: What the commands import as they are used.
COMMON = ["cli.command", "cli.call", "cli.get", "cli.send", "cli.serve", "cli.tail"]


class ForkServer:
    """The server, as its clients see it.

    Args:
        environment: of the server; that of a command may differ in what is read as it runs.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        with contextlib.ExitStack() as unless_started:
            self._folder = unless_started.enter_context(tempfile.TemporaryDirectory())
            self._path = os.path.join(self._folder, "socket")
            listener = unless_started.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(self._path)
            listener.listen(128)
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(listener.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env=environment,
                cwd=ROOT,
                pass_fds=[listener.fileno()],
            )
            self._resources = unless_started.pop_all()

    def start(
        self, arguments: list[str], environment: dict[str, str], stdout: int, stderr: int
    ) -> "Forked":
        """Start a command with these open files."""
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._path)
        request = json.dumps({"arguments": arguments, "environment": environment}).encode()
        socket.send_fds(connection, [request + b"\n"], [stdout, stderr])
        return Forked(connection)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._resources.close()


class Forked:
    """A command that runs, with the names of `subprocess.Popen`."""

    def __init__(self, connection: socket.socket) -> None:
        self._answers = connection.makefile("r")
        self._connection = connection
        self.returncode: int | None = None
        self.pid = int(self._answers.readline())

    def wait(self, timeout: float) -> int:
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("berrymq", timeout)
            self.returncode = int(self._answers.readline())
            self._answers.close()
            self._connection.close()
        return self.returncode

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def serve(listener: socket.socket) -> dict[str, Any]:
    """Serve; return a request in the process that is to run it."""
    for name in COMMON:
        importlib.import_module(f"berrymq_rpc.{name}")
    # Nobody waits for those that wait for the commands.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while listener in select.select([listener, sys.stdin], [], [])[0]:
        connection, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return keep(connection)
        connection.close()
    os._exit(0)


def keep(connection: socket.socket) -> dict[str, Any]:
    """Fork the command, and tell its pid and exit status; return its request there."""
    line, files, _, _ = socket.recv_fds(connection, 1 << 20, 2)
    while not line.endswith(b"\n"):
        line += connection.recv(1 << 20)
    child = os.fork()
    if child == 0:
        connection.close()
        for stream, file in enumerate(files, 1):
            os.dup2(file, stream)
            os.close(file)
        request: dict[str, Any] = json.loads(line)
        return request
    for file in files:
        os.close(file)
    connection.sendall(b"%d\n" % child)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    connection.sendall(b"%d\n" % status)
    os._exit(0)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as listener:
        request = serve(listener)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.environ.clear()
    os.environ.update(request["environment"])
    # Those of the server know too well what kind of file it has.
    encoding = os.environ.get("PYTHONIOENCODING", "utf-8")
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", encoding=encoding, closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(
        2, "w", encoding=encoding, errors="backslashreplace", buffering=1, closefd=False
    )
    sys.argv = [MAIN, *request["arguments"]]
    # Here and not in a function: the command ends as the interpreter does.
    runpy.run_module("berrymq_rpc", run_name="__main__", alter_sys=True)
