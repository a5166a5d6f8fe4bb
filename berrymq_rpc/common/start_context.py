"""The context variables of what runs for others: each begins with those of the start.

What a handler sets in its context must not be seen by the next call, which may be another peer's.
A copy of the context does that for variables. It does not for the context of `decimal`, which is
one object that its users change.
"""

import contextvars
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

__all__ = ["StartContext"]

#: The name of the variable in which `decimal` keeps its context.
_DECIMAL = "decimal_context"

#: What makes up a context of `decimal`, but for its flags.
_SETTINGS = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp", "traps")

_Copier: TypeAlias = Callable[[], contextvars.Context]


class StartContext:
    """The context in which it is made, of which each call and each message gets a copy.

    Attributes:
        new: returns such a copy.
    """

    __slots__ = ("_has_decimal", "new")

    def __init__(self) -> None:
        context = contextvars.copy_context()
        settings = next((value for name, value in _by_name(context) if name == _DECIMAL), None)
        self._has_decimal = settings is not None and not _is_default(settings)
        if settings is not None and not self._has_decimal:
            # Each copy makes one of its own when it needs one, which most never do.
            context = _without_decimal(context)
        elif settings is not None:
            # The program may change its own later.
            context = _with_own_decimal(context)
        self.new: _Copier = self.copier(context)

    def copier(self, context: contextvars.Context) -> _Copier:
        """Return what makes copies of a context that `new` has made."""
        return partial(_with_own_decimal, context) if self._has_decimal else context.copy


def _by_name(context: contextvars.Context) -> list[tuple[str, Any]]:
    return [(variable.name, value) for variable, value in context.items()]


def _is_default(settings: Any) -> bool:
    # A variable of another module may have the same name.
    import decimal

    return isinstance(settings, decimal.Context) and all(
        getattr(settings, name) == getattr(decimal.DefaultContext, name) for name in _SETTINGS
    )


def _without_decimal(context: contextvars.Context) -> contextvars.Context:
    kept = contextvars.Context()
    for variable, value in context.items():
        if variable.name != _DECIMAL:
            kept.run(variable.set, value)
    return kept


def _with_own_decimal(context: contextvars.Context) -> contextvars.Context:
    copy = context.copy()
    copy.run(_own_decimal)
    return copy


def _own_decimal() -> None:
    import decimal

    decimal.setcontext(decimal.getcontext().copy())
