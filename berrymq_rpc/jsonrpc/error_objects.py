"""Turn exceptions into error objects, and back.

======  ==============================  ==========================================================
code    exception                       data
======  ==============================  ==========================================================
-32601  `NotFoundError`                 what is wrong, as text
-32602  `ParametersError`               what is wrong, as text
-32001  `PermissionDeniedError`         what is wrong, as text
-32603  what writing the result raised  the same as for -32000
its own `RPCError`                      its own
-32000  any other                       ``{"type", "args", "repr"}``: the class's full name, its
                                        arguments, its ``repr``; and ``"traceback"`` where the
                                        server sends it
======  ==============================  ==========================================================

The standard codes come with the specification's own words (section 5.1) as ``message``, -32001 with
words of this package.
"""

from collections.abc import Mapping
from typing import Any

from ..errors import (
    GenericError,
    NotFoundError,
    ParametersError,
    PermissionDeniedError,
    ServiceClosedError,
)
from ..rpc.wire.exception_codec import Failure, restore
from ..rpc.wire.safe_repr import bounded, full_name, safe_repr
from .items import RPCError
from .protocols.base import JSONRPC
from .protocols.json_codec import MAX_DEPTH, encode

__all__ = ["PERMISSION_DENIED", "SERVER_ERROR", "standard", "to_error", "to_exception", "writable"]

#: The first of the codes that the specification leaves to servers.
SERVER_ERROR = -32000
PERMISSION_DENIED = -32001

#: Bytes of an error's message.
_MAX_MESSAGE = 500

#: Levels of an exception's argument: around it are a list, ``data``, the error, the response and,
#: for some, a batch.
_ARGUMENT_DEPTH = MAX_DEPTH - 5

#: The words of the specification, section 5.1, and one of this package.
_WORDS = {
    JSONRPC.PARSE_ERROR: "Parse error",
    JSONRPC.INVALID_REQUEST: "Invalid Request",
    JSONRPC.METHOD_NOT_FOUND: "Method not found",
    JSONRPC.INVALID_ARGS: "Invalid params",
    JSONRPC.INTERNAL_ERROR: "Internal error",
    PERMISSION_DENIED: "Permission denied",
}

_STANDARD = {
    full_name(NotFoundError): JSONRPC.METHOD_NOT_FOUND,
    full_name(ParametersError): JSONRPC.INVALID_ARGS,
    full_name(PermissionDeniedError): PERMISSION_DENIED,
}

#: The codes whose data may say which exception it was.
_DESCRIBED = frozenset((SERVER_ERROR, JSONRPC.INTERNAL_ERROR))

_RPC_ERROR = full_name(RPCError)
_GENERIC_ERROR = full_name(GenericError)

# JSON-RPC has no message by which a server says that it is closing.
_KNOWN: dict[str, type[Exception]] = {full_name(ServiceClosedError): ServiceClosedError}


def to_error(failure: Failure) -> RPCError:
    """Return the error object for an exception that `exception_codec.describe` described."""
    type_name, args, text, traceback = failure
    if type_name == _GENERIC_ERROR and len(args) == 3 and isinstance(args[1], tuple):
        # Another server raised it: as that server described it.
        type_name, args, text = args
    if type_name in _STANDARD:
        reason = args[0] if args and isinstance(args[0], str) else text
        return standard(RPCError(_STANDARD[type_name], bounded(reason, _MAX_MESSAGE)))
    if type_name == _RPC_ERROR and len(args) >= 2 and type(args[0]) is int:
        data = writable(args[3]) if len(args) > 3 else None
        return RPCError(args[0], bounded(str(args[1]), _MAX_MESSAGE), data=data)
    data = {"type": type_name, "args": [writable(arg) for arg in args], "repr": text}
    if traceback is not None:
        data["traceback"] = traceback
    return RPCError(SERVER_ERROR, bounded(text, _MAX_MESSAGE), data=data)


def standard(error: RPCError) -> RPCError:
    """Return the error with the specification's message; its own message becomes its data."""
    words = _WORDS.get(error.code)
    if words is None or error.message == words:
        return error
    data = error.message if error.data is None else error.data
    return RPCError(error.code, words, error.request_id, data)


def writable(value: Any) -> Any:
    """Return a value if it can be written in JSON, else its ``repr``."""
    try:
        encode(value, _ARGUMENT_DEPTH)
    except Exception:
        return safe_repr(value)
    return value


def to_exception(
    error: RPCError, error_table: Mapping[str, type[Exception]] | None = None
) -> Exception:
    """Return the exception to raise for a peer's error object. Never raises.

    Args:
        error: what arrived.
        error_table: classes by the full names that a peer's ``data`` may name.
    """
    data = error.data
    said = data if isinstance(data, str) else error.message
    if error.code == JSONRPC.METHOD_NOT_FOUND:
        return NotFoundError(said)
    if error.code == JSONRPC.INVALID_ARGS:
        return ParametersError(said)
    if error.code == PERMISSION_DENIED:
        return PermissionDeniedError(said)
    if error.code in _DESCRIBED and isinstance(data, dict) and isinstance(data.get("type"), str):
        args, text = data.get("args"), data.get("repr")
        failure = Failure(
            data["type"],
            tuple(args) if isinstance(args, list) else (),
            text if isinstance(text, str) else error.message,
            data.get("traceback"),
        )
        return restore(failure, _KNOWN | dict(error_table or {}))
    return error
