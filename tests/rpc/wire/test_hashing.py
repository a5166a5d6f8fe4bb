"""The estimate of collisions against the tables that Python makes."""

import sys
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


@pytest.mark.parametrize(("count", "expected"), [(dict_collisions, 10), (set_collisions, 0)])
def test_equal_hashes_collide(count: Any, expected: int) -> None:
    # The first meets none, the second one, and so on. A set looks at ten slots at a time.
    assert count([7] * 5, NO_LIMIT) == expected
    assert count([7] * 1000, NO_LIMIT) > 90_000


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


def capacities(made: Any, size: int) -> list[int]:
    """How many keys a table of Python's has taken each time that it grows."""
    grown = []
    for key in range(size):
        before = sys.getsizeof(made)
        made.add(key) if isinstance(made, set) else made.update({key: None})
        if sys.getsizeof(made) != before and key:
            grown.append(key)
    return grown


def test_tables_grow_as_those_of_python() -> None:
    # Each time that it grows a table is filled anew, and so counted anew: with equal hashes that
    # shows as a leap.
    def leaps(count: Any, size: int) -> list[int]:
        sums = [count([1] * number, NO_LIMIT) for number in range(size)]
        steps = [after - before for before, after in zip(sums, sums[1:], strict=False)]
        return [n for n in range(1, len(steps)) if steps[n] > 2 * steps[n - 1] + 10]

    dict_sizes = [size for size in capacities({}, 700) if size > 20]
    set_sizes = [size for size in capacities(set(), 700) if size > 20]
    assert [size for size in leaps(dict_collisions, 700) if size > 20] == dict_sizes
    # A set grows after the key that fills it.
    assert [size + 1 for size in leaps(set_collisions, 700) if size > 40] == [
        size + 1 for size in set_sizes if size > 40
    ]
