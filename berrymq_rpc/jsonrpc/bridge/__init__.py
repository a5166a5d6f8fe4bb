"""JSON-RPC for peers that are not Python.

Here live the listeners (HTTP with WebSocket, TCP, ZeroMQ), subscriptions, and what describes a
server to such peers. Texts are read and written by `berrymq_rpc.jsonrpc`; calls are served as those
of any other peer, by `berrymq_rpc.rpc`.
"""

from .bridge import Bridge

__all__ = ["Bridge"]
