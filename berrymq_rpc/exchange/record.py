"""What a node publishes in a cluster: a batch of messages with one identifier, and its head.

::

    0  version, 1        1  length of the head, 4 bytes        5  head, messages, frames

The head is an array in msgpack: ``[origin, epoch, first, count, previous, withheld, sizes, via, to,
error, presence, trace]``, of which the last ones may be missing, or ``nil``. `origin` to `count`
are as in the envelope of a batch, as are `withheld`, `to`, `error`, `presence` and `trace`.
`previous` is the number of the origin's message before these on this subject, 0 if the publisher
knows none. `sizes` are those of the frames, the long byte strings. `via` is the name and epoch of
the node that has published it, where that is not the origin.
"""

import struct
from typing import Any, NamedTuple

from ..errors import ProtocolError
from ..rpc.wire.codec import Codec
from ..rpc.wire.translation import Untranslated
from .batch import Batch, PresenceBatch, Source, parse_batch, plain_batch

__all__ = ["HEAD_BYTES", "Record", "RecordCodec"]

VERSION = 1

#: The version and the length of the head.
_PREFIX = struct.Struct(">BI")
PREFIX = _PREFIX.size

#: Bytes of a head without an error, at most: two names of 100 characters, and numbers.
HEAD_BYTES = 1024

#: Elements of a head.
FEWEST, MOST = 4, 12


class Record(NamedTuple):
    """What was published.

    Args:
        batch: the messages.
        previous: the number of the origin's message before these on this subject, or 0.
        via: the node that has published it.
    """

    batch: Batch
    previous: int
    via: Source


class RecordCodec:
    """Packs and parses records. One thread at a time may use it."""

    def __init__(self) -> None:
        self._codec = Codec(untranslated=Untranslated.of)

    def pack(self, batch: Batch, previous: int = 0, via: Source | None = None) -> bytes:
        """Pack a record.

        Args:
            batch: of messages with one identifier, or an answer.
            previous: see `Record`.
            via: the node that publishes it, if it is not the origin.
        """
        head: list[Any] = [*batch.source, batch.first, batch.count]
        if isinstance(batch, PresenceBatch):
            return self._pack_presence(head, batch)
        if (
            batch.frames
            or batch.withheld
            or via is not None
            or batch.target is not None
            or batch.trace is not None
        ):
            sizes = [len(frame) for frame in batch.frames]
            further = (previous, batch.withheld, sizes, via, batch.target, batch.error)
            head.extend(value or None for value in (*further, None, batch.trace))
            while head[-1] is None:
                head.pop()
            packed = self._codec.pack(head, "the head")
        else:
            if previous:
                head.append(previous)
            packed = self._codec.fast_pack(head)
        return b"".join((_PREFIX.pack(VERSION, len(packed)), packed, batch.data, *batch.frames))

    def _pack_presence(self, head: list[Any], batch: PresenceBatch) -> bytes:
        sizes = [len(frame) for frame in batch.frames] or None
        head += (None, None, sizes, None, None, None, batch.fields())
        packed = self._codec.pack(head, "the head")
        return b"".join((_PREFIX.pack(VERSION, len(packed)), packed, batch.data, *batch.frames))

    def parse(self, payload: bytes) -> Record:
        """Check what was published and parse it; the messages are not unpacked yet.

        Raises:
            ProtocolError: it is malformed.
        """
        try:
            version, length = _PREFIX.unpack_from(payload)
        except struct.error:
            version = length = 0
        if version != VERSION:
            raise ProtocolError("this is not a record of a node, or one of another version")
        start = PREFIX + length
        if start > len(payload):
            raise ProtocolError("the head of a record is cut off")
        head: Any = self._codec.unpack(payload[PREFIX:start])
        if type(head) is not tuple or not FEWEST <= len(head) <= MOST:
            raise ProtocolError("the head of a record must be an array of 4 to 12 elements")
        if len(head) <= FEWEST + 1:
            return _plain_record(payload[start:], *head)
        full = [*head, *[None] * (MOST - len(head))]
        origin, epoch, first, count, previous, withheld, sizes, via, to, error, presence, trace = (
            full
        )
        try:
            end, frames = _frames(payload, start, sizes)
            envelope = {
                "origin": origin,
                "epoch": epoch,
                "seq": first,
                "count": count,
                "withheld": withheld or 0,
                "to": to,
                "error": error,
                "presence": presence,
                "trace": trace,
            }
            batch = parse_batch(envelope, payload[start:end], frames)
            _check_previous(previous, first)
            if via is not None:
                # Checked as an origin is.
                name, via_epoch = via
                via = parse_batch({"origin": name, "epoch": via_epoch, "seq": 1}).source
        except (TypeError, ValueError) as problem:
            raise ProtocolError(f"malformed record: {problem}") from None
        return Record(batch, previous or 0, via or batch.source)


def _plain_record(
    data: bytes, origin: Any, epoch: Any, first: Any, count: Any, previous: Any = None
) -> Record:
    """Check a record of which only the first parts of the head are there, as of most."""
    try:
        batch = plain_batch(origin, epoch, first, count, data)
        _check_previous(previous, first)
    except (TypeError, ValueError) as problem:
        raise ProtocolError(f"malformed record: {problem}") from None
    # Half the time of `Record(...)`.
    return tuple.__new__(Record, (batch, previous or 0, batch.source))


def _check_previous(previous: Any, first: int) -> None:
    if previous is not None and (type(previous) is not int or not 0 <= previous < first):
        raise ValueError("the previous number must be less than the first")


def _frames(payload: bytes, start: int, sizes: Any) -> tuple[int, list[bytes]]:
    """Where the messages end, and the frames after them."""
    if sizes is None:
        return len(payload), []
    if type(sizes) is not tuple or not all(type(size) is int and size >= 0 for size in sizes):
        raise TypeError("sizes must be an array of whole numbers")
    place = end = len(payload) - sum(sizes)
    if end < start:
        raise ValueError("the frames are cut off")
    frames = []
    for size in sizes:
        frames.append(payload[place : place + size])
        place += size
    return end, frames
