"""JSON-RPC for peers that are not Python.

Here live the listeners (HTTP with WebSocket, TCP, ZeroMQ), each a port of one runtime; the tables
of what they serve; subscriptions; and the OpenRPC document. `berrymq_rpc.jsonrpc` reads and writes
the texts, and `berrymq_rpc.rpc` serves the calls.
"""

from .bridge import Bridge

__all__ = ["Bridge"]
