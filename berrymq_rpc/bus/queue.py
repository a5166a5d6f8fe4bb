"""Pull: messages that wait until somebody asks for them."""

import operator
from collections.abc import Iterator
from queue import Empty
from types import TracebackType
from typing import Self

from ..identifier import Identifier
from .bus import Bus
from .default import default_bus
from .message import Message

__all__ = ["Empty", "Queue"]


class Queue:
    """Keeps the messages of an identifier until they are asked for: first in, first out.

    Any number of threads may use it. It keeps messages until it is closed or nobody has it any
    more. It is a context manager that closes it, and an iterator of its messages that ends when it
    was closed and is empty.

    Args:
        identifier: which messages to keep.
        shared: whether all shared queues of this identifier on this bus have one backlog, of which
            each message is given out once. Otherwise each queue gets all messages.
        maxsize: how many messages to keep at most; when one more comes, the oldest is dropped,
            counted and, at a bounded rate, logged. 0 for any number.
        bus: the bus to follow; `None` for the default one.

    Raises:
        ValueError: `identifier` is none, `maxsize` is negative, or queues that share the backlog
            have another `maxsize`.
        TypeError: `identifier` is no text, or `maxsize` no integer.
    """

    def __init__(
        self,
        identifier: Identifier | str,
        shared: bool = False,
        maxsize: int = 0,
        bus: Bus | None = None,
    ) -> None:
        maxsize = operator.index(maxsize)
        if maxsize < 0:
            raise ValueError(f"maxsize is a number of messages, not {maxsize}")
        self._bus = default_bus if bus is None else bus
        self._shared = bool(shared)
        self._backlog = self._bus.backlogs.open(
            self._bus, self, Identifier(identifier), self._shared, maxsize
        )

    @property
    def identifier(self) -> Identifier:
        """Which messages it keeps."""
        return self._backlog.identifier

    @property
    def shared(self) -> bool:
        """Whether it shares its backlog."""
        return self._shared

    @property
    def maxsize(self) -> int:
        """How many messages are kept at most; 0 for any number."""
        return self._backlog.maxsize

    @property
    def dropped(self) -> int:
        """How many messages were dropped because the backlog was full."""
        return self._backlog.dropped

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self not in self._backlog.queues

    def get(self, block: bool = True, timeout: float | None = None) -> Message:
        """Take the oldest message.

        Args:
            block: whether to wait for one.
            timeout: how long to wait, in seconds; `None` for as long as it takes.

        Raises:
            Empty: there is none and it does not wait, its time is over, or the queue is closed.
            ValueError: `timeout` is negative.
        """
        if block and timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout is a number of seconds, not {timeout}")
        return self._backlog.get(self, block, timeout if block else None)

    def get_nowait(self) -> Message:
        """Take the oldest message, or raise `Empty`."""
        return self._backlog.get(self, False, None)

    def qsize(self) -> int:
        """How many messages wait; another thread may change that at once."""
        return len(self._backlog)

    def empty(self) -> bool:
        """Whether no message waits; another thread may change that at once."""
        return not len(self._backlog)

    def full(self) -> bool:
        """Whether the next message makes the oldest drop; another thread may change that."""
        return 0 < self.maxsize <= len(self._backlog)

    def close(self) -> None:
        """Keep no further messages, and wake whoever waits in `get`. Can be called again.

        What is there can still be taken, without waiting; of a shared backlog only once all its
        queues are closed, as it is for the others until then.
        """
        self._bus.backlogs.close(self._bus, self, self._backlog)

    def __iter__(self) -> Iterator[Message]:
        while True:
            try:
                message = self.get()
            except Empty:
                return
            yield message

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{self.qsize()} waiting"
        return f"<Queue {self.identifier} {state}>"
