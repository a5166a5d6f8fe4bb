"""Messages and calls with one vocabulary, in one process and between many.

``import berrymq_rpc as berrymq`` gives the bus; calls are in ``from berrymq_rpc import rpc``.
"""

from typing import TYPE_CHECKING, Any

from .bus import (
    Bus,
    Empty,
    Follower,
    FollowerBase,
    Message,
    Queue,
    default_bus,
    following,
    following_function,
    regist_function,
    regist_method,
    twitter,
    unfollow,
)
from .errors import (
    AuthenticationError,
    ConnectionLostError,
    Error,
    GenericError,
    NotFoundError,
    OverloadedError,
    ParametersError,
    ProtocolError,
    RPCTimeoutError,
    ServiceClosedError,
    TooLargeError,
)
from .identifier import Identifier

if TYPE_CHECKING:
    from .exchange import Node

__all__ = [
    "AuthenticationError",
    "Bus",
    "ConnectionLostError",
    "Empty",
    "Error",
    "Follower",
    "FollowerBase",
    "GenericError",
    "Identifier",
    "Message",
    "Node",
    "NotFoundError",
    "OverloadedError",
    "ParametersError",
    "ProtocolError",
    "Queue",
    "RPCTimeoutError",
    "ServiceClosedError",
    "TooLargeError",
    "default_bus",
    "following",
    "following_function",
    "regist_function",
    "regist_method",
    "twitter",
    "unfollow",
]


# Hidden from type checkers: they take any name for one of the package's otherwise.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name == "Node":
            # A program that only uses the bus need not load asyncio, msgpack and ZeroMQ.
            from .exchange import Node

            globals()[name] = Node
            return Node
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
