"""One receiver of one identifier: what is called, and what stands for the same receiver."""

import pytest

from berrymq_rpc.bus.message import Message
from berrymq_rpc.bus.registrations import (
    SKIPPED,
    FunctionRegistration,
    MethodRegistration,
    Refusal,
    receiver_key,
)
from berrymq_rpc.identifier import Identifier

MESSAGE = Message(Identifier("a:b"), (1,), {})


class Owner:
    def method(self, message: Message) -> str:
        return "method"


def function(message: Message) -> str:
    return "function"


def refuse(message: Message) -> bool:
    return False


def accept(message: Message) -> bool:
    return True


def fail(message: Message) -> bool:
    raise LookupError("guard")


def test_function() -> None:
    plain = FunctionRegistration(function, Identifier("a:b"), None, 0)
    assert plain.call is function
    assert plain.receiver() is function
    assert plain.deliver(MESSAGE) == "function"
    guarded = FunctionRegistration(function, Identifier("a:b"), accept, 0)
    assert guarded.call(MESSAGE) == "function"


def test_method() -> None:
    owner = Owner()
    collected: list[MethodRegistration] = []
    registration = MethodRegistration(owner.method, Identifier("a:b"), None, 0, collected.append)
    assert registration.call(MESSAGE) == "method"
    assert registration.receiver() == owner.method
    del owner
    assert len(collected) == 1
    assert collected[0] is registration
    assert registration.call(MESSAGE) is SKIPPED
    assert registration.receiver() is None


@pytest.mark.parametrize("method", [False, True])
def test_guards(method: bool) -> None:
    owner = Owner()
    for guard in (accept, refuse, fail):
        registration = (
            MethodRegistration(owner.method, Identifier("a"), guard, 0, print)
            if method
            else FunctionRegistration(function, Identifier("a"), guard, 0)
        )
        result = registration.call(MESSAGE)
        if guard is accept:
            assert result in ("method", "function")
        elif guard is refuse:
            assert result is SKIPPED
        else:
            assert isinstance(result, Refusal)
            assert isinstance(result.error, LookupError)


def test_registrations_of_equal_objects_are_not_equal() -> None:
    class Equal:
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            return True

        def method(self, message: Message) -> None: ...

    one, other = Equal(), Equal()
    registrations = [
        MethodRegistration(owner.method, Identifier("a"), None, 0, print) for owner in (one, other)
    ]
    assert registrations[0] != registrations[1]
    assert len(set(registrations)) == 2


def test_keys() -> None:
    one, other = Owner(), Owner()
    items: list[object] = []
    equal: list[object] = []
    keys = {
        receiver_key(receiver)
        for receiver in (one.method, other.method, function, items.append, equal.append, print)
    }
    assert len(keys) == 6
    assert receiver_key(one.method) == receiver_key(one.method)
    assert receiver_key(items.append) == receiver_key(items.append)
    assert receiver_key(items.append) != receiver_key(items.extend)
    assert receiver_key(print) == receiver_key(print)
