"""Receivers that send messages to each other without end."""

import contextlib
import sys
from typing import Any

import pytest

from berrymq_rpc.bus import Bus, Message
from berrymq_rpc.bus.delivery import MAX_DEPTH, sending

Errors = list[tuple[BaseException, Message, Any]]


@pytest.fixture(autouse=True)
def nothing_left_on_the_stack() -> Any:
    yield
    assert sending.stack == []


def test_cycle_is_named_once(bus: Bus, errors: Errors, caplog: Any) -> None:
    calls: list[str] = []

    @bus.following_function("start:x")
    def start(message: Message) -> None:
        bus.twitter("a:b")

    @bus.following_function("a:b")
    def first(message: Message) -> None:
        calls.append("first")
        bus.twitter("c:d")

    @bus.following_function("c:d")
    def second(message: Message) -> None:
        calls.append("second")
        bus.twitter("a:b")

    assert bus.twitter("start:x") == 1
    ((error, message, receiver),) = errors
    assert isinstance(error, RecursionError)
    assert f"{MAX_DEPTH} levels deep" in str(error)
    assert "the cycle is c:d -> a:b -> c:d" in str(error)
    assert message.id == "start:x"
    assert receiver is start
    assert len(calls) == MAX_DEPTH - 1
    assert len(caplog.records) == 1


def test_the_others_still_hear(bus: Bus, errors: Errors) -> None:
    heard: list[str] = []
    bus.regist_function("a:b", lambda message: bus.twitter("a:b"))

    @bus.following_function("a:b")
    def other(message: Message) -> None:
        heard.append(message.id)
        bus.twitter("c:d")

    bus.regist_function("c:d", lambda message: heard.append(message.id))
    assert bus.twitter("a:b") == 2
    # Those of the outermost message; of those within, the cycle was all there was.
    assert heard == ["a:b", "c:d"]
    assert len(errors) == 1


def test_branches_do_not_multiply(bus: Bus, errors: Errors) -> None:
    calls: list[int] = []

    def branch(message: Message) -> None:
        calls.append(1)
        bus.twitter("a:b")
        bus.twitter("a:b")

    def other(message: Message) -> None:
        branch(message)

    bus.regist_function("a:b", branch)
    bus.regist_function("a:b", other)
    assert bus.twitter("a:b") == 2
    assert len(calls) == 2 * MAX_DEPTH
    assert len(errors) == 2


def test_guards_that_send(bus: Bus, errors: Errors) -> None:
    def send_twice(message: Message) -> bool:
        bus.twitter("a:b")
        bus.twitter("a:b")
        return True

    bus.regist_function("a:b", lambda message: None, send_twice)
    bus.regist_function("a:b", lambda message: None, lambda message: send_twice(message))
    bus.twitter("a:b")
    assert [type(error) for error, _, _ in errors] == [RecursionError] * 2


def test_receivers_that_swallow_the_error(bus: Bus, errors: Errors) -> None:
    calls: list[int] = []
    heard: list[str] = []

    def swallow(message: Message) -> None:
        calls.append(1)
        for _ in range(3):
            with contextlib.suppress(RecursionError):
                bus.twitter("a:b")

    bus.regist_function("a:b", swallow)

    @bus.following_function("a:b")
    def after(message: Message) -> None:
        if len(sending.stack) == 1:
            bus.twitter("c:d")

    bus.regist_function("c:d", lambda message: heard.append(message.id))
    assert bus.twitter("a:b") == 2
    # Each of the outermost receiver's three attempts goes down once.
    assert len(calls) == 1 + 3 * (MAX_DEPTH - 1)
    assert heard == ["c:d"]
    assert errors == []
    assert bus.twitter("c:d") == 1


def test_identifiers_that_never_repeat(bus: Bus, errors: Errors) -> None:
    @bus.following_function("*:count")
    def count(message: Message) -> None:
        bus.twitter(f"n{message.args[0]}:count", message.args[0] + 1)

    bus.twitter("n:count", 0)
    ((error, _, _),) = errors
    assert "the last are n91:count -> n92:count" in str(error)
    assert str(error).endswith("n98:count -> n99:count")


def test_long_cycle_is_cut(bus: Bus, errors: Errors) -> None:
    @bus.following_function("*:x")
    def pass_on(message: Message) -> None:
        bus.twitter(f"n{(int(message.name[1:]) + 1) % 20}:x")

    bus.twitter("n0:x")
    ((error, _, _),) = errors
    assert "the cycle is n0:x -> n1:x" in str(error)
    assert str(error).endswith("n7:x -> ... -> n0:x")


def test_over_two_buses(bus: Bus, errors: Errors) -> None:
    other = Bus()
    bus.regist_function("a:b", lambda message: other.twitter("c:d"))
    other.regist_function("c:d", lambda message: bus.twitter("a:b"))
    bus.twitter("a:b")
    assert [type(error) for error, _, _ in errors] == [RecursionError]
    assert "c:d" in str(errors[0][0])


def test_depth_that_is_allowed(bus: Bus, errors: Errors) -> None:
    @bus.following_function("count:down")
    def count(message: Message) -> None:
        if message.args[0] > 1:
            bus.twitter("count:down", message.args[0] - 1)

    bus.twitter("count:down", MAX_DEPTH)
    assert errors == []
    bus.twitter("count:down", MAX_DEPTH + 1)
    assert len(errors) == 1


def test_pythons_own_limit_is_explained(bus: Bus, errors: Errors) -> None:
    """Receivers with many frames of their own reach it first."""
    calls: list[int] = []

    def nested(levels: int) -> None:
        if levels:
            nested(levels - 1)
        else:
            bus.twitter("a:b")

    def receive(message: Message) -> None:
        calls.append(1)
        nested(sys.getrecursionlimit() // 20)

    bus.regist_function("a:b", receive)
    bus.regist_function("a:b", lambda message: receive(message))
    assert bus.twitter("a:b") == 2
    assert len(calls) < 60
    assert [type(error) for error, _, _ in errors] == [RecursionError] * 2
    for error, _, _ in errors:
        assert error.__notes__ == ["receivers send messages to each other: the cycle is a:b -> a:b"]


def test_a_receivers_own_recursion_at_the_top_is_its_own(bus: Bus, errors: Errors) -> None:
    heard: list[int] = []

    def forever(message: Message) -> None:
        forever(message)

    bus.regist_function("a:b", forever)
    bus.regist_function("a:b", lambda message: heard.append(1))
    assert bus.twitter("a:b") == 2
    assert heard == [1]
    assert len(errors) == 1
    assert not hasattr(errors[0][0], "__notes__")
