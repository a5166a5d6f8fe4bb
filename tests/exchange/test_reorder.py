from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berrymq_rpc.exchange.batch import Batch, Source
from berrymq_rpc.exchange.reorder import (
    FIRST_PATIENCE,
    PATIENCE,
    Gap,
    InOrder,
    Outcome,
    ReorderBuffer,
)

A: Source = ("a", 0)


def batch(first: int, last: int = 0, source: Source = A) -> Batch:
    return Batch(source, first, max(last - first + 1, 1), b"x")


def summary(outcomes: list[Outcome]) -> list[Any]:
    """Numbers of messages that are taken, pairs for gaps."""
    numbers: list[Any] = []
    for outcome in outcomes:
        if isinstance(outcome, Gap):
            numbers.append((outcome.first, outcome.last))
        else:
            first = outcome.batch.first
            numbers += [*range(first + outcome.skip, outcome.batch.last + 1)]
    return numbers


@pytest.fixture
def reorder() -> ReorderBuffer:
    """With two links, 1 and 2."""
    made = ReorderBuffer()
    made.add_link(1)
    made.add_link(2)
    return made


def test_in_order(reorder: ReorderBuffer) -> None:
    assert summary(reorder.receive(1, batch(1, 3), 0.0)) == [1, 2, 3]
    assert summary(reorder.receive(2, batch(1, 3), 0.0)) == []
    assert summary(reorder.receive(2, batch(4), 0.0)) == [4]
    assert summary(reorder.receive(1, batch(4), 0.0)) == []
    assert reorder.duplicates == 4
    assert reorder.taken(A) == 4
    assert reorder.taken(("nobody", 0)) == 0
    assert reorder.next_expiry() is None


def test_the_link_is_reported(reorder: ReorderBuffer) -> None:
    (arrival,) = reorder.receive(2, batch(1), 0.0)
    assert isinstance(arrival, InOrder)
    assert arrival.link == 2


def test_part_of_it_is_new(reorder: ReorderBuffer) -> None:
    reorder.receive(1, batch(1, 3), 0.0)
    assert summary(reorder.receive(2, batch(2, 5), 0.0)) == [4, 5]
    assert reorder.duplicates == 2


def test_waits_for_a_link_that_is_behind(reorder: ReorderBuffer) -> None:
    reorder.receive(1, batch(1, 3), 0.0)
    assert summary(reorder.receive(2, batch(6), 0.0)) == []
    assert summary(reorder.receive(2, batch(7, 8), 0.0)) == []
    assert reorder.held == 3
    assert summary(reorder.receive(1, batch(4), 0.0)) == [4]
    assert summary(reorder.receive(1, batch(5), 0.0)) == [5, 6, 7, 8]
    assert reorder.held == 0
    assert reorder.next_expiry() is None
    assert reorder.missed == 0


def test_what_no_link_can_bring_is_missed(reorder: ReorderBuffer) -> None:
    reorder.receive(1, batch(1), 0.0)
    assert summary(reorder.receive(1, batch(5), 0.0)) == []
    assert summary(reorder.receive(2, batch(5), 0.0)) == [(2, 4), 5]
    assert reorder.missed == 3
    # They come after all, and it is too late.
    assert summary(reorder.receive(2, batch(2, 4), 0.0)) == []


def test_of_one_link_at_once() -> None:
    reorder = ReorderBuffer()
    reorder.add_link(1)
    assert summary(reorder.receive(1, batch(10, 12), 0.0)) == [(1, 9), 10, 11, 12]
    assert summary(reorder.receive(1, batch(15), 0.0)) == [(13, 14), 15]


def test_when_the_other_link_ends(reorder: ReorderBuffer) -> None:
    reorder.receive(1, batch(1), 0.0)
    reorder.receive(1, batch(3), 0.0)
    assert summary(reorder.remove_link(2, 0.0)) == [(2, 2), 3]
    assert summary(reorder.remove_link(2, 0.0)) == []


def test_when_time_is_over(reorder: ReorderBuffer) -> None:
    reorder.receive(1, batch(1), 0.0)
    reorder.receive(1, batch(3), 1.0)
    assert reorder.next_expiry() == 1.0 + PATIENCE
    assert summary(reorder.expire(PATIENCE)) == []
    assert summary(reorder.expire(1.0 + PATIENCE)) == [(2, 2), 3]


def test_as_long_as_it_gets_on_there_is_time(reorder: ReorderBuffer) -> None:
    reorder.receive(1, batch(1), 0.0)
    reorder.receive(1, batch(10), 0.0)
    for number in range(2, 9):
        assert summary(reorder.receive(2, batch(number), 4.0 * number)) == [number]
        assert summary(reorder.expire(4.0 * number + 1)) == []
    assert summary(reorder.expire(4.0 * 8 + PATIENCE)) == [(9, 9), 10]


def test_a_source_that_is_not_known_has_less_time(reorder: ReorderBuffer) -> None:
    reorder.receive(1, batch(10), 0.0)
    assert reorder.next_expiry() == FIRST_PATIENCE
    assert summary(reorder.expire(FIRST_PATIENCE)) == [(1, 9), 10]


def test_who_comes_late_waits_for_neither_link(reorder: ReorderBuffer) -> None:
    assert summary(reorder.receive(1, batch(10), 0.0)) == []
    assert summary(reorder.receive(2, batch(8), 0.0)) == [(1, 7), 8]
    assert summary(reorder.receive(2, batch(9), 0.0)) == [9, 10]


def test_several_gaps(reorder: ReorderBuffer) -> None:
    for number in (9, 5, 1, 3):
        reorder.receive(1, batch(number), 0.0)
    assert reorder.held == 3
    assert summary(reorder.expire(100.0)) == [(2, 2), 3, (4, 4), 5, (6, 8), 9]


def test_what_is_held_may_come_again(reorder: ReorderBuffer) -> None:
    reorder.receive(1, batch(1), 0.0)
    reorder.receive(1, batch(3, 4), 0.0)
    reorder.receive(1, batch(3, 4), 0.0)
    assert (reorder.held, reorder.duplicates) == (2, 2)
    # In another batch.
    reorder.receive(1, batch(3, 6), 0.0)
    reorder.receive(1, batch(4, 5), 0.0)
    assert summary(reorder.receive(2, batch(2), 0.0)) == [2, 3, 4, 5, 6]
    assert (reorder.held, reorder.duplicates) == (0, 6)


def test_a_long_batch_overtakes_what_is_held(reorder: ReorderBuffer) -> None:
    reorder.receive(1, batch(1), 0.0)
    reorder.receive(1, batch(4), 0.0)
    reorder.receive(1, batch(8), 0.0)
    assert summary(reorder.receive(2, batch(2, 6), 0.0)) == [2, 3, 4, 5, 6]
    assert summary(reorder.receive(2, batch(1, 3), 0.0)) == []
    assert summary(reorder.receive(2, batch(7), 0.0)) == [7, 8]


def test_each_life_of_a_source_has_its_own_numbers(reorder: ReorderBuffer) -> None:
    reorder.receive(1, batch(1, 100), 0.0)
    assert summary(reorder.receive(1, batch(1, 2, ("a", 7)), 0.0)) == [1, 2]
    # What is left of the old one still comes.
    assert summary(reorder.receive(2, batch(101), 0.0)) == [101]
    # A clock that was set back makes no difference.
    assert summary(reorder.receive(1, batch(1, 1, ("a", 3)), 0.0)) == [1]


def test_a_link_that_was_renewed_may_bring_what_it_brought() -> None:
    reorder = ReorderBuffer()
    reorder.add_link(1)
    reorder.add_link(2)
    for link in (1, 2):
        reorder.receive(link, batch(1), 0.0)
    reorder.receive(2, batch(9), 0.0)
    reorder.renew_link(2)
    assert summary(reorder.receive(1, batch(9), 0.0)) == []
    assert summary(reorder.receive(2, batch(2, 9), 0.0)) == [*range(2, 10)]


def test_a_link_that_is_not_known_brings_as_well(reorder: ReorderBuffer) -> None:
    assert summary(reorder.receive(3, batch(1), 0.0)) == [1]
    assert summary(reorder.receive(3, batch(3), 0.0)) == []


class TestBounds:
    def test_of_messages_that_are_held(self) -> None:
        reorder = ReorderBuffer(max_held=3)
        reorder.add_link(1)
        reorder.add_link(2)
        reorder.receive(1, batch(1), 0.0)
        for number in (3, 5, 7):
            assert summary(reorder.receive(1, batch(number), 0.0)) == []
        assert summary(reorder.receive(1, batch(9), 0.0)) == [(2, 2), 3]
        assert reorder.held == 3

    def test_of_their_bytes(self) -> None:
        reorder = ReorderBuffer(max_held_bytes=3 * batch(1).size)
        reorder.add_link(1)
        reorder.add_link(2)
        reorder.receive(1, batch(1), 0.0)
        for number in (3, 5, 7):
            assert summary(reorder.receive(1, batch(number), 0.0)) == []
        assert summary(reorder.receive(1, batch(9), 0.0)) == [(2, 2), 3]

    def test_of_sources(self) -> None:
        reorder = ReorderBuffer(max_sources=100)
        reorder.add_link(1)
        for number in range(1000):
            reorder.receive(1, batch(1, source=("x", number)), float(number))
            assert len(reorder) <= 100
        assert reorder.taken(("x", 999)) == 1
        assert reorder.taken(("x", 0)) == 0

    def test_of_sources_that_wait(self) -> None:
        reorder = ReorderBuffer(max_sources=100)
        reorder.add_link(1)
        reorder.add_link(2)
        outcomes = []
        for number in range(300):
            outcomes += reorder.receive(1, batch(2, source=("x", number)), 0.0)
        assert len(reorder) <= 101
        assert reorder.held <= 101
        # The others had to be content with what they had.
        assert len(outcomes) == 2 * (300 - reorder.held)


@given(
    st.lists(st.tuples(st.sampled_from([1, 2, 3]), st.integers(1, 15), st.integers(0, 4))),
    st.integers(1, 3),
)
def test_whatever_comes_is_taken_once_and_in_order(
    arrivals: list[tuple[int, int, int]], links: int
) -> None:
    reorder = ReorderBuffer()
    for link in range(1, links + 1):
        reorder.add_link(link)
    outcomes = []
    for link, first, more in arrivals:
        outcomes += reorder.receive(link, batch(first, first + more), 0.0)
    outcomes += reorder.expire(100.0)
    numbers = []
    for item in summary(outcomes):
        numbers += [*range(item[0], item[1] + 1)] if isinstance(item, tuple) else [item]
    # Each number up to the last, either taken or missed.
    assert numbers == [*range(1, len(numbers) + 1)]
    assert len(numbers) == max((first + more for _, first, more in arrivals), default=0)
    taken = {n for n in summary(outcomes) if isinstance(n, int)}
    assert taken <= {first + i for _, first, more in arrivals for i in range(more + 1)}
    assert (reorder.held, reorder.held_bytes, reorder.next_expiry()) == (0, 0, None)


# -- what a link withholds -----------------------------------------------------------------------


def after(withheld: int, first: int, last: int = 0) -> Batch:
    """A batch, so many messages before which are withheld."""
    return Batch(A, first, max(last - first + 1, 1), b"x", withheld=withheld)


def test_what_is_withheld_is_not_missed() -> None:
    reorder = ReorderBuffer()
    reorder.add_link(1)
    assert summary(reorder.receive(1, after(2, 3), 0.0)) == [3]
    assert summary(reorder.receive(1, after(1, 5, 6), 0.0)) == [5, 6]
    # What came neither way is.
    assert summary(reorder.receive(1, after(1, 10), 0.0)) == [(7, 8), 10]
    assert reorder.missed == 2


def test_a_link_that_brings_nothing_of_a_source_holds_up_its_beginning_alone(
    reorder: ReorderBuffer,
) -> None:
    assert summary(reorder.receive(1, after(0, 1), 0.0)) == [1]
    assert summary(reorder.receive(1, after(1, 3), 0.1)) == []
    assert reorder.next_expiry() == pytest.approx(FIRST_PATIENCE)
    assert summary(reorder.receive(1, after(1, 5), FIRST_PATIENCE)) == [3, 5]
    assert summary(reorder.receive(1, after(1, 7), FIRST_PATIENCE + 0.1)) == [7]
    # What has been lost on the way is waited for, as ever.
    assert summary(reorder.receive(1, after(1, 10), 2.0)) == []
    assert reorder.next_expiry() == pytest.approx(2.0 + PATIENCE)
    assert summary(reorder.expire(2.0 + PATIENCE)) == [(8, 8), 10]
    assert reorder.missed == 1


def test_a_link_that_may_bring_it_is_waited_for(reorder: ReorderBuffer) -> None:
    now = 10 * FIRST_PATIENCE
    for link in (1, 2):
        reorder.receive(link, batch(1), 0.0)
    assert summary(reorder.receive(1, after(2, 4), now)) == []
    assert summary(reorder.receive(2, batch(2), now)) == [2]
    assert summary(reorder.receive(2, batch(3, 4), now)) == [3, 4]
    # Both withhold it.
    assert summary(reorder.receive(1, after(1, 6), now)) == []
    assert summary(reorder.receive(2, after(1, 6), now)) == [6]
    # The other has gone.
    assert summary(reorder.receive(1, after(1, 8), now)) == []
    assert summary(reorder.remove_link(2, now)) == [8]
    assert reorder.missed == 0


def test_what_another_link_could_have_brought_is_missed(reorder: ReorderBuffer) -> None:
    """One withholds it, and the other has brought messages of this source until it broke."""
    now = 10 * FIRST_PATIENCE
    for link in (1, 2):
        reorder.receive(link, batch(1), 0.0)
    assert summary(reorder.receive(1, after(2, 4), now)) == []
    assert summary(reorder.expire(now + PATIENCE - 0.1)) == []
    assert summary(reorder.expire(now + PATIENCE)) == [(2, 3), 4]
    assert reorder.missed == 2
