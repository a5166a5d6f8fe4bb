"""What queues have in common, whether their readers are threads or coroutines."""

import operator
from types import TracebackType
from typing import Self

from ..identifier import Identifier
from .bus import Bus
from .default import default_bus
from .message import Message

__all__ = ["BaseQueue", "check_timeout"]


class BaseQueue:
    """Keeps the messages of an identifier; arguments and exceptions are those of `Queue`."""

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
        return f"<{type(self).__name__} {self.identifier} {state}>"


def check_timeout(timeout: float | None) -> None:
    """Refuse what is no number of seconds.

    Raises:
        ValueError: it is negative, or not a number.
    """
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout is a number of seconds, not {timeout}")
