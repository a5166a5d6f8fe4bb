"""Conditions: an identifier with its guard, and several joined."""

from typing import Any

import pytest

import berrymq_rpc
from berrymq_rpc.bus import Bus, Condition, Follower, Message, cond


def test_in_place_of_an_identifier(bus: Bus) -> None:
    heard: list[str] = []

    def receive(message: Message) -> None:
        heard.append(message.id)

    class Listener(metaclass=Follower):
        @bus.following(cond("c:d"))
        def receive(self, message: Message) -> None:
            heard.append("method")

    listener = Listener()
    bus.following_function(cond("a:b"))(receive)
    bus.regist_function(bus.cond("a:c"), receive)
    bus.regist_method(cond("a:d"), listener.receive)
    for sent in ("a:b", "a:c", "a:d", "c:d"):
        assert bus.twitter(sent) == 1
    assert heard == ["a:b", "a:c", "method", "method"]
    assert bus.unfollow(cond("a:b"), receive) == 1
    assert bus.unfollow("a:c", receive) == 1
    assert bus.twitter("a:b") == 0


def test_guards(bus: Bus) -> None:
    heard: list[Any] = []

    def receive(message: Message) -> None:
        heard.append(message.args)

    bus.regist_function(
        cond("a:b", lambda message: message.args[0] > 1), receive, lambda m: m.args[0] < 4
    )
    bus.following_function(cond("a:c", guard_condition=lambda message: False))(receive)
    bus.following_function(cond("a:d"), guard=lambda message: False)(receive)
    assert [bus.twitter("a:b", number) for number in range(6)] == [0, 0, 1, 1, 0, 0]
    assert heard == [(2,), (3,)]
    assert bus.twitter("a:c") == bus.twitter("a:d") == 0


def test_same_again_changes_nothing(bus: Bus) -> None:
    for _ in range(2):
        bus.regist_function(cond("a:b"), print)
    assert len(bus.registrations()) == 1


def test_both(bus: Bus) -> None:
    heard: list[str] = []
    both = cond("a:b") & cond("c:d", lambda message: bool(message.args))

    def receive(message: Message) -> None:
        heard.append(message.id)

    bus.regist_function(both, receive)
    assert bus.twitter("a:b") == 0
    assert bus.twitter("a:b") == 0
    assert bus.twitter("c:d") == 0
    assert bus.twitter("c:d", 1) == 1
    # Waiting begins anew, in any order.
    assert bus.twitter("c:d", 1) == 0
    assert bus.twitter("a:b") == 1
    assert heard == ["c:d", "a:b"]
    assert bus.unfollow(both, receive) == 2
    assert bus.registrations() == []


def test_three_and_one_message_for_two(bus: Bus) -> None:
    heard: list[str] = []
    bus.regist_function(
        cond("a:b") & cond("*:b") & cond("c:d"), lambda message: heard.append(message.id)
    )
    assert bus.twitter("c:d") == 0
    assert bus.twitter("a:b") == 1
    assert heard == ["a:b"]


def test_each_receiver_waits_for_itself(bus: Bus) -> None:
    heard: list[str] = []

    class Listener(metaclass=Follower):
        def __init__(self, name: str) -> None:
            self.name = name

        @bus.following(cond("a:b") & cond("c:d"), guard=lambda message: not message.args)
        def receive(self, message: Message) -> None:
            heard.append(self.name)

    first = Listener("first")
    bus.twitter("a:b", "refused")
    assert bus.twitter("c:d") == 0
    second = Listener("second")
    assert bus.twitter("a:b") == 1
    assert bus.twitter("c:d") == 1
    assert heard == ["first", "second"]
    del first, second
    assert bus.registrations() == []


def test_refused(bus: Bus) -> None:
    with pytest.raises(ValueError, match="not an identifier"):
        cond("a::b")
    with pytest.raises(TypeError, match="a guard must be callable"):
        cond("a:b", 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="give only one"):
        cond("a:b", print, guard_condition=print)
    with pytest.raises(TypeError):
        cond("a:b") & "c:d"  # type: ignore[operator]
    with pytest.raises(TypeError):
        bus.twitter(cond("a:b"))  # type: ignore[arg-type]


def test_names() -> None:
    assert berrymq_rpc.cond is cond is Bus.cond
    assert isinstance(cond("a:b"), Condition)
    assert repr(cond("a") & cond("c:d", print)) == "cond('a:*') & cond('c:d', ...)"
