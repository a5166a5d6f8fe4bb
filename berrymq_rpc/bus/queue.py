"""Pull: messages that wait until somebody asks for them."""

from collections.abc import Iterator
from queue import Empty

from .base_queue import BaseQueue, check_timeout
from .message import Message

__all__ = ["Empty", "Queue"]


class Queue(BaseQueue):
    """Keeps the messages of an identifier until they are asked for: first in, first out.

    Any number of threads may use it. It keeps messages until it is closed or nobody has it any
    more. It is a context manager that closes it, and an iterator of its messages that ends when it
    was closed and is empty.

    Args:
        identifier: which messages to keep.
        shared: whether all shared queues of this identifier on this bus have one backlog, of which
            each message is given out once. Otherwise each queue gets all messages.
        maxsize: how many messages to keep at most; when one more comes, the oldest is dropped,
            counted and, at a bounded rate, logged. 0 for any number.
        bus: the bus to follow; `None` for the default one.

    Raises:
        ValueError: `identifier` is none, `maxsize` is negative, or queues that share the backlog
            have another `maxsize`.
        TypeError: `identifier` is no text, or `maxsize` no integer.
    """

    def get(self, block: bool = True, timeout: float | None = None) -> Message:
        """Take the oldest message.

        Args:
            block: whether to wait for one.
            timeout: how long to wait, in seconds; `None` for as long as it takes.

        Raises:
            Empty: there is none and it does not wait, its time is over, or the queue is closed.
            ValueError: `timeout` is negative.
        """
        if block:
            check_timeout(timeout)
        return self._backlog.get(self, block, timeout if block else None)

    def __iter__(self) -> Iterator[Message]:
        while True:
            try:
                message = self.get()
            except Empty:
                return
            yield message
