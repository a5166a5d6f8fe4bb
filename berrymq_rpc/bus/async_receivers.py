"""``async def`` receivers: the event loops that they run on, and their end.

They run on the event loop of the sender's thread. Where it has none they run on the loop of a node,
or else on one in a thread of this package: one for the process, started when it is first needed.
The thread is a daemon, so that a receiver that never ends cannot hold the interpreter; at exit,
receivers have `EXIT_GRACE` seconds.
"""

import atexit
import contextvars
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeAlias

from ..runtime.fork import call_in_child
from .completion import OnEnd
from .log import logger

if TYPE_CHECKING:
    import asyncio

__all__ = ["EXIT_GRACE", "AsyncReceivers", "background_loop", "begin_exit", "exit_time_left"]

# Seconds that the exit of the interpreter waits for receivers: enough for those that write a file
# or a record, and no hang for one that never returns.
EXIT_GRACE = 5.0

# Seconds that the last tasks have to handle their cancellation.
CANCEL_GRACE = 1.0

OnError: TypeAlias = Callable[[BaseException], object]


class AsyncReceivers:
    """Starts coroutines, and holds their tasks until they are done, even if it is gone itself.

    An event loop itself holds its tasks weakly.
    """

    __slots__ = ("_loop", "_running")

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._loop: weakref.ref[asyncio.AbstractEventLoop] | None = None

    def set_loop(self, loop: "asyncio.AbstractEventLoop | None") -> None:
        """Set where coroutines run that are started in a thread without a loop."""
        self._loop = None if loop is None else weakref.ref(loop)

    def start(
        self,
        coroutine: Coroutine[Any, Any, Any],
        name: str,
        on_error: OnError,
        on_end: OnEnd | None = None,
    ) -> None:
        """Run a coroutine: on the loop that runs in this thread, or else on another one.

        Args:
            name: the task's name.
            on_error: called with what the coroutine raises, in the loop's thread. Cancellation is
                not an error.
            on_end: called as ``on_end(result, error)`` at its end, cancellation included.
        """
        # A program without async receivers need not import it; it takes some 30 ms.
        import asyncio

        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._start_elsewhere(Start(self, coroutine, name, on_error, on_end))
        else:
            self.run(loop, coroutine, name, on_error, on_end)

    def run(
        self,
        loop: "asyncio.AbstractEventLoop",
        coroutine: Coroutine[Any, Any, Any],
        name: str,
        on_error: OnError,
        on_end: OnEnd | None,
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
                if isinstance(error, Exception) or (error and _is_background(loop)):
                    on_error(error)
            if on_end is not None:
                on_end(task.result() if error is None else None, error)

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

    If that loop ends before the coroutine begins, this object is freed, and reports that.
    """

    __slots__ = ("_arguments", "_context", "_is_begun", "_receivers")

    def __init__(
        self,
        receivers: AsyncReceivers,
        coroutine: Coroutine[Any, Any, Any],
        name: str,
        on_error: OnError,
        on_end: OnEnd | None,
    ) -> None:
        self._receivers = receivers
        self._arguments = (coroutine, name, on_error, on_end)
        self._context = contextvars.copy_context()
        self._is_begun = False

    def __call__(self, loop: "asyncio.AbstractEventLoop") -> "asyncio.Task[Any]":
        self._is_begun = True
        return self._receivers.run(loop, *self._arguments, self._context)

    def __del__(self) -> None:
        if self._is_begun:
            return
        coroutine, _, on_error, on_end = self._arguments
        coroutine.close()
        error = RuntimeError("the event loop ended before the receiver could begin")
        on_error(error)
        if on_end is not None:
            on_end(None, error)


def _hand_over(loop: "asyncio.AbstractEventLoop", start: Start) -> bool:
    """Start on the loop of another thread; `False` if it is closed."""
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


class BackgroundLoop:
    """The event loop in a thread of this package."""

    def __init__(self) -> None:
        # Here, as most programs have no async receivers: it imports asyncio.
        from ..runtime.loop_thread import LoopThread

        self._thread = LoopThread("async receivers")
        self.loop = self._thread.loop

    def end(self) -> None:
        """Let what runs come to its end within the time left, and stop."""
        import asyncio

        finishing = asyncio.run_coroutine_threadsafe(self._finish(), self.loop)
        try:
            left = finishing.result((exit_time_left() or 0.0) + 2 * CANCEL_GRACE)
        except TimeoutError:
            logger.warning(
                "exit: the event loop of the async receivers is blocked and was not closed"
            )
            left = 0
        finally:
            self._thread.stop(CANCEL_GRACE)
        if left:
            logger.warning(
                "exit: %d async receivers did not end within %g s and were cancelled",
                left,
                EXIT_GRACE,
            )

    async def _finish(self) -> int:
        """Wait for the tasks, and for those that they start; cancel and count the others."""
        import asyncio

        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            remaining = exit_time_left()
            if not remaining:
                break
            await asyncio.wait(tasks, timeout=remaining, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CANCEL_GRACE)
        await self.loop.shutdown_asyncgens()
        return len(tasks)


_lock = threading.Lock()
_current: BackgroundLoop | None = None
# Those of processes that forked: they have no thread here, and their parent uses them.
_abandoned: list[BackgroundLoop] = []


def background_loop() -> "asyncio.AbstractEventLoop | None":
    """The loop, running; `None` if no thread can be started for it.

    That is so at the exit of the interpreter, from Python 3.12 on, and over a limit of the system.
    """
    global _current
    with _lock:
        if _current is None:
            try:
                _current = BackgroundLoop()
            except RuntimeError:
                return None
        return _current.loop


def _is_background(loop: "asyncio.AbstractEventLoop") -> bool:
    return _current is not None and _current.loop is loop


_exit_deadline: float | None = None


def begin_exit() -> None:
    """Start the `EXIT_GRACE`, if it has not begun."""
    global _exit_deadline
    if _exit_deadline is None:
        _exit_deadline = time.monotonic() + EXIT_GRACE


def exit_time_left() -> float | None:
    """Seconds that receivers still have, on pools and loops alike; `None` before `begin_exit`."""
    return None if _exit_deadline is None else max(0.0, _exit_deadline - time.monotonic())


def _end_loop() -> None:
    begin_exit()
    if _current is not None:
        _current.end()


def _begin_in_child() -> None:
    global _current, _lock
    _lock = threading.Lock()
    if _current is not None:
        _abandoned.append(_current)
        _current = None


atexit.register(_end_loop)
call_in_child(_begin_in_child)
