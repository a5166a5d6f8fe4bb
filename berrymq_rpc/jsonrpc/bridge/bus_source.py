"""The messages of this process's bus for a subscription, bounded in number and in bytes."""

import weakref
from collections import deque

from ...bus import Bus, Message
from ...bus.completion import Waiter
from ...bus.diagram import DiagramNode
from ...bus.registrations import sink
from ...common.sizes import approximate_size
from ...exchange.policy import Grants, guard_of
from ...exchange.quota import AllBytes, PeerBytes
from ...identifier import Identifier
from ...runtime.log import Log
from .message_source import MessageSource, Sent

__all__ = ["BusSource", "MessageSizes"]

logger = Log("berrymq_rpc.jsonrpc.bridge")


class MessageSizes:
    """The sizes of messages. Each is looked at once, for all subscriptions that keep it."""

    def __init__(self) -> None:
        self._latest: tuple[weakref.ref[Message], int] | None = None

    def of(self, message: Message) -> int:
        """About how many bytes a message takes."""
        latest = self._latest
        if latest is not None and latest[0]() is message:
            return latest[1]
        size = approximate_size((message.args, message.kwargs))
        self._latest = weakref.ref(message), size
        return size


class BusSource(MessageSource):
    """The messages of a bus. Any thread may send them; one task takes them.

    Args:
        size: how many wait at most; when one more comes, the oldest is dropped.
        bytes_of_peer: the bytes of all subscriptions of the same peer. Over a bound, the one that
            has most drops its oldest.
        sizes: of the messages.
        grants: what the user may get; ``None`` for everything.
    """

    def __init__(
        self,
        identifier: Identifier,
        bus: Bus,
        size: int,
        bytes_of_peer: PeerBytes,
        sizes: MessageSizes,
        grants: Grants | None = None,
    ) -> None:
        self.dropped = 0
        self._identifier = identifier
        self._gateway = bus.gateway
        self._size = size
        self._of_peer = bytes_of_peer
        self._of_all: AllBytes = bytes_of_peer.of_all
        self._lock = self._of_all.lock
        self._sizes = sizes
        self._kept: deque[tuple[Message, int]] = deque()
        self._bytes = 0
        self._waiter: Waiter | None = None
        self._is_closed = False
        self._of_peer.members[self] = None
        self._gateway.follow(identifier, self.put, guard_of(grants))

    @property
    def movable(self) -> int:
        """Bytes that can make way for others: all."""
        return self._bytes

    def bus_diagram_nodes(self) -> list[DiagramNode]:
        """How `Bus.show_network` draws it."""
        return [DiagramNode("connection", "subscription of a peer")]

    @sink
    def put(self, message: Message) -> None:
        """Keep a message. From any thread."""
        size = self._sizes.of(message)
        with self._lock:
            if self._is_closed:
                return
            before = self.dropped
            if size > self._of_peer.limit:
                # No other message makes way for one that does not fit anyway.
                self.dropped += 1
            else:
                self._kept.append((message, size))
                self._count(size)
                if len(self._kept) > self._size:
                    self._drop_oldest()
                if self._of_peer.is_over or self._of_all.is_over:
                    deque(self._of_all.make_room(self, self._of_peer), maxlen=0)
            dropped = self.dropped
            waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.wake()
        if dropped > before:
            logger.warning(
                "subscription to %s: messages are not read fast enough, %d dropped so far",
                self._identifier,
                dropped,
            )

    def drop(self, whose: str, limit: int) -> bool:
        """Drop the oldest message, if there is one. For `AllBytes`, which holds the lock."""
        if not self._kept:
            return False
        self._drop_oldest()
        return True

    async def next(self) -> Sent | None:
        while True:
            with self._lock:
                if self._kept:
                    message, size = self._kept.popleft()
                    self._count(-size)
                    return Sent(message.id, message.args, message.kwargs, message.retained)
                if self._is_closed:
                    return None
                waiter = self._waiter = Waiter()
            await waiter.wait()

    def close(self) -> None:
        self._gateway.unfollow(self._identifier, self.put)
        with self._lock:
            self._is_closed = True
            self._kept.clear()
            self._count(-self._bytes)
            self._of_peer.members.pop(self, None)
            waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.wake()

    def _drop_oldest(self) -> None:
        self._count(-self._kept.popleft()[1])
        self.dropped += 1

    def _count(self, size: int) -> None:
        self._bytes += size
        self._of_peer.bytes += size
        self._of_all.bytes += size
