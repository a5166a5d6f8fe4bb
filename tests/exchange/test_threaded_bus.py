import queue
import threading
from typing import Any

import pytest

from berrymq_rpc.bus import Bus, Message
from berrymq_rpc.bus.diagram import DiagramNode
from berrymq_rpc.exchange.threaded_bus import ThreadedBus
from berrymq_rpc.identifier import Identifier
from berrymq_rpc.runtime.worker_thread import WorkerThread

PATIENCE = 20


class Place:
    """A bus, the same bus dispatched, and what is heard on it."""

    def __init__(self) -> None:
        self.bus = Bus()
        self.thread = WorkerThread("receivers")
        self.dispatched = ThreadedBus(self.bus.gateway, self.thread)
        self.heard: queue.Queue[tuple[Message, str]] = queue.Queue()
        self.bus.regist_function("*@*:*", self._hear)

    def _hear(self, message: Message) -> str:
        self.heard.put((message, threading.current_thread().name))
        return "result"

    def next(self) -> tuple[Message, str]:
        return self.heard.get(timeout=PATIENCE)

    def __enter__(self) -> "Place":
        return self

    def __exit__(self, *exc: object) -> None:
        assert self.thread.stop(PATIENCE) == 0


def test_relay() -> None:
    with Place() as place:
        answers: queue.Queue[Any] = queue.Queue()
        place.dispatched.relay(
            "job:new", (1,), {"a": 2}, "there", lambda *answer: answers.put(answer)
        )
        place.dispatched.relay("job:new", (2,), {}, "there")
        message, name = place.next()
        assert (message.id, message.args, message.kwargs, message.origin) == (
            "job:new",
            (1,),
            {"a": 2},
            "there",
        )
        assert name == "berrymq_rpc receivers"
        assert answers.get(timeout=PATIENCE) == ("result", None)
        assert place.next()[0].args == (2,)
        assert answers.empty()


def test_answer() -> None:
    with Place() as place:
        place.dispatched.answer("done:*", result=5, origin="there")
        message, name = place.next()
        assert (message.args, name) == ((5,), "berrymq_rpc receivers")
        place.dispatched.answer("done:*", error=ValueError("x"), origin="there")
        assert isinstance(place.next()[0].error, ValueError)


@pytest.mark.parametrize("identifier", ["a:b:c", "_local:new", ""])
def test_what_cannot_come_is_refused_at_once(identifier: str) -> None:
    with Place() as place:
        with pytest.raises(ValueError, match=r"local|not an identifier"):
            place.dispatched.relay(identifier, (), {}, "there")
        assert len(place.thread) == 0


def test_all_else_is_done_at_once() -> None:
    def connections() -> list[DiagramNode]:
        return [DiagramNode("connection", "peer", ("a:b",))]

    with Place() as place:
        errors: list[Any] = []
        place.bus.on_error = lambda *reported: errors.append(reported)
        error, message = ValueError(), Message(Identifier("a:b"), (), {})
        place.dispatched.report(error, message, print, "failed")
        assert errors == [(error, message, print)]
        place.dispatched.add_diagram_source(connections)
        assert place.bus.show_followers()["a:b"] == ["peer"]
        place.dispatched.remove_diagram_source(connections)
        assert "a:b" not in place.bus.show_followers()


def test_what_the_node_has_there_can_be_taken_off() -> None:
    class Followers:
        def receive(self, message: Message) -> None:
            pytest.fail(str(message))

    with Place() as place:
        followers = Followers()
        place.dispatched.add_forwarder(followers.receive)
        place.dispatched.follow("a:b", followers.receive)
        place.dispatched.follow("a:c", followers.receive)
        assert place.dispatched.unfollow("a:c", followers.receive) == 1
        place.dispatched.detach()
        assert place.bus.twitter("a:b") == 1
        place.dispatched.remove_forwarder(followers.receive)
        assert place.dispatched.unfollow("a:b", followers.receive) == 0
