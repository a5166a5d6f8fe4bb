"""One session between two ports over NATS: numbers that show gaps, parts, and credit in bytes.

A `Channel` does no I/O: it makes the payloads that may be sent, and reads those that arrived.

NATS delivers at most once, and says nothing of what it lost. So each payload has a number, and a
gap ends the session. NATS also has no back-pressure: it cuts off who does not read. So a receiver
says how many bytes the sender may have sent altogether, and the sender keeps the rest.
"""

import struct
from collections import deque
from collections.abc import Iterator, Sequence

from ...wire.session import Buffer
from .records import (
    ACK,
    DATA,
    HEAD_SIZE,
    MAX_FRAMES,
    MAX_NUMBER,
    PART,
    Head,
    pack_head,
    pack_table,
)

__all__ = ["Channel", "ChannelError"]

#: Bytes of a payload at most: more would hold up what others send.
MAX_PART = 256 << 10

#: Bytes that a part has at least while the message has more: small windows make no tiny parts.
MIN_PART = 16 << 10

#: A message's frames have so many times the bytes of the largest frame altogether.
MAX_MESSAGE_FRAMES = 16

#: How often the peer is told the same by a mark: one may be lost as well.
MARKS = 2


class ChannelError(Exception):
    """The session cannot go on; the text says why."""


class _Queued:
    """A message that waits for credit, or the rest of it."""

    __slots__ = ("body", "frames", "offset")

    def __init__(self, frames: int, body: bytes) -> None:
        self.frames = frames
        self.body = body
        self.offset = 0


class Channel:
    """One end of a session.

    Args:
        window: bytes that the peer may have under way.
        credit: bytes that the peer allowed when the session began.
        max_payload: bytes of a payload that NATS takes.
        max_frame: bytes of a frame that may arrive.

    Attributes:
        window: may be changed while the session lasts.
        queued_bytes: of messages that wait for credit.
    """

    __slots__ = (
        "_assembled",
        "_credit",
        "_last",
        "_marked",
        "_marks",
        "_max_frame",
        "_max_part",
        "_number",
        "_queue",
        "_received",
        "_sent",
        "_told",
        "queued_bytes",
        "window",
    )

    def __init__(self, *, window: int, credit: int, max_payload: int, max_frame: int) -> None:
        self.window = window
        self.queued_bytes = 0
        self._max_part = max(min(max_payload, MAX_PART) - HEAD_SIZE, 1)
        self._max_frame = max_frame
        self._queue: deque[_Queued] = deque()
        #: Bytes sent, and how many may be.
        self._sent = 0
        self._credit = credit
        #: The number of the last payload sent.
        self._number = 0
        #: What the last mark said, and how often it is still to be said.
        self._marked = (0, window)
        self._marks = 0
        #: The number of the last payload that arrived.
        self._last = 0
        #: Bytes that arrived, and how many the peer was told that it may send.
        self._received = 0
        self._told = window
        #: What has arrived of a message in parts.
        self._assembled: bytearray | None = None

    @property
    def has_queued(self) -> bool:
        """Whether a message waits for credit."""
        return bool(self._queue)

    # -- sending ---------------------------------------------------------------------------

    def send(self, frames: Sequence[Buffer]) -> list[Buffer] | None:
        """Take a message.

        Returns:
            The payload to send now, in pieces; ``None`` if it was queued: see `release`.

        Raises:
            ChannelError: it has too many frames.
        """
        count = len(frames)
        pieces: list[Buffer] = [f if type(f) is bytes else bytes(f) for f in frames]
        if count > 1:
            if count > MAX_FRAMES:
                raise ChannelError(f"a message of {count:,} frames is over the {MAX_FRAMES:,}")
            pieces.insert(0, pack_table(pieces))  # type: ignore[arg-type]
        size = sum(map(len, pieces))
        total = self._sent + size + HEAD_SIZE
        if self._queue or size > self._max_part or total > self._credit:
            self._queue.append(_Queued(count, b"".join(pieces)))
            self.queued_bytes += size
            return None
        self._sent = total
        pieces.insert(0, self._next_head(DATA, count))
        return pieces

    def release(self) -> Iterator[list[Buffer]]:
        """Make the payloads of queued messages that there is credit for."""
        while self._queue:
            message = self._queue[0]
            left = len(message.body) - message.offset
            room = self._credit - self._sent - HEAD_SIZE
            size = min(left, self._max_part)
            if room < size:
                if room < MIN_PART:
                    return
                size = room
            if size == left:
                self._queue.popleft()
            head = self._next_head(DATA if size == left else PART, message.frames)
            piece = memoryview(message.body)[message.offset : message.offset + size]
            message.offset += size
            self.queued_bytes -= size
            self._sent += size + HEAD_SIZE
            yield [head, piece]

    def ack(self) -> bytes | None:
        """What tells the peer that it may send more; ``None`` unless it is much."""
        if self._received + self.window - self._told < self.window // 4:
            return None
        return self._ack()

    def mark(self) -> bytes | None:
        """What tells the peer the last number and its credit; ``None`` after `MARKS` for both.

        Sent now and then, so that neither a lost payload nor a lost ACK stays unnoticed.
        """
        state = (self._number, self._grant())
        if state != self._marked:
            self._marked = state
            self._marks = MARKS
        if self._marks == 0:
            return None
        self._marks -= 1
        return self._ack()

    def _ack(self) -> bytes:
        return pack_head(ACK, 0, self._number, self._grant())

    def _next_head(self, kind: int, frames: int) -> bytes:
        number = self._number = self._number + 1 if self._number < MAX_NUMBER else 0
        return pack_head(kind, frames, number, self._grant())

    def _grant(self) -> int:
        # What was allowed once stays allowed, also when the window has become smaller.
        told = self._told = max(self._told, self._received + self.window)
        return told

    # -- receiving -------------------------------------------------------------------------

    def receive(self, head: Head, payload: bytes) -> list[bytes] | None:
        """Read a payload of the session.

        Returns:
            The frames of a message that is whole now.

        Raises:
            ChannelError: something was lost, or the peer breaks the protocol.
        """
        if head.credit > self._credit:
            self._credit = head.credit
        distance = (head.number - self._last) & MAX_NUMBER
        if head.kind == ACK:
            if 0 < distance <= MAX_NUMBER // 2:
                raise ChannelError(f"{distance:,} messages were lost within NATS")
            return None
        if distance != 1:
            if distance == 0 or distance > MAX_NUMBER // 2:
                # A double.
                return None
            raise ChannelError(f"{distance - 1:,} messages were lost within NATS")
        self._last = head.number
        self._received += len(payload)
        if self._received > self._told:
            raise ChannelError("the peer sends more than it may")
        if self._assembled is None and head.kind == DATA:
            return self._split(head.frames, payload, HEAD_SIZE)
        return self._assemble(head, payload)

    def _assemble(self, head: Head, payload: bytes) -> list[bytes] | None:
        assembled = self._assembled
        if assembled is None:
            assembled = self._assembled = bytearray()
        assembled += memoryview(payload)[HEAD_SIZE:]
        if head.frames == 1:
            self._check_frame(len(assembled))
        elif len(assembled) > MAX_MESSAGE_FRAMES * self._max_frame + 4 * head.frames:
            raise ChannelError(f"a message is over {MAX_MESSAGE_FRAMES} times the largest frame")
        if head.kind != DATA:
            return None
        self._assembled = None
        return self._split(head.frames, bytes(assembled), 0)

    def _split(self, count: int, body: bytes, offset: int) -> list[bytes]:
        if count == 1:
            self._check_frame(len(body) - offset)
            return [body[offset:]]
        start = offset + 4 * count
        if count == 0 or start > len(body):
            raise ChannelError("a malformed message")
        sizes = struct.unpack_from(f">{count}I", body, offset)
        if start + sum(sizes) != len(body):
            raise ChannelError("a malformed message")
        self._check_frame(max(sizes))
        frames = []
        for size in sizes:
            frames.append(body[start : start + size])
            start += size
        return frames

    def _check_frame(self, size: int) -> None:
        if size > self._max_frame:
            raise ChannelError(
                f"a frame of {size} bytes is over the receiver's limit of {self._max_frame}"
            )
