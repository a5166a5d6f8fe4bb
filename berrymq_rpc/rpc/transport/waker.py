"""End a poll from another thread: a ZeroMQ socket belongs to one thread."""

import socket
from typing import Any

import zmq

__all__ = ["Waker"]


class Waker:
    """A pair of sockets, one of which is polled together with a ZeroMQ socket.

    Args:
        socket_: the socket of ZeroMQ whose messages end a poll too.
    """

    def __init__(self, socket_: Any) -> None:
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        self._socket = socket_
        self._poller = zmq.Poller()
        self._poller.register(socket_, zmq.POLLIN)
        self._poller.register(self._read, zmq.POLLIN)
        self._fileno = self._read.fileno()

    def wake(self) -> None:
        """End the poll that is under way, or the next one. Any thread may call it."""
        try:
            self._write.send(b"\0")
        except OSError:
            # The socket is full, so the poll ends anyway, or it is closed.
            return

    def wait_for_room(self, wanted: bool) -> None:
        """Set whether room to send also ends a poll."""
        self._poller.modify(self._socket, zmq.POLLIN | (zmq.POLLOUT if wanted else 0))

    def poll(self, timeout: int | None) -> bool:
        """Wait for a message, for room if that is wanted, or for `wake`.

        Args:
            timeout: milliseconds at most, or ``None``.

        Returns:
            Whether there is a message, or room.
        """
        found = False
        for source, _ in self._poller.poll(timeout):
            if source == self._fileno:
                self._drain()
            else:
                found = True
        return found

    def _drain(self) -> None:
        try:
            while self._read.recv(4096):
                pass
        except BlockingIOError:
            return

    def close(self) -> None:
        """Close both. `wake` may still be called, and does nothing."""
        self._read.close()
        self._write.close()
