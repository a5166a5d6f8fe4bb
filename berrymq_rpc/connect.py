"""berryMQ's module of connections between processes, under its own name.

The functions block, and are for programs without asyncio; they are those of one `SyncNode` on the
default bus, and names of `berrymq_rpc` as well. `Node` is for programs with asyncio.
"""

from .exchange import (
    Connection,
    ExportedFunctions,
    Interconnection,
    Node,
    OnewayConnection,
    QueueConnection,
    SyncNode,
)
from .exchange.default_node import (
    close_connection,
    connect_oneway,
    connect_via_queue,
    default_node,
    get,
    get_nowait,
    init_connection,
    interconnect,
    send_message,
)

__all__ = [
    "Connection",
    "ExportedFunctions",
    "Interconnection",
    "Node",
    "OnewayConnection",
    "QueueConnection",
    "SyncNode",
    "close_connection",
    "connect_oneway",
    "connect_via_queue",
    "default_node",
    "get",
    "get_nowait",
    "init_connection",
    "interconnect",
    "send_message",
]
