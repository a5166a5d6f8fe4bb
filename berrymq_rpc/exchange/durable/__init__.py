"""Durable queues of a cluster, which JetStream keeps."""

__all__: list[str] = []
