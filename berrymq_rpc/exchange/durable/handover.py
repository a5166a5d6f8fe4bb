"""A result that an event loop makes for another thread: whoever asked has it, or it goes back."""

import asyncio
import concurrent.futures
import inspect
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Generic, TypeVar

from ...errors import ServiceClosedError

__all__ = ["Handover"]

T = TypeVar("T")

#: Seconds between two looks whether the loop still runs.
LOOK = 1.0


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
        self._coroutine = coroutine
        self._running = self._run(coroutine)
        try:
            self._future: concurrent.futures.Future[T] = asyncio.run_coroutine_threadsafe(
                self._running, loop
            )
        except RuntimeError:
            self._close_unstarted()
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
        """Wait for the result, on another loop. Cancelled, the coroutine is cancelled.

        Raises:
            ServiceClosedError: the loop has ended.
            Exception: what the coroutine raises.
        """
        waiting = asyncio.wrap_future(self._future)
        try:
            while not (await asyncio.wait((waiting,), timeout=LOOK))[0]:
                self._check_loop()
            if waiting.cancelled():
                raise _ended()
            return waiting.result()
        except BaseException:
            waiting.cancel()
            self._give_up()
            raise

    def result(self) -> T:
        """Wait for the result, in a thread. Interrupted, the coroutine is cancelled.

        Raises:
            Exception: as `wait`.
        """
        try:
            while not concurrent.futures.wait((self._future,), LOOK).done:
                self._check_loop()
            return self._future.result()
        except concurrent.futures.CancelledError:
            raise _ended() from None
        except BaseException:
            self._future.cancel()
            self._give_up()
            raise

    def _check_loop(self) -> None:
        """Raise `ServiceClosedError` if the loop does not run, so that nobody waits forever."""
        if not self._loop.is_running():
            self._close_unstarted()
            raise _ended()

    def _give_up(self) -> None:
        with self._lock:
            self._is_given_up = True
            results, self._results = self._results, []
        # If the loop is closed, nobody waits for what goes back.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._close_unstarted)
            for result in results:
                if self._on_unclaimed is not None:
                    self._loop.call_soon_threadsafe(self._on_unclaimed, result)

    def _close_unstarted(self) -> None:
        """Close a coroutine that was given up before it began."""
        for each in (self._running, self._coroutine):
            if inspect.iscoroutine(each) and inspect.getcoroutinestate(each) == "CORO_CREATED":
                each.close()


def _ended() -> ServiceClosedError:
    return ServiceClosedError("the event loop of the node has ended")
