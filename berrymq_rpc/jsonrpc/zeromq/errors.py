"""The errors of a call.

::

    RPCError
     ├── ParseError        -32700
     ├── InvalidRequest    -32600
     ├── MethodNotFound    -32601
     ├── InvalidParams     -32602
     ├── InternalError     -32603
     ├── ServerError       -32099 to -32000
     └── ApplicationError  any other code

A handler raises one to answer with it; a client raises the one whose code arrived. A class of one's
own that sets ``error_code`` is raised for that code from then on.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from ..items import RPCError as ErrorObject

__all__ = [
    "ApplicationError",
    "InternalError",
    "InvalidParams",
    "InvalidRequest",
    "MethodNotFound",
    "ParseError",
    "RPCError",
    "ServerError",
    "class_for_code",
    "exception_for",
]

_SERVER_ERRORS = range(-32099, -31999)


class RPCError(ErrorObject):
    """An error of a call, made where it happened or raised for one that arrived.

    Args:
        message: one sentence; the default says the class's name.
        data: further information, as JSON values.

    Attributes:
        error_code: the code of the class, or of the error that arrived.
    """

    error_code: int | None = None
    #: The classes that are raised for codes.
    class_for_error_code: ClassVar[dict[int, type["RPCError"]]] = {}

    def __init__(self, message: str | None = None, data: Any = None) -> None:
        code = _SERVER_ERRORS[-1] if self.error_code is None else self.error_code
        super().__init__(code, _words(type(self).__name__) if message is None else message)
        self.data = data
        # What its class is called with when it is copied or pickled.
        self.args = (self.message,) if data is None else (self.message, data)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        code = cls.__dict__.get("error_code")
        if code:
            RPCError.class_for_error_code.setdefault(code, cls)

    @property
    def error_msg(self) -> str:
        """The message."""
        return self.message

    @property
    def error_data(self) -> Any:
        """The data, or ``None``."""
        return self.data

    def __str__(self) -> str:
        text = f"Error {self.code}: {self.message}"
        return text if self.data is None else f"{text}\nError data: {self.data!r}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.args))})"


class ParseError(RPCError):
    """A message is not a JSON text."""

    error_code = -32700


class InvalidRequest(RPCError):
    """A message is not a request, or not one that the server accepts."""

    error_code = -32600


class MethodNotFound(RPCError):
    """The server has no such method."""

    error_code = -32601


class InvalidParams(RPCError):
    """The arguments do not fit the method; it was not called."""

    error_code = -32602


class InternalError(RPCError):
    """The server failed."""

    error_code = -32603


class ServerError(RPCError):
    """A handler raised an exception; ``error_data`` names its class."""


class ApplicationError(RPCError):
    """An error that the application defines, by its code."""


def _words(name: str) -> str:
    return "".join(f" {c}" if c.isupper() and i else c for i, c in enumerate(name)).strip()


def class_for_code(
    code: Any, extra: Mapping[int, type[Exception]] | None = None
) -> type[Exception]:
    """The class to raise for a code.

    Args:
        code: what arrived.
        extra: classes by code; they come before all others.
    """
    if type(code) is not int:
        return ApplicationError
    cls = (extra or {}).get(code) or RPCError.class_for_error_code.get(code)
    if cls is not None:
        return cls
    return ServerError if code in _SERVER_ERRORS else ApplicationError


def exception_for(
    error: ErrorObject, extra: Mapping[int, type[Exception]] | None = None
) -> Exception:
    """The exception to raise for an error object that arrived.

    Args:
        error: the object.
        extra: classes by code, called with the message and the data.
    """
    raised = class_for_code(error.code, extra)(error.message, error.data)
    if isinstance(raised, RPCError):
        raised.code = raised.error_code = error.code
    return raised
