from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berrymq_rpc.common.log_limiter import BURST, INTERVAL, QUIET, LogLimiter


def test_ten_and_then_one_a_second() -> None:
    limiter = LogLimiter()
    # 1024 a second, for ten seconds.
    written = [n / 1024 for n in range(10_240) if limiter.admit(n / 1024)]
    assert written[:BURST] == [n / 1024 for n in range(BURST)]
    assert len(written) == BURST + 9
    assert all(later - earlier >= INTERVAL for earlier, later in pairwise(written[BURST - 1 :]))


def test_says_how_many_were_left_out() -> None:
    limiter = LogLimiter()
    for _ in range(BURST):
        assert limiter.admit(0.0)
        assert limiter.left_out == 0
        assert limiter.is_early
    for count in range(1, 8):
        assert not limiter.admit(0.5)
        assert limiter.left_out == count
    assert repr(limiter) == "<LogLimiter: 7 left out>"
    assert limiter.admit(INTERVAL)
    assert limiter.left_out == 7
    assert not limiter.is_early
    # They were given once.
    assert limiter.admit(2 * INTERVAL)
    assert limiter.left_out == 0


@pytest.mark.parametrize(
    ("pause", "is_new"), [(QUIET, True), (QUIET + 1, True), (QUIET - 0.001, False)]
)
def test_begins_anew_after_quiet(pause: float, is_new: bool) -> None:
    limiter = LogLimiter()
    for _ in range(BURST + 1):
        limiter.admit(5.0)
    assert limiter.admit(5.0 + pause)
    assert limiter.left_out == 1
    assert limiter.is_early is is_new
    assert limiter.admit(5.0 + pause) is is_new


def test_what_is_left_out_is_not_quiet() -> None:
    limiter = LogLimiter()
    now = 0.0
    written = 0
    while now < 10 * QUIET:
        written += limiter.admit(now)
        now += INTERVAL / 2
    assert written <= BURST + 10 * QUIET / INTERVAL


@given(st.lists(st.floats(0, 100), max_size=200))
def test_each_event_is_written_or_counted(pauses: list[float]) -> None:
    limiter = LogLimiter()
    now = 0.0
    written: list[float] = []
    told = 0
    for pause in pauses:
        now += pause
        if limiter.admit(now):
            written.append(now)
            told += limiter.left_out
    assert limiter.admit(now + INTERVAL)
    told += limiter.left_out
    assert len(written) + told == len(pauses)
    # Within any time, not more than the rate allows.
    for first, begin in enumerate(written):
        for last in range(first, len(written)):
            allowed = BURST * (1 + (written[last] - begin) // QUIET) + (
                (written[last] - begin) / INTERVAL
            )
            assert last - first + 1 <= allowed + 1
