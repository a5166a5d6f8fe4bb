"""The index finds what a look at every registration would find."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from berrymq_rpc.bus.index import Index
from berrymq_rpc.bus.message import Message
from berrymq_rpc.bus.registrations import FunctionRegistration, Registration
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
    """An index beside a plain list, under the same changes."""

    def __init__(self) -> None:
        super().__init__()
        self.index = Index()
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


@given(identifiers, st.lists(identifiers, max_size=20))
def test_nothing_is_left_behind(sent: Identifier, followed: list[Identifier]) -> None:
    index = Index()
    index.find(sent)
    for number, identifier in enumerate(followed):
        index.add(FunctionRegistration(receive_first, identifier, None, number))
    for identifier in followed:
        index.remove(identifier, id(receive_first))
    assert len(index) == 0
    assert index._buckets == {}
    assert not any(index._partial.values())


def test_discard_leaves_the_others_of_the_same_receiver() -> None:
    index = Index()
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
    index = Index()
    followed = ["*:go", "start:go", "*@*:*", "start", "*", "start:go"]
    for number, text in enumerate(followed):
        function = receive_second if number == 5 else receive_first
        index.add(FunctionRegistration(function, Identifier(text), None, number))
    for sent in ("start:go", "start:*", "*:go", "*:*", "*@*:*"):
        numbers = [registration.number for registration in index.find(Identifier(sent))]
        assert numbers == [0, 1, 2, 3, 4, 5]


def test_lookups_do_not_grow_with_what_does_not_match() -> None:
    """Counted, not timed: how many registrations a lookup looks at."""
    index = Index()
    for number in range(1_000):
        index.add(FunctionRegistration(receive_first, Identifier(f"*:a{number}"), None, number))
        index.add(FunctionRegistration(receive_first, Identifier(f"n{number}"), None, number))
    for sent, found in [("x:a7", 1), ("n7:x", 1), ("n7:a7", 2), ("n7:*", 1001), ("*:a7", 1001)]:
        identifier = Identifier(sent)
        index.find(identifier)
        parts = (identifier.namespace, identifier.name, identifier.action)
        assert len(list(index._matching(parts))) <= max(found, 8)
        assert len(index.find(identifier)) == found
