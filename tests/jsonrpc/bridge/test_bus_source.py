"""What is kept for subscriptions whose peers do not read, in number and in bytes."""

import asyncio
import gc
import threading
import weakref

from berrymq_rpc.bus import Bus, Message
from berrymq_rpc.exchange.quota import AllBytes, PeerBytes
from berrymq_rpc.identifier import Identifier
from berrymq_rpc.jsonrpc.bridge.bus_source import BusSource, MessageSizes

#: About what a message of 10,000 characters takes.
MESSAGE = 10_300


class Sources:
    def __init__(self, limit: int, total: int | None = None) -> None:
        self.bus = Bus()
        self.all = AllBytes(limit if total is None else total)
        self.limit = limit
        self.sizes = MessageSizes()

    def peer(self) -> PeerBytes:
        return PeerBytes(self.limit, self.all)

    def open(self, name: str, peer: PeerBytes, size: int = 1000) -> BusSource:
        return BusSource(Identifier(f"{name}:*"), self.bus, size, peer, self.sizes)

    def send(self, name: str, count: int) -> None:
        for number in range(count):
            self.bus.twitter(f"{name}:new", number, "x" * 10_000)


async def numbers(source: BusSource) -> list[int]:
    found = []
    while source.movable:
        sent = await source.next()
        assert sent is not None
        found.append(sent.args[0])
    return found


async def test_first_in_first_out() -> None:
    sources = Sources(100 * MESSAGE)
    source = sources.open("a", sources.peer())
    waiting = asyncio.create_task(source.next())
    await asyncio.sleep(0)
    sources.send("a", 3)
    sent = await waiting
    assert sent is not None
    assert (sent.id, sent.args[0]) == ("a:new", 0)
    assert await numbers(source) == [1, 2]
    assert (sources.all.bytes, source.dropped) == (0, 0)
    source.close()


async def test_from_another_thread() -> None:
    sources = Sources(1000 * MESSAGE)
    source = sources.open("a", sources.peer())
    waiting = asyncio.create_task(source.next())
    await asyncio.sleep(0)
    thread = threading.Thread(target=sources.send, args=("a", 20))
    thread.start()
    assert (await waiting) is not None
    await asyncio.to_thread(thread.join)
    assert await numbers(source) == [*range(1, 20)]
    source.close()


async def test_in_number() -> None:
    sources = Sources(100 * MESSAGE)
    source = sources.open("a", sources.peer(), size=3)
    sources.send("a", 10)
    assert source.dropped == 7
    assert await numbers(source) == [7, 8, 9]
    source.close()


async def test_in_bytes_of_one_peer() -> None:
    """However many subscriptions it has: the largest makes way."""
    sources = Sources(10 * MESSAGE, 1000 * MESSAGE)
    greedy, modest = sources.peer(), sources.peer()
    many = [sources.open("a", greedy) for _ in range(20)]
    small = sources.open("b", greedy)
    other = sources.open("a", modest)
    sources.send("b", 1)
    sources.send("a", 9)
    assert greedy.bytes <= 10 * MESSAGE
    assert await numbers(other) == [*range(9)]
    assert await numbers(small) == [0]
    assert sum(source.dropped for source in many) >= 20 * 9 - 10
    for source in [*many, small, other]:
        source.close()
    assert (sources.all.bytes, greedy.bytes) == (0, 0)


async def test_in_bytes_of_all() -> None:
    sources = Sources(50 * MESSAGE, 60 * MESSAGE)
    peers = [sources.open(f"n{number}", sources.peer()) for number in range(3)]
    for number in range(3):
        sources.send(f"n{number}", 40)
    assert sources.all.bytes <= 60 * MESSAGE
    kept = [len(await numbers(source)) for source in peers]
    assert max(kept) - min(kept) <= 2
    for source in peers:
        source.close()


async def test_one_that_never_fits() -> None:
    sources = Sources(10 * MESSAGE)
    source = sources.open("a", sources.peer())
    sources.send("a", 2)
    sources.bus.twitter("a:new", "x" * 200_000)
    assert source.dropped == 1
    assert await numbers(source) == [0, 1]
    source.close()


async def test_local_messages_stay() -> None:
    sources = Sources(10 * MESSAGE)
    source = sources.open("*@*", sources.peer())
    sources.bus.twitter("_local:new", 1)
    assert source.movable == 0
    source.close()


async def test_the_end() -> None:
    sources = Sources(10 * MESSAGE)
    source = sources.open("a", sources.peer())
    waiting = asyncio.create_task(source.next())
    await asyncio.sleep(0)
    source.close()
    assert await waiting is None
    assert await source.next() is None
    sources.send("a", 2)
    assert sources.all.bytes == 0


def test_a_size_is_of_one_message_and_keeps_none() -> None:
    sizes = MessageSizes()
    identifier = Identifier("a:b")
    messages = [Message(identifier, ("x" * size,), {}) for size in (1000, 2000)]
    first, second = (sizes.of(message) for message in messages)
    assert second - first == 1000
    assert sizes.of(messages[1]) == second
    dead = weakref.ref(messages.pop())
    gc.collect()
    assert dead() is None
