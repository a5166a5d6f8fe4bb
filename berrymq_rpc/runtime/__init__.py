"""Threads, event loops on threads, and what the child of a fork does.

Here is no messaging: the bus, the RPC and the nodes build on this.
"""

__all__: list[str] = []
