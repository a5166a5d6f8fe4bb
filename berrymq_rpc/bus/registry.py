"""How programs follow and unfollow: the part of `Bus` that keeps the registrations."""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

from ..identifier import Identifier
from .condition import Condition, Wanted, cond, one_guard, parts_of
from .follower import Following, add_following, warn_of_ignored_metaclass
from .registrations import Guard, Receiver, check_runs
from .routing_table import RoutingTable

__all__ = ["Registry"]

AnyCallable = TypeVar("AnyCallable", bound=Callable[..., Any])


class Registry:
    """Lets methods and functions follow identifiers."""

    cond = staticmethod(cond)

    def __init__(self) -> None:
        self._routing_table = RoutingTable()

    def following(
        self,
        identifier: Wanted,
        guard: Guard | None = None,
        *,
        guard_condition: Guard | None = None,
    ) -> Callable[[AnyCallable], AnyCallable]:
        """Decorate a method: each object of its class follows `identifier` from its creation on.

        The class needs ``metaclass=Follower`` or the base class `FollowerBase`. A method may have
        several of these decorators. With `classmethod` or `staticmethod`, the class follows.

        Args:
            identifier: which messages to receive; or the result of `cond`.
            guard: called with the message first; the method is skipped if it returns false.
            guard_condition: berryMQ's name for `guard`.

        Raises:
            ValueError, TypeError: `identifier` is not an identifier; a guard is not callable, or is
                ``async def`` or a generator function; the method is a generator function.

        Warns:
            RuntimeWarning: the class has ``__metaclass__``, as in Python 2: it follows nothing.
        """
        wanted = identifier if isinstance(identifier, Condition) else Identifier(identifier)
        following = Following(self.regist_method, wanted, one_guard(guard, guard_condition))

        def mark(function: AnyCallable) -> AnyCallable:
            # Not when an object is made, which may be far away and much later.
            check_runs(getattr(function, "__func__", function))
            add_following(function, following)
            warn_of_ignored_metaclass(sys._getframe(1))
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
                self._routing_table.follow(parsed, function, own)
            return function

        return follow

    def regist_method(
        self, identifier: Wanted, method: Receiver, guard: Guard | None = None
    ) -> None:
        """Let a bound method follow `identifier` for as long as its object lives.

        The object is held weakly. A second call with the same identifier, method and guard changes
        nothing.

        Raises:
            ValueError, TypeError: `identifier` is not an identifier; the method or guard is not
                callable, or is a generator function; the guard is ``async def``; or the method's
                object does not support weak references.
        """
        for parsed, own in parts_of(identifier, one_guard(guard, None)):
            self._routing_table.follow(parsed, method, own)

    def regist_function(
        self, identifier: Wanted, function: Receiver, guard: Guard | None = None
    ) -> None:
        """Let a function, or any other callable, follow `identifier`.

        It is held strongly, until `unfollow`; a bound method is held as by `regist_method`. A
        second call with the same identifier, function and guard changes nothing.

        Raises:
            ValueError, TypeError: as `regist_method`.
        """
        self.regist_method(identifier, function, guard)

    def unfollow(self, identifier: Wanted, receiver: Receiver) -> int:
        """Remove the registrations of `receiver` for `identifier`, whatever their guards.

        A message that is being delivered may still reach the receiver.

        Args:
            identifier: the identifier that was followed; one that merely matches it does nothing.
            receiver: the function, or the bound method.

        Returns:
            How many registrations were removed.
        """
        unfollow = self._routing_table.unfollow
        return sum(unfollow(parsed, receiver) for parsed, _ in parts_of(identifier, None))
