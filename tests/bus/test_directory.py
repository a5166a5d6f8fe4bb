"""Routes are kept, bounded, and thrown away when somebody comes or goes."""

import pytest

from berrymq_rpc.bus import directory
from berrymq_rpc.bus.directory import Directory
from berrymq_rpc.bus.message import Message
from berrymq_rpc.identifier import Identifier


def receive(message: Message) -> None: ...


def other(message: Message) -> None: ...


def test_kept_by_what_was_sent() -> None:
    followed = Directory()
    followed.follow(Identifier("test:*"), receive, None)
    for sent in ("test", "test:*", Identifier("test")):
        route = followed.find(sent)
        assert followed.routes[sent] is route
        assert (str(route.identifier), route.calls, route.reached) == ("test:*", (receive,), 1)
    assert followed.relayed_routes == {}
    followed.find("test", relayed=True)
    assert list(followed.relayed_routes) == ["test"]


def test_changes_throw_them_away() -> None:
    followed = Directory()
    followed.follow(Identifier("a:b"), receive, None)
    for change in (
        lambda: followed.follow(Identifier("c:d"), other, None),
        lambda: followed.unfollow(Identifier("c:d"), other),
        lambda: followed.add_forwarder(other),
        lambda: followed.remove_forwarder(other),
    ):
        followed.find("a:b")
        followed.find("a:b", relayed=True)
        change()
        assert followed.routes == followed.relayed_routes == {}
    assert len(followed) == 1


def test_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "MAX_ROUTES", 10)
    followed = Directory()
    followed.follow(Identifier("*:x"), receive, None)
    for number in range(100):
        for relayed in (False, True):
            assert followed.find(f"n{number}:x", relayed).reached == 1
        assert len(followed.routes) <= 10
        assert len(followed.relayed_routes) <= 10


def test_what_is_refused_is_not_kept() -> None:
    followed = Directory()
    for sent in ("", "a::b", "_local"):
        with pytest.raises(ValueError, match=r"not an identifier|no other process"):
            followed.find(sent, relayed=True)
    assert followed.relayed_routes == {}
