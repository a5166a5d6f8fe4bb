"""A node in a cluster: the bus over NATS."""

__all__: list[str] = []
