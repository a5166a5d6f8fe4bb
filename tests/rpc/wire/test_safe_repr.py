"""Text about objects that do what they can to prevent it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berrymq_rpc.rpc.wire.safe_repr import MAX_TEXT, bounded, full_name, safe_repr, safe_str


class Nameless(type):
    def __getattribute__(cls, name: str) -> Any:
        raise RuntimeError(name)


class Hostile(metaclass=Nameless):
    def __repr__(self) -> str:
        raise SystemExit

    def __str__(self) -> str:
        raise GeneratorExit


class Interrupted:
    def __repr__(self) -> str:
        raise KeyboardInterrupt

    __str__ = __repr__


class Text(str):
    __slots__ = ()

    def __getitem__(self, key: Any) -> str:
        raise RuntimeError

    def encode(self, *args: Any) -> bytes:
        raise RuntimeError


class Wordy:
    def __repr__(self) -> str:
        return Text("x" * 10_000)


def test_full_name() -> None:
    assert full_name(int) == "builtins.int"
    assert full_name(Hostile) == f"{__name__}.Hostile"
    assert full_name(type("Odd", (), {"__module__": 5})) == "Odd"
    assert full_name(type("Odd", (), {"__module__": "\ud800"})) == "\\ud800.Odd"


def test_full_name_without_a_module() -> None:
    # Made where no global says of which module it is.
    cls = eval("type('Bare', (), {})", {"__builtins__": {"type": type}})
    assert full_name(cls) == "Bare"


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("", 4, ""),
        ("abcd", 4, "abcd"),
        ("abcde", 4, "a..."),
        ("\u20ac\u20ac", 6, "\u20ac\u20ac"),
        ("\u20ac\u20ac", 5, "..."),
        ("a\u20ac\u20ac", 6, "a..."),
        ("\ud800", 100, "\\ud800"),
        ("abc", 2, "..."),
    ],
)
def test_bounded(text: str, limit: int, expected: str) -> None:
    got = bounded(text, limit)
    assert got == expected
    assert type(got) is str


def test_bounded_gives_plain_text() -> None:
    got = bounded(Text("abc"), 10)
    assert got == "abc"
    assert type(got) is str


@given(st.text(st.characters(exclude_categories=())), st.integers(3, 50))
def test_bounded_is_packable(text: str, limit: int) -> None:
    assert len(bounded(text, limit).encode("utf-8")) <= limit


@pytest.mark.parametrize(
    "value",
    [
        None,
        1.5,
        10**50,
        "text",
        b"bytes",
        {"b": [1, (2,)], "a": {3}},
        ValueError("x", 1),
        KeyError({1: [2]}),
        Exception(),
        OSError(2, "no", "file"),
    ],
)
def test_small_values_in_full(value: Any) -> None:
    assert safe_repr(value) == repr(value)
    assert safe_str(value) == str(value)


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


# No parameters of their own, as pytest would make names of them.
LARGE = [
    ("x" * 10_000, "'" + "x" * 256 + "'..."),
    (b"x" * 10_000, "b'" + "x" * 256 + "'..."),
    (1 << 100_000, "<int of 100,001 bits>"),
    (["x" * 9000, 7], "list('" + "x" * 256 + "'..., 7)"),
    ([1 << 100_000, 2], "list(<int of 100,001 bits>, 2)"),
    (list(range(10_000)), f"list({', '.join(map(str, range(32)))}, ...)"),
    (dict.fromkeys(range(9000)), f"dict({', '.join(f'tuple({i}, None)' for i in range(32))}, ...)"),
    (ValueError("x" * 10_000, None), "ValueErrortuple('" + "x" * 256 + "'..., None)"),
    (CYCLE, "list(list(list(list(list(...)))))"),
    (Wordy(), "x" * (MAX_TEXT - 3) + "..."),
]


@pytest.mark.parametrize("number", range(len(LARGE)))
def test_large_values_in_brief(number: int) -> None:
    value, expected = LARGE[number]
    assert safe_repr(value) == expected


def test_many_small_values_in_brief() -> None:
    nested: Any = [0]
    for _ in range(30):
        # Shared, and so more than a billion when followed.
        nested = [nested, nested]
    assert len(safe_repr(nested)) < 1000


def test_what_raises() -> None:
    hostile = Hostile()
    assert safe_repr(hostile) == f"<{__name__}.Hostile whose repr raises builtins.SystemExit>"
    assert safe_str(hostile) == f"<{__name__}.Hostile whose str raises builtins.GeneratorExit>"
    assert "whose repr raises" in safe_repr([hostile])


@pytest.mark.parametrize("function", [safe_repr, safe_str])
def test_an_interrupt_is_one(function: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        function(Interrupted())
