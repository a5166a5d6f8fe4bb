"""A peer of a bridge in plain values."""

from typing import Any

from ...rpc.connection import Connection
from .listener import ListenerPeer, StreamPeer

__all__ = ["peer_of"]


def peer_of(connection: Connection) -> dict[str, Any]:
    """A connection, with the keys of the connections of a `monitor.Monitor.snapshot`."""
    key, port = connection.key, connection.port
    credentials = None if port is None else port.credentials(key)
    style = "zeromq"
    if isinstance(key, ListenerPeer):
        style = key.scheme
        if style == "http" and isinstance(key, StreamPeer):
            style = "websocket"
    return {
        "direction": "in",
        "style": style,
        "peer": (None if port is None else port.address(key)) or "a client",
        "user": None if credentials is None else credentials.user or credentials.key,
        "identifier": None,
        "is_up": True,
        "waiting": connection.inbound.in_progress,
        "dropped": 0,
    }
