"""Shows a state in a terminal, again and again, until the user leaves."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from .keyboard import ESCAPE, Keyboard
from .source import Source
from .state import State
from .view import SORTS, TABLES, View, lines_of

__all__ = ["Screen"]

_HELP = "q quit  1-4 one table  0 all  s sort: {sort}  / filter"

#: Exit status of a program that SIGTERM ends, as a shell has it.
TERMINATED = 128 + 15


class Poller(threading.Thread):
    """Asks for the state, so that the keys never wait for an answer.

    Attributes:
        state: the last one.
        problem: why there is no newer one, or ``None``.
    """

    def __init__(self, source: Source, interval: float, keyboard: Keyboard) -> None:
        super().__init__(name="berrymq top", daemon=True)
        self.state: State | None = None
        self.problem: str | None = None
        self._source = source
        self._interval = interval
        self._keyboard = keyboard
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.is_set():
            try:
                _, self.state = self._source.ask()
                self.problem = None
            except click.ClickException as error:
                self.problem = error.format_message()
            except Exception as error:
                # Whatever it is, the next time may be better, and the user sees it.
                self.problem = f"{type(error).__name__}: {error}"
            self._keyboard.wake()
            self._stopped.wait(self._interval)

    def stop(self) -> None:
        """Ask no more."""
        self._stopped.set()


class Screen:
    """The whole terminal.

    Args:
        source: where the state comes from.
        view: what to show at first.
        interval: seconds between two states.
    """

    def __init__(self, source: Source, view: View, interval: float) -> None:
        self._view = view
        self._console = Console(highlight=False, markup=False, emoji=False)
        self._keyboard = Keyboard()
        self._poller = Poller(source, interval, self._keyboard)
        #: What is typed as a filter, while it is.
        self._typed: str | None = None
        self._is_over = False

    def show(self, first: State) -> None:
        """Show states until the user leaves."""
        self._poller.state = first
        console = self._console
        live = Live(
            console=console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        try:
            with _signals(self._keyboard), self._keyboard.reading(), live:
                self._poller.start()
                while not self._is_over:
                    live.update(self._picture(), refresh=True)
                    self._press(self._keyboard.wait(None))
        finally:
            self._poller.stop()
            self._keyboard.close()

    def _picture(self) -> Group:
        width, height = self._console.size
        state = self._poller.state
        assert state is not None
        lines = lines_of(state, self._view, width, max(1, height - 1))
        lines += [Text()] * (height - 1 - len(lines))
        foot = self._foot()
        foot.truncate(width)
        return Group(*lines, foot)

    def _foot(self) -> Text:
        if self._typed is not None:
            return Text.assemble(("filter: ", "bold"), self._typed, ("_", "blink"))
        problem = self._poller.problem
        if problem is not None:
            return Text(f"{problem}; asking again", "red bold")
        text = _HELP.format(sort=self._view.sort)
        if self._view.filter:
            text += f": {self._view.filter}  Esc none"
        return Text(text, "dim")

    def _press(self, keys: str) -> None:
        for key in keys:
            if self._typed is not None:
                self._type(key)
            else:
                self._command(key)

    def _type(self, key: str) -> None:
        assert self._typed is not None
        if key in "\r\n":
            self._typed = None
        elif key == ESCAPE:
            self._typed = None
            self._view.filter = ""
        elif key in "\x7f\b":
            self._typed = self._typed[:-1]
            self._view.filter = self._typed
        elif key.isprintable() and len(self._typed) < 100:
            self._typed += key
            self._view.filter = self._typed

    def _command(self, key: str) -> None:
        view = self._view
        if key in "qQ":
            self._is_over = True
        elif key == "0":
            view.table = None
        elif key in "1234"[: len(TABLES)]:
            view.table = int(key) - 1
        elif key in "sS":
            view.sort = SORTS[(SORTS.index(view.sort) + 1) % len(SORTS)]
        elif key == "/":
            self._typed = view.filter
        elif key == ESCAPE:
            view.filter = ""


@contextmanager
def _signals(keyboard: Keyboard) -> Iterator[None]:
    """Draw again when the size changes; end in order at SIGTERM."""

    def resized(number: int, frame: FrameType | None) -> None:
        keyboard.wake()

    def ended(number: int, frame: FrameType | None) -> None:
        # The terminal is restored on the way.
        raise SystemExit(TERMINATED)

    before: dict[int, Any] = {signal.SIGTERM: signal.signal(signal.SIGTERM, ended)}
    if hasattr(signal, "SIGWINCH"):
        before[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, resized)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
