"""Find and run the handlers of an object: its ``handle_NAME_method`` and others."""

from collections.abc import Callable
from typing import Any

from ...common.start_context import StartContext
from ...errors import ParametersError
from ...rpc.signature import Signature
from ...rpc.wire.exception_codec import describe
from ...rpc.wire.safe_repr import bounded, safe_repr, safe_str
from ..error_objects import to_error
from ..items import RPCError
from ..message import IncomingRequest
from ..protocols.base import JSONRPC
from ..protocols.json_codec import encode

__all__ = ["Handlers", "error_of"]

_MAX_MESSAGE = 500


class _JSONPacker:
    """Decides which arguments of an exception can be sent."""

    @staticmethod
    def pack(value: Any, name: str = "", /) -> bytes:
        return encode(value)


_PACKER = _JSONPacker()


def error_of(error: BaseException) -> RPCError:
    """The error object that answers a request whose handler raised `error`."""
    if isinstance(error, RPCError):
        return RPCError(error.code, error.message, data=error.data)
    if isinstance(error, ParametersError):
        return RPCError(JSONRPC.INVALID_ARGS, bounded(str(error), _MAX_MESSAGE))
    answer = to_error(describe(error, _PACKER))
    answer.message = safe_str(error, _MAX_MESSAGE) or answer.message
    return answer


class Handlers:
    """The handlers of an object, each looked up once.

    Each call runs in a copy of the context in which this object was made.

    Args:
        owner: the object.
        patterns: of their names, such as ``"handle_{}_method"``; the first match counts.
    """

    def __init__(self, owner: object, *patterns: str) -> None:
        self._owner = owner
        self._patterns = patterns
        self._start_context = StartContext()
        self._found: dict[str, tuple[Callable[..., Any], Signature]] = {}

    def call(self, request: IncomingRequest) -> Any:
        """Run the handler of a request.

        Raises:
            RPCError: there is none.
            ParametersError: the arguments do not fit it.
            BaseException: what it raises.
        """
        name = request.method.lower().replace("-", "_")
        function, signature = self._found.get(name) or self._find(name, request.method)
        args, kwargs = request.args, request.kwargs
        if kwargs or not signature.minimum <= len(args) <= signature.maximum:
            signature.check(args, kwargs)
        return self._start_context.new().run(function, *args, **kwargs)

    def _find(self, name: str, method: str) -> tuple[Callable[..., Any], Signature]:
        for pattern in self._patterns:
            function = getattr(self._owner, pattern.format(name), None)
            if callable(function):
                entry = self._found[name] = (function, Signature(function, method))
                return entry
        raise JSONRPC.method_not_found(f"no method {safe_repr(method, 200)}")
