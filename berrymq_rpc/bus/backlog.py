"""The messages that queues keep, until a thread or a coroutine takes them.

A full backlog drops its oldest message (`Overflow.DROP_OLDEST`).
"""

import operator
import threading
import time
import weakref
from collections import deque
from queue import Empty
from typing import Any

from ..identifier import Identifier
from .completion import Waiter
from .diagram import DiagramNode
from .log import logger
from .message import Message
from .registrations import sink
from .registry import Registry

__all__ = ["Backlog", "Backlogs", "check_maxsize"]


def check_maxsize(maxsize: int) -> int:
    """How many messages a backlog keeps, as an `int`.

    Raises:
        ValueError: it is negative.
        TypeError: it is not an integer.
    """
    maxsize = operator.index(maxsize)
    if maxsize < 0:
        raise ValueError(f"maxsize must be a number of messages, not {maxsize}")
    return maxsize


class Backlog:
    """Messages in the order in which they came, for one queue or for several that share them.

    Args:
        identifier: the messages that are kept.
        maxsize: how many at most; 0 for any number.

    Attributes:
        queues: those that have not been closed.
    """

    __slots__ = (
        "__weakref__",
        "_dropped",
        "_messages",
        "_ready",
        "_threads",
        "_waiters",
        "identifier",
        "maxsize",
        "queues",
    )

    def __init__(self, identifier: Identifier, maxsize: int) -> None:
        self.identifier = identifier
        self.maxsize = maxsize
        self._dropped = 0
        self.queues: weakref.WeakSet[Any] = weakref.WeakSet()
        # Not `Bounded`: messages have no sizes here, and this is filled by the sender.
        self._messages: deque[Message] = deque(maxlen=maxsize or None)
        # With a reentrant lock, as it has by default: an object that is collected in the middle
        # of `put` may send a message that comes here.
        self._ready = threading.Condition()
        # How many threads wait.
        self._threads = 0
        # The coroutines that wait, the longest waiting first.
        self._waiters: deque[Waiter] = deque()

    @sink
    def put(self, message: Message) -> None:
        """Add a message; over `maxsize`, the oldest is dropped."""
        with self._ready:
            is_full = len(self._messages) == self._messages.maxlen
            self._dropped += is_full
            dropped = self._dropped
            self._messages.append(message)
            self._wake()
        if is_full:
            logger.warning(
                "queue %s is full with %d messages: %d dropped so far",
                self.identifier,
                self.maxsize,
                dropped,
            )

    @property
    def dropped(self) -> int:
        """How many messages were dropped, always the oldest, as newer ones came."""
        return self._dropped

    @property
    def waiting(self) -> int:
        """How many threads and coroutines wait for a message."""
        return self._threads + len(self._waiters)

    def get(self, queue: object, block: bool, timeout: float | None) -> Message:
        """Take the oldest message, for `queue`. Arguments and exceptions are those of its `get`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._ready:
            while True:
                # What a closed queue leaves is for those that share it, or else still its own.
                if self._messages and (queue in self.queues or not self.queues):
                    return self._messages.popleft()
                if not block or queue not in self.queues:
                    raise Empty
                remaining = None if deadline is None else deadline - time.monotonic()
                if remaining is not None and remaining <= 0:
                    raise Empty
                self._threads += 1
                try:
                    self._ready.wait(remaining)
                except BaseException:
                    # This thread may have been chosen for a message that it does not take now.
                    self._wake()
                    raise
                finally:
                    self._threads -= 1

    def take(self, queue: object, waiter: Waiter) -> Message | None:
        """Take the oldest message, for `queue`, or let `waiter` wait for one.

        Raises:
            Empty: there is none, and the queue is closed.
        """
        with self._ready:
            if self._messages and (queue in self.queues or not self.queues):
                return self._messages.popleft()
            if queue not in self.queues:
                raise Empty
            self._waiters.append(waiter)
            return None

    async def wait(self, queue: object) -> Message:
        """Wait for the oldest message, and take it for `queue`; if cancelled, none is taken.

        Raises:
            Empty: the queue is closed.
        """
        while True:
            waiter = Waiter()
            message = self.take(queue, waiter)
            if message is not None:
                return message
            try:
                await waiter.wait()
            except BaseException:
                self.give_up(waiter)
                raise

    def give_up(self, waiter: Waiter) -> None:
        """Remove a waiter; if it was chosen for a message, wake another one."""
        with self._ready:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            else:
                self._wake()

    def leave(self, queue: object) -> bool:
        """Close a queue, and wake what waits for it; whether it was the last one."""
        with self._ready:
            self.queues.discard(queue)
            self._ready.notify_all()
            while self._waiters:
                self._waiters.popleft().wake()
            return not self.queues

    def _wake(self) -> None:
        """Wake one thread and one coroutine that wait; one of them finds nothing, and waits on."""
        self._ready.notify()
        while self._waiters and not self._waiters.popleft().wake():
            continue

    def bus_diagram_nodes(self) -> list[DiagramNode]:
        """How `Bus.show_network` draws it."""
        count = len(self.queues)
        return [DiagramNode("queue", "Queue" if count < 2 else f"{count} shared queues")]

    def __len__(self) -> int:
        return len(self._messages)


class Backlogs:
    """Opens and closes the backlogs of a bus; has those that are shared, by identifier."""

    __slots__ = ("_lock", "_shared")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._shared: weakref.WeakValueDictionary[Identifier, Backlog]
        self._shared = weakref.WeakValueDictionary()

    def open(
        self, bus: Registry, queue: object, identifier: Identifier, shared: bool, maxsize: int
    ) -> Backlog:
        """The backlog of a new queue, which follows `identifier` on `bus` from now on.

        Raises:
            ValueError: it is shared, and has another `maxsize`.
        """
        with self._lock:
            backlog = self._shared.get(identifier) if shared else None
            if backlog is None:
                backlog = Backlog(identifier, maxsize)
                # The bus holds it weakly, as any object whose method follows: a backlog whose
                # queues have all been forgotten is not filled any more.
                bus.regist_method(identifier, backlog.put)
                if shared:
                    self._shared[identifier] = backlog
            elif backlog.maxsize != maxsize:
                raise ValueError(
                    f"the shared queues of {str(identifier)!r} have maxsize={backlog.maxsize}, "
                    f"not {maxsize}"
                )
            backlog.queues.add(queue)
            return backlog

    def close(self, bus: Registry, queue: object, backlog: Backlog) -> None:
        """Undo `open`; a second time changes nothing."""
        with self._lock:
            if backlog.leave(queue):
                bus.unfollow(backlog.identifier, backlog.put)
                if self._shared.get(backlog.identifier) is backlog:
                    del self._shared[backlog.identifier]
