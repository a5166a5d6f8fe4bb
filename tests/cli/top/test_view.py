"""The lines of a state: which rows, in which order, in how much room."""

from typing import Any

import pytest

from berrymq_rpc.cli.top.state import State, read_state
from berrymq_rpc.cli.top.view import TABLES, View, bars, count, duration, lines_of, rate, seconds


def a_state(**lists: Any) -> State:
    return read_state(
        {
            "version": 1,
            "name": "kitchen",
            "endpoints": ["tcp://127.0.0.1:5555"],
            "urls": ["http://127.0.0.1:8080"],
            "uptime": 3661,
            "loop": {"p99": 0.0012},
            "drops": {"bus.dropped": 7},
            "identifiers": [
                {"identifier": f"oven:{name}", "messages": n, "rate": n / 10, "history": [0, n]}
                for name, n in (("log", 10), ("fire", 30), ("heat", 20))
            ],
            "queues": [
                {
                    "kind": "local",
                    "identifier": "a:*",
                    "peer": None,
                    "depth": 5,
                    "limit": 5,
                    "bytes": None,
                    "dropped": 0,
                },
                {
                    "kind": "link",
                    "identifier": None,
                    "peer": "plant",
                    "depth": 1,
                    "limit": None,
                    "bytes": 2048,
                    "dropped": 3,
                },
            ],
            "calls": [
                {
                    "direction": "in",
                    "method": "add",
                    "calls": 90,
                    "rate": 9,
                    "errors": 0,
                    "p50": 0.00002,
                    "p99": 0.01,
                },
                {
                    "direction": "out",
                    "method": "bake",
                    "calls": 3,
                    "rate": 0.1,
                    "errors": 2,
                    "p50": 1.5,
                    "p99": 90,
                },
            ],
            "connections": [
                {
                    "direction": "out",
                    "style": "01",
                    "peer": "tcp://far:1",
                    "user": None,
                    "identifier": None,
                    "is_up": False,
                    "waiting": 4,
                    "dropped": 0,
                },
                {
                    "direction": "in",
                    "style": "03",
                    "peer": "10.0.0.1",
                    "user": "alice",
                    "identifier": "oven:*",
                    "is_up": True,
                    "waiting": 0,
                    "dropped": 0,
                },
            ],
        }
        | lists
    )


def shown(view: View, width: int = 100, height: int | None = None, **lists: Any) -> list[str]:
    return [line.plain for line in lines_of(a_state(**lists), view, width, height)]


def first_words(lines: list[str]) -> list[str]:
    return [line.split()[0] for line in lines]


def test_all() -> None:
    lines = shown(View())
    assert lines[0] == "kitchen  tcp://127.0.0.1:5555  http://127.0.0.1:8080"
    assert lines[1].rstrip() == (
        "messages/s 6.0  calls/s 9.1  errors 2  queued 6  dropped 7  loop 1.2 ms  up 01:01:01"
    )
    assert first_words(lines[2:]) == [
        *("IDENTIFIER", "oven:fire", "oven:heat", "oven:log"),
        *("QUEUE", "a:*", "plant", "METHOD", "add", "->", "PEER", "tcp://far:1", "alice"),
    ]
    assert "20 us" in lines[10]
    assert "90.0 s" in lines[11]
    assert "both ways" in lines[13]
    assert "lost" in lines[13]
    assert "queue oven:*" in lines[14]
    assert all(len(line) <= 100 for line in lines)


@pytest.mark.parametrize(
    ("table", "sort", "names"),
    [
        (0, "name", ["oven:fire", "oven:heat", "oven:log"]),
        (1, "trouble", ["plant", "a:*"]),
        (2, "busiest", ["add", "->"]),
        (2, "trouble", ["->", "add"]),
        (3, "trouble", ["tcp://far:1", "alice"]),
        (3, "name", ["alice", "tcp://far:1"]),
    ],
)
def test_one_table_sorted(table: int, sort: str, names: list[str]) -> None:
    assert first_words(shown(View(table=table, sort=sort))[3:]) == names


def test_a_filter() -> None:
    lines = shown(View(filter="FIRE"))
    assert first_words(lines[2:]) == [
        "IDENTIFIER",
        "oven:fire",
        "QUEUES:",
        "CALLS:",
        "CONNECTIONS:",
    ]
    # The figures are of everything.
    assert "messages/s 6.0" in lines[1]


def test_a_small_terminal() -> None:
    many = [{"identifier": f"a:{n:03}", "rate": n} for n in range(200)]
    lines = shown(View(), 80, 23, identifiers=many, omitted={"identifiers": 50})
    assert len(lines) == 23
    assert all(len(line) <= 80 for line in lines)
    # Each table has its rows, and the long one what is left.
    assert first_words(lines).count("a:199") == 1
    assert lines[2].startswith("IDENTIFIER 11 of 250")
    for title in ("QUEUE 2", "METHOD 2", "PEER 2"):
        assert any(line.startswith(title) for line in lines)


@pytest.mark.parametrize("height", range(1, 12))
@pytest.mark.parametrize("width", [1, 10, 20, 40])
def test_any_size(width: int, height: int) -> None:
    lines = shown(View(), width, height)
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)


def test_what_matters_stays_in_narrow_ones() -> None:
    wide, narrow = shown(View(table=2), 120)[2], shown(View(table=2), 46)[2]
    assert "LAST MINUTES" in wide
    assert "P50" in wide
    assert [word for word in narrow.split() if word.isupper()] == [
        "METHOD",
        "ERRORS",
        "P99",
        "RATE/s",
    ][:3]


def test_wide_characters() -> None:
    (line,) = (
        line
        for line in lines_of(
            a_state(identifiers=[{"identifier": "\u7530" * 60, "rate": 1}]), View(table=0), 80, None
        )
        if "\u7530" in line.plain
    )
    assert line.cell_len == 80


def test_without_unicode() -> None:
    assert "LAST MINUTES" not in shown(View(unicode=False))[2]
    assert all(line.isascii() for line in shown(View(unicode=False)))


def test_nothing_runs() -> None:
    nothing: dict[str, Any] = {table.list: [] for table in TABLES}
    lines = shown(View(), **nothing)
    assert [line.rstrip() for line in lines[2:]] == [
        "IDENTIFIERS: none",
        "QUEUES: none",
        "CALLS: none",
        "CONNECTIONS: none",
    ]


def test_numbers() -> None:
    assert list(map(count, [0, 9999, 12_345, 1_200_000, 5e14, None, "x"])) == [
        *("0", "9999", "12.3k", "1.2M", "500T", "0", "0"),
    ]
    assert list(map(rate, [0, 0.25, 99.9, 1000])) == ["0", "0.2", "99.9", "1000"]
    assert list(map(seconds, [None, 0, 0.00002, 0.5, 61])) == [
        "-",
        "0 us",
        "20 us",
        "500.0 ms",
        "61.0 s",
    ]
    assert duration(90_061) == "1d 01:01:01"
    assert bars([0, 0]) == bars(None) == bars([]) == ""
    assert bars([0, 4, 8]).strip() == "\u2581\u2584\u2588"
    assert len(bars(list(range(500)))) == 20
