"""Sans-I/O: JSON-RPC messages to items and back, in versions 1.0 and 2.0.

`text` reads and writes JSON, `values` says what becomes of values that JSON lacks.
"""

from .base import JSONRPC
from .detect import JSONRPCAutoDetect
from .loose import JSONRPCLoose
from .version1 import JSONRPCv1
from .version2 import JSONRPCv2

__all__ = ["JSONRPC", "JSONRPCAutoDetect", "JSONRPCLoose", "JSONRPCv1", "JSONRPCv2"]
