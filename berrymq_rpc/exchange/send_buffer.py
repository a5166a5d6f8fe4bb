"""The send buffer of a link: batches that are to be sent, or that the peer has not acknowledged."""

from collections import deque

from ..bus.retained_store import Share
from .batch import Batch

__all__ = ["MAX_BYTES", "MAX_MESSAGES", "SendBuffer"]

#: Messages kept for a link: some seconds to minutes of a busy bus.
MAX_MESSAGES = 100_000

#: Bytes kept for a link. All links of a node share the batches themselves.
MAX_BYTES = 64 << 20


class SendBuffer:
    """Batches in the order in which they were put in, until the peer has acknowledged them.

    ::

        put --> waiting --take--> sent --acknowledge--> gone
                   ^               |
                   +--retransmit---+

    Over a bound the oldest waiting batch is dropped. A sent one is not, as it may have arrived.
    The class knows no time and no threads: its user takes care of them.

    Args:
        max_messages: messages, waiting and unacknowledged ones together.
        max_bytes: bytes of the same.

    Attributes:
        messages: how many it holds; what nodes say about each other counts as one as well.
        bytes: how many these take.
        dropped: how many messages were dropped.
        refused: how many messages the peer, or the way to it, did not accept.
        is_to_leaf: whether the peer gets messages, and nothing that nodes say to each other.
        takes_presence: whether it takes what is said about nodes that are lost or back.
        share: of the peer in what this node's bus retains; ``None`` where it needs no bound.
    """

    def __init__(self, max_messages: int = MAX_MESSAGES, max_bytes: int = MAX_BYTES) -> None:
        self.max_messages = max_messages
        self.max_bytes = max_bytes
        self.messages = 0
        self.bytes = 0
        self.dropped = 0
        self.refused = 0
        self.is_to_leaf = False
        self.takes_presence = False
        self.share: Share | None = None
        self._waiting: deque[Batch] = deque()
        self._sent: deque[Batch] = deque()
        #: How many batches were acknowledged.
        self._acknowledged = 0

    def put(self, batch: Batch) -> None:
        """Add a batch; the newest one stays, whatever its size."""
        waiting = self._waiting
        waiting.append(batch)
        self.messages += batch.count
        self.bytes += batch.size
        while (self.messages > self.max_messages or self.bytes > self.max_bytes) and len(
            waiting
        ) > 1:
            oldest = waiting.popleft()
            self._remove(oldest)
            self.dropped += oldest.messages
            self._drop(oldest)

    def put_presence(self, batch: Batch) -> None:
        """Add what is said about a node, if the peer takes such; any takes the message in it."""
        if self.takes_presence or (self.is_to_leaf and batch.data):
            SendBuffer.put(self, batch)

    def put_retained(self, batch: Batch) -> None:
        """Add a batch of what is retained, of which nothing has to be left out."""
        SendBuffer.put(self, batch)

    def take(self, max_batches: int, max_bytes: int) -> list[Batch]:
        """Take the batches to send next: at least one if there is one.

        Args:
            max_batches: how many batches at most.
            max_bytes: bytes of all of them; the first may be larger.
        """
        waiting = self._waiting
        taken: list[Batch] = []
        size = 0
        while waiting and len(taken) < max_batches:
            size += waiting[0].size
            if taken and size > max_bytes:
                break
            taken.append(waiting.popleft())
        self._sent.extend(taken)
        return taken

    @property
    def ack_position(self) -> int:
        """The position with which `acknowledge` covers all that was taken so far."""
        return self._acknowledged + len(self._sent)

    def acknowledge(self, ack_position: int) -> None:
        """Forget what had been taken when `ack_position` was read; ignore an older position."""
        while self._acknowledged < ack_position and self._sent:
            self._remove(self._sent.popleft())
            self._acknowledged += 1

    def retransmit(self) -> None:
        """Send again what is not acknowledged. Positions read before become void."""
        self._waiting.extendleft(reversed(self._sent))
        self._sent.clear()

    def refuse(self, batch: Batch) -> None:
        """Count a batch that the peer does not accept; it is acknowledged in its turn."""
        self.refused += batch.messages

    def clear(self) -> int:
        """Drop everything; return how many messages that were."""
        dropped = sum(batch.messages for batch in (*self._waiting, *self._sent))
        for batch in self._waiting:
            self._drop(batch)
        self._waiting.clear()
        self._sent.clear()
        self.messages = self.bytes = 0
        self.dropped += dropped
        return dropped

    @property
    def next_size(self) -> int:
        """Bytes of the batch that `take` gives next; 0 if there is none."""
        return self._waiting[0].size if self._waiting else 0

    def _drop(self, batch: Batch) -> None:
        """Note that a batch that was not sent is dropped."""

    def _remove(self, batch: Batch) -> None:
        self.messages -= batch.count
        self.bytes -= batch.size

    def __len__(self) -> int:
        return self.messages
