"""What Prometheus gets: read by its own parser, whatever peers have named their methods."""

from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from berrymq_rpc import Bus, Node, rpc
from berrymq_rpc.common.measures import ERROR, OK, OUTCOMES, REFUSED
from berrymq_rpc.jsonrpc.bridge import Bridge
from berrymq_rpc.monitor.counts import ALIASES, COUNTS, METERED
from berrymq_rpc.monitor.prometheus import METRICS, MetricsCollector


def scraped(meter: rpc.Meter, **parts: Any) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """The samples of a scrape, by name and labels."""
    text = MetricsCollector(meter, parts).exposition().body.decode()
    samples = [sample for family in parse(text) for sample in family.samples]
    found = {(each.name, tuple(sorted(each.labels.items()))): each.value for each in samples}
    assert len(found) == len(samples), "the same sample twice"
    return found


def test_calls() -> None:
    meter = rpc.Meter()
    for seconds in (0.003, 0.003, 0.4):
        meter.served.ended("add", OK, seconds)
    meter.served.ended("add", ERROR, 200.0)
    meter.served.ended("add", REFUSED, None)
    meter.made.ended("log", OK, 0.1)
    found = scraped(meter)
    for outcome, count in zip(OUTCOMES, (3, 1, 0, 0, 1), strict=True):
        labels = (("method", "add"), ("outcome", outcome))
        assert found["berrymq_calls_total", labels] == count
    name, method = "berrymq_call_seconds_bucket", ("method", "add")
    assert found[name, (("le", "0.002"), method)] == 0
    assert found[name, (("le", "0.005"), method)] == 2
    assert found[name, (("le", "0.5"), method)] == 3
    assert found[name, (("le", "100.0"), method)] == 3
    assert found[name, (("le", "+Inf"), method)] == 4
    assert found["berrymq_call_seconds_count", (method,)] == 4
    assert found["berrymq_call_seconds_sum", (method,)] == pytest.approx(200.406)
    made = (("method", "log"), ("outcome", "ok"))
    assert found["berrymq_calls_made_total", made] == 1
    assert found["berrymq_call_made_seconds_count", (("method", "log"),)] == 1


def test_messages_and_the_loop() -> None:
    meter = rpc.Meter()
    meter.published("oven:log")
    meter.relayed("oven:log", is_followed=True)
    meter.receiver_failed()
    meter.delayed(0.02)
    found = scraped(meter)
    oven = (("identifier", "oven:log"),)
    assert found["berrymq_messages_published_total", oven] == 1
    assert found["berrymq_messages_relayed_total", oven] == 1
    assert found["berrymq_receiver_errors_total", ()] == 1
    assert found["berrymq_loop_delay_seconds_count", ()] == 1
    assert found["berrymq_names_left_out_total", ()] == 0


NASTY = [
    'quote" back\\slash',
    "line\nbreak",
    'x"} 5\nberrymq_calls_total{method="forged",outcome="ok"} 1e9',
    "\udc80 half",
    "\x00\x1b[31m",
    "\u202egnp.exe",
    "a" * 1000,
    "",
]


@pytest.mark.parametrize("name", NASTY)
def test_no_name_breaks_the_text_or_forges_a_sample(name: str) -> None:
    meter = rpc.Meter()
    meter.served.ended(name, OK, 0.1, is_own=False)
    meter.served.ended("add", OK, 0.1)
    meter.relayed(name or "x", is_followed=True)
    found = scraped(meter)
    methods = {
        labels[0][1] for sample, labels in found if sample == "berrymq_calls_total" and labels
    }
    assert len(methods) == 2
    assert "forged" not in methods
    assert all(method.isprintable() and len(method) <= 200 for method in methods)
    openmetrics = MetricsCollector(meter, {}).exposition("application/openmetrics-text")
    assert openmetrics.content_type.startswith("application/openmetrics-text")
    assert list(parse_openmetrics(openmetrics.body.decode()))


def test_names_that_look_the_same_are_added_up() -> None:
    meter = rpc.Meter()
    for end in ("x", "y"):
        meter.served.ended("a" * 300 + end, OK, 0.1)
        meter.published("a" * 300 + end)
    found = scraped(meter)
    calls = {
        labels: count
        for (name, labels), count in found.items()
        if name == "berrymq_calls_total" and count
    }
    assert list(calls.values()) == [2]


async def test_each_count_of_statistics_has_its_metric() -> None:
    """So the table on the page, which is made from it, has each as well."""
    bus = Bus(metrics=True)
    async with (
        Node("tcp://127.0.0.1:*", bus, metrics=True) as node,
        Bridge(node, metrics=True) as bridge,
        await rpc.open_client(connect=node.endpoints, metrics=True) as client,
    ):
        await client.describe()
        parts = {"node": node, "bridge": bridge, "client": client, "bus": bus}
        counted = set().union(*(part.statistics() for part in parts.values()))  # type: ignore[attr-defined]
        assert counted - {"messages_refused"} <= {*COUNTS, *METERED, *ALIASES}
        assert node.metrics is not None
        found = scraped(node.metrics, **parts)
        assert found["berrymq_peers", (("part", "node"),)] == 1
        assert found["berrymq_peers", (("part", "client"),)] == 1
        assert found["berrymq_registrations", (("part", "bus"),)] >= 0
        names = {name for name, labels in found if ("part", "node") in labels}
        assert "berrymq_messages_dropped_total" in names
        # What the meter has by name is not there again as a sum.
        assert not any(name.startswith("berrymq_calls_ok") for name, _ in found)
    only_clustered = {name for name in COUNTS if name.startswith(("cluster_", "will_holders"))}
    assert set(COUNTS) - counted == only_clustered


def test_no_two_metrics_have_one_name() -> None:
    names = [f"berrymq_{count.metric or name}" for name, count in COUNTS.items()]
    assert len({*names, *METRICS}) == len(names) + len(METRICS)
    assert all(count.text and not count.text.endswith(".") for count in COUNTS.values())


def test_a_registry_takes_the_collector() -> None:
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(MetricsCollector(rpc.Meter(), {}))
    assert b"berrymq_loop_delay_seconds_count" in generate_latest(registry)
