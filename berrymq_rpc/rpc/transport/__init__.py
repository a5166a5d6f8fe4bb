"""Carries frames between call state and the outside: in memory, and by ZeroMQ.

Each is a module with `listen` and `dial`, which give a `Port` of `interface`.
"""

__all__: list[str] = []
