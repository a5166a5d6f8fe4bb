"""Registrations: one receiver, the identifier that it follows, and its guard.

The bus calls what `call` of a registration is. A receiver that only keeps messages is a `sink`.
"""

import functools
import types
import weakref
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from ..common.awaitable import discard, is_awaitable
from ..identifier import Identifier
from .message import Message

__all__ = [
    "SKIPPED",
    "ClassMethodRegistration",
    "FunctionRegistration",
    "Guard",
    "MethodRegistration",
    "Receiver",
    "ReceiverKey",
    "Refusal",
    "Registration",
    "Substitute",
    "admits",
    "check_callable",
    "check_guard",
    "check_receiver",
    "check_runs",
    "is_coroutine_function",
    "is_remote_sink",
    "is_sink",
    "receiver_key",
    "remote_sink",
    "sink",
]

_SINK = "_berrymq_sink"
_REMOTE_SINK = "_berrymq_remote_sink"

# The flags `inspect.CO_GENERATOR`, `CO_COROUTINE` and `CO_ASYNC_GENERATOR` of code objects;
# `inspect` takes long to import.
_GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80, 0x200

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])
Receiver: TypeAlias = Callable[[Message], Any]
Guard: TypeAlias = Callable[[Message], object]
ReceiverKey: TypeAlias = int | tuple[int, int | str]


class Refusal:
    """What `deliver` returns instead of a result when the receiver was not called.

    Attributes:
        error: what the guard raised, or `None`.
    """

    __slots__ = ("error",)

    def __init__(self, error: Exception | None) -> None:
        self.error = error


SKIPPED = Refusal(None)


class FunctionRegistration:
    """A plain function, or another callable that is not a bound method: held strongly."""

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

    def admit(self, message: Message) -> Receiver | Refusal:
        """What to call with the message, now or later; a `Refusal` if the guard skips it."""
        refusal = None if self.guard is None else _refusal(self.guard, message)
        return self.function if refusal is None else refusal

    def deliver(self, message: Message) -> Any:
        if self.guard is not None:
            refusal = _refusal(self.guard, message)
            if refusal is not None:
                return refusal
        return self.function(message)


class MethodRegistration(weakref.ref[Any]):
    """A bound method: its object is held weakly, and following ends with it.

    The registration is the weak reference itself: `weakref.WeakMethod` is called, and makes a
    bound method, for each message, which takes several times as long.

    Args:
        on_collected: called with the registration when the object is gone, by garbage collection:
            in any thread and at any point of its code.

    Raises:
        TypeError: the object does not support weak references.
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
        on_collected: "Callable[[MethodRegistration], object]",
    ) -> "MethodRegistration":
        try:
            return super().__new__(cls, method.__self__, on_collected)
        except TypeError:
            owner = type(method.__self__)
            raise TypeError(
                f"a method of {owner.__module__}.{owner.__qualname__} cannot follow: its objects "
                "do not support weak references (add '__weakref__' to the __slots__ of the class)"
            ) from None

    def __init__(
        self,
        method: types.MethodType,
        identifier: Identifier,
        guard: Guard | None,
        number: int,
        on_collected: "Callable[[MethodRegistration], object]",
    ) -> None:
        self.identifier = identifier
        self.number = number
        self.key = receiver_key(method)
        self._hold(method.__func__, guard, on_collected)

    def _hold(
        self,
        function: Callable[..., Any],
        guard: Guard | None,
        on_collected: "Callable[[MethodRegistration], object]",
    ) -> None:
        self.function = function
        self.guard = guard

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

    def admit(self, message: Message) -> Receiver | Refusal:
        """What to call with the message, now or later; a `Refusal` if the guard skips it.

        It holds the object, which thus gets the messages that were sent while it lived.
        """
        owner = self()
        if owner is None:
            return SKIPPED
        refusal = None if self.guard is None else _refusal(self.guard, message)
        return types.MethodType(self.function, owner) if refusal is None else refusal

    def deliver(self, message: Message) -> Any:
        owner = self()
        if owner is None:
            return SKIPPED
        if self.guard is not None:
            refusal = _refusal(self.guard, message)
            if refusal is not None:
                return refusal
        return self.function(owner, message)


class ClassMethodRegistration(MethodRegistration):
    """A method bound to a class: what is an attribute of the class is held weakly as well.

    A function refers to the class that it was written in by ``super()``, and by its annotations
    from Python 3.14 on: held strongly it would keep its class alive, and so itself.
    """

    __slots__ = ("_function", "_guard")

    def _hold(
        self,
        function: Callable[..., Any],
        guard: Guard | None,
        on_collected: Callable[[MethodRegistration], object],
    ) -> None:
        cls = self()

        def held(value: Callable[..., Any]) -> Callable[[], Any]:
            if cls is not None and _keeps(cls, value):
                return weakref.ref(value, lambda _: on_collected(self))
            return lambda: value

        self._function = held(function)
        self._guard = None if guard is None else held(guard)

    @property
    def function(self) -> Callable[..., Any]:  # type: ignore[override]
        """What is called with the class and the message."""
        return self._function() or _skip

    @property
    def guard(self) -> Guard | None:  # type: ignore[override]
        return None if self._guard is None else self._guard() or _refuse


def _keeps(cls: type, function: object) -> bool:
    """Whether a class, or its metaclass, has the function as an attribute."""
    metaclass: type = type(cls)
    return any(
        (value.__func__ if isinstance(value, classmethod | staticmethod) else value) is function
        for base in (*cls.__mro__, *metaclass.__mro__)
        for value in tuple(vars(base).values())
    )


def _skip(cls: type, message: Message) -> Refusal:
    """Stands for a function that is gone."""
    return SKIPPED


def _refuse(message: Message) -> bool:
    """Stands for a guard that is gone."""
    return False


Registration: TypeAlias = FunctionRegistration | MethodRegistration


class Substitute:
    """Has a method that is called instead of a registration's call.

    Attributes:
        registration: the registration.
    """

    __slots__ = ("registration",)

    def __init__(self, registration: Registration) -> None:
        self.registration = registration


def sink(function: AnyFunction) -> AnyFunction:
    """Decorate a receiver that only keeps messages, as a queue does.

    It is always called in the sender's thread, and does not answer `Bus.talk`.
    """
    setattr(function, _SINK, True)
    return function


def remote_sink(function: AnyFunction) -> AnyFunction:
    """Decorate a sink that keeps messages for other processes.

    A message that has another form for other processes comes in that form.
    """
    setattr(function, _REMOTE_SINK, True)
    return sink(function)


def is_sink(receiver: Receiver) -> bool:
    """Whether a function, or the receiver of a registration's call, is a `sink`."""
    return _has_mark(receiver, _SINK)


def is_remote_sink(receiver: Receiver) -> bool:
    """Whether a function, or the receiver of a registration's call, is a `remote_sink`."""
    return _has_mark(receiver, _REMOTE_SINK)


def _has_mark(receiver: Receiver, mark: str) -> bool:
    function: Any = receiver
    if isinstance(receiver, types.MethodType):
        owner = receiver.__self__
        if isinstance(owner, Substitute):
            owner = owner.registration
        if isinstance(owner, FunctionRegistration | MethodRegistration):
            function = owner.function
    return isinstance(function, types.FunctionType) and mark in function.__dict__


def is_coroutine_function(function: Any) -> bool:
    """Whether a function, a partial of one, or an object's ``__call__``, is an ``async def``."""
    return bool(_flags(function) & _COROUTINE)


def _flags(function: Any) -> int:
    """The flags of the code that a call of the function runs."""
    while isinstance(function, functools.partial):
        function = function.func
    if not isinstance(function, types.FunctionType | types.MethodType):
        function = type(function).__call__
    code = getattr(function, "__code__", None)
    return code.co_flags if isinstance(code, types.CodeType) else 0


def admits(guard: Guard, message: Message) -> bool:
    """Whether a guard lets a message through.

    Raises:
        TypeError: it answers something that has to be awaited.
        Exception: what the guard raises.
    """
    verdict = guard(message)
    if is_awaitable(verdict):
        discard(verdict)
        raise TypeError(
            f"the guard {guard!r:.100} returned {verdict!r:.100}, which has to be awaited: a guard "
            "decides at once"
        )
    return bool(verdict)


def _refusal(guard: Guard, message: Message) -> Refusal | None:
    try:
        return None if admits(guard, message) else SKIPPED
    except Exception as error:
        return Refusal(error)


def receiver_key(receiver: Receiver) -> ReceiverKey:
    """A key that is the same for a receiver as long as it lives, without a call of its `__eq__`.

    Python makes a new bound method each time that it is read from its object.
    """
    if isinstance(receiver, types.MethodType):
        return id(receiver.__self__), id(receiver.__func__)
    if isinstance(receiver, types.BuiltinMethodType) and receiver.__self__ is not None:
        return id(receiver.__self__), receiver.__name__
    return id(receiver)


def check_callable(receiver: object, what: str) -> None:
    """Refuse at registration what would fail at the first message."""
    if not callable(receiver):
        raise TypeError(f"a {what} must be callable, not {receiver!r:.100}")


def check_receiver(receiver: object) -> None:
    """Raise `TypeError` for what is not a receiver, or would never run."""
    check_callable(receiver, "receiver")
    check_runs(receiver)


def check_runs(function: object) -> None:
    """Raise `TypeError` for a generator function: a message would only make a generator."""
    if _flags(function) & (_GENERATOR | _ASYNC_GENERATOR):
        raise TypeError(
            f"{function!r:.100} is a generator function, of which no line would ever run: a "
            "receiver is a plain or an `async def` function without `yield`"
        )


def check_guard(guard: object) -> None:
    """Raise `TypeError` for what is not a guard, or would let all messages through."""
    check_callable(guard, "guard")
    if _flags(guard) & (_GENERATOR | _COROUTINE | _ASYNC_GENERATOR):
        raise TypeError(
            f"{guard!r:.100} cannot be a guard, as it decides nothing when it is called: write a "
            "plain function, without `async` and `yield`"
        )
