"""Conditions: an identifier with a guard, or several of these that must all be met."""

import threading
from typing import TypeAlias

from ..identifier import Identifier
from .message import Message
from .registrations import Guard, admits, check_guard

__all__ = ["Condition", "Part", "Wanted", "cond", "one_guard", "parts_of"]

Part: TypeAlias = tuple[Identifier, Guard | None]


class Condition:
    """An identifier with a guard of its own, as `cond` makes it.

    It can be followed wherever an identifier can. Several of them joined by ``&`` are met when a
    message of each has come, in any order: the receiver is called with the last one, and the
    condition starts again. Each receiver has a state of its own.
    """

    __slots__ = ("parts",)

    def __init__(self, parts: tuple[Part, ...]) -> None:
        self.parts = parts

    def __and__(self, other: object) -> "Condition":
        if isinstance(other, Condition):
            return Condition(self.parts + other.parts)
        return NotImplemented

    def __repr__(self) -> str:
        return " & ".join(
            f"cond({str(identifier)!r}{'' if guard is None else ', ...'})"
            for identifier, guard in self.parts
        )


Wanted: TypeAlias = Identifier | str | Condition


def cond(
    identifier: Identifier | str,
    guard: Guard | None = None,
    *,
    guard_condition: Guard | None = None,
) -> Condition:
    """An identifier together with a guard, to be followed instead of an identifier::

        @following_function(cond("door:open") & cond("light:off", lambda m: m.room == "hall"))
        def warn(message): ...

    Args:
        identifier: which messages meet it.
        guard: called with the message; the condition is not met if it returns false.
        guard_condition: berryMQ's name for `guard`.

    Raises:
        ValueError, TypeError: `identifier` is not an identifier; or the guard is not callable, or
            is ``async def`` or a generator function.
    """
    return Condition(((Identifier(identifier), one_guard(guard, guard_condition)),))


class Join:
    """Which parts of a condition have come since it was last met."""

    __slots__ = ("_count", "_lock", "_met")

    def __init__(self, count: int) -> None:
        self._count = count
        self._met: set[int] = set()
        # Reentrant: garbage collection may send a message at any point.
        self._lock = threading.RLock()

    def guard(self, number: int, own: Guard | None) -> Guard:
        """The guard of one part: it passes the message that completes the condition."""

        def passes(message: Message) -> bool:
            if own is not None and not admits(own, message):
                return False
            with self._lock:
                self._met.add(number)
                if len(self._met) < self._count:
                    return False
                self._met.clear()
                return True

        return passes


def parts_of(wanted: Wanted, guard: Guard | None) -> tuple[Part, ...]:
    """The identifiers that one receiver follows for `wanted`, each with its guard.

    Raises:
        ValueError, TypeError: `wanted` is not an identifier.
    """
    if not isinstance(wanted, Condition):
        return ((Identifier(wanted), guard),)
    parts = [(identifier, _both(own, guard)) for identifier, own in wanted.parts]
    if len(parts) == 1:
        return tuple(parts)
    join = Join(len(parts))
    return tuple(
        (identifier, join.guard(number, own)) for number, (identifier, own) in enumerate(parts)
    )


def one_guard(guard: Guard | None, guard_condition: Guard | None) -> Guard | None:
    """The guard, by either of its two names.

    Raises:
        TypeError: both are given, or it is not callable, or it is ``async def`` or a generator
            function, which decides nothing when it is called.
    """
    if guard is not None and guard_condition is not None:
        raise TypeError("guard and guard_condition are two names of one argument: give only one")
    chosen = guard_condition if guard is None else guard
    if chosen is not None:
        check_guard(chosen)
    return chosen


def _both(first: Guard | None, second: Guard | None) -> Guard | None:
    if first is None or second is None:
        return second if first is None else first
    return lambda message: admits(first, message) and admits(second, message)
