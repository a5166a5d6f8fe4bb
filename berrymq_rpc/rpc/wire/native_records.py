"""What the messages and records of the native dialect look like: layout, packing, checks.

The head frame of a message::

    offset  bytes
    0       3      C1 62 71: C1 never occurs in msgpack and is no UTF-8, then "bq"
    3       1      version of this layout: 1
    4       8      the sender's monotonic clock in microseconds, unsigned big-endian
    12      1      DD, msgpack's array of up to 2^32 - 1 elements
    13      4      number of records, unsigned big-endian
    17      ...    the records (see `record`)

With at least one record it is longer than 17 bytes, so never as long as the head of an
aiozmq.rpc message (16). A record that has frames of its own (long byte strings) travels alone:
its msgpack ext 127 values are the numbers of the frames after the head.
"""

import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

from ...errors import ProtocolError, TooLargeError
from .codec import Codec
from .exception_codec import Failure
from .limits import Limits
from .metadata import metadata_bytes
from .record import CALL, ITEM, NOTIFY, RESULT
from .safe_repr import safe_repr
from .session import Buffer, Frames

__all__ = [
    "ALL_PLAIN",
    "ARRAY_32",
    "HEAD",
    "MAX_BATCH",
    "MIN_DETACHED",
    "PAYLOAD",
    "PLAIN",
    "PLAIN_TEXT",
    "PLAIN_VALUES",
    "PREFIX",
    "VERSION",
    "Detached",
    "Marked",
    "RecordPacking",
    "check_call",
    "is_id",
    "read_closed",
    "read_failure",
    "read_limits",
]

PREFIX = b"\xc1bq"
VERSION = 1
HEAD = struct.Struct(">3sBQBI")
ARRAY_32 = 0xDD
PAYLOAD = 12

#: Bytes of records in one message. Larger ones gain nothing (the cost of a message is shared by
#: hundreds of records by then) and would keep a lone call behind them waiting.
MAX_BATCH = 128 << 10

#: Byte strings of this size travel as frames of their own. Below, the cost of a frame (about
#: 2 us) is more than that of the copies that it saves.
MIN_DETACHED = 8 << 10

#: Types whose values cannot change, can always be packed and take a few bytes. Records of such
#: values alone are packed all at once when they are sent, which takes a third of the time.
PLAIN = frozenset((type(None), bool, int, float))

ALL_PLAIN = {tuple}

#: Most characters of a plain text, and most values of a plain record.
PLAIN_TEXT = 250
PLAIN_VALUES = 8

#: Most plain records that are packed at once: with these bounds most batches fit into `MAX_BATCH`.
_PACKED_AT_ONCE = 2000

#: Positions of the user's values in a record, with their names for errors.
_VALUES = {
    CALL: (("args", 3), ("kwargs", 4)),
    NOTIFY: (("args", 2), ("kwargs", 3)),
    RESULT: (("the result", 2),),
    ITEM: (("the item", 2),),
}

#: What a record is in errors, with the position of the method's name if it has one.
_SUBJECTS = {
    CALL: ("the call of", 2),
    NOTIFY: ("the notification", 1),
    RESULT: ("the result", 0),
    ITEM: ("the item", 0),
}


def _subject(record: tuple[Any, ...]) -> str:
    """What a record is, for errors."""
    what, index = _SUBJECTS.get(record[0], ("a message", 0))
    return f"{what} {safe_repr(record[index], 200)}" if index else what


class Detached(NamedTuple):
    """A packed record that has frames of its own."""

    encoded: bytes
    frames: list[Buffer]


class Marked(NamedTuple):
    """A call or notification with metadata, before it is known whether the peer takes that.

    Args:
        encoded: the packed record; it ends with the metadata.
        packed: bytes of that as they are packed.
        size: bytes of it that count against a bound.
    """

    encoded: Any
    packed: int
    size: int

    def taken_by(self, most: int) -> Any:
        """Return the record as a peer takes it that allows `most` bytes of metadata."""
        if self.size <= most:
            return self.encoded
        if type(self.encoded) is Detached:
            return Detached(self._without(self.encoded.encoded), self.encoded.frames)
        return self._without(self.encoded)

    def _without(self, encoded: bytes) -> bytes:
        # The first byte is that of an array of few elements: one less, and the last one cut off.
        return bytes((encoded[0] - 1,)) + encoded[1 : -self.packed]


class RecordPacking:
    """The packing half of a session: values to records, and records to messages."""

    # Of the session.
    large_bytes: int
    peer_metadata: int | None
    _out: list[Any]

    def __init__(self, codec: Codec, max_message: int, max_frame: int) -> None:
        self._codec = codec
        self._pack = codec.fast_pack
        self._max_message = max_message
        self._max_frame = max_frame
        self._last_sent = 0.0

    def _encode(self, record: tuple[Any, ...]) -> Any:
        """Pack one record: bytes, or bytes and frames."""
        # A long byte string is mostly a result, or the first argument.
        value = record[3] if record[0] == CALL else record[-1]
        if type(value) is tuple and value:
            value = value[0]
        if type(value) is bytes and len(value) >= MIN_DETACHED:
            # Packed whole, it would be copied for nothing.
            return self._encode_large(record)
        try:
            encoded = self._pack(record)
        except Exception:
            encoded = b""
        if not encoded:
            # Outside of the handler, so that the error which says what is wrong is alone.
            encoded = self._encode_slowly(record)
        if len(encoded) < MIN_DETACHED:
            return encoded
        return self._encode_large(record)

    def _encode_slowly(self, record: tuple[Any, ...]) -> bytes:
        """Pack what the fast way cannot, or raise an error that says which value is wrong."""
        for name, index in _VALUES.get(record[0], ()):
            if index < len(record):
                self._codec.pack(record[index], name)
        return self._codec.pack(record)

    def _encode_large(self, record: tuple[Any, ...]) -> Any:
        encoded, frames = self._codec.pack_with_frames(record, MIN_DETACHED)
        if len(encoded) > self._max_message:
            raise TooLargeError(
                f"{_subject(record)} has {len(encoded):,} bytes, more than "
                f"max_message={self._max_message:,}: send it in parts, as a stream or as bytes, or "
                "raise that in limits= of both sides"
            )
        total = len(encoded)
        for frame in frames:
            size = memoryview(frame).nbytes
            if size > self._max_frame:
                raise TooLargeError(
                    f"{_subject(record)} has {size:,} bytes in one value, more than "
                    f"max_frame={self._max_frame:,}: send it in parts, as a stream, or raise that "
                    "in limits= of both sides"
                )
            total += size
        self.large_bytes += total
        return Detached(encoded, frames) if frames else encoded

    def _encode_call(
        self,
        call_id: int,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        deadline: float | None,
    ) -> Any:
        record: tuple[Any, ...]
        if deadline is not None:
            record = (CALL, call_id, method, args, kwargs, int(deadline * 1e6))
        elif kwargs:
            record = (CALL, call_id, method, args, kwargs)
        else:
            record = (CALL, call_id, method, args)
        if not kwargs and len(args) <= PLAIN_VALUES:
            for value in args:
                kind = type(value)
                if kind not in PLAIN and (kind is not str or len(value) > PLAIN_TEXT):
                    break
            else:
                return record
        return self._encode(record)

    def _encode_with(
        self,
        call_id: int | None,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        deadline: float | None,
        metadata: Mapping[str, Any],
    ) -> Any:
        record: tuple[Any, ...]
        if call_id is None:
            record = (NOTIFY, method, args, kwargs, metadata)
        else:
            when = None if deadline is None else int(deadline * 1e6)
            record = (CALL, call_id, method, args, kwargs, when, metadata)
        size = len(self._codec.pack(metadata, "metadata"))
        encoded = Marked(self._encode(record), size, metadata_bytes(metadata))
        return encoded if self.peer_metadata is None else encoded.taken_by(self.peer_metadata)

    def _encode_notify(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._encode((NOTIFY, method, args, kwargs) if kwargs else (NOTIFY, method, args))

    def _is_notification(self, encoded: Any) -> bool:
        if type(encoded) is tuple:
            return bool(encoded[0] == NOTIFY)
        packed = encoded.encoded if type(encoded) is Detached else encoded
        # After the array's head, which is one byte for so few elements.
        return bool(packed[1] == NOTIFY)

    def messages(self, now: float) -> list[Frames]:
        records = self._out
        if not records:
            return []
        self._out = []
        self.large_bytes = 0
        self._last_sent = now
        clock = int(now * 1e6)
        kinds = set(map(type, records))
        body = self._pack_at_once(records) if kinds == ALL_PLAIN else b""
        if not body:
            if tuple in kinds:
                records = [self._encode(p) if type(p) is tuple else p for p in records]
            if Detached in kinds:
                return self._split(records, clock)
            body = b"".join(records)
        if len(body) <= MAX_BATCH:
            return [(HEAD.pack(PREFIX, VERSION, clock, ARRAY_32, len(records)) + body,)]
        return self._split(records, clock)

    def _pack_at_once(self, records: list[tuple[Any, ...]]) -> bytes:
        """Pack plain records at once; return nothing if that is not possible."""
        count = len(records)
        if count > _PACKED_AT_ONCE:
            return b""
        try:
            packed = self._pack(records)
        except Exception:
            # Lone surrogates and big integers are packed in another way.
            return b""
        # Leave out the head of the array that they were packed as.
        body = packed[1 if count < 16 else 3 :]
        return body if len(body) <= MAX_BATCH else b""

    def _split(self, records: list[Any], clock: int) -> list[Frames]:
        """Messages of at most `MAX_BATCH` bytes; what has frames of its own travels alone."""
        messages: list[Frames] = []
        batch: list[bytes] = []
        size = 0

        def finish() -> None:
            nonlocal batch, size
            if batch:
                head = HEAD.pack(PREFIX, VERSION, clock, ARRAY_32, len(batch))
                messages.append((head + b"".join(batch),))
                batch, size = [], 0

        for encoded in records:
            if type(encoded) is Detached:
                finish()
                head = HEAD.pack(PREFIX, VERSION, clock, ARRAY_32, 1)
                messages.append((head + encoded.encoded, *encoded.frames))
                continue
            if size + len(encoded) > MAX_BATCH:
                finish()
            batch.append(encoded)
            size += len(encoded)
        finish()
        return messages


def is_id(value: Any) -> bool:
    """Whether a value may be the id of a call, or another number of the protocol."""
    return type(value) is int and value >= 0


def check_call(method: Any, args: Any, kwargs: Any) -> None:
    """Check the fields that a CALL and a NOTIFY share."""
    if type(method) is not str or not isinstance(args, (tuple, list)) or type(kwargs) is not dict:
        raise ProtocolError("a call is a method's name, an array and a map")


def read_failure(record: Any) -> Failure:
    """The exception that an ERROR describes."""
    _, _, type_name, args, text, *rest = record
    traceback = rest[0] if rest else None
    if (
        type(type_name) is not str
        or not isinstance(args, (tuple, list))
        or type(text) is not str
        or not isinstance(traceback, (str, type(None)))
    ):
        raise ProtocolError("an error is a name, an array, a text and a traceback or none")
    return Failure(type_name, tuple(args), text, traceback)


def read_closed(record: Any) -> tuple[str, bool]:
    """The reason of a CLOSED, and whether the method had begun."""
    _, _, reason, began = record
    if type(reason) is not str or type(began) is not bool:
        raise ProtocolError("the end of a call is a reason and whether the method had begun")
    return reason, began


def read_limits(properties: Any, own: Limits) -> tuple[int, int, int, int]:
    """The window, `max_message`, `max_frame` and `stream_window` of a HELLO."""
    names = ("window", "max_message", "max_frame", "stream_window")
    window, max_message, max_frame, stream_window = (
        properties.get(name, getattr(own, name)) for name in names
    )
    if not all(
        is_id(value) and value > 0 for value in (window, max_message, max_frame, stream_window)
    ):
        raise ProtocolError("a limit must be a whole number above 0")
    return window, max_message, max_frame, stream_window
