"""Builtin values that msgpack has no type for, as its ext type 126.

The first byte of the ext's data is a tag, the rest as follows. Numbers are big-endian; ``i`` is
signed and ``u`` unsigned, with the number of bits.

===  =========  =====================================================================
tag  value      data after the tag
===  =========  =====================================================================
1    integer    beyond 64 bits: two's complement, at least one byte
2    datetime   year u16, month u8, day u8, then as `time`
3    date       year u16, month u8, day u8
4    time       hour u8, minute u8, second u8, fold u8 (0 or 1), microsecond u32, zone
5    timedelta  days i32, seconds u32, microseconds u32
6    tzinfo     zone, not empty
7    decimal    text in ASCII, as of ``str(Decimal)``: ``1.50``, ``1E+3``, ``-Infinity``, ``sNaN1``
8    UUID       16 bytes
9    set        one msgpack array
10   frozenset  one msgpack array
11   complex    real part f64, imaginary part f64
===  =========  =====================================================================

A zone is one of

======================  ====================================================
data                    meaning
======================  ====================================================
nothing                 none: the time is naive
0, offset i64           a fixed offset from UTC in microseconds
1, offset i64, UTF-8    the same with a name of its own
2, ASCII                a key of the IANA database, such as ``Europe/Berlin``
======================  ====================================================

A tzinfo of any other class travels as the offset that it has at that moment.
"""

import struct
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any, Protocol, TypeAlias
from uuid import UUID
from zoneinfo import ZoneInfo

from .zones import is_zone_key, zone_info

__all__ = ["VALUE_CODE", "Encoder", "Reader", "decode", "find_encoder", "fixed_zone"]

VALUE_CODE = 126

#: Returns the ext's data for a value. Second argument: packs a value inside it.
Encoder: TypeAlias = Callable[[Any, Callable[[Any], bytes]], bytes]

INTEGER, DATETIME, DATE, TIME, TIMEDELTA, ZONE, DECIMAL, IDENTIFIER, SET, FROZENSET, COMPLEX = (
    range(1, 12)
)

_DATE = struct.Struct(">BHBB")
_TIME = struct.Struct(">BBBBBI")
_DATETIME = struct.Struct(">BHBBBBBBI")
_TIMEDELTA = struct.Struct(">BiII")
_COMPLEX = struct.Struct(">Bdd")
_OFFSET = struct.Struct(">Bq")

_FIXED, _NAMED, _KEY = range(3)
_MICROSECOND = timedelta(microseconds=1)


class Reader(Protocol):
    """What decodes the message that a value is part of."""

    def members(self, data: bytes) -> Sequence[Any]:
        """Unpack the array of a set, and check that its members do not collide too often."""


# -- packing -------------------------------------------------------------------------------


def find_encoder(cls: type) -> Encoder | None:
    """What packs objects of a class or of a builtin class that it is derived from."""
    for base, encoder in _ENCODERS:
        if issubclass(cls, base):
            return encoder
    return None


def _encode_integer(value: int, pack: Callable[[Any], bytes]) -> bytes:
    size = int.bit_length(value) // 8 + 1
    return bytes((INTEGER,)) + int.to_bytes(value, size, "big", signed=True)


def _encode_datetime(value: datetime, pack: Callable[[Any], bytes]) -> bytes:
    return _DATETIME.pack(
        DATETIME,
        value.year,
        value.month,
        value.day,
        value.hour,
        value.minute,
        value.second,
        value.fold,
        value.microsecond,
    ) + _encode_zone(value.tzinfo, value)


def _encode_date(value: date, pack: Callable[[Any], bytes]) -> bytes:
    return _DATE.pack(DATE, value.year, value.month, value.day)


def _encode_time(value: time, pack: Callable[[Any], bytes]) -> bytes:
    return _TIME.pack(
        TIME, value.hour, value.minute, value.second, value.fold, value.microsecond
    ) + _encode_zone(value.tzinfo, value)


def _encode_timedelta(value: timedelta, pack: Callable[[Any], bytes]) -> bytes:
    return _TIMEDELTA.pack(TIMEDELTA, value.days, value.seconds, value.microseconds)


def _encode_tzinfo(value: tzinfo, pack: Callable[[Any], bytes]) -> bytes:
    zone = _encode_zone(value, None)
    if not zone:
        raise TypeError("a tzinfo of its own class has no offset without a datetime")
    return bytes((ZONE,)) + zone


def _encode_zone(zone: tzinfo | None, moment: datetime | time | None) -> bytes:
    if zone is None:
        return b""
    fixed = fixed_zone(zone, moment)
    if isinstance(fixed, ZoneInfo):
        return bytes((_KEY,)) + fixed.key.encode("ascii")
    if fixed is None:
        return b""
    offset: timedelta
    name: list[str]
    offset, *name = fixed.__getinitargs__()  # type: ignore[attr-defined]
    microseconds = offset // _MICROSECOND
    if name:
        return _OFFSET.pack(_NAMED, microseconds) + name[0].encode("utf-8", "surrogatepass")
    return _OFFSET.pack(_FIXED, microseconds)


def fixed_zone(zone: tzinfo, moment: datetime | time | None) -> timezone | ZoneInfo | None:
    """Return a zone that another process knows as well, with the same offset at that moment.

    `None` where there is no offset: for Python such a time is naive.
    """
    if type(zone) is timezone:
        return zone
    if isinstance(zone, ZoneInfo) and is_zone_key(zone.key):
        return zone
    offset = None if moment is None else moment.utcoffset()
    return None if offset is None else timezone(offset)


def _encode_decimal(value: Decimal, pack: Callable[[Any], bytes]) -> bytes:
    return bytes((DECIMAL,)) + Decimal.__str__(value).encode("ascii")


def _encode_identifier(value: UUID, pack: Callable[[Any], bytes]) -> bytes:
    return bytes((IDENTIFIER,)) + value.bytes


def _encode_set(value: set[Any], pack: Callable[[Any], bytes]) -> bytes:
    return bytes((SET,)) + pack(list(value))


def _encode_frozenset(value: frozenset[Any], pack: Callable[[Any], bytes]) -> bytes:
    return bytes((FROZENSET,)) + pack(list(value))


def _encode_complex(value: complex, pack: Callable[[Any], bytes]) -> bytes:
    return _COMPLEX.pack(COMPLEX, value.real, value.imag)


# A datetime is a date.
_ENCODERS: tuple[tuple[type, Encoder], ...] = (
    (datetime, _encode_datetime),
    (date, _encode_date),
    (time, _encode_time),
    (timedelta, _encode_timedelta),
    (tzinfo, _encode_tzinfo),
    (Decimal, _encode_decimal),
    (UUID, _encode_identifier),
    (set, _encode_set),
    (frozenset, _encode_frozenset),
    (complex, _encode_complex),
    (int, _encode_integer),
)


# -- unpacking -----------------------------------------------------------------------------


def decode(data: bytes, reader: Reader) -> Any:
    """The value of an ext of type 126.

    Raises:
        Exception: of several builtin classes, when the data is malformed.
    """
    return _DECODERS[data[0]](data, reader)


def _decode_integer(data: bytes, reader: Reader) -> int:
    if len(data) < 2:
        raise ValueError("an integer without bytes")
    return int.from_bytes(data[1:], "big", signed=True)


def _decode_datetime(data: bytes, reader: Reader) -> datetime:
    _, year, month, day, hour, minute, second, fold, microsecond = _DATETIME.unpack_from(data)
    zone = _decode_zone(data[_DATETIME.size :])
    return datetime(year, month, day, hour, minute, second, microsecond, zone, fold=fold)


def _decode_date(data: bytes, reader: Reader) -> date:
    _, year, month, day = _DATE.unpack(data)
    return date(year, month, day)


def _decode_time(data: bytes, reader: Reader) -> time:
    _, hour, minute, second, fold, microsecond = _TIME.unpack_from(data)
    zone = _decode_zone(data[_TIME.size :])
    return time(hour, minute, second, microsecond, zone, fold=fold)


def _decode_timedelta(data: bytes, reader: Reader) -> timedelta:
    _, days, seconds, microseconds = _TIMEDELTA.unpack(data)
    return timedelta(days, seconds, microseconds)


def _decode_tzinfo(data: bytes, reader: Reader) -> tzinfo:
    zone = _decode_zone(data[1:])
    if zone is None:
        raise ValueError("an empty zone")
    return zone


def _decode_zone(data: bytes) -> tzinfo | None:
    if not data:
        return None
    if data[0] == _KEY:
        return zone_info(data[1:].decode("ascii"))
    kind, microseconds = _OFFSET.unpack_from(data)
    offset = timedelta(microseconds=microseconds)
    name = data[_OFFSET.size :]
    if kind == _NAMED:
        return timezone(offset, name.decode("utf-8", "surrogatepass"))
    if kind != _FIXED or name:
        raise ValueError("no zone")
    return timezone(offset)


def _decode_decimal(data: bytes, reader: Reader) -> Decimal:
    return Decimal(data[1:].decode("ascii"))


def _decode_identifier(data: bytes, reader: Reader) -> UUID:
    return UUID(bytes=data[1:])


def _decode_set(data: bytes, reader: Reader) -> set[Any]:
    return set(reader.members(data[1:]))


def _decode_frozenset(data: bytes, reader: Reader) -> frozenset[Any]:
    return frozenset(reader.members(data[1:]))


def _decode_complex(data: bytes, reader: Reader) -> complex:
    _, real, imaginary = _COMPLEX.unpack(data)
    return complex(real, imaginary)


_DECODERS: dict[int, Callable[[bytes, Reader], Any]] = {
    INTEGER: _decode_integer,
    DATETIME: _decode_datetime,
    DATE: _decode_date,
    TIME: _decode_time,
    TIMEDELTA: _decode_timedelta,
    ZONE: _decode_tzinfo,
    DECIMAL: _decode_decimal,
    IDENTIFIER: _decode_identifier,
    SET: _decode_set,
    FROZENSET: _decode_frozenset,
    COMPLEX: _decode_complex,
}
