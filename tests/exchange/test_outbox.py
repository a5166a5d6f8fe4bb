from collections import deque
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from berrymq_rpc.exchange.bundle import Bundle
from berrymq_rpc.exchange.outbox import Outbox

ANY = 10**9


def bundle(first: int, count: int = 1, size: int = 0) -> Bundle:
    return Bundle(("a", 0), first, count, b"x" * size)


def numbers(bundles: list[Bundle]) -> list[int]:
    return [item.first for item in bundles]


def test_in_order_until_confirmed() -> None:
    outbox = Outbox()
    for n in range(5):
        outbox.put(bundle(n))
    assert numbers(outbox.take(2, ANY)) == [0, 1]
    mark = outbox.mark
    assert numbers(outbox.take(ANY, ANY)) == [2, 3, 4]
    assert outbox.take(1, ANY) == []
    assert len(outbox) == 5
    outbox.confirm(mark)
    assert len(outbox) == 3
    # Said twice, or late.
    outbox.confirm(mark)
    assert len(outbox) == 3
    outbox.confirm(outbox.mark)
    assert (len(outbox), outbox.bytes, outbox.next_size) == (0, 0, 0)


def test_what_is_not_confirmed_is_sent_anew() -> None:
    outbox = Outbox()
    for n in range(4):
        outbox.put(bundle(n))
    outbox.take(1, ANY)
    mark = outbox.mark
    outbox.take(2, ANY)
    outbox.confirm(mark)
    outbox.rewind()
    assert numbers(outbox.take(ANY, ANY)) == [1, 2, 3]
    outbox.confirm(outbox.mark)
    assert len(outbox) == 0


def test_as_many_as_fit() -> None:
    outbox = Outbox()
    for n in range(4):
        outbox.put(bundle(n, size=1000))
    size = bundle(0, size=1000).size
    assert numbers(outbox.take(ANY, 2 * size)) == [0, 1]
    # One in any case.
    assert numbers(outbox.take(ANY, 1)) == [2]


def test_the_oldest_goes() -> None:
    outbox = Outbox(maximum=10)
    for n in range(6):
        outbox.put(bundle(n, count=3))
    assert (len(outbox), outbox.dropped) == (9, 9)
    assert numbers(outbox.take(ANY, ANY)) == [3, 4, 5]


def test_by_size_too() -> None:
    outbox = Outbox(maximum_bytes=5000)
    for n in range(10):
        outbox.put(bundle(n, size=1000))
    assert outbox.bytes <= 5000
    assert outbox.dropped == 10 - len(outbox)
    # One that is too large by itself has the place of all.
    outbox.put(bundle(99, size=10_000))
    assert numbers(outbox.take(ANY, ANY)) == [99]


def test_what_is_under_way_is_not_dropped() -> None:
    outbox = Outbox(maximum=3)
    for n in range(3):
        outbox.put(bundle(n))
    outbox.take(2, ANY)
    for n in range(3, 6):
        outbox.put(bundle(n))
    outbox.rewind()
    assert numbers(outbox.take(ANY, ANY)) == [0, 1, 5]
    assert outbox.dropped == 3


def test_clear() -> None:
    outbox = Outbox()
    for n in range(3):
        outbox.put(bundle(n, count=2))
    outbox.take(1, ANY)
    outbox.refuse(bundle(0, count=2))
    assert outbox.clear() == 6
    assert (len(outbox), outbox.bytes, outbox.dropped, outbox.refused) == (0, 0, 6, 2)


class Model(RuleBasedStateMachine):
    """Beside two plain queues."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox = Outbox(maximum=20)
        self.count = 0
        self.waiting: deque[Bundle] = deque()
        self.sent: deque[Bundle] = deque()
        self.marks: list[tuple[int, int]] = []
        self.confirmed = 0
        self.dropped = 0

    @rule(count=st.integers(1, 8))
    def put(self, count: int) -> None:
        self.count += 1
        item = bundle(self.count, count)
        self.outbox.put(item)
        self.waiting.append(item)
        while self.total > 20 and len(self.waiting) > 1:
            self.dropped += self.waiting.popleft().count

    @rule(count=st.integers(1, 5))
    def take(self, count: int) -> None:
        taken = self.outbox.take(count, ANY)
        expected = [self.waiting.popleft() for _ in range(min(count, len(self.waiting)))]
        assert taken == expected
        self.sent.extend(taken)
        self.marks.append((self.outbox.mark, self.confirmed + len(self.sent)))

    @rule(data=st.data())
    def confirm(self, data: Any) -> None:
        if not self.marks:
            return
        mark, upto = data.draw(st.sampled_from(self.marks))
        self.outbox.confirm(mark)
        while self.confirmed < upto:
            self.sent.popleft()
            self.confirmed += 1

    @rule()
    def rewind(self) -> None:
        self.outbox.rewind()
        self.waiting.extendleft(reversed(self.sent))
        self.sent.clear()
        self.marks.clear()

    @property
    def total(self) -> int:
        return sum(item.count for item in (*self.waiting, *self.sent))

    @invariant()
    def same(self) -> None:
        assert len(self.outbox) == self.total
        assert self.outbox.bytes == sum(item.size for item in (*self.waiting, *self.sent))
        assert self.outbox.dropped == self.dropped
        assert self.outbox.next_size == (self.waiting[0].size if self.waiting else 0)


TestModel = Model.TestCase
