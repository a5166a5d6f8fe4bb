"""The dates of plain aiozmq.rpc 1.0 peers, which are pickles, without unpickling them.

Such a peer packs a date, datetime, time, timedelta or tzinfo as ``pickle.dumps`` of it, and takes
the same. `pickle` would run what the bytes say; this reader knows the opcodes that pickles of
such objects consist of, in all protocols from 0 to 5, and nothing that it finds is imported or
called:

=================================  =========================================================
global                             what it may be applied to
=================================  =========================================================
datetime.date                      a state of 4 bytes
datetime.datetime                  a state of 10 bytes, and a tzinfo or not
datetime.time                      a state of 6 bytes, and a tzinfo or not
datetime.timedelta                 days, seconds, microseconds
datetime.timezone                  a timedelta, and a name or not
zoneinfo.ZoneInfo._unpickle        a key, and whether from the cache
_codecs.encode                     text and ``"latin1"``: bytes, in protocols 0 to 2
builtins.getattr                   ``ZoneInfo`` and ``"_unpickle"``, and nothing else
=================================  =========================================================

(``builtins`` is ``__builtin__`` in protocols 0 to 2.) States are read field by field, each of
which has to be in its range.
"""

import pickle
import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from enum import Enum, auto
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

from .ext_types import fixed_zone
from .zones import zone_info

__all__ = ["MAX_PICKLE", "PickledDate", "read_pickled_date", "write_pickled_date"]

#: Bytes. A datetime with a named zone takes about 150 in protocol 0, and 120 in the later ones.
MAX_PICKLE = 256

PickledDate: TypeAlias = date | time | timedelta | tzinfo


class _Global(Enum):
    DATE = auto()
    DATETIME = auto()
    TIME = auto()
    TIMEDELTA = auto()
    TIMEZONE = auto()
    ZONE = auto()
    UNPICKLE_ZONE = auto()
    ENCODE = auto()
    GETATTR = auto()


_GLOBALS = {
    ("datetime", "date"): _Global.DATE,
    ("datetime", "datetime"): _Global.DATETIME,
    ("datetime", "time"): _Global.TIME,
    ("datetime", "timedelta"): _Global.TIMEDELTA,
    ("datetime", "timezone"): _Global.TIMEZONE,
    ("zoneinfo", "ZoneInfo"): _Global.ZONE,
    ("_codecs", "encode"): _Global.ENCODE,
    ("builtins", "getattr"): _Global.GETATTR,
    ("__builtin__", "getattr"): _Global.GETATTR,
}

_MARK = object()
_NUMBER = re.compile(rb"-?[0-9]{1,20}")

# How protocols 0 and 1 write them.
_TRUTH = {b"00": False, b"01": True}


def write_pickled_date(value: PickledDate) -> bytes:
    """Make a pickle for a plain aiozmq.rpc peer.

    Subclasses are written as what they are derived from, and any other tzinfo as the offset that
    it has at that moment: the peer need not have these classes.

    Raises:
        TypeError: `value` is a tzinfo of its own class.
    """
    return pickle.dumps(_plain(value), protocol=4)


def read_pickled_date(data: bytes) -> PickledDate:
    """Return the object that `data` is a pickle of.

    Raises:
        ValueError: it is not a pickle of such an object, or is longer than 256 bytes.
    """
    if len(data) > MAX_PICKLE:
        raise ValueError(f"a pickled date of {len(data):,} bytes")
    try:
        value = _Reader(data).read()
    except Exception:
        # The first error in malformed bytes says nothing useful.
        value = None
    if isinstance(value, date | time | timedelta | tzinfo):
        return value
    raise ValueError("not a pickled date")


def _plain(value: PickledDate) -> PickledDate:
    if isinstance(value, datetime):
        return datetime(
            value.year,
            value.month,
            value.day,
            value.hour,
            value.minute,
            value.second,
            value.microsecond,
            value.tzinfo and fixed_zone(value.tzinfo, value),
            fold=value.fold,
        )
    if isinstance(value, date):
        return date(value.year, value.month, value.day)
    if isinstance(value, time):
        return time(
            value.hour,
            value.minute,
            value.second,
            value.microsecond,
            value.tzinfo and fixed_zone(value.tzinfo, value),
            fold=value.fold,
        )
    if isinstance(value, timedelta):
        return timedelta(value.days, value.seconds, value.microseconds)
    zone = fixed_zone(value, None)
    if zone is None:
        raise TypeError("a tzinfo of its own class has no offset without a datetime")
    return zone


class _Reader:
    """Interprets the opcodes of one pickle. Raises any exception if they make no date."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def read(self) -> Any:
        while True:
            opcode = self._take(1)
            if opcode == b".":
                (value,) = self._stack
                return value
            _OPCODES[opcode](self)

    def _take(self, size: int) -> bytes:
        end = self._position + size
        taken = self._data[self._position : end]
        if len(taken) != size:
            raise ValueError("truncated")
        self._position = end
        return taken

    def _number(self, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(self._take(size), "little", signed=signed)

    def _line(self) -> bytes:
        end = self._data.index(b"\n", self._position)
        line = self._data[self._position : end]
        self._position = end + 1
        return line

    def _decimal(self, line: bytes) -> int:
        if not _NUMBER.fullmatch(line):
            raise ValueError("no number")
        return int(line)

    def protocol(self) -> None:
        if self._take(1)[0] > pickle.HIGHEST_PROTOCOL:
            raise ValueError("a later protocol")

    def frame(self) -> None:
        self._take(8)

    def mark(self) -> None:
        self._stack.append(_MARK)

    def true(self) -> None:
        self._stack.append(True)

    def false(self) -> None:
        self._stack.append(False)

    def int_line(self) -> None:
        line = self._line()
        self._stack.append(_TRUTH[line] if line in _TRUTH else self._decimal(line))

    def int_4(self) -> None:
        self._stack.append(self._number(4, signed=True))

    def int_1(self) -> None:
        self._stack.append(self._number(1))

    def int_2(self) -> None:
        self._stack.append(self._number(2))

    def text_line(self) -> None:
        self._stack.append(self._line().decode("raw-unicode-escape"))

    def text_4(self) -> None:
        self._text(4)

    def text_1(self) -> None:
        self._text(1)

    def _text(self, size: int) -> None:
        self._stack.append(self._take(self._number(size)).decode("utf-8", "surrogatepass"))

    def bytes_1(self) -> None:
        self._stack.append(self._take(self._number(1)))

    def tuple_mark(self) -> None:
        start = len(self._stack) - 1
        while self._stack[start] is not _MARK:
            start -= 1
        items = tuple(self._stack[start + 1 :])
        del self._stack[start:]
        self._stack.append(items)

    def tuple_1(self) -> None:
        self._tuple(1)

    def tuple_2(self) -> None:
        self._tuple(2)

    def tuple_3(self) -> None:
        self._tuple(3)

    def _tuple(self, size: int) -> None:
        items = tuple(self._stack[-size:])
        if len(items) != size:
            raise ValueError("too few")
        del self._stack[-size:]
        self._stack.append(items)

    def put_line(self) -> None:
        self._memo[self._decimal(self._line())] = self._stack[-1]

    def put_1(self) -> None:
        self._memo[self._number(1)] = self._stack[-1]

    def memoize(self) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def get_line(self) -> None:
        self._stack.append(self._memo[self._decimal(self._line())])

    def get_1(self) -> None:
        self._stack.append(self._memo[self._number(1)])

    def global_lines(self) -> None:
        module = self._line().decode("ascii")
        self._stack.append(_GLOBALS[module, self._line().decode("ascii")])

    def global_stack(self) -> None:
        name = self._stack.pop()
        self._stack.append(_GLOBALS[self._stack.pop(), name])

    def reduce(self) -> None:
        arguments = self._stack.pop()
        if type(arguments) is not tuple:
            raise TypeError("arguments are a tuple")
        self._stack.append(_APPLY[self._stack.pop()](*arguments))


def _date(state: bytes) -> date:
    high, low, month, day = _exactly(bytes, state)
    return date(high << 8 | low, month, day)


def _datetime(state: bytes, zone: tzinfo | None = None) -> datetime:
    high, low, month, day, hour, minute, second, *microsecond = _exactly(bytes, state)
    return datetime(
        high << 8 | low,
        month & 0x7F,
        day,
        hour,
        minute,
        second,
        _microsecond(microsecond),
        zone,
        fold=month >> 7,
    )


def _time(state: bytes, zone: tzinfo | None = None) -> time:
    hour, minute, second, *microsecond = _exactly(bytes, state)
    return time(hour & 0x7F, minute, second, _microsecond(microsecond), zone, fold=hour >> 7)


def _microsecond(state: list[int]) -> int:
    high, middle, low = state
    return high << 16 | middle << 8 | low


def _timedelta(days: int, seconds: int, microseconds: int) -> timedelta:
    return timedelta(_exactly(int, days), _exactly(int, seconds), _exactly(int, microseconds))


def _timezone(offset: timedelta, *name: str) -> timezone:
    return timezone(_exactly(timedelta, offset), *(_exactly(str, part) for part in name))


def _zone(key: str, from_cache: bool) -> ZoneInfo:
    return zone_info(key)


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise ValueError("another encoding")
    if type(text) is not str:
        raise TypeError("no text")
    return text.encode("latin-1")


def _getattr(owner: object, name: str) -> _Global:
    if owner is not _Global.ZONE or name != "_unpickle":
        raise ValueError("another attribute")
    return _Global.UNPICKLE_ZONE


def _exactly(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError("another type")
    return value


_APPLY: dict[_Global, Callable[..., Any]] = {
    _Global.DATE: _date,
    _Global.DATETIME: _datetime,
    _Global.TIME: _time,
    _Global.TIMEDELTA: _timedelta,
    _Global.TIMEZONE: _timezone,
    _Global.UNPICKLE_ZONE: _zone,
    _Global.ENCODE: _encode,
    _Global.GETATTR: _getattr,
}

_OPCODES: dict[bytes, Callable[[_Reader], None]] = {
    pickle.PROTO: _Reader.protocol,
    pickle.FRAME: _Reader.frame,
    pickle.MARK: _Reader.mark,
    pickle.NEWTRUE: _Reader.true,
    pickle.NEWFALSE: _Reader.false,
    pickle.INT: _Reader.int_line,
    pickle.BININT: _Reader.int_4,
    pickle.BININT1: _Reader.int_1,
    pickle.BININT2: _Reader.int_2,
    pickle.UNICODE: _Reader.text_line,
    pickle.BINUNICODE: _Reader.text_4,
    pickle.SHORT_BINUNICODE: _Reader.text_1,
    pickle.SHORT_BINBYTES: _Reader.bytes_1,
    pickle.TUPLE: _Reader.tuple_mark,
    pickle.TUPLE1: _Reader.tuple_1,
    pickle.TUPLE2: _Reader.tuple_2,
    pickle.TUPLE3: _Reader.tuple_3,
    pickle.PUT: _Reader.put_line,
    pickle.BINPUT: _Reader.put_1,
    pickle.MEMOIZE: _Reader.memoize,
    pickle.GET: _Reader.get_line,
    pickle.BINGET: _Reader.get_1,
    pickle.GLOBAL: _Reader.global_lines,
    pickle.STACK_GLOBAL: _Reader.global_stack,
    pickle.REDUCE: _Reader.reduce,
}
