"""`StartContext`: variables and the context of `decimal`, for each copy its own."""

import contextvars
import decimal
from contextvars import ContextVar

import pytest

from berrymq_rpc.common.start_context import StartContext

user: ContextVar[str] = ContextVar("user", default="nobody")


def in_own_context(make: object) -> StartContext:
    """A `StartContext` that was made where `make` has been called."""

    def run() -> StartContext:
        if callable(make):
            make()
        return StartContext()

    return contextvars.Context().run(run)


def test_each_copy_begins_with_the_variables_of_the_start() -> None:
    start = in_own_context(lambda: user.set("starter"))
    first = start.new()
    assert first.run(user.get) == "starter"
    first.run(user.set, "alice")
    assert start.new().run(user.get) == "starter"
    copies = start.copier(first)
    assert copies().run(user.get) == "alice"
    copies().run(user.set, "bob")
    assert copies().run(user.get) == "alice"


def precise() -> None:
    decimal.setcontext(decimal.Context(prec=9, rounding=decimal.ROUND_DOWN))


@pytest.mark.parametrize(
    ("setting", "precision"),
    [(None, 28), (decimal.getcontext, 28), (precise, 9)],
    ids=["untouched", "used", "set"],
)
def test_each_copy_has_a_decimal_context_of_its_own(setting: object, precision: int) -> None:
    start = in_own_context(setting)
    copies = start.copier(start.new())

    def spoil() -> int:
        had = decimal.getcontext().prec
        decimal.getcontext().prec = 3
        decimal.getcontext().traps[decimal.Inexact] = True
        return had

    for copy in (start.new, copies, start.new, copies):
        assert copy().run(spoil) == precision


def test_settings_of_the_start_are_kept_whole() -> None:
    start = in_own_context(precise)
    context = start.new().run(decimal.getcontext)
    assert (context.prec, context.rounding) == (9, decimal.ROUND_DOWN)


def test_another_variable_of_that_name_is_left_alone() -> None:
    other: ContextVar[str] = ContextVar("decimal_context")
    start = in_own_context(lambda: other.set("mine"))
    assert start.new().run(other.get) == "mine"


def test_variables_stay_where_decimal_has_its_defaults() -> None:
    def make() -> None:
        user.set("starter")
        decimal.setcontext(decimal.Context())

    assert in_own_context(make).new().run(user.get) == "starter"
