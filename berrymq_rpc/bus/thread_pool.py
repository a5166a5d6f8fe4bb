"""Receivers on a pool of threads, once a program has asked for it by `Bus.set_multiplicity`.

What the pool cannot take, as too much waits, the sender's thread runs itself
(`Overflow.CALLER_RUNS`).
"""

import atexit
import os
import threading
import time
import weakref
from collections import deque
from contextvars import copy_context
from typing import Any, Protocol

from ..runtime.fork import call_in_child
from .async_receivers import EXIT_GRACE, begin_exit, exit_time_left
from .completion import OnEnd, TrackedCall, WrappedCall, registered_receiver
from .delivery import Chain, Delivery, explain, sending
from .log import logger
from .message import Message
from .registrations import Receiver, Refusal, Registration

__all__ = ["MAX_WAITING", "Job", "PooledCall", "ThreadPool", "Work", "pools"]

# Calls that wait for a thread, each some 500 bytes besides its message. Beyond it senders make
# the calls themselves: that slows them down to what the receivers bear, and cannot lock up as
# waiting would when the threads of the pool send messages themselves.
MAX_WAITING = 10_000

# Seconds that a thread waits for work before it ends.
IDLE = 10.0


class Work(Protocol):
    """One piece of work for a thread of the pool."""

    def run(self) -> None:
        """Do it. Raises nothing."""


class ThreadPool:
    """Threads that start when there is work for them, and end when there has been none for long.

    Work is begun in the order in which it came. The threads are daemons, so that one that never
    ends cannot hold the interpreter; at exit they have `EXIT_GRACE` seconds.

    Args:
        size: how many threads at most.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.is_closed = False
        self._begin()
        _pools.add(self)
        call_in_child(self._begin)

    def submit(self, work: Work) -> bool:
        """Let a thread do it; `False` if too much waits already, or the pool is closed."""
        with self._changed:
            if self.is_closed or len(self._waiting) >= MAX_WAITING:
                return False
            if (
                len(self._waiting) >= self._threads - self._running
                and self._threads < self.size
                and not self._start_thread()
                and not self._threads
            ):
                return False
            self._waiting.append(work)
            self._changed.notify()
        return True

    def close(self) -> None:
        """Accept no further work. What waits is still done, and then the threads end."""
        with self._changed:
            self.is_closed = True
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
            return len(self._waiting) + self._running

    def statistics(self) -> dict[str, int]:
        """Counts, for `Bus.statistics`."""
        with self._changed:
            return {
                "pool_threads": self._threads,
                "receivers_waiting": len(self._waiting),
                "receivers_running": self._running,
            }

    def _begin(self) -> None:
        """Begin with no threads and no work."""
        self._waiting: deque[Work] = deque()
        # With a reentrant lock, as it has by default: an object that is collected in the middle
        # of `submit` may send a message that comes here.
        self._changed = threading.Condition()
        self._threads = 0
        #: How many of them do some work. One that starts is free to take what waits.
        self._running = 0

    def _start_thread(self) -> bool:
        thread = threading.Thread(target=self._work, name="berrymq_rpc receivers", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # None can be started at the exit of the interpreter, or over the system's limit.
            return False
        self._threads += 1
        return True

    def _work(self) -> None:
        while (work := self._next()) is not None:
            try:
                work.run()
            finally:
                with self._changed:
                    self._running -= 1
            # Its message is not kept while the thread waits.
            del work

    def _next(self) -> Work | None:
        """The next work, or `None` for the end of the thread."""
        with self._changed:
            while not self._waiting:
                if self.is_closed:
                    break
                has_changed = self._changed.wait(IDLE)
                if not has_changed and not self._waiting:
                    break
            if self._waiting:
                self._running += 1
                return self._waiting.popleft()
            self._threads -= 1
            self._changed.notify_all()
            return None


class PooledCall(WrappedCall):
    """The call of a receiver that runs on the pool; its guard runs at once, in the sender's thread.

    When too many calls wait for the pool already, the receiver runs at once as well.
    """

    __slots__ = ("_delivery", "_pool", "_registration")

    def __init__(
        self,
        registration: Registration,
        pool: ThreadPool,
        delivery: Delivery,
        on_end: OnEnd | None = None,
    ) -> None:
        self.on_end = on_end
        self._registration = registration
        self._pool = pool
        self._delivery = delivery

    def __call__(self, message: Message) -> Any:
        """Let the receiver run on the pool.

        Raises:
            RecursionError: this is part of a cycle that was found by another thread of the pool.
        """
        if sending.chain is not None and sending.chain.is_ended:
            raise _cut_off()
        call = self._registration.admit(message)
        if isinstance(call, Refusal):
            return call
        if self.on_end is not None:
            call = TrackedCall(call, self.on_end)
        if self._pool.submit(Job(self._delivery, call, message)):
            return None
        return call(message)

    def receiver(self) -> Any:
        return self._registration.receiver()

    def tracked(self, on_end: OnEnd) -> "PooledCall":
        return PooledCall(self._registration, self._pool, self._delivery, on_end)


class Job:
    """One call that waits for a thread of the pool.

    It continues at the depth of the thread that sent the message, so that receivers that send
    messages to each other without end are stopped as they are in one thread. There, the error ends
    all that is part of the cycle; here it ends the `Chain`, and so what waits for the pool of it.
    """

    __slots__ = ("_call", "_chain", "_context", "_delivery", "_message", "_stack")

    def __init__(self, delivery: Delivery, call: Receiver, message: Message) -> None:
        self._delivery = delivery
        self._call = call
        self._message = message
        self._stack = tuple(sending.stack)
        self._chain = sending.chain or Chain()
        self._context = copy_context()

    def run(self) -> None:
        """Call the receiver. Raises nothing."""
        self._context.run(self._run)

    def _run(self) -> None:
        stack, call = sending.stack, self._call
        stack[:] = self._stack
        sending.chain = self._chain
        is_nested = len(stack) > 1
        process = os.getpid()
        try:
            if is_nested and self._chain.is_ended:
                if isinstance(call, TrackedCall):
                    call.on_end(None, _cut_off())
                return
            result = call(self._message)
            if result is not None:
                self._delivery.accept(result, call, self._message)
        except RecursionError as error:
            is_first = self._chain.end()
            if is_nested:
                explain(error, stack)
            # The outermost receiver may be cut off as well, after the cycle was reported.
            if is_first or not (is_nested or error.args == (_CUT_OFF,)):
                self._report(error)
        except BaseException as error:
            if os.getpid() != process:
                # The child of a fork ends, of which this is the only thread.
                raise
            # Neither SystemExit nor KeyboardInterrupt ends anything in a thread of the pool.
            self._report(error)
        finally:
            stack.clear()
            sending.chain = None

    def _report(self, error: BaseException) -> None:
        self._delivery.report(error, self._message, registered_receiver(self._call), "failed")


_CUT_OFF = "not called: it is part of a cycle of receivers that send each other messages"


def _cut_off() -> RecursionError:
    return RecursionError(_CUT_OFF)


_pools: weakref.WeakSet[ThreadPool] = weakref.WeakSet()


def pools() -> list[ThreadPool]:
    """All pools of the process."""
    return list(_pools)


def _end_pools() -> None:
    """Let all pools do what waits, before the interpreter exits."""
    begin_exit()
    ending = pools()
    for pool in ending:
        pool.close()
    deadline = time.monotonic() + (exit_time_left() or 0.0)
    left = sum(pool.join(deadline) for pool in ending)
    if left:
        logger.warning("exit: %d receivers on the pool did not end within %g s", left, EXIT_GRACE)


# It runs before that of `async_receivers`, which was registered first: receivers on the pool may
# start some on the loop, while those on the loop run in its thread what a closed pool refuses.
atexit.register(_end_pools)
