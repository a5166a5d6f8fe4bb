"""The dialect of JSON-RPC 2.0 and 1.0 over ZeroMQ, in both roles.

A message is one JSON text in its own frame, after an empty frame where a REQ or REP socket
is at one end. An answer starts with the frames that its request started with. A call from this
side starts with the empty frame: a REP server needs it, and a ROUTER server accepts it.

There are no deadlines, no cancelling, no window and no streams. A peer that calls in version 1.0 is
called in it as well; named arguments are one object there, the only one in the array.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..errors import ProtocolError
from ..rpc.wire.exception_codec import Failure
from ..rpc.wire.foreign_session import ForeignSession
from ..rpc.wire.limits import CONNECT_TIMEOUT, Limits
from ..rpc.wire.record import CALL, NOTIFY, InboundEvent
from ..rpc.wire.session import Buffer, Frames
from .error_objects import to_error, to_exception
from .items import RPCError, RPCResponse
from .message import IncomingMessage, IncomingRequest
from .protocols.base import JSONRPC
from .protocols.json_codec import encode
from .protocols.version1 import JSONRPCv1

__all__ = ["JSONRPCDialect", "JSONRPCSession"]

_DELIMITER: Frames = (b"",)
_BEGINNINGS = (b"{", b"[")


class JSONRPCSession(ForeignSession):
    """Calls in both directions with a peer that speaks JSON-RPC.

    The id of a peer's call is its `IncomingRequest`.
    """

    dialect = "jsonrpc"
    peer_kind = "a JSON-RPC peer"

    #: The frames before the text of a call or notification from this side.
    _route: Frames = _DELIMITER
    #: The version in which calls and notifications to the peer are written: that of its latest
    #: call. A peer that this side called first is called in version 2.0 for good.
    _version: type[JSONRPC] | None = None
    _called_first = False

    # -- packing -------------------------------------------------------------------------

    def _encode(
        self, call_id: int | None, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Frames:
        if args and kwargs:
            raise TypeError("JSON-RPC takes arguments by position or by name, not both")
        payload: dict[str, Any]
        if self._version is JSONRPCv1:
            # Version 1.0 has no named arguments, and an id of null makes a notification.
            payload = {"method": method, "params": [kwargs] if kwargs else args, "id": call_id}
        else:
            if self._version is None:
                self._called_first = True
            # Always with params: servers of jsonrpc2-zeromq refuse a request without.
            payload = {"jsonrpc": "2.0", "method": method, "params": kwargs or args}
            if call_id is not None:
                payload["id"] = call_id
        return (*self._route, self._checked(encode(payload, self.limits.max_depth)))

    def _encode_call(
        self,
        call_id: int,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        deadline: float | None,
    ) -> Any:
        return False, self._encode(call_id, method, args, kwargs)

    def _encode_notify(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return True, self._encode(None, method, args, kwargs)

    def _is_notification(self, encoded: Any) -> bool:
        is_notification: bool = encoded[0]
        return is_notification

    def result(self, call_id: Any, value: Any, *, acknowledge: bool = False) -> None:
        request: IncomingRequest = call_id
        request.result(value)

    def error(self, call_id: Any, failure: Failure) -> None:
        request: IncomingRequest = call_id
        request.error(to_error(failure))

    def messages(self, now: float) -> list[Frames]:
        return [frames for _, frames in self._take_out(now)]

    # -- what arrives --------------------------------------------------------------------

    def receive(self, frames: Frames, now: float) -> list[InboundEvent]:
        self.last_heard = now
        route = self._route_of(frames)

        def answered(text: bytes) -> None:
            self.large_bytes += len(text)
            self._out.append((False, (*route, text)))

        return self._events(self._read(frames[-1], answered), now)

    def _events(
        self, message: IncomingMessage, now: float, metadata: dict[str, Any] | None = None
    ) -> list[InboundEvent]:
        """Take the answers in a message, and return what it asks.

        Args:
            metadata: what came with the message.
        """
        if message.malformed:
            self.malformed += message.malformed
        if message.responses:
            for response in message.responses:
                self._take_response(response, now)
            self._release(now)
        if message.calls and not self._called_first:
            self._version = message.calls[-1].protocol
        return [
            (NOTIFY, None, request.method, request.args, request.kwargs, None, metadata)
            if request.is_notification
            else (CALL, request, request.method, request.args, request.kwargs, None, metadata)
            for request in message.calls
        ]

    def _route_of(self, frames: Frames) -> Frames:
        """The frames before the text, which are sent back before the answer."""
        if len(frames) == 2 and not len(frames[0]):
            return _DELIMITER
        if len(frames) != 1:
            self.malformed += 1
            sizes = [len(frame) for frame in frames[:8]]
            raise ProtocolError(f"not a JSON-RPC message: {len(frames)} frames of {sizes} bytes")
        return ()

    def _read(self, text: Buffer, answered: Callable[[bytes], object]) -> IncomingMessage:
        limits = self.limits
        return IncomingMessage(
            text,
            max_size=self._max_size,
            max_depth=limits.max_depth,
            max_values=limits.max_values,
            done=answered,
        )

    def _take_response(self, response: RPCResponse, now: float) -> None:
        request_id, result = response.request_id, response.result
        if request_id is None and isinstance(result, RPCError) and not response.malformed:
            # The peer could not read the id. If one call is in flight, the error is about that one.
            if self.in_window != 1:
                self.malformed += 1
                return
            request_id = next(call_id for call_id, c in self.pending.items() if c.sent is not None)
        # A peer may send any value as an id, and 1.0 and True equal 1.
        caller = self._answered(request_id) if type(request_id) is int else None
        if caller is None:
            return
        if response.malformed:
            self.fail(caller, ProtocolError(f"the answer cannot be read: {result.message}"), now)
        elif isinstance(result, RPCError):
            self._fail_remotely(caller, to_exception(result, self._error_table), now)
        else:
            caller.succeed(result)


class JSONRPCDialect:
    """Makes sessions that speak JSON-RPC.

    Args:
        error_table: remote exception names and the classes that they are raised as.
    """

    name = "jsonrpc"

    def __init__(self, error_table: Mapping[str, type[Exception]]) -> None:
        self._error_table = dict(error_table)

    def recognises(self, frames: Frames) -> bool:
        if len(frames) == 2 and not len(frames[0]):
            frames = frames[1:]
        return len(frames) == 1 and bytes(frames[0][:1]) in _BEGINNINGS

    def session(
        self,
        limits: Limits,
        *,
        ids: Iterator[int] | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
    ) -> JSONRPCSession:
        return JSONRPCSession(limits, self._error_table, ids=ids, connect_timeout=connect_timeout)
