"""JSON-RPC 1.0 and 2.0.

Here live the items and protocols, which turn messages into items and back without any I/O, the
threads of `zeromq`, and the listeners of `bridge`.
"""

from .items import RPCBatch, RPCError, RPCRequest, RPCResponse
from .protocols import JSONRPC, JSONRPCAutoDetect, JSONRPCLoose, JSONRPCv1, JSONRPCv2

__all__ = [
    "JSONRPC",
    "JSONRPCAutoDetect",
    "JSONRPCLoose",
    "JSONRPCv1",
    "JSONRPCv2",
    "RPCBatch",
    "RPCError",
    "RPCRequest",
    "RPCResponse",
]
