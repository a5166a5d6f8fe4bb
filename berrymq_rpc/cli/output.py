"""Standard output and standard error: lines, JSON, messages, the log; coloured on a terminal."""

import asyncio
import contextlib
import logging
import os
import stat
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias

from ..bus import Message
from .failure import Failed, OutputClosed
from .log_json import RecordHandler, note_text, settings
from .values import json_text, printable, python_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

__all__ = ["VALUE", "Output", "Part", "show_log"]

#: A part of a line, and its style in the words of `rich`.
Part: TypeAlias = tuple[str, str]

#: The style of values in Python's notation, coloured by their types.
VALUE = "value"


class Output:
    """Standard output or standard error. Each line is flushed at once.

    Args:
        stream: `sys.stdout` or `sys.stderr`; ``None`` if it was closed from the start.
        as_json: whether notes, events and the log are written as JSON, each as `--json` has it.

    Attributes:
        is_terminal: whether it is a terminal, which a person reads.
        as_json: as given.
        is_unicode: whether it takes every character.
    """

    def __init__(self, stream: TextIO | None, *, as_json: bool = False) -> None:
        self._stream = stream
        self.as_json = as_json
        self.is_terminal = stream is not None and stream.isatty()
        #: Whether its lines are records of the log; see `show_log`.
        self._of_log = False
        self._console: Console | None = None
        self.is_unicode = (getattr(stream, "encoding", None) or "utf-8").lower().startswith("utf")
        if stream is not None and hasattr(stream, "reconfigure"):
            # An output in ASCII must not fail at the first character that is not.
            stream.reconfigure(errors="backslashreplace")

    def line(self, *parts: Part | str) -> None:
        """Write a line of parts; characters that are not printable are escaped."""
        shown = [(part, "") if isinstance(part, str) else part for part in parts]
        shown = [(printable(text), style) for text, style in shown]
        if self._of_log:
            self._write(note_text("".join(text for text, _ in shown)))
        elif self.is_terminal:
            self._write_coloured(shown)
        else:
            self._write("".join(text for text, _ in shown))

    def make_log(self) -> None:
        """Write lines as records of the log from now on."""
        self._of_log = True

    def json(self, value: Any) -> None:
        """Write a value as one line of JSON."""
        self._write(json_text(value, ascii_only=not self.is_unicode))

    def note(self, word: str, text: str, style: str = "dim", **fields: Any) -> None:
        """Write on standard error what happens beside the command's output.

        Args:
            word: what it is, in JSON.
            text: the same for a person.
            style: of the text, in the words of `rich`.
            fields: what else JSON has about it.
        """
        if self._of_log:
            self._write(note_text(printable(text), note=word, **fields))
        elif self.as_json:
            self.json({"note": word, "message": text, **fields})
        else:
            self.line((text, style))

    def event(self, word: str, *parts: Part | str, **fields: Any) -> None:
        """Write on standard output what a command has done.

        Args:
            word: what it is, in JSON.
            parts: the line for a person.
            fields: what JSON has about it.
        """
        if self.as_json:
            self.json({"event": word, **fields})
        else:
            self.line(*parts)

    def styled(self, lines: "Iterable[Text]") -> None:
        """Write lines of `rich`; without a terminal, their text alone."""
        for line in lines:
            if self.is_terminal:
                self._on_console(line)
            else:
                self._write(line.plain.rstrip())

    def pretty(self, value: Any) -> None:
        """Write a value for a person, on as many lines as it needs."""
        from rich.pretty import Pretty

        self._on_console(Pretty(value))

    def text(self, text: str) -> None:
        """Write text that is safe as it is: it may have several lines."""
        self._write(text.rstrip("\n"))

    def message(self, message: Message, *, as_json: bool) -> None:
        """Write a message on one line.

        Args:
            message: from a bus, or from another node's queue.
            as_json: as JSON: an object with ``time``, ``id``, ``args`` and ``kwargs``, and
                ``redelivered`` if it may have been delivered before, ``retained`` if it was sent
                before the queue was opened, ``sequence`` for one that a durable queue keeps: its
                ``time`` is that of storing it.
        """
        sequence = getattr(message, "sequence", None)
        kept = getattr(message, "time", None) if sequence is not None else None
        now = (kept or datetime.now()).astimezone()
        redelivered = bool(getattr(message, "redelivered", False))
        if as_json:
            entry: dict[str, Any] = {
                "time": now.isoformat(timespec="milliseconds"),
                "id": message.id,
                "args": message.args,
                "kwargs": message.kwargs,
            }
            if sequence is not None:
                entry["sequence"] = sequence
            if redelivered:
                entry["redelivered"] = True
            if message.retained:
                entry["retained"] = True
            self.json(entry)
            return
        head, _, action = message.id.rpartition(":")
        parts: list[Part | str] = [
            (f"{now:%H:%M:%S}" if kept is None else f"{now:%Y-%m-%d %H:%M:%S}", "dim"),
            "  ",
            (head, "bold cyan"),
            (":", "dim"),
            (action, "bold green"),
        ]
        for value in message.args:
            parts += ["  ", (python_text(value), VALUE)]
        for name, value in message.kwargs.items():
            parts += ["  ", (f"{name}=", "yellow"), (python_text(value), VALUE)]
        if redelivered:
            parts += ["  ", ("(perhaps delivered before)", "red")]
        if message.retained:
            parts += ["  ", ("(retained)", "dim")]
        self.line(*parts)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Cancel what runs within it as soon as the reader of this output closes it.

        Without it, a command that waits would notice only at its next line.

        Raises:
            OutputClosed: the reader has closed it.
        """
        task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        number = self._pipe()
        is_closed = False

        def closed() -> None:
            nonlocal is_closed
            is_closed = True
            loop.remove_reader(number)
            if task is not None:
                task.cancel()

        if number >= 0:
            # The writing end of a pipe becomes readable only when the other end is closed.
            with contextlib.suppress(OSError, ValueError):
                loop.add_reader(number, closed)
        try:
            yield
        except asyncio.CancelledError:
            if is_closed and task is not None:
                task.uncancel()
                raise OutputClosed from None
            raise
        finally:
            if number >= 0:
                loop.remove_reader(number)

    def _pipe(self) -> int:
        """Return the file's number if it is a pipe, or -1."""
        try:
            number = -1 if self._stream is None else self._stream.fileno()
            return number if stat.S_ISFIFO(os.fstat(number).st_mode) else -1
        except (OSError, ValueError):
            return -1

    def _write_coloured(self, parts: list[Part]) -> None:
        from rich.highlighter import ReprHighlighter
        from rich.text import Text

        line = Text()
        for text, style in parts:
            line.append_text(
                ReprHighlighter()(Text(text)) if style == VALUE else Text(text, style=style)
            )
        self._on_console(line)

    def _on_console(self, renderable: Any) -> None:
        if self._console is None:
            from rich.console import Console

            self._console = Console(file=self._stream, markup=False, emoji=False, highlight=False)
        with self._checked():
            # Long lines are not broken: what is copied from the terminal is what was written.
            self._console.print(renderable, soft_wrap=True)

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        with self._checked():
            self._stream.write(f"{text}\n")
            self._stream.flush()

    @contextmanager
    def _checked(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            self._give_up()
            raise OutputClosed from None
        except OSError as error:
            self._give_up()
            raise Failed(f"cannot write: {error.strerror or error}") from error

    def _give_up(self) -> None:
        """Redirect the file to nowhere: what Python flushes at its end would fail again."""
        if self._stream is None:
            return
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


class LogHandler(logging.Handler):
    """Write warnings and errors as lines."""

    def __init__(self, output: Output) -> None:
        super().__init__(logging.WARNING)
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        try:
            style = "red" if record.levelno >= logging.ERROR else "yellow"
            self._output.line((f"{record.levelname.lower()}: {record.getMessage()}", style))
        except Exception:
            self.handleError(record)


def show_log(output: Output, *, exchange: bool = True, security: bool = True) -> None:
    """Write what the library logs from now on.

    Args:
        output: where.
        exchange: whether the log of connections to other nodes and to NATS is included; a command
            that reports them itself leaves it out.
        security: whether the log of refusals and of NATS is included; a command that one refusal
            ends leaves it out.
    """
    if settings().as_json:
        output.make_log()
    if settings().as_json or output.as_json:
        RecordHandler(output.text).install()
    else:
        logger = logging.getLogger("berrymq_rpc")
        logger.addHandler(LogHandler(output))
        logger.propagate = False
    left_out = {
        "exchange": not exchange,
        "nats": not (exchange and security),
        "rpc.nats": not (exchange and security),
        "security": not security,
    }
    for name, is_left_out in left_out.items():
        if is_left_out:
            logging.getLogger(f"berrymq_rpc.{name}").setLevel(logging.CRITICAL)
