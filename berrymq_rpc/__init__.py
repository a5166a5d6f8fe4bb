"""Messages and calls with one vocabulary, in one process and between many.

``import berrymq_rpc as berrymq`` gives the bus; calls are in ``from berrymq_rpc import rpc``.
"""

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
