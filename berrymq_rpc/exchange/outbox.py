"""What waits for a line: bundles that are to be sent, or that the peer has not confirmed."""

from collections import deque

from .bundle import Bundle

__all__ = ["MAX_BYTES", "MAX_MESSAGES", "Outbox"]

#: Messages kept for a line: some seconds to minutes of a busy bus.
MAX_MESSAGES = 100_000

#: Bytes kept for a line. All lines of a node share the bundles themselves.
MAX_BYTES = 64 << 20


class Outbox:
    """Bundles in the order in which they were put in, until the peer has confirmed them.

    ::

        put --> waiting --take--> sent --confirm--> gone
                   ^               |
                   +----rewind-----+

    Over a bound the oldest bundle that waits is dropped; what is under way is not, as it may have
    arrived. It knows no time and no thread: whoever uses it sees to that.

    Args:
        maximum: messages, of those that wait and those that are not confirmed together.
        maximum_bytes: bytes of the same.

    Attributes:
        messages: how many it holds.
        bytes: how many these take.
        dropped: how many messages were dropped.
        refused: how many the peer, or the way to it, did not take.
    """

    def __init__(self, maximum: int = MAX_MESSAGES, maximum_bytes: int = MAX_BYTES) -> None:
        self.maximum = maximum
        self.maximum_bytes = maximum_bytes
        self.messages = 0
        self.bytes = 0
        self.dropped = 0
        self.refused = 0
        self._waiting: deque[Bundle] = deque()
        self._sent: deque[Bundle] = deque()
        #: How many bundles were confirmed, and taken since the last `rewind`.
        self._confirmed = 0

    def put(self, bundle: Bundle) -> None:
        """Add a bundle; the last one stays, whatever its size."""
        waiting = self._waiting
        waiting.append(bundle)
        self.messages += bundle.count
        self.bytes += bundle.size
        while (self.messages > self.maximum or self.bytes > self.maximum_bytes) and len(
            waiting
        ) > 1:
            oldest = waiting.popleft()
            self._gone(oldest)
            self.dropped += oldest.count

    def take(self, maximum: int, maximum_bytes: int) -> list[Bundle]:
        """The bundles to be sent next: one at least if there is one, so many at most.

        Args:
            maximum: bundles.
            maximum_bytes: bytes of all but the first.
        """
        waiting = self._waiting
        taken: list[Bundle] = []
        size = 0
        while waiting and len(taken) < maximum:
            size += waiting[0].size
            if taken and size > maximum_bytes:
                break
            taken.append(waiting.popleft())
        self._sent.extend(taken)
        return taken

    @property
    def mark(self) -> int:
        """What `confirm` has to be called with to confirm all that was taken so far."""
        return self._confirmed + len(self._sent)

    def confirm(self, mark: int) -> None:
        """Forget what had been taken when `mark` was asked for; nothing if it was before."""
        while self._confirmed < mark and self._sent:
            self._gone(self._sent.popleft())
            self._confirmed += 1

    def rewind(self) -> None:
        """Send anew what is not confirmed. Marks of before mean nothing any more."""
        self._waiting.extendleft(reversed(self._sent))
        self._sent.clear()

    def refuse(self, bundle: Bundle) -> None:
        """Count a bundle that will never be taken; it is confirmed in its turn."""
        self.refused += bundle.count

    def clear(self) -> int:
        """Drop all; how many messages that were."""
        dropped = self.messages
        self._waiting.clear()
        self._sent.clear()
        self.messages = self.bytes = 0
        self.dropped += dropped
        return dropped

    @property
    def next_size(self) -> int:
        """Bytes of the bundle that `take` gives next; 0 if there is none."""
        return self._waiting[0].size if self._waiting else 0

    def _gone(self, bundle: Bundle) -> None:
        self.messages -= bundle.count
        self.bytes -= bundle.size

    def __len__(self) -> int:
        return self.messages
