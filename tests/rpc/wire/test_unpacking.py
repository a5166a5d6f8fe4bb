"""The half of a codec that unpacks: what is refused, records one by one, and bounds."""

import datetime
import gc
import random
import struct
from typing import Any

import msgpack
import pytest

from berrymq_rpc.errors import ProtocolError
from berrymq_rpc.rpc.wire import unpacking
from berrymq_rpc.rpc.wire.codec import Codec

CODEC = Codec()
LISTS = Codec(use_list=True)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "incomplete"),
        (b"\xc1", "the byte C1"),
        (b"\x92\x01", "incomplete"),
        (b"\x01\x02", "bytes after its end"),
        (b"\xa1\xff", "can't decode byte"),
        (b"\x81\x90\x01" + b"\xc1", "bytes after its end"),
        (b"\x81\x80\x01", "unhashable"),
        (b"\x81\x91\x81\x01\x02\x03", "unhashable"),
        (b"\xd4\x7f\x00", "missing"),
        (b"\xd6\xff\x00\x00", "incomplete"),
        (b"\xc7\x05\xff\x00\x00\x00\x00\x00", "no value in msgpack"),
        (b"\xdd\xff\xff\xff\xff", "exceeds max_array_len"),
        (b"\xc6\xff\xff\xff\xff", "incomplete"),
        (b"\x91" * 2000, "nested more than 100 levels"),
        (b"\x91" * 101, "nested more than 100 levels"),
    ],
)
def test_refused(data: bytes, complaint: str) -> None:
    for codec in (CODEC, LISTS):
        for buffer in (data, bytearray(data), memoryview(data)):
            with pytest.raises(ProtocolError, match=complaint) as caught:
                codec.unpack(buffer)
            assert type(caught.value) is ProtocolError


def test_a_message_of_the_wrong_type() -> None:
    with pytest.raises(ProtocolError):
        CODEC.unpack("text")  # type: ignore[arg-type]


def test_keys_of_all_types() -> None:
    value = {1: "a", 2.5: "b", None: "c", (1, (2, ())): "d", b"e": "e", "f": {(): {-1: ()}}}
    assert CODEC.unpack(CODEC.pack(value)) == value
    lists = {1: "a", 2.5: "b", None: "c", (1, (2, ())): "d", b"e": "e", "f": {(): {-1: []}}}
    assert LISTS.unpack(LISTS.pack(value)) == lists
    assert LISTS.unpack(LISTS.pack({(1, (2,)), 3})) == {(1, (2,)), 3}
    assert LISTS.unpack(LISTS.pack([(1,)])) == [[1]]


def test_repeated_keys() -> None:
    assert CODEC.unpack(b"\x82\xa1a\x01\xa1a\x02") == {"a": 2}
    assert CODEC.unpack(b"\x83\x01\xa1a\xc3\xa1b\xcb" + struct.pack(">d", 1) + b"\xa1c") == {1: "c"}


def test_timestamps() -> None:
    value = msgpack.Timestamp(-5, 999_999_999)
    got = CODEC.unpack(CODEC.pack(value))
    assert got == value
    assert type(got) is msgpack.Timestamp


# -- frames --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number", [b"", b"\2", b"\1\0", b"\0\0\0\0\0", b"\xff" * 4, b"\0" * 100, b"\xff" * 2000]
)
def test_frames_that_are_not_there(number: bytes) -> None:
    packed = msgpack.packb([msgpack.ExtType(127, number)])
    with pytest.raises(ProtocolError, match="a frame with a long byte string is missing"):
        CODEC.unpack(packed, [b"a", b"b"])


def test_frames_are_bytes() -> None:
    packed = b"\x92\xd4\x7f\x01\xc7\x04\x7f\x00\x00\x00\x00"
    got = CODEC.unpack(packed, [bytearray(b"a"), memoryview(b"b")])
    assert got == (b"b", b"a")
    assert [type(item) for item in got] == [bytes, bytes]


def test_frames_inside_of_a_set() -> None:
    packed = b"\xc7\x05\x7e\x09\x91\xd4\x7f\x00"
    assert CODEC.unpack(packed, [b"a"]) == {b"a"}


# -- records one by one --------------------------------------------------------------------

GOOD = b"\x93\x01\x07\xa1m"
BAD = b"\x94\x01\x08\xa1n\xa1\xff"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_bad_record_fails_alone(kind: Any) -> None:
    data = b"\xdd\x00\x00\x00\x04" + GOOD + BAD + b"\x05" + GOOD
    parts = CODEC.unpack_each(kind(data))
    assert [part.value for part in parts] == [(1, 7, "m"), None, 5, (1, 7, "m")]
    assert [part.head for part in parts] == [(), (1, 8, "n"), (), ()]
    assert [part.error is None for part in parts] == [True, False, True, True]
    assert type(parts[1].error) is ProtocolError


def test_records_with_frames_and_unusual_keys() -> None:
    data = b"\x93\xd4\x7f\x00" + b"\x81\x01\x02" + b"\x92\x05\xd4\x7f\x09"
    parts = CODEC.unpack_each(data, [b"frame"])
    assert [part.value for part in parts] == [b"frame", {1: 2}, None]
    assert parts[2].head == (5,)


@pytest.mark.parametrize(
    ("data", "good", "head"),
    [
        (b"", 0, ()),
        (b"\x01", 0, ()),
        (b"\x81\x01\x01", 0, ()),
        (b"\xc1", 0, ()),
        (b"\x92" + GOOD, 1, ()),
        (b"\x92" + GOOD + b"\x94\x01\x09", 1, (1, 9)),
        (b"\x92" + GOOD + b"\x94\x01\x09\xa3x", 1, (1, 9)),
        (b"\x92" + GOOD + b"\xc1", 1, ()),
        (b"\x91" + GOOD + GOOD, 1, (1, 7, "m")),
        (b"\xdd\xff\xff\xff\xff" + GOOD, 1, ()),
        (b"\x92" + GOOD + b"\x93\x01\x02" + b"\x91" * 2000, 1, (1, 2)),
        (b"\x92" + GOOD + b"\x93\x01\x02" + b"\x91" * 200 + b"\x01", 1, (1, 2)),
    ],
)
def test_records_that_cannot_be_told_apart(data: bytes, good: int, head: tuple[Any, ...]) -> None:
    parts = CODEC.unpack_each(data)
    assert [part.error is None for part in parts] == [True] * good + [False]
    assert type(parts[-1].error) is ProtocolError
    assert parts[-1].value is None
    assert parts[-1].head == head


@pytest.mark.parametrize(
    ("data", "head"),
    [
        (b"", ()),
        (b"\xc1", ()),
        (b"\x05", ()),
        (b"\x90", ()),
        (b"\x81\x01\x02", ()),
        (b"\x93\x01\xc0\xa1x", (1, None, "x")),
        (b"\x95\x01\x02\x03\x04\x05", (1, 2, 3)),
        (b"\x93\x01\x90\x03", (1,)),
        (b"\x93\x01\x80\x03", (1,)),
        (b"\x93\x01\xdd", (1,)),
        (b"\x93\x01\xd4\x05\x00\x03", (1,)),
        (b"\x93\x01\xc7\x00\x05\x03", (1,)),
        (b"\x93\x01\xc1\x03", (1,)),
        (b"\x93\x01\xc4\x01x\xca\x00\x00\x00\x00", (1, b"x", 0.0)),
        (b"\x93\x01\xa3\xed\xa0\x80\xc3", (1, "\ud800", True)),
        (b"\x93\x01\xa1\xff\x03", (1,)),
        (b"\xdd\xff\xff\xff\xff\x01\x02", (1, 2)),
        (b"\xdc\x00", ()),
    ],
)
def test_the_head_of_a_record(data: bytes, head: tuple[Any, ...]) -> None:
    assert CODEC.unpack_head(data) == head
    assert CODEC.unpack_head(memoryview(data)) == head
    assert CODEC.unpack_head(data, 1) == head[:1]


def test_too_many_bad_records() -> None:
    count = unpacking.MAX_BAD_PARTS + 100
    data = struct.pack(">BI", 0xDD, count) + BAD * count
    parts = CODEC.unpack_each(data)
    assert len(parts) == unpacking.MAX_BAD_PARTS + 1
    assert all(part.error for part in parts)
    assert "500 malformed records" in str(parts[-1].error)


def test_a_large_message() -> None:
    # Of one record, as large ones are, it is said which it was.
    large = b"\x94\x01\x08" + msgpack.packb("x" * 300_000) + b"\xa1\xff"
    (part,) = CODEC.unpack_each(b"\x91" + large)
    assert part.head == (1, 8, "x" * 300_000)
    (part,) = CODEC.unpack_each(b"\x92" + GOOD + large)
    assert "large batch" in str(part.error)


# -- bounds --------------------------------------------------------------------------------

MANY = unpacking.MAX_HOOKED


def repeated(unit: bytes, count: int) -> bytes:
    return struct.pack(">BI", 0xDD, count) + unit * count


@pytest.mark.parametrize(
    ("unit", "cost"),
    [(b"\xd4\x05\x00", 1), (b"\xd5\x7e\x07\x31", 1), (b"\xd5\x7e\x09\x90", 5)],
)
def test_ext_values_of_a_message(unit: bytes, cost: int) -> None:
    most = (MANY - 4) // cost
    assert len(CODEC.unpack(repeated(unit, most))) == most
    with pytest.raises(ProtocolError, match="more than 100,000 maps and ext values"):
        CODEC.unpack(repeated(unit, most + 5))


def test_maps_of_a_message_with_unusual_keys() -> None:
    assert len(CODEC.unpack(repeated(b"\x80", 2 * MANY))) == 2 * MANY
    assert len(CODEC.unpack(repeated(b"\x81\x01\x01", MANY - 8))) == MANY - 8
    with pytest.raises(ProtocolError, match="more than 100,000 maps and ext values"):
        CODEC.unpack(repeated(b"\x81\x01\x01", MANY + 1))


def test_the_second_attempt_has_the_whole_bound() -> None:
    value = ([datetime.date(2020, 1, 1)] * (MANY * 3 // 4), {1: 1})
    assert len(CODEC.unpack(CODEC.pack(value))[0]) == MANY * 3 // 4


def test_containers_in_keys() -> None:
    with pytest.raises(ProtocolError, match="more than 100,000 maps and ext values"):
        LISTS.unpack(repeated(b"\x81" + b"\x91" * 50 + b"\x90\x01", MANY // 50))


def sets(levels: int) -> bytes:
    data = b"\x90"
    for _ in range(levels):
        body = b"\x0a" + (data if data == b"\x90" else b"\x91" + data)
        data = struct.pack(">BHb", 0xC8, len(body), 126) + body
    return data


def test_ext_values_inside_one_another() -> None:
    value = CODEC.unpack(sets(16))
    for _ in range(15):
        (value,) = value
    assert value == frozenset()
    for levels in (17, 40, 1000):
        with pytest.raises(ProtocolError, match="nested more than 16 levels"):
            CODEC.unpack(sets(levels))
        assert CODEC.nesting == 0


def test_lone_surrogates_of_a_message() -> None:
    unit = b"\xa3\xed\xa0\x80"
    most = unpacking.MAX_SURROGATES
    assert CODEC.unpack(repeated(unit, most))[-1] == "\ud800"
    with pytest.raises(ProtocolError, match="lone surrogates"):
        CODEC.unpack(repeated(unit, most + 1))
    # What is none is not counted.
    korean = "\ud55c" * (2 * most)
    assert CODEC.unpack(CODEC.pack({1: korean})) == {1: korean}


def test_small_messages_have_bounds_of_their_own() -> None:
    # However many of them there are.
    packed = CODEC.pack(({1, 2}, datetime.date(2020, 1, 1)))
    for _ in range(MANY // 2):
        CODEC.unpack(packed)


@pytest.mark.parametrize("kind", [dict.fromkeys, set])
def test_collisions_are_summed_over_a_message(kind: Any) -> None:
    keys = [number / 2**20 for number in range(3000)]
    one = CODEC.pack(kind(keys))
    assert CODEC.unpack(one) == kind(keys)
    with pytest.raises(ProtocolError, match="collide too often"):
        CODEC.unpack(repeated(one, 12))


def test_text_is_never_counted_as_colliding() -> None:
    value: Any = {random.randbytes(4).hex(): None for _ in range(50_000)}
    value[1] = set(value)
    assert CODEC.unpack(CODEC.pack(value)) == value


@pytest.mark.parametrize("enabled", [True, False])
def test_collection_of_garbage_is_paused_for_large_messages(enabled: bool) -> None:
    states = []
    codec = Codec({1: (complex, lambda value: b"", lambda data: states.append(gc.isenabled()))})
    small, large = b"\xd4\x01\x00", repeated(b"\xd4\x01\x00", 50_000)
    was_enabled = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        codec.unpack(small)
        codec.unpack(large)
        with pytest.raises(ProtocolError):
            codec.unpack(large + b"\x00")
        codec.unpack_each(large)
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if was_enabled else gc.disable)()
    assert states[0] is enabled
    assert not any(states[1:])
