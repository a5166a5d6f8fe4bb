"""What a server may send as its state: anything."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berrymq_rpc import Bus, Queue
from berrymq_rpc.cli.top.state import LISTS, MAX_HISTORY, MAX_ROWS, MAX_TEXT, read_state
from berrymq_rpc.cli.top.view import View, lines_of
from berrymq_rpc.monitor import VERSION, Monitor

EMPTY: dict[str, Any] = {"version": 1}


def test_what_a_monitor_answers() -> None:
    bus = Bus()
    with Queue("oven:*", bus=bus):
        value = json.loads(json.dumps(Monitor(bus, title="kitchen").snapshot()))
    assert value["version"] == VERSION == 1
    state = read_state(value)
    assert state.name == "kitchen"
    assert [row["identifier"] for row in state.lists["queues"]] == ["oven:*"]
    assert all(name in value for name in LISTS)


@pytest.mark.parametrize("value", [None, [], "state", {}, {"version": "1"}, {"version": 2}])
def test_what_is_no_state(value: Any) -> None:
    with pytest.raises(ValueError, match=r"state|version"):
        read_state(value)


def test_what_is_missing_is_empty() -> None:
    state = read_state(EMPTY)
    assert state.lists == {name: [] for name in LISTS}
    assert (state.name, state.places, state.delay, state.uptime) == ("", [], None, 0)


def test_bounds() -> None:
    row = {"identifier": "x" * 10_000, "history": list(range(10_000)), "rate": 10**400}
    state = read_state(EMPTY | {"identifiers": [row] * 10_000, "name": "\x1b[2Jn"})
    rows = state.lists["identifiers"]
    assert len(rows) == MAX_ROWS
    assert len(rows[0]["identifier"]) <= MAX_TEXT
    assert rows[0]["history"] == list(range(10_000 - MAX_HISTORY, 10_000))
    assert rows[0]["rate"] == 0
    assert "\x1b" not in state.name


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
COLUMNS = """
identifier rate history peer user kind depth limit dropped p99 method direction style is_up errors
messages bytes waiting
"""
columns = st.sampled_from(COLUMNS.split())
rows = st.lists(st.dictionaries(columns, anything, max_size=6) | anything, max_size=4)


@given(
    st.dictionaries(
        st.sampled_from(["name", "endpoints", "urls", "cluster", "uptime", "loop", "drops"])
        | st.just("omitted"),
        anything,
    ),
    st.fixed_dictionaries({}, optional=dict.fromkeys(LISTS, rows)),
    st.integers(1, 120),
    st.integers(1, 30) | st.none(),
)
def test_anything_can_be_shown(
    rest: dict[str, Any], lists: dict[str, Any], width: int, height: int | None
) -> None:
    state = read_state(EMPTY | rest | lists)
    for sort in ("busiest", "trouble", "name"):
        lines = lines_of(state, View(sort=sort), width, height)
        assert height is None or len(lines) <= height
        for line in lines:
            assert line.cell_len <= width
            assert line.plain.isprintable()
