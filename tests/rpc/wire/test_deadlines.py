"""Which call's time is over next."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from berrymq_rpc.rpc.wire.deadlines import SLACK, Deadlines


def made(*entries: tuple[float, int]) -> tuple[Deadlines, dict[int, Any]]:
    alive: dict[int, Any] = {call: None for _, call in entries}
    deadlines = Deadlines(alive)
    for when, call in entries:
        deadlines.add(when, call)
    return deadlines, alive


def test_empty() -> None:
    deadlines, _ = made()
    assert deadlines.next() is None
    assert deadlines.due(1e9) == []
    assert len(deadlines) == 0


def test_earliest_first() -> None:
    deadlines, _ = made((3.0, 1), (1.0, 2), (2.0, 3))
    assert deadlines.next() == 1.0
    assert deadlines.due(2.5) == [2, 3]
    assert deadlines.next() == 3.0
    assert deadlines.due(3.0) == [1]
    assert deadlines.next() is None


def test_nothing_is_due_before_its_time() -> None:
    deadlines, _ = made((1.0, 1))
    assert deadlines.due(0.999) == []
    assert deadlines.due(1.0) == [1]


def test_what_is_due_is_taken_out() -> None:
    deadlines, _ = made((1.0, 1))
    assert deadlines.due(2.0) == [1]
    assert deadlines.due(2.0) == []


def test_calls_that_ended_are_skipped() -> None:
    deadlines, alive = made((1.0, 1), (2.0, 2), (3.0, 3))
    del alive[1]
    assert deadlines.next() == 2.0
    del alive[2]
    assert deadlines.due(9.0) == [3]


def test_entries_of_ended_calls_do_not_pile_up() -> None:
    alive: dict[int, Any] = {}
    deadlines = Deadlines(alive)
    for call in range(20_000):
        alive[call] = None
        # Always later, so that none is ever at the top.
        deadlines.add(1e6 + call, call)
        assert len(deadlines) <= 2 * len(alive) + SLACK + 1
        if call >= 10:
            del alive[call - 10]
    assert [call in alive for call in deadlines.due(1e9)] == [True] * len(alive)


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 20)), max_size=60), st.floats(0, 100))
def test_due_is_what_is_due(entries: list[tuple[float, int]], now: float) -> None:
    deadlines, _ = made(*entries)
    assert deadlines.due(now) == [call for when, call in sorted(entries) if when <= now]


class Machine(RuleBasedStateMachine):
    """Against a plain dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[int, float] = {}
        self.deadlines = Deadlines(self.model)
        self.count = 0
        self.now = 0.0

    @rule(after=st.floats(0, 10))
    def add(self, after: float) -> None:
        self.count += 1
        self.model[self.count] = self.now + after
        self.deadlines.add(self.now + after, self.count)

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        if self.model:
            del self.model[data.draw(st.sampled_from(sorted(self.model)))]

    @rule(seconds=st.floats(0, 5))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        due = self.deadlines.due(self.now)
        expected = sorted((w, c) for c, w in self.model.items() if w <= self.now)
        assert due == [call for _, call in expected]
        for call in due:
            del self.model[call]

    @invariant()
    def knows_the_next(self) -> None:
        assert self.deadlines.next() == min(self.model.values(), default=None)


TestDeadlines = Machine.TestCase
