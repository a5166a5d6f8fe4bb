"""`bus.gateway`: forwarders, and messages and answers that come from other processes."""

import gc
from collections.abc import Callable
from typing import Any

import pytest

from berrymq_rpc.bus import Bus, Message, Queue
from berrymq_rpc.identifier import Identifier

Errors = list[tuple[BaseException, Message, Any]]


def drain(queue: Queue) -> list[Message]:
    return [queue.get_nowait() for _ in range(queue.qsize())]


def fail(message: Message) -> Any:
    raise LookupError("not here")


def recorder(heard: list[Any], label: Any) -> Callable[[Message], None]:
    def receive(message: Message) -> None:
        heard.append(label)

    return receive


class TestForwarders:
    def test_sees_all_but_local(self, bus: Bus) -> None:
        seen: list[str] = []

        def forward(message: Message) -> str:
            seen.append(message.id)
            return "ignored"

        bus.gateway.add_forwarder(forward)
        bus.regist_function("a:b", recorder([], 1))
        assert bus.twitter("a:b") == 1
        assert bus.twitter("nobody@here:x") == 0
        assert bus.twitter("*:x") == 0
        assert bus.twitter("_local:x") == 0
        assert seen == ["a:b", "nobody@here:x", "*:x"]
        bus.gateway.remove_forwarder(forward)
        bus.gateway.remove_forwarder(forward)
        assert bus.twitter("a:b") == 1
        assert len(seen) == 3

    def test_before_receivers(self, bus: Bus) -> None:
        """A peer must see a message before the one that a receiver of it sends."""
        seen: list[str] = []

        @bus.following_function("first:x")
        def answer(message: Message) -> None:
            bus.twitter("second:x")

        bus.gateway.add_forwarder(lambda message: seen.append(message.id))
        bus.twitter("first:x")
        assert seen == ["first:x", "second:x"]

    def test_failing(self, bus: Bus, errors: Errors) -> None:
        heard: list[int] = []

        def forward(message: Message) -> None:
            raise OSError("line")

        bus.gateway.add_forwarder(forward)
        bus.regist_function("a:b", recorder(heard, 1))
        assert bus.twitter("a:b") == 1
        assert heard == [1]
        assert [(str(error), receiver) for error, _, receiver in errors] == [("line", forward)]

    def test_bound_method(self, bus: Bus, errors: Errors) -> None:
        class Line:
            def forward(self, message: Message) -> None:
                raise OSError("line")

        line = Line()
        bus.gateway.add_forwarder(line.forward)
        bus.twitter("a:b")
        assert [receiver for _, _, receiver in errors] == [line.forward]
        bus.gateway.remove_forwarder(line.forward)
        bus.twitter("a:b")
        assert len(errors) == 1

    def test_relay(self, bus: Bus) -> None:
        heard: list[Message] = []
        bus.gateway.add_forwarder(heard.append)
        bus.regist_function("a:b", heard.append)
        for _ in range(2):
            assert bus.gateway.relay("a:b", (1,), {"x": 2}, "peer") == 1
        assert bus.twitter("a:b") == 1
        assert [message.origin for message in heard] == ["peer"] * 4 + [None] * 2
        assert (heard[0].args, heard[0].kwargs) == ((1,), {"x": 2})
        assert bus.gateway.relay(Identifier("c:d"), (), {}, "peer") == 0

    def test_relay_does_not_reach_local_names(self, bus: Bus) -> None:
        heard: list[str] = []
        bus.regist_function("_own:x", recorder(heard, "local"))
        bus.regist_function("*:x", recorder(heard, "any"))
        assert bus.gateway.relay("*:x", (), {}, "peer") == 1
        assert bus.gateway.relay("*@*:*", (), {}, "peer") == 1
        assert heard == ["any", "any"]
        assert bus.twitter("*:x") == 2
        for text in ("_own:x", "_own@a:x"):
            with pytest.raises(ValueError, match="no other process may send it"):
                bus.gateway.relay(text, (), {}, "peer")
        with pytest.raises(ValueError, match="not an identifier"):
            bus.gateway.relay("a::b", (), {}, "peer")
        with pytest.raises(TypeError):
            bus.gateway.relay([], (), {}, "peer")  # type: ignore[arg-type]

    def test_relay_without_receivers(self, bus: Bus) -> None:
        assert bus.gateway.relay("a:b", (), {}, "peer") == 0


class TestAnswer:
    """What brings answers of other processes."""

    def test_result_and_error(self, bus: Bus, answers: Queue) -> None:
        forwarded: list[Message] = []
        bus.gateway.add_forwarder(forwarded.append)
        error = ValueError("there")
        assert bus.gateway.answer("answer:x", 5) == 1
        assert bus.gateway.answer("answer:x", error=error, origin="peer") == 1
        assert bus.gateway.answer("nobody:x", 1) == 0
        well, failed = drain(answers)
        assert (well.args, well.error, well.origin) == ((5,), None, None)
        assert (failed.args, failed.error, failed.origin) == ((None,), error, "peer")
        assert forwarded == []

    def test_local_names(self, bus: Bus) -> None:
        heard: list[Any] = []
        bus.regist_function("_own:x", lambda message: heard.append(message.args))
        assert bus.gateway.answer("_own:x", 1) == 1
        assert bus.gateway.answer("*:x", 2, origin="peer") == 0
        with pytest.raises(ValueError, match="local"):
            bus.gateway.answer("_own:x", 3, origin="peer")
        assert heard == [(1,)]


class TestRelay:
    """Questions that came from another process."""

    def test_each_end_is_told(self, bus: Bus, errors: Errors) -> None:
        told: list[tuple[Any, Any]] = []
        bus.regist_function("ask:x", lambda message: message.origin)
        bus.regist_function("ask:x", fail)
        bus.regist_function("ask:x", lambda message: 1, lambda message: False)
        bus.regist_function("_own:x", lambda message: 1)
        with Queue("ask", bus=bus):
            reached = bus.gateway.relay(
                "ask:x", (1,), {}, "peer", lambda result, error: told.append((result, error))
            )
        assert reached == 3
        assert told[0] == ("peer", None)
        assert told[1][0] is None
        assert isinstance(told[1][1], LookupError)
        assert len(told) == 2
        assert len(errors) == 1

    def test_nobody_there(self, bus: Bus) -> None:
        assert bus.gateway.relay("ask:x", (), {}, "peer", lambda result, error: None) == 0

    def test_telling_that_fails_is_reported(self, bus: Bus, errors: Errors) -> None:
        def told(result: Any, error: Any) -> None:
            raise OSError("line")

        bus.regist_function("ask:x", lambda message: 1)
        assert bus.gateway.relay("ask:x", (), {}, "peer", told) == 1
        assert [type(error) for error, _, _ in errors] == [OSError]


class TestFollowListener:
    def test_first_and_last_registration(self, bus: Bus) -> None:
        changes: list[Any] = []

        def listen(parts: Any, is_followed: bool) -> None:
            changes.append((parts, is_followed))

        def one(message: Message) -> None: ...

        def other(message: Message) -> None: ...

        bus.regist_function("a:b", one)
        bus.gateway.add_follow_listener(listen)
        assert changes == [((None, "a", "b"), True)]
        changes.clear()
        bus.regist_function("a:b", other)
        bus.regist_function("x@y:*", one, guard=bool)
        bus.regist_function("x@y:*", one)
        assert changes == [(("y", "x", "*"), True)]
        changes.clear()
        bus.unfollow("a:b", one)
        bus.unfollow("x@y:*", one)
        assert changes == [(("y", "x", "*"), False)]
        bus.unfollow("a:b", other)
        assert changes[1:] == [((None, "a", "b"), False)]
        bus.gateway.remove_follow_listener(listen)
        bus.regist_function("a:b", one)
        assert len(changes) == 2

    def test_of_objects_that_are_gone(self, bus: Bus) -> None:
        changes: list[Any] = []
        bus.gateway.add_follow_listener(lambda parts, is_followed: changes.append(is_followed))

        class Owner:
            def receive(self, message: Message) -> None: ...

        owner = Owner()
        bus.regist_method("a:b", owner.receive)
        assert changes == [True]
        del owner
        gc.collect()
        assert changes == [True, False]
