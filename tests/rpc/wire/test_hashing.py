"""The estimate of collisions against the tables that Python makes."""

import sys
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berrymq_rpc.errors import ProtocolError
from berrymq_rpc.rpc.wire.hashing import (
    MAX_COLLISIONS,
    comparisons,
    dict_collisions,
    set_collisions,
)

NO_LIMIT = 10**9
MODULUS = 2**61 - 1


@pytest.mark.parametrize("count", [dict_collisions, set_collisions])
def test_numbers_in_a_row_do_not_collide(count: Any) -> None:
    for size in (0, 1, 5, 6, 85, 86, 1000, 100_000):
        assert count(list(range(size)), 0) == 0


def test_equal_hashes_collide() -> None:
    # The first meets none, the second one, and so on.
    assert dict_collisions([7] * 5, NO_LIMIT) == 10
    assert dict_collisions([7] * 1000, NO_LIMIT) > 1000**2 / 2
    # A set looks at ten slots at a time, each step of which counts twice.
    assert set_collisions([7] * 1000, NO_LIMIT) > 1000**2 / 10


@pytest.mark.parametrize("count", [dict_collisions, set_collisions])
def test_limit(count: Any) -> None:
    hashes = [1] * 100
    needed = count(hashes, NO_LIMIT)
    assert count(hashes, needed) == needed
    with pytest.raises(ProtocolError, match="collide"):
        count(hashes, needed - 1)


@pytest.mark.parametrize("count", [dict_collisions, set_collisions])
def test_usual_keys_pass(count: Any) -> None:
    for keys in (
        [number * 1000 for number in range(20_000)],
        [(number, number + 1) for number in range(20_000)],
        [number / 100 for number in range(20_000)],
        [-number for number in range(20_000)],
    ):
        assert count(list(map(hash, keys)), NO_LIMIT) < 12 * len(keys)


def steps(*keys: Any, limit: float = NO_LIMIT) -> float:
    return comparisons(keys, [hash(key) for key in keys], limit)


def huge(size: int, number: int = 1) -> int:
    """A whole number of so many bytes with the hash of another."""
    return number + MODULUS * ((1 << (8 * (size - 8))) - 1)


def test_keys_with_hashes_of_their_own_are_not_compared() -> None:
    assert steps(*range(1000), 1.5, Decimal("2.5"), huge(10_000, 7000), (1, 2), None, 0) == 1
    assert steps() == steps(1) == 0


def test_the_steps_of_comparisons() -> None:
    assert steps(-1, -2) == 1
    assert steps(*(1 + number * MODULUS for number in range(100))) == 100 * 99 / 2
    # The larger they are, the longer it takes.
    assert steps(huge(1_000_000), huge(1_000_008)) == pytest.approx(2000, rel=0.01)
    assert steps((huge(1_000_000), 1), (1, 1)) == pytest.approx(2000, rel=0.01)
    same = UUID(int=1), UUID(int=1 + MODULUS)
    assert steps(*same) > steps(1, 1 + MODULUS)
    assert steps(1.0, Decimal(1)) > steps(1, Decimal(1))


@pytest.mark.parametrize(
    "wrapped", [lambda key: key, lambda key: (key, 2), lambda key: (("text", key), b"x")]
)
def test_a_whole_number_and_a_decimal_take_the_square(wrapped: Any) -> None:
    one = wrapped(Decimal(1))
    assert steps(wrapped(huge(100)), one) < 50
    assert steps(wrapped(huge(20_000)), one) > 3 * steps(wrapped(huge(10_000)), one)
    with pytest.raises(ProtocolError, match="collide"):
        steps(wrapped(huge(20_000)), one, limit=MAX_COLLISIONS)
    # Without it, or beside another number, it is a key like others.
    assert steps(wrapped(huge(20_000)), wrapped(huge(30_000))) < 100
    assert steps(wrapped(huge(20_000)), wrapped(Decimal(2))) == 0


def test_the_estimate_bounds_the_time() -> None:
    """Whatever passes is compared within a moment: of each kind the most that does."""
    for make in (
        lambda count: [1 + number * MODULUS for number in range(count)],
        lambda count: [huge(1000) + number * MODULUS for number in range(count)],
        lambda count: [huge(8 + count), Decimal(1)],
        lambda count: [huge(100), *(Decimal(1 + n * MODULUS) for n in range(count))],
        lambda count: [UUID(int=1 + number * MODULUS) for number in range(count)],
        lambda count: [1e-300, *(Decimal(hash(1e-300) + n * MODULUS) for n in range(count))],
    ):
        count = 1
        while True:
            try:
                steps(*make(2 * count), limit=MAX_COLLISIONS)
            except ProtocolError:
                break
            count *= 2
        keys = make(count)
        began = time.perf_counter()
        assert len(set(keys)) > 0
        # Some tens of milliseconds, on a machine that is busy with other things.
        assert time.perf_counter() - began < 2


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=200))
def test_any_hashes(hashes: list[int]) -> None:
    assert dict_collisions(hashes, NO_LIMIT) >= 0
    assert set_collisions(hashes, NO_LIMIT) >= 0


def growth(made: Any, add: Callable[[int], None], size: int) -> list[int]:
    """With how many keys a dict or set of Python's takes more memory."""
    grown = []
    for number in range(size):
        before = sys.getsizeof(made)
        add(number)
        if number > 20 and sys.getsizeof(made) != before:
            grown.append(number + 1)
    return grown


def capacity_of(count: Any, size: int) -> list[int]:
    """The same by the estimate: where a key more makes all others be filled in anew."""
    sums = [count([1] * number, NO_LIMIT) for number in range(size + 1)]
    return [
        number
        for number in range(22, size + 1)
        if sums[number] - sums[number - 1] > 2 * (sums[number - 1] - sums[number - 2]) + 10
    ]


def test_tables_grow_as_those_of_python() -> None:
    made: dict[int, None] = {}
    grown = growth(made, lambda key: made.__setitem__(key, None), 200)
    assert grown == [22, 43, 86, 171]
    assert capacity_of(dict_collisions, 200) == grown
    members: set[int] = set()
    assert growth(members, members.add, 400) == [77, 307]
    assert capacity_of(set_collisions, 400) == [77, 307]
