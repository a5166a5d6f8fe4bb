"""Numbers of other libraries, such as numpy's scalars, as the builtin numbers that they equal."""

import numbers
import operator
from collections.abc import Callable
from typing import Any, TypeAlias

__all__ = ["is_number", "plain_number"]

Plain: TypeAlias = int | float | complex

#: numpy's truth values, which are no `numbers.Number`, by their full names in numpy 1 and 2.
_TRUTH_VALUES = (("numpy", "bool_"), ("numpy", "bool"))


def is_number(cls: type) -> bool:
    """Return whether the objects of a class are numbers, or truth values of numpy's."""
    return issubclass(cls, numbers.Number) or (cls.__module__, cls.__name__) in _TRUTH_VALUES


def plain_number(value: Any) -> Plain | None:
    """Return the builtin number that is equal to a number, or ``None`` where there is none.

    A whole number becomes an `int`, another real one a `float`, and a fraction that no float is
    equal to, but an int is, an `int`. Never raises an `Exception`.
    """
    cls = type(value)
    if issubclass(cls, numbers.Integral):
        # By its index: a span of time of numpy's counts as integral as well, and has none.
        return _converted(value, operator.index)
    if issubclass(cls, numbers.Real):
        plain = _converted(value, float)
        return _converted(value, int) if plain is None else plain
    if issubclass(cls, numbers.Complex):
        return _converted(value, complex)
    if (cls.__module__, cls.__name__) in _TRUTH_VALUES:
        return bool(value)
    return None


def _converted(value: Any, convert: Callable[[Any], Plain]) -> Plain | None:
    try:
        plain = convert(value)
        # What is not equal to itself is not a number, on either side.
        return plain if plain == value or (plain != plain and value != value) else None
    except Exception:
        # Too large for a float, for one.
        return None
