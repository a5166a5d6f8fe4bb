"""The bounds: their defaults, and what is refused."""

import dataclasses
import inspect
import re
from typing import Any

import pytest

from berrymq_rpc.rpc.wire import limits as module
from berrymq_rpc.rpc.wire.limits import CONNECT_TIMEOUT, Limits

FIELDS = {field.name: field for field in dataclasses.fields(Limits)}
WHOLE = sorted(FIELDS.keys() - {"heartbeat"})


def test_each_default_is_a_named_constant() -> None:
    for name, field in FIELDS.items():
        assert field.default == getattr(module, name.upper())


def test_each_field_is_explained() -> None:
    documented = re.findall(r"^ {4}(\w+): ", inspect.getdoc(Limits) or "", re.MULTILINE)
    assert documented == list(FIELDS)


def test_defaults_fit_together() -> None:
    limits = Limits()
    assert limits.window <= limits.max_in_flight
    assert limits.max_message <= limits.max_frame
    # Not one message of the largest size may be over what may be queued.
    assert limits.max_message < limits.max_queued_bytes
    assert limits.max_message <= limits.max_queued_call_bytes
    assert limits.heartbeat < CONNECT_TIMEOUT


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", [0, -1, True, False, None, "5", float("nan"), [], 1j])
def test_refuses_what_is_no_number_above_0(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a number above 0"):
        Limits(**{name: value})


@pytest.mark.parametrize("name", WHOLE)
def test_refuses_fractions_where_things_are_counted(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a whole number, not 2.5"):
        Limits(**{name: 2.5})


@pytest.mark.parametrize("name", FIELDS)
def test_takes_the_least_that_makes_sense(name: str) -> None:
    assert getattr(Limits(**{name: 1}), name) == 1


@pytest.mark.parametrize(
    ("max_message", "max_frame", "largest"), [(100, 1000, 1000), (1000, 100, 4000)]
)
def test_the_largest_frame_of_any_dialect(max_message: int, max_frame: int, largest: int) -> None:
    assert Limits(max_message=max_message, max_frame=max_frame).largest_frame == largest


def test_a_heartbeat_may_be_a_fraction() -> None:
    assert Limits(heartbeat=0.25).heartbeat == 0.25


def test_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Limits().window = 1  # type: ignore[misc]
