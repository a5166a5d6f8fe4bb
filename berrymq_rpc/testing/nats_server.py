"""A NATS server of one's own, for tests."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from ..runtime.extra import install_command

__all__ = ["NatsServer", "find_nats_server"]

#: Seconds in which a server starts or stops.
PATIENCE = 20.0

#: Bytes of its log that an error shows.
_SHOWN = 2000


def find_nats_server() -> str | None:
    """The path of ``nats-server``: that of this Python's environment, or else that of ``PATH``."""
    beside = Path(sys.executable).with_name("nats-server")
    return str(beside) if beside.exists() else shutil.which("nats-server")


class NatsServer:
    """A ``nats-server`` on a free port of this host; use it with ``with``.

    It keeps its port when it is started again, and what JetStream has stored.

    Args:
        config: the text of its configuration file, beside what the arguments say.
        jetstream: whether it has JetStream, in a temporary folder.
        address: where it listens; ``0.0.0.0`` is reached from other hosts.
        arguments: more for the command line.
        path: of the program; by default what `find_nats_server` finds.
        process_group: 0 for one of its own, which Ctrl-C in a terminal does not reach: so a program
            can end first what uses the server. ``None`` for that of this process.

    Attributes:
        port: where clients connect.
        folder: its temporary folder.

    Raises:
        FileNotFoundError: there is no ``nats-server``; the extra ``nats-server`` brings one.
        RuntimeError: it does not start; with the end of its log.
    """

    def __init__(
        self,
        config: str = "",
        *,
        jetstream: bool = False,
        address: str = "127.0.0.1",
        arguments: Sequence[str] = (),
        path: str | None = None,
        process_group: int | None = None,
    ) -> None:
        found = path or find_nats_server()
        if found is None:
            raise FileNotFoundError(
                'there is no nats-server. One comes with the extra "nats-server": '
                f"{install_command('nats-server')}"
            )
        self._program = found
        self._process_group = process_group
        self._address = address
        self._temporary = tempfile.TemporaryDirectory(prefix="nats-")
        self.folder = Path(self._temporary.name)
        self._config = self.folder / "server.conf"
        self._config.write_text(config, encoding="utf-8")
        self._arguments = list(arguments)
        if jetstream:
            self._arguments += ["--jetstream", "--store_dir", str(self.folder / "jetstream")]
        self._process: subprocess.Popen[bytes] | None = None
        self.port = -1
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """Its address, such as ``"nats://127.0.0.1:4222"``."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it has logged."""
        try:
            return (self.folder / "log").read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def reload(self, config: str) -> None:
        """Change its configuration while it runs; what it does not take, it logs."""
        self._config.write_text(config, encoding="utf-8")
        self.signal(signal.SIGHUP)

    def start(self) -> None:
        """Start it, if it does not run, and wait until it takes connections.

        Raises:
            RuntimeError: it does not start; with the end of its log.
        """
        if self._process is not None:
            return
        command = [self._program, "--addr", self._address, "--port", str(self.port)]
        command += ["--config", str(self._config), "--log", str(self.folder / "log")]
        command += ["--ports_file_dir", str(self.folder), *self._arguments]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=self._process_group,
        )
        ports = self.folder / f"nats-server_{self._process.pid}.ports"
        end = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
                (url, *_) = json.loads(ports.read_text(encoding="utf-8"))["nats"]
                self.port = int(url.rpartition(":")[2])
                return
            if self._process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise RuntimeError(f"nats-server does not start: {self.log[-_SHOWN:]}")
            time.sleep(0.005)

    def signal(self, number: int) -> None:
        """Send it a signal. ``SIGSTOP`` freezes it, ``SIGCONT`` lets it go on."""
        assert self._process is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            os.kill(process.pid, number)
            os.kill(process.pid, signal.SIGCONT)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(PATIENCE)

    def close(self) -> None:
        """End it, and remove its folder."""
        self.kill()
        self._temporary.cleanup()

    def __enter__(self) -> "NatsServer":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
