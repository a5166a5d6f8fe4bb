"""One process: messages, who follows them, and the queues that keep them.

Nothing here knows of other processes; ``exchange`` ties a bus to them by `Bus.add_forwarder` and
`Bus.relay`.
"""

from .bus import Bus
from .default import (
    default_bus,
    following,
    following_function,
    regist_function,
    regist_method,
    twitter,
    unfollow,
)
from .follower import Follower, FollowerBase
from .message import Message
from .queue import Empty, Queue

__all__ = [
    "Bus",
    "Empty",
    "Follower",
    "FollowerBase",
    "Message",
    "Queue",
    "default_bus",
    "following",
    "following_function",
    "regist_function",
    "regist_method",
    "twitter",
    "unfollow",
]
