"""An event loop in a thread of its own, for async receivers whose sender has none.

There is one in the process, started when it is first needed. It is a daemon's, so that a receiver
that never ends cannot hold the interpreter; at its end, receivers have `EXIT_GRACE` seconds.
"""

import atexit
import threading
from typing import TYPE_CHECKING

from ..runtime.fork import call_in_child
from .log import bus_logger
from .pool import EXIT_GRACE, begin_exit, end_pools, exit_time_left

if TYPE_CHECKING:
    import asyncio

__all__ = ["background_loop", "is_background"]

# Seconds that the last tasks have to deal with their cancellation.
CANCEL_GRACE = 1.0


class Background:
    """The loop and its thread."""

    def __init__(self) -> None:
        # Here, as most programs have no async receivers: it imports asyncio.
        from ..runtime.loop_thread import LoopThread

        self._thread = LoopThread("async receivers")
        self.loop = self._thread.loop

    def end(self) -> None:
        """Let what runs come to its end, and stop."""
        import asyncio

        finishing = asyncio.run_coroutine_threadsafe(self._finish(), self.loop)
        try:
            left = finishing.result((exit_time_left() or 0.0) + 2 * CANCEL_GRACE)
        except TimeoutError:
            bus_logger().warning("the interpreter ends while an async receiver blocks its loop")
            left = 0
        finally:
            self._thread.stop(CANCEL_GRACE)
        if left:
            bus_logger().warning(
                "the interpreter ends: %d async receivers did not end within %g s and were "
                "cancelled",
                left,
                EXIT_GRACE,
            )

    async def _finish(self) -> int:
        """Wait for the tasks, and for those that they start; cancel and count what is left."""
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
_current: Background | None = None
# Those of processes that forked: they have no thread here, and their parent uses them.
_abandoned: list[Background] = []


def background_loop() -> "asyncio.AbstractEventLoop | None":
    """The loop, running; `None` if no thread can be started for it.

    That is so at the end of the interpreter, from Python 3.12 on, and over a limit of the system.
    """
    global _current
    with _lock:
        if _current is None:
            try:
                _current = Background()
            except RuntimeError:
                return None
        return _current.loop


def is_background(loop: "asyncio.AbstractEventLoop") -> bool:
    """Whether it is that loop."""
    return _current is not None and _current.loop is loop


def _end() -> None:
    """Let receivers come to their ends before the interpreter does."""
    begin_exit()
    # First: receivers there may start some on the loop, while those on the loop run in its thread
    # what they would hand to a pool that is closed.
    end_pools()
    if _current is not None:
        _current.end()


def _begin_in_child() -> None:
    global _current, _lock
    _lock = threading.Lock()
    if _current is not None:
        _abandoned.append(_current)
        _current = None


atexit.register(_end)
call_in_child(_begin_in_child)
