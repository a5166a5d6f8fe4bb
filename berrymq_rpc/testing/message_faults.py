"""Messages of ZMTP that a proxy loses or sends twice: it finds them in the bytes that pass."""

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .tcp_proxy import Direction

__all__ = ["MessageFaults"]

#: ZMTP 3 (RFC 23 and 37): bytes of the greeting, and the bits of a frame's first byte.
GREETING = 64
MORE, LONG, COMMAND = 1, 2, 4


class MessageFaults:
    """Which messages are lost or come twice, over all connections of a link."""

    def __init__(self) -> None:
        self.drops: Counter[Direction] = Counter()
        self.duplicates: Counter[Direction] = Counter()

    def copies(self, direction: "Direction") -> int:
        """How many copies of a message that passes are sent on."""
        if self.drops[direction]:
            self.drops[direction] -= 1
            return 0
        if self.duplicates[direction]:
            self.duplicates[direction] -= 1
            return 2
        return 1

    def filter(self, direction: "Direction") -> "Callable[[bytes], bytes]":
        """Make what reads one direction of a new connection."""
        return _Stream(self, direction).feed


class _Stream:
    """One direction of a connection: the greeting, then frames."""

    def __init__(self, faults: MessageFaults, direction: "Direction") -> None:
        self._faults = faults
        self._direction = direction
        self._unread = b""
        self._greeting = GREETING
        #: The frames of a message that has not ended.
        self._message = b""

    def feed(self, data: bytes) -> bytes:
        """Take bytes, and return those to be sent on: messages only whole."""
        if self._greeting:
            head, data = data[: self._greeting], data[self._greeting :]
            self._greeting -= len(head)
            return head + self.feed(data) if data else head
        self._unread += data
        passed = b""
        while (frame := self._next_frame()) is not None:
            if frame[0] & COMMAND:
                # Pings and the handshake. They stand between messages, and between their frames.
                passed += frame
                continue
            self._message += frame
            if not frame[0] & MORE:
                passed += self._message * self._faults.copies(self._direction)
                self._message = b""
        return passed

    def _next_frame(self) -> bytes | None:
        unread = self._unread
        is_long = bool(unread) and unread[0] & LONG
        head = 9 if is_long else 2
        if len(unread) < head:
            return None
        end = head + int.from_bytes(unread[1:head], "big")
        if len(unread) < end:
            return None
        self._unread = unread[end:]
        return unread[:end]
