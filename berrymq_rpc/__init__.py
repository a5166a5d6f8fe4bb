"""Messages and calls with one vocabulary, within a process and between processes.

``import berrymq_rpc as berrymq`` gives the bus; ``from berrymq_rpc import rpc`` gives the calls.
"""

from typing import TYPE_CHECKING, Any

from .bus import (
    AsyncQueue,
    Bus,
    Condition,
    Empty,
    FileObserver,
    Follower,
    FollowerBase,
    Interval,
    Message,
    Messages,
    Queue,
    auto_twitter,
    cond,
    default_bus,
    following,
    following_function,
    forget,
    messages,
    publish,
    regist_function,
    regist_method,
    retain,
    retained,
    set_multiplicity,
    show_followers,
    show_network,
    talk,
    twitter,
    twitter_exception,
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
    from .connect import (
        Node,
        SyncNode,
        close_connection,
        connect_oneway,
        connect_via_queue,
        get,
        get_nowait,
        init_connection,
        interconnect,
        send_message,
    )

    #: The version of the distribution that is installed.
    __version__: str

__all__ = [
    "AsyncQueue",
    "AuthenticationError",
    "Bus",
    "Condition",
    "ConnectionLostError",
    "Empty",
    "Error",
    "FileObserver",
    "Follower",
    "FollowerBase",
    "GenericError",
    "Identifier",
    "Interval",
    "Message",
    "Messages",
    "Node",
    "NotFoundError",
    "OverloadedError",
    "ParametersError",
    "ProtocolError",
    "Queue",
    "RPCTimeoutError",
    "ServiceClosedError",
    "SyncNode",
    "TooLargeError",
    "auto_twitter",
    "close_connection",
    "cond",
    "connect_oneway",
    "connect_via_queue",
    "default_bus",
    "following",
    "following_function",
    "forget",
    "get",
    "get_nowait",
    "init_connection",
    "interconnect",
    "messages",
    "publish",
    "regist_function",
    "regist_method",
    "retain",
    "retained",
    "send_message",
    "set_multiplicity",
    "show_followers",
    "show_network",
    "talk",
    "twitter",
    "twitter_exception",
    "unfollow",
]

#: Names of `connect`, which is imported when one of them is first used.
_OF_CONNECT = frozenset(
    {
        "Node",
        "SyncNode",
        "close_connection",
        "connect_oneway",
        "connect_via_queue",
        "get",
        "get_nowait",
        "init_connection",
        "interconnect",
        "send_message",
    }
)


# Hidden from type checkers, which would otherwise accept any name of the package.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name in _OF_CONNECT:
            # A program that uses only the bus need not import asyncio, msgpack and ZeroMQ.
            import berrymq_rpc.connect

            value = globals()[name] = getattr(berrymq_rpc.connect, name)
            return value
        if name == "__version__":
            # pyproject.toml has it, and the installation a copy.
            from importlib.metadata import PackageNotFoundError, version

            try:
                found = globals()[name] = version("berrymq-rpc")
            except PackageNotFoundError:
                raise AttributeError(f"{__name__} is not installed, so has no version") from None
            return found
        if name == "connect":
            # For ``berrymq.connect.interconnect(...)`` without an import of its own.
            import berrymq_rpc.connect

            return berrymq_rpc.connect
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
