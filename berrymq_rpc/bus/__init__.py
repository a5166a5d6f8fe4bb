"""One process: messages, who follows them, and the queues that keep them.

Nothing here knows of other processes; ``exchange`` ties a bus to them by `Bus.add_forwarder` and
`Bus.relay`.
"""

from berrymq_rpc.bus.bus import Bus
from berrymq_rpc.bus.default import (
    default_bus,
    following,
    following_function,
    regist_function,
    regist_method,
    twitter,
    unfollow,
)
from berrymq_rpc.bus.follower import Follower, FollowerBase
from berrymq_rpc.bus.message import Message
from berrymq_rpc.bus.queue import Empty, Queue

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
