"""Another process's clock, learnt from the times in its messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berrymq_rpc.rpc.wire.clock import DRIFT, PeerClock


def micro(seconds: float) -> int:
    return round(seconds * 1e6)


def test_offset_of_a_message_without_delay() -> None:
    clock = PeerClock()
    clock.observe(micro(100), 1000.0)
    assert clock.local(micro(101), 1000.0) == pytest.approx(1001.0)


@pytest.mark.parametrize("offset", [0.0, 900.0, -900.0, 1e6, -1e6])
def test_offset_of_either_sign(offset: float) -> None:
    clock = PeerClock()
    clock.observe(micro(2e6), 2e6 + offset)
    assert clock.local(micro(2e6 + 3), 2e6 + offset) == pytest.approx(2e6 + offset + 3)


def test_the_least_difference_counts() -> None:
    clock = PeerClock()
    clock.observe(micro(10.0), 110.5)  # half a second late
    clock.observe(micro(11.0), 111.0)  # not late
    clock.observe(micro(12.0), 112.3)
    assert clock.local(micro(20), 112.3) == pytest.approx(120.0, abs=DRIFT * 2)


def test_what_was_sent_long_ago_is_known_to_be_old() -> None:
    clock = PeerClock()
    clock.observe(micro(10), 110.0)
    # This side was frozen for a minute; the call had 5 seconds when it was sent, at 11.
    clock.observe(micro(11), 171.0)
    assert clock.local(micro(11 + 5), 171.0) < 171.0


def test_delay_of_the_first_message_is_unknown() -> None:
    clock = PeerClock()
    clock.observe(micro(10), 130.0)
    assert clock.local(micro(15), 130.0) == pytest.approx(135.0)


def test_follows_a_clock_that_is_slow() -> None:
    # Half as slow as the allowance says at most, over three days, a message each minute.
    clock = PeerClock()
    here = 0.0
    for minute in range(3 * 24 * 60):
        here = minute * 60.0
        clock.observe(micro(1000 + here * (1 - DRIFT / 2)), here)
    there = 1000 + here * (1 - DRIFT / 2)
    # A call with a tenth of a second is still fresh, and not by much more than it should be.
    assert here + 0.1 <= clock.local(micro(there + 0.1), here) <= here + 0.2


def test_follows_a_clock_that_is_fast() -> None:
    clock = PeerClock()
    here = 0.0
    for minute in range(3 * 24 * 60):
        here = minute * 60.0
        clock.observe(micro(1000 + here * (1 + DRIFT / 2)), here)
    there = 1000 + here * (1 + DRIFT / 2)
    assert here + 0.1 <= clock.local(micro(there + 0.1), here) <= here + 0.2


@given(
    offset=st.floats(-1e5, 1e5),
    delays=st.lists(st.floats(0, 100), min_size=1, max_size=30),
    gaps=st.lists(st.floats(0, 1000), min_size=30, max_size=30),
    left=st.floats(0.001, 1000),
)
def test_no_deadline_comes_early(
    offset: float, delays: list[float], gaps: list[float], left: float
) -> None:
    """Whatever the delays: a message is never taken for older than it is."""
    clock = PeerClock()
    sent = 1e6
    now = 0.0
    for delay, gap in zip(delays, gaps, strict=False):
        sent += gap
        now = max(now, sent + offset + delay)
        clock.observe(micro(sent), now)
    # The last one was sent with so much time left.
    assert clock.local(micro(sent + left), now) >= sent + left + offset - 1e-4


@given(
    offset=st.floats(-1e5, 1e5),
    least=st.floats(0, 0.1),
    delay=st.floats(1, 1000),
)
def test_no_deadline_comes_later_than_the_least_delay_and_the_drift(
    offset: float, least: float, delay: float
) -> None:
    clock = PeerClock()
    clock.observe(micro(1e6), 1e6 + offset + least)
    now = 1e6 + 1 + offset + delay
    clock.observe(micro(1e6 + 1), now)
    when = clock.local(micro(1e6 + 1.5), now)
    assert when <= 1e6 + 1.5 + offset + least + DRIFT * (delay + 1) + 1e-4
