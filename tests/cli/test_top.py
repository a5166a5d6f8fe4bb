"""``berrymq top``: on pipes, and on a terminal as a person uses it."""

import fcntl
import json
import re
import signal
import struct
import termios
from collections.abc import Callable, Iterator
from subprocess import CompletedProcess
from typing import Any

import pytest

from .conftest import Start
from .test_terminal import Terminal, on_terminal

pytest.importorskip("aiohttp")

Run = Callable[..., "CompletedProcess[str]"]

#: Begins and ends the terminal's second screen.
ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"


@pytest.fixture
def page(start: Start) -> Iterator[Any]:
    """A node with a live page: its `url` and `endpoint`."""
    with start(
        *("serve", "--bind", "tcp://127.0.0.1:*", "--http", "127.0.0.1:0", "--token", "secret"),
        *("--show", "--name", "kitchen"),
    ) as running:
        found = {}
        while len(found) < 2:
            line = running.line()
            for name, pattern in (("endpoint", r"tcp://[\d.:]+"), ("url", r"http://[\d.:]+")):
                if name not in found and (match := re.search(pattern, line)):
                    found[name] = match[0]
        for name, value in found.items():
            setattr(running, name, value)
        yield running


def sized(terminal: Terminal, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal.number, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def test_a_pipe(page: Any, berrymq: Run) -> None:
    result = berrymq("top", page.url, "--token", "secret")
    assert (result.returncode, result.stderr) == (0, "")
    first, figures, *tables = result.stdout.splitlines()
    assert first == f"kitchen  {page.endpoint}  {page.url}"
    assert figures.startswith("messages/s")
    assert any(line.startswith("PEER 1") for line in tables)
    assert "\x1b" not in result.stdout


def test_json(page: Any, berrymq: Run, start: Start) -> None:
    arguments = ("top", page.url, "--token", "secret", "--json")
    result = berrymq(*arguments, "--once")
    assert result.returncode == 0
    assert json.loads(result.stdout)["name"] == "kitchen"
    with start(*arguments, "--interval", "0.05") as running:
        for _ in range(3):
            assert json.loads(running.line())["version"] == 1
        # A server that has gone is told, and asked again.
        page.end(signal.SIGTERM)
        while "note" not in (line := running.note()):
            continue
        assert "nothing answers" in json.loads(line)["message"]
        assert running.end(signal.SIGINT) == -signal.SIGINT


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        ((), 5, "wants a token: give --token"),
        (("--token", "wrong"), 5, "refuses"),
        (("--interval", "0"), 2, "more than 0 seconds"),
    ],
)
def test_refusals(page: Any, berrymq: Run, arguments: Any, status: int, text: str) -> None:
    result = berrymq("top", page.url, *arguments)
    assert result.returncode == status
    assert text in result.stderr


def test_nothing_listens(berrymq: Run) -> None:
    result = berrymq("top", "127.0.0.1:1")
    assert result.returncode == 3
    assert "nothing answers" in result.stderr
    assert berrymq("top", "tcp://127.0.0.1:1").returncode == 2


def test_keys(page: Any, berrymq: Run) -> None:
    with on_terminal("top", page.url, "--interval", "0.1", BERRYMQ_TOKEN="secret") as terminal:
        sized(terminal, 24, 80)
        before = termios.tcgetattr(terminal.number)
        terminal.until("sort: busiest")
        assert ENTER in terminal.seen
        assert not termios.tcgetattr(terminal.number)[3] & termios.ECHO
        terminal.press("s")
        terminal.until("sort: trouble")
        terminal.press("/nothing-of-that")
        terminal.until("filter: nothing-of-that")
        terminal.press("\r")
        terminal.until("Esc none")
        terminal.press("\x1b")
        terminal.press("4")
        terminal.until("PEER 1")
        terminal.seen = ""
        sized(terminal, 10, 60)
        terminal.process.send_signal(signal.SIGWINCH)
        terminal.until("kitchen")
        # Neither an arrow nor a letter that means nothing ends it.
        terminal.press("\x1b[A")
        terminal.press("x")
        terminal.press("q")
        assert terminal.end() == 0
        assert LEAVE in terminal.seen
        assert "\x1b[?25h" in terminal.seen.partition(LEAVE)[0] + terminal.seen.partition(LEAVE)[2]
        assert termios.tcgetattr(terminal.number)[3] == before[3] | termios.ECHO | termios.ICANON


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_terminal_is_restored(page: Any, number: signal.Signals) -> None:
    with on_terminal("top", page.url, "--interval", "0.1", "--token", "secret") as terminal:
        terminal.until("sort: busiest")
        if number is signal.SIGINT:
            terminal.press("\x03")
        else:
            terminal.process.send_signal(number)
        assert terminal.end() == (-signal.SIGINT if number is signal.SIGINT else 143)
        assert LEAVE in terminal.seen
        assert "Traceback" not in terminal.seen
        assert termios.tcgetattr(terminal.number)[3] & termios.ECHO


def test_a_server_that_goes(page: Any) -> None:
    with on_terminal("top", page.url, "--interval", "0.1", "--token", "secret") as terminal:
        terminal.until("kitchen")
        page.end(signal.SIGTERM)
        terminal.until("nothing answers")
        terminal.until("asking again")
        terminal.press("q")
        assert terminal.end() == 0


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {}])
def test_colour(page: Any, environment: dict[str, str]) -> None:
    with on_terminal("top", page.url, "--token", "secret", **environment) as terminal:
        terminal.until("sort: busiest")
        terminal.press("q")
        assert terminal.end() == 0
        coloured = re.findall(r"\x1b\[(?:[0-9]+;)*(?:3[0-9]|9[0-7])[;m]", terminal.seen)
        assert bool(coloured) is not bool(environment)
