"""A node in a cluster: the bus over NATS."""
