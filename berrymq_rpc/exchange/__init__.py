"""A bus and the RPC tied together: messages between processes, in berryMQ's three styles.

====  ==================================================================================
01    interconnect: both sides carry all messages to each other, and to all behind them
02    connect_oneway: the caller sends only
03    connect_via_queue: the caller sends, and pulls from a queue that the peer keeps
====  ==================================================================================

Here live the node, the functions that it serves, and its connections to other nodes. Who hears
what within a process is the matter of ``bus``; how calls travel, of ``rpc``.
"""

from .connection import Connection, OnewayConnection
from .functions import ExportedFunctions
from .interconnection import Interconnection
from .node import Node
from .pulled_message import PulledMessage
from .queue_connection import QueueConnection
from .sync_node import SyncNode

__all__ = [
    "Connection",
    "ExportedFunctions",
    "Interconnection",
    "Node",
    "OnewayConnection",
    "PulledMessage",
    "QueueConnection",
    "SyncNode",
]
