"""Single keys from a terminal, where it allows that."""

import os
import re
import select
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["Keyboard"]

#: Bytes of keys that are read at once.
MAX_KEYS = 1024

ESCAPE = "\x1b"

#: Arrows and their like, which are several characters and mean nothing here.
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O[@-~])")


class Keyboard:
    """Keys that are pressed; none where standard input is no terminal, or on Windows.

    Use it with `reading`, which restores the terminal.
    """

    def __init__(self) -> None:
        self._file: int | None = None
        # Sockets, as Windows waits for nothing else.
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_write.setblocking(False)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read keys as they are pressed; they are not shown."""
        try:
            import termios
            import tty

            file = sys.stdin.fileno()
            before = termios.tcgetattr(file)
        except (ImportError, OSError, ValueError, AttributeError, termios_error()):
            yield
            return
        try:
            # Ctrl-C stays a signal.
            tty.setcbreak(file, termios.TCSANOW)
            self._file = file
            yield
        finally:
            self._file = None
            termios.tcsetattr(file, termios.TCSANOW, before)

    def wake(self) -> None:
        """End a `wait`. Any thread, and a signal handler, may call it."""
        with suppress(BlockingIOError, OSError):
            self._wake_write.send(b"\0")

    def wait(self, seconds: float | None) -> str:
        """Return what was pressed; empty if the time is over, or `wake` was called."""
        files: list[socket.socket | int] = [self._wake_read]
        if self._file is not None:
            files.append(self._file)
        ready, _, _ = select.select(files, [], [], seconds)
        if self._wake_read in ready:
            self._wake_read.recv(MAX_KEYS)
        if self._file is None or self._file not in ready:
            return ""
        data = os.read(self._file, MAX_KEYS)
        if not data:
            # The terminal is gone.
            self._file = None
            return ""
        return _SEQUENCE.sub("", data.decode("utf-8", "replace"))

    def close(self) -> None:
        """Close what it holds; `wake` does nothing from then on."""
        self._wake_read.close()
        self._wake_write.close()


def termios_error() -> type[Exception]:
    """What `termios` raises for a file that is no terminal."""
    try:
        import termios
    except ImportError:
        return OSError
    return termios.error
