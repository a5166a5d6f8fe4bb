"""``async for message in bus.messages("oven:*")``: messages as an asynchronous iterator."""

from collections.abc import Callable
from queue import Empty
from types import TracebackType
from typing import Self

from ..identifier import Identifier
from .backlog import Backlog, check_maxsize
from .message import Message
from .registry import Registry

__all__ = ["Messages"]


class Messages:
    """The messages that a bus sends from now on, first in, first out; `Bus.messages` makes it.

    It keeps them from the moment it is made until it is closed, or until no reference to it is
    left, as after a loop that was left by ``break``. It is also a context manager, with or without
    ``async``, that closes it. Several tasks may iterate it: each gets other messages.

    Args:
        bus: sends the messages.
        identifiers: those that are kept, each message once.
        maxsize: how many are kept at most.
    """

    def __init__(
        self, bus: Registry, identifiers: tuple[Identifier | str, ...], maxsize: int
    ) -> None:
        # The order of a set would be another one in each process.
        parsed = tuple(dict.fromkeys(map(Identifier, identifiers)))
        if not parsed:
            raise TypeError("messages() needs an identifier, such as messages('oven:*')")
        self._bus = bus
        self._identifiers = parsed
        self._backlog = Backlog(parsed[0], check_maxsize(maxsize))
        self._backlog.queues.add(self)
        # The bus holds the backlog weakly: it is not filled any more when this object is gone.
        for position, identifier in enumerate(parsed):
            bus.regist_method(identifier, self._backlog.put, _unless_matched_by(parsed[:position]))

    @property
    def identifiers(self) -> tuple[Identifier, ...]:
        """Which messages it keeps."""
        return self._identifiers

    @property
    def maxsize(self) -> int:
        """How many messages are kept at most; 0 for any number."""
        return self._backlog.maxsize

    @property
    def dropped(self) -> int:
        """How many messages were dropped, always the oldest, because `maxsize` were kept."""
        return self._backlog.dropped

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self not in self._backlog.queues

    def qsize(self) -> int:
        """How many messages are kept; another thread may change that at once."""
        return len(self._backlog)

    def close(self) -> None:
        """Keep no further messages, and end each loop that waits. Any thread may call it.

        What is there can still be taken.
        """
        self._backlog.leave(self)
        for identifier in self._identifiers:
            self._bus.unfollow(identifier, self._backlog.put)

    async def aclose(self) -> None:
        """Close it, as `close` does: for `contextlib.aclosing`."""
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        try:
            return await self._backlog.wait(self)
        except Empty:
            raise StopAsyncIteration from None
        except BaseException:
            # The loop was cancelled. Its frame, and so this object, may live on in a traceback.
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{self.qsize()} waiting"
        return f"<Messages {' '.join(map(str, self._identifiers))} {state}>"


def _unless_matched_by(earlier: tuple[Identifier, ...]) -> Callable[[Message], bool] | None:
    """A guard against messages that reach the backlog by an earlier identifier as well.

    Each message reaches each registration that it matches. Two identifiers that do not match each
    other may both match a message that was sent with a wildcard.
    """
    if not earlier:
        return None

    def guard(message: Message) -> bool:
        sent = Identifier(message.id)
        return not any(identifier.is_match(sent) for identifier in earlier)

    return guard
