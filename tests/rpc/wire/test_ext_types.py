"""The layout of builtin values, byte by byte, and what is refused."""

import datetime
import math
import struct
import uuid
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import msgpack
import pytest

from berrymq_rpc.errors import ProtocolError
from berrymq_rpc.rpc.wire.codec import Codec
from berrymq_rpc.rpc.wire.ext_types import find_encoder, fixed_zone

UTC = datetime.UTC
HOUR = datetime.timedelta(hours=1)
CODEC = Codec()

LAYOUT = [
    (2**64, "01 010000000000000000"),
    (-(2**63) - 1, "01 ff7fffffffffffffff"),
    (datetime.datetime(2021, 12, 31, 23, 59, 58, 7), "02 07e5 0c 1f 17 3b 3a 00 00000007"),
    (
        datetime.datetime(2021, 12, 31, 23, 59, 58, 7, UTC, fold=1),
        "02 07e5 0c 1f 17 3b 3a 01 00000007 00 0000000000000000",
    ),
    (
        datetime.datetime(1, 1, 1, tzinfo=datetime.timezone(-HOUR, "X")),
        "02 0001 01 01 00 00 00 00 00000000 01 ffffffff296c5c00 58",
    ),
    (
        datetime.datetime(1, 1, 1, tzinfo=ZoneInfo("Asia/Tokyo")),
        "02 0001 01 01 00 00 00 00 00000000 02 417369612f546f6b796f",
    ),
    (datetime.date(2021, 12, 31), "03 07e5 0c 1f"),
    (datetime.time(1, 2, 3, 999_999), "04 01 02 03 00 000f423f"),
    (datetime.time(1, tzinfo=UTC), "04 01 00 00 00 00000000 00 0000000000000000"),
    (datetime.timedelta(-1, 2, 3), "05 ffffffff 00000002 00000003"),
    (UTC, "06 00 0000000000000000"),
    (datetime.timezone(HOUR, ""), "06 01 00000000d693a400"),
    (ZoneInfo("UTC"), "06 02 555443"),
    (Decimal("-1.50"), "07 2d312e3530"),
    (Decimal("Infinity"), "07 496e66696e697479"),
    (uuid.UUID(int=258), "08 00000000000000000000000000000102"),
    ({1}, "09 9101"),
    (frozenset([(1, 2)]), "0a 91920102"),
    (complex(1, -2), "0b 3ff0000000000000 c000000000000000"),
]


@pytest.mark.parametrize(("value", "layout"), LAYOUT)
def test_layout(value: Any, layout: str) -> None:
    data = bytes.fromhex(layout)
    assert msgpack.unpackb(CODEC.pack(value)) == msgpack.ExtType(126, data)
    got = CODEC.unpack(CODEC.pack(value))
    assert got == value
    assert type(got) is type(value)
    assert repr(got) == repr(value)


@pytest.mark.parametrize("text", ["NaN", "-NaN123", "sNaN", "sNaN5", "-Infinity", "1E+99", "0E-9"])
def test_decimals_that_do_not_compare(text: str) -> None:
    assert str(CODEC.unpack(CODEC.pack(Decimal(text)))) == text


def test_complex_that_does_not_compare() -> None:
    got = CODEC.unpack(CODEC.pack(complex(math.nan, -0.0)))
    assert math.isnan(got.real)
    assert math.copysign(1, got.imag) == -1


@pytest.mark.parametrize("fold", [0, 1])
def test_fold_and_zone(fold: int) -> None:
    value = datetime.datetime(2021, 10, 31, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=fold)
    got = CODEC.unpack(CODEC.pack(value))
    assert (got.fold, got.tzinfo, got.utcoffset()) == (fold, value.tzinfo, value.utcoffset())


def test_ends_of_the_ranges() -> None:
    for value in (
        datetime.datetime.min,
        datetime.datetime.max,
        datetime.date.min,
        datetime.date.max,
        datetime.time.min,
        datetime.time.max,
        datetime.timedelta.min,
        datetime.timedelta.max,
        datetime.timezone.min,
        datetime.timezone.max,
        datetime.timezone(datetime.timedelta(microseconds=-1)),
        datetime.timezone(datetime.timedelta(days=1, microseconds=-1), "\ud800"),
    ):
        assert CODEC.unpack(CODEC.pack(value)) == value


# -- subclasses and other zones ------------------------------------------------------------


class Zone(datetime.tzinfo):
    """A zone of its own class."""

    def __init__(self, offset: datetime.timedelta | None) -> None:
        self.offset = offset

    def utcoffset(self, moment: datetime.datetime | None) -> datetime.timedelta | None:
        return self.offset

    def dst(self, moment: datetime.datetime | None) -> None:
        return None


class Moment(datetime.datetime):
    pass


class Amount(Decimal):
    def __str__(self) -> str:
        return "much"


class Members(set):  # type: ignore[type-arg]
    pass


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Moment(2020, 1, 2, 3), datetime.datetime(2020, 1, 2, 3)),
        (Amount("1.5"), Decimal("1.5")),
        (Members([1]), {1}),
        (
            datetime.datetime(2020, 1, 1, tzinfo=Zone(HOUR)),
            datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone(HOUR)),
        ),
        (datetime.datetime(2020, 1, 1, tzinfo=Zone(None)), datetime.datetime(2020, 1, 1)),
        (datetime.time(1, tzinfo=Zone(HOUR)), datetime.time(1, tzinfo=datetime.timezone(HOUR))),
    ],
)
def test_base_classes(value: Any, expected: Any) -> None:
    got = CODEC.unpack(CODEC.pack(value))
    assert got == expected
    assert type(got) is type(expected)
    assert repr(got) == repr(expected)


def test_a_zone_without_a_name() -> None:
    with open("/usr/share/zoneinfo/Europe/Berlin", "rb") as file:
        zone = ZoneInfo.from_file(file)
    value = datetime.datetime(2020, 7, 1, tzinfo=zone)
    assert CODEC.unpack(CODEC.pack(value)).tzinfo == datetime.timezone(2 * HOUR)
    with pytest.raises(TypeError, match="no offset"):
        CODEC.pack(zone)


def test_a_zone_of_its_own_class_alone() -> None:
    assert fixed_zone(Zone(HOUR), None) is None
    with pytest.raises(TypeError, match=r"args\[0\]: a tzinfo of its own class"):
        CODEC.pack([Zone(HOUR)], "args")


def test_no_encoder() -> None:
    assert find_encoder(object) is None
    assert find_encoder(range) is None


# -- what is refused -----------------------------------------------------------------------

REFUSED = {
    "": "nothing at all",
    "00": "no tag",
    "0c": "a tag of later",
    "01": "an integer without bytes",
    "02": "cut short",
    "02 07e5 0c 1f 17 3b 3a 00 000000": "cut short",
    "02 0000 01 01 00 00 00 00 00000000": "year",
    "02 07e5 0d 1f 00 00 00 00 00000000": "month",
    "02 07e5 02 1f 00 00 00 00 00000000": "day",
    "02 07e5 0c 1f 18 3b 3a 00 00000000": "hour",
    "02 07e5 0c 1f 17 3b 3a 02 00000000": "fold",
    "02 07e5 0c 1f 17 3b 3a 00 000f4240": "microsecond",
    "02 07e5 0c 1f 17 3b 3a 00 00000000 00": "a zone cut short",
    "02 07e5 0c 1f 17 3b 3a 00 00000000 03 0000000000000000": "no such zone",
    "02 07e5 0c 1f 17 3b 3a 00 00000000 00 0000000000000000 58": "an unnamed zone with a name",
    "02 07e5 0c 1f 17 3b 3a 00 00000000 00 000000141dd76000": "an offset of a day",
    "02 07e5 0c 1f 17 3b 3a 00 00000000 00 7fffffffffffffff": "a vast offset",
    "02 07e5 0c 1f 17 3b 3a 00 00000000 01 0000000000000000 ff": "a name that is no text",
    "02 07e5 0c 1f 17 3b 3a 00 00000000 02": "a key of no bytes",
    "02 07e5 0c 1f 17 3b 3a 00 00000000 02 2e2e2f2e2e": "a path",
    "02 07e5 0c 1f 17 3b 3a 00 00000000 02 c3a4": "a key beyond ASCII",
    "02 07e5 0c 1f 17 3b 3a 00 00000000 02 416263": "a key of no zone",
    "03 07e5 0c 1f 00": "too long",
    "03 07e5 0c 20": "day",
    "04 3c 00 00 00 00000000": "hour",
    "05 7fffffff 00000000 00000000": "days",
    "05 00000000 00000000": "cut short",
    "06": "an empty zone",
    "07": "no number",
    "07 ff": "no ASCII",
    "07 2e": "no number",
    "08 00": "cut short",
    "09": "a set without an array",
    "09 01": "a set of a number",
    "09 80": "a set of a map",
    "09 9190 01": "bytes after the array",
    "09 9180": "a member that does not hash",
    "0a 91": "cut short",
    "0a 91d5 7e09 90": "a set in a set",
    "0b 00": "cut short",
}


@pytest.mark.parametrize("layout", REFUSED)
def test_refused(layout: str) -> None:
    data = bytes.fromhex(layout)
    packed = struct.pack(">BBb", 0xC7, len(data), 126) + data
    with pytest.raises(ProtocolError):
        CODEC.unpack(packed)
