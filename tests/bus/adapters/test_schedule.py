"""When the ticks of an interval are due, with numbers for the time."""

from berrymq_rpc.bus.adapters.schedule import Schedule


def test_ticks_do_not_drift() -> None:
    schedule = Schedule(100.0, 0.5)
    for number in range(1, 1001):
        assert schedule.due == 100.0 + number * 0.5
        # Each is 0.1 s late.
        schedule.advance(schedule.due + 0.1)
        assert (schedule.count, schedule.skipped) == (number, 0)


def test_late_ticks_are_skipped_and_counted() -> None:
    schedule = Schedule(0.0, 1.0)
    schedule.advance(1.0)
    schedule.advance(4.7)
    assert (schedule.count, schedule.skipped, schedule.due) == (4, 2, 5.0)
    # A computer that slept for a day.
    schedule.advance(86_404.5)
    assert (schedule.count, schedule.skipped, schedule.due) == (86_404, 2 + 86_399, 86_405.0)


def test_a_clock_that_wakes_too_early() -> None:
    schedule = Schedule(0.0, 1.0)
    schedule.advance(0.999_999)
    schedule.advance(1.999_999)
    assert (schedule.count, schedule.skipped, schedule.due) == (2, 0, 3.0)
