"""Where the command writes: in colour on a terminal, plain elsewhere."""

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias

from .failure import Failed, OutputClosed
from .values import json_text, printable

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["VALUE", "Output", "Part"]

#: A piece of a line, and its style as `rich` names them.
Part: TypeAlias = tuple[str, str]

#: The style of values in Python's notation, coloured by their types.
VALUE = "value"


class Output:
    """Standard output or standard error. Each line is there for its reader at once.

    Args:
        stream: `sys.stdout` or `sys.stderr`; ``None`` where it was closed from the start.

    Attributes:
        is_terminal: whether a person reads it.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.is_terminal = stream is not None and stream.isatty()
        self._console: Console | None = None
        self._is_unicode = (getattr(stream, "encoding", None) or "utf-8").lower().startswith("utf")
        if stream is not None and hasattr(stream, "reconfigure"):
            # An output in ASCII must not fail at the first name that is not.
            stream.reconfigure(errors="backslashreplace")

    def line(self, *parts: Part | str) -> None:
        """Write a line of parts; what is not printable in them is escaped."""
        shown = [(part, "") if isinstance(part, str) else part for part in parts]
        shown = [(printable(text), style) for text, style in shown]
        if self.is_terminal:
            self._write_coloured(shown)
        else:
            self._write("".join(text for text, _ in shown))

    def json(self, value: Any) -> None:
        """Write a value as JSON, on one line."""
        self._write(json_text(value, ascii_only=not self._is_unicode))

    def pretty(self, value: Any) -> None:
        """Write a value for a person, on as many lines as it needs."""
        from rich.pretty import Pretty

        self._on_console(Pretty(value))

    def text(self, text: str) -> None:
        """Write text of this command's own as it is."""
        self._write(text.rstrip("\n"))

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """End what runs within it as soon as nobody reads this output any more.

        Without it, a command that waits would notice only when it has something to write.

        Raises:
            OutputClosed: nobody does.
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
            # There is nothing to read where one writes: what is told is that the other side went.
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
        """The file's number if it is a pipe, or -1."""
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
            # Lines are not broken by it: what is copied from the terminal is what was written.
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
        """Let Python flush what it still has when it ends; that would fail once more."""
        if self._stream is None:
            return
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
