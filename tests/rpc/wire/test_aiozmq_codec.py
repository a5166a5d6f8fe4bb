"""The codec for plain aiozmq.rpc peers, against the packer of aiozmq.rpc itself."""

import datetime
import decimal
import pickle
import sys
import uuid
from types import ModuleType
from typing import Any
from zoneinfo import ZoneInfo

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from berrymq_rpc.errors import ProtocolError
from berrymq_rpc.rpc.wire.aiozmq_codec import AiozmqCodec
from berrymq_rpc.rpc.wire.translation import dataclass_translation


class Point:
    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and self.x == other.x

    __hash__ = None  # type: ignore[assignment]


TABLE = {3: (Point, lambda point: bytes([point.x]), lambda data: Point(data[0]))}
CODEC = AiozmqCodec(TABLE)

OFFSETS = st.timedeltas(datetime.timedelta(hours=-23), datetime.timedelta(hours=23))
ZONES = st.one_of(
    st.builds(datetime.timezone, OFFSETS),
    st.sampled_from([datetime.UTC, ZoneInfo("Europe/Berlin")]),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.binary(max_size=20),
    st.dates(),
    st.datetimes(timezones=st.one_of(st.none(), ZONES)),
    st.times(timezones=st.one_of(st.none(), ZONES)),
    st.timedeltas(),
    ZONES,
    st.builds(Point, st.integers(0, 255)),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=10).map(tuple),
        st.dictionaries(st.one_of(st.text(max_size=5), st.binary(max_size=5)), inner, max_size=4),
    ),
    max_leaves=15,
)


@pytest.fixture(scope="module")
def peer(plain_aiozmq: ModuleType) -> Any:
    """The packer of a plain peer."""
    return sys.modules["aiozmq.rpc.packer"]._Packer(translation_table=TABLE)


@given(value=VALUES)
def test_the_peer_unpacks_what_is_packed(value: Any, peer: Any) -> None:
    assert peer.unpackb(CODEC.pack(value)) == value


@given(value=VALUES)
def test_what_the_peer_packs_is_unpacked(value: Any, peer: Any) -> None:
    packed = peer.packb(value)
    assert CODEC.unpack(packed) == value
    assert AiozmqCodec(TABLE, use_list=True).unpack(packed) is not None or value is None


@given(VALUES)
def test_what_is_packed_comes_back(value: Any) -> None:
    for pack in (CODEC.pack, CODEC.fast_pack):
        assert CODEC.unpack(pack(value)) == value
    assert CODEC.pack_with_frames(value, 1) == (CODEC.pack(value), [])


def test_harmless_values_of_other_peers() -> None:
    packed = msgpack.packb({1: 2, (1, 2): b"x", None: 3})
    assert CODEC.unpack(packed) == {1: 2, (1, 2): b"x", None: 3}
    assert CODEC.unpack(b"\xa3\xed\xa0\x80") == "\ud800"
    assert CODEC.unpack(b"\xd4\x05x") == msgpack.ExtType(5, b"x")


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ({1: 2}, "value: this peer takes only text and bytes as keys"),
        ([{"a": {(1, 2): 2}}], r"value\[0\]\['a'\]: this peer takes only text and bytes as keys"),
        (
            [1, {"a": {None: 1}}, object()],
            r"value\[1\]\['a'\]: this peer takes only text and bytes",
        ),
        ("\ud800", "value: text with lone surrogates"),
        ([1, {"k": "\ud800"}], r"value\[1\]\['k'\]: text with lone surrogates"),
        ([1, {"\ud800": 1}], r"key '\\ud800' of value\[1\]: text with lone surrogates"),
        ({1}, "builtins.set cannot be packed"),
        ([decimal.Decimal(1)], r"value\[0\]: decimal.Decimal cannot be packed"),
        (uuid.UUID(int=1), "uuid.UUID cannot be packed"),
        (1j, "builtins.complex cannot be packed"),
        ([2**70], r"value\[0\]: builtins.int .* whole numbers of up to 64 bits"),
        ((object(), 1), r"value\[0\]: builtins.object cannot be packed"),
    ],
)
def test_what_the_peer_could_not_unpack(value: Any, complaint: str) -> None:
    with pytest.raises(TypeError, match=complaint):
        CODEC.pack(value)
    with pytest.raises((TypeError, ValueError)):
        CODEC.fast_pack(value)
    with pytest.raises(TypeError, match=complaint):
        CODEC.pack_with_frames(value, 1)


def deep(levels: int) -> Any:
    value: Any = ()
    for _ in range(levels - 1):
        value = {"x": value} if levels % 2 else (value,)
    return value


@pytest.mark.parametrize("levels", [101, 102, 1024, 1025, 3000])
def test_depth(levels: int) -> None:
    with pytest.raises(ValueError, match="contains itself, or is nested more than 100 levels"):
        CODEC.pack(deep(levels))


def test_the_peer_unpacks_what_is_as_deep_as_allowed(peer: Any) -> None:
    assert peer.unpackb(CODEC.pack(deep(100))) == deep(100)


@pytest.mark.parametrize(
    "value", [None, 1, "text", (1, "a", None), (1,) * 100, {}, {"a": [b"x"]}, [[1], [2]]]
)
def test_plain_values(value: Any, peer: Any) -> None:
    assert CODEC.pack(value) == peer.packb(value)


@pytest.mark.parametrize("code", range(123, 128))
def test_pickles_that_are_no_dates(code: int) -> None:
    for data in (b"", b"N.", pickle.dumps(Point), b"cos\nsystem\n(Vtrue\ntR."):
        with pytest.raises(ProtocolError, match=f"ext value of type {code}: not a pickled date"):
            CODEC.unpack(msgpack.packb(msgpack.ExtType(code, data)))


def test_any_of_the_five_codes_may_hold_any_date() -> None:
    # The peer's own table looks at the class that it finds first.
    data = pickle.dumps(datetime.date(2020, 1, 1))
    for code in range(123, 128):
        packed = msgpack.packb(msgpack.ExtType(code, data))
        assert CODEC.unpack(packed) == datetime.date(2020, 1, 1)


def test_there_are_no_frames() -> None:
    with pytest.raises(ProtocolError):
        CODEC.unpack(b"\xd4\x7f\x00", [b"frame"])


def test_nested_translation() -> None:
    import dataclasses

    @dataclasses.dataclass
    class Box:
        inside: Any

    codec = AiozmqCodec({1: dataclass_translation(Box)})
    value = [Box((Box(1), {"d": datetime.date(2020, 1, 1)}))]
    assert codec.unpack(codec.pack(value)) == tuple(value)
    with pytest.raises(TypeError, match="keys of a map"):
        codec.pack(Box({1: 2}))
