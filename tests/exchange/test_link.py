"""A link, with a peer whose answers a test chooses."""

import asyncio
import logging
from typing import Any

import pytest

from berrymq_rpc.bus import Bus, Message
from berrymq_rpc.errors import (
    ConnectionLostError,
    OverloadedError,
    ServiceClosedError,
    TooLargeError,
)
from berrymq_rpc.exchange.carrier import Carrier
from berrymq_rpc.exchange.link import GROUP_BATCHES, MAX_CALLS, Link
from berrymq_rpc.exchange.mesh import Mesh
from berrymq_rpc.rpc.wire.codec import Codec

CODEC = Codec()


class Peer:
    """Takes messages, and confirms them when a test says so."""

    def __init__(self, takes_batches: bool = True) -> None:
        self.carrier = Carrier("token", self.call, self.notify, takes_batches)
        self.calls: list[asyncio.Future[Any]] = []
        #: What came, and whether it asked for a confirmation.
        self.arrived: list[tuple[Any, bool]] = []
        self.error: Exception | None = None
        self.errors_left = 10**9
        self.came = asyncio.Event()

    def call(self, name: str, *arguments: Any) -> Any:
        self.take(name, arguments, True)
        future = asyncio.get_running_loop().create_future()
        self.calls.append(future)
        return future

    def notify(self, name: str, *arguments: Any) -> None:
        self.take(name, arguments, False)

    def take(self, name: str, arguments: Any, asks: bool) -> None:
        if self.error is not None and self.errors_left:
            self.errors_left -= 1
            raise self.error
        if name == "send_messages":
            assert arguments[0] == "token"
            _, envelope, data, *frames = arguments
            messages = CODEC.unpack(data, *frames)
            assert envelope["count"] == len(messages)
            self.arrived += [(message[1][0], asks) for message in messages]
        else:
            self.arrived.append((arguments, asks))
        self.came.set()

    @property
    def numbers(self) -> list[int]:
        return [number for number, _ in self.arrived]

    def acknowledge(self, count: int = 10**9) -> None:
        for call in [call for call in self.calls if not call.done()][:count]:
            call.set_result("ok")

    async def confirms(self) -> None:
        """From now on, at once."""
        while True:
            self.came.clear()
            self.acknowledge()
            await self.came.wait()


class Place:
    def __init__(self, **options: Any) -> None:
        self.bus = Bus()
        self.news: list[Message] = []
        self.bus.regist_function("connection:*", self.news.append)
        self.mesh = Mesh(self.bus.gateway, "here", **options)
        self.link = self.mesh.add_link("there")
        self.peer = Peer()

    def open(self) -> None:
        self.link.open("way", self.peer.carrier)

    def send(self, *numbers: int) -> None:
        """Each in a batch of its own."""
        for number in numbers:
            self.bus.twitter("job:new", number)
            self.mesh.router.collect()


async def turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_sends_in_order_and_forgets_what_is_acknowledged() -> None:
    place = Place()
    place.open()
    place.send(1, 2, 3)
    await turn()
    # One confirmation for all.
    assert place.peer.arrived == [(1, False), (2, False), (3, True)]
    assert len(place.link) == 3
    place.peer.acknowledge()
    await turn()
    assert len(place.link) == 0
    place.mesh.stop()


async def test_a_lone_message_leaves_in_the_next_turn() -> None:
    place = Place()
    place.open()
    await turn()
    place.bus.twitter("job:new", 1)
    await asyncio.sleep(0)
    assert place.peer.numbers == [1]
    place.mesh.stop()


async def test_many_in_one_batch() -> None:
    place = Place()
    place.open()
    for number in range(100):
        place.bus.twitter("job:new", number)
    await turn()
    assert len(place.peer.calls) == 1
    assert place.peer.numbers == [*range(100)]
    place.mesh.stop()


async def test_so_much_is_under_way_and_no_more() -> None:
    place = Place()
    place.open()
    place.send(*range(200))
    await turn()
    assert len(place.peer.calls) == MAX_CALLS
    assert place.peer.numbers == [*range(MAX_CALLS * GROUP_BATCHES)]
    place.peer.acknowledge(1)
    await turn()
    assert len(place.peer.numbers) == (MAX_CALLS + 1) * GROUP_BATCHES
    confirming = asyncio.create_task(place.peer.confirms())
    assert await place.link.drain()
    confirming.cancel()
    assert place.peer.numbers == [*range(200)]
    place.mesh.stop()


async def test_large_ones_go_alone() -> None:
    place = Place()
    place.open()
    for number in range(4):
        place.bus.twitter("job:new", number, b"x" * (3 << 20))
    place.send(4)
    await turn()
    assert place.peer.numbers == [0]
    place.peer.acknowledge()
    await turn()
    assert place.peer.numbers == [0, 1]
    for _ in range(3):
        place.peer.acknowledge()
        await turn()
    assert place.peer.numbers == [0, 1, 2, 3, 4]
    place.peer.acknowledge()
    await turn()
    assert len(place.link) == 0
    place.mesh.stop()


async def test_what_was_not_acknowledged_is_sent_on_the_next_way() -> None:
    place = Place()
    place.open()
    place.send(1, 2)
    await turn()
    place.peer.acknowledge()
    await turn()
    place.send(3, 4)
    await turn()
    assert not place.link.cut("another")
    assert place.link.cut("way")
    assert not place.link.is_up
    place.send(5)
    await turn()
    # Late: it was another way's.
    place.peer.acknowledge()
    await turn()
    assert len(place.link) == 3
    place.peer = Peer()
    place.link.open("new way", place.peer.carrier)
    await turn()
    assert place.peer.numbers == [3, 4, 5]
    place.mesh.stop()


async def test_a_way_that_is_opened_twice_begins_once() -> None:
    place = Place()
    place.open()
    place.send(1)
    await turn()
    place.open()
    await turn()
    assert place.peer.numbers == [1]
    place.mesh.stop()


@pytest.mark.parametrize(
    "error", [ServiceClosedError("closed"), ConnectionLostError("lost"), "status", "cancelled"]
)
@pytest.mark.parametrize("when", ["sending", "answering"])
async def test_a_way_that_is_gone(error: Any, when: str) -> None:
    place = Place()
    reported: list[int] = []
    place.link.on_down = lambda: reported.append(1)
    place.open()
    if when == "sending" and isinstance(error, Exception):
        place.peer.error = error
    place.send(1, 2)
    await turn()
    if when == "answering" or not isinstance(error, Exception):
        (call,) = place.peer.calls
        if isinstance(error, Exception):
            call.set_exception(error)
        elif error == "status":
            call.set_result("invalid token")
        else:
            call.cancel()
        await turn()
    assert reported == [1]
    assert not place.link.is_up
    place.peer = Peer()
    place.open()
    await turn()
    assert place.peer.numbers == [1, 2]
    place.mesh.stop()


@pytest.mark.parametrize("when", ["sending", "answering"])
async def test_a_peer_that_is_overloaded_is_tried_again(when: str) -> None:
    place = Place()
    place.open()
    if when == "sending":
        place.peer.error, place.peer.errors_left = OverloadedError("full"), 3
    place.send(1, 2)
    await turn()
    if when == "answering":
        place.peer.calls[0].set_exception(OverloadedError("full"))
        place.peer.arrived.clear()
        place.peer.came.clear()
    while len(place.peer.numbers) < 2:
        await place.peer.came.wait()
        await asyncio.sleep(0)
    assert place.peer.numbers == [1, 2]
    assert place.link.dropped == 0
    place.mesh.stop()


@pytest.mark.parametrize("at", [0, 1])
async def test_what_the_peer_does_not_take_stops_nothing(
    at: int, caplog: pytest.LogCaptureFixture
) -> None:
    place = Place()
    place.open()
    place.send(1, 2)
    place.peer.error, place.peer.errors_left = TooLargeError("too large"), 2
    if at:
        # The last one, which asks for the confirmation.
        taken = place.peer.take

        def take(name: str, arguments: Any, asks: bool) -> None:
            place.peer.errors_left = int(asks)
            taken(name, arguments, asks)

        place.peer.take = take  # type: ignore[method-assign]
    await turn()
    assert place.link.dropped == 2 - at
    place.peer.error = None
    place.send(3)
    await turn()
    place.peer.acknowledge()
    await turn()
    assert len(place.link) == 0
    assert place.peer.numbers[-1] == 3
    assert "refused by the peer" in caplog.text
    place.mesh.stop()


async def test_what_the_peer_refuses_is_not_sent_again() -> None:
    place = Place()
    place.open()
    place.send(1)
    await turn()
    place.peer.calls[0].set_exception(TypeError("no envelope"))
    await turn()
    assert (len(place.link), place.link.dropped) == (0, 1)
    place.send(2)
    await turn()
    assert place.peer.numbers == [1, 2]
    place.mesh.stop()


class TestDrain:
    async def test_of_nothing(self) -> None:
        place = Place()
        assert await place.link.drain()
        place.mesh.stop()

    async def test_in_time(self) -> None:
        place = Place()
        place.open()
        place.bus.twitter("job:new", 1)
        assert not await place.link.drain(0.01)
        assert place.peer.numbers == [1]
        draining = asyncio.create_task(place.link.drain())
        await turn()
        place.peer.acknowledge()
        assert await draining
        place.mesh.stop()

    async def test_of_a_link_that_is_closed(self) -> None:
        place = Place()
        place.send(1)
        draining = asyncio.create_task(place.link.drain())
        await turn()
        place.link.close()
        # Dropped, and so nothing is left.
        await draining
        assert place.link.dropped == 1
        assert [m.kwargs["count"] for m in place.news] == [1]
        place.mesh.stop()

    async def test_of_all_links(self) -> None:
        place = Place()
        place.open()
        place.send(1)
        await place.mesh.drain(0.01)
        assert place.peer.numbers == [1]
        place.mesh.stop()
        await place.mesh.drain(0.01)


class TestOverflow:
    async def test_is_counted_and_informed_now_and_then(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("berrymq_rpc.exchange.link.REPORT_PAUSE", 0.05)
        reported = asyncio.Event()
        place = Place(max_messages=3)
        place.bus.regist_function("connection:dropped", lambda m: reported.set())
        with caplog.at_level(logging.WARNING, "berrymq_rpc.exchange"):
            place.send(*range(10))
            await turn()
            place.send(*range(10, 20))
            await turn()
            (message,) = place.news
            assert message.id == "connection:dropped"
            assert message.kwargs["endpoint"] == "there"
            assert (message.kwargs["count"], message.origin) == (7, "here")
            assert "more than 3 messages" in message.kwargs["reason"]
            reported.clear()
            await reported.wait()
            assert place.news[1].kwargs["count"] == 10
            assert len(caplog.messages) == 2
        place.open()
        await turn()
        assert place.peer.numbers == [17, 18, 19]
        place.mesh.stop()

    async def test_of_a_link_that_is_closed_meanwhile(self) -> None:
        place = Place(max_messages=3)
        place.send(*range(10))
        await turn()
        place.send(11)
        place.link.close()
        place.link.close()
        assert sum(m.kwargs["count"] for m in place.news) == 11
        place.open()
        place.send(12)
        await turn()
        assert place.peer.numbers == []
        place.mesh.stop()


class TestSingles:
    """A peer that is not a node gets messages one by one."""

    async def test_in_order(self) -> None:
        place = Place()
        place.peer = Peer(takes_batches=False)
        place.open()
        place.bus.twitter("job:new", 1, [2], key=3)
        place.send(2)
        await turn()
        assert place.peer.arrived == [
            (("token", "job:new", (1, (2,)), {"key": 3}), False),
            (("token", "job:new", (2,), {}), False),
        ]
        assert len(place.link) == 0
        place.mesh.stop()

    async def test_many_leave_the_loop_to_others(self) -> None:
        place = Place()
        place.peer = Peer(takes_batches=False)
        place.open()
        for number in range(3000):
            place.bus.twitter("job:new", number)
        await turn()
        assert 0 < len(place.peer.arrived) < 3000
        while len(place.peer.arrived) < 3000:
            await asyncio.sleep(0)
        assert [arguments[2][0] for arguments, _ in place.peer.arrived] == [*range(3000)]
        place.mesh.stop()

    async def test_none_twice_whatever_happens(self) -> None:
        place = Place()
        place.peer = peer = Peer(takes_batches=False)
        place.open()
        peer.error, peer.errors_left = OverloadedError("full"), 2
        for number in range(3):
            place.bus.twitter("job:new", number)
        while len(peer.arrived) < 3:
            await peer.came.wait()
            await asyncio.sleep(0)
        peer.error, peer.errors_left = ConnectionLostError("lost"), 1
        for number in range(3, 6):
            place.bus.twitter("job:new", number)
        await turn()
        assert not place.link.is_up
        place.link.open("again", peer.carrier)
        await turn()
        assert [arguments[2][0] for arguments, _ in peer.arrived] == [*range(6)]
        peer.error, peer.errors_left = TypeError("no"), 1
        place.send(6, 7)
        await turn()
        assert peer.arrived[-1][0][2] == (7,)
        assert place.link.dropped == 1
        place.mesh.stop()


async def test_a_node_that_comes_again_has_what_waited_for_it() -> None:
    bus = Bus()
    mesh = Mesh(bus.gateway)
    first = mesh.add_link("there", node="there")
    first.open("way", Peer().carrier)
    bus.twitter("job:new", 1)
    # Of one that is there, it may be another of the same name.
    other = mesh.add_link("there", node="there")
    assert other.send_buffer is not first.send_buffer
    first.cut("way")
    again = mesh.add_link("there", node="there")
    assert again.send_buffer is first.send_buffer
    peer = Peer()
    again.open("new way", peer.carrier)
    await turn()
    assert peer.numbers == [1]
    # The former one is of no account any more.
    first.close()
    assert first not in mesh.links
    assert len(again) == 1
    mesh.stop()


async def test_its_loop_may_be_closed_before() -> None:
    def leave() -> Bus:
        bus = Bus()

        async def open_line() -> None:
            Mesh(bus.gateway).add_link("there")

        asyncio.run(open_line())
        return bus

    bus = await asyncio.to_thread(leave)
    for number in range(3):
        assert bus.twitter("job:new", number) == 0


def test_repr() -> None:
    async def named() -> Link:
        mesh = Mesh(Bus().gateway)
        link = mesh.add_link("there")
        mesh.stop()
        return link

    assert repr(asyncio.run(named())) == "<Link to there>"
