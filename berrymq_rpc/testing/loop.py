"""The event loop that a test's objects belong to, and how other threads reach it."""

import asyncio
import concurrent.futures
from collections.abc import Callable
from typing import TypeVar

__all__ = ["run_on", "running_loop"]

T = TypeVar("T")

#: Seconds that another thread's event loop has for what a test asks of it.
PATIENCE = 10.0


def run_on(loop: asyncio.AbstractEventLoop, function: Callable[[], T]) -> T:
    """Call a function on an event loop, from any thread, and return its result.

    Raises:
        TimeoutError: the loop is that of another thread, and is held for 10 s.
    """
    __tracebackhide__ = True
    # A loop that does not run is that of an async test or fixture that is over.
    if not loop.is_running() or running_loop() is loop:
        return function()
    done: concurrent.futures.Future[T] = concurrent.futures.Future()

    def call() -> None:
        try:
            done.set_result(function())
        except BaseException as error:
            done.set_exception(error)

    loop.call_soon_threadsafe(call)
    return done.result(PATIENCE)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs in this thread."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
