"""One message from a peer: its requests, its responses, and the text that answers it.

Everything that serves JSON-RPC reads messages with this module, so that all listeners answer
alike: in the version of each request, never to a notification, and to a batch with one text when
its last answer is ready.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from ..common.awaitable import is_awaitable
from ..errors import TooLargeError
from .error_objects import SERVER_ERROR, standard
from .items import RPCError, RPCRequest, RPCResponse
from .protocols.base import JSONRPC
from .protocols.detect import JSONRPCAutoDetect
from .protocols.json_codec import MAX_DEPTH, MAX_SIZE, MAX_VALUES, TextError, decode, encode
from .protocols.loose import JSONRPCLoose
from .protocols.version1 import JSONRPCv1
from .protocols.version2 import JSONRPCv2

__all__ = ["MAX_BATCH", "IncomingMessage", "IncomingRequest"]

#: Requests in one batch: each takes a handler's time, and an object meanwhile.
MAX_BATCH = 1000

#: Bytes reserved in a batch's answer for each missing one: the error that says it is too large.
_RESERVE = 512

#: What is wrong with a part of a message, and the version in which that is answered.
_Refused: TypeAlias = tuple[RPCError, type[JSONRPC]]


class IncomingRequest:
    """One well-formed request or notification.

    Attributes:
        method: its name.
        args: the arguments by position.
        kwargs: the arguments by name; there are never both.
        request_id: its id.
        is_notification: whether it is not answered.
        protocol: the version of its answer: `JSONRPCv1` or `JSONRPCv2`.
    """

    __slots__ = ("_is_unwritable", "args", "is_notification", "kwargs", "message", "method",
                 "protocol", "request_id")  # fmt: skip

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __init__(
        self, message: "IncomingMessage", request: RPCRequest, protocol: type[JSONRPC]
    ) -> None:
        method = request.method
        assert isinstance(method, str)
        self.message = message
        self.protocol = protocol
        self._is_unwritable = False
        self.method = method
        args = request.args
        if isinstance(args, dict):
            self.args, self.kwargs = (), args
        else:
            self.args, self.kwargs = tuple(args), {}
        self.request_id = request.request_id
        self.is_notification = request.is_notification()

    def result(self, value: Any) -> None:
        """Answer with a result.

        Raises:
            TypeError, ValueError: it cannot be written; the request is still to be answered.
            TooLargeError: it is larger than a text may be; likewise.
        """
        message = self.message
        try:
            payload = self.protocol.result_payload(value, self.request_id)
            message.answer(encode(payload, message.answer_depth))
        except BaseException:
            # What has to be awaited first is not a result yet.
            self._is_unwritable = not is_awaitable(value)
            raise

    def error(self, error: RPCError) -> None:
        """Answer with an error. Never raises.

        An error that is about writing the result has the code -32603, and keeps its data.
        """
        if self._is_unwritable and error.code == SERVER_ERROR:
            error = RPCError(JSONRPC.INTERNAL_ERROR, "Internal error", data=error.data)
        error.request_id = self.request_id
        message = self.message
        try:
            message.answer(self.protocol.error_message(error))
        except TooLargeError:
            short = RPCError(error.code, "the error is larger than a text may be", self.request_id)
            message.answer(self.protocol.error_message(short), checked=False)


class IncomingMessage:
    """One message from a peer.

    Args:
        data: the text.
        max_size: bytes that it, and the text that answers it, may have.
        max_depth: levels of arrays and objects inside one another.
        max_values: values in the text.
        max_batch: requests in a batch.
        done: called with the text that answers it, as soon as that is complete; not called if
            there is nothing to answer.

    Attributes:
        calls: the well-formed requests and notifications in it. Each request is answered once, by
            `IncomingRequest.result` or `IncomingRequest.error`. Malformed ones have been answered
            already.
        responses: well-formed responses, and malformed ones that cannot be anything else (their
            result is an `RPCError`).
        malformed: how many of its parts are malformed.
    """

    __slots__ = ("_is_batch", "_max_depth", "_max_size", "_missing", "_parts", "_size", "calls",
                 "done", "malformed", "responses")  # fmt: skip

    def __init__(
        self,
        data: object,
        *,
        max_size: int = MAX_SIZE,
        max_depth: int = MAX_DEPTH,
        max_values: int = MAX_VALUES,
        max_batch: int = MAX_BATCH,
        done: Callable[[bytes], object] | None = None,
    ) -> None:
        self.calls: list[IncomingRequest] = []
        self.responses: list[RPCResponse] = []
        self.done = done
        self.malformed = 0
        self._max_size = max_size
        self._max_depth = max_depth
        self._parts: list[bytes] = []
        self._size = 0
        self._is_batch = False
        #: How many answers are missing.
        self._missing = 0
        try:
            payload = decode(data, max_size, max_depth, max_values)
        except TextError as problem:
            self._refuse([(RPCError(JSONRPC.PARSE_ERROR, str(problem)), JSONRPCv2)])
            return
        if type(payload) is dict and payload.get("jsonrpc") == "2.0":
            # The common case, in as few steps as possible; `_read` takes all others.
            item = JSONRPCv2.payload_to_item(payload)
            if type(item) is RPCRequest and type(item.method) is str:
                request = IncomingRequest(self, item, JSONRPCv2)
                self.calls.append(request)
                self._missing = 0 if request.is_notification else 1
                return
        self._read(payload, max_batch)

    def _read(self, payload: Any, max_batch: int) -> None:
        refused: list[_Refused] = []
        if not isinstance(payload, list):
            self._take(payload, refused)
        elif not payload:
            refused.append((JSONRPC.invalid_request("a batch must not be empty"), JSONRPCv2))
        elif len(payload) > max_batch:
            error = JSONRPC.invalid_request(f"a batch of {len(payload):,} is over {max_batch:,}")
            refused.append((error, _version_of(payload[0])))
        else:
            self._is_batch = True
            for part in payload:
                self._take(part, refused)
        self._missing = sum(not call.is_notification for call in self.calls)
        self._refuse(refused)

    def _refuse(self, errors: list[_Refused]) -> None:
        self.malformed += len(errors)
        self._missing += len(errors)
        for error, protocol in errors:
            self.answer(protocol.error_message(standard(error)), checked=False)

    def _take(self, said: Any, refused: list[_Refused]) -> None:
        """Interpret one part of a batch, or all of another message, by its own version."""
        protocol = _protocol_of(said)
        if (
            isinstance(said, dict)
            and "method" not in said
            and ("result" in said or "error" in said)
        ):
            self._take_response(said, protocol)
            return
        request = protocol.payload_to_request(_with_params(said))
        version = _version_of(said)
        if isinstance(request.method, RPCError):
            refused.append((_as_specified(request.method), version))
        else:
            self._take_request(request, said, version)

    def _take_request(
        self, request: RPCRequest, said: dict[str, Any], version: type[JSONRPC]
    ) -> None:
        self.calls.append(IncomingRequest(self, request, version))

    def _take_response(self, said: dict[str, Any], protocol: type[JSONRPC]) -> None:
        response = protocol.payload_to_response(said)
        if response.malformed:
            # A response is never answered: two peers could go on forever. Some peers write a null
            # result together with an error in version 2.0, and leave out an id that is null.
            response = JSONRPCLoose.payload_to_response({"id": None, **said})
            self.malformed += response.malformed
        self.responses.append(response)

    def answer(self, part: bytes, *, checked: bool = True) -> None:
        """Take the answer to one request.

        Args:
            part: the response.
            checked: whether to refuse an answer that is too large.

        Raises:
            TooLargeError: all answers together would be larger than a text may be.
        """
        size = self._size + len(part)
        if checked and size > self._max_size - _RESERVE * self._is_batch * (self._missing - 1):
            raise TooLargeError(
                f"an answer of {len(part):,} bytes is over what is left of {self._max_size:,}: "
                "return less, or in several calls"
            )
        self._size = size + 2
        self._parts.append(part)
        self._missing -= 1
        if not self._missing and self.done is not None:
            self.done(self.text())

    @property
    def answer_depth(self) -> int:
        """Levels that one answer may have; a batch is a level around its own."""
        return self._max_depth - self._is_batch

    @property
    def is_answered(self) -> bool:
        """Whether nothing is left to answer."""
        return not self._missing

    def text(self) -> bytes:
        """The text that answers it; empty for notifications and responses alone."""
        if not self._is_batch:
            return self._parts[0] if self._parts else b""
        return JSONRPC.batch_message_from_parts(self._parts) if self._parts else b""


def _protocol_of(said: Any) -> type[JSONRPC]:
    """What interprets one request or response."""
    # There are no batches inside a batch.
    return JSONRPCLoose if isinstance(said, list) else JSONRPCAutoDetect.protocol_of(said)


def _version_of(said: Any) -> type[JSONRPC]:
    """The version in which a request is answered. Without any, a request has version 1.0."""
    is_version1 = _protocol_of(said) is JSONRPCv1 or (
        isinstance(said, dict) and "method" in said and "jsonrpc" not in said
    )
    return JSONRPCv1 if is_version1 else JSONRPCv2


def _with_params(said: Any) -> Any:
    # Many serializers write null for what their program left out; and version 1.0 leaves nothing
    # out, but its programs do.
    if isinstance(said, dict) and "method" in said and said.get("params") is None:
        return {**said, "params": []}
    return said


def _as_specified(error: RPCError) -> RPCError:
    # For a method that is not text, the protocol classes say -32601; the specification -32600.
    if error.code == JSONRPC.METHOD_NOT_FOUND:
        error.code = JSONRPC.INVALID_REQUEST
    return error
