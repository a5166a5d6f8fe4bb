"""Small pure helpers that every layer may use: counting, pausing, bounding.

What needs a thread or an event loop lives in `berrymq_rpc.runtime`.
"""

__all__: list[str] = []
