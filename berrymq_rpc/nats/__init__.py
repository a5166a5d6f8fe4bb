"""NATS: addresses, settings, subjects and the one connection that calls and messages share.

`link` is the only module that imports ``nats`` (nats-py), which the extra ``nats`` brings.
"""

__all__: list[str] = []
