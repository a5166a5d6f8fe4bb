"""The exceptions of this package.

::

    Exception
     └── Error                          base of all below
          ├── GenericError              a remote exception whose class is not known here
          ├── NotFoundError             (LookupError) no such method at the peer
          ├── ParametersError           (ValueError) the arguments do not fit the method's signature
          ├── PermissionDeniedError     (PermissionError) the caller may not call this method
          ├── ServiceClosedError        this client or server was closed, or its peer is closing
          ├── ConnectionLostError       (ConnectionError) the peer is gone, or was never there
          │    └── AuthenticationError  the peer refused this side's key, or this side the peer's
          ├── RPCTimeoutError           (TimeoutError) the call took longer than this side allows
          ├── OverloadedError           a bound on calls, peers or queued bytes is reached
          ├── TooLargeError             (ValueError) a message is over the largest size allowed
          └── ProtocolError             bytes from the peer, or a use of a call, break the protocol

After any of them but `ServiceClosedError`, the client or server that raised it works on.
"""

from typing import Any

__all__ = [
    "AuthenticationError",
    "ConnectionLostError",
    "Error",
    "GenericError",
    "NotFoundError",
    "OverloadedError",
    "ParametersError",
    "PermissionDeniedError",
    "ProtocolError",
    "RPCTimeoutError",
    "ServiceClosedError",
    "TooLargeError",
]


class Error(Exception):
    """Base of every exception of this package.

    Each attribute is ``None`` where it is not known.

    Attributes:
        method: the full name of the method that was called.
        endpoint: the peer's address, or the addresses that were tried.
        sent: ``False`` if the method cannot have begun: the call was never sent, or was refused
            before it started. ``True`` if the method may have begun. ``None`` without a call.
        elapsed: seconds from the call to this error.
        progress: how far the call came, in words such as ``"was not sent"``; ``None`` for what
            the peer answered.
    """

    method: str | None = None
    endpoint: str | None = None
    sent: bool | None = None
    elapsed: float | None = None
    progress: str | None = None

    def __str__(self) -> str:
        text = super().__str__()
        if self.method is None or self.progress is None:
            return text
        where = f"{self.endpoint}: " if self.endpoint else ""
        return f"{where}{text}: {self.method!r} {self.progress}"

    def __repr__(self) -> str:
        if self.progress is None:
            return super().__repr__()
        return f"{type(self).__name__}({str(self)!r})"


class GenericError(Error):
    """A remote exception that cannot be raised here as its own class.

    Args:
        exc_type: the full name of the remote class, such as ``"package.module.Class"``.
        arguments: the remote exception's ``args``, as far as they could travel.
        exc_repr: its ``repr``, cut at 4 KB.
    """

    def __init__(self, exc_type: str, arguments: tuple[Any, ...] = (), exc_repr: str = "") -> None:
        super().__init__(exc_type, arguments, exc_repr)
        self.exc_type = exc_type
        self.arguments = arguments
        self.exc_repr = exc_repr

    def __str__(self) -> str:
        return f"{self.exc_type}: {self.exc_repr}" if self.exc_repr else self.exc_type

    def __repr__(self) -> str:
        return f"<GenericError {self.exc_type}: {self.exc_repr}>"


class NotFoundError(Error, LookupError):
    """The peer exports no method of that name. The caller's fault; the client works on."""


class ParametersError(Error, ValueError):
    """The arguments do not fit the method's signature; the method was not called."""


class PermissionDeniedError(Error, PermissionError):
    """The peer does not let this caller call the method; the method was not called."""


class ServiceClosedError(Error):
    """The client or server was closed, or its peer is closing and takes no more calls."""


class ConnectionLostError(Error, ConnectionError):
    """The connection to the peer was lost, or could not be made in time.

    Whether the call ran is not known unless `sent` is ``False``. The same client works again as
    soon as the peer is back.
    """


class AuthenticationError(ConnectionLostError):
    """One side refused the other. Nothing was sent.

    Attributes:
        reason: why. ``"key"``: the server has not authorized this client's key. ``"keys wanted"``:
            the server wants keys, and this client has none. ``"no keys"``: this client has keys,
            and the server none. ``"handshake"``: the server closed the handshake: its key is
            another one, or it cannot check keys at the moment. ``"certificate"``,
            ``"credentials"``, ``"permission"``: what the server did not accept. ``None`` where it
            is not known.
    """

    def __init__(self, *args: object, reason: str | None = None) -> None:
        super().__init__(*args)
        self.reason = reason


class RPCTimeoutError(Error, TimeoutError):
    """The call took longer than this side allows.

    A `TimeoutError` that a remote handler raised arrives as plain `TimeoutError` instead.
    """


class OverloadedError(Error):
    """A bound is reached: calls in flight, peers, or bytes queued. The call did not run."""


class TooLargeError(Error, ValueError):
    """A message is larger than this side or its peer allows. The connection works on."""


class ProtocolError(Error):
    """The peer's bytes break the protocol, or a call was used as what it is not."""
