"""Who follows what: one receiver, one identifier, and the guard between them."""

import types
import weakref
from collections.abc import Callable
from typing import Any, TypeAlias

from ..identifier import Identifier
from .message import Message

__all__ = [
    "SKIPPED",
    "FunctionRegistration",
    "Guard",
    "MethodRegistration",
    "Receiver",
    "ReceiverKey",
    "Refusal",
    "Registration",
    "check_callable",
    "receiver_key",
]

Receiver: TypeAlias = Callable[[Message], Any]
Guard: TypeAlias = Callable[[Message], object]
ReceiverKey: TypeAlias = int | tuple[int, int | str]


class Refusal:
    """What `deliver` returns in place of a receiver's result when the receiver was not called.

    Attributes:
        error: what the guard raised, or `None`.
    """

    __slots__ = ("error",)

    def __init__(self, error: Exception | None) -> None:
        self.error = error


SKIPPED = Refusal(None)


class FunctionRegistration:
    """A plain function, or any other callable that is no bound method: held strongly."""

    __slots__ = ("function", "guard", "identifier", "key", "number")

    def __init__(
        self, function: Receiver, identifier: Identifier, guard: Guard | None, number: int
    ) -> None:
        self.function = function
        self.identifier = identifier
        self.guard = guard
        self.number = number
        self.key = receiver_key(function)

    @property
    def call(self) -> Receiver:
        """What the bus calls for each message."""
        # Without a guard the bus calls the function itself: one call less for each message.
        return self.function if self.guard is None else self.deliver

    def receiver(self) -> Receiver | None:
        return self.function

    def deliver(self, message: Message) -> Any:
        if self.guard is not None:
            try:
                passed = self.guard(message)
            except Exception as error:
                return Refusal(error)
            if not passed:
                return SKIPPED
        return self.function(message)


class MethodRegistration(weakref.ref[Any]):
    """A bound method: its object is held weakly, and following ends with it.

    The registration is the weak reference itself: `weakref.WeakMethod` is called, and makes a
    bound method, for each message, which takes several times as long.

    Args:
        collected: called with the registration when the object is gone, in any thread and at any
            point of its code, as garbage collection is.

    Raises:
        TypeError: the object cannot be referred to weakly.
    """

    __slots__ = ("function", "guard", "identifier", "key", "number")

    function: Callable[..., Any]
    identifier: Identifier
    guard: Guard | None
    number: int
    key: ReceiverKey

    def __new__(
        cls,
        method: types.MethodType,
        identifier: Identifier,
        guard: Guard | None,
        number: int,
        collected: "Callable[[MethodRegistration], object]",
    ) -> "MethodRegistration":
        try:
            return super().__new__(cls, method.__self__, collected)
        except TypeError:
            owner = type(method.__self__)
            raise TypeError(
                f"a method of {owner.__module__}.{owner.__qualname__} cannot follow: its objects "
                "cannot be referred to weakly (a class with __slots__ needs '__weakref__' in them)"
            ) from None

    def __init__(
        self,
        method: types.MethodType,
        identifier: Identifier,
        guard: Guard | None,
        number: int,
        collected: "Callable[[MethodRegistration], object]",
    ) -> None:
        self.function = method.__func__
        self.identifier = identifier
        self.guard = guard
        self.number = number
        self.key = receiver_key(method)

    # Weak references compare and hash by their objects; two registrations are never the same.
    __eq__ = object.__eq__
    __ne__ = object.__ne__
    __hash__ = object.__hash__

    @property
    def call(self) -> Receiver:
        """What the bus calls for each message."""
        return self.deliver

    def receiver(self) -> Receiver | None:
        owner = self()
        return None if owner is None else types.MethodType(self.function, owner)

    def deliver(self, message: Message) -> Any:
        owner = self()
        if owner is None:
            return SKIPPED
        if self.guard is not None:
            try:
                passed = self.guard(message)
            except Exception as error:
                return Refusal(error)
            if not passed:
                return SKIPPED
        return self.function(owner, message)


Registration: TypeAlias = FunctionRegistration | MethodRegistration


def receiver_key(receiver: Receiver) -> ReceiverKey:
    """What is the same for the same receiver as long as it lives: no `__eq__` of it is run.

    Python makes a bound method anew each time that it is asked for.
    """
    if isinstance(receiver, types.MethodType):
        return id(receiver.__self__), id(receiver.__func__)
    if isinstance(receiver, types.BuiltinMethodType) and receiver.__self__ is not None:
        return id(receiver.__self__), receiver.__name__
    return id(receiver)


def check_callable(receiver: object, what: str) -> None:
    """Refuse early what would fail at the first message."""
    if not callable(receiver):
        raise TypeError(f"a {what} is called with the message; this is none: {receiver!r:.100}")
