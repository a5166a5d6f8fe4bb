"""Threads, event loops on threads, and what the child of a fork does.

Nothing here knows of messages: the bus, the RPC and the nodes build on this.
"""

__all__: list[str] = []
