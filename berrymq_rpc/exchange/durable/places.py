"""So many at a time: who comes when all places are taken waits for one in turn."""

import asyncio
from collections import OrderedDict

__all__ = ["Places"]


class Places:
    """As `asyncio.Semaphore`, whose time to wake a waiter grows with those that it has woken.

    Belongs to one event loop.

    Args:
        count: how many places there are.
    """

    __slots__ = ("_free", "_waiters")

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiters: OrderedDict[asyncio.Future[None], None] = OrderedDict()

    def take_now(self) -> bool:
        """Take a place if one is free; return whether it was."""
        if self._free == 0:
            return False
        self._free -= 1
        return True

    async def take(self) -> None:
        """Take a place, as soon as there is one. If it is cancelled, none is taken."""
        if self.take_now():
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = None
        try:
            await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                # It was given a place in the very moment.
                self.release()
            else:
                self._waiters.pop(waiter, None)
            raise

    def release(self) -> None:
        """Give a place back; the first who waits gets it."""
        while self._waiters:
            waiter, _ = self._waiters.popitem(last=False)
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free += 1
