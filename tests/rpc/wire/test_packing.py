"""The half of a codec that packs: the fast way, the slow one, and frames of their own."""

import collections
import datetime
import enum
from typing import Any, NamedTuple

import msgpack
import pytest

from berrymq_rpc.rpc.wire.codec import Codec

CODEC = Codec()


class Text(str):
    __slots__ = ()


class Number(enum.IntEnum):
    ONE = 1
    VAST = 2**70


class Pair(NamedTuple):
    left: Any
    right: Any


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        (memoryview(bytearray(8)).cast("I"), bytes(8)),
        (Text("a"), "a"),
        (Number.ONE, 1),
        (Number.VAST, 2**70),
        (Pair(1, [2]), (1, (2,))),
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (True, True),
        (2**64 - 1, 2**64 - 1),
        (-(2**63), -(2**63)),
    ],
)
def test_base_types(value: Any, expected: Any) -> None:
    got = CODEC.unpack(CODEC.pack([value]))[0]
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(
    "value", [None, 1, "text", (1, 77, "add", (1, 2)), {"a": {1: {2}}}, datetime.date(2020, 1, 1)]
)
def test_the_fast_way_packs_the_same(value: Any) -> None:
    assert CODEC.fast_pack(value) == CODEC.pack(value)


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\ud83d\ude00", "\U0001f600\ud83d"])
def test_lone_surrogates(text: str) -> None:
    for value in (text, (text,), {text: text}, {1: ({text: {text}},)}):
        with pytest.raises(UnicodeEncodeError):
            CODEC.fast_pack(value)
        assert CODEC.unpack(CODEC.pack(value)) == value
    assert CODEC.unpack(CODEC.fast_pack({text})) == {text}


def test_the_fast_way_works_on_after_errors() -> None:
    for bad in (object(), [1, "\ud800"], {"a": {object()}}):
        with pytest.raises((TypeError, ValueError)):
            CODEC.fast_pack(bad)
        assert CODEC.fast_pack([1]) == b"\x91\x01"


# -- frames of their own -------------------------------------------------------------


def detached(number: bytes) -> Any:
    return msgpack.ExtType(127, number)


def test_frames_in_order() -> None:
    first, second, third = b"a" * 10, b"b" * 11, b"c" * 12
    value = (first, [1, {"x": second, "y": b"short", third: 1}], {"z": (third,)})
    packed, frames = CODEC.pack_with_frames(value, 10)
    assert frames == [first, second, third]
    assert all(ours is theirs for ours, theirs in zip(frames, (first, second, third), strict=True))
    assert msgpack.unpackb(packed, use_list=False) == (
        detached(b"\0"),
        (1, {"x": detached(b"\1"), "y": b"short", third: 1}),
        {"z": (detached(b"\2"),)},
    )
    assert CODEC.unpack(packed, frames) == (
        first,
        (1, {"x": second, "y": b"short", third: 1}),
        {"z": (third,)},
    )


@pytest.mark.parametrize(
    ("number", "expected"), [(0, b"\0"), (255, b"\xff"), (256, b"\1\0"), (299, b"\1\x2b")]
)
def test_numbers_of_frames(number: int, expected: bytes) -> None:
    packed, frames = CODEC.pack_with_frames([b"xy"] * 300, 2)
    assert len(frames) == 300
    assert msgpack.unpackb(packed)[number] == detached(expected)
    assert CODEC.unpack(packed, frames) == (b"xy",) * 300


def test_nothing_to_detach() -> None:
    for value in (1, "text" * 100, b"short", [b"short"], {b"a long key of a map": 1}, None):
        assert CODEC.pack_with_frames(value, 10) == (CODEC.pack(value), [])


def test_the_value_itself() -> None:
    packed, frames = CODEC.pack_with_frames(b"x" * 10, 10)
    assert (packed, frames) == (b"\xd4\x7f\x00", [b"x" * 10])


def test_what_can_change_is_copied() -> None:
    changing = bytearray(b"a" * 10)
    view = memoryview(bytearray(b"b" * 10))
    fixed = memoryview(b"c" * 10)
    _, frames = CODEC.pack_with_frames([changing, view, fixed], 10)
    changing[0] = view[0] = 0
    assert frames[:2] == [b"a" * 10, b"b" * 10]
    assert frames[2] is fixed


def test_views_by_their_bytes() -> None:
    wide = memoryview(bytes(16)).cast("I")
    packed, frames = CODEC.pack_with_frames([wide], 16)
    assert frames == [wide]
    assert CODEC.unpack(packed, [bytes(frame) for frame in frames]) == (bytes(16),)


def test_views_with_gaps() -> None:
    with pytest.raises(TypeError, match=r"value\[0\]: .*contiguous"):
        CODEC.pack_with_frames([memoryview(bytes(100))[::2]], 10)


def test_the_original_is_not_changed() -> None:
    inner = {"x": b"x" * 10}
    value = [inner, (1, inner)]
    CODEC.pack_with_frames(value, 10)
    assert value == [{"x": b"x" * 10}, (1, {"x": b"x" * 10})]


def test_ext_values_are_not_looked_into() -> None:
    value = msgpack.ExtType(5, b"x" * 10)
    assert CODEC.pack_with_frames([value], 5) == (CODEC.pack([value]), [])


def test_other_types_of_tuples_and_dicts() -> None:
    value = [Pair(b"x" * 10, 1), collections.OrderedDict(a=b"y" * 10)]
    packed, frames = CODEC.pack_with_frames(value, 10)
    assert CODEC.unpack(packed, frames) == ((b"x" * 10, 1), {"a": b"y" * 10})


def test_faults_beside_frames() -> None:
    with pytest.raises(TypeError, match=r"^args\[1\]: builtins.object cannot be packed"):
        CODEC.pack_with_frames([b"x" * 10, object()], 10, "args")
    cycle: list[Any] = [b"x" * 10]
    cycle.append(cycle)
    with pytest.raises(ValueError, match="contains itself"):
        CODEC.pack_with_frames(cycle, 10)
