"""JSON-RPC over ZeroMQ for programs with threads, without asyncio.

==============================  ==========  =============================
server                          its socket  client
==============================  ==========  =============================
`RPCServer`                     REP         `RPCClient` (REQ)
`RPCNotificationServer`         ROUTER      `RPCNotifierClient` (DEALER)
`NotificationOnlyPullServer`    PULL        `NotifierOnlyPushClient`
`SubscriptionServer`            ROUTER      `NotificationReceiverClient`
==============================  ==========  =============================

The classes and the wire are those of jsonrpc2-zeromq 2.0: either side may be of that package.
"""

from builtins import TimeoutError

from .client import NotifierOnlyPushClient, RPCClient, RPCNotifierClient
from .errors import (
    ApplicationError,
    InternalError,
    InvalidParams,
    InvalidRequest,
    MethodNotFound,
    ParseError,
    RPCError,
    ServerError,
)
from .receiver import NotificationReceiverClient
from .server import NotificationOnlyPullServer, RPCNotificationServer, RPCServer
from .socket_owner import logger
from .subscription import Subscriber, SubscriptionServer

__all__ = [
    "ApplicationError",
    "InternalError",
    "InvalidParams",
    "InvalidRequest",
    "MethodNotFound",
    "NotificationOnlyPullServer",
    "NotificationReceiverClient",
    "NotifierOnlyPushClient",
    "ParseError",
    "RPCClient",
    "RPCError",
    "RPCNotificationServer",
    "RPCNotifierClient",
    "RPCServer",
    "ServerError",
    "Subscriber",
    "SubscriptionServer",
    "TimeoutError",
    "logger",
]
