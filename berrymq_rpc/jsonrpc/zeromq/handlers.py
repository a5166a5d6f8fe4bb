"""Find and run the handlers of an object: its ``handle_NAME_method`` and others."""

import inspect
from collections.abc import Callable
from typing import Any

from ...common.awaitable import discard, is_awaitable
from ...common.start_context import StartContext
from ...errors import ParametersError
from ...rpc.method import Kind, is_generator_function, kind_of
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


#: Why a function cannot be a handler.
_REFUSED = (
    "has to be awaited or iterated over, which these servers and clients do not do: write a plain "
    "function, or serve `async def` methods with rpc.start_server(dialects='jsonrpc')"
)


def _check_runs(name: str, function: Any) -> None:
    if kind_of(function) is not Kind.SYNC or is_generator_function(function):
        raise TypeError(f"{name} {_REFUSED}")


class Handlers:
    """The handlers of an object, each looked up once.

    Each call runs in a copy of the context in which this object was made.

    Args:
        owner: the object.
        patterns: of their names, such as ``"handle_{}_method"``; the first match counts.

    Raises:
        TypeError: a handler is ``async def`` or a generator function: nothing here awaits.
    """

    def __init__(self, owner: object, *patterns: str) -> None:
        for pattern in patterns:
            before, after = pattern.split("{}")
            for name in dir(type(owner)):
                if name.startswith(before) and name.endswith(after):
                    value = inspect.getattr_static(owner, name)
                    if callable(value) or isinstance(value, classmethod):
                        _check_runs(name, value)
        self._owner = owner
        self._patterns = patterns
        self._start_context = StartContext()
        self._found: dict[str, tuple[Callable[..., Any], Signature]] = {}

    def call(self, request: IncomingRequest) -> Any:
        """Run the handler of a request.

        Raises:
            RPCError: there is none.
            ParametersError: the arguments do not fit it.
            TypeError: what it returns has to be awaited.
            BaseException: what it raises.
        """
        name = request.method.lower().replace("-", "_")
        function, signature = self._found.get(name) or self._find(name, request.method)
        args, kwargs = request.args, request.kwargs
        if kwargs or not signature.minimum <= len(args) <= signature.maximum:
            signature.check(args, kwargs)
        result = self._start_context.new().run(function, *args, **kwargs)
        if result is not None and is_awaitable(result):
            discard(result)
            raise TypeError(f"the handler of {safe_repr(request.method, 200)} {_REFUSED}")
        return result

    def _find(self, name: str, method: str) -> tuple[Callable[..., Any], Signature]:
        for pattern in self._patterns:
            function = getattr(self._owner, pattern.format(name), None)
            if callable(function):
                _check_runs(pattern.format(name), function)
                entry = self._found[name] = (function, Signature(function, method))
                return entry
        raise JSONRPC.method_not_found(f"no method {safe_repr(method, 200)}")
