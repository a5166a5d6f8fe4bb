"""berryMQ's module of connections between processes, under its own name."""

from .exchange import (
    Connection,
    ExportedFunctions,
    Interconnection,
    Node,
    OnewayConnection,
    QueueConnection,
)

__all__ = [
    "Connection",
    "ExportedFunctions",
    "Interconnection",
    "Node",
    "OnewayConnection",
    "QueueConnection",
]
