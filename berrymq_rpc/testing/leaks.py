"""What a test has opened and left behind: tasks, threads and sockets."""

import asyncio
import threading
import time
from typing import Any, NamedTuple

from .opened_sockets import OpenedSockets

__all__ = ["KINDS", "Baseline", "find_leaks", "settle_tasks", "settle_threads"]

#: What is looked for.
KINDS = frozenset({"tasks", "threads", "sockets"})

#: Turns of the event loop that a task has which was cancelled, or waits for nothing any more.
TURNS = 10

#: Seconds that threads have to end when what they worked for is closed.
PATIENCE = 1.0

#: The beginnings of names of threads that outlive a test: those that the package starts once for a
#: process, those of an event loop's executor, which end with the loop, and of pytest-timeout.
LASTING = (
    "berrymq_rpc zap",
    "berrymq_rpc async receivers",
    "berrymq_rpc authorization",
    "asyncio_",
    "uvloop_",
    "pytest_timeout",
)


class Baseline(NamedTuple):
    """What there was when a test began, and the sockets that it opens."""

    tasks: frozenset["asyncio.Task[Any]"]
    threads: frozenset[threading.Thread]
    sockets: OpenedSockets

    @classmethod
    def now(cls) -> "Baseline":
        """Look at what there is, and note the sockets that are opened from now on."""
        sockets = OpenedSockets()
        sockets.start()
        return cls(frozenset(_tasks()), frozenset(threading.enumerate()), sockets)


def find_leaks(before: Baseline, allowed: frozenset[str]) -> list[str]:
    """Say of each thing that is there now, and was not before, what it is.

    Args:
        allowed: of `KINDS`, those that may stay.
    """
    leaks: list[str] = []
    if "tasks" not in allowed:
        this = _current_task()
        left = [task for task in _tasks() if task is not this and task not in before.tasks]
        leaks += [f"a task still runs: {task!r}" for task in left]
    if "threads" not in allowed:
        leaks += [f"a thread still runs: {t.name!r}" for t in _new_threads(before)]
    if "sockets" not in allowed:
        leaks += [f"a socket is open: {one!r}" for one in before.sockets.still_open()]
    return leaks


async def settle_tasks(before: Baseline) -> None:
    """Let tasks end that have nothing more to wait for."""
    this = _current_task()
    for _ in range(TURNS):
        if all(task is this or task in before.tasks for task in _tasks()):
            return
        await asyncio.sleep(0)


def settle_threads(before: Baseline) -> None:
    """Let threads end whose work is closed."""
    end = time.monotonic() + PATIENCE
    for thread in _new_threads(before):
        thread.join(max(0.0, end - time.monotonic()))


def _current_task() -> "asyncio.Task[Any] | None":
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _tasks() -> "set[asyncio.Task[Any]]":
    try:
        return asyncio.all_tasks()
    except RuntimeError:
        # No event loop runs here.
        return set()


def _new_threads(before: Baseline) -> list[threading.Thread]:
    return [
        thread
        for thread in threading.enumerate()
        if thread not in before.threads
        and thread is not threading.current_thread()
        and not thread.name.startswith(LASTING)
    ]
