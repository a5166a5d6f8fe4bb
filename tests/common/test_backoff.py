from berrymq_rpc.common.backoff import Backoff


def test_pauses_double_up_to_the_longest() -> None:
    backoff = Backoff(0.05, 0.3)
    assert [backoff.next() for _ in range(5)] == [0.05, 0.1, 0.2, 0.3, 0.3]
    backoff.reset()
    assert backoff.next() == 0.05


def test_begins_anew_after_what_worked_for_long() -> None:
    backoff = Backoff(0.05, 1.0)
    assert [backoff.next(0.9) for _ in range(3)] == [0.05, 0.1, 0.2]
    assert backoff.next(1.1) == 0.05
    assert backoff.next(1.0) == 0.1
