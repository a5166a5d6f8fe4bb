"""The ``async def`` receivers that are running."""

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

__all__ = ["Tasks"]


class Tasks:
    """Starts coroutines on the running loop, and holds their tasks until they are done.

    An event loop itself holds its tasks weakly.
    """

    __slots__ = ("_running",)

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def start(
        self,
        coroutine: Coroutine[Any, Any, Any],
        name: str,
        failed: Callable[[Exception], object],
    ) -> bool:
        """Run a coroutine on the loop that runs in this thread; whether there is one.

        Args:
            name: the task's name.
            failed: called with what the coroutine raises, in the loop's thread, or at once with a
                `RuntimeError` if no loop runs. Cancellation is no failure.
        """
        # A program without async receivers need not import it; it takes some 30 ms.
        import asyncio

        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            coroutine.close()
            failed(
                RuntimeError(
                    "an async receiver needs an event loop that runs in the sender's thread, and "
                    "none does: the receiver was not called"
                )
            )
            return False

        def done(task: asyncio.Task[Any]) -> None:
            self._running.discard(task)
            if task.cancelled():
                return
            error = task.exception()
            # KeyboardInterrupt and SystemExit have ended the loop already.
            if isinstance(error, Exception):
                failed(error)

        task = loop.create_task(coroutine, name=name)
        self._running.add(task)
        task.add_done_callback(done)
        return True

    def __len__(self) -> int:
        return len(self._running)
