"""Calls between processes and hosts.

Here live clients, servers and handlers. `wire` turns calls into frames and back without any I/O;
`transport` carries frames.
"""

from ..errors import (
    AuthenticationError,
    ConnectionLostError,
    Error,
    GenericError,
    NotFoundError,
    OverloadedError,
    ParametersError,
    PermissionDeniedError,
    ProtocolError,
    RPCTimeoutError,
    ServiceClosedError,
    TooLargeError,
)
from ..nats.options import Durable, Nats
from ..runtime.meter import Meter
from ..security import CurveClient, CurveServer, KeyPair
from .call import Call
from .client import Client, open_client
from .context import Context, context
from .handler import AbstractHandler, AttrHandler
from .method import method
from .peer import Peer
from .server import Server, start_server
from .sync import SyncClient
from .wire.limits import Limits
from .wire.translation import dataclass_translation, enum_translation

#: The name that aiozmq.rpc has for the class of its clients; `berrymq_rpc.jsonrpc.zeromq.RPCClient`
#: is another class.
RPCClient = Client

__all__ = [
    "AbstractHandler",
    "AttrHandler",
    "AuthenticationError",
    "Call",
    "Client",
    "ConnectionLostError",
    "Context",
    "CurveClient",
    "CurveServer",
    "Durable",
    "Error",
    "GenericError",
    "KeyPair",
    "Limits",
    "Meter",
    "Nats",
    "NotFoundError",
    "OverloadedError",
    "ParametersError",
    "Peer",
    "PermissionDeniedError",
    "ProtocolError",
    "RPCClient",
    "RPCTimeoutError",
    "Server",
    "ServiceClosedError",
    "SyncClient",
    "TooLargeError",
    "context",
    "dataclass_translation",
    "enum_translation",
    "method",
    "open_client",
    "start_server",
]
