from collections import deque
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from berrymq_rpc.exchange.batch import Batch
from berrymq_rpc.exchange.send_buffer import SendBuffer

ANY = 10**9


def batch(first: int, count: int = 1, size: int = 0) -> Batch:
    return Batch(("a", 0), first, count, b"x" * size)


def numbers(batches: list[Batch]) -> list[int]:
    return [item.first for item in batches]


def test_in_order_until_acknowledged() -> None:
    send_buffer = SendBuffer()
    for n in range(5):
        send_buffer.put(batch(n))
    assert numbers(send_buffer.take(2, ANY)) == [0, 1]
    mark = send_buffer.ack_position
    assert numbers(send_buffer.take(ANY, ANY)) == [2, 3, 4]
    assert send_buffer.take(1, ANY) == []
    assert len(send_buffer) == 5
    send_buffer.acknowledge(mark)
    assert len(send_buffer) == 3
    # Said twice, or late.
    send_buffer.acknowledge(mark)
    assert len(send_buffer) == 3
    send_buffer.acknowledge(send_buffer.ack_position)
    assert (len(send_buffer), send_buffer.bytes, send_buffer.next_size) == (0, 0, 0)


def test_what_is_not_acknowledged_is_sent_anew() -> None:
    send_buffer = SendBuffer()
    for n in range(4):
        send_buffer.put(batch(n))
    send_buffer.take(1, ANY)
    mark = send_buffer.ack_position
    send_buffer.take(2, ANY)
    send_buffer.acknowledge(mark)
    send_buffer.retransmit()
    assert numbers(send_buffer.take(ANY, ANY)) == [1, 2, 3]
    send_buffer.acknowledge(send_buffer.ack_position)
    assert len(send_buffer) == 0


def test_as_many_as_fit() -> None:
    send_buffer = SendBuffer()
    for n in range(4):
        send_buffer.put(batch(n, size=1000))
    size = batch(0, size=1000).size
    assert numbers(send_buffer.take(ANY, 2 * size)) == [0, 1]
    # One in any case.
    assert numbers(send_buffer.take(ANY, 1)) == [2]


def test_the_oldest_goes() -> None:
    send_buffer = SendBuffer(max_messages=10)
    for n in range(6):
        send_buffer.put(batch(n, count=3))
    assert (len(send_buffer), send_buffer.dropped) == (9, 9)
    assert numbers(send_buffer.take(ANY, ANY)) == [3, 4, 5]


def test_by_size_too() -> None:
    send_buffer = SendBuffer(max_bytes=5000)
    for n in range(10):
        send_buffer.put(batch(n, size=1000))
    assert send_buffer.bytes <= 5000
    assert send_buffer.dropped == 10 - len(send_buffer)
    # One that is too large by itself has the place of all.
    send_buffer.put(batch(99, size=10_000))
    assert numbers(send_buffer.take(ANY, ANY)) == [99]


def test_what_is_under_way_is_not_dropped() -> None:
    send_buffer = SendBuffer(max_messages=3)
    for n in range(3):
        send_buffer.put(batch(n))
    send_buffer.take(2, ANY)
    for n in range(3, 6):
        send_buffer.put(batch(n))
    send_buffer.retransmit()
    assert numbers(send_buffer.take(ANY, ANY)) == [0, 1, 5]
    assert send_buffer.dropped == 3


def test_clear() -> None:
    send_buffer = SendBuffer()
    for n in range(3):
        send_buffer.put(batch(n, count=2))
    send_buffer.take(1, ANY)
    send_buffer.refuse(batch(0, count=2))
    assert send_buffer.clear() == 6
    assert (len(send_buffer), send_buffer.bytes, send_buffer.dropped, send_buffer.refused) == (
        0,
        0,
        6,
        2,
    )


class Model(RuleBasedStateMachine):
    """MergedHandler two plain queues."""

    def __init__(self) -> None:
        super().__init__()
        self.send_buffer = SendBuffer(max_messages=20)
        self.count = 0
        self.waiting: deque[Batch] = deque()
        self.sent: deque[Batch] = deque()
        self.marks: list[tuple[int, int]] = []
        self.confirmed = 0
        self.dropped = 0

    @rule(count=st.integers(1, 8))
    def put(self, count: int) -> None:
        self.count += 1
        item = batch(self.count, count)
        self.send_buffer.put(item)
        self.waiting.append(item)
        while self.total > 20 and len(self.waiting) > 1:
            self.dropped += self.waiting.popleft().count

    @rule(count=st.integers(1, 5))
    def take(self, count: int) -> None:
        taken = self.send_buffer.take(count, ANY)
        expected = [self.waiting.popleft() for _ in range(min(count, len(self.waiting)))]
        assert taken == expected
        self.sent.extend(taken)
        self.marks.append((self.send_buffer.ack_position, self.confirmed + len(self.sent)))

    @rule(data=st.data())
    def confirm(self, data: Any) -> None:
        if not self.marks:
            return
        mark, upto = data.draw(st.sampled_from(self.marks))
        self.send_buffer.acknowledge(mark)
        while self.confirmed < upto:
            self.sent.popleft()
            self.confirmed += 1

    @rule()
    def retransmit(self) -> None:
        self.send_buffer.retransmit()
        self.waiting.extendleft(reversed(self.sent))
        self.sent.clear()
        self.marks.clear()

    @property
    def total(self) -> int:
        return sum(item.count for item in (*self.waiting, *self.sent))

    @invariant()
    def same(self) -> None:
        assert len(self.send_buffer) == self.total
        assert self.send_buffer.bytes == sum(item.size for item in (*self.waiting, *self.sent))
        assert self.send_buffer.dropped == self.dropped
        assert self.send_buffer.next_size == (self.waiting[0].size if self.waiting else 0)


TestModel = Model.TestCase
