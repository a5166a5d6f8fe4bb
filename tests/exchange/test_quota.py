"""How many bytes queues may take: of one peer, and all together."""

import itertools
import random
import time

import pytest

from berrymq_rpc.bus import Bus
from berrymq_rpc.exchange.quota import share_of
from berrymq_rpc.exchange.remote_queue import RemoteQueue
from berrymq_rpc.exchange.remote_queues import RemoteQueues
from berrymq_rpc.exchange.stored_message import StoredMessage
from berrymq_rpc.identifier import Identifier

#: Bytes of a message of 700 with its overhead, in round numbers.
MESSAGE = 1010


class Queues:
    """All queues of a bus, and how many messages each has."""

    def __init__(self, total: int, share: float, max_bytes: int | None = None) -> None:
        self.bus = Bus()
        self.all = RemoteQueues(
            self.bus.gateway, "node", 1000, total if max_bytes is None else max_bytes, total, share
        )
        self._owners = itertools.count()

    def open(self, name: str, account: object, shared: bool = False) -> tuple[RemoteQueue, int]:
        owner = next(self._owners)
        return self.all.open(Identifier(f"{name}:*"), shared, owner, account), owner

    def send(self, name: str, count: int = 1) -> None:
        for _ in range(count):
            self.bus.twitter(f"{name}:new", bytes(700))


def test_a_share_is_at_least_one() -> None:
    assert share_of(10_000, 0.1) == 1000
    assert share_of(3, 0.1) == 1


async def test_one_peer_takes_only_its_share(caplog: pytest.LogCaptureFixture) -> None:
    queues = Queues(100 * MESSAGE, 0.1)
    greedy = [queues.open("job", "greedy")[0] for _ in range(30)]
    modest, _ = queues.open("job", "modest")
    queues.send("job", 9)
    assert len(modest) == 9
    assert sum(map(len, greedy)) == 10
    assert queues.all.bytes <= 20 * MESSAGE
    assert queues.all.dropped == 9 * 30 - 10
    assert "the queues of its peer are full with 10,100 bytes" in caplog.text


async def test_the_largest_makes_way() -> None:
    """A queue that nobody reads does not keep the others of its peer from having any message."""
    queues = Queues(10 * MESSAGE, 1.0)
    idle, _ = queues.open("idle", "peer")
    busy, _ = queues.open("busy", "peer")
    queues.send("idle", 10)
    assert len(idle) == 10
    for _ in range(20):
        queues.send("busy")
        assert busy.take() is not None
    assert len(idle) == 9
    # Both have the same in the end.
    queues.send("busy", 20)
    assert (len(idle), len(busy)) == (5, 5)


async def test_all_together() -> None:
    queues = Queues(100 * MESSAGE, 0.5)
    peers = [queues.open(f"q{n}", n)[0] for n in range(4)]
    for number in range(4):
        queues.send(f"q{number}", 50)
    assert queues.all.bytes <= 100 * MESSAGE
    # Those that have most make way, and the latest gets its part.
    assert [len(queue) for queue in peers] == [25, 25, 25, 25]


async def test_one_message_over_the_share(caplog: pytest.LogCaptureFixture) -> None:
    queues = Queues(10 * MESSAGE, 0.1)
    queue, _ = queues.open("job", "peer")
    queues.send("job")
    queues.bus.twitter("job:new", bytes(5000))
    assert (len(queue), queue.dropped) == (1, 1)
    assert "is too large" in caplog.text


async def test_what_consumers_hold_counts_and_does_not_make_way() -> None:
    queues = Queues(10 * MESSAGE, 1.0)
    queue, _ = queues.open("job", "peer")
    other, _ = queues.open("other", "peer")
    queues.send("job", 8)
    held = []
    for _ in range(8):
        stored = queue.take()
        assert stored is not None
        queue.hold(stored)
        held.append(stored)
    queues.send("other", 5)
    assert len(other) == 2
    for stored in held[:4]:
        queue.release(stored)
        queue.put_back(stored, delay=60)
    queues.send("other", 5)
    assert (len(other), len(queue)) == (2, 4)
    for stored in held[4:]:
        queue.release(stored)
    queues.send("other", 5)
    assert len(other) == 6
    queue.close()
    queues.send("other", 5)
    assert len(other) == 10


async def test_a_shared_queue_counts_for_one_of_its_owners() -> None:
    queues = Queues(20 * MESSAGE, 0.5)
    queue, first = queues.open("job", "first", shared=True)
    same, second = queues.open("job", "second", shared=True)
    assert same is queue
    queues.send("job", 10)
    queues.open("more", "second")
    queues.send("more", 10)
    assert len(queue) == 10
    queues.all.leave(queue, first)
    # It counts for the second from now on.
    queues.send("more")
    assert queues.all.bytes <= 10 * MESSAGE
    assert len(queue) < 10
    queues.all.leave(queue, second)
    assert queue.is_closed


async def test_nothing_is_left() -> None:
    queues = Queues(100 * MESSAGE, 0.1)
    opened = [queues.open("job", n % 7, shared=n % 2 == 0) for n in range(50)]
    queues.send("job", 20)
    assert queues.all.bytes > 0
    for queue, owner in opened:
        queues.all.leave(queue, owner)
    assert (queues.all.bytes, queues.all.waiting, queues.all.peers) == (0, 0, 0)
    queues.send("job")
    assert queues.all.bytes == 0


@pytest.mark.parametrize("seed", range(5))
async def test_the_sums_are_right_whatever_happens(seed: int) -> None:
    chance = random.Random(seed)
    queues = Queues(60 * MESSAGE, 0.3)
    opened: list[tuple[RemoteQueue, int]] = []
    held: list[tuple[RemoteQueue, StoredMessage]] = []

    def step() -> None:
        match chance.randrange(8):
            case 0 if len(opened) < 12:
                name = chance.choice("abc")
                opened.append(queues.open(name, chance.randrange(4), chance.random() < 0.5))
            case 1 if opened and chance.random() < 0.3:
                queue, owner = opened.pop(chance.randrange(len(opened)))
                if not any(other is queue for other, _ in opened):
                    for number in range(len(held) - 1, -1, -1):
                        if held[number][0] is queue:
                            queue.release(held.pop(number)[1])
                queues.all.leave(queue, owner)
            case 2 if opened:
                queue, _ = chance.choice(opened)
                if (stored := queue.take()) is not None:
                    queue.hold(stored)
                    held.append((queue, stored))
            case 3 if held:
                queue, stored = held.pop(chance.randrange(len(held)))
                queue.release(stored)
                if chance.random() < 0.6:
                    queue.put_back(stored, chance.choice((0.0, 60.0)))
            case _:
                queues.bus.twitter(f"{chance.choice('abc')}:new", bytes(chance.randrange(1500)))

    for _ in range(2000):
        step()
        assert queues.all.bytes == sum(queue.bytes for queue in queues.all)
        fixed = sum(stored.size for _, stored in held)
        assert queues.all.bytes <= max(60 * MESSAGE, fixed + 60 * MESSAGE)
    for queue, stored in held:
        queue.release(stored)
    for queue, owner in opened:
        queues.all.leave(queue, owner)
    assert (queues.all.bytes, queues.all.peers) == (0, 0)


async def test_a_thousand_queues_at_their_bound_cost_no_search_each() -> None:
    queues = Queues(1000 * MESSAGE, 1.0)
    for number in range(1000):
        queues.open(f"q{number}", "peer")
    large, _ = queues.open("large", "peer")
    queues.send("large", 1000)

    def cost(name: str, count: int) -> float:
        began = time.perf_counter()
        queues.send(name, count)
        return time.perf_counter() - began

    for number in range(500):
        queues.send(f"q{number}")
    # Each makes the large one give way, and finds it at once.
    assert cost("q999", 200) < 0.2
    assert len(large) < 1000
