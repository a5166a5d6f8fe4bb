import pytest

from berrymq_rpc.common.tally import Tally


def test_says_so_at_powers_of_two() -> None:
    tally = Tally()
    assert [n for n in range(1, 101) if tally.add()] == [1, 2, 4, 8, 16, 32, 64]
    assert tally.count == 100


@pytest.mark.parametrize(
    ("before", "events", "says"),
    [(0, 0, False), (0, 5, True), (1, 0, False), (4, 3, False), (4, 4, True), (5, 100, True)],
)
def test_several_at_once(before: int, events: int, says: bool) -> None:
    tally = Tally()
    tally.add(before)
    assert tally.add(events) is says
    assert tally.count == before + events
    assert repr(tally) == f"<Tally of {before + events}>"
