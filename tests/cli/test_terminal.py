"""The command on a pseudo-terminal, as a person sees it."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from .conftest import BERRYMQ, ENVIRONMENT, ROOT, SECONDS

COLOUR = "\x1b["

# A terminal of its own, so that Ctrl-C in it reaches the command.
TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """A terminal: what a command writes to it, and keys to press."""

    def __init__(self, process: subprocess.Popen[bytes], number: int) -> None:
        self.process = process
        self.number = number
        self.seen = ""

    def until(self, text: str) -> str:
        """Wait until the text was written; return all that was written, without colours."""
        deadline = time.monotonic() + SECONDS
        while text not in self.plain():
            if not self.read(deadline - time.monotonic()):
                pytest.fail(f"{text!r} was not written: {self.seen!r}")
        return self.plain()

    def press(self, keys: str) -> None:
        os.write(self.number, keys.encode())

    def end(self) -> int:
        """Read the rest, and return the exit status."""
        deadline = time.monotonic() + SECONDS
        while self.read(deadline - time.monotonic()):
            pass
        return self.process.wait(SECONDS)

    def plain(self) -> str:
        return re.sub(r"\x1b\[[0-9;]*m", "", self.seen).replace("\r\n", "\n")

    def read(self, seconds: float) -> bool:
        """Read what comes within the time; return whether there may be more."""
        if not select.select([self.number], [], [], max(seconds, 0))[0]:
            return False
        try:
            data = os.read(self.number, 65536)
        except OSError:
            # How Linux reports the end of a terminal.
            return False
        self.seen += data.decode()
        return bool(data)


@contextmanager
def on_terminal(*arguments: str, **environment: str) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", TAKE_TERMINAL, *BERRYMQ, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=ENVIRONMENT | {"TERM": "xterm-256color", "LANG": "C.UTF-8"} | environment,
        cwd=ROOT,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        try:
            yield Terminal(process, ours)
        finally:
            process.kill()
            os.close(ours)


def test_messages_are_coloured_and_whole(node, berrymq) -> None:
    with on_terminal("tail", node.endpoint) as terminal:
        terminal.until("following *@*:*")
        words = "[bold]words[/] :smile: \x1b[2J" + "x" * 200
        berrymq("send", node.endpoint, "job:done", words, "number=1")
        # No markup, no escapes from a peer, no line breaks.
        seen = terminal.until("number=1")
        assert f"job:done  {words!r}  number=1" in seen
        assert COLOUR in terminal.seen
        assert "\x1b[2J" not in terminal.seen
        terminal.press("\x03")
        assert terminal.end() == -signal.SIGINT
        assert terminal.plain().splitlines()[-1] == "^C"


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_without_colour(node, berrymq, environment) -> None:
    with on_terminal("tail", node.endpoint, **environment) as terminal:
        terminal.until("following *@*:*")
        berrymq("send", node.endpoint, "job:done", "1")
        terminal.until("job:done  1")
        coloured = re.findall(r"\x1b\[(?:[0-9]+;)*(?:3[0-9]|9[0-7])[;m]", terminal.seen)
        assert coloured == []


def test_json_has_no_colour(node, berrymq) -> None:
    with on_terminal("tail", node.endpoint, "--json", "--quiet") as terminal:
        # It announces nothing: so the message is sent until it has arrived.
        while "job:done" not in terminal.seen:
            berrymq("send", node.endpoint, "job:done")
            terminal.read(0.1)
        assert COLOUR not in terminal.seen


def test_results(server) -> None:
    with on_terminal("call", server, "values.odd") as terminal:
        assert terminal.end() == 0
        assert "'bytes': b'\\x00\\xff'" in terminal.plain()
        assert "'timedelta': datetime.timedelta(seconds=90)" in terminal.plain()
        assert COLOUR in terminal.seen
        assert "\x1b[2J" not in terminal.seen
        assert "\x9b" not in terminal.seen
    with on_terminal("call", server, "divide", "1", "--json") as terminal:
        assert terminal.end() == 0
        assert terminal.seen == "1.0\r\n"


def test_a_long_result_is_not_broken(server) -> None:
    with on_terminal("call", server, "echo", "x" * 500) as terminal:
        assert terminal.end() == 0
        assert "x" * 500 in terminal.plain()


def test_methods(server) -> None:
    with on_terminal("methods", server) as terminal:
        assert terminal.end() == 0
        assert "divide(a: float, b: float = 1) -> float\n    Divide.\n" in terminal.plain()
        assert "\x1b[31m" not in terminal.seen.partition("Count down")[2][:20]


def test_a_node_shows_messages(berrymq) -> None:
    with on_terminal("serve", "--bind", "tcp://127.0.0.1:*") as terminal:
        seen = terminal.until("Messages appear here. Ctrl-C ends the node.\n")
        (endpoint,) = re.findall(r"^The node is at (\S+)$", seen, re.MULTILINE)
        berrymq("send", endpoint, "job:done", "1")
        terminal.until("job:done  1\n")
        terminal.press("\x03")
        assert terminal.end() == 0
        assert terminal.plain().endswith("^CThe node has ended.\n")
