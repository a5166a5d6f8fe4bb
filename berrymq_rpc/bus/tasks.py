"""The ``async def`` receivers that are running, and the loops on which they run."""

import contextvars
import weakref
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeAlias

from .background import background_loop, is_background
from .pool import exit_time_left

if TYPE_CHECKING:
    import asyncio

    from .answering import Ended

__all__ = ["Tasks"]

Failed: TypeAlias = Callable[[BaseException], object]


class Tasks:
    """Starts coroutines, and holds their tasks until they are done, even if nobody holds this.

    An event loop itself holds its tasks weakly.
    """

    __slots__ = ("_loop", "_running")

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._loop: weakref.ref[asyncio.AbstractEventLoop] | None = None

    def set_loop(self, loop: "asyncio.AbstractEventLoop | None") -> None:
        """Where coroutines run that are started in a thread without a loop, while `loop` runs."""
        self._loop = None if loop is None else weakref.ref(loop)

    def start(
        self,
        coroutine: Coroutine[Any, Any, Any],
        name: str,
        failed: Failed,
        ended: "Ended | None" = None,
    ) -> None:
        """Run a coroutine: on the loop that runs in this thread, or else on another one.

        Args:
            name: the task's name.
            failed: called with what the coroutine raises, in the loop's thread. Cancellation is
                no failure.
            ended: called as ``ended(result, error)`` at its end, cancellation included.
        """
        # A program without async receivers need not import it; it takes some 30 ms.
        import asyncio

        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._start_elsewhere(Start(self, coroutine, name, failed, ended))
        else:
            self.run(loop, coroutine, name, failed, ended)

    def run(
        self,
        loop: "asyncio.AbstractEventLoop",
        coroutine: Coroutine[Any, Any, Any],
        name: str,
        failed: Failed,
        ended: "Ended | None",
        context: contextvars.Context | None = None,
    ) -> "asyncio.Task[Any]":
        """Run a coroutine on the loop of this thread."""
        import asyncio

        def done(task: asyncio.Task[Any]) -> None:
            self._running.discard(task)
            _held.discard(task)
            error: BaseException | None
            if task.cancelled():
                error = asyncio.CancelledError()
            else:
                error = task.exception()
                # KeyboardInterrupt and SystemExit have ended a program's loop already.
                if isinstance(error, Exception) or (error and is_background(loop)):
                    failed(error)
            if ended is not None:
                ended(task.result() if error is None else None, error)

        task = loop.create_task(coroutine, name=name, context=context)
        self._running.add(task)
        _held.add(task)
        task.add_done_callback(done)
        return task

    def _start_elsewhere(self, start: "Start") -> None:
        loop = None if self._loop is None else self._loop()
        if loop is not None and loop.is_running() and _hand_over(loop, start):
            return
        loop = background_loop()
        if loop is None or not _hand_over(loop, start):
            _run_here(start)

    def __len__(self) -> int:
        return len(self._running)


_held: "set[asyncio.Task[Any]]" = set()


class Start:
    """A coroutine on its way to the loop of another thread.

    If that loop ends before it begins, this is forgotten, and says so.
    """

    __slots__ = ("_arguments", "_context", "_is_begun", "_tasks")

    def __init__(
        self,
        tasks: Tasks,
        coroutine: Coroutine[Any, Any, Any],
        name: str,
        failed: Failed,
        ended: "Ended | None",
    ) -> None:
        self._tasks = tasks
        self._arguments = (coroutine, name, failed, ended)
        self._context = contextvars.copy_context()
        self._is_begun = False

    def __call__(self, loop: "asyncio.AbstractEventLoop") -> "asyncio.Task[Any]":
        self._is_begun = True
        return self._tasks.run(loop, *self._arguments, self._context)

    def __del__(self) -> None:
        if self._is_begun:
            return
        coroutine, _, failed, ended = self._arguments
        coroutine.close()
        error = RuntimeError("the event loop ended before the receiver could begin")
        failed(error)
        if ended is not None:
            ended(None, error)


def _hand_over(loop: "asyncio.AbstractEventLoop", start: Start) -> bool:
    """Begin on the loop of another thread; `False` if it is closed."""
    try:
        loop.call_soon_threadsafe(start, loop)
    except RuntimeError:
        return False
    return True


def _run_here(start: Start) -> None:
    """Run a coroutine in this thread to its end, as nothing else is left."""
    import asyncio

    async def main() -> None:
        task = start(asyncio.get_running_loop())
        await asyncio.wait([task], timeout=exit_time_left())

    asyncio.run(main())
