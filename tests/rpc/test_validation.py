"""Checks of arguments."""

from math import inf, nan
from typing import Any

import pytest

from berrymq_rpc.rpc.validation import checked_seconds, checked_timeout


@pytest.mark.parametrize("value", [None, inf, float("inf"), 10**400])
def test_no_timeout(value: Any) -> None:
    """Infinity says the same as `None`: it has no place in a deadline that travels."""
    assert checked_timeout(value) is None


@pytest.mark.parametrize("value", [1, 0.001, 1e300, 10**20])
def test_timeouts(value: Any) -> None:
    assert checked_timeout(value) == value
    assert type(checked_timeout(value)) is float


@pytest.mark.parametrize("value", [0, -1, -0.0, -inf, nan])
def test_timeouts_that_are_none(value: Any) -> None:
    with pytest.raises(ValueError, match="timeout must be above 0 seconds"):
        checked_timeout(value)


@pytest.mark.parametrize("value", [True, "1", b"1", [1], 1j, object])
def test_what_is_no_number(value: Any) -> None:
    with pytest.raises(TypeError, match="timeout must be a number of seconds"):
        checked_timeout(value)


@pytest.mark.parametrize("value", [inf, 10**400])
def test_endless_seconds(value: Any) -> None:
    assert checked_seconds(value, "grace") == inf


def test_zero() -> None:
    assert checked_seconds(0, "grace", zero=True) == 0
    with pytest.raises(ValueError, match="grace must be 0 seconds or more"):
        checked_seconds(-1, "grace", zero=True)
