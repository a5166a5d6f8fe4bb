import pytest
from hypothesis import given
from hypothesis import strategies as st

from berrymq_rpc.common.bounded import Bounded, Overflow

NOT_TAKEN = (Overflow.REFUSE, Overflow.BLOCK, Overflow.CALLER_RUNS)


def test_first_in_first_out() -> None:
    bounded = Bounded[int]()
    for number in range(100):
        assert bounded.put(number, 10)
    assert (len(bounded), bounded.bytes, bounded.peek()) == (100, 1000, 0)
    assert list(bounded) == [*range(100)]
    assert [bounded.get() for _ in range(100)] == [*range(100)]
    assert (len(bounded), bounded.bytes, bounded.dropped) == (0, 0, 0)
    with pytest.raises(IndexError):
        bounded.get()
    with pytest.raises(IndexError):
        bounded.peek()


def test_the_oldest_make_room() -> None:
    bounded = Bounded[str](max_items=2, max_bytes=10)
    assert all([bounded.put("a", 1), bounded.put("b", 1), bounded.put("c", 1)])
    assert (list(bounded), bounded.dropped) == (["b", "c"], 1)
    assert bounded.put("large", 11)
    assert (list(bounded), bounded.bytes, bounded.dropped) == (["large"], 11, 3)


@pytest.mark.parametrize("overflow", NOT_TAKEN)
def test_what_has_no_room_is_not_taken(overflow: Overflow) -> None:
    bounded = Bounded[str](max_items=2, max_bytes=10, overflow=overflow)
    assert not bounded.put("large", 11)
    assert bounded.put("a", 6)
    assert not bounded.has_room(5)
    assert not bounded.put("b", 5)
    assert bounded.put("c", 4)
    assert not bounded.put("d")
    assert (list(bounded), bounded.dropped) == (["a", "c"], 0)
    assert bounded.clear() == 2
    assert (len(bounded), bounded.bytes) == (0, 0)


@given(
    st.sampled_from(Overflow),
    st.integers(0, 5),
    st.integers(0, 20),
    st.lists(st.none() | st.integers(0, 12)),
)
def test_holds_its_bounds(
    overflow: Overflow, max_items: int, max_bytes: int, steps: list[int | None]
) -> None:
    bounded = Bounded[int](max_items, max_bytes, overflow)
    taken = got = 0
    for step in steps:
        if step is not None:
            taken += bounded.put(step, step)
        elif bounded:
            bounded.get()
            got += 1
        assert bounded.bytes == sum(bounded)
        assert len(bounded) == taken - got - bounded.dropped
        assert not max_items or len(bounded) <= max_items
        assert not max_bytes or bounded.bytes <= max_bytes or len(bounded) == 1
