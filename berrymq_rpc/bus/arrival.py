"""A coroutine that waits for something to come, from whichever thread."""

import threading

__all__ = ["Arrival"]


class Arrival:
    """Made and awaited in a task, by the event loop of which any thread can wake it, once."""

    __slots__ = ("_future", "_loop", "_thread")

    def __init__(self) -> None:
        # A program without asyncio need not import it; it takes some 30 ms.
        import asyncio

        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._future = self._loop.create_future()

    async def wait(self) -> None:
        """Wait for `wake`."""
        await self._future

    def wake(self) -> bool:
        """Let `wait` return; `False` if nobody waits there any more."""
        if threading.get_ident() == self._thread:
            # To wake a loop from another thread takes a system call, which is not needed here.
            return self._set()
        try:
            self._loop.call_soon_threadsafe(self._set)
        except RuntimeError:
            # The loop is closed.
            return False
        return True

    def _set(self) -> bool:
        if self._future.done():
            return False
        self._future.set_result(None)
        return True
