"""The index finds what a look at every registration would find, and routes are kept."""

import itertools
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from berrymq_rpc.bus import routing_table
from berrymq_rpc.bus.message import Message
from berrymq_rpc.bus.registrations import FunctionRegistration, Registration
from berrymq_rpc.bus.routing_table import RoutingTable, SubscriptionIndex
from berrymq_rpc.identifier import Identifier

identifiers = st.builds(
    lambda name, namespace, action: Identifier(f"{name}{namespace}:{action}"),
    st.sampled_from(["a", "b", "_c", "*"]),
    st.sampled_from(["", "@a", "@b", "@*"]),
    st.sampled_from(["a", "b", "*"]),
)


def receive_first(message: Message) -> None: ...


def receive_second(message: Message) -> None: ...


def guard(message: Message) -> bool:
    return True


class Model(RuleBasedStateMachine):
    """An index and a plain list, under the same changes."""

    def __init__(self) -> None:
        super().__init__()
        self.index = SubscriptionIndex()
        self.model: list[Registration] = []
        self.numbers = itertools.count()

    @rule(
        identifier=identifiers,
        function=st.sampled_from([receive_first, receive_second]),
        condition=st.sampled_from([None, guard]),
    )
    def add(self, identifier, function, condition) -> None:  # type: ignore[no-untyped-def]
        registration = FunctionRegistration(function, identifier, condition, next(self.numbers))
        new = not any(
            other.identifier == identifier
            and other.key == registration.key
            and other.guard is condition
            for other in self.model
        )
        assert self.index.add(registration) is new
        if new:
            self.model.append(registration)

    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        if not self.model:
            return
        registration = data.draw(st.sampled_from(self.model))
        assert self.index.discard(registration)
        assert not self.index.discard(registration)
        self.model.remove(registration)

    @rule(identifier=identifiers, function=st.sampled_from([receive_first, receive_second]))
    def remove(self, identifier, function) -> None:  # type: ignore[no-untyped-def]
        left = [
            other
            for other in self.model
            if other.identifier != identifier or other.receiver() is not function
        ]
        assert self.index.remove(identifier, id(function)) == len(self.model) - len(left)
        self.model = left

    @rule(identifier=identifiers)
    def find(self, identifier: Identifier) -> None:
        wanted = [other for other in self.model if other.identifier.is_match(identifier)]
        assert self.index.find(identifier) == wanted

    @invariant()
    def same_size(self) -> None:
        assert len(self.index) == len(self.model)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=40)


@given(identifiers, st.lists(identifiers, max_size=20), st.booleans())
def test_nothing_is_left_behind(
    sent: Identifier, followed: list[Identifier], by_identifier: bool
) -> None:
    index = SubscriptionIndex()
    index.find(sent)
    registrations = [
        FunctionRegistration(receive_first, identifier, None, number)
        for number, identifier in enumerate(followed)
    ]
    for registration in registrations:
        index.add(registration)
    for registration in registrations:
        if by_identifier:
            index.remove(registration.identifier, id(receive_first))
        else:
            index.discard(registration)
    assert len(index) == 0
    assert index.keys_held == 0


def test_discard_leaves_the_others_of_the_same_receiver() -> None:
    index = SubscriptionIndex()
    registrations = [
        FunctionRegistration(receive_first, Identifier("a:b"), condition, number)
        for number, condition in enumerate([None, guard])
    ]
    for registration in registrations:
        assert index.add(registration)
    assert index.discard(registrations[0])
    assert not index.discard(registrations[0])
    assert index.find(Identifier("a:b")) == registrations[1:]
    assert index.discard(registrations[1])
    assert index.find(Identifier("a:b")) == []


def test_order_over_several_buckets() -> None:
    index = SubscriptionIndex()
    followed = ["*:go", "start:go", "*@*:*", "start", "*", "start:go"]
    for number, text in enumerate(followed):
        function = receive_second if number == 5 else receive_first
        index.add(FunctionRegistration(function, Identifier(text), None, number))
    for sent in ("start:go", "start:*", "*:go", "*:*", "*@*:*"):
        numbers = [registration.number for registration in index.find(Identifier(sent))]
        assert numbers == [0, 1, 2, 3, 4, 5]


def test_lookups_do_not_grow_with_what_does_not_match() -> None:
    """Counted, not timed: how many registrations a lookup looks at."""
    index = SubscriptionIndex()
    for number in range(1_000):
        index.add(FunctionRegistration(receive_first, Identifier(f"*:a{number}"), None, number))
        index.add(FunctionRegistration(receive_first, Identifier(f"n{number}"), None, number))
    for sent, found in [("x:a7", 1), ("n7:x", 1), ("n7:a7", 2), ("n7:*", 1001), ("*:a7", 1001)]:
        identifier = Identifier(sent)
        index.find(identifier)
        parts = (identifier.namespace, identifier.name, identifier.action)
        assert len(list(index.candidates(parts))) <= max(found, 8)
        assert len(index.find(identifier)) == found


def test_kept_by_what_was_sent() -> None:
    table = RoutingTable()
    table.follow(Identifier("test:*"), receive_first, None)
    for sent in ("test", "test:*", Identifier("test")):
        route = table.find(sent)
        assert table.routes[sent] is route
        assert (str(route.identifier), route.calls, route.reached) == (
            "test:*",
            (receive_first,),
            1,
        )
    assert table.relayed_routes == {}
    table.find("test", relayed=True)
    assert list(table.relayed_routes) == ["test"]


def test_changes_throw_them_away() -> None:
    table = RoutingTable()
    table.follow(Identifier("a:b"), receive_first, None)
    for change in (
        lambda: table.follow(Identifier("c:d"), receive_second, None),
        lambda: table.unfollow(Identifier("c:d"), receive_second),
        lambda: table.add_forwarder(receive_second),
        lambda: table.remove_forwarder(receive_second),
    ):
        table.find("a:b")
        table.find("a:b", relayed=True)
        change()
        assert table.routes == table.relayed_routes == {}
    assert len(table) == 1


def test_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing_table, "MAX_ROUTES", 10)
    table = RoutingTable()
    table.follow(Identifier("*:x"), receive_first, None)
    for number in range(100):
        for relayed in (False, True):
            assert table.find(f"n{number}:x", relayed).reached == 1
        assert len(table.routes) <= 10
        assert len(table.relayed_routes) <= 10


def test_what_is_refused_is_not_kept() -> None:
    table = RoutingTable()
    for sent in ("", "a::b", "_local"):
        with pytest.raises(ValueError, match=r"not an identifier|no other process"):
            table.find(sent, relayed=True)
    assert table.relayed_routes == {}


def test_table_is_freed_while_its_objects_live() -> None:
    class Listener:
        def hear(self, message: Message) -> None: ...

    table = RoutingTable()
    listener = Listener()
    table.follow(Identifier("a:b"), listener.hear, None)
    # As if another thread were in the middle of a message.
    (call,) = table.find("a:b").calls
    reference = weakref.ref(table)
    del table
    assert reference() is None
    del listener
    call(Message(Identifier("a:b"), (), {}))
