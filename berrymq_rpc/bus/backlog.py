"""The messages that wait in a queue, and the queues that take from them."""

import threading
import time
import weakref
from collections import deque
from queue import Empty
from typing import TYPE_CHECKING

from ..common.tally import Tally
from ..identifier import Identifier
from .diagram import DiagramNode
from .log import bus_logger
from .message import Message
from .registrations import sink

if TYPE_CHECKING:
    from .arrival import Arrival
    from .base_queue import BaseQueue
    from .bus import Bus

__all__ = ["Backlog", "Backlogs"]


class Backlog:
    """Messages in the order in which they came, for one queue or for several that share them.

    Args:
        identifier: the messages that are kept here.
        maxsize: how many at most; 0 for any number.

    Attributes:
        queues: those that have not been closed.
    """

    __slots__ = (
        "__weakref__",
        "_arrivals",
        "_dropped",
        "_messages",
        "_ready",
        "identifier",
        "maxsize",
        "queues",
    )

    def __init__(self, identifier: Identifier, maxsize: int) -> None:
        self.identifier = identifier
        self.maxsize = maxsize
        self._dropped = Tally()
        self.queues: weakref.WeakSet[BaseQueue] = weakref.WeakSet()
        self._messages: deque[Message] = deque(maxlen=maxsize or None)
        # With a reentrant lock, as it has by default: an object that is collected in the middle
        # of `put` may send a message that comes here.
        self._ready = threading.Condition()
        # The coroutines that wait, the longest waiting first.
        self._arrivals: deque[Arrival] = deque()

    @sink
    def put(self, message: Message) -> None:
        """Add a message; over `maxsize`, the oldest goes."""
        with self._ready:
            is_full = len(self._messages) == self._messages.maxlen
            reports = is_full and self._dropped.add()
            dropped = self._dropped.count
            self._messages.append(message)
            self._wake()
        if reports:
            bus_logger().warning(
                "queue %s is full with %d messages: %d dropped so far",
                self.identifier,
                self.maxsize,
                dropped,
            )

    @property
    def dropped(self) -> int:
        """How many messages were dropped, always the oldest, as newer ones came."""
        return self._dropped.count

    def get(self, queue: "BaseQueue", block: bool, timeout: float | None) -> Message:
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
                try:
                    self._ready.wait(remaining)
                except BaseException:
                    # This one may have been chosen for a message that it does not take now.
                    self._wake()
                    raise

    def take(self, queue: "BaseQueue", arrival: "Arrival") -> Message | None:
        """Take the oldest message, for `queue`, or let `arrival` wait for one.

        Raises:
            Empty: there is none, and the queue is closed.
        """
        with self._ready:
            if self._messages and (queue in self.queues or not self.queues):
                return self._messages.popleft()
            if queue not in self.queues:
                raise Empty
            self._arrivals.append(arrival)
            return None

    def give_up(self, arrival: "Arrival") -> None:
        """Let `arrival` wait no more; if it was chosen for a message, that is for another one."""
        with self._ready:
            if arrival in self._arrivals:
                self._arrivals.remove(arrival)
            else:
                self._wake()

    def leave(self, queue: "BaseQueue") -> bool:
        """Close a queue, and wake what waits for it; whether it was the last one."""
        with self._ready:
            self.queues.discard(queue)
            self._ready.notify_all()
            while self._arrivals:
                self._arrivals.popleft().wake()
            return not self.queues

    def _wake(self) -> None:
        """Wake one thread and one coroutine that wait; one of them finds nothing, and waits on."""
        self._ready.notify()
        while self._arrivals and not self._arrivals.popleft().wake():
            continue

    def bus_diagram_nodes(self) -> list[DiagramNode]:
        """How `Bus.show_network` draws it."""
        count = len(self.queues)
        return [DiagramNode("queue", "Queue" if count < 2 else f"{count} shared queues")]

    def __len__(self) -> int:
        return len(self._messages)


class Backlogs:
    """The backlogs of a bus that are shared, by identifier."""

    __slots__ = ("_lock", "_shared")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._shared: weakref.WeakValueDictionary[Identifier, Backlog]
        self._shared = weakref.WeakValueDictionary()

    def open(
        self, bus: "Bus", queue: "BaseQueue", identifier: Identifier, shared: bool, maxsize: int
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

    def close(self, bus: "Bus", queue: "BaseQueue", backlog: Backlog) -> None:
        """Undo `open`; a second time changes nothing."""
        with self._lock:
            if backlog.leave(queue):
                bus.unfollow(backlog.identifier, backlog.put)
                if self._shared.get(backlog.identifier) is backlog:
                    del self._shared[backlog.identifier]
