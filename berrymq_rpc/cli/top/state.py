"""The state as a server sent it, checked: anything may be in it."""

import math
from dataclasses import dataclass, field
from typing import Any

from ..values import printable

__all__ = ["LISTS", "MAX_ROWS", "State", "read_state"]

#: The lists that are shown.
LISTS = ("identifiers", "queues", "calls", "connections")

#: Rows of a list that are kept. A server sends 200 at most.
MAX_ROWS = 1000

#: Characters of a text that are kept.
MAX_TEXT = 200

#: Numbers of a history that are kept.
MAX_HISTORY = 120


@dataclass
class State:
    """What runs.

    Attributes:
        name: of the node or bridge.
        places: its addresses.
        uptime: seconds.
        lists: for each of `LISTS` its rows: texts, numbers, lists of numbers, ``None``.
        omitted: for each of them, how many rows the server left out.
        drops: what was lost or refused, by the names of the counts.
        delay: the event loop's, in seconds, or ``None``.
    """

    name: str = ""
    places: list[str] = field(default_factory=list)
    uptime: float = 0.0
    lists: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    omitted: dict[str, int] = field(default_factory=dict)
    drops: dict[str, float] = field(default_factory=dict)
    delay: float | None = None

    def total(self, name: str, column: str) -> float:
        """The sum of a column of a list."""
        return sum(number(row.get(column)) for row in self.lists[name])


def read_state(value: Any) -> State:
    """Check a state.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, dict) or not isinstance(value.get("version"), int):
        raise ValueError("what it answers is no state of a live page")
    if value["version"] != 1:
        raise ValueError("its live page is of a later version than this command")
    places = [*_items(value.get("endpoints")), *_items(value.get("urls")), value.get("cluster")]
    loop, omitted, drops = (_map(value.get(name)) for name in ("loop", "omitted", "drops"))
    return State(
        name=text(value.get("name")),
        places=[text(place) for place in places if isinstance(place, str)],
        uptime=number(value.get("uptime")),
        lists={
            name: [_row(row) for row in _items(value.get(name)) if isinstance(row, dict)]
            for name in LISTS
        },
        omitted={name: int(number(omitted.get(name))) for name in LISTS},
        drops={text(name): number(count) for name, count in list(drops.items())[:MAX_ROWS]},
        delay=None if loop.get("p99") is None else number(loop["p99"]),
    )


def _row(row: dict[Any, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in list(row.items())[:50]:
        if isinstance(value, list):
            kept[text(name)] = [number(item) for item in value[-MAX_HISTORY:]]
        elif isinstance(value, str):
            kept[text(name)] = text(value)
        elif isinstance(value, bool) or value is None:
            kept[text(name)] = value
        elif isinstance(value, int | float):
            kept[text(name)] = number(value)
    return kept


def _items(value: Any) -> list[Any]:
    return value[:MAX_ROWS] if isinstance(value, list) else []


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def text(value: Any) -> str:
    """A text of which each character can be seen; empty for what is none."""
    return printable(value[:MAX_TEXT]) if isinstance(value, str) else ""


def number(value: Any) -> float:
    """A number that can be written; 0 for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    try:
        return value if math.isfinite(value) and abs(value) < 1e15 else 0
    except OverflowError:
        return 0
