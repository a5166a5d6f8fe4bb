"""The pages on metrics have each name of the code, and no others."""

import re
from pathlib import Path

from berrymq_rpc.common.measures import MAX_IDENTIFIERS, MAX_METHODS, OUTCOMES
from berrymq_rpc.monitor.counts import ALIASES, COUNTS, METERED
from berrymq_rpc.monitor.prometheus import METRICS

DOCS = Path(__file__).resolve().parents[1] / "docs"
REFERENCE = (DOCS / "reference" / "metrics.rst").read_text(encoding="utf-8")
HOWTO = (DOCS / "howto" / "monitor.rst").read_text(encoding="utf-8")


def rows() -> list[list[str]]:
    """The rows of the tables, without their heads."""
    found = re.findall(r"^   \* - (.*)\n((?:     .*\n)+)", REFERENCE, re.MULTILINE)
    cells = [
        [
            first,
            *(
                " ".join(cell.split())
                for cell in re.split(r"^     - ", rest, flags=re.MULTILINE)[1:]
            ),
        ]
        for first, rest in found
    ]
    return [row for row in cells if row[0].startswith("``")]


def metrics() -> dict[str, list[str]]:
    """The names at ``/metrics`` with the rows that the page should have."""
    of_meter = {
        name + "_total" * (each.kind == "counter"): [
            ", ".join(f"``{label}``" for label in each.labels) or "none",
            each.text + "; a histogram, by ``le`` as well" * (each.kind == "histogram"),
        ]
        for name, each in METRICS.items()
    }
    return of_meter | {
        f"berrymq_{count.metric or name}" + "_total" * count.grows: [f"``{name}``", count.text]
        for name, count in COUNTS.items()
    }


def test_the_tables_are_those_of_the_code() -> None:
    on_page = {}
    for row in rows():
        if row[0].startswith("``berrymq_"):
            on_page[row[0].strip("`")] = row[1:]
        else:
            on_page[row[1].strip("`")] = [row[0], row[2]]
    assert on_page == metrics()


def test_the_sums_and_older_names() -> None:
    for name in METERED:
        assert f"\n* ``{name}``\n" in REFERENCE
    for name, now in ALIASES.items():
        assert f"\n* ``{name}`` is ``{now}``\n" in REFERENCE
    assert len(re.findall(r"^\* ``", REFERENCE, re.MULTILINE)) == len(METERED) + len(ALIASES)
    assert all(f"``{outcome}``" in REFERENCE for outcome in OUTCOMES)


def test_the_numbers() -> None:
    assert f"{MAX_METHODS} methods and {MAX_IDENTIFIERS} identifiers" in REFERENCE
    assert f"{MAX_METHODS} methods and {MAX_IDENTIFIERS} identifiers" in HOWTO


def test_alerts_ask_for_metrics_that_there_are() -> None:
    alerts = set(re.findall(r"\b(berrymq_\w+)", HOWTO[HOWTO.index("What to alert on") :]))
    assert len(alerts) > 10
    assert {name.removesuffix("_bucket") for name in alerts} <= metrics().keys()
