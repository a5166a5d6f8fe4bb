"""The dialect of aiozmq.rpc 1.0, in both roles.

========  ============================================================  ===================
message   frames                                                        header (native order)
========  ============================================================  ===================
call      [route...,] header, method (UTF-8), args, kwargs (msgpack)    HHLd, 16 bytes
answer    [route...,] header, answer (msgpack)                          HHLd?, 17 bytes
========  ============================================================  ===================

The header holds the sender's pid and a random number, the id of the call (32 bits), the
sender's time in seconds (which is not used) and, in an answer, whether it is an error: then the
answer is ``(type, args, repr)``. Frames before the header are the route back through proxies and
REQ sockets, and are returned unchanged.

There are no notifications (a call whose answer is dropped takes their place), no deadlines, no
cancelling, no window and no streams.
"""

import struct
from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import Error, ProtocolError, ServiceClosedError, TooLargeError
from . import record as kinds
from .aiozmq_codec import AiozmqCodec
from .exception_codec import Failure, describe, from_aiozmq_name, restore, to_aiozmq
from .foreign_session import ForeignSession
from .limits import CONNECT_TIMEOUT, Limits
from .record import NO_KWARGS, InboundEvent
from .safe_repr import full_name
from .session import Frames

__all__ = ["AiozmqDialect", "AiozmqSession"]

_REQUEST = struct.Struct("=HHLd")
_RESPONSE = struct.Struct("=HHLd?")
_MAX_ID = 0xFFFFFFFF

#: Most frames of the route back: each proxy adds one; more is an attack.
MAX_ROUTE = 16


class AiozmqSession(ForeignSession):
    """Calls in both directions with a peer that speaks aiozmq.rpc 1.0.

    The id of a peer's call is its 32-bit number, with the route back if there is one.
    """

    dialect = "aiozmq"
    peer_kind = "an aiozmq.rpc peer"

    def __init__(
        self,
        codec: AiozmqCodec,
        limits: Limits,
        error_table: Mapping[str, type[Exception]],
        sender: tuple[int, int],
        *,
        ids: Iterator[int] | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
    ) -> None:
        super().__init__(limits, error_table, ids=ids, connect_timeout=connect_timeout)
        self._codec = codec
        self._sender = sender
        #: The 32-bit wire ids of our calls in flight, whose own ids are longer and never used
        #: twice, and the reverse. A call gets its wire id when it is sent: before, it may move to
        #: another session.
        self.wire_ids: dict[int, int] = {}
        self.call_ids: dict[int, int] = {}

    # -- packing -------------------------------------------------------------------------

    def _new_wire_id(self, call_id: int) -> int:
        wire_id = abs(call_id) & _MAX_ID
        while wire_id in self.call_ids:
            wire_id = wire_id + 1 & _MAX_ID
        if call_id in self.pending:
            self.call_ids[wire_id] = call_id
            self.wire_ids[call_id] = wire_id
        return wire_id

    def _encode_call(
        self,
        call_id: int,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        deadline: float | None,
    ) -> Any:
        packed_args = self._checked(self._codec.pack(args, "args"))
        packed_kwargs = self._checked(self._codec.pack(kwargs, "kwargs"))
        return call_id, (method.encode("utf-8"), packed_args, packed_kwargs)

    def _encode_notify(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # The answer is dropped, as no call of this id is pending. The sign distinguishes it from a
        # call.
        return self._encode_call(-next(self.ids), method, args, kwargs, None)

    def _is_notification(self, encoded: Any) -> bool:
        return len(encoded) == 2 and encoded[0] < 0

    def result(self, call_id: Any, value: Any, *, acknowledge: bool = False) -> None:
        self._answer(call_id, False, self._checked(self._codec.pack(value, "the result")))

    def error(self, call_id: Any, failure: Failure) -> None:
        name, args, text, _ = to_aiozmq(failure)
        try:
            data = self._checked(self._codec.pack((name, args, text)))
        except (TypeError, ValueError):
            data = self._codec.pack((name, (), text))
        self._answer(call_id, True, data)

    def _answer(self, call_id: Any, is_error: bool, data: bytes) -> None:
        self.large_bytes += len(data)
        route, wire_id = call_id if type(call_id) is tuple else ((), call_id)
        self._out.append((route, wire_id, is_error, data))

    def _abandon(self, call_id: int) -> None:
        super()._abandon(call_id)
        wire_id = self.wire_ids.pop(call_id, None)
        if wire_id is not None:
            del self.call_ids[wire_id]

    def lost(self, error: Error, now: float) -> None:
        super().lost(error, now)
        self.wire_ids.clear()
        self.call_ids.clear()

    def messages(self, now: float) -> list[Frames]:
        messages: list[Frames] = []
        for encoded in self._take_out(now):
            if len(encoded) == 2:
                call_id, body = encoded
                header = _REQUEST.pack(*self._sender, self._new_wire_id(call_id), now)
                messages.append((header, *body))
            else:
                route, wire_id, is_error, data = encoded
                header = _RESPONSE.pack(*self._sender, wire_id, now, is_error)
                messages.append((*route, header, data))
        return messages

    # -- receiving --------------------------------------------------------------------

    def receive(self, frames: Frames, now: float) -> list[InboundEvent]:
        self.last_heard = now
        if len(frames) >= 4 and len(frames[-4]) == _REQUEST.size:
            return self._take_call(frames)
        if len(frames) >= 2 and len(frames[-2]) == _RESPONSE.size:
            self._take_answer(frames, now)
            return []
        self.malformed += 1
        sizes = [len(frame) for frame in frames[:8]]
        raise ProtocolError(
            f"a malformed message of aiozmq.rpc: {len(frames)} frames of {sizes} bytes"
        )

    def _take_call(self, frames: Frames) -> list[InboundEvent]:
        *route, header, method, args, kwargs = frames
        if len(route) > MAX_ROUTE:
            self.malformed += 1
            raise ProtocolError(f"a route back of {len(route)} frames")
        _, _, wire_id, _ = _REQUEST.unpack(header)
        call_id = (tuple(map(bytes, route)), wire_id) if route else wire_id
        try:
            size = len(method) + len(args) + len(kwargs)
            if size > self._max_size:
                raise TooLargeError(f"a call of {size:,} bytes is over {self._max_size:,}")
            name = bytes(method).decode("utf-8")
            values = self._codec.unpack(args)
            named = self._codec.unpack(kwargs) if kwargs != b"\x80" else NO_KWARGS
            if not isinstance(values, tuple | list) or type(named) is not dict:
                raise ProtocolError("a call's arguments are an array and a map")
        except (ProtocolError, TooLargeError, UnicodeDecodeError) as error:
            self.malformed += 1
            self.error(call_id, describe(error, self._codec))
            return []
        return [(kinds.CALL, call_id, name, tuple(values), named, None, None)]

    def _take_answer(self, frames: Frames, now: float) -> None:
        _, _, wire_id, _, is_error = _RESPONSE.unpack(frames[-2])
        call_id = self.call_ids.pop(wire_id, None)
        if call_id is None:
            return
        del self.wire_ids[call_id]
        caller = self._answered(call_id)
        assert caller is not None
        try:
            size = len(frames[-1])
            if size > self._max_size:
                raise TooLargeError(f"an answer of {size:,} bytes is over {self._max_size:,}")
            value = self._codec.unpack(frames[-1])
            if is_error:
                name, args, text = value
                failure = Failure(from_aiozmq_name(str(name)), tuple(args), str(text), None)
        except TooLargeError as error:
            self.malformed += 1
            self.fail(caller, error, now)
        except (ProtocolError, TypeError, ValueError) as error:
            self.malformed += 1
            self.fail(caller, ProtocolError(f"the answer cannot be read: {error}"), now)
        else:
            if is_error:
                self._fail_remotely(caller, restore(failure, self._error_table), now)
            else:
                caller.succeed(value)
        self._release(now)


class AiozmqDialect:
    """Makes sessions that speak aiozmq.rpc 1.0.

    Args:
        codec: packs and unpacks values as that peer does.
        error_table: remote exception names and the classes that they are raised as.
        sender: two 16-bit numbers that name this process to the peer: its pid and a random one.
    """

    name = "aiozmq"

    def __init__(
        self,
        codec: AiozmqCodec,
        error_table: Mapping[str, type[Exception]],
        sender: tuple[int, int],
    ) -> None:
        self._codec = codec
        # A closing server cannot say it in another way in this dialect.
        known: dict[str, type[Exception]] = {full_name(ServiceClosedError): ServiceClosedError}
        self._error_table = known | dict(error_table)
        self._sender = (sender[0] & 0xFFFF, sender[1] & 0xFFFF)

    def recognises(self, frames: Frames) -> bool:
        return len(frames) >= 4 and len(frames[-4]) == _REQUEST.size

    def session(
        self,
        limits: Limits,
        *,
        ids: Iterator[int] | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
    ) -> AiozmqSession:
        return AiozmqSession(
            self._codec,
            limits,
            self._error_table,
            self._sender,
            ids=ids,
            connect_timeout=connect_timeout,
        )
