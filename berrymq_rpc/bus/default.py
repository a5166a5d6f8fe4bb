"""The default bus of the process, and its methods as functions."""

from ..common.tracing import when_installed
from .bus import Bus

__all__ = [
    "auto_twitter",
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

default_bus = Bus()
# It is there before a program can switch tracing on.
when_installed(default_bus._delivery.trace)

auto_twitter = default_bus.auto_twitter
following = default_bus.following
following_function = default_bus.following_function
forget = default_bus.forget
messages = default_bus.messages
publish = default_bus.publish
regist_function = default_bus.regist_function
regist_method = default_bus.regist_method
retain = default_bus.retain
retained = default_bus.retained
set_multiplicity = default_bus.set_multiplicity
show_followers = default_bus.show_followers
show_network = default_bus.show_network
talk = default_bus.talk
twitter = default_bus.twitter
twitter_exception = default_bus.twitter_exception
unfollow = default_bus.unfollow
