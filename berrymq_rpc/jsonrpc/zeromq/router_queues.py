"""Send to the peers of a ROUTER socket, each at the pace at which it reads."""

from collections.abc import Sequence
from typing import Any

import zmq

from ...common.bounded import Bounded, Overflow
from ...runtime.log import Log

__all__ = ["RouterQueues"]

#: Bytes that are kept for one peer that does not read, in addition to ZeroMQ's own queue. Each
#: message counts as its length plus 500.
MAX_QUEUED = 5 << 20
_OVERHEAD = 500

#: The same of all peers together, so that one peer has at most a tenth.
MAX_ALL_QUEUED = 50 << 20


class RouterQueues:
    """A queue for each peer that has no room, up to a bound; beyond it messages are dropped.

    Args:
        socket: a ROUTER.
        logger: logs what is dropped.

    Attributes:
        size: bytes that are queued for all peers.
    """

    def __init__(self, socket: Any, logger: Log) -> None:
        # Otherwise ZeroMQ itself drops messages to peers that have no room or are gone.
        socket.router_mandatory = 1
        self._socket = socket
        self._logger = logger
        self._queues: dict[bytes, Bounded[Sequence[bytes]]] = {}
        self.size = 0
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """Messages dropped because their peers did not read or were gone."""
        return self._dropped

    def __bool__(self) -> bool:
        """Whether any message is queued."""
        return bool(self._queues)

    def send(self, frames: Sequence[bytes]) -> bool:
        """Send a message to the peer that its first frame names.

        Returns:
            Whether the peer is there.
        """
        peer = frames[0]
        if peer in self._queues:
            self._queue(peer, frames)
            return True
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            self._queue(peer, frames)
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._drop("the peer is gone")
            return False
        return True

    def _queue(self, peer: bytes, frames: Sequence[bytes]) -> None:
        queue = self._queues.get(peer)
        if queue is None:
            queue = self._queues[peer] = Bounded(max_bytes=MAX_QUEUED, overflow=Overflow.REFUSE)
        before = queue.bytes
        size = sum(map(len, frames)) + _OVERHEAD
        if self.size + size > MAX_ALL_QUEUED:
            self._drop("too many bytes wait for peers that do not read")
        elif not queue.put(frames, size):
            self._drop("the peer does not read")
        self.size += queue.bytes - before

    def drop(self, peer: bytes, reason: str, messages: int = 0) -> None:
        """Drop what is queued for a peer, and count it.

        Args:
            peer: the first frame of its messages.
            reason: why, for the log.
            messages: how many more were not queued.
        """
        queue = self._queues.pop(peer, None)
        if queue is not None:
            self.size -= queue.bytes
            messages += len(queue)
        if messages:
            self._drop(reason, messages)

    def _drop(self, reason: str, messages: int = 1) -> None:
        self._dropped += messages
        self._logger.warning("message dropped: %s (%d so far)", reason, self._dropped)

    def retry(self) -> None:
        """Send queued messages, as far as there is room."""
        for peer, queue in list(self._queues.items()):
            try:
                while queue:
                    self._socket.send_multipart(queue.peek(), zmq.NOBLOCK)
                    before = queue.bytes
                    queue.get()
                    self.size += queue.bytes - before
            except zmq.Again:
                continue
            except zmq.ZMQError as error:
                if error.errno != zmq.EHOSTUNREACH:
                    raise
                self._drop("the peer is gone", len(queue))
            self.size -= queue.bytes
            del self._queues[peer]
