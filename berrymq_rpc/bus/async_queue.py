"""Pull, for programs with asyncio."""

from queue import Empty
from types import TracebackType
from typing import Self

from .arrival import Arrival
from .base_queue import BaseQueue, check_timeout
from .message import Message

__all__ = ["AsyncQueue"]


class AsyncQueue(BaseQueue):
    """A `Queue` whose messages are awaited: ``await queue.get()``, ``async for message in queue``.

    Messages may be sent from any thread, and any number of tasks, on any event loops, may wait.
    Shared queues have one backlog with those of class `Queue`. Arguments and exceptions are those
    of `Queue`. It is a context manager, with or without ``async``, that closes it.
    """

    async def get(self, block: bool = True, timeout: float | None = None) -> Message:
        """Take the oldest message.

        If it is cancelled, no message is taken.

        Args:
            block: whether to wait for one.
            timeout: how long to wait, in seconds; `None` for as long as it takes.

        Raises:
            Empty: there is none and it does not wait, its time is over, or the queue is closed.
            ValueError: `timeout` is negative.
        """
        if not block:
            return self.get_nowait()
        check_timeout(timeout)
        if timeout is None:
            return await self._wait()
        import asyncio

        try:
            async with asyncio.timeout(timeout):
                return await self._wait()
        except TimeoutError:
            # One may have come in the very moment.
            return self.get_nowait()

    async def _wait(self) -> Message:
        while True:
            arrival = Arrival()
            message = self._backlog.take(self, arrival)
            if message is not None:
                return message
            try:
                await arrival.wait()
            except BaseException:
                self._backlog.give_up(arrival)
                raise

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        try:
            return await self.get()
        except Empty:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
