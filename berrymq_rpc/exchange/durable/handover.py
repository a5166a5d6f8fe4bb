"""A result that an event loop makes for another thread: whoever asked has it, or it goes back."""

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from typing import Generic, TypeVar

__all__ = ["Handover"]

T = TypeVar("T")


class Handover(Generic[T]):
    """Runs a coroutine on a loop for another thread, which may give up at any moment.

    That the coroutine is over and that its caller gives up may cross: a result that was made and
    has no taker is given to `on_unclaimed` then.

    Args:
        coroutine: what to run.
        loop: where.
        on_unclaimed: called on the loop with such a result; ``None`` where it needs nothing.

    Raises:
        RuntimeError: the loop is closed.
    """

    def __init__(
        self,
        coroutine: Coroutine[object, object, T],
        loop: asyncio.AbstractEventLoop,
        on_unclaimed: Callable[[T], object] | None = None,
    ) -> None:
        self._loop = loop
        self._on_unclaimed = on_unclaimed
        self._lock = threading.Lock()
        self._is_given_up = False
        self._results: list[T] = []
        running = self._run(coroutine)
        try:
            self._future: concurrent.futures.Future[T] = asyncio.run_coroutine_threadsafe(
                running, loop
            )
        except RuntimeError:
            running.close()
            coroutine.close()
            raise

    async def _run(self, coroutine: Coroutine[object, object, T]) -> T:
        result = await coroutine
        with self._lock:
            if not self._is_given_up:
                self._results.append(result)
                return result
        if self._on_unclaimed is not None:
            self._on_unclaimed(result)
        raise asyncio.CancelledError

    async def wait(self) -> T:
        """Wait for the result, on another loop. Cancelled, the coroutine is cancelled."""
        try:
            return await asyncio.wrap_future(self._future)
        except BaseException:
            self._give_up()
            raise

    def result(self) -> T:
        """Wait for the result, in a thread. Interrupted, the coroutine is cancelled."""
        try:
            return self._future.result()
        except BaseException:
            self._future.cancel()
            self._give_up()
            raise

    def _give_up(self) -> None:
        with self._lock:
            self._is_given_up = True
            results, self._results = self._results, []
        for result in results:
            if self._on_unclaimed is not None:
                try:
                    self._loop.call_soon_threadsafe(self._on_unclaimed, result)
                except RuntimeError:
                    # The loop is closed: nobody waits for what goes back.
                    return
