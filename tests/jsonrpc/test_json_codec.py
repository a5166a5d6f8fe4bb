"""JSON texts and values, with each of the two libraries alike."""

import dataclasses
import enum
import gc
import importlib.util
import json
import math
import sys
import threading
import time as clock
import types
import uuid
from collections import ChainMap, OrderedDict, UserDict, UserList, deque, namedtuple
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berrymq_rpc.jsonrpc.protocols import json_codec, json_stdlib
from berrymq_rpc.jsonrpc.protocols.json_codec import MAX_DEPTH, TextError, decode, encode

try:
    from berrymq_rpc.jsonrpc.protocols import json_msgspec
except ImportError:
    json_msgspec = None  # type: ignore[assignment]

needs_msgspec = pytest.mark.skipif(json_msgspec is None, reason="msgspec is not installed")

DAY, FACE = "\u65e5", "\U0001f600"


@pytest.fixture(params=["plain", pytest.param("fast", marks=needs_msgspec)], autouse=True)
def engine(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test reads and writes with one library and with the other."""
    module: Any = json_stdlib if request.param == "plain" else json_msgspec
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_codec, "parse", module.parse)
        patch.setattr(json_codec, "write", module.write)
        yield


# -- reading ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"null", None),
        (b" \t\r\n[1, 2.5, true, false, \"\\u00e9\"] \n", [1, 2.5, True, False, "\u00e9"]),
        ('{"a": {"b": []}, "\u65e5": "\U0001f600"}'.encode(), {"a": {"b": []}, DAY: FACE}),
        (b'"\\ud83d\\ude00\\\\ud800"', "\U0001f600\\ud800"),
        (b"18446744073709551616", 1 << 64),
        (b"-9223372036854775809", -(1 << 63) - 1),
        (b"1e400000"[:3], 1e4),
        (b"123456789012345678901234567890.5", 1.2345678901234568e29),
        (b"1e-400", 0.0),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b'"\\u0000"', "\0"),
    ],
)  # fmt: skip
def test_reads(data: bytes, value: Any) -> None:
    assert decode(data) == value
    assert decode(bytearray(data)) == decode(memoryview(data)) == value
    assert decode(data.decode()) == value


BAD = [
    b"",
    b" ",
    b"{",
    b"[1,]",
    b'{"a":1,}',
    b"{1:2}",
    b"nul",
    b"1 2",
    b"01",
    b"1.",
    b"+1",
    b"'a'",
    b'"\x01"',
    b'"\\x41"',
    b'""\0',
    b"\xef\xbb\xbf1",
    b"NaN",
    b"[Infinity]",
    b"-Infinity",
    b"1e999",
    b"[1, -1e999]",
    b"9" * 5000,
    b'"\xff"',
    b'"\xed\xa0\x80"',
    b'"\\ud800"',
    b'{"\\udc00 and more": 1}',
    b'"\\ud800\\u0061"',
    b"\x0b1",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"[" * 2000 + b"]" * 2000,
    b"]" * 200 + b"[" * 200,
]


@pytest.mark.parametrize("data", BAD, ids=lambda data: repr(data[:20]))
def test_refuses(data: bytes) -> None:
    with pytest.raises(TextError):
        decode(data)


@pytest.mark.parametrize("data", [None, 1, ["[1]"], "\ud800"])
def test_refuses_what_is_no_bytes(data: Any) -> None:
    with pytest.raises(TextError):
        decode(data)


def test_size() -> None:
    assert decode(b'"' + b"x" * 98 + b'"', 100) == "x" * 98
    with pytest.raises(TextError, match="101 bytes are more than the 100"):
        decode(b'"' + b"x" * 99 + b'"', 100)


def nested(levels: int) -> bytes:
    half = levels // 2
    return b"[" * half + b'{"[{": ' * (levels - half) + b"1" + b"}" * (levels - half) + b"]" * half


@pytest.mark.parametrize("levels", [1, 5, 100])
def test_depth(levels: int) -> None:
    value = decode(nested(levels), max_depth=levels)
    assert encode(value, levels) == nested(levels).replace(b" ", b"")
    with pytest.raises(TextError, match=f"nested more than {levels} levels"):
        decode(nested(levels + 1), max_depth=levels)


def test_brackets_that_do_not_nest_are_no_depth() -> None:
    assert (
        decode(b"[" + b",".join([b'[{"[[[[": "\\"[[[["}]'] * 1000) + b"]")
        == [[{"[[[[": '"[[[['}]] * 1000
    )


def test_four_megabytes_of_brackets() -> None:
    for data in (b"[" * (4 << 20), b"[]" * (2 << 20), b'"' + b"[" * 1000 + b'\\"' * 1_000_000):
        with pytest.raises(TextError):
            decode(data)


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=20,
)


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """A text of which a byte is missing or another one."""
    data = json.dumps(draw(JSON)).encode()
    at = draw(st.integers(0, len(data) - 1))
    return data[:at] + draw(st.binary(max_size=2)) + data[at + 1 :]


@given(JSON)
def test_round_trip(value: Any) -> None:
    data = encode(value)
    assert decode(data) == value
    assert json.loads(data) == value
    assert decode(json.dumps(value).encode()) == value


@needs_msgspec
@given(st.binary() | st.text().map(lambda t: t.encode("utf-8", "surrogatepass")) | broken())
def test_both_libraries_read_alike(data: bytes) -> None:
    def read(parse: Callable[[bytes], Any]) -> tuple[str, Any]:
        try:
            return "value", parse(data)
        except ValueError:
            return "refused", None

    assert read(json_stdlib.parse) == read(json_msgspec.parse)


@pytest.mark.parametrize("part", [b"[]", b"{}", b"1", b'{"":0}', b'[",,,[[[{{{"]'])
def test_a_text_may_have_so_many_values(part: bytes) -> None:
    value = decode(part)
    values = 1 if part == b"1" else 2
    text = b"[" + b",".join([part] * 100) + b"]"
    assert decode(text, max_values=1 + 100 * values) == [value] * 100
    with pytest.raises(TextError, match=r"values$"):
        decode(text, max_values=100 * values)
    # Not those that only look like values, in a text.
    quoted = b'"' + text.replace(b'"', b"'") + b'"'
    assert decode(quoted, max_values=2)


@pytest.mark.parametrize("start", [b"", b"[" * 97, b"[" * 98])
def test_the_depth_of_many_is_that_of_the_deepest(start: bytes) -> None:
    end = b"]" * len(start)
    for part in (b"[]", b"[{}]", b"{}", b'{"a":[]}'):
        text = start + b"[" + (part + b",") * 50 + part + b"]" + end
        depth = len(start) + 1 + part.count(b"[") + part.count(b"{")
        assert decode(text, max_depth=depth)
        with pytest.raises(TextError, match="nested"):
            decode(text, max_depth=depth - 1)


@pytest.mark.parametrize("number", [b"5e-324", b"1.2345678901234567E-300", b"2.5e-0310", b"1e-99"])
@pytest.mark.parametrize("count", [1, 5000])
def test_tiny_numbers_are_read_alike_however_many(number: bytes, count: int) -> None:
    text = b"[" + b",".join([number] * count) + b"]"
    began = clock.perf_counter()
    assert decode(text) == [float(number)] * count
    # msgspec itself takes 20 us and more for each of the first.
    assert clock.perf_counter() - began < 1
    with pytest.raises(TextError):
        decode(text[:-1] + b",1e400]")


def test_many_arrays_are_read_without_collecting_garbage() -> None:
    runs: list[Any] = []
    callback = lambda phase, info: runs.append(phase)  # noqa: E731
    gc.callbacks.append(callback)
    try:
        value = decode(b"[" + b",".join([b"[]"] * 50_000) + b"]")
    finally:
        gc.callbacks.remove(callback)
    assert len(value) == 50_000
    assert len(runs) <= 4
    assert gc.isenabled()


# -- writing ---------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Text(str):
    def __str__(self) -> str:
        return "something else"


class Whole(int):
    pass


class Float(float):
    pass


class Octets(bytes):
    pass


class Moment(datetime):
    pass


@dataclasses.dataclass
class Point:
    x: int
    y: Any = None


class Told:
    def to_dict(self) -> dict[str, Any]:
        return {"told": {1}}


Pair = namedtuple("Pair", "first second")
ID = uuid.UUID(int=1)

VALUES: list[tuple[Any, Any]] = [
    ((1, (2,)), [1, [2]]),
    ({1}, [1]),
    (frozenset([1]), [1]),
    (deque([1, 2]), [1, 2]),
    (range(3), [0, 1, 2]),
    ({"a": 1}.keys(), ["a"]),
    (UserList([1]), [1]),
    (Pair(1, 2), [1, 2]),
    (UserDict(a=1), {"a": 1}),
    (ChainMap({"a": 1}), {"a": 1}),
    (OrderedDict(a=1), {"a": 1}),
    (types.MappingProxyType({"a": 1}), {"a": 1}),
    (b"\xff\x00", "/wA="),
    (bytearray(b"a"), "YQ=="),
    (memoryview(b"a"), "YQ=="),
    (Octets(b"a"), "YQ=="),
    (date(2026, 1, 2), "2026-01-02"),
    (datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05"),
    (datetime(2026, 1, 2, 3, 4, 5, 6), "2026-01-02T03:04:05.000006"),
    (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00Z"),
    (datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=9))), "2026-01-02T00:00:00+09:00"),
    (datetime(2026, 1, 2, tzinfo=timezone(-timedelta(minutes=90))), "2026-01-02T00:00:00-01:30"),
    (datetime(1890, 1, 2, tzinfo=timezone(timedelta(seconds=3208))), "1890-01-02T00:00:00+00:53"),
    (Moment(2026, 1, 2), "2026-01-02T00:00:00"),
    (time(1, 2), "01:02:00"),
    (time(1, 2, 3, 4, UTC), "01:02:03.000004Z"),
    (timedelta(), "P0D"),
    (timedelta(days=2), "P2D"),
    (timedelta(seconds=2.5), "PT2.5S"),
    (timedelta(days=1, hours=1), "P1DT3600S"),
    (-timedelta(seconds=3), "-PT3S"),
    (Decimal("1.50"), "1.50"),
    (Decimal("NaN"), "NaN"),
    (ID, "00000000-0000-0000-0000-000000000001"),
    (Colour.RED, "red"),
    (Number.ONE, 1),
    (Point(1, Point(2)), {"x": 1, "y": {"x": 2, "y": None}}),
    (Told(), {"told": [1]}),
    (Text("text"), "text"),
    (Whole(7), 7),
    (Float(1.5), 1.5),
    (math.nan, None),
    ([math.inf, -math.inf, 1.5], [None, None, 1.5]),
    ({"a": Float("inf")}, {"a": None}),
    (1 << 70, 1 << 70),
    ({1: 2, 1.5: 3}, {"1": 2, "1.5": 3}),
    ({None: 1, True: 2, False: 3}, {"null": 1, "true": 2, "false": 3}),
    ({ID: 1, date(2026, 1, 2): 2, b"a": 3}, {str(ID): 1, "2026-01-02": 2, "YQ==": 3}),
    ({Colour.RED: 1, Number.ONE: 2, Text("t"): 3}, {"red": 1, "1": 2, "t": 3}),
    ({Whole(1): {2}}, {"1": [2]}),
]


@pytest.mark.parametrize(("value", "expected"), VALUES, ids=lambda v: type(v).__name__)
def test_values_that_json_lacks(value: Any, expected: Any) -> None:
    assert decode(encode(value)) == expected
    # Inside something that is written by the long way.
    assert decode(encode({None: [value]})) == {"null": [expected]}


RECURSIVE: list[Any] = []
RECURSIVE.append(RECURSIVE)
DEEP: Any = 1
for _ in range(100_000):
    DEEP = [DEEP]


class Endless:
    def to_dict(self) -> "Endless":
        return self


class Failing:
    def to_dict(self) -> Any:
        raise LookupError("no")


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (object(), TypeError),
        ([1j], TypeError),
        (object, TypeError),
        (len, TypeError),
        ({(1, 2): 3}, TypeError),
        ({Point: 3}, TypeError),
        ({"a": iter(())}, TypeError),
        (ValueError("x"), TypeError),
        ("\ud800", ValueError),
        ({"\udc00": 1}, ValueError),
        (10**5000, ValueError),
        (RECURSIVE, ValueError),
        ({"a": RECURSIVE, None: 1}, ValueError),
        (DEEP, ValueError),
        (Endless(), ValueError),
        (Failing(), LookupError),
    ],
    ids=lambda v: type(v).__name__,
)
def test_what_cannot_be_written(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        encode(value)
    # Nothing of it is left behind.
    assert encode([1]) == b"[1]"


def test_text_is_utf8_and_compact() -> None:
    data = encode({"\u65e5": ["\U0001f600", 'q"\\\n\x7f', "/"]})
    assert data == '{"\u65e5":["\U0001f600","q\\"\\\\\\n\x7f","/"]}'.encode()


def test_default_depth_is_read_back() -> None:
    assert decode(nested(MAX_DEPTH))


def lists(levels: int, inside: Any = 1) -> Any:
    for _ in range(levels):
        inside = [inside]
    return inside


@pytest.mark.parametrize("inside", [1, "[[[", {1.5: 2}, {1}, Point(1)], ids=repr)
def test_what_is_written_is_no_deeper_than_what_is_read(inside: Any) -> None:
    levels = 30 - (not isinstance(inside, int | str))
    assert decode(encode(lists(levels, inside), 30), max_depth=30)
    for more in (levels + 1, levels + 20, levels + 100, 100_000):
        with pytest.raises(ValueError, match=r"nested (more than 30 levels|too) deep"):
            encode(lists(more, inside), 30)


@pytest.mark.parametrize("levels", [1001, 5000, 100_000])
@pytest.mark.parametrize("inside", [1, {1.5: 2}], ids=repr)
def test_over_the_greatest_depth_that_can_be_allowed(levels: int, inside: Any) -> None:
    """There Python's own bound on recursion may come first."""
    with pytest.raises(ValueError, match=r"nested (more than 1000 levels|too) deep"):
        encode(lists(levels, inside), 1000)


def test_the_default_depth_of_what_is_written() -> None:
    assert decode(encode(lists(MAX_DEPTH)))
    with pytest.raises(ValueError, match=f"nested more than {MAX_DEPTH} levels deep"):
        encode(lists(MAX_DEPTH + 1))


def test_values_that_become_others_are_no_levels() -> None:
    assert decode(encode(lists(MAX_DEPTH, Colour.RED)))
    value: Any = Colour.RED
    for _ in range(MAX_DEPTH):
        value = {None: value}
    assert decode(encode(value))


@pytest.mark.skipif(
    sys.version_info < (3, 14), reason="Python counts calls, whatever room the stack has"
)
def test_depth_in_a_thread_with_a_small_stack() -> None:
    failed: list[Exception] = []

    def write() -> None:
        for value in (DEEP, RECURSIVE):
            try:
                encode(value)
            except ValueError as error:
                failed.append(error)

    size = threading.stack_size(256 << 10)
    try:
        thread = threading.Thread(target=write)
        thread.start()
    finally:
        threading.stack_size(size)
    thread.join()
    assert len(failed) == 2


def test_without_the_encoder_in_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json.encoder, "c_make_encoder", None)
    monkeypatch.setattr(
        json_codec, "write", lambda value: json_stdlib._make_encoder()(value).encode()
    )
    for value, expected in VALUES:
        assert decode(encode(value)) == expected
    assert encode({"\u65e5": [1, 2]}) == '{"\u65e5":[1,2]}'.encode()


def test_without_msgspec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, f"{json_stdlib.__package__}.json_msgspec", None)
    spec = importlib.util.spec_from_file_location(
        f"{json_stdlib.__package__}.other", json_codec.__file__
    )
    assert spec is not None
    assert spec.loader is not None
    other = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(other)
    assert other.parse is json_stdlib.parse
    assert other.encode({"a": {1}}) == b'{"a":[1]}'


def test_keys_that_are_numbers_of_other_libraries() -> None:
    assert decode(encode({Fraction(1, 2): "half", Fraction(4, 1): "four"})) == {
        "0.5": "half",
        "4.0": "four",
    }


def test_what_never_travels_says_what_to_do() -> None:
    with pytest.raises(TypeError, match="make a list of it"):
        encode(number for number in ())
