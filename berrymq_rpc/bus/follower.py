"""Classes whose methods follow: by a metaclass, or by a base class that needs none."""

import functools
import warnings
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NamedTuple, Self

from .condition import Wanted
from .registrations import Guard, Receiver

__all__ = [
    "Follower",
    "FollowerBase",
    "Following",
    "add_following",
    "warn_of_ignored_metaclass",
]

#: The attribute of a function with its `Following`s, and that of a class with its methods that
#: follow, which are collected when the first object is made.
_ATTRIBUTE = "_berrymq_followings"
_METHODS = "_berrymq_following_methods"


class Following(NamedTuple):
    """What the decorator `following` notes on a method.

    Attributes:
        follow: `Bus.regist_method` of the decorator's bus.
        wanted: the identifier or condition.
        guard: the guard, or `None`.
    """

    follow: Callable[[Wanted, Receiver, Guard | None], None]
    wanted: Wanted
    guard: Guard | None


def add_following(function: Any, following: Following) -> None:
    """Mark a method, class method or static method as one that follows."""
    if isinstance(function, classmethod | staticmethod):
        function = function.__func__
    # A new tuple for each: `functools.wraps` hands the old one on to another function.
    setattr(function, _ATTRIBUTE, (*getattr(function, _ATTRIBUTE, ()), following))


def warn_of_ignored_metaclass(frame: FrameType) -> None:
    """Warn if the class whose body runs in a frame sets ``__metaclass__``, as in Python 2."""
    body = frame.f_locals
    if "__metaclass__" not in body or "__qualname__" not in body:
        return
    name = body["__qualname__"]
    warnings.warn_explicit(
        f"Python 3 ignores __metaclass__, so that {name} follows nothing: write "
        f"class {name.rpartition('.')[2]}(metaclass=Follower), and delete that line",
        RuntimeWarning,
        frame.f_code.co_filename,
        frame.f_lineno,
        module=frame.f_globals.get("__name__", "<unknown>"),
    )


class Follower(type):
    """The metaclass of classes whose methods are decorated with `following`.

    An object follows from the end of its ``__init__`` until it is collected; one that was made
    without ``__init__``, as by `copy`, does not follow. An overridden method follows only if the
    override is decorated itself. Class methods and static methods follow once, from the creation
    of their class on.
    """

    def __init__(
        cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **keywords: Any
    ) -> None:
        super().__init__(name, bases, namespace, **keywords)
        _follow_with_class(cls)

    def __call__(cls, /, *args: Any, **kwargs: Any) -> Any:
        instance = super().__call__(*args, **kwargs)
        _follow_with_object(instance)
        return instance


class FollowerBase:
    """The base of classes whose methods are decorated with `following`, without a metaclass.

    For classes that have another metaclass; otherwise it does what `Follower` does. It must be the
    first of the bases.
    """

    __slots__ = ()

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        _follow_with_class(cls)

    def __new__(cls, /, *args: Any, **kwargs: Any) -> Self:
        # Only an `__init__` around the class's own knows the end of construction. It is put there
        # now, not when the class is created: `dataclass` and the like add theirs later.
        if getattr(cls.__init__, "_follows", None) is not cls:
            setattr(cls, "__init__", _following_initializer(cls))  # noqa: B010
        make = super().__new__
        return make(cls) if make is object.__new__ else make(cls, *args, **kwargs)


def _following_initializer(cls: type[FollowerBase]) -> Callable[..., None]:
    """An `__init__` that does what that of `cls` does, and then lets the object follow."""
    inherited = "__init__" not in vars(cls)
    present = cls.__init__

    @functools.wraps(present)
    def initialize(self: FollowerBase, /, *args: Any, **kwargs: Any) -> None:
        if not inherited:
            present(self, *args, **kwargs)
        elif present is not object.__init__:
            super(cls, self).__init__(*args, **kwargs)
        elif (args or kwargs) and _makes_plain_objects(cls):
            raise TypeError(f"{cls.__name__}() takes no arguments")
        # An object of a subclass is not complete yet.
        if type(self) is cls:
            _follow_with_object(self)

    setattr(initialize, "_follows", cls)  # noqa: B010
    return initialize


def _makes_plain_objects(cls: type[FollowerBase]) -> bool:
    """Whether there is no `__new__` that takes the arguments of a missing `__init__`."""
    return (
        cls.__new__ is FollowerBase.__new__ and super(FollowerBase, cls).__new__ is object.__new__
    )


def _follow_with_object(instance: object) -> None:
    cls = type(instance)
    methods = cls.__dict__.get(_METHODS)
    if methods is None:
        methods = tuple(_following_methods(cls))
        # In the class itself: functions may refer to the class that they were written in, so that a
        # table of them anywhere else would keep it alive.
        type.__setattr__(cls, _METHODS, methods)
    for function, followings in methods:
        method = function.__get__(instance, cls)
        for follow, wanted, guard in followings:
            follow(wanted, method, guard)


def _following_methods(cls: type) -> Iterator[tuple[Any, tuple[Following, ...]]]:
    seen: set[str] = set()
    for base in cls.__mro__:
        for name, value in vars(base).items():
            if name in seen:
                continue
            seen.add(name)
            followings = _followings(value)
            if followings and not isinstance(value, classmethod | staticmethod):
                yield value, followings


def _follow_with_class(cls: type) -> None:
    for value in tuple(vars(cls).values()):
        if isinstance(value, classmethod | staticmethod):
            for follow, wanted, guard in _followings(value.__func__):
                follow(wanted, value.__get__(None, cls), guard)


def _followings(function: Any) -> tuple[Following, ...]:
    # Not by `getattr`: a class has attributes of any kind, and some claim to have any attribute.
    attributes = getattr(function, "__dict__", {})
    return attributes.get(_ATTRIBUTE, ())  # type: ignore[no-any-return]
