"""A thread that does one thing after another."""

import sys
import threading
from collections.abc import Callable

from ..common.bounded import Bounded
from ..common.tally import Tally
from .fork import OwnerProcess
from .log import Log

__all__ = ["WorkerThread"]


class WorkerThread:
    """Does what is put in, in that order. Any thread may use it.

    What waits is bounded: over a bound the oldest is dropped, counted and, at a bounded rate,
    reported. The thread is a daemon, so that work which never ends cannot hold the interpreter.

    Args:
        name: what it does, such as ``"receivers"``: the thread's name.
        max_items: how many things may wait for their turn.
        max_bytes: bytes that these may take.
        on_dropped: called with the worker after something was dropped, for the 1st, 2nd, 4th, 8th
            time and so on; by the thread that put in the last one.
        logger: gets the exceptions that work raises; the thread goes on.

    Attributes:
        dropped: how many things were dropped.
    """

    def __init__(
        self,
        name: str,
        *,
        max_items: int = 0,
        max_bytes: int = 0,
        on_dropped: Callable[["WorkerThread"], object] | None = None,
        logger: Log | None = None,
    ) -> None:
        self._waiting: Bounded[Callable[[], object]] = Bounded(max_items, max_bytes)
        self._dropped = Tally()
        self._on_dropped = on_dropped
        self._logger = logger or Log("berrymq_rpc.runtime")
        # Reentrant, as it is by default: an object that is collected may put something in.
        self._changed = threading.Condition()
        self._owner = OwnerProcess(name)
        self._is_stopped = False
        self._is_idle = False
        self._thread = threading.Thread(target=self._work, name=f"berrymq_rpc {name}", daemon=True)
        self._thread.start()

    @property
    def max_items(self) -> int:
        """How many things may wait for their turn; may be set."""
        return self._waiting.max_items

    @max_items.setter
    def max_items(self, value: int) -> None:
        self._waiting.max_items = value

    @property
    def dropped(self) -> int:
        return self._dropped.count

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def put(self, work: Callable[[], object], size: int = 0) -> None:
        """Have something done later, unless it was stopped.

        Args:
            work: what to do.
            size: bytes that it takes while it waits.
        """
        if sys.is_finalizing():
            return
        with self._changed:
            if self._is_stopped:
                return
            self._waiting.put(work, size)
            is_told = self._dropped.add(self._waiting.dropped - self._dropped.count)
            if self._is_idle:
                self._changed.notify()
        if is_told and self._on_dropped is not None:
            self._on_dropped(self)

    def stop(self, patience: float) -> int:
        """Take nothing more, and wait until what came before is done.

        When called on the thread itself, as by work, it does not wait.

        Args:
            patience: seconds to wait at most.

        Returns:
            How many things were left undone.
        """
        if sys.is_finalizing():
            # The thread has ended with the interpreter, and may have held the lock.
            return 0
        with self._changed:
            self._is_stopped = True
            self._changed.notify()
        if threading.current_thread() is self._thread:
            return 0
        self._thread.join(patience)
        with self._changed:
            return self._waiting.clear()

    def join(self, patience: float) -> bool:
        """Wait for the thread's end, for so many seconds at most; return whether it has ended."""
        self._thread.join(patience)
        return not self._thread.is_alive()

    def __len__(self) -> int:
        return len(self._waiting)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._is_stopped:
                        return
                    self._is_idle = True
                    self._changed.wait()
                self._is_idle = False
                work = self._waiting.get()
            try:
                work()
            except BaseException:
                if not self._owner.is_this:
                    # The child of a fork ends, of which this is the only thread.
                    raise
                # Work that calls sys.exit, for one: it must not end what others put in.
                self._logger.exception("%s failed", self._thread.name)
            # What it holds is not needed until the next one comes.
            del work
