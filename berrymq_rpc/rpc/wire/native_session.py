"""The native dialect: records in msgpack, all those of one tick in one message.

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ...errors import (
    Error,
    ProtocolError,
    RPCTimeoutError,
    ServiceClosedError,
    TooLargeError,
)
from .clock import PeerClock
from .codec import Codec, Part
from .exception_codec import Failure, describe, restore
from .limits import CONNECT_TIMEOUT, Limits
from .record import (
    ACCEPTED,
    ACKNOWLEDGE,
    CALL,
    CANCEL,
    CLOSED,
    CREDIT,
    END,
    ERROR,
    GOODBYE,
    HELLO,
    ITEM,
    NO_KWARGS,
    NOTIFY,
    PING,
    PONG,
    RESULT,
    InboundEvent,
)
from .safe_repr import bounded, full_name, safe_repr
from .session import Buffer, Frames, Session, State, logger

__all__ = ["FIRST_WINDOW", "MAX_BATCH", "MIN_DETACHED", "PREFIX", "NativeDialect", "NativeSession"]

PREFIX = b"\xc1bq"
VERSION = 1
_HEAD = struct.Struct(">3sBQBI")
_HEAD_START = PREFIX + bytes([VERSION])
_ARRAY_32 = 0xDD
_PAYLOAD = 12

#: Bytes of records in one message. Larger ones gain nothing (the cost of a message is shared by
#: hundreds of records by then) and would keep a lone call behind them waiting.
MAX_BATCH = 128 << 10

#: Byte strings of this size travel as frames of their own. Below, the cost of a frame (about
#: 2 us) is more than that of the copies that it saves.
MIN_DETACHED = 8 << 10

#: Calls that may be under way before the peer has told its window.
FIRST_WINDOW = 64

#: A peer that says nothing for so many heartbeats is lost; with pings each quarter heartbeat,
#: it is noticed within two.
SILENCE = 1.5

#: Seconds by which the timers of two event loops may differ: uvloop's go by milliseconds.
_TIMER_PRECISION = 0.005

#: The number of the PING that asks whether a goodbye was read; others carry a clock.
_SETTLING = 0

#: What cannot change before it is packed, packs without fail and takes a few bytes. Records with
#: no other values are packed all at once when they are sent, which takes a third of the time.
_PLAIN = frozenset((type(None), bool, int, float))

_ALL_PLAIN = {tuple}

#: Characters of text that counts as plain, and values in a record of nothing else.
_PLAIN_TEXT = 250
_PLAIN_VALUES = 8

#: Plain records that are packed at once: with these bounds most batches fit into `MAX_BATCH`.
_PACKED_AT_ONCE = 2000

#: Bytes of a record in which its kind and its id are found.
_RECORD_HEAD = 32


class Detached(NamedTuple):
    """A packed record that has frames of its own."""

    encoded: bytes
    frames: list[Buffer]


class NativeSession(Session):
    """Calls in both directions with a peer that speaks the native dialect."""

    dialect = "native"
    keeps_window = True
    acknowledges = True

    def __init__(
        self,
        codec: Codec,
        limits: Limits,
        error_table: Mapping[str, type[Exception]],
        *,
        ids: Iterator[int] | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
    ) -> None:
        super().__init__(limits, ids=ids, connect_timeout=connect_timeout)
        self._codec = codec
        self._pack = codec.fast_pack
        self._error_table = error_table
        self._clock = PeerClock()
        self._max_message = limits.max_message
        self._max_frame = limits.max_frame
        self._last_sent = 0.0
        self._max_head = max(MAX_BATCH, limits.max_message) + _HEAD.size
        #: Why the peer takes no more calls, once it said so.
        self.goodbye_reason: str | None = None

    # -- packing -------------------------------------------------------------------------

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
            encoded = self._encode_slowly(record)
        if len(encoded) < MIN_DETACHED:
            return encoded
        return self._encode_large(record)

    def _encode_slowly(self, record: tuple[Any, ...]) -> bytes:
        """Pack what the fast way cannot, or say which value is wrong."""
        for name, index in _VALUES.get(record[0], ()):
            if index < len(record):
                self._codec.pack(record[index], name)
        return self._codec.pack(record)

    def _encode_large(self, record: tuple[Any, ...]) -> Any:
        encoded, frames = self._codec.pack_with_frames(record, MIN_DETACHED)
        if len(encoded) > self._max_message:
            raise TooLargeError(
                f"{len(encoded):,} bytes are more than max_message={self._max_message:,} allows"
            )
        total = len(encoded)
        for frame in frames:
            size = memoryview(frame).nbytes
            if size > self._max_frame:
                raise TooLargeError(
                    f"{size:,} bytes in one value are over max_frame={self._max_frame:,}"
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
        if not kwargs and len(args) <= _PLAIN_VALUES:
            for value in args:
                kind = type(value)
                if kind not in _PLAIN and (kind is not str or len(value) > _PLAIN_TEXT):
                    break
            else:
                return record
        return self._encode(record)

    def _encode_notify(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._encode((NOTIFY, method, args, kwargs) if kwargs else (NOTIFY, method, args))

    def _is_notification(self, encoded: Any) -> bool:
        if type(encoded) is tuple:
            return bool(encoded[0] == NOTIFY)
        packed = encoded.encoded if type(encoded) is Detached else encoded
        # After the array's head, which is one byte for so few elements.
        return bool(packed[1] == NOTIFY)

    def notify(
        self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], now: float
    ) -> None:
        if self.window and not kwargs and len(args) <= _PLAIN_VALUES:
            for value in args:
                kind = type(value)
                if kind not in _PLAIN and (kind is not str or len(value) > _PLAIN_TEXT):
                    break
            else:
                self._out.append((NOTIFY, method, args))
                return
        super().notify(method, args, kwargs, now)

    # -- answers and other words to the peer -----------------------------------------------

    def result(self, call_id: Any, value: Any, *, acknowledge: bool = False) -> None:
        record = (RESULT, call_id, value, True) if acknowledge else (RESULT, call_id, value)
        kind = type(value)
        if kind in _PLAIN or (kind is str and len(value) <= _PLAIN_TEXT):
            self._out.append(record)
        else:
            self._out.append(self._encode(record))

    def error(self, call_id: Any, failure: Failure) -> None:
        fields = (ERROR, call_id, failure.type_name)
        try:
            if failure.traceback is None:
                encoded = self._encode((*fields, failure.args, failure.text))
            else:
                encoded = self._encode((*fields, failure.args, failure.text, failure.traceback))
        except (TypeError, ValueError):
            # Too large, most often: the name and the text are bounded and always pack.
            encoded = self._encode((*fields, (), failure.text))
        self._out.append(encoded)

    def closed(self, call_id: Any, reason: str, *, began: bool) -> None:
        self._out.append(self._encode((CLOSED, call_id, reason, began)))

    def accepted(self, running: list[Any], released: list[Any]) -> None:
        self._out.append((ACCEPTED, running, released))

    def item(self, call_id: Any, value: Any) -> None:
        self._out.append(self._encode((ITEM, call_id, value)))

    def end(self, call_id: Any) -> None:
        self._out.append((END, call_id))

    def credit(self, call_id: int, items: int) -> None:
        self._out.append((CREDIT, call_id, items))

    def _abandon(self, call_id: int) -> None:
        super()._abandon(call_id)
        self._out.append((CANCEL, call_id))

    def _first_window(self) -> int:
        return min(FIRST_WINDOW, self.limits.window)

    def _greet(self) -> None:
        limits = self.limits
        properties = {
            "versions": [VERSION],
            "window": limits.window,
            "max_message": limits.max_message,
            "max_frame": limits.max_frame,
            "max_waiting": limits.max_waiting,
            "stream_window": limits.stream_window,
            "heartbeat": limits.heartbeat,
        }
        self._out.append(self._encode((HELLO, properties)))

    def goodbye(self, reason: str) -> None:
        self._out.append(self._encode((GOODBYE, reason)))

    def barrier(self) -> None:
        self.settled = False
        self._out.append((PING, _SETTLING))

    def tick(self, now: float) -> bool:
        heartbeat = self.limits.heartbeat
        if now - self.last_heard > SILENCE * heartbeat:
            return False
        if now - self._last_sent >= heartbeat / 4 and not self._out:
            self._out.append((PING, int(now * 1e6)))
        return True

    def messages(self, now: float) -> list[Frames]:
        records = self._out
        if not records:
            return []
        self._out = []
        self.large_bytes = 0
        self._last_sent = now
        clock = int(now * 1e6)
        kinds = set(map(type, records))
        body = self._pack_at_once(records) if kinds == _ALL_PLAIN else b""
        if not body:
            if tuple in kinds:
                records = [self._encode(p) if type(p) is tuple else p for p in records]
            if Detached in kinds:
                return self._split(records, clock)
            body = b"".join(records)
        if len(body) <= MAX_BATCH:
            return [(_HEAD.pack(PREFIX, VERSION, clock, _ARRAY_32, len(records)) + body,)]
        return self._split(records, clock)

    def _pack_at_once(self, records: list[tuple[Any, ...]]) -> bytes:
        """All plain records as they follow each other in a message; nothing if it cannot be."""
        count = len(records)
        if count > _PACKED_AT_ONCE:
            return b""
        try:
            packed = self._pack(records)
        except Exception:
            # Lone surrogates are packed in another way, and big integers too.
            return b""
        # They come as an array, whose own head is left out.
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
                head = _HEAD.pack(PREFIX, VERSION, clock, _ARRAY_32, len(batch))
                messages.append((head + b"".join(batch),))
                batch, size = [], 0

        for encoded in records:
            if type(encoded) is Detached:
                finish()
                head = _HEAD.pack(PREFIX, VERSION, clock, _ARRAY_32, 1)
                messages.append((head + encoded.encoded, *encoded.frames))
                continue
            if size + len(encoded) > MAX_BATCH:
                finish()
            batch.append(encoded)
            size += len(encoded)
        finish()
        return messages

    # -- what arrives --------------------------------------------------------------------

    def receive(self, frames: Frames, now: float) -> list[InboundEvent]:
        try:
            head = frames[0]
            prefix, version, clock, array, _ = _HEAD.unpack_from(head)
        except (struct.error, IndexError):
            self.malformed += 1
            raise ProtocolError("a message that is cut short") from None
        if prefix != PREFIX or version != VERSION or array != _ARRAY_32:
            self.malformed += 1
            raise ProtocolError(f"no message of this version: {bytes(head[:4])!r}")
        self._clock.observe(clock, now)
        self.last_heard = now
        if len(head) > self._max_head:
            self.malformed += 1
            error = TooLargeError(
                f"{len(head):,} bytes are over max_message={self.limits.max_message:,}"
            )
            # It has one record, as others are not gathered in such messages.
            start = memoryview(head)[_HEAD.size : _HEAD.size + _RECORD_HEAD]
            self._report(self._codec.unpack_head(start), error, now)
            raise ProtocolError(f"a message of {error}")
        payload = memoryview(head)[_PAYLOAD:]
        incoming: list[InboundEvent] = []
        try:
            records = self._codec.unpack(payload, frames[1:])
        except ProtocolError:
            # One by one, so that a bad one fails alone. Its place is taken by its `Part`, which is
            # no record either.
            parts = self._codec.unpack_each(payload, frames[1:])
            records = [part if part.error else part.value for part in parts]
        pending = self.pending
        released = self._released
        backlog = self.backlog
        for record in records:
            try:
                kind = record[0]
                if kind == RESULT and len(record) == 3:
                    call_id = record[1]
                    caller = pending.pop(call_id, None)
                    if caller is None:
                        self._answered(call_id)
                        continue
                    if backlog and caller.sent is None:
                        # The peer cannot know of it.
                        pending[caller.id] = caller
                        continue
                    if released and call_id in released:
                        released.discard(call_id)
                    else:
                        self.in_window -= 1
                    caller.succeed(record[2])
                elif kind == CALL and len(record) == 4:
                    _, call_id, method, args = record
                    if (
                        type(method) is str
                        and type(args) is tuple
                        and type(call_id) is int
                        and call_id >= 0
                    ):
                        incoming.append((CALL, call_id, method, args, NO_KWARGS, None))
                    else:
                        self._take_call(record, incoming, now)
                elif kind == NOTIFY and len(record) == 3:
                    _, method, args = record
                    if type(method) is str and type(args) is tuple:
                        incoming.append((NOTIFY, None, method, args, NO_KWARGS, None))
                    else:
                        self._take_notify(record, incoming, now)
                else:
                    _TAKE[kind](self, record, incoming, now)
            except Exception as error:
                self._malformed(record, error, now)
        if backlog and self.window:
            self._release(now)
        return incoming

    def _malformed(self, record: Any, error: Exception, now: float) -> None:
        """Count a malformed record, and fail the call that it is about."""
        self.malformed += 1
        logger.debug("malformed record: %s", error)
        if isinstance(record, Part) and record.error is not None:
            self._report(record.head, record.error, now)
            return
        if not isinstance(error, ProtocolError):
            error = ProtocolError("a malformed record")
        self._report(record[:2] if isinstance(record, (tuple, list)) else (), error, now)

    def _report(self, head: Sequence[Any], error: Error, now: float) -> None:
        """Report a record that cannot be used to its caller, at the peer or here.

        Args:
            head: the scalars that the record begins with.
            error: why it cannot be used.
        """
        if len(head) < 2 or not (_is_id(head[0]) and _is_id(head[1])):
            return
        kind, call_id = head[:2]
        if kind == CALL:
            self._refuse(call_id, error)
        elif kind == ITEM:
            caller = self.pending.get(call_id)
            if caller is not None and caller.sent is not None:
                # The stream would go on there.
                self.cancel(call_id)
                self.fail(caller, type(error)(f"an item cannot be read: {error}"), now)
        elif kind in (RESULT, ERROR, END, CLOSED):
            caller = self._answered(call_id)
            if caller is not None:
                self.fail(caller, type(error)(f"the answer cannot be read: {error}"), now)

    def _refuse(self, call_id: int, error: Error) -> None:
        self.error(call_id, describe(error, self._codec))

    def _take_call(self, record: Any, incoming: list[InboundEvent], now: float) -> None:
        _, call_id, method, args, *rest = record
        when = None
        kwargs = NO_KWARGS
        if rest:
            kwargs = rest[0]
            if len(rest) > 1 and rest[1] is not None:
                if not _is_id(rest[1]):
                    raise ProtocolError("a deadline is a whole number of microseconds")
                when = self._clock.local(rest[1], now)
        _check_call(method, args, kwargs)
        if not _is_id(call_id):
            raise ProtocolError("the id of a call must be a whole number")
        if when is not None and when <= now:
            self.expired += 1
            self._refuse(call_id, RPCTimeoutError("the call was read after its deadline"))
            return
        incoming.append((CALL, call_id, method, tuple(args), kwargs, when))

    def _take_notify(self, record: Any, incoming: list[InboundEvent], now: float) -> None:
        _, method, args, *rest = record
        kwargs = rest[0] if rest else NO_KWARGS
        _check_call(method, args, kwargs)
        incoming.append((NOTIFY, None, method, tuple(args), kwargs, None))

    def _take_result(self, record: Any, incoming: list[InboundEvent], now: float) -> None:
        _, call_id, value, acknowledge = record
        caller = self._answered(call_id)
        if caller is not None:
            caller.succeed(value)
            if acknowledge:
                self._out.append((ACKNOWLEDGE, call_id))

    def _take_error(self, record: Any, incoming: list[InboundEvent], now: float) -> None:
        _, call_id, type_name, args, text, *rest = record
        traceback = rest[0] if rest else None
        # Checked before the call leaves the tables, so that its caller can still be told.
        if (
            type(type_name) is not str
            or not isinstance(args, (tuple, list))
            or type(text) is not str
            or not isinstance(traceback, (str, type(None)))
        ):
            raise ProtocolError("an error is a name, an array, a text and a traceback or none")
        caller = self._answered(call_id)
        if caller is None:
            return
        if (
            type_name == _TIME_IS_OVER
            and caller.deadline is not None
            and caller.deadline <= now + _TIMER_PRECISION
        ):
            # The peer was quicker to say so than this side's timer.
            self.fail(caller, self._time_is_over(), now)
        else:
            failure = Failure(type_name, tuple(args), text, traceback)
            self._fail_remotely(caller, restore(failure, self._error_table), now)

    def _take_accepted(self, record: Any, incoming: list[InboundEvent], now: float) -> None:
        _, running, released = record
        for call_id in released:
            if call_id in self._released:
                continue
            caller = self.pending.get(call_id)
            if call_id in self._abandoned if caller is None else caller.sent is not None:
                self._released.add(call_id)
                self.in_window -= 1
        for call_id in running:
            caller = self.pending.get(call_id)
            if caller is not None and caller.sent is not None:
                caller.accepted(now, call_id in self._released)

    def _take_item(self, record: Any, incoming: list[InboundEvent], now: float) -> None:
        _, call_id, value = record
        caller = self.pending.get(call_id)
        if caller is not None and caller.sent is not None:
            caller.item(value)

    def _take_end(self, record: Any, incoming: list[InboundEvent], now: float) -> None:
        _, call_id = record
        caller = self._answered(call_id)
        if caller is not None:
            caller.end()

    def _take_cancel(self, record: Any, incoming: list[InboundEvent], now: float) -> None:
        kind, call_id = record
        if not _is_id(call_id):
            raise ProtocolError("the id of a call must be a whole number")
        incoming.append((kind, call_id, "", (), NO_KWARGS, None))

    def _take_credit(self, record: Any, incoming: list[InboundEvent], now: float) -> None:
        _, call_id, items = record
        if not (_is_id(call_id) and _is_id(items)):
            raise ProtocolError("credit is a whole number of items")
        incoming.append((CREDIT, call_id, "", (items,), NO_KWARGS, None))

    def _take_ping(self, record: Any, incoming: list[InboundEvent], now: float) -> None:
        _, number = record
        if not _is_id(number):
            raise ProtocolError("the number of a ping must be a whole number")
        self._out.append((PONG, number))

    def _take_pong(self, record: Any, incoming: list[InboundEvent], now: float) -> None:
        """That it arrived is all that it says, but for the one that `barrier` asked for."""
        if len(record) == 2 and record[1] == _SETTLING:
            self.settled = True

    def _take_goodbye(self, record: Any, incoming: list[InboundEvent], now: float) -> None:
        _, reason = record
        if type(reason) is not str:
            raise ProtocolError("the reason of a goodbye is a text")
        self.goodbye_reason = bounded(reason)
        if self.state is State.OPEN:
            self._enter(State.CLOSING)
            self.window = 0
        incoming.append((GOODBYE, None, self.goodbye_reason, (), NO_KWARGS, None))

    def _take_closed(self, record: Any, incoming: list[InboundEvent], now: float) -> None:
        _, call_id, reason, began = record
        if type(reason) is not str or type(began) is not bool:
            raise ProtocolError("the end of a call is a reason and whether the method had begun")
        caller = self._answered(call_id)
        if caller is None:
            return
        error = ServiceClosedError(bounded(reason))
        if began:
            self.fail(caller, error, now)
        else:
            self.note_call(error, caller, now)
            error.sent = False
            error.progress = "did not run"
            caller.refused(error)

    def _take_hello(self, record: Any, incoming: list[InboundEvent], now: float) -> None:
        _, properties = record
        versions = properties.get("versions", ())
        if VERSION not in versions:
            shown = safe_repr(versions, 100)
            reason = f"this side speaks version {VERSION} of the protocol, the peer {shown}"
            self.goodbye(reason)
            self._take_goodbye((GOODBYE, reason), incoming, now)
            # Nothing will come that this side understands.
            for call_id, caller in list(self.pending.items()):
                if self._answered(call_id) is not None:
                    self.fail(caller, ProtocolError(reason), now)
            return
        limits = self.limits
        names = ("window", "max_message", "max_frame", "stream_window")
        told = [properties.get(name, getattr(limits, name)) for name in names]
        if not all(_is_id(value) and value > 0 for value in told):
            raise ProtocolError("a limit must be a whole number above 0")
        if self.state is State.OPEN:
            self.window = told[0]
        self._max_message = min(limits.max_message, told[1])
        self._max_frame = min(limits.max_frame, told[2])
        self.stream_credit = min(limits.stream_window, told[3])


#: Where the user's values are in a record, and what to call them in an error.
_VALUES = {
    CALL: (("args", 3), ("kwargs", 4)),
    NOTIFY: (("args", 2), ("kwargs", 3)),
    RESULT: (("the result", 2),),
    ITEM: (("the item", 2),),
}


_TIME_IS_OVER = full_name(RPCTimeoutError)


def _is_id(value: Any) -> bool:
    return type(value) is int and value >= 0


def _check_call(method: Any, args: Any, kwargs: Any) -> None:
    if type(method) is not str or not isinstance(args, (tuple, list)) or type(kwargs) is not dict:
        raise ProtocolError("a call is a method's name, an array and a map")


_TAKE: dict[int, Callable[[NativeSession, Any, list[InboundEvent], float], None]] = {
    HELLO: NativeSession._take_hello,
    CALL: NativeSession._take_call,
    NOTIFY: NativeSession._take_notify,
    ACCEPTED: NativeSession._take_accepted,
    RESULT: NativeSession._take_result,
    ERROR: NativeSession._take_error,
    CANCEL: NativeSession._take_cancel,
    ITEM: NativeSession._take_item,
    CREDIT: NativeSession._take_credit,
    ACKNOWLEDGE: NativeSession._take_cancel,
    PING: NativeSession._take_ping,
    PONG: NativeSession._take_pong,
    GOODBYE: NativeSession._take_goodbye,
    END: NativeSession._take_end,
    CLOSED: NativeSession._take_closed,
}


class NativeDialect:
    """Makes sessions that speak the native dialect.

    Args:
        codec: packs and unpacks values.
        error_table: remote exception names and the classes that they are raised as.
    """

    name = "native"

    def __init__(self, codec: Codec, error_table: Mapping[str, type[Exception]]) -> None:
        self._codec = codec
        self._error_table = error_table

    def recognises(self, frames: Frames) -> bool:
        return bool(frames) and bytes(frames[0][:3]) == PREFIX

    def session(
        self,
        limits: Limits,
        *,
        ids: Iterator[int] | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
    ) -> NativeSession:
        return NativeSession(
            self._codec, limits, self._error_table, ids=ids, connect_timeout=connect_timeout
        )
