"""What is packed comes back equal, and no bytes make the codec do anything but answer."""

import dataclasses
import datetime
import enum
import gc
import os
import pickle
import struct
import time
import uuid
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from berrymq_rpc.errors import ProtocolError
from berrymq_rpc.rpc.wire.codec import Codec
from berrymq_rpc.rpc.wire.translation import dataclass_translation, enum_translation


@dataclasses.dataclass(frozen=True)
class Point:
    x: Any
    y: Any = None


class Colour(enum.Enum):
    RED = object()
    BLUE = "blue"


class Plain:
    """A user's type with a packer of bytes."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plain) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


TABLE = {
    0: (
        Plain,
        lambda value: value.text.encode("utf-8", "surrogatepass"),
        lambda data: Plain(data.decode("utf-8", "surrogatepass")),
    ),
    1: dataclass_translation(Point),
    122: enum_translation(Colour),
}
CODEC = Codec(TABLE)
LISTS = Codec(TABLE, use_list=True)

TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
OFFSETS = st.timedeltas(
    datetime.timedelta(hours=-23, minutes=-59), datetime.timedelta(hours=23, minutes=59)
)
ZONES = st.one_of(
    st.none(),
    st.builds(datetime.timezone, OFFSETS),
    st.builds(datetime.timezone, OFFSETS, TEXT),
    st.sampled_from([ZoneInfo("Europe/Berlin"), ZoneInfo("UTC"), ZoneInfo("Asia/Kolkata")]),
)
# Far enough from both ends of the calendar for every offset.
DATETIMES = st.datetimes(
    datetime.datetime(2, 1, 1), datetime.datetime(9998, 1, 1), timezones=ZONES
).flatmap(lambda value: st.sampled_from([value, value.replace(fold=1)]))
HASHABLE_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**2000), 2**2000),
    st.floats(allow_nan=False),
    TEXT,
    st.binary(max_size=20),
    st.dates(),
    DATETIMES,
    st.times(timezones=ZONES),
    st.timedeltas(),
    ZONES,
    st.decimals(allow_nan=False),
    st.uuids(),
    st.complex_numbers(allow_nan=False),
    st.builds(Plain, TEXT),
    st.sampled_from(Colour),
    st.builds(msgpack.ExtType, st.integers(3, 121), st.binary(max_size=20)),
    st.builds(msgpack.Timestamp, st.integers(-(2**63), 2**63 - 1), st.integers(0, 999_999_999)),
)
BUILTIN_KEYS = st.recursive(
    HASHABLE_SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple), st.frozensets(inner, max_size=3)
    ),
    max_leaves=5,
)
KEYS = st.one_of(BUILTIN_KEYS, st.builds(Point, BUILTIN_KEYS, BUILTIN_KEYS))
VALUES = st.recursive(
    KEYS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5).map(tuple),
        st.dictionaries(KEYS, inner, max_size=5),
        st.sets(KEYS, max_size=5),
        st.builds(Point, inner, inner),
    ),
    max_leaves=20,
)


def as_lists(value: Any) -> Any:
    """What arrives with `use_list`: lists, but in keys and sets."""
    if type(value) is tuple:
        return [as_lists(item) for item in value]
    if type(value) is dict:
        return {key: as_lists(item) for key, item in value.items()}
    return value


@given(VALUES)
def test_what_is_packed_comes_back_equal(value: Any) -> None:
    got = CODEC.unpack(CODEC.pack(value))
    assert got == value
    assert type(got) is type(value)


@given(
    st.recursive(
        HASHABLE_SCALARS,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4).map(tuple),
            st.dictionaries(BUILTIN_KEYS, inner, max_size=4),
            st.sets(BUILTIN_KEYS, max_size=4),
        ),
        max_leaves=10,
    )
)
def test_lists_arrive_where_they_can(value: Any) -> None:
    assert LISTS.unpack(LISTS.pack(value)) == as_lists(value)


@given(VALUES)
def test_long_values_come_back_equal(value: Any) -> None:
    # Beyond what is short enough to need no bounds.
    whole = (value, "x" * 2000, {1: value})
    assert CODEC.unpack(CODEC.pack(whole)) == whole


@given(st.lists(st.binary(max_size=50)), VALUES)
def test_frames_come_back(parts: list[bytes], value: Any) -> None:
    whole = ({"parts": tuple(parts), "rest": value}, tuple(parts))
    packed, frames = CODEC.pack_with_frames(whole, 10)
    assert len(frames) >= 2 * sum(len(part) >= 10 for part in parts)
    assert CODEC.unpack(packed, [bytes(frame) for frame in frames]) == whole


# -- what hostile bytes can do -------------------------------------------------------------


def survives(codec: Codec, data: bytes, frames: tuple[bytes, ...] = ()) -> None:
    try:
        codec.unpack(data, frames)
    except ProtocolError as error:
        assert len(str(error)) < 2000  # noqa: PT017
    for part in codec.unpack_each(data, frames):
        assert (part.error is None) or isinstance(part.error, ProtocolError)
    codec.unpack_head(data)
    # Nothing is left behind, so that later messages fare as if this one had not been.
    assert codec.nesting == 0
    assert gc.isenabled()


@given(st.binary())
@example(b"")
@example(b"\xc1")
@example(b"\xd4\x7f\x00")
@example(b"\x81\x80\x01")
@example(b"\xc7\x00\x7e")
def test_any_bytes(data: bytes) -> None:
    survives(CODEC, data)
    survives(LISTS, data, (b"frame",))


@given(VALUES, st.data())
def test_messages_with_errors(value: Any, data: st.DataObject) -> None:
    packed = bytearray(CODEC.pack((value, "x" * data.draw(st.sampled_from([0, 1200])))))
    for _ in range(data.draw(st.integers(1, 5))):
        position = data.draw(st.integers(0, len(packed) - 1))
        match data.draw(st.integers(0, 2)):
            case 0:
                packed[position] = data.draw(st.integers(0, 255))
            case 1:
                packed.insert(position, data.draw(st.integers(0, 255)))
            case 2 if len(packed) > 1:
                del packed[position]
    survives(CODEC, bytes(packed))
    survives(LISTS, bytes(packed), (b"frame",))


@given(st.integers(0, 20), st.binary(max_size=40))
def test_builtin_values_with_errors(tag: int, data: bytes) -> None:
    survives(CODEC, msgpack.packb(msgpack.ExtType(126, bytes([tag]) + data)))


class Exploit:
    def __reduce__(self) -> Any:
        return os.mkdir, ("exploited",)


@pytest.mark.parametrize("code", range(-128, 128))
def test_ext_codes_run_nothing(code: int, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    codec = Codec()
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        data = pickle.dumps(Exploit(), protocol)
        packed = struct.pack(">BHb", 0xC8, len(data), code) + data
        for payload in (packed, b"\x91" + packed, b"\x81" + packed + b"\x01"):
            try:
                value = codec.unpack(payload)
            except ProtocolError:
                assert code in {126, 127, -1}
            else:
                assert b"exploited" in str(value).encode()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [*range(-128, -1), *range(126)])
def test_unknown_codes_arrive_as_they_are(code: int) -> None:
    value = Codec().unpack(struct.pack(">BBb", 0xC7, 3, code) + b"abc")
    assert type(value) is msgpack.ExtType
    assert value.code == code
    assert value.data == b"abc"
    assert Codec().unpack(Codec().pack(value)) == value


# -- the time that a message takes ---------------------------------------------------------

MEBIBYTE = 1 << 20

#: Seconds. Each takes up to 0.12 on a slow machine; without the bounds some would take minutes.
PATIENCE = 2.0


def array(count: int) -> bytes:
    return struct.pack(">BI", 0xDD, count)


def map_of(count: int) -> bytes:
    return struct.pack(">BI", 0xDF, count)


def ext(data: bytes, code: int = 126) -> bytes:
    return struct.pack(">BIb", 0xC9, len(data), code) + data


def filled(unit: bytes) -> bytes:
    count = MEBIBYTE // len(unit)
    return array(count) + unit * count


def chain(count: int) -> list[int]:
    """Keys of different hashes each of which makes a dict go a long way.

    Two thirds of them lie along the way of one probe sequence, and the others lead onto it.
    """
    size = 8
    while size * 2 // 3 < count:
        size *= 2
    way = [1]
    while len(way) < count * 2 // 3:
        way.append((way[-1] * 5 + 1) & size - 1)
    place = {slot: number for number, slot in enumerate(way)}
    keys = []
    candidate = size
    while len(way) + len(keys) < count and candidate < 200 * size:
        candidate += 1
        slot, perturb = candidate & size - 1, candidate
        while perturb and slot in place:
            perturb >>= 5
            slot = (slot * 5 + perturb + 1) & size - 1
        if not perturb and place.get(slot, count) < len(way) // 3:
            keys.append(candidate)
    return way + keys


# The modulus of Python's numeric hashes: all its multiples have the same.
MODULUS = 2**61 - 1
SAME_HASH = [ext(b"\x01" + (number * MODULUS).to_bytes(10, "big")) for number in range(1, 40_000)]
CHAIN = [b"\xce" + struct.pack(">I", key) for key in chain(43_000)]

BOMBS = {
    "empty arrays": filled(b"\x90"),
    "empty maps": filled(b"\x80"),
    "empty maps and an unusual key": array(MEBIBYTE) + b"\x80" * (MEBIBYTE - 1) + b"\x81\x01\x01",
    "maps of unusual keys": filled(b"\x81\x01\x01"),
    "a million keys of text": map_of(MEBIBYTE // 8)
    + b"".join(b"\xa6%06d\x01" % number for number in range(MEBIBYTE // 8)),
    "numbers as keys": map_of(MEBIBYTE // 6)
    + b"".join(b"\xce" + struct.pack(">I", number) + b"\1" for number in range(MEBIBYTE // 6)),
    "fractions as keys": map_of(MEBIBYTE // 10)
    + b"".join(b"\xcb" + struct.pack(">d", n / 2**20) + b"\1" for n in range(MEBIBYTE // 10)),
    "keys of one hash": map_of(len(SAME_HASH)) + b"\1".join(SAME_HASH) + b"\1",
    "keys that collide without": map_of(len(CHAIN)) + b"\1".join(CHAIN) + b"\1",
    "a set of one hash": ext(b"\x09" + array(len(SAME_HASH)) + b"".join(SAME_HASH)),
    "a set that collides without": ext(b"\x09" + array(len(CHAIN)) + b"".join(CHAIN)),
    "small maps of one hash": array(MEBIBYTE // 600)
    + (struct.pack(">BH", 0xDE, 31) + b"\1".join(SAME_HASH[:31]) + b"\1") * (MEBIBYTE // 600),
    "empty sets": filled(b"\xd5\x7e\x09\x90"),
    "unknown ext values": filled(b"\xd4\x05\x00"),
    "decimals": filled(b"\xd5\x7e\x071"),
    "dates": filled(b"\xc7\x05\x7e\x03\x07\xe0\x01\x01"),
    "a long decimal": ext(b"\x07" + b"1" * MEBIBYTE),
    "a large exponent": b"\x81" + ext(b"\x071E999999999") + b"\x01",
    "a huge integer": ext(b"\x01" + b"\x7f" * MEBIBYTE),
    "a huge integer as key": b"\x81" + ext(b"\x01" + b"\x7f" * MEBIBYTE) + b"\x01",
    "deep arrays": b"\x91" * MEBIBYTE,
    "deep maps": b"\x81\x01" * (MEBIBYTE // 2),
    "many deep arrays": filled(b"\x91" * 98 + b"\x01"),
    "many deep keys": filled(b"\x81" + b"\x91" * 90 + b"\x01\x01"),
    "lengths that are lies": b"\xdd\x00\x0f\xff\x00" * 90 + b"\x01" * MEBIBYTE,
    "lone surrogates": filled(b"\xa3\xed\xa0\x80"),
    "bad sets": filled(ext(b"\x0a\x91" + ext(b"\x0a\x91\xa1\xff"))),
}


@pytest.mark.parametrize("codec", [Codec(), Codec(use_list=True)], ids=["tuple", "list"])
@pytest.mark.parametrize("name", BOMBS)
def test_bombs_take_no_long_time(name: str, codec: Codec) -> None:
    started = time.perf_counter()
    survives(codec, BOMBS[name])
    assert time.perf_counter() - started < PATIENCE


def test_nested_sets_that_need_care_are_unpacked_twice_at_most() -> None:
    # Each level fails at first, for the key that is no text.
    data = b"\x90"
    for _ in range(15):
        data = b"\x92" + ext(b"\x0a\x91" + data) + b"\x81\x01\x02"
    started = time.perf_counter()
    survives(Codec(), data)
    assert time.perf_counter() - started < PATIENCE


def test_user_types_that_need_care_are_unpacked_twice_at_most() -> None:
    # The same by an unpacker that asks the codec in turn, as users' own do.
    runs = 0

    def unpack(data: bytes) -> Any:
        nonlocal runs
        runs += 1
        return codec.unpack(data)

    codec = Codec({1: (Plain, lambda value: b"", unpack)})
    data = b"\xc0"
    for _ in range(15):
        data = b"\x92" + ext(data, 1) + b"\x81\x01\x02"
    assert codec.unpack(data)[1] == {1: 2}
    assert runs == 30


@settings(max_examples=20)
@given(st.integers(0, 3), st.integers(1, 200))
def test_large_and_usual_values_pass(kind: int, size: int) -> None:
    value: Any = [
        {number: str(number) for number in range(size * 100)},
        {number / 100 for number in range(size * 100)},
        {(number, -number): [number] for number in range(size * 20)},
        [datetime.date(2020, 1, 1)] * size,
    ][kind]
    assert LISTS.unpack(LISTS.pack(value)) == value


# -- the constructor -----------------------------------------------------------------------


@pytest.mark.parametrize("depth", [0, -1, 1001])
def test_depth_out_of_range(depth: int) -> None:
    with pytest.raises(ValueError, match="max_depth"):
        Codec(max_depth=depth)


def test_values_of_other_processes() -> None:
    # As docs/reference/protocol.rst has them: these bytes may never change.
    assert Codec().pack(uuid.UUID(int=1)) == b"\xc7\x11\x7e\x08" + bytes(15) + b"\x01"
    assert Codec().pack(Decimal("1.5")) == b"\xd6\x7e\x071.5"
    assert Codec().pack(datetime.date(2021, 12, 31)) == b"\xc7\x05\x7e\x03\x07\xe5\x0c\x1f"
