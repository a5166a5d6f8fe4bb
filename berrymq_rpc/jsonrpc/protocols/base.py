"""What all protocols share: JSON values to items, and items to messages."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

from ..items import Item, RPCBatch, RPCError, RPCRequest, RPCResponse
from .json_codec import MAX_DEPTH, MAX_SIZE, TextError, decode, encode

__all__ = ["JSONRPC", "shown"]

#: Characters of a peer's value that an error shows.
_SHOWN = 60


def shown(value: Any) -> str:
    """Return the beginning of a peer's value, for the text of an error."""
    if isinstance(value, dict):
        return f"an object of {len(value)}"
    if isinstance(value, list):
        return f"an array of {len(value)}"
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


class JSONRPC(ABC):
    """Turns messages into items and back. All methods are class methods; there are no instances.

    Attributes:
        max_size: bytes that a message may have; over it, it is malformed.
        max_depth: levels of arrays and objects inside one another.
        allow_batches: whether a message may be a batch.
    """

    PARSE_ERROR: ClassVar = -32700
    INVALID_REQUEST: ClassVar = -32600
    METHOD_NOT_FOUND: ClassVar = -32601
    INVALID_ARGS: ClassVar = -32602
    INTERNAL_ERROR: ClassVar = -32603
    #: The code of a version 1.0 error without one.
    ERROR_CODE_UNAVAILABLE: ClassVar = -100

    allow_batches: ClassVar[bool] = True
    max_size: ClassVar[int] = MAX_SIZE
    max_depth: ClassVar[int] = MAX_DEPTH

    # -- from a message to an item -------------------------------------------------------

    @classmethod
    def message_to_item(cls, message: bytes) -> Item:
        """Interpret a message. Never raises, whatever was sent.

        Args:
            message: JSON text in UTF-8.

        Returns:
            A request, a response or a batch. What is malformed is a request whose ``method`` is
            an `RPCError`, or a response whose ``result`` is one.
        """
        try:
            payload = decode(message, cls.max_size, cls.max_depth)
        except TextError as error:
            return RPCRequest(RPCError(cls.PARSE_ERROR, str(error)), None, None)
        return cls.payload_to_item(payload)

    @classmethod
    def payload_to_item(cls, payload: Any) -> Item:
        """Interpret a decoded message. Never raises."""
        if isinstance(payload, dict):
            return cls._single(payload)
        if isinstance(payload, list) and cls.allow_batches:
            return cls._batch(payload)
        wanted = "an object or a batch of objects" if cls.allow_batches else "an object"
        error = cls.invalid_request(f"a message is {wanted}, not {shown(payload)}")
        return RPCRequest(error, None, None)

    @classmethod
    def _single(cls, payload: dict[str, Any]) -> RPCRequest | RPCResponse:
        if "method" in payload:
            return cls.payload_to_request(payload)
        return cls.payload_to_response(payload)

    @classmethod
    def _batch(cls, payload: list[Any]) -> RPCRequest | RPCBatch:
        if not payload:
            return RPCRequest(cls.invalid_request("a batch must not be empty"), None, None)
        if _is_response_batch(payload):
            return RPCBatch([cls.payload_to_response(part) for part in payload])
        return RPCBatch([cls.payload_to_request(part) for part in payload])

    @classmethod
    def payload_to_request(cls, payload: Any) -> RPCRequest:
        """Interpret a decoded message, or a part of a batch, as a request. Never raises."""
        request_id = None
        try:
            request_id = cls._message_id(payload, required=False)
            cls._check_version(payload)
            if "method" not in payload:
                raise cls.invalid_request("a request must have a method")
            method = payload["method"]
            if type(method) is not str:
                raise cls.method_not_found(f"a method must be a string, not {shown(method)}")
            args = cls._arguments(payload)
            null_id = request_id is None and cls._has_null_id(payload)
            return RPCRequest(method, args, request_id, null_id=null_id)
        except RPCError as error:
            return RPCRequest(error, None, request_id)

    @classmethod
    def payload_to_response(cls, payload: Any) -> RPCResponse:
        """Interpret a decoded message, or a part of a batch, as a response. Never raises."""
        request_id = None
        try:
            request_id = cls._message_id(payload, required=True)
            cls._check_version(payload)
            return RPCResponse(cls._result(payload), request_id)
        except RPCError as error:
            return RPCResponse(error, request_id, malformed=True)

    # -- what differs --------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def _message_id(cls, payload: Any, *, required: bool) -> Any:
        """The id of a request or response.

        Raises:
            RPCError: it is malformed, or not there where it has to be.
        """

    @classmethod
    def _check_version(cls, payload: dict[str, Any]) -> None:
        """Check the version that the message names. Raises as `_message_id` does."""

    @classmethod
    def _has_null_id(cls, payload: dict[str, Any]) -> bool:
        """Whether a null id is that of a request, and not the sign of a notification."""
        return False

    @classmethod
    @abstractmethod
    def _arguments(cls, payload: dict[str, Any]) -> list[Any] | dict[str, Any]:
        """A request's arguments. Raises as `_message_id` does."""

    @classmethod
    @abstractmethod
    def _result(cls, payload: dict[str, Any]) -> Any:
        """A response's result, or the error in it. Raises as `_message_id` does."""

    @classmethod
    @abstractmethod
    def request_payload(cls, request: RPCRequest) -> dict[str, Any]:
        """A request as JSON values.

        Raises:
            TypeError: this version has no such arguments.
        """

    @classmethod
    @abstractmethod
    def result_payload(cls, result: Any, request_id: Any) -> dict[str, Any]:
        """A response with a result, as JSON values."""

    @classmethod
    @abstractmethod
    def error_payload(cls, error: RPCError) -> dict[str, Any]:
        """An error response as JSON values."""

    # -- from an item to a message ---------------------------------------------------------

    @classmethod
    def request_message(cls, item: RPCRequest) -> bytes:
        """The message of a request or notification.

        Raises:
            TypeError: this version has no such arguments.
        """
        return cls.encode_payload(cls.request_payload(item))

    @classmethod
    def response_payload(cls, item: RPCResponse) -> dict[str, Any]:
        """A response as JSON values."""
        if isinstance(item.result, RPCError):
            return cls.error_payload(item.result)
        return cls.result_payload(item.result, item.request_id)

    @classmethod
    def response_message(cls, item: RPCResponse) -> bytes:
        """The message of a response."""
        return cls.encode_payload(cls.response_payload(item))

    @classmethod
    def error_message(cls, item: RPCError) -> bytes:
        """The message of an error response."""
        return cls.encode_payload(cls.error_payload(item))

    @classmethod
    def batch_message(cls, item: RPCBatch) -> bytes:
        """The message of a batch.

        Raises:
            RuntimeError: this version has no batches.
            TypeError: it has no such arguments.
        """
        if not cls.allow_batches:
            raise RuntimeError(f"{cls.__name__} has no batches")
        if item.is_request_batch():
            return cls.batch_message_from_parts(map(cls.request_message, item))
        return cls.batch_message_from_parts(map(cls.response_message, item))

    @classmethod
    def batch_message_from_parts(cls, messages: Iterable[bytes]) -> bytes:
        """Make a batch of messages, of which there is at least one.

        Raises:
            ValueError: there is none.
        """
        middle = b", ".join(messages)
        if not middle:
            raise ValueError("a batch must not be empty")
        return b"[" + middle + b"]"

    @classmethod
    def encode_payload(cls, payload: Any) -> bytes:
        """Write JSON values, and those of the table in `json_values`, as a message.

        What cannot be written becomes the message of an internal error, with the payload's id.
        """
        try:
            return encode(payload, cls.max_depth)
        except Exception as error:
            request_id = payload.get("id") if isinstance(payload, dict) else None
            failure = cls.internal_error(request_id)
            failure.data = {"reason": shown(str(error))}
        try:
            return encode(cls.error_payload(failure))
        except Exception:
            # The id itself.
            return encode(cls.error_payload(cls.internal_error(None)))

    # -- errors ----------------------------------------------------------------------------

    @classmethod
    def internal_error(cls, request_id: Any) -> RPCError:
        """The error for a request that failed inside the server."""
        return RPCError(cls.INTERNAL_ERROR, "internal error processing request", request_id)

    @classmethod
    def args_error(cls, message: str) -> RPCError:
        """The error for arguments that do not fit the method."""
        return RPCError(cls.INVALID_ARGS, message)

    @classmethod
    def invalid_request(cls, message: str, request_id: Any = None) -> RPCError:
        """The error for something that is not a request."""
        return RPCError(cls.INVALID_REQUEST, message, request_id)

    @classmethod
    def method_not_found(cls, message: str) -> RPCError:
        """The error for a method that does not exist."""
        return RPCError(cls.METHOD_NOT_FOUND, message)


def _is_response_batch(payload: list[Any]) -> bool:
    parts = [part for part in payload if isinstance(part, dict)]
    if any("method" in part for part in parts):
        return False
    return any("result" in part or "error" in part for part in parts)
