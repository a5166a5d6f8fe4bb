"""Threads that run receivers, once a program has asked for them."""

import threading
import time
import weakref
from collections import deque
from typing import Protocol

from ..runtime.fork import call_in_child
from .log import bus_logger

__all__ = [
    "EXIT_GRACE",
    "MAX_WAITING",
    "Pool",
    "Work",
    "begin_exit",
    "end_pools",
    "exit_time_left",
]

# Calls that wait for a thread, each some 500 bytes besides its message. Beyond it senders make
# the calls themselves: that slows them down to what the receivers bear, and cannot lock up as
# waiting would when the threads of the pool send messages themselves.
MAX_WAITING = 10_000

# Seconds that a thread waits for work before it ends.
IDLE = 10.0

# Seconds that the end of the interpreter waits for what runs and waits here: enough for receivers
# that write a file or a record, and no hang for one that never returns.
EXIT_GRACE = 5.0


class Work(Protocol):
    """What a thread of the pool does at a time."""

    def run(self) -> None:
        """Do it. Raises nothing."""


class Pool:
    """Threads that start when there is work for them, and end when there has been none for long.

    Work is taken up in the order in which it came. The threads are daemons, so that one that never
    ends cannot hold the interpreter; at its end they have `EXIT_GRACE` seconds.

    Args:
        size: how many threads at most.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._is_closed = False
        self._begin()
        _pools.add(self)
        call_in_child(self._begin)

    def submit(self, work: Work) -> bool:
        """Let a thread do it; `False` if too much waits already, or the pool is closed."""
        with self._changed:
            if self._is_closed or len(self._waiting) >= MAX_WAITING:
                return False
            if (
                len(self._waiting) >= self._idle
                and self._threads < self.size
                and not self._start_thread()
                and not self._threads
            ):
                return False
            self._waiting.append(work)
            self._changed.notify()
        return True

    def close(self) -> None:
        """Take no further work. What waits is still done, and then the threads end."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def join(self, deadline: float) -> int:
        """Wait until a closed pool has done its work, or for `time.monotonic` to reach `deadline`.

        Returns:
            How much is left: what waits and what runs.
        """
        with self._changed:
            while self._threads:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    break
                self._changed.wait(remaining)
            return len(self._waiting) + self._threads - self._idle

    def _begin(self) -> None:
        """Begin with no threads and no work."""
        self._waiting: deque[Work] = deque()
        # With a reentrant lock, as it has by default: an object that is collected in the middle
        # of `submit` may send a message that comes here.
        self._changed = threading.Condition()
        self._threads = 0
        self._idle = 0

    def _start_thread(self) -> bool:
        thread = threading.Thread(target=self._work, name="berrymq_rpc receivers", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # None can be started at the end of the interpreter, or over the system's limit.
            return False
        self._threads += 1
        return True

    def _work(self) -> None:
        while (work := self._next()) is not None:
            work.run()
            # Its message is not kept while the thread waits.
            del work

    def _next(self) -> Work | None:
        """The next work, or `None` for the end of the thread."""
        with self._changed:
            while not self._waiting:
                if self._is_closed:
                    break
                self._idle += 1
                has_changed = self._changed.wait(IDLE)
                self._idle -= 1
                if not has_changed and not self._waiting:
                    break
            if self._waiting:
                return self._waiting.popleft()
            self._threads -= 1
            self._changed.notify_all()
            return None


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


_exit_deadline: float | None = None


def begin_exit() -> None:
    """The interpreter ends: `EXIT_GRACE` runs from now on."""
    global _exit_deadline
    _exit_deadline = time.monotonic() + EXIT_GRACE


def exit_time_left() -> float | None:
    """Seconds that receivers still have; `None` for any number, before `begin_exit`.

    Those on pools and on event loops have them at the same time.
    """
    return None if _exit_deadline is None else max(0.0, _exit_deadline - time.monotonic())


def end_pools() -> None:
    """Let all pools do what waits, before the interpreter ends."""
    pools = list(_pools)
    for pool in pools:
        pool.close()
    deadline = time.monotonic() + (exit_time_left() or 0.0)
    left = sum(pool.join(deadline) for pool in pools)
    if left:
        bus_logger().warning(
            "the interpreter ends: %d receivers on the pool did not run to their end within %g s",
            left,
            EXIT_GRACE,
        )
