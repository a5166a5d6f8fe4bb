"""What is known about a durable queue of a cluster."""

from typing import NamedTuple

__all__ = ["DurableQueueInfo"]


class DurableQueueInfo(NamedTuple):
    """A durable queue of a cluster.

    Args:
        name: the queue's.
        identifier: which messages it keeps; ``""`` if something else has made it.
        waiting: messages that nobody has got.
        unacknowledged: messages that a consumer has got and not acknowledged.
        redelivered: those of them that were delivered before.
        consumers: how many processes ask for messages just now.
        tries, ack_wait: as for `Queue`; 0 tries if something else has made it.
        is_of_dead: whether it is a queue of dead letters.
    """

    name: str
    identifier: str
    waiting: int
    unacknowledged: int
    redelivered: int
    consumers: int
    tries: int
    ack_wait: float
    is_of_dead: bool
