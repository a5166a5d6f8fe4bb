"""An event loop on a thread of its own, for callers without asyncio."""

import asyncio
import concurrent.futures
import contextlib
import math
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ..errors import ServiceClosedError
from .fork import OwnerProcess, leave_loop_in_child
from .log import Log

__all__ = ["CLOSE_PATIENCE", "LoopThread"]

T = TypeVar("T")

logger = Log("berrymq_rpc.runtime")

#: Seconds between two looks whether the thread still runs, while something is waited for.
LOOK = 1.0

#: Seconds that closing may take before the thread is left to itself.
CLOSE_PATIENCE = 10.0

#: Seconds for the thread to end when nothing more runs on the loop.
STOP_PATIENCE = 2.0


class LoopThread:
    """Runs coroutines for other threads until it is closed.

    The thread is a daemon: what never ends cannot hold the interpreter. No wait for it lasts longer
    than the thread runs, which ends with the interpreter.

    Args:
        name: what it is run for, such as ``"client"``: for errors, and the thread's name.
        on_unclaimed: called on the loop with a result whose caller was interrupted as it came.

    Attributes:
        loop: the event loop.

    Raises:
        ServiceClosedError: the interpreter is at its end.
        RuntimeError: no thread can be started.
    """

    def __init__(self, name: str, on_unclaimed: Callable[[Any], object] | None = None) -> None:
        if sys.is_finalizing():
            raise ServiceClosedError(f"no {name} can be opened now: the program is at its end")
        self.name = name
        self._on_unclaimed = on_unclaimed
        self._owner = OwnerProcess(name)
        #: Held while something is handed to the loop: nothing is once `_closed` is set. One
        #: thread may take it twice, as a stream may be collected, and so ended, at any point.
        self._lock = threading.RLock()
        self._closed = False
        #: Reentrant: an object that is collected in the middle of `close` may call it again.
        self._closing = threading.RLock()
        self._is_stopping = False
        self.loop = asyncio.new_event_loop()
        leave_loop_in_child(self.loop)
        self._thread = threading.Thread(target=self._work, name=f"berrymq_rpc {name}", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self.loop.close()
            raise

    @property
    def is_closed(self) -> bool:
        """Whether it takes nothing more: it was closed, or is another process's, or at its end."""
        return self._closed or not self._owner.is_this or sys.is_finalizing()

    def run(self, coroutine: Coroutine[Any, Any, T], patience: float = math.inf) -> T:
        """Run a coroutine on the loop and wait for its result.

        Args:
            patience: seconds to wait.

        Raises:
            TimeoutError: the time is over; the coroutine is cancelled.
            ServiceClosedError: it was closed, before or meanwhile, or the interpreter ends.
            Error: it was made before a fork.
            RuntimeError: called on its own thread, which would wait for itself.
            Exception: what the coroutine raises.
        """
        problem = self._problem()
        if problem is not None:
            coroutine.close()
            raise problem
        with self._lock:
            if self._closed:
                coroutine.close()
                raise self._closed_error()
            future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return self._wait(future, patience)
        except concurrent.futures.CancelledError:
            raise self._closed_error() from None
        except BaseException:
            # Ctrl-C in the waiting thread, or the outcome itself, which this leaves alone.
            if (
                not future.cancel()
                and self._on_unclaimed is not None
                and future.exception() is None
            ):
                self.call_soon(self._on_unclaimed, future.result())
            raise

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        """Have something called on the loop, and do not wait for it.

        Any thread may call it, and so may garbage collection. Nothing happens if the loop is
        closed, another process's, or if the interpreter is at its end.
        """
        if self.is_closed:
            return
        with self._lock:
            if not self._closed:
                self.loop.call_soon_threadsafe(callback, *args)

    def close(
        self,
        finish: Callable[[], Coroutine[Any, Any, None]] | None = None,
        patience: float = CLOSE_PATIENCE,
    ) -> None:
        """End what runs on the loop, the loop and its thread.

        Nothing happens the second time, in the child of a fork, and at the interpreter's end.

        Args:
            finish: gives what to run before.
            patience: seconds that this may take. When they are over, as something holds the loop,
                the thread is left to itself and ends as soon as it can.

        Raises:
            RuntimeError: called on its own thread.
            Exception: what `finish` raises, when all has ended.
        """
        if isinstance(problem := self._problem(), RuntimeError):
            raise problem
        if not self._owner.is_this or sys.is_finalizing():
            return
        with self._closing:
            if self._closed:
                return
            with self._lock:
                self._closed = True
            finishing = asyncio.run_coroutine_threadsafe(_finish(finish), self.loop)
            try:
                concurrent.futures.wait((finishing,), patience)
                if finishing.done():
                    finishing.result()
            finally:
                if not self.stop(STOP_PATIENCE):
                    logger.warning("the thread of a %s did not end and was abandoned", self.name)

    def stop(self, patience: float) -> bool:
        """Stop the loop at once, whatever runs there; its thread closes it and ends.

        Args:
            patience: seconds to wait for the thread.

        Returns:
            Whether the thread has ended.
        """
        self._closed = self._is_stopping = True
        # The thread may just have closed it.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(patience)
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            while not self._is_stopping:
                try:
                    self.loop.run_forever()
                except (KeyboardInterrupt, SystemExit):
                    if not self._owner.is_this:
                        # The child of a fork ends, of which this is the only thread.
                        raise
                    # Something that runs here raised it, and has reported it. It ends neither the
                    # loop, which others use, nor, from a thread like this, the program.
                    continue
            # What closing could not end in time, as something held the loop. Closing itself may be
            # among it, and cancels what cancels it.
            end = time.monotonic() + STOP_PATIENCE
            while asyncio.all_tasks(self.loop) and (left := end - time.monotonic()) > 0:
                with contextlib.suppress(asyncio.CancelledError):
                    self.loop.run_until_complete(_cancel_all(left))
        finally:
            if self._owner.is_this:
                self.loop.close()

    def _wait(self, future: "concurrent.futures.Future[T]", patience: float) -> T:
        """The result of what runs on the loop; fails when the thread has ended before it."""
        end = None if patience == math.inf else time.monotonic() + patience
        while True:
            left = LOOK if end is None else min(LOOK, max(0.0, end - time.monotonic()))
            with contextlib.suppress(TimeoutError):
                return future.result(left)
            if future.done():
                # It has just ended, or it is the coroutine that raised a TimeoutError.
                return future.result()
            if self._is_stopping or not self._thread.is_alive():
                future.cancel()
                raise self._closed_error()
            if end is not None and time.monotonic() >= end:
                raise TimeoutError(f"the thread of the {self.name} is blocked")

    def _closed_error(self) -> ServiceClosedError:
        return ServiceClosedError(f"the {self.name} is closed: open a new one")

    def _problem(self) -> Exception | None:
        if not self._owner.is_this:
            return self._owner.error()
        if self._closed or sys.is_finalizing():
            return self._closed_error()
        if threading.get_ident() == self._thread.ident:
            return RuntimeError(
                f"a handler of this {self.name} would wait for itself: mark it "
                "@rpc.method(thread=True), or call in asyncio.to_thread"
            )
        return None


async def _finish(finish: Callable[[], Coroutine[Any, Any, None]] | None) -> None:
    try:
        if finish is not None:
            await finish()
    finally:
        # Calls of other threads that have just arrived, and would wait forever.
        await _cancel_all(None)


async def _cancel_all(patience: float | None) -> None:
    """Cancel all other tasks, and wait for their end for so many seconds."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        ended, _ = await asyncio.wait(tasks, timeout=patience)
        for task in ended:
            # It does not matter any more what they failed with.
            if not task.cancelled():
                task.exception()
