"""The thread on which receivers are called for what comes from other processes."""

import logging
import threading
from collections import deque
from collections.abc import Callable

from .outbox import MAX_BYTES, MAX_MESSAGES

__all__ = ["ReceiverThread"]

logger = logging.getLogger("berrymq_rpc.exchange")


class ReceiverThread:
    """Does one thing after another, in the order in which they came. Any thread may use it.

    What waits is bounded, as what a line keeps is: over it, the oldest is dropped, counted and, at
    a bounded rate, logged.

    Args:
        maximum: how many things may wait for their turn.
        maximum_bytes: bytes that these may take.
        told: called with the thread after something was dropped, once for the 1st, 2nd, 4th, 8th
            and so on; by whoever put in the last one.

    Attributes:
        dropped: how many things were dropped.
    """

    def __init__(
        self,
        maximum: int = MAX_MESSAGES,
        maximum_bytes: int = MAX_BYTES,
        told: Callable[["ReceiverThread"], object] | None = None,
    ) -> None:
        self.dropped = 0
        self.maximum = maximum
        self.maximum_bytes = maximum_bytes
        self.told = told
        self._tell_at = 1
        self._waiting: deque[tuple[Callable[[], object], int]] = deque()
        self._bytes = 0
        # Reentrant, as it is by default: an object that is collected may send a message.
        self._changed = threading.Condition()
        self._is_stopped = False
        self._is_idle = False
        self._thread = threading.Thread(
            target=self._work, name="berrymq_rpc receivers", daemon=True
        )
        self._thread.start()

    def put(self, work: Callable[[], object], size: int = 0) -> None:
        """Have something done later, unless it was stopped.

        Args:
            work: what to do.
            size: bytes that it takes while it waits.
        """
        with self._changed:
            if self._is_stopped:
                return
            self._waiting.append((work, size))
            self._bytes += size
            while (len(self._waiting) > self.maximum or self._bytes > self.maximum_bytes) and len(
                self._waiting
            ) > 1:
                self._drop_oldest()
            tells = self.dropped >= self._tell_at
            if tells:
                self._tell_at = 1 << self.dropped.bit_length()
            if self._is_idle:
                self._changed.notify()
        if tells:
            logger.warning(
                "%s messages wait for receivers, which are too slow: %d dropped so far",
                f"{len(self._waiting):,}",
                self.dropped,
            )
            if self.told is not None:
                self.told(self)

    def stop(self, patience: float) -> int:
        """Take nothing more, and wait until what came before is done.

        When called on the thread itself, as by a receiver, it does not wait.

        Args:
            patience: seconds to wait at most.

        Returns:
            How many things were left undone.
        """
        with self._changed:
            self._is_stopped = True
            self._changed.notify()
        if threading.current_thread() is self._thread:
            return 0
        self._thread.join(patience)
        with self._changed:
            left = len(self._waiting)
            self._waiting.clear()
        if left:
            logger.warning("%d messages were dropped: their receivers took too long", left)
        return left

    def __len__(self) -> int:
        return len(self._waiting)

    def _drop_oldest(self) -> None:
        _, size = self._waiting.popleft()
        self._bytes -= size
        self.dropped += 1

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._is_stopped:
                        return
                    self._is_idle = True
                    self._changed.wait()
                self._is_idle = False
                work, size = self._waiting.popleft()
                self._bytes -= size
            try:
                work()
            except BaseException:
                # A receiver that calls sys.exit, for one: it must not end the others'.
                logger.exception("a message from another process was not received")
            # What it holds is not needed until the next one comes.
            del work
