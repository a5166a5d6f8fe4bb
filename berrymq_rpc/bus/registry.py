"""Who follows what, as programs say it."""

from collections.abc import Callable
from typing import Any, TypeVar

from ..identifier import Identifier
from .condition import Condition, Wanted, cond, one_guard, parts_of
from .directory import Directory
from .follower import Following, add_following
from .registrations import Guard, Receiver

__all__ = ["Registry"]

AnyCallable = TypeVar("AnyCallable", bound=Callable[..., Any])


class Registry:
    """The part of a `Bus` by which programs follow and unfollow."""

    cond = staticmethod(cond)

    def __init__(self) -> None:
        self._directory = Directory()

    def following(
        self,
        identifier: Wanted,
        guard: Guard | None = None,
        *,
        guard_condition: Guard | None = None,
    ) -> Callable[[AnyCallable], AnyCallable]:
        """Decorate a method: each object of its class follows `identifier` from its creation on.

        The class needs ``metaclass=Follower`` or the base class `FollowerBase`. A method may carry
        several of these. With `classmethod` or `staticmethod`, the class follows.

        Args:
            identifier: which messages to receive; or what `cond` makes.
            guard: called with the message first; the method is skipped if it returns false.
            guard_condition: berryMQ's name for `guard`.

        Raises:
            ValueError, TypeError: `identifier` is no identifier, or a guard cannot be called.
        """
        wanted = identifier if isinstance(identifier, Condition) else Identifier(identifier)
        following = Following(self, wanted, one_guard(guard, guard_condition))

        def mark(function: AnyCallable) -> AnyCallable:
            add_following(function, following)
            return function

        return mark

    def following_function(
        self,
        identifier: Wanted,
        guard: Guard | None = None,
        *,
        guard_condition: Guard | None = None,
    ) -> Callable[[AnyCallable], AnyCallable]:
        """Decorate a function: it follows `identifier` from now on.

        Arguments and exceptions are those of `following`.
        """
        parts = parts_of(identifier, one_guard(guard, guard_condition))

        def follow(function: AnyCallable) -> AnyCallable:
            for parsed, own in parts:
                self._directory.follow(parsed, function, own)
            return function

        return follow

    def regist_method(
        self, identifier: Wanted, method: Receiver, guard: Guard | None = None
    ) -> None:
        """Let a bound method follow `identifier` for as long as its object lives.

        The object is held weakly: nothing else may be needed to end the following. Doing it again
        with the same identifier, method and guard changes nothing.

        Raises:
            ValueError, TypeError: `identifier` is no identifier, the method or guard cannot be
                called, or the method's object cannot be referred to weakly.
        """
        for parsed, own in parts_of(identifier, one_guard(guard, None)):
            self._directory.follow(parsed, method, own)

    def regist_function(
        self, identifier: Wanted, function: Receiver, guard: Guard | None = None
    ) -> None:
        """Let a function, or any other callable, follow `identifier`.

        It is held strongly, until `unfollow`; a bound method is held as by `regist_method`. Doing
        it again with the same identifier, function and guard changes nothing.

        Raises:
            ValueError, TypeError: as `regist_method`.
        """
        self.regist_method(identifier, function, guard)

    def unfollow(self, identifier: Wanted, receiver: Receiver) -> int:
        """End the following of `identifier` by `receiver`, whatever its guards.

        A message on its way may still reach the receiver.

        Args:
            identifier: the one that is followed; not one that merely matches it.
            receiver: the function, or the bound method.

        Returns:
            How many followings were ended, 0 if there was none.
        """
        return sum(
            self._directory.unfollow(parsed, receiver) for parsed, _ in parts_of(identifier, None)
        )
