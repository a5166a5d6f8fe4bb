"""ROUTER and DEALER sockets on an event loop, as a `ZmqTransport` of aiozmq.

aiozmq's own transport treats every error of a send but EAGAIN as fatal, keeps one queue for all
peers, reads one message in each turn of the event loop and, after every write, takes a turn to
check whether there is something to read. This one takes 164 us instead of 188 us for a single call
(``benchmarks/rpc.py``), and it

* recognises peers that are gone or full, and has a queue for each peer;
* reads in bursts, bounded by messages, bytes and time, so that what many peers send shares the
  cost of a turn and no peer keeps the others waiting.

The file of a ZeroMQ socket becomes readable when something *changed*: so one has to read until
nothing is left, and to check again after each send, which consumes the change.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Container, Sequence
from typing import Any, TypeAlias

import zmq

from .aiozmq_import import ZmqProtocol, ZmqTransport
from .binding import bind_socket
from .curve import credentials_of
from .port import IPC_MODE, Buffer, Credentials

__all__ = ["KNOWN", "NO_FILE", "PeerTransport", "Received"]

#: The peer's key, the frames, and the file number of the connection: of a peer not known yet, or
#: `KNOWN`, or `NO_FILE`. A DEALER that asks for keys says of each message who sent it, in place of
#: the peer's key: its connections share one peer.
Received: TypeAlias = tuple[Any, list[bytes], int]

KNOWN = -1

#: The peer speaks an old version of ZMTP, whose messages lack the number: its loss would not be
#: noticed.
NO_FILE = -2

# pyzmq's constants are enums, whose operators are slow.
_NOBLOCK = int(zmq.NOBLOCK)
_NOBLOCK_MORE = int(zmq.NOBLOCK) | int(zmq.SNDMORE)
_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)
_POLLOUT = int(zmq.POLLOUT)
_AGAIN = int(zmq.EAGAIN)
_GONE = (int(zmq.EHOSTUNREACH), int(zmq.ENOTSOCK))

#: Messages, and bytes of them, read in one turn of the event loop while more are there: enough to
#: share the cost of the turn, few enough not to delay timers and other sockets.
BURST = 64
BURST_BYTES = 512 << 10

#: Frames of this size are handed to ZeroMQ without a copy; below, the copy is cheaper than the
#: bookkeeping (pyzmq notifies a thread when ZeroMQ is done with each).
MIN_UNCOPIED = 128 << 10

#: Retrying full peers takes at most about one part in so many of the loop's time.
RETRY_SHARE = 10


class PeerTransport(ZmqTransport):
    """One socket, whose messages carry their peer's key.

    Its protocol's `msg_received` is given a deque of `Received` and takes as many from it as it
    has time for. A DEALER has one peer, whose key is empty. Nothing here blocks.

    Args:
        loop: the event loop.
        zmq_socket: a ROUTER with ROUTER_MANDATORY, or a DEALER.
        protocol: receives what arrives.
        known: keys of the peers whose connection's file number is known.
        departed: called with the key of a peer that a send finds gone.
        is_secured: whether the peers have keys.
        ipc_mode: of the file of an ``ipc://`` endpoint.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        zmq_socket: "zmq.Socket[bytes]",
        protocol: ZmqProtocol,
        *,
        known: Container[Any],
        departed: Callable[[bytes], None],
        is_secured: bool = False,
        ipc_mode: int = IPC_MODE,
    ) -> None:
        kind = zmq_socket.get(zmq.SocketOption.TYPE)
        super().__init__({"zmq_socket": zmq_socket, "zmq_type": kind})
        self._loop = loop
        self._socket = zmq_socket
        self._protocol = protocol
        self._known = known
        self._departed = departed
        self._ipc_mode = ipc_mode
        #: Who the peers are, by their keys, until their first message is handled; ``None`` where
        #: no key is asked for.
        self.credentials: dict[bytes, Credentials | None] | None = {} if is_secured else None
        self._routed = kind == zmq.SocketType.ROUTER
        # The methods of the compiled class, without pyzmq's wrappers in Python.
        compiled: Any = super(zmq.Socket, zmq_socket)
        self._recv = compiled.recv
        self._send = compiled.send
        self._get = compiled.get
        self._file = int(zmq_socket.get(zmq.SocketOption.FD))
        #: Messages that were read and are not handled yet.
        self._messages: deque[Received] = deque()
        #: Whether there was more to read after the last read.
        self._burst = False
        self._next_turn: asyncio.Handle | None = None
        self._in_turn = False
        #: Messages for full peers, each with its size.
        self._blocked: dict[bytes, deque[tuple[int, Sequence[Buffer]]]] = {}
        self._blocked_bytes: dict[bytes, int] = {}
        self._all_blocked_bytes = 0
        self._next_retry: asyncio.TimerHandle | None = None
        self._retry_from = 0.0
        #: Keys of known peers that have a REQ socket.
        self.requesters: set[bytes] = set()
        self._closing = False
        loop.add_reader(self._file, self._on_readable)
        protocol.connection_made(self)

    # -- reading -------------------------------------------------------------------------

    def _on_readable(self) -> None:
        if self._next_turn is None:
            self._take_turn()

    def _take_turn(self) -> None:
        """Read and hand over what there is, within the bounds of a turn."""
        self._next_turn = None
        self._in_turn = True
        messages = self._messages
        try:
            if not messages:
                self._read()
            if messages:
                self._protocol.msg_received(messages)
        finally:
            self._in_turn = False
            if not self._closing:
                self._burst = self.look()

    def _read(self) -> None:
        messages = self._messages
        try:
            messages.append(self._receive())
            if self._burst:
                # Otherwise the check at the end of a turn finds more, for less than a failed read
                # costs.
                size = 0
                while len(messages) < BURST and size < BURST_BYTES:
                    message = self._receive()
                    messages.append(message)
                    size += sum(map(len, message[1]))
        except zmq.ZMQError as error:
            if error.errno != _AGAIN:
                self._fail(error)

    def _receive(self) -> Received:
        recv = self._recv
        key: Any = recv(_NOBLOCK) if self._routed else b""
        frame = recv(_NOBLOCK, False)
        file = KNOWN
        if self._routed and key not in self._known:
            try:
                file = int(frame.get(zmq.SRCFD))
                if frame.get("Socket-Type") == "REQ":
                    self.requesters.add(key)
            except zmq.ZMQError:
                file = NO_FILE
            if self.credentials is not None:
                self.credentials[key] = credentials_of(frame)
        elif self.credentials is not None and not self._routed:
            file, key = int(frame.get(zmq.SRCFD)), credentials_of(frame)
        frames = [frame.bytes]
        while frame.more:
            frame = recv(_NOBLOCK, False)
            frames.append(frame.bytes)
        return key, frames, file

    def look(self) -> bool:
        """Check whether there is something to read or to handle; if so, plan a turn for it."""
        events = self._get(_EVENTS)
        if self._blocked and events & _POLLOUT:
            self._plan_retry()
        more = bool(events & _POLLIN or self._messages)
        if more and self._next_turn is None:
            self._next_turn = self._loop.call_soon(self._take_turn)
        return more

    def take_credentials(self, key: bytes) -> Credentials | None:
        """Who a peer is whose first message was read; ``None`` without keys."""
        return None if self.credentials is None else self.credentials.pop(key, None)

    # -- writing -------------------------------------------------------------------------

    def write(self, data: Any) -> None:
        """Send `(key, *frames)`, or queue it while the peer is full."""
        key, frames = data[0], data[1:]
        if self._closing:
            return
        if key in self._blocked or not self._try(key, frames):
            self._block(key, frames)
        if not self._in_turn:
            self.look()

    def _try(self, key: bytes, frames: Sequence[Buffer]) -> bool:
        """Try to send a message. Returns whether it is done: sent, or its peer is gone."""
        send = self._send
        last = len(frames) - 1
        try:
            if self._routed:
                send(key, _NOBLOCK_MORE)
            for i, frame in enumerate(frames):
                flags = _NOBLOCK_MORE if i < last else _NOBLOCK
                send(frame, flags, len(frame) < MIN_UNCOPIED)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno in _GONE:
                self.forget(key)
                self._departed(key)
            else:
                self._fail(error)
        return True

    def _block(self, key: bytes, frames: Sequence[Buffer]) -> None:
        size = sum(map(len, frames))
        self._blocked.setdefault(key, deque()).append((size, frames))
        self._blocked_bytes[key] = self._blocked_bytes.get(key, 0) + size
        self._all_blocked_bytes += size

    def _plan_retry(self) -> None:
        if self._next_retry is None:
            self._next_retry = self._loop.call_at(self._retry_from, self._retry_and_look)

    def _retry_and_look(self) -> None:
        self._next_retry = None
        if not self._closing:
            self.retry()
            self.look()

    def retry(self) -> None:
        """Send queued messages, as far as the peers have room."""
        began = self._loop.time()
        for key in list(self._blocked):
            queue = self._blocked.get(key)
            while queue and self._try(key, queue[0][1]):
                if key not in self._blocked:
                    break
                size = queue.popleft()[0]
                self._blocked_bytes[key] -= size
                self._all_blocked_bytes -= size
            if not queue:
                self.forget(key)
        # A ROUTER is always writable, so it does not show when a full peer has room.
        ended = self._loop.time()
        self._retry_from = ended + (ended - began) * RETRY_SHARE

    def forget(self, key: bytes) -> None:
        """Drop what is queued for a peer."""
        self._blocked.pop(key, None)
        self._all_blocked_bytes -= self._blocked_bytes.pop(key, 0)

    def queued_bytes(self, key: bytes) -> int:
        """Bytes that wait for a peer to take them."""
        return self._blocked_bytes.get(key, 0)

    @property
    def queued_messages(self) -> int:
        """Messages that wait for any peer."""
        return sum(map(len, self._blocked.values()))

    def get_write_buffer_size(self) -> int:
        return self._all_blocked_bytes

    # -- addresses -----------------------------------------------------------------------

    async def bind(self, endpoint: str) -> str:  # type: ignore[override]
        try:
            return bind_socket(self._socket, endpoint, self._ipc_mode)
        except zmq.ZMQError as error:
            raise OSError(error.errno, error.strerror) from error

    async def connect(self, endpoint: str) -> str:  # type: ignore[override]
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            raise OSError(error.errno, error.strerror) from error
        return endpoint

    # -- the end -------------------------------------------------------------------------

    def _fail(self, error: zmq.ZMQError) -> None:
        if not self._closing:
            message = "a ZeroMQ socket failed"
            self._loop.call_exception_handler(
                {"message": message, "exception": error, "transport": self}
            )
            self._end(error)

    def leave(self) -> None:
        """Have nothing to do with the socket any more, in the child of a fork.

        Each use of it would take forever: libzmq finds that it is another process's, and pyzmq
        tries again. The event loop still has the socket, as taking it out would do so for the
        parent, too.
        """
        self._closing = True
        for handle in (self._next_turn, self._next_retry):
            if handle is not None:
                handle.cancel()
        # As long as there is a turn to come, nothing is read.
        self._next_turn = self._loop.call_soon(self._messages.clear)
        self._blocked.clear()

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        """Close the socket: ZeroMQ still sends what it has; what is queued here is dropped."""
        if not self._closing:
            self._end(None)

    abort = close

    def _end(self, error: Exception | None) -> None:
        self._closing = True
        self._loop.remove_reader(self._file)
        for handle in (self._next_turn, self._next_retry):
            if handle is not None:
                handle.cancel()
        self._messages.clear()
        self._loop.call_soon(self._finish, error)

    def _finish(self, error: Exception | None) -> None:
        try:
            self._protocol.connection_lost(error)
        finally:
            self._socket.close()
