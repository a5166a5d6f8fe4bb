"""The one node of a program without asyncio, and its methods as functions."""

from .sync_node import SyncNode

__all__ = [
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

default_node = SyncNode()

close_connection = default_node.close_connection
connect_oneway = default_node.connect_oneway
connect_via_queue = default_node.connect_via_queue
get = default_node.get
get_nowait = default_node.get_nowait
init_connection = default_node.init_connection
interconnect = default_node.interconnect
send_message = default_node.send_message
