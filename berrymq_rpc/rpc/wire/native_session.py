"""The native dialect: the state of a session, and what each record does to it.

All the records of one tick travel in one message; `native_records` has their layout.
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

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
from .metadata import MAX_METADATA, read_metadata
from .native_records import (
    ARRAY_32,
    HEAD,
    MAX_BATCH,
    PAYLOAD,
    PLAIN,
    PLAIN_TEXT,
    PLAIN_VALUES,
    PREFIX,
    VERSION,
    Marked,
    RecordPacking,
    check_call,
    is_id,
    read_closed,
    read_failure,
    read_limits,
)
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
from .session import SHARE, Frames, Session, State, logger

__all__ = ["FIRST_WINDOW", "NativeDialect", "NativeSession"]

#: Calls that may be in flight before the peer's window is known.
FIRST_WINDOW = 64

#: A peer that is silent for so many heartbeats is lost; with pings each quarter heartbeat, this is
#: noticed within two.
SILENCE = 1.5

#: Seconds by which the timers of two event loops may differ: uvloop's go by milliseconds.
_TIMER_PRECISION = 0.005

#: The number of the PING that asks whether a goodbye was read; others carry a clock.
_BARRIER = 0

#: The first bytes of a record, which hold its kind and id.
_RECORD_HEAD = 32


class NativeSession(RecordPacking, Session):
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
        Session.__init__(self, limits, ids=ids, connect_timeout=connect_timeout)
        RecordPacking.__init__(self, codec, limits.max_message, limits.max_frame)
        self._error_table = error_table
        self._clock = PeerClock()
        self._max_head = max(MAX_BATCH, limits.max_message) + HEAD.size
        #: The reason of the peer's goodbye, once it arrived.
        self.goodbye_reason: str | None = None
        #: The records of a message of which some are unread.
        self._records: Sequence[Any] = ()

    # -- packing -------------------------------------------------------------------------

    def notify(
        self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], now: float
    ) -> None:
        if self.window and not kwargs and len(args) <= PLAIN_VALUES:
            for value in args:
                kind = type(value)
                if kind not in PLAIN and (kind is not str or len(value) > PLAIN_TEXT):
                    break
            else:
                self._out.append((NOTIFY, method, args))
                return
        super().notify(method, args, kwargs, now)

    # -- answers and other records to the peer -----------------------------------------------

    def result(self, call_id: Any, value: Any, *, acknowledge: bool = False) -> None:
        record = (RESULT, call_id, value, True) if acknowledge else (RESULT, call_id, value)
        kind = type(value)
        if kind in PLAIN or (kind is str and len(value) <= PLAIN_TEXT):
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
            # Most often too large: the name and the text are bounded, and can always be packed.
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

    def _as_taken(self, encoded: Any) -> Any:
        if type(encoded) is not Marked:
            return encoded
        return None if self.peer_metadata is None else encoded.taken_by(self.peer_metadata)

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
            "metadata": MAX_METADATA,
        }
        self._out.append(self._encode((HELLO, properties)))

    def goodbye(self, reason: str) -> None:
        self._out.append(self._encode((GOODBYE, reason)))

    def barrier(self) -> None:
        self.barrier_passed = False
        self._out.append((PING, _BARRIER))

    def tick(self, now: float) -> bool:
        heartbeat = self.limits.heartbeat
        if now - self.last_heard > SILENCE * heartbeat:
            return False
        if now - self._last_sent >= heartbeat / 4 and not self._out:
            self._out.append((PING, int(now * 1e6)))
        return True

    # -- receiving --------------------------------------------------------------------

    def receive(self, frames: Frames, now: float) -> list[InboundEvent]:
        try:
            head = frames[0]
            prefix, version, clock, array, _ = HEAD.unpack_from(head)
        except (struct.error, IndexError):
            self.malformed += 1
            raise ProtocolError("a truncated message") from None
        if prefix != PREFIX or version != VERSION or array != ARRAY_32:
            self.malformed += 1
            raise ProtocolError(f"a message of another version: {bytes(head[:4])!r}")
        self._clock.observe(clock, now)
        self.last_heard = now
        if len(head) > self._max_head:
            self.malformed += 1
            error = TooLargeError(
                f"{len(head):,} bytes are over max_message={self.limits.max_message:,}"
            )
            # A message of this size has only one record.
            start = memoryview(head)[HEAD.size : HEAD.size + _RECORD_HEAD]
            self._report(self._codec.unpack_head(start), error, now)
            raise ProtocolError(f"a message of {error}")
        payload = memoryview(head)[PAYLOAD:]
        records: Sequence[Any]
        try:
            records = self._codec.unpack(payload, frames[1:])
        except ProtocolError:
            # One by one, so that a malformed one fails alone. Its `Part` takes its place.
            parts = self._codec.unpack_each(payload, frames[1:])
            records = [part if part.error else part.value for part in parts]
        if len(records) > SHARE:
            self._records = records
            self.unread = len(records) - SHARE
            records = records[:SHARE]
        return self._take(records, now)

    def receive_rest(self, now: float) -> list[InboundEvent]:
        start = len(self._records) - self.unread
        records = self._records[start : start + SHARE]
        self.unread -= len(records)
        if not self.unread:
            self._records = ()
        return self._take(records, now)

    def _take(self, records: Sequence[Any], now: float) -> list[InboundEvent]:
        """Take records, and return what they ask."""
        incoming: list[InboundEvent] = []
        pending = self.pending
        released = self.released
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
                        # The peer does not know this call.
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
                        incoming.append((CALL, call_id, method, args, NO_KWARGS, None, None))
                    else:
                        self._take_call(record, incoming, now)
                elif kind == NOTIFY and len(record) == 3:
                    _, method, args = record
                    if type(method) is str and type(args) is tuple:
                        incoming.append((NOTIFY, None, method, args, NO_KWARGS, None, None))
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
        """Report a malformed record to the call's caller, at the peer or here.

        Args:
            head: the scalars at the beginning of the record.
            error: what is wrong with it.
        """
        if [type(part) for part in head[:2]] == [int, str] and head[0] == NOTIFY:
            self.report_dropped(head[1], error)
        if len(head) < 2 or not (is_id(head[0]) and is_id(head[1])):
            return
        kind, call_id = head[:2]
        if kind == CALL:
            self._refuse(call_id, error)
        elif kind == ITEM:
            caller = self.pending.get(call_id)
            if caller is not None and caller.sent is not None:
                # Stop the stream there.
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
        when = metadata = None
        kwargs = NO_KWARGS
        if rest:
            kwargs = rest[0]
            if len(rest) > 1 and rest[1] is not None:
                if not is_id(rest[1]):
                    raise ProtocolError("a deadline is a whole number of microseconds")
                when = self._clock.local(rest[1], now)
            if len(rest) > 2:
                metadata = read_metadata(rest[2]) or None
        check_call(method, args, kwargs)
        if not is_id(call_id):
            raise ProtocolError("the id of a call must be a whole number")
        if when is not None and when <= now:
            self.expired += 1
            self.report_expired(method, tuple(args), kwargs)
            self._refuse(call_id, RPCTimeoutError("the call was read after its deadline"))
            return
        incoming.append((CALL, call_id, method, tuple(args), kwargs, when, metadata))

    def _take_notify(self, record: Any, incoming: list[InboundEvent], now: float) -> None:
        _, method, args, *rest = record
        kwargs = rest[0] if rest else NO_KWARGS
        metadata = (read_metadata(rest[1]) or None) if len(rest) > 1 else None
        check_call(method, args, kwargs)
        incoming.append((NOTIFY, None, method, tuple(args), kwargs, None, metadata))

    def _take_result(self, record: Any, incoming: list[InboundEvent], now: float) -> None:
        _, call_id, value, acknowledge = record
        caller = self._answered(call_id)
        if caller is not None:
            caller.succeed(value)
            if acknowledge:
                self._out.append((ACKNOWLEDGE, call_id))

    def _take_error(self, record: Any, incoming: list[InboundEvent], now: float) -> None:
        _, call_id, *_ = record
        # Read before the call leaves the tables, so that its caller can still be failed.
        failure = read_failure(record)
        caller = self._answered(call_id)
        if caller is None:
            return
        if (
            failure.type_name == _TIME_IS_OVER
            and caller.deadline is not None
            and caller.deadline <= now + _TIMER_PRECISION
        ):
            # The peer noticed it before this side's timer.
            self.fail(caller, self._time_is_over(), now)
        else:
            self._fail_remotely(caller, restore(failure, self._error_table), now)

    def _take_accepted(self, record: Any, incoming: list[InboundEvent], now: float) -> None:
        _, running, released = record
        known = max(SHARE, len(self.pending) + len(self.abandoned))
        if len(running) > known or len(released) > known:
            raise ProtocolError("more calls were accepted than there are")
        for call_id in released:
            if call_id in self.released:
                continue
            caller = self.pending.get(call_id)
            if call_id in self.abandoned if caller is None else caller.sent is not None:
                self.released.add(call_id)
                self.in_window -= 1
        for call_id in running:
            caller = self.pending.get(call_id)
            if caller is not None and caller.sent is not None:
                caller.accepted(now, call_id in self.released)

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
        if not is_id(call_id):
            raise ProtocolError("the id of a call must be a whole number")
        incoming.append((kind, call_id, "", (), NO_KWARGS, None, None))

    def _take_credit(self, record: Any, incoming: list[InboundEvent], now: float) -> None:
        _, call_id, items = record
        if not (is_id(call_id) and is_id(items)):
            raise ProtocolError("credit is a whole number of items")
        incoming.append((CREDIT, call_id, "", (items,), NO_KWARGS, None, None))

    def _take_ping(self, record: Any, incoming: list[InboundEvent], now: float) -> None:
        _, number = record
        if not is_id(number):
            raise ProtocolError("the number of a ping must be a whole number")
        self._out.append((PONG, number))

    def _take_pong(self, record: Any, incoming: list[InboundEvent], now: float) -> None:
        """Ignore all but the answer to `barrier`: any message shows that the peer is alive."""
        if len(record) == 2 and record[1] == _BARRIER:
            self.barrier_passed = True

    def _take_goodbye(self, record: Any, incoming: list[InboundEvent], now: float) -> None:
        _, reason = record
        if type(reason) is not str:
            raise ProtocolError("the reason of a goodbye is a text")
        self.goodbye_reason = bounded(reason)
        if self.state is State.OPEN:
            self.enter(State.CLOSING)
            self.window = 0
        incoming.append((GOODBYE, None, self.goodbye_reason, (), NO_KWARGS, None, None))

    def _take_closed(self, record: Any, incoming: list[InboundEvent], now: float) -> None:
        _, call_id, *_ = record
        reason, began = read_closed(record)
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
        # What waits for this does so no longer, whatever it says.
        self.peer_metadata = self.peer_metadata or 0
        versions = properties.get("versions", ())
        if VERSION not in versions:
            shown = safe_repr(versions, 100)
            reason = f"this side speaks version {VERSION} of the protocol, the peer {shown}"
            self.goodbye(reason)
            self._take_goodbye((GOODBYE, reason), incoming, now)
            # This side will not understand any answer.
            for call_id, caller in list(self.pending.items()):
                if self._answered(call_id) is not None:
                    self.fail(caller, ProtocolError(reason), now)
            return
        limits = self.limits
        window, max_message, max_frame, stream_window = read_limits(properties, limits)
        # A peer that says nothing of it does not know it.
        metadata = properties.get("metadata", 0)
        if not is_id(metadata):
            raise ProtocolError("a limit must be a whole number")
        self.peer_metadata = metadata
        if self.state is State.OPEN:
            self.window = window
        self._max_message = min(limits.max_message, max_message)
        self._max_frame = min(limits.max_frame, max_frame)
        self.stream_credit = min(limits.stream_window, stream_window)


_TIME_IS_OVER = full_name(RPCTimeoutError)


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
