"""Levels of nesting are counted exactly, at all sizes."""

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from berrymq_rpc.rpc.wire.depth import DepthLimit


def levels_of(value: Any) -> int:
    if isinstance(value, list):
        return 1 + max(map(levels_of, value), default=0)
    if isinstance(value, dict):
        return 1 + max(map(levels_of, value.values()), default=0)
    return 0


VALUES = st.recursive(
    st.one_of(st.integers(), st.binary(max_size=200)).filter(
        lambda value: isinstance(value, bytes) or -(2**63) <= value < 2**64
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=30,
)


@given(VALUES, st.integers(1, 6))
def test_the_exact_number_of_levels(value: Any, levels: int) -> None:
    assert DepthLimit(levels).is_exceeded(msgpack.packb(value)) is (levels_of(value) > levels)


@pytest.mark.parametrize("levels", [1, 2, 99, 100, 101, 999, 1000])
@pytest.mark.parametrize(
    "unit", [b"\x91", b"\x81\x01", b"\xdc\x00\x01", b"\xdf\x00\x00\x00\x01\x01"]
)
@pytest.mark.parametrize("filling", [b"\xc0", b"\xc5\x10\x00" + b"x" * 4096])
def test_at_the_limit(levels: int, unit: bytes, filling: bytes) -> None:
    limit = DepthLimit(levels)
    assert not limit.is_exceeded(unit * levels + filling)
    assert limit.is_exceeded(unit * (levels + 1) + filling)
    # An empty one is a level too.
    assert not limit.is_exceeded(unit * (levels - 1) + b"\x90")
    assert limit.is_exceeded(unit * levels + b"\x80")


@pytest.mark.parametrize("data", [b"", b"\x91" * 90, b"\x9f" + b"\x01" * 5, b"\xc1" * 100])
def test_short_ones_are_not_looked_at(data: bytes) -> None:
    for buffer in (data, bytearray(data), memoryview(data)):
        assert not DepthLimit(100).is_exceeded(buffer)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"\xc1" * 2000, msgpack.FormatError),
        (b"\xdc\xff\xff" + b"\x01" * 2000, msgpack.OutOfData),
        (b"\xdd\x00\x0f\xff\xff" * 50 + b"\x01" * 100_000, msgpack.OutOfData),
        (b"\xc6\xff\xff\xff\xff" + bytes(2000), msgpack.OutOfData),
    ],
)
def test_lengths_that_are_lies(data: bytes, error: type[Exception]) -> None:
    for buffer in (data, bytearray(data), memoryview(data)):
        with pytest.raises(error):
            DepthLimit(100).is_exceeded(buffer)


def test_headers_in_other_values_are_none() -> None:
    data = msgpack.packb([b"\x91" * 1000])
    assert not DepthLimit(5).is_exceeded(data)


@pytest.mark.parametrize("levels", [0, -5, 1001])
def test_levels_out_of_range(levels: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 1,000"):
        DepthLimit(levels)
