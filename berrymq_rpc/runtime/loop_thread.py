"""An event loop on a thread of its own, for callers without asyncio."""

import asyncio
import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ..errors import Error, ServiceClosedError

__all__ = ["LoopThread"]

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for other threads until it is closed.

    The thread is a daemon: what never ends cannot hold the interpreter.

    Args:
        name: what it is run for, such as ``"client"``: for errors, and the thread's name.
        on_unclaimed: called on the loop with a result whose caller was interrupted as it came.

    Attributes:
        loop: the event loop.

    Raises:
        RuntimeError: no thread can be started, as at the end of the interpreter.
    """

    def __init__(self, name: str, on_unclaimed: Callable[[Any], object] | None = None) -> None:
        self.name = name
        self._on_unclaimed = on_unclaimed
        self._process = os.getpid()
        #: Held while something is handed to the loop: nothing is once `_closed` is set. One
        #: thread may take it twice, as a stream may be collected, and so ended, at any point.
        self._lock = threading.RLock()
        self._closed = False
        self._closing = threading.Lock()
        self._is_stopping = False
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._work, name=f"berrymq_rpc {name}", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self.loop.close()
            raise

    @property
    def is_closed(self) -> bool:
        """Whether it takes nothing more: it was closed, or is another process's."""
        return self._closed or self._process != os.getpid()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for its result.

        Raises:
            ServiceClosedError: it was closed, before or meanwhile.
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
            return future.result()
        except concurrent.futures.CancelledError:
            raise self._closed_error() from None
        except BaseException:
            # Ctrl-C in the waiting thread, or the outcome itself, which this leaves alone.
            if (
                not future.cancel()
                and self._on_unclaimed is not None
                and future.exception() is None
            ):
                self._call_soon(self._on_unclaimed, future.result())
            raise

    def run_if_alive(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine unless there is nothing left to run it for."""
        if self._problem() is None:
            with contextlib.suppress(ServiceClosedError):
                self.run(coroutine)
        else:
            coroutine.close()

    def close(self, finish: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        """End what runs on the loop, the loop and its thread. Nothing happens the second time.

        Args:
            finish: gives what to run before; in the child of a fork, nothing is.

        Raises:
            RuntimeError: called on its own thread.
            Exception: what `finish` raises, when all has ended.
        """
        if isinstance(problem := self._problem(), RuntimeError):
            raise problem
        if self._process != os.getpid():
            return
        with self._closing:
            if self._closed:
                return
            with self._lock:
                self._closed = True
            try:
                asyncio.run_coroutine_threadsafe(_finish(finish), self.loop).result()
            finally:
                self.stop()

    def stop(self, patience: float | None = None) -> bool:
        """Stop the loop at once, whatever runs there, and close it when its thread has ended.

        Args:
            patience: seconds to wait for the thread; ``None`` for as long as it takes.

        Returns:
            Whether the thread has ended.
        """
        self._closed = self._is_stopping = True
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(patience)
        if self._thread.is_alive():
            return False
        self.loop.close()
        return True

    def _work(self) -> None:
        while not self._is_stopping:
            try:
                self.loop.run_forever()
            except (KeyboardInterrupt, SystemExit):
                # Something that runs here raised it, and has reported it. It ends neither the loop,
                # which others use, nor, from a thread like this, the program.
                continue

    def _call_soon(self, callback: Callable[[Any], object], value: Any) -> None:
        with self._lock:
            if not self._closed:
                self.loop.call_soon_threadsafe(callback, value)

    def _closed_error(self) -> ServiceClosedError:
        return ServiceClosedError(f"the {self.name} is closed")

    def _problem(self) -> Exception | None:
        if self._process != os.getpid():
            return Error(
                f"this {self.name} was opened before a fork: open a {self.name} in each process"
            )
        if self._closed:
            return self._closed_error()
        if threading.get_ident() == self._thread.ident:
            return RuntimeError(
                f"a handler of this {self.name} would wait for itself: make it async"
            )
        return None


async def _finish(finish: Callable[[], Coroutine[Any, Any, None]] | None) -> None:
    try:
        if finish is not None:
            await finish()
    finally:
        # Calls of other threads that have just arrived, and would wait forever.
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
