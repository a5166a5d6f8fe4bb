"""One text of a peer's: what it asks, what it answers, and the one text that goes back.

All that serves JSON-RPC reads with this, so that every listener answers alike: by the version of
the request, never a notification, a batch at once when its last answer is there.
"""

from collections.abc import Callable
from typing import Any

from ..errors import TooLargeError
from .error_objects import standard
from .items import RPCBatch, RPCError, RPCRequest, RPCResponse
from .protocols.base import JSONRPC
from .protocols.detect import JSONRPCAutoDetect
from .protocols.json_codec import MAX_DEPTH, MAX_SIZE, TextError, decode, encode
from .protocols.loose import JSONRPCLoose
from .protocols.version1 import JSONRPCv1
from .protocols.version2 import JSONRPCv2

__all__ = ["MAX_BATCH", "IncomingMessage", "IncomingRequest"]

#: Requests in one batch: each may take a handler's time, and an object of its own meanwhile.
MAX_BATCH = 1000

#: Bytes of a batch's answers that are kept for those to come: what says that one is too large.
_RESERVE = 512


class IncomingRequest:
    """One well-formed request or notification.

    Attributes:
        method: its name.
        args: the arguments by position.
        kwargs: the arguments by name; there are never both.
        request_id: its id.
        is_notification: whether it is not to be answered.
    """

    __slots__ = ("args", "inquiry", "is_notification", "kwargs", "method", "request_id")

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __init__(self, inquiry: "IncomingMessage", request: RPCRequest) -> None:
        method = request.method
        assert isinstance(method, str)
        self.inquiry = inquiry
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
        inquiry = self.inquiry
        payload = inquiry.protocol.result_payload(value, self.request_id)
        inquiry.answer(encode(payload, inquiry.answer_depth))

    def error(self, error: RPCError) -> None:
        """Answer with an error. Never raises."""
        error.request_id = self.request_id
        inquiry = self.inquiry
        try:
            inquiry.answer(inquiry.protocol.error_message(error))
        except TooLargeError:
            short = RPCError(error.code, "the error is larger than a text may be", self.request_id)
            inquiry.answer(inquiry.protocol.error_message(short), checked=False)


class IncomingMessage:
    """What one text of a peer's says.

    Args:
        data: the text.
        max_size: bytes that it, and the text that answers it, may have.
        max_depth: levels of arrays and objects inside one another.
        max_batch: requests in a batch.
        done: is given the text that answers it, as soon as it is whole. Not called when there is
            nothing to answer.

    Attributes:
        calls: what it asks. Each that is no notification is answered once, by
            `IncomingRequest.result` or `IncomingRequest.error`. What was malformed is answered
            already.
        responses: what it answers: well-formed responses, and malformed ones that are nothing
            else (their result is an `RPCError`).
        protocol: what its answers are written in.
    """

    __slots__ = ("_is_batch", "_max_depth", "_max_size", "_missing", "_parts", "_size", "calls",
                 "done", "malformed", "protocol", "responses")  # fmt: skip

    def __init__(
        self,
        data: object,
        *,
        max_size: int = MAX_SIZE,
        max_depth: int = MAX_DEPTH,
        max_batch: int = MAX_BATCH,
        done: Callable[[bytes], object] | None = None,
    ) -> None:
        self.calls: list[IncomingRequest] = []
        self.responses: list[RPCResponse] = []
        self.protocol: type[JSONRPC] = JSONRPCv2
        self.done = done
        #: How many of its parts made no sense.
        self.malformed = 0
        self._max_size = max_size
        self._max_depth = max_depth
        self._parts: list[bytes] = []
        self._size = 0
        self._is_batch = False
        #: Answers that are still to come.
        self._missing = 0
        try:
            payload = decode(data, max_size, max_depth)
        except TextError as problem:
            self._refuse([RPCError(JSONRPC.PARSE_ERROR, str(problem))])
            return
        if type(payload) is dict and payload.get("jsonrpc") == "2.0":
            # The common case in as few steps as there can be; all others by the long way.
            item = JSONRPCv2.payload_to_item(payload)
            if type(item) is RPCRequest and type(item.method) is str:
                asked = IncomingRequest(self, item)
                self.calls.append(asked)
                self._missing = 0 if asked.is_notification else 1
                return
        self._read(payload, max_batch)

    def _read(self, payload: Any, max_batch: int) -> None:
        refused: list[RPCError] = []
        if isinstance(payload, list) and len(payload) > max_batch:
            refused.append(
                JSONRPC.invalid_request(f"a batch of {len(payload):,} is over {max_batch:,}")
            )
        else:
            protocol = JSONRPCAutoDetect.protocol_of(payload)
            item = protocol.payload_to_item(payload)
            if protocol is JSONRPCv1 or _is_version1(payload):
                self.protocol = JSONRPCv1
            if isinstance(item, RPCBatch):
                self._is_batch = True
                for part, said in zip(item, payload, strict=True):
                    self._take(part, said, refused)
            else:
                self._take(item, payload, refused)
        self._missing = sum(not call.is_notification for call in self.calls)
        self._refuse(refused)

    def _refuse(self, errors: list[RPCError]) -> None:
        self.malformed += len(errors)
        self._missing += len(errors)
        for error in errors:
            self.answer(self.protocol.error_message(standard(error)), checked=False)

    def _take(self, item: RPCRequest | RPCResponse, said: Any, refused: list[RPCError]) -> None:
        if isinstance(item, RPCRequest):
            if isinstance(item.method, RPCError):
                refused.append(_as_specified(item.method))
            else:
                self.calls.append(IncomingRequest(self, item))
        elif not item.malformed:
            self.responses.append(item)
        elif isinstance(said, dict) and ("result" in said or "error" in said):
            # An answer to it could be answered in turn, and so for ever. Some peers write a result
            # of null beside an error in version 2.0, and leave an id out that is null.
            response = JSONRPCLoose.payload_to_item({"id": None, **said})
            assert isinstance(response, RPCResponse)
            self.malformed += response.malformed
            self.responses.append(response)
        else:
            refused.append(item.result)

    def answer(self, part: bytes, *, checked: bool = True) -> None:
        """Take the answer to one request.

        Args:
            part: the response.
            checked: whether to refuse one that is too large.

        Raises:
            TooLargeError: all answers together would be larger than a text may be.
        """
        size = self._size + len(part)
        if checked and size > self._max_size - _RESERVE * self._is_batch * (self._missing - 1):
            raise TooLargeError(
                f"an answer of {len(part):,} bytes is over what is left of {self._max_size:,}"
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
        """Whether there is nothing left to answer."""
        return not self._missing

    def text(self) -> bytes:
        """The text that answers it, or nothing when it is of notifications or responses alone."""
        if not self._is_batch:
            return self._parts[0] if self._parts else b""
        return self.protocol.batch_message_from_parts(self._parts) if self._parts else b""


def _is_version1(payload: Any) -> bool:
    return isinstance(payload, dict) and "method" in payload and "jsonrpc" not in payload


def _as_specified(error: RPCError) -> RPCError:
    # The protocol classes say so of a method that is no text; the specification calls it invalid.
    if error.code == JSONRPC.METHOD_NOT_FOUND:
        error.code = JSONRPC.INVALID_REQUEST
    return error
