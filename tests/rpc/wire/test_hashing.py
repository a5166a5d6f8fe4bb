"""The estimate of collisions against the tables that Python makes."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berrymq_rpc.errors import ProtocolError
from berrymq_rpc.rpc.wire.hashing import dict_collisions, set_collisions

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
