from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berrymq_rpc.exchange.bundle import Bundle, Source
from berrymq_rpc.exchange.sequences import (
    FIRST_PATIENCE,
    PATIENCE,
    Arrival,
    Missed,
    Outcome,
    Sequences,
)

A: Source = ("a", 0)


def bundle(first: int, last: int = 0, source: Source = A) -> Bundle:
    return Bundle(source, first, max(last - first + 1, 1), b"x")


def told(outcomes: list[Outcome]) -> list[Any]:
    """Numbers for what is taken, pairs for what is missed."""
    numbers: list[Any] = []
    for outcome in outcomes:
        if isinstance(outcome, Missed):
            numbers.append((outcome.first, outcome.last))
        else:
            first = outcome.bundle.first
            numbers += [*range(first + outcome.skip, outcome.bundle.last + 1)]
    return numbers


@pytest.fixture
def sequences() -> Sequences:
    """With two lines, 1 and 2."""
    made = Sequences()
    made.add_line(1)
    made.add_line(2)
    return made


def test_in_order(sequences: Sequences) -> None:
    assert told(sequences.receive(1, bundle(1, 3), 0.0)) == [1, 2, 3]
    assert told(sequences.receive(2, bundle(1, 3), 0.0)) == []
    assert told(sequences.receive(2, bundle(4), 0.0)) == [4]
    assert told(sequences.receive(1, bundle(4), 0.0)) == []
    assert sequences.doubles == 4
    assert sequences.taken(A) == 4
    assert sequences.taken(("nobody", 0)) == 0
    assert sequences.next_expiry() is None


def test_the_line_is_told(sequences: Sequences) -> None:
    (arrival,) = sequences.receive(2, bundle(1), 0.0)
    assert isinstance(arrival, Arrival)
    assert arrival.line == 2


def test_part_of_it_is_new(sequences: Sequences) -> None:
    sequences.receive(1, bundle(1, 3), 0.0)
    assert told(sequences.receive(2, bundle(2, 5), 0.0)) == [4, 5]
    assert sequences.doubles == 2


def test_waits_for_a_line_that_is_behind(sequences: Sequences) -> None:
    sequences.receive(1, bundle(1, 3), 0.0)
    assert told(sequences.receive(2, bundle(6), 0.0)) == []
    assert told(sequences.receive(2, bundle(7, 8), 0.0)) == []
    assert sequences.held == 3
    assert told(sequences.receive(1, bundle(4), 0.0)) == [4]
    assert told(sequences.receive(1, bundle(5), 0.0)) == [5, 6, 7, 8]
    assert sequences.held == 0
    assert sequences.next_expiry() is None
    assert sequences.missed == 0


def test_what_no_line_can_bring_is_missed(sequences: Sequences) -> None:
    sequences.receive(1, bundle(1), 0.0)
    assert told(sequences.receive(1, bundle(5), 0.0)) == []
    assert told(sequences.receive(2, bundle(5), 0.0)) == [(2, 4), 5]
    assert sequences.missed == 3
    # They come after all, and it is too late.
    assert told(sequences.receive(2, bundle(2, 4), 0.0)) == []


def test_of_one_line_at_once() -> None:
    sequences = Sequences()
    sequences.add_line(1)
    assert told(sequences.receive(1, bundle(10, 12), 0.0)) == [(1, 9), 10, 11, 12]
    assert told(sequences.receive(1, bundle(15), 0.0)) == [(13, 14), 15]


def test_when_the_other_line_ends(sequences: Sequences) -> None:
    sequences.receive(1, bundle(1), 0.0)
    sequences.receive(1, bundle(3), 0.0)
    assert told(sequences.remove_line(2, 0.0)) == [(2, 2), 3]
    assert told(sequences.remove_line(2, 0.0)) == []


def test_when_time_is_over(sequences: Sequences) -> None:
    sequences.receive(1, bundle(1), 0.0)
    sequences.receive(1, bundle(3), 1.0)
    assert sequences.next_expiry() == 1.0 + PATIENCE
    assert told(sequences.expire(PATIENCE)) == []
    assert told(sequences.expire(1.0 + PATIENCE)) == [(2, 2), 3]


def test_as_long_as_it_gets_on_there_is_time(sequences: Sequences) -> None:
    sequences.receive(1, bundle(1), 0.0)
    sequences.receive(1, bundle(10), 0.0)
    for number in range(2, 9):
        assert told(sequences.receive(2, bundle(number), 4.0 * number)) == [number]
        assert told(sequences.expire(4.0 * number + 1)) == []
    assert told(sequences.expire(4.0 * 8 + PATIENCE)) == [(9, 9), 10]


def test_a_source_that_is_not_known_has_less_time(sequences: Sequences) -> None:
    sequences.receive(1, bundle(10), 0.0)
    assert sequences.next_expiry() == FIRST_PATIENCE
    assert told(sequences.expire(FIRST_PATIENCE)) == [(1, 9), 10]


def test_who_comes_late_waits_for_neither_line(sequences: Sequences) -> None:
    assert told(sequences.receive(1, bundle(10), 0.0)) == []
    assert told(sequences.receive(2, bundle(8), 0.0)) == [(1, 7), 8]
    assert told(sequences.receive(2, bundle(9), 0.0)) == [9, 10]


def test_several_gaps(sequences: Sequences) -> None:
    for number in (9, 5, 1, 3):
        sequences.receive(1, bundle(number), 0.0)
    assert sequences.held == 3
    assert told(sequences.expire(100.0)) == [(2, 2), 3, (4, 4), 5, (6, 8), 9]


def test_what_is_held_may_come_again(sequences: Sequences) -> None:
    sequences.receive(1, bundle(1), 0.0)
    sequences.receive(1, bundle(3, 4), 0.0)
    sequences.receive(1, bundle(3, 4), 0.0)
    assert (sequences.held, sequences.doubles) == (2, 2)
    # In another bundle.
    sequences.receive(1, bundle(3, 6), 0.0)
    sequences.receive(1, bundle(4, 5), 0.0)
    assert told(sequences.receive(2, bundle(2), 0.0)) == [2, 3, 4, 5, 6]
    assert (sequences.held, sequences.doubles) == (0, 6)


def test_a_long_bundle_overtakes_what_is_held(sequences: Sequences) -> None:
    sequences.receive(1, bundle(1), 0.0)
    sequences.receive(1, bundle(4), 0.0)
    sequences.receive(1, bundle(8), 0.0)
    assert told(sequences.receive(2, bundle(2, 6), 0.0)) == [2, 3, 4, 5, 6]
    assert told(sequences.receive(2, bundle(1, 3), 0.0)) == []
    assert told(sequences.receive(2, bundle(7), 0.0)) == [7, 8]


def test_each_life_of_a_source_has_its_own_numbers(sequences: Sequences) -> None:
    sequences.receive(1, bundle(1, 100), 0.0)
    assert told(sequences.receive(1, bundle(1, 2, ("a", 7)), 0.0)) == [1, 2]
    # What is left of the old one still comes.
    assert told(sequences.receive(2, bundle(101), 0.0)) == [101]
    # A clock that was set back makes no difference.
    assert told(sequences.receive(1, bundle(1, 1, ("a", 3)), 0.0)) == [1]


def test_a_line_that_was_renewed_may_bring_what_it_brought() -> None:
    sequences = Sequences()
    sequences.add_line(1)
    sequences.add_line(2)
    for line in (1, 2):
        sequences.receive(line, bundle(1), 0.0)
    sequences.receive(2, bundle(9), 0.0)
    sequences.renew_line(2)
    assert told(sequences.receive(1, bundle(9), 0.0)) == []
    assert told(sequences.receive(2, bundle(2, 9), 0.0)) == [*range(2, 10)]


def test_a_line_that_is_not_known_brings_as_well(sequences: Sequences) -> None:
    assert told(sequences.receive(3, bundle(1), 0.0)) == [1]
    assert told(sequences.receive(3, bundle(3), 0.0)) == []


class TestBounds:
    def test_of_messages_that_are_held(self) -> None:
        sequences = Sequences(maximum_held=3)
        sequences.add_line(1)
        sequences.add_line(2)
        sequences.receive(1, bundle(1), 0.0)
        for number in (3, 5, 7):
            assert told(sequences.receive(1, bundle(number), 0.0)) == []
        assert told(sequences.receive(1, bundle(9), 0.0)) == [(2, 2), 3]
        assert sequences.held == 3

    def test_of_their_bytes(self) -> None:
        sequences = Sequences(maximum_held_bytes=3 * bundle(1).size)
        sequences.add_line(1)
        sequences.add_line(2)
        sequences.receive(1, bundle(1), 0.0)
        for number in (3, 5, 7):
            assert told(sequences.receive(1, bundle(number), 0.0)) == []
        assert told(sequences.receive(1, bundle(9), 0.0)) == [(2, 2), 3]

    def test_of_sources(self) -> None:
        sequences = Sequences(maximum=100)
        sequences.add_line(1)
        for number in range(1000):
            sequences.receive(1, bundle(1, source=("x", number)), float(number))
            assert len(sequences) <= 100
        assert sequences.taken(("x", 999)) == 1
        assert sequences.taken(("x", 0)) == 0

    def test_of_sources_that_wait(self) -> None:
        sequences = Sequences(maximum=100)
        sequences.add_line(1)
        sequences.add_line(2)
        outcomes = []
        for number in range(300):
            outcomes += sequences.receive(1, bundle(2, source=("x", number)), 0.0)
        assert len(sequences) <= 101
        assert sequences.held <= 101
        # The others had to be content with what they had.
        assert len(outcomes) == 2 * (300 - sequences.held)


@given(
    st.lists(st.tuples(st.sampled_from([1, 2, 3]), st.integers(1, 15), st.integers(0, 4))),
    st.integers(1, 3),
)
def test_whatever_comes_is_taken_once_and_in_order(
    arrivals: list[tuple[int, int, int]], lines: int
) -> None:
    sequences = Sequences()
    for line in range(1, lines + 1):
        sequences.add_line(line)
    outcomes = []
    for line, first, more in arrivals:
        outcomes += sequences.receive(line, bundle(first, first + more), 0.0)
    outcomes += sequences.expire(100.0)
    numbers = []
    for item in told(outcomes):
        numbers += [*range(item[0], item[1] + 1)] if isinstance(item, tuple) else [item]
    # Each number up to the last, either taken or missed.
    assert numbers == [*range(1, len(numbers) + 1)]
    assert len(numbers) == max((first + more for _, first, more in arrivals), default=0)
    taken = {n for n in told(outcomes) if isinstance(n, int)}
    assert taken <= {first + i for _, first, more in arrivals for i in range(more + 1)}
    assert (sequences.held, sequences._held_bytes, sequences.next_expiry()) == (0, 0, None)
