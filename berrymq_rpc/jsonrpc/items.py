"""The items of JSON-RPC messages: requests, responses, errors and batches."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from ..errors import Error

__all__ = ["Item", "RPCBatch", "RPCError", "RPCRequest", "RPCResponse"]

_ARGUMENTS = (list, tuple, dict)


class RPCError(Error):
    """An error object, on its way to a peer or from one.

    Args:
        code: a whole number; those from -32768 to -32000 have a meaning already.
        message: one sentence.
        request_id: the id of the request that it answers, or ``None``. A request or response that
            it is put into gives it its own.
        data: the object's ``data``; ``None`` for an object without.
    """

    def __init__(self, code: int, message: str, request_id: Any = None, data: Any = None) -> None:
        # What its class is called with when it is copied, or made again at a peer.
        super().__init__(code, message, *(() if data is None else (None, data)))
        self.code = code
        self.message = message
        self.request_id = request_id
        self.data = data

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"

    def __repr__(self) -> str:
        known = [repr(self.code), repr(self.message)]
        if self.request_id is not None:
            known.append(repr(self.request_id))
        if self.data is not None:
            known.append(f"data={self.data!r}")
        return f"RPCError({', '.join(known)})"


class RPCRequest:
    """A request, or a notification.

    Args:
        method: its name; of a malformed request, the `RPCError` that says what is wrong.
        args: a list or tuple, or a dict of named ones; ``None`` is an empty list.
        request_id: pairs the response with it; ``None`` for a notification.
        null_id: whether the request has an id, which is null, and so is not a notification.

    Raises:
        ValueError: the arguments have another type.
    """

    __slots__ = ("args", "method", "null_id", "request_id")

    def __init__(
        self,
        method: str | RPCError,
        args: list[Any] | tuple[Any, ...] | dict[str, Any] | None,
        request_id: Any,
        *,
        null_id: bool = False,
    ) -> None:
        if args is None:
            args = []
        elif not isinstance(args, _ARGUMENTS):
            raise ValueError(f"the arguments must be a list or a dict, not {type(args).__name__}")
        self.method = method
        self.args = args
        self.request_id = request_id
        self.null_id = null_id
        if type(method) is not str and isinstance(method, RPCError):
            method.request_id = request_id

    @property
    def malformed(self) -> bool:
        """Whether `method` is an error that says what is wrong with the message."""
        return isinstance(self.method, RPCError)

    def is_notification(self) -> bool:
        """Whether it is never answered. A malformed request is answered, with or without an id."""
        return self.request_id is None and not self.null_id and not self.malformed

    def __repr__(self) -> str:
        null_id = ", null_id=True" if self.null_id else ""
        return f"RPCRequest({self.method!r}, {self.args!r}, {self.request_id!r}{null_id})"


class RPCResponse:
    """A response.

    Args:
        result: what the method gave, or an `RPCError`.
        request_id: that of the request.
        malformed: whether the result is not the peer's error, but says what is wrong with its
            message.
    """

    __slots__ = ("malformed", "request_id", "result")

    def __init__(self, result: Any, request_id: Any, *, malformed: bool = False) -> None:
        self.result = result
        self.request_id = request_id
        self.malformed = malformed
        if isinstance(result, RPCError):
            result.request_id = request_id

    def __repr__(self) -> str:
        return f"RPCResponse({self.result!r}, {self.request_id!r})"


class RPCBatch:
    """Requests, or responses, that travel together.

    Args:
        items: at least one; all `RPCRequest` or all `RPCResponse`.

    Raises:
        ValueError: there is none, or they are of both kinds.
    """

    __slots__ = ("items",)

    def __init__(self, items: Sequence[RPCRequest] | Sequence[RPCResponse]) -> None:
        self.items: list[Any] = list(items)
        if not self.items:
            raise ValueError("a batch must not be empty")
        kind = RPCRequest if isinstance(self.items[0], RPCRequest) else RPCResponse
        if not all(isinstance(item, kind) for item in self.items):
            raise ValueError("a batch must consist of requests only or of responses only")

    def requests(self) -> Iterator[Any]:
        """The requests that are not notifications, or the responses that have an id."""
        for item in self.items:
            if item.request_id is not None or (
                isinstance(item, RPCRequest) and not item.is_notification()
            ):
                yield item

    def request_ids(self) -> frozenset[Any]:
        """The ids in it."""
        return frozenset(item.request_id for item in self.items if item.request_id is not None)

    def is_request_batch(self) -> bool:
        """Whether it consists of requests."""
        return isinstance(self.items[0], RPCRequest)

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)

    def __repr__(self) -> str:
        return f"RPCBatch({self.items!r})"


Item: TypeAlias = RPCRequest | RPCResponse | RPCBatch
