"""A ZeroMQ socket that does what aiozmq's transport leaves out.

aiozmq's transport takes any error of a send other than EAGAIN as fatal, keeps one queue for all
peers, and reads one message for each turn of the event loop. It takes a socket of our own,
though, so that is where these are dealt with: `PeerSocket.send_multipart` knows a peer that is
gone and one that is full, with a queue for each, and `recv_multipart` gives several messages.
"""

from collections import deque
from collections.abc import Callable, Container, Sequence
from typing import Any, TypeAlias

import zmq

from .interface import Buffer

__all__ = ["PeerSocket", "Received"]

#: The peer's key, the frames, and the file number of the connection of a peer not known yet.
Received: TypeAlias = tuple[bytes, list[bytes], int]

# pyzmq's constants are enums, whose operators take longer than what they are used for here.
_NOBLOCK = int(zmq.NOBLOCK)
_NOBLOCK_MORE = int(zmq.NOBLOCK) | int(zmq.SNDMORE)
_POLLIN = int(zmq.POLLIN)
_POLLOUT = int(zmq.POLLOUT)
_GONE = (int(zmq.EHOSTUNREACH), int(zmq.ENOTSOCK))

#: Messages read in one turn of the event loop while more are there: enough to share the cost of
#: the turn, few enough that timers and other sockets are not kept waiting.
BURST = 64

#: Frames of this size are handed to ZeroMQ without a copy; below, the copy is cheaper than the
#: bookkeeping (measured at 1 us a frame).
MIN_UNCOPIED = 64 << 10


class PeerSocket(zmq.Socket[bytes]):
    """A ROUTER or DEALER whose messages carry their peer's key.

    A DEALER has one peer, whose key is empty. All methods are non-blocking.
    """

    # Attributes of a zmq.Socket are taken for socket options unless the class has them.
    routed = False
    blocked: dict[bytes, deque[tuple[int, Sequence[Buffer]]]] = {}  # noqa: RUF012
    blocked_bytes: dict[bytes, int] = {}  # noqa: RUF012
    known: Container[Any] = ()
    departed: Callable[[bytes], None]
    _more = False
    _has_read = False

    def prepare(self, known: Container[Any], departed: Callable[[bytes], None]) -> None:
        """Make it ready for use; called once.

        Args:
            known: keys of the peers whose connection's file number is known.
            departed: called with the key of a peer that a send found gone.
        """
        self.routed = self.get(zmq.SocketOption.TYPE) == zmq.SocketType.ROUTER
        self.blocked = {}
        self.blocked_bytes = {}
        self.known = known
        self.departed = departed

    # -- reading -------------------------------------------------------------------------

    def recv_multipart(  # type: ignore[override]
        self, flags: int = 0, copy: bool = True, track: bool = False
    ) -> list[Received]:
        """Messages: one, or up to `BURST` while more are waiting.

        Raises:
            zmq.Again: nothing is there.
        """
        self._has_read = True
        messages = [self._receive()]
        if self._more:
            try:
                while len(messages) < BURST:
                    messages.append(self._receive())
            except zmq.Again:
                self._more = False
        return messages

    def _receive(self) -> Received:
        key = self.recv(_NOBLOCK) if self.routed else b""
        frame = self.recv(_NOBLOCK, copy=False)
        file = -1
        if self.routed and key not in self.known:
            file = int(frame.get(zmq.SRCFD))
        frames = [frame.bytes]
        while frame.more:
            frame = self.recv(_NOBLOCK, copy=False)
            frames.append(frame.bytes)
        return key, frames, file

    def getsockopt(self, option: int) -> Any:
        value: Any = self.get(option)
        if option == zmq.EVENTS:
            if self._has_read:
                # aiozmq asks again after it has read: POLLIN then means a burst.
                self._has_read = False
                self._more = bool(value & _POLLIN)
            if self.blocked and value & _POLLOUT:
                self.retry()
                # Sending takes signals in, so what was true before may have become more.
                value = self.get(option)
        return value

    # -- sending -------------------------------------------------------------------------

    def send_multipart(  # type: ignore[override]
        self, message: Sequence[Any], flags: int = 0, copy: bool = True, track: bool = False
    ) -> None:
        """Send `(key, *frames)`, or queue it where the peer's ZeroMQ queue is full."""
        key, frames = message[0], message[1:]
        if key in self.blocked or not self._try(key, frames):
            self._block(key, frames)

    def _block(self, key: bytes, frames: Sequence[Buffer]) -> None:
        size = sum(memoryview(frame).nbytes for frame in frames)
        self.blocked.setdefault(key, deque()).append((size, frames))
        self.blocked_bytes[key] = self.blocked_bytes.get(key, 0) + size

    def _try(self, key: bytes, frames: Sequence[Buffer]) -> bool:
        """Whether the message is off this socket's hands: sent, or its peer is gone."""
        last = len(frames) - 1
        try:
            if self.routed:
                self.send(key, _NOBLOCK_MORE)
            for i, frame in enumerate(frames):
                flags = _NOBLOCK_MORE if i < last else _NOBLOCK
                self.send(frame, flags, copy=len(frame) < MIN_UNCOPIED)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno not in _GONE:
                raise
            self.forget(key)
            self.departed(key)
        return True

    def retry(self) -> None:
        """Send what is queued, as far as the peers take it."""
        for key in list(self.blocked):
            queue = self.blocked.get(key)
            while queue and self._try(key, queue[0][1]):
                if key not in self.blocked:
                    break
                self.blocked_bytes[key] -= queue.popleft()[0]
            if not queue:
                self.forget(key)

    def forget(self, key: bytes) -> None:
        """Drop what is queued for a peer."""
        self.blocked.pop(key, None)
        self.blocked_bytes.pop(key, None)
