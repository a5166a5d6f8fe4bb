"""The bus of one process: messages, the receivers that follow them, and queues that keep them.

Nothing here knows of other processes: the package ``exchange`` connects a bus with them, by
`bus.gateway`.
"""

from .adapters import FileObserver, Interval
from .bus import Bus
from .condition import Condition, cond
from .default import (
    auto_twitter,
    default_bus,
    following,
    following_function,
    forget,
    messages,
    publish,
    regist_function,
    regist_method,
    retain,
    retained,
    set_multiplicity,
    show_followers,
    show_network,
    talk,
    twitter,
    twitter_exception,
    unfollow,
)
from .follower import Follower, FollowerBase
from .message import Message
from .message_iterator import Messages
from .queues import AsyncQueue, Empty, Queue

__all__ = [
    "AsyncQueue",
    "Bus",
    "Condition",
    "Empty",
    "FileObserver",
    "Follower",
    "FollowerBase",
    "Interval",
    "Message",
    "Messages",
    "Queue",
    "auto_twitter",
    "cond",
    "default_bus",
    "following",
    "following_function",
    "forget",
    "messages",
    "publish",
    "regist_function",
    "regist_method",
    "retain",
    "retained",
    "set_multiplicity",
    "show_followers",
    "show_network",
    "talk",
    "twitter",
    "twitter_exception",
    "unfollow",
]
