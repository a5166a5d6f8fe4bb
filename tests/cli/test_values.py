import json
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berrymq_rpc.cli.values import json_text, printable, python_text

HUGE = 10**5000

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e9, 1e9) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)  # fmt: skip


@given(plain, st.booleans())
def test_what_json_has_is_itself(value: object, ascii_only: bool) -> None:
    text = json_text(value, ascii_only=ascii_only)
    assert json.loads(text) == value
    assert text.isprintable()
    assert text.isascii() or not ascii_only


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((1, [2]), "[1, [2]]"),
        (b"\x00\xff", '"AP8="'),
        (bytearray(b"a"), '"YQ=="'),
        (datetime(2026, 1, 31, 12, 0, 0, 5, UTC), '"2026-01-31T12:00:00.000005+00:00"'),
        (date(2026, 1, 31), '"2026-01-31"'),
        (time(12, 30), '"12:30:00"'),
        (timedelta(minutes=1.5), "90.0"),
        (Decimal("1.50"), '"1.50"'),
        (UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (1 + 2j, '"(1+2j)"'),
        (timezone(timedelta(hours=1)), '"UTC+01:00"'),
        ({3, 10, 2}, "[10, 2, 3]"),
        (frozenset({"b", "a"}), '["a", "b"]'),
        (float("nan"), '"NaN"'),
        (float("inf"), '"Infinity"'),
        (float("-inf"), '"-Infinity"'),
        (2**70, str(2**70)),
        pytest.param(HUGE, f'"{HUGE:#x}"', id="huge"),
        ({1: "a", None: "b", (1, 2): "c"}, '{"1": "a", "null": "b", "[1, 2]": "c"}'),
        ({b"a": 1}, '{"YQ==": 1}'),
        ({1: "a", "1": "b"}, '[[1, "a"], ["1", "b"]]'),
        (range(2), '"range(0, 2)"'),
        ("\x1b[2J\x7f\x9b\u202e\ud800é", '"\\u001b[2J\\u007f\\u009b\\u202e\\ud800é"'),
        ("\U000e0001", '"\\udb40\\udc01"'),
    ],
)  # fmt: skip
def test_what_json_lacks(value: object, text: str) -> None:
    assert json_text(value) == text
    json.loads(text)


@given(st.text())
def test_printable_text_has_one_line(text: str) -> None:
    assert printable(text).isprintable()
    assert set(printable(text, lines=True).replace("\n", "")) <= set(printable(text))


def test_escapes_are_those_of_python() -> None:
    assert printable("é\x1b\n\u202e") == "é\\x1b\\n\\u202e"
    assert printable("a\nb\r", lines=True) == "a\nb\\r"


def test_python_text() -> None:
    assert python_text({"a": b"\x1b", "b": (1,)}) == "{'a': b'\\x1b', 'b': (1,)}"
    assert python_text([HUGE]) == f'["{HUGE:#x}"]'
