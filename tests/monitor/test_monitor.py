"""What the monitor answers: everything, bounded, and nothing that could harm who reads it."""

import json
from typing import Any

from berrymq_rpc.bus import Bus, Message, Queue
from berrymq_rpc.common.measures import ERROR, OK
from berrymq_rpc.exchange import Node
from berrymq_rpc.monitor import VERSION, Monitor
from berrymq_rpc.monitor.plain_text import MAX_TEXT, plain_text
from berrymq_rpc.runtime.meter import Meter

KEYS = {
    "version",
    "time",
    "uptime",
    "name",
    "endpoints",
    "urls",
    "cluster",
    "connections",
    "graph",
    "identifiers",
    "queues",
    "calls",
    "loop",
    "counts",
    "drops",
    "omitted",
}


def follow(message: Message) -> None: ...


def labels(snapshot: dict[str, Any], kind: str) -> list[str]:
    return [node["label"] for node in snapshot["graph"]["nodes"] if node["kind"] == kind]


def test_nothing() -> None:
    snapshot = Monitor(title="nothing", wall_clock=lambda: 12.5).snapshot()
    assert snapshot.keys() == KEYS
    assert (snapshot["version"], snapshot["name"], snapshot["time"]) == (VERSION, "nothing", 12.5)
    assert json.loads(json.dumps(snapshot)) == snapshot


def test_queues_and_drops() -> None:
    bus = Bus()
    with Queue("job:*", bus=bus, maxsize=2), Queue("_own:*", bus=bus):
        for number in range(5):
            bus.twitter("job:done", number)
        (queue,) = Monitor(bus).snapshot()["queues"]
        assert queue == {
            "kind": "local",
            "identifier": "job:*",
            "peer": None,
            "depth": 2,
            "limit": 2,
            "bytes": None,
            "dropped": 3,
            "consumers": 0,
        }


def test_local_identifiers_stay_in_the_process() -> None:
    bus = Bus()
    bus.regist_function("_secret:key", follow)
    assert Monitor(bus).snapshot()["graph"] == {"nodes": [], "edges": []}
    bus.regist_function("job:done", follow)
    snapshot = Monitor(bus).snapshot()
    assert labels(snapshot, "identifier") == ["job:done"]
    assert "_secret" not in json.dumps(snapshot)


def test_what_is_left_out_is_counted() -> None:
    bus = Bus()
    for number in range(30):
        bus.regist_function(f"job:{number}", follow)
    queues = [Queue(f"queue:{number}", bus=bus) for number in range(20)]
    snapshot = Monitor(bus, max_items=10).snapshot()
    assert len(snapshot["queues"]) == 10
    assert 0 < len(snapshot["graph"]["nodes"]) <= 10
    # Of the 50 registrations, the oldest five.
    assert len(snapshot["graph"]["edges"]) == 5
    assert snapshot["omitted"]["queues"] == 10
    assert snapshot["omitted"]["graph"] == 45
    known = {node["id"] for node in snapshot["graph"]["nodes"]}
    assert all({edge["from"], edge["to"]} <= known for edge in snapshot["graph"]["edges"])
    for queue in queues:
        queue.close()


def test_hostile_text() -> None:
    assert plain_text("plain <b> & 'text' ü") == "plain <b> & 'text' ü"
    assert plain_text("a\x1b[31m\u202eb\ud800") == r"a\x1b[31m\u202eb\ud800"
    for character in ("x", "\u202e"):
        shown = plain_text(character * 10_000)
        assert len(shown) == MAX_TEXT
        assert shown.endswith("...")
    bus = Bus()

    def hostile(message: Message) -> None: ...

    hostile.__qualname__ = "<img onerror=alert(1)>\ud800\u202e"
    bus.regist_function("job:done", hostile)
    snapshot = Monitor(bus).snapshot()
    json.dumps(snapshot, ensure_ascii=False).encode("utf-8")
    assert labels(snapshot, "function") == [rf"{__name__}.<img onerror=alert(1)>\ud800\u202e"]


def edges(snapshot: dict[str, Any]) -> set[tuple[str, str, str]]:
    names = {node["id"]: node["label"] for node in snapshot["graph"]["nodes"]}
    return {
        (names[edge["from"]], names[edge["to"]], edge["kind"])
        for edge in snapshot["graph"]["edges"]
    }


def test_what_is_sent_leads_to_the_wildcards() -> None:
    bus = Bus()
    meter = bus.measure()
    bus.regist_function("oven:*", follow)
    bus.regist_function("oven:heat", follow)
    for sent in ("oven:heat", "oven:off", "door:open", "_own:off"):
        bus.twitter(sent)
    snapshot = Monitor(bus, meter=meter).snapshot()
    followed = f"{__name__}.follow"
    assert edges(snapshot) == {
        ("oven:*", followed, "follows"),
        ("oven:heat", followed, "follows"),
        ("oven:heat", "oven:*", "matches"),
        ("oven:off", "oven:*", "matches"),
    }


def test_messages_and_calls() -> None:
    meter = Meter()
    for _ in range(3):
        meter.published("job:done")
    meter.relayed("job:done", is_followed=True)
    meter.published("job:new")
    meter.served.ended("add", OK, 0.002)
    meter.served.ended("add", ERROR, 0.004)
    meter.served.ended("rpc.state", OK, 0.001)
    meter.made.ended("get", OK, 1.0)
    meter.delayed(0.25)
    snapshot = Monitor(meter=meter).snapshot()
    shown = [(each["identifier"], each["messages"]) for each in snapshot["identifiers"]]
    assert shown == [("job:done", 4), ("job:new", 1)]
    add, get = snapshot["calls"]
    assert (add["method"], add["direction"], add["calls"], add["errors"]) == ("add", "in", 2, 1)
    assert (add["outcomes"]["ok"], add["outcomes"]["error"]) == (1, 1)
    assert 0.001 < add["p50"] < 0.003 < add["p99"] <= 0.004
    assert (get["method"], get["direction"], get["errors"]) == ("get", "out", 0)
    assert snapshot["loop"]["max"] == 0.25


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_those_who_watch_at_the_same_time_get_the_same() -> None:
    clock = Clock()
    bus = Bus()
    monitor = Monitor(bus, clock=clock)
    first = monitor.snapshot()
    bus.regist_function("job:done", follow)
    assert monitor.snapshot() is first
    clock.now += 1.0
    later = monitor.snapshot()
    assert labels(later, "identifier") == ["job:done"]
    assert later["uptime"] == 1.0


def styles(monitor: Monitor) -> set[tuple[str, str, bool]]:
    return {
        (each["direction"], each["style"], each["is_up"])
        for each in monitor.snapshot()["connections"]
    }


async def test_the_connections_of_nodes() -> None:
    async with Node("mem://monitored", Bus()) as node, Node(None, Bus(), name="oven") as other:
        endpoint = node.endpoints[0]
        await other.interconnect(endpoint)
        await other.connect_oneway(endpoint)
        queue = await other.connect_via_queue("job:*", endpoint)
        here, there = Monitor(node.bus, node=node), Monitor(other.bus, node=other)
        assert styles(here) == {("in", style, True) for style in ("01", "02", "03")}
        assert styles(there) == {("out", style, True) for style in ("01", "02", "03")}
        snapshot = there.snapshot()
        assert snapshot["name"] == "oven"
        (shown,) = (each for each in snapshot["connections"] if each["style"] == "03")
        assert (shown["peer"], shown["identifier"]) == (endpoint, "job:*")
        node.bus.twitter("job:done", 1)
        kept = {queue["kind"]: queue for queue in Monitor(node=node).snapshot()["queues"]}
        assert (kept["remote"]["identifier"], kept["remote"]["depth"]) == ("job:*", 1)
        assert kept["link"]["peer"] == "oven"
        assert await queue.get_nowait() is not None
