import json
import random
from itertools import pairwise

import pytest

from berrymq_rpc.common.histogram import BOUNDS, Histogram
from berrymq_rpc.common.history import LENGTH, PERIOD, History


def test_the_bounds_are_spread_evenly_over_seven_powers_of_ten() -> None:
    assert BOUNDS[0] == 1e-5
    assert BOUNDS[-1] == 100
    assert len(BOUNDS) == 43
    assert all(1.3 < high / low < 1.7 for low, high in pairwise(BOUNDS))


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [
        (0.0, 0),
        (1e-5, 0),
        (1.1e-5, 1),
        (0.1, BOUNDS.index(0.1)),
        (100.0, len(BOUNDS) - 1),
        (101.0, len(BOUNDS)),
    ],
)
def test_seconds_are_counted_in_the_bucket_below_whose_bound_they_are(
    seconds: float, bucket: int
) -> None:
    histogram = Histogram()
    histogram.add(seconds)
    assert histogram.counts[bucket] == 1
    assert sum(histogram.counts) == histogram.count == 1
    assert histogram.total == histogram.greatest == seconds


def test_without_seconds_there_is_no_percentile() -> None:
    histogram = Histogram()
    assert histogram.percentile(0.5) is None
    assert json.loads(json.dumps(histogram.snapshot())) == {
        "count": 0,
        "total": 0.0,
        "greatest": 0.0,
        "p50": None,
        "p99": None,
    }


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("scale", [1e-4, 1e-2, 1.0])
def test_a_percentile_is_off_by_a_third_at_most(scale: float, share: float) -> None:
    values = sorted(random.Random(3).lognormvariate(0, 1) * scale for _ in range(5000))
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    exact = values[int(share * len(values))]
    estimate = histogram.percentile(share)
    assert estimate is not None
    assert exact * 0.66 < estimate < exact * 1.34


@pytest.mark.parametrize("seconds", [3e-6, 0.0123, 250.0])
def test_a_percentile_is_never_more_than_the_greatest(seconds: float) -> None:
    histogram = Histogram()
    histogram.add(seconds)
    for share in (0.5, 0.99, 1.0):
        estimate = histogram.percentile(share)
        assert estimate is not None
        assert 0 < estimate <= seconds
    # More than all of them.
    assert histogram.percentile(2) == seconds


def test_two_histograms_are_added() -> None:
    both, first, second = Histogram(), Histogram(), Histogram()
    for number in range(100):
        (first if number % 3 else second).add(number / 100)
        both.add(number / 100)
    first.merge(second)
    assert first.counts == both.counts
    assert first.total == pytest.approx(both.total)
    assert first.snapshot() | {"total": 0} == both.snapshot() | {"total": 0}
    assert repr(first) == "<Histogram of 100>"


def test_a_history_keeps_the_rates_of_the_last_minutes() -> None:
    history = History()
    history.add(20, 1, PERIOD)
    history.add(20, 1, PERIOD)
    history.add(35, 3, 3 * PERIOD)
    assert history.snapshot() == [20 / PERIOD, 0.0, *[round(15 / PERIOD / 3, 3)] * 3]
    assert repr(history) == "<History of 5>"
    history.add(35, 10**9, 10**9 * PERIOD)
    assert history.snapshot() == [0.0] * LENGTH
    history.add(37, 1, PERIOD)
    assert history.snapshot() == [*[0.0] * (LENGTH - 1), 2 / PERIOD]
