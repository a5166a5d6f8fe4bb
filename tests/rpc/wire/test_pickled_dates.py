"""Pickles of dates are read, those of anything else refused, and none of them is unpickled."""

import builtins
import copyreg
import datetime
import os
import pickle
import pickletools
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from berrymq_rpc.rpc.wire.pickled_dates import (
    MAX_PICKLE,
    read_pickled_date,
    write_pickled_date,
)

UTC = datetime.UTC
HOUR = datetime.timedelta(hours=1)
BERLIN = ZoneInfo("Europe/Berlin")
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)

OFFSETS = st.timedeltas(
    datetime.timedelta(hours=-23, minutes=-59), datetime.timedelta(hours=23, minutes=59)
)
ZONES = st.one_of(
    st.builds(datetime.timezone, OFFSETS),
    st.builds(datetime.timezone, OFFSETS, st.text(st.characters(), max_size=5)),
    st.just(UTC),
    st.sampled_from([BERLIN, ZoneInfo("UTC"), ZoneInfo.no_cache("Asia/Tokyo")]),
)
DATES = st.one_of(
    st.dates(),
    st.datetimes(timezones=st.one_of(st.none(), ZONES)),
    st.times(timezones=st.one_of(st.none(), ZONES)),
    st.timedeltas(),
    ZONES,
)


def same(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs)
    assert repr(ours) == repr(theirs)
    if isinstance(theirs, datetime.datetime):
        assert ours.replace(tzinfo=None) == theirs.replace(tzinfo=None)
        assert ours.utcoffset() == theirs.utcoffset()
    elif not isinstance(theirs, ZoneInfo):
        assert ours == theirs


@given(DATES, st.sampled_from(PROTOCOLS))
def test_what_pickle_writes_is_read(value: Any, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    # The early protocols have no place for the fold.
    expected = pickle.loads(data)
    same(read_pickled_date(data), expected)
    # Other picklers leave out what nothing refers to.
    same(read_pickled_date(pickletools.optimize(data)), expected)


@given(DATES)
def test_what_is_written_pickle_reads(value: Any) -> None:
    data = write_pickled_date(value)
    same(pickle.loads(data), value)
    same(read_pickled_date(data), value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "value",
    [
        datetime.date.min,
        datetime.date.max,
        datetime.datetime.min,
        datetime.datetime.max,
        datetime.time.min,
        datetime.time.max,
        datetime.timedelta.min,
        datetime.timedelta.max,
        datetime.timezone.min,
        datetime.timezone.max,
        UTC,
        datetime.timezone(HOUR, "\ud800"),
        datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone(HOUR, "\u20ac\n\\u0041")),
        # A long key. Debian keeps the zones that have another name by now in a package apart.
        ZoneInfo("America/Argentina/Buenos_Aires"),
        datetime.datetime(2020, 10, 25, 2, 30, tzinfo=BERLIN),
    ],
)
def test_special_values(value: Any, protocol: int) -> None:
    same(read_pickled_date(pickle.dumps(value, protocol)), value)


@pytest.mark.parametrize("protocol", [4, 5])
def test_fold(protocol: int) -> None:
    for value in (
        datetime.datetime(2020, 12, 25, 2, 30, tzinfo=BERLIN, fold=1),
        datetime.time(23, fold=1),
    ):
        assert read_pickled_date(pickle.dumps(value, protocol)).fold == 1  # type: ignore[union-attr]
        assert read_pickled_date(write_pickled_date(value)).fold == 1  # type: ignore[union-attr]


# -- what is written -----------------------------------------------------------------------


class Moment(datetime.datetime):
    pass


class Day(datetime.date):
    pass


class Hour(datetime.time):
    pass


class Span(datetime.timedelta):
    pass


class Zone(datetime.tzinfo):
    def utcoffset(self, moment: Any) -> datetime.timedelta:
        return HOUR

    def dst(self, moment: Any) -> None:
        return None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            Moment(2020, 1, 2, 3, 4, 5, 6, Zone(), fold=1),
            datetime.datetime(2020, 1, 2, 3, 4, 5, 6, datetime.timezone(HOUR), fold=1),
        ),
        (Day(2020, 1, 2), datetime.date(2020, 1, 2)),
        (Hour(1, 2, 3, 4, Zone()), datetime.time(1, 2, 3, 4, datetime.timezone(HOUR))),
        (Span(1, 2, 3), datetime.timedelta(1, 2, 3)),
    ],
)
def test_subclasses_are_written_as_what_they_are_derived_from(value: Any, expected: Any) -> None:
    same(pickle.loads(write_pickled_date(value)), expected)


def test_a_zone_of_its_own_class_alone() -> None:
    with pytest.raises(TypeError, match="no offset"):
        write_pickled_date(Zone())


# -- what is refused -----------------------------------------------------------------------


def refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="pickled date") as caught:
        read_pickled_date(data)
    assert type(caught.value) is ValueError
    assert len(str(caught.value)) < 100


class Exploit:
    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> Any:
        return self.reduced


class Stateful:
    pass


HOSTILE = [
    Exploit(os.mkdir, ("exploited",)),
    Exploit(os.system, ("mkdir exploited",)),
    Exploit(eval, ("__import__('os').mkdir('exploited')",)),
    Exploit(builtins.exec, ("import os; os.mkdir('exploited')",)),
    Exploit(getattr, (os.mkdir, "__call__")),
    Exploit(getattr, (datetime.date, "today")),
    Exploit(getattr, (ZoneInfo, "from_file")),
    Exploit(getattr, (ZoneInfo, "_unpickle", None)),
    Exploit(pickle.loads, (b"cos\nmkdir\n(Vexploited\ntR.",)),
    Exploit(copyreg._reconstructor, (datetime.date, object, None)),  # type: ignore[attr-defined]
    Exploit(datetime.date, (2020, 1, 1)),
    Exploit(datetime.date, (bytes([7, 228, 13, 1]),)),
    Exploit(datetime.date, (bytes([7, 228, 1]),)),
    Exploit(datetime.date, ("\u0007\u00e4\u0001\u0001",)),
    Exploit(datetime.datetime, (2020, 1, 1)),
    Exploit(datetime.datetime, (bytes([7, 228, 1, 1, 24, 0, 0, 0, 0, 0]),)),
    Exploit(datetime.datetime, (bytes([7, 228, 1, 1, 23, 0, 0, 255, 255, 255]),)),
    Exploit(datetime.datetime, (bytes([7, 228, 1, 1, 23, 0, 0, 0, 0]),)),
    Exploit(datetime.datetime, (bytes([7, 228, 1, 1, 23, 0, 0, 0, 0, 0]), 5)),
    Exploit(datetime.time, (bytes([255, 0, 0, 0, 0, 0]),)),
    Exploit(datetime.time, (bytes([1, 60, 0, 0, 0, 0]),)),
    Exploit(datetime.timedelta, (1.5, 0, 0)),
    Exploit(datetime.timedelta, (True, 0, 0)),
    Exploit(datetime.timedelta, (2**40, 0, 0)),
    Exploit(datetime.timedelta, (2**900, 0, 0)),
    Exploit(datetime.timedelta, (1,)),
    Exploit(datetime.timezone, (5,)),
    Exploit(datetime.timezone, (HOUR, 5)),
    Exploit(datetime.timezone, (HOUR * 24,)),
    Exploit(datetime.timezone, (HOUR, "a", "b")),
    Exploit(ZoneInfo, ("UTC",)),
    Exploit(ZoneInfo._unpickle, ("../../etc/passwd", True)),  # type: ignore[attr-defined]
    Exploit(ZoneInfo._unpickle, ("Nowhere/Town", True)),  # type: ignore[attr-defined]
    Exploit(ZoneInfo._unpickle, (5, True)),  # type: ignore[attr-defined]
    Stateful(),
    datetime.date,
    datetime.timezone,
    ZoneInfo._unpickle,  # type: ignore[attr-defined]
    None,
    True,
    5,
    2**70,
    "text",
    b"bytes",
    (),
    (UTC,),
    [UTC],
    {1: UTC},
    {UTC},
    1.5,
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_other_pickles(
    number: int, protocol: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(pickle.dumps(HOSTILE[number], protocol))
    assert list(tmp_path.iterdir()) == []


STATE = b"C\x04\x07\xe4\x01\x01"
DATE = b"cdatetime\ndate\n"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b".",
        b"N",
        b"N.",
        b"\x88.",
        b"\x89.",
        b"\x80",
        b"\x80\x06N.",
        b"\x80\xff" + DATE + STATE + b"\x85R.",
        DATE + STATE + b"\x85R",
        DATE + STATE + b"\x85RN.",
        DATE + STATE + b"R.",
        DATE + STATE[:3] + b"\x85R.",
        DATE + b"t.",
        b"\x85.",
        b"\x93.",
        b"R.",
        b"h\x00.",
        b"q\x00.",
        b"g1\n.",
        b"gx\n.",
        b"p1\n.",
        b"I02\n.",
        b"Ix\n.",
        b"I1",
        b"I" + b"1" * 30 + b"\n.",
        b"L" + b"9" * 200 + b"L\n.",
        b"L1_0L\n.",
        b"V\\ud8\n.",
        b"X\xff\xff\xff\xff.",
        b"B\xff\xff\xff\xff.",
        b"\x8a\xff\x01.",
        b"\x8c\x02\xff\xff.",
        b"\x95\x01.",
        b"cos\nmkdir\n(Vexploited\ntR.",
        b"cdatetime\ndate\xff\n.",
        b"c\n\n.",
        b"\x8c\x08datetime\x8c\x0ddate.fromordi\x93.",
        b"c_codecs\nencode\n(V\xe4\nVutf-8\ntR.",
        b"c_codecs\nencode\n(I5\nVlatin1\ntR.",
        b"cbuiltins\ngetattr\n(czoneinfo\nZoneInfo\nVclear_cache\ntR.",
        b"\x82\x01.",
        b"Pid\n.",
        b"Q.",
        b"}.",
        b"o.",
        b"b.",
        b"\x81.",
        b"\x92.",
        b"((((((t.",
    ],
)
def test_malformed_pickles(data: bytes) -> None:
    refused(data)


def test_ways_in_which_other_picklers_may_write() -> None:
    span = b"cdatetime\ntimedelta\n"
    assert read_pickled_date(span + b"(I-5\nK\x01M\x10\x27tR.") == datetime.timedelta(-5, 1, 10_000)
    zone = b"cbuiltins\ngetattr\nczoneinfo\nZoneInfo\nX\x09\x00\x00\x00_unpickle\x86R"
    for flag in (b"\x88", b"\x89", b"I01\n", b"I00\n", b"K\x01"):
        assert read_pickled_date(zone + b"\x8c\x03UTC" + flag + b"\x86R.") == ZoneInfo("UTC")
    # What is needed twice is remembered.
    state = b"c_codecs\nencode\n(V\x07\xe4\x01\x01\nVlatin1\ntRp0\n"
    assert read_pickled_date(DATE + b"(" + state + b"tR.") == datetime.date(2020, 1, 1)
    refused(state + b"g0\n.")


def test_too_long() -> None:
    name = "x" * 150
    assert read_pickled_date(write_pickled_date(datetime.timezone(HOUR, name))).tzname(None) == name  # type: ignore[union-attr]
    data = write_pickled_date(datetime.timezone(HOUR, "x" * 250))
    assert len(data) > MAX_PICKLE
    refused(data)


def test_tuples_that_share_their_parts() -> None:
    # Two to the power of 100, if it were looked at.
    refused(b"K\x01" + b"q\x00h\x00\x86" * 49 + b".")


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    for prefix in (b"", b"\x80\x04", DATE, b"cdatetime\ndatetime\nC\x0a", b"cdatetime\ntimezone\n"):
        try:
            value = read_pickled_date(prefix + data)
        except ValueError as error:
            assert "pickled date" in str(error)  # noqa: PT017
        else:
            repr(value)


@settings(max_examples=500)
@given(DATES, st.sampled_from(PROTOCOLS), st.data())
def test_pickles_with_errors(value: Any, protocol: int, data: st.DataObject) -> None:
    pickled = bytearray(pickle.dumps(value, protocol))
    for _ in range(data.draw(st.integers(1, 3))):
        pickled[data.draw(st.integers(0, len(pickled) - 1))] = data.draw(st.integers(0, 255))
    try:
        got = read_pickled_date(bytes(pickled))
    except ValueError as error:
        assert "pickled date" in str(error)  # noqa: PT017
    else:
        # As good as one that was made in the usual way.
        repr(got)
        same(read_pickled_date(write_pickled_date(got)), got)
