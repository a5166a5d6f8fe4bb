"""What a node has taken of sources of which it gets only some messages."""

from hypothesis import given
from hypothesis import strategies as st

from berrymq_rpc.exchange.cluster.order import ClusterOrder, Progress

ONE, OTHER = ("one", 1), ("other", 1)


def test_numbers_that_are_left_out_are_no_gap() -> None:
    order = ClusterOrder()
    assert order.receive(ONE, "a", 5, 1, 0) == Progress(0, None)
    assert order.receive(ONE, "b", 9, 3, 2) == Progress(0, None)
    assert order.receive(ONE, "a", 20, 1, 5) == Progress(0, None)
    assert order.receive(OTHER, "a", 1, 1, 0) == Progress(0, None)
    assert (order.missed, order.duplicates) == (0, 0)


def test_a_gap_is_found_by_the_number_before_on_the_subject() -> None:
    order = ClusterOrder()
    order.receive(ONE, "a", 5, 2, 0)
    assert order.receive(ONE, "a", 20, 1, 14) == Progress(0, (7, 14))
    assert order.receive(ONE, "a", 21, 1, 20) == Progress(0, None)
    assert order.missed == 1


def test_duplicates() -> None:
    order = ClusterOrder()
    order.receive(ONE, "a", 5, 3, 0)
    assert order.receive(ONE, "a", 5, 3, 0) == Progress(3, None)
    assert order.receive(ONE, "b", 6, 1, 0) == Progress(1, None)
    assert order.receive(ONE, "a", 7, 3, 4) == Progress(1, None)
    assert order.duplicates == 5
    assert order.taken(ONE) == 9
    # Another epoch is another node.
    assert order.receive(("one", 2), "a", 1, 1, 0) == Progress(0, None)


def test_what_is_not_subscribed_to_is_not_missed() -> None:
    order = ClusterOrder()
    order.receive(ONE, "a", 1, 1, 0)
    order.receive(ONE, "b", 2, 1, 0)
    order.forget_subject("a")
    assert order.receive(ONE, "a", 9, 1, 5).missed is None
    assert order.receive(ONE, "b", 20, 1, 10).missed == (3, 10)
    order.forget_subjects()
    assert order.receive(ONE, "b", 30, 1, 25).missed is None


def test_a_gap_on_a_subject_of_which_nothing_came_yet() -> None:
    order = ClusterOrder()
    assert order.receive(ONE, "a", 5, 1, 4).missed is None
    order.settle()
    # The subscriptions are in place by the time that this comes: what was before it may be missed.
    assert order.receive(ONE, "b", 9, 1, 8).missed is None
    assert order.receive(ONE, "c", 12, 1, 7).missed is None
    assert order.receive(ONE, "d", 20, 1, 11).missed == (10, 11)
    order.unsettle()
    assert order.receive(ONE, "e", 30, 1, 29).missed is None
    order.settle()
    assert order.receive(ONE, "f", 40, 1, 39).missed is None
    assert order.receive(ONE, "g", 50, 1, 45).missed == (41, 45)


def test_a_source_that_was_followed_otherwise_before() -> None:
    order = ClusterOrder()
    order.begin(ONE, 10)
    assert order.receive(ONE, "a", 9, 3, 0).skip == 2
    assert order.end(ONE) == 11
    assert order.end(ONE) is None
    assert order.taken(ONE) is None
    assert len(order) == 0


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=200))
def test_it_is_bounded(came: list[tuple[int, int]]) -> None:
    order = ClusterOrder(max_sources=3, max_subjects=5)
    for number, (source, subject) in enumerate(came, 1):
        order.receive((str(source), 1), str(subject), number, 1, 0)
        assert len(order) <= 3
        assert order.subjects <= 5


def test_one_source_with_too_many_subjects() -> None:
    order = ClusterOrder(max_subjects=5)
    for number in range(1, 100):
        assert order.receive(ONE, str(number), number, 1, 0) == Progress(0, None)
        assert order.subjects <= 5
    assert order.taken(ONE) == 99
