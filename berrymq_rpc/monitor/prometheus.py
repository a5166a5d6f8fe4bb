"""What runs, for Prometheus: a collector that reads the meter and `statistics` when it is asked.

Nothing is kept here. Names of methods and identifiers are shown as `plain_text` has them, and those
that look the same then are added up.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ..common.histogram import BOUNDS, Histogram
from ..common.measures import OUTCOMES, CallFigures, Measures
from ..common.series import Series
from ..runtime.extra import missing_package
from .counts import COUNTS
from .monitor import Counting
from .plain_text import plain_text

try:
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
    )
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.registry import Collector
except ModuleNotFoundError as error:
    raise missing_package("/metrics needs prometheus-client", "metrics", str(error.name)) from None

__all__ = ["BUCKETS", "METRICS", "Exposition", "MetricsCollector"]

#: The places of the bounds in `BOUNDS` that ``/metrics`` has: three for each power of ten.
BUCKETS = tuple(range(0, len(BOUNDS), 2))


class _Named(NamedTuple):
    """A metric of the meter.

    Args:
        kind: ``"counter"`` or ``"histogram"``.
        labels: their names.
        text: what it counts.
    """

    kind: str
    labels: tuple[str, ...]
    text: str


#: Those of the meter. The others are in `COUNTS`, with the label ``part``.
METRICS = {
    "berrymq_calls": _Named("counter", ("method", "outcome"), "calls of peers that have ended"),
    "berrymq_call_seconds": _Named("histogram", ("method",), "seconds of the calls of peers"),
    "berrymq_calls_made": _Named("counter", ("method", "outcome"), "calls to peers that ended"),
    "berrymq_call_made_seconds": _Named("histogram", ("method",), "seconds of the calls to peers"),
    "berrymq_messages_published": _Named(
        "counter", ("identifier",), "messages that this process has sent"
    ),
    "berrymq_messages_relayed": _Named(
        "counter", ("identifier",), "messages that came from other processes"
    ),
    "berrymq_receiver_errors": _Named("counter", (), "receivers and guards that raised"),
    "berrymq_loop_delay_seconds": _Named(
        "histogram", (), "how late the event loop ran a timer, twice a second"
    ),
    "berrymq_names_left_out": _Named(
        "counter", (), 'events under the name "(other)", as there was no place for theirs'
    ),
}


class Exposition(NamedTuple):
    """The answer to one scrape.

    Args:
        body: the text.
        content_type: of the format that was asked for.
    """

    body: bytes
    content_type: str


class MetricsCollector(Collector):
    """Collects what runs in this process. Any registry of prometheus-client takes it.

    Args:
        meter: what counts calls and messages.
        parts: what has `statistics`, by the value of the label ``part``: ``"node"``, ``"bus"`` and
            so on. They are asked in the thread that collects.
    """

    def __init__(self, meter: Measures, parts: Mapping[str, Counting]) -> None:
        self._meter = meter
        self._parts = dict(parts)

    def describe(self) -> list[Metric]:
        """Nothing: what there is depends on the parts."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics, as they are now."""
        meter = self._meter.renamed(plain_text)
        yield from _calls("berrymq_calls", "berrymq_call_seconds", meter.served.methods)
        yield from _calls("berrymq_calls_made", "berrymq_call_made_seconds", meter.made.methods)
        published = _counter("berrymq_messages_published")
        relayed = _counter("berrymq_messages_relayed")
        for identifier, messages in meter.messages.items():
            published.add_metric([identifier], messages.published)
            relayed.add_metric([identifier], messages.relayed)
        errors = _counter("berrymq_receiver_errors")
        errors.add_metric([], meter.receiver_errors)
        left_out = _counter("berrymq_names_left_out")
        left_out.add_metric([], meter.names_left_out)
        delay = _histogram("berrymq_loop_delay_seconds")
        _add(delay, [], meter.loop_delay)
        yield from (published, relayed, errors, left_out, delay)
        yield from self._statistics()

    def _statistics(self) -> Iterator[Metric]:
        counts = {part: counting.statistics() for part, counting in self._parts.items()}
        for name, count in COUNTS.items():
            values = {part: found[name] for part, found in counts.items() if name in found}
            if not values:
                continue
            family = CounterMetricFamily if count.grows else GaugeMetricFamily
            metric = family(f"berrymq_{count.metric or name}", count.text, labels=["part"])
            for part, value in values.items():
                metric.add_metric([part], value)
            yield metric

    def exposition(self, accept: str = "") -> Exposition:
        """Answer a scrape.

        Args:
            accept: the header field of this name: text, or that of OpenMetrics.
        """
        encode, content_type = choose_encoder(accept)
        return Exposition(encode(self), content_type)


def _counter(name: str) -> CounterMetricFamily:
    named = METRICS[name]
    return CounterMetricFamily(name, named.text, labels=named.labels)


def _histogram(name: str) -> HistogramMetricFamily:
    named = METRICS[name]
    return HistogramMetricFamily(name, named.text, labels=named.labels)


def _calls(count: str, seconds: str, methods: Series[CallFigures]) -> Iterator[Metric]:
    counter, histogram = _counter(count), _histogram(seconds)
    for method, figures in methods.items():
        for outcome, number in zip(OUTCOMES, figures.outcomes, strict=True):
            counter.add_metric([method, outcome], number)
        _add(histogram, [method], figures.seconds)
    yield from (counter, histogram)


def _add(metric: HistogramMetricFamily, labels: list[str], histogram: Histogram) -> None:
    below = 0
    buckets: list[Any] = []
    for index, count in enumerate(histogram.counts):
        below += count
        if index in BUCKETS:
            buckets.append((repr(BOUNDS[index]), below))
    buckets.append(("+Inf", below))
    metric.add_metric(labels, buckets, histogram.total)
