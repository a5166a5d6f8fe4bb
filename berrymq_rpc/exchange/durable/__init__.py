"""Durable queues of a cluster, which JetStream keeps."""
