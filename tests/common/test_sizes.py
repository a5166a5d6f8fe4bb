"""About how many bytes a value takes."""

import time
from typing import Any

import pytest

from berrymq_rpc.common.sizes import MAX_OBJECTS, OBJECT, approximate_size


@pytest.mark.parametrize(
    ("value", "least"),
    [
        ("x" * 1000, 1000),
        ("\u1234" * 1000, 1000),
        (b"x" * 1000, 1000),
        (bytearray(1000), 1000),
        (memoryview(bytes(1000)), 1000),
        (1 << 8000, 1000),
        (["x" * 500, {"y" * 250: ("z" * 250,)}], 1000),
        ({1, 2, 3}, 3 * OBJECT),
        (frozenset("abc"), 3 * OBJECT),
        ([0] * 1000, 1000 * OBJECT),
        (dict.fromkeys(range(10)), 20 * OBJECT),
        (None, OBJECT),
        (object(), OBJECT),
    ],
)
def test_is_about_right(value: Any, least: int) -> None:
    assert least <= approximate_size(value) <= least + 12 * OBJECT


def test_what_contains_itself_has_an_end() -> None:
    cycle: list[Any] = [1]
    cycle.append(cycle)
    assert approximate_size(cycle) <= 2 * OBJECT * MAX_OBJECTS


def test_many_objects_are_counted_and_not_looked_at() -> None:
    million: list[Any] = [list(range(100_000)) for _ in range(10)]
    began = time.perf_counter()
    size = approximate_size(million)
    assert time.perf_counter() - began < 0.5
    assert size >= OBJECT * 100_000


def test_runs_no_code_of_the_value() -> None:
    class Hostile(list[Any]):
        def __iter__(self) -> Any:
            raise AssertionError

        def __len__(self) -> int:
            raise AssertionError

    class Text(str):
        def __len__(self) -> int:
            raise AssertionError

    class Data(bytes):
        def __len__(self) -> int:
            raise AssertionError

    assert approximate_size([Hostile(), Text("x" * 100), Data(100)]) >= 200


@pytest.mark.parametrize(
    ("value", "least"),
    [
        (["x" * 100] * 1000, 100_000),
        # The large ones come late.
        ([*range(500), "x" * 1_000_000], 1_000_000),
        (dict.fromkeys(range(1000), b"x" * 100), 100_000),
        ([[[["x" * 1000]]]], 1000),
        ([[*range(1000)] for _ in range(1000)], 20_000_000),
        ([dict.fromkeys(range(1000)) for _ in range(100)], 9_000_000),
    ],
)
def test_is_no_less_for_many_parts(value: Any, least: int) -> None:
    assert least <= approximate_size(value) <= 10 * least
