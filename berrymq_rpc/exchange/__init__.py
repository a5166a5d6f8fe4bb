"""Messages between processes: the bus and the RPC combined, in berryMQ's three styles.

====  ==================================================================================
01    interconnect: both sides carry all messages to each other, and to all behind them
02    connect_oneway: the caller only sends
03    connect_via_queue: the caller sends, and pulls from a queue that the peer keeps
====  ==================================================================================

Here live the node, the functions that it serves, its connections to other nodes, and the mesh of
links between interconnected nodes. Delivery within a process belongs to ``bus``; how calls travel,
to ``rpc``.
"""

from .connection import Connection, OnewayConnection
from .durable.history import DurableHistory, KeptMessage
from .durable.info import DurableQueueInfo
from .functions import ExportedFunctions
from .interconnection import Interconnection
from .node import Node
from .queue_connection import PulledMessage, QueueConnection
from .sync_node import SyncNode
from .taken_message import TakenMessage

__all__ = [
    "Connection",
    "DurableHistory",
    "DurableQueueInfo",
    "ExportedFunctions",
    "Interconnection",
    "KeptMessage",
    "Node",
    "OnewayConnection",
    "PulledMessage",
    "QueueConnection",
    "SyncNode",
    "TakenMessage",
]
