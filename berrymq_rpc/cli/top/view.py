"""The lines of a state: a head, a table for each list, as many rows as there is room for."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from .state import State, number

__all__ = ["SORTS", "TABLES", "View", "lines_of"]

#: By what rows can be sorted.
SORTS = ("busiest", "trouble", "name")

_BARS = "▁▂▃▄▅▆▇█"

#: Cells of the history, and the fewest of the first column, which has what is left.
_SPARK, _FIRST = 20, 16


class Column(NamedTuple):
    """A column of a table.

    Args:
        title: of the column.
        width: cells; 0 for what is left of the line.
        shown: the text of a row, and its style.
        rank: of several that have no room, the one with the highest is left out first.
    """

    title: str
    width: int
    shown: Callable[[dict[str, Any]], tuple[str, str]]
    rank: int = 0


class Table(NamedTuple):
    """A list of the state.

    Args:
        title: above it.
        list: its name in the state.
        columns: what is shown.
        name, busy, trouble: by what a row is sorted.
    """

    title: str
    list: str
    columns: tuple[Column, ...]
    name: Callable[[dict[str, Any]], str]
    busy: Callable[[dict[str, Any]], tuple[float, ...]]
    trouble: Callable[[dict[str, Any]], tuple[float, ...]]


@dataclass
class View:
    """What the user wants to see.

    Attributes:
        table: the number of the only table, or ``None`` for all.
        sort: one of `SORTS`.
        filter: rows that have this text in their name; all for an empty one.
        unicode: whether the terminal shows the history.
    """

    table: int | None = None
    sort: str = SORTS[0]
    filter: str = ""
    unicode: bool = True


# -- cells -----------------------------------------------------------------------------------


def _plain(text: object, style: str = "") -> tuple[str, str]:
    return str(text), style


def count(value: Any) -> str:
    """A count in few characters."""
    amount = number(value)
    for unit in ("", "k", "M", "G", "T"):
        if amount < (10_000 if unit == "" else 1000):
            return f"{amount:.0f}{unit}" if unit == "" or amount >= 100 else f"{amount:.1f}{unit}"
        amount /= 1000
    return f"{amount:.0f}P"


def rate(value: Any) -> str:
    """A number a second."""
    amount = number(value)
    return f"{amount:.1f}" if 0 < amount < 100 else count(amount)


def seconds(value: Any) -> str:
    """A duration."""
    if value is None:
        return "-"
    amount = number(value)
    if amount < 0.001:
        return f"{amount * 1e6:.0f} us"
    return f"{amount * 1e3:.1f} ms" if amount < 1 else f"{amount:.1f} s"


def duration(value: float) -> str:
    """How long something is up."""
    whole = int(value)
    days, rest = divmod(whole, 86_400)
    text = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days}d {text}" if days else text


def bars(history: Any) -> str:
    """The history of a rate as bars, the newest at the right."""
    values = [number(value) for value in history[-_SPARK:]] if isinstance(history, list) else []
    top = max(values, default=0)
    if top <= 0:
        return ""
    return "".join(_BARS[min(7, int(max(value, 0) / top * 7.99))] for value in values).rjust(_SPARK)


def _trouble(value: Any) -> tuple[str, str]:
    return count(value), "red bold" if number(value) else "dim"


def _optional(value: Any) -> tuple[str, str]:
    return ("-", "dim") if value is None else _plain(count(value))


def _text(row: dict[str, Any], *names: str) -> str:
    """The first of these that is a text."""
    return next((row[name] for name in names if isinstance(row.get(name), str)), "-")


_KEPT = {"local": "here", "remote": "for others", "link": "to a node"}

_STYLES = {
    "01": "both ways",
    "02": "one way",
    "03": "queue",
    "http": "HTTP",
    "websocket": "WebSocket",
    "tcp": "TCP",
    "zeromq": "ZeroMQ",
}


def _depth(row: dict[str, Any]) -> tuple[str, str]:
    depth, limit = number(row.get("depth")), number(row.get("limit"))
    return count(depth), "red bold" if limit and depth >= limit else "yellow" if depth else "dim"


def _style(row: dict[str, Any]) -> tuple[str, str]:
    style = _text(row, "style")
    about = f" {row['identifier']}" if isinstance(row.get("identifier"), str) else ""
    return _plain(f"{_STYLES.get(style, style)}{about}")


_RATE = Column("RATE/s", 8, lambda row: _plain(rate(row.get("rate")), "bold"))
_HISTORY = Column("LAST MINUTES", _SPARK, lambda row: (bars(row.get("history")), "cyan"), 3)

TABLES = (
    Table(
        "IDENTIFIERS",
        "identifiers",
        (
            Column("IDENTIFIER", 0, lambda row: _plain(_text(row, "identifier"))),
            Column("MESSAGES", 9, lambda row: _plain(count(row.get("messages"))), 1),
            _RATE,
            _HISTORY,
        ),
        lambda row: _text(row, "identifier"),
        lambda row: (number(row.get("rate")), number(row.get("messages"))),
        lambda row: (0,),
    ),
    Table(
        "QUEUES",
        "queues",
        (
            Column("QUEUE", 0, lambda row: _plain(_text(row, "peer", "identifier"))),
            Column("KEPT", 10, lambda row: _plain(_KEPT.get(_text(row, "kind"), "-"), "dim"), 3),
            Column("DEPTH", 8, _depth),
            Column("LIMIT", 8, lambda row: _optional(row.get("limit")), 2),
            Column("BYTES", 8, lambda row: _optional(row.get("bytes")), 4),
            Column("DROPPED", 8, lambda row: _trouble(row.get("dropped"))),
        ),
        lambda row: _text(row, "peer", "identifier"),
        lambda row: (number(row.get("depth")),),
        lambda row: (number(row.get("dropped")),),
    ),
    Table(
        "CALLS",
        "calls",
        (
            Column(
                "METHOD",
                0,
                lambda row: _plain(
                    ("-> " if row.get("direction") == "out" else "") + _text(row, "method")
                ),
            ),
            Column("CALLS", 8, lambda row: _plain(count(row.get("calls"))), 1),
            Column("ERRORS", 8, lambda row: _trouble(row.get("errors"))),
            Column("P50", 9, lambda row: _plain(seconds(row.get("p50"))), 2),
            Column("P99", 9, lambda row: _plain(seconds(row.get("p99")))),
            _RATE,
            _HISTORY._replace(rank=4),
        ),
        lambda row: _text(row, "method"),
        lambda row: (number(row.get("rate")), number(row.get("calls"))),
        lambda row: (number(row.get("errors")), number(row.get("p99"))),
    ),
    Table(
        "CONNECTIONS",
        "connections",
        (
            Column("PEER", 0, lambda row: _plain(_text(row, "user", "peer"))),
            Column("STYLE", 16, _style, 2),
            Column(
                "MADE",
                6,
                lambda row: _plain("here" if row.get("direction") == "out" else "there", "dim"),
                3,
            ),
            Column(
                "STATE",
                6,
                lambda row: ("up", "green") if row.get("is_up") else ("lost", "red bold"),
            ),
            Column("WAITING", 8, lambda row: _plain(count(row.get("waiting"))), 1),
            Column("DROPPED", 8, lambda row: _trouble(row.get("dropped")), 1),
        ),
        lambda row: _text(row, "user", "peer"),
        lambda row: (number(row.get("waiting")),),
        lambda row: (not row.get("is_up"), number(row.get("dropped"))),
    ),
)


# -- lines -----------------------------------------------------------------------------------


def lines_of(state: State, view: View, width: int, height: int | None) -> list[Text]:
    """The lines of a state.

    Args:
        width: cells of a line.
        height: lines at most; ``None`` for as many as there are.
    """
    lines = _head(state, width)
    tables = TABLES if view.table is None else TABLES[view.table : view.table + 1]
    wanted = [_rows(table, state, view) for table in tables]
    room = None if height is None else max(0, height - len(lines))
    shares = _shares([len(rows) for rows in wanted], room)
    for table, rows, share in zip(tables, wanted, shares, strict=True):
        if share is not None:
            all_rows = len(rows) + (0 if view.filter else state.omitted[table.list])
            lines += _table(table, rows[:share], all_rows, width, view)
    return lines if height is None else lines[:height]


def _shares(wanted: list[int], room: int | None) -> list[int | None]:
    """How many rows each table has; ``None`` for one that has no room for its title."""
    if room is None:
        return list(wanted)
    titled = min(len(wanted), room)
    room -= titled
    shares = [0] * titled
    while room and any(share < want for share, want in zip(shares, wanted, strict=False)):
        for place in range(titled):
            if room and shares[place] < wanted[place]:
                shares[place] += 1
                room -= 1
    return [*shares, *[None] * (len(wanted) - titled)]


def _head(state: State, width: int) -> list[Text]:
    title = Text.assemble((state.name or "-", "bold"), "  ", ("  ".join(state.places), "green"))
    drops = sum(state.drops.values())
    errors = state.total("calls", "errors")
    figures: list[tuple[str, str, str]] = [
        ("messages/s", rate(state.total("identifiers", "rate")), ""),
        ("calls/s", rate(state.total("calls", "rate")), ""),
        ("errors", count(errors), "red bold" if errors else ""),
        ("queued", count(state.total("queues", "depth")), ""),
        ("dropped", count(drops), "red bold" if drops else ""),
        ("loop", seconds(state.delay), ""),
        ("up", duration(state.uptime), ""),
    ]
    line = Text()
    for name, value, style in figures:
        line.append(f"{name} ", "dim")
        line.append(f"{value}  ", style or "bold")
    return [_cut(title, width), _cut(line, width)]


def _rows(table: Table, state: State, view: View) -> list[dict[str, Any]]:
    wanted = view.filter.casefold()
    rows = [row for row in state.lists[table.list] if wanted in table.name(row).casefold()]
    rows.sort(key=table.name)
    if view.sort != "name":
        busy = table.busy
        if view.sort == "trouble":
            rows.sort(key=lambda row: (*table.trouble(row), *busy(row)), reverse=True)
        else:
            rows.sort(key=busy, reverse=True)
    return rows


def _table(
    table: Table, rows: list[dict[str, Any]], all_rows: int, width: int, view: View
) -> Iterable[Text]:
    columns = _columns(table, width, view)
    left = width - sum(column.width + 1 for column in columns[1:])
    head = Text(style="reverse")
    shown = f"{len(rows)} of {count(all_rows)}" if all_rows > len(rows) else str(all_rows)
    title = f"{columns[0].title} {shown}" if all_rows else f"{table.title}: none"
    head.append(_sized(title, left))
    for column in columns[1:]:
        head.append(" " + _right(column.title if all_rows else "", column.width))
    yield _cut(head, width)
    for row in rows:
        line = Text()
        for column in columns:
            text, style = column.shown(row)
            if column.width:
                line.append(" " + _right(text, column.width), style)
            else:
                line.append(_sized(text, left), style)
        yield _cut(line, width)


def _columns(table: Table, width: int, view: View) -> list[Column]:
    """The columns that there is room for."""
    columns = [c for c in table.columns if view.unicode or c.title != _HISTORY.title]
    while (
        sum(column.width + 1 for column in columns[1:]) + _FIRST > width
        and (least := max(columns[1:], key=lambda column: column.rank, default=None)) is not None
    ):
        columns.remove(least)
    return columns


def _sized(text: str, width: int) -> str:
    if width <= 0:
        return ""
    return set_cell_size(text, width) if cell_len(text) <= width else _ellipsis(text, width)


def _ellipsis(text: str, width: int) -> str:
    cut = set_cell_size(text, width - 1) + "~"
    # Half of a wide character is none.
    return cut + " " * (width - cell_len(cut))


def _right(text: str, width: int) -> str:
    return " " * (width - cell_len(text)) + text if cell_len(text) <= width else _sized(text, width)


def _cut(line: Text, width: int) -> Text:
    line.truncate(width)
    return line
