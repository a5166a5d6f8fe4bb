"""Read the lines that a program writes as they come."""

import queue
import threading
from collections.abc import Iterable

__all__ = ["END", "LineReader"]

#: Read after the last line.
END = "-- the end"


class LineReader:
    """Reads a stream on a thread of its own, so that waiting for a line has a bound.

    Args:
        stream: a program's output, as text.
        patience: seconds to wait for a line, and for the end of the stream.
    """

    def __init__(self, stream: Iterable[str], patience: float) -> None:
        self._stream = stream
        self._patience = patience
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        for line in self._stream:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(END)

    def line(self) -> str:
        """The next line; `queue.Empty` if none comes in time."""
        return self._lines.get(timeout=self._patience)

    def join(self) -> None:
        """Wait for the end of the stream."""
        self._thread.join(self._patience)
