"""How fast counts grow."""

from berrymq_rpc.monitor.rates import Rates


def test_rates_and_history() -> None:
    rates = Rates(10, history=3)
    rates.sample(0.0, {"a": 5})
    assert (rates.rate("a"), rates.history("a")) == (0.0, [])
    rates.sample(2.0, {"a": 15, "b": 2})
    assert (rates.rate("a"), rates.rate("b")) == (5.0, 1.0)
    for now in (3.0, 4.0, 5.0):
        rates.sample(now, {"a": 15 + int(now), "b": 2})
    assert rates.history("a") == [3.0, 1.0, 1.0]
    assert rates.history("b") == [0.0, 0.0, 0.0]
    assert rates.history("unknown") == []


def test_a_count_that_begins_anew() -> None:
    rates = Rates(10)
    rates.sample(0.0, {"a": 100})
    rates.sample(1.0, {"a": 4})
    assert rates.rate("a") == 4.0
    rates.sample(2.0, {})
    assert rates.history("a") == [4.0, 0.0]


def test_a_clock_that_stands_still() -> None:
    rates = Rates(10)
    rates.sample(1.0, {"a": 1})
    rates.sample(1.0, {"a": 9})
    rates.sample(2.0, {"a": 11})
    assert rates.history("a") == [2.0]


def test_names_that_have_not_grown_make_way() -> None:
    rates = Rates(2)
    rates.sample(0.0, {"a": 1, "b": 1})
    rates.sample(1.0, {"a": 2, "b": 1})
    rates.sample(2.0, {"a": 2, "b": 1, "c": 1})
    assert len(rates) == 2
    assert rates.history("a") == [1.0, 0.0]
    assert rates.history("b") == []
