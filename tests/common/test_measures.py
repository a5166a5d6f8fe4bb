import json
from contextlib import nullcontext
from typing import Any

import pytest

from berrymq_rpc.common.history import PERIOD
from berrymq_rpc.common.measures import (
    CANCELLED,
    ERROR,
    EXPIRED,
    OK,
    OUTCOMES,
    REFUSED,
    Measures,
)
from berrymq_rpc.common.series import OTHER


def new(**limits: int) -> Measures:
    return Measures(nullcontext(), **limits)


def test_calls_are_counted_by_method_and_outcome() -> None:
    measures = new()
    for outcome in (OK, OK, ERROR, CANCELLED, EXPIRED):
        measures.served.ended("add", outcome, 0.25)
    measures.served.ended("add", REFUSED, None)
    measures.made.ended("subtract", OK, 0.5)
    snapshot = json.loads(json.dumps(measures.snapshot()))
    assert list(snapshot["served"]) == ["add"]
    add = snapshot["served"]["add"]
    assert {name: add[name] for name in OUTCOMES} == {
        "ok": 2,
        "error": 1,
        "cancelled": 1,
        "expired": 1,
        "refused": 1,
    }
    # What never began took no time.
    assert add["seconds"]["count"] == 5
    assert add["seconds"]["total"] == 1.25
    assert snapshot["made"]["subtract"]["ok"] == 1
    assert repr(measures) == "<Measures: 1 methods served, 1 called, 0 identifiers>"


def test_messages_are_counted_by_identifier() -> None:
    measures = new()
    measures.published("oven:log")
    measures.published("oven:log")
    measures.relayed("oven:log", is_followed=True)
    measures.relayed("door:open", is_followed=True)
    measures.receiver_failed()
    measures.delayed(0.01)
    snapshot = measures.snapshot()
    assert list(snapshot["messages"]) == ["door:open", "oven:log"]
    oven = snapshot["messages"]["oven:log"]
    assert (oven["published"], oven["relayed"]) == (2, 1)
    assert snapshot["receiver_errors"] == 1
    assert snapshot["loop_delay"]["count"] == 1


def test_names_over_the_limit_are_counted_together() -> None:
    measures = new(max_methods=2, max_identifiers=3)
    for number in range(10):
        measures.served.ended(f"method{number}", OK, 0.1)
        measures.published(f"name:{number}")
    snapshot = measures.snapshot()
    assert list(snapshot["served"]) == [OTHER, "method0", "method1"]
    assert snapshot["served"][OTHER]["ok"] == 8
    assert list(snapshot["messages"]) == [OTHER, "name:0", "name:1", "name:2"]
    assert snapshot["messages"][OTHER]["published"] == 7
    assert snapshot["names_left_out"] == 15


def test_peers_cannot_take_the_places_of_the_programs_own_names() -> None:
    measures = new(max_methods=4, max_identifiers=4)
    for number in range(100):
        measures.served.ended(f"peer{number}", OK, 0.1, is_own=False)
        measures.relayed(f"peer:{number}", is_followed=True)
    measures.served.ended("own", OK, 0.1)
    measures.published("own:log")
    measures.relayed("own:log", is_followed=False)
    snapshot = measures.snapshot()
    assert list(snapshot["served"]) == [OTHER, "own", "peer0", "peer1"]
    assert list(snapshot["messages"]) == [OTHER, "own:log", "peer:0", "peer:1"]
    assert snapshot["messages"]["own:log"]["relayed"] == 1


@pytest.mark.parametrize("outcome", [ERROR, CANCELLED, EXPIRED, REFUSED])
def test_a_peers_name_has_figures_only_after_a_call_that_succeeds(outcome: int) -> None:
    measures = new()
    measures.served.ended("mad\nname", outcome, None, is_own=False)
    assert list(measures.snapshot()["served"]) == [OTHER]
    measures.served.ended("there", OK, 0.1, is_own=False)
    measures.served.ended("there", outcome, 0.1, is_own=False)
    snapshot = measures.snapshot()["served"]
    assert list(snapshot) == [OTHER, "there"]
    assert snapshot["there"][OUTCOMES[outcome]] == 1


def test_a_message_of_a_peer_that_nobody_follows_gets_no_figures_of_its_own() -> None:
    measures = new()
    measures.relayed("flood:1", is_followed=False)
    assert list(measures.snapshot()["messages"]) == [OTHER]


def test_histories_go_on_by_the_clock_that_is_given() -> None:
    measures = new()
    measures.tick(100.0)
    for _ in range(10):
        measures.published("oven:log")
    measures.tick(100.0 + PERIOD / 2)
    assert measures.snapshot()["messages"]["oven:log"]["history"] == []
    measures.tick(100.0 + PERIOD)
    measures.made.ended("add", OK, 0.1)
    measures.tick(100.0 + 2 * PERIOD)
    snapshot = measures.snapshot()
    assert snapshot["messages"]["oven:log"]["history"] == [10 / PERIOD, 0.0]
    assert snapshot["messages"]["oven:log"]["rate"] == 0.0
    assert snapshot["made"]["add"]["history"] == [1 / PERIOD]
    assert snapshot["made"]["add"]["rate"] == 1 / PERIOD
    assert snapshot["period"] == PERIOD


def test_measures_of_two_processes_are_added() -> None:
    ours, theirs = new(max_methods=1), new(max_methods=1)
    for measures in (ours, theirs):
        measures.served.ended("add", ERROR, 0.1)
        measures.made.ended("log", OK, 0.1)
        measures.published("oven:log")
        measures.receiver_failed()
        measures.delayed(0.1)
    theirs.served.ended("another", OK, 0.2)
    theirs.published("door:open")
    ours.merge(theirs)
    snapshot = ours.snapshot()
    assert snapshot["served"]["add"]["error"] == 2
    assert snapshot["served"]["add"]["seconds"]["count"] == 2
    assert snapshot["served"][OTHER]["ok"] == 1
    assert snapshot["made"]["log"]["ok"] == 2
    assert snapshot["messages"]["oven:log"]["published"] == 2
    assert snapshot["messages"]["door:open"]["published"] == 1
    assert snapshot["receiver_errors"] == 2
    assert snapshot["loop_delay"]["count"] == 2
    # Counted once, where it happened.
    assert snapshot["names_left_out"] == 1
    assert repr(ours.served.methods) == "<Series of 2 names>"


def test_everything_is_counted_and_read_under_the_lock() -> None:
    class Lock(nullcontext[None]):
        taken = 0

        def __enter__(self) -> None:
            Lock.taken += 1

    measures = new()
    measures.replace_lock(Lock())
    steps: list[Any] = [
        lambda: measures.served.ended("add", OK, 0.1),
        lambda: measures.made.ended("add", OK, 0.1),
        lambda: measures.published("a:b"),
        lambda: measures.relayed("a:b", is_followed=True),
        measures.receiver_failed,
        lambda: measures.delayed(0.1),
        lambda: measures.tick(1.0),
        measures.snapshot,
        lambda: measures.merge(new()),
    ]
    for number, step in enumerate(steps, 1):
        step()
        assert Lock.taken == number


def test_totals_by_the_names_of_statistics() -> None:
    measures = new()
    for method in ("add", "subtract"):
        measures.served.ended(method, OK, 0.1)
    measures.served.ended("add", REFUSED, None)
    measures.made.ended("log", EXPIRED, 0.1)
    measures.published("oven:log")
    measures.published("door:open")
    measures.relayed("oven:log", is_followed=True)
    measures.receiver_failed()
    counts = measures.call_totals()
    assert {name: count for name, count in counts.items() if count} == {
        "calls_ok": 2,
        "calls_refused": 1,
        "calls_made_expired": 1,
    }
    assert len(counts) == 2 * len(OUTCOMES)
    assert measures.message_totals() == {
        "messages_published": 2,
        "messages_relayed": 1,
        "receiver_errors": 1,
    }


def test_a_publisher_counts_as_published_does() -> None:
    measures = new(max_identifiers=1)
    count, count_other = measures.publisher("oven:log"), measures.publisher("door:open")
    assert measures.names_left_out == 0
    for _ in range(3):
        count(object())
        count_other(object())
    snapshot = measures.snapshot()
    assert snapshot["messages"]["oven:log"]["published"] == 3
    assert snapshot["messages"][OTHER]["published"] == snapshot["names_left_out"] == 3
