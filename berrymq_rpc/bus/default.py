"""The default bus of the process, and its methods as functions."""

from .bus import Bus

__all__ = [
    "default_bus",
    "following",
    "following_function",
    "regist_function",
    "regist_method",
    "twitter",
    "unfollow",
]

default_bus = Bus()

following = default_bus.following
following_function = default_bus.following_function
regist_function = default_bus.regist_function
regist_method = default_bus.regist_method
twitter = default_bus.twitter
unfollow = default_bus.unfollow
