"""Connections between processes, in a module with the name that berryMQ gave it.

The functions are for programs without asyncio: they block. They are the methods of one `SyncNode`
on the default bus, and names of `berrymq_rpc` as well. `Node` is for programs with asyncio.
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
