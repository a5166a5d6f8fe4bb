"""What a mesh does by itself: in time, from threads, and at its end."""

import asyncio
from typing import Any

import pytest

from berrymq_rpc.bus import Bus, Message
from berrymq_rpc.errors import ProtocolError
from berrymq_rpc.exchange.batch import Batch
from berrymq_rpc.exchange.mesh import Mesh
from berrymq_rpc.exchange.router import MAX_RELAYED
from berrymq_rpc.rpc.wire.codec import Codec


class Place:
    def __init__(self) -> None:
        self.bus = Bus()
        self.heard: asyncio.Queue[Message] = asyncio.Queue()
        self.bus.regist_function("*:*", self.heard.put_nowait)
        self.mesh = Mesh(self.bus.gateway)


def batch(first: int, source: str = "there") -> Batch:
    return Batch((source, 1), first, 1, Codec().pack([("job:new", (first,))]))


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not much of it."""
    from berrymq_rpc.exchange import reorder, router

    def impatient(**_: Any) -> reorder.ReorderBuffer:
        return reorder.ReorderBuffer(patience=0.02, first_patience=0.01)

    monkeypatch.setattr(router, "ReorderBuffer", impatient)


@pytest.mark.usefixtures("patience")
async def test_what_does_not_come_is_missed_in_time() -> None:
    place = Place()
    links = [place.mesh.add_link(str(n)) for n in range(2)]
    place.mesh.receive(links[0], batch(3))
    place.mesh.receive(links[0], batch(5, "another"))
    assert place.heard.empty()
    heard = [await place.heard.get() for _ in range(4)]
    assert [message.action for message in heard] == ["missed", "new", "missed", "new"]
    # The timer is set again for what comes later.
    place.mesh.receive(links[1], batch(5))
    place.mesh.receive(links[0], batch(7))
    assert (await place.heard.get()).kwargs["first"] == 4
    place.mesh.stop()


async def test_what_is_held_when_it_stops() -> None:
    place = Place()
    links = [place.mesh.add_link(str(n)) for n in range(2)]
    place.mesh.receive(links[0], batch(3))
    place.mesh.stop()
    # No link can deliver the others any more.
    assert (await place.heard.get()).action == "missed"
    assert (await place.heard.get()).args == (3,)
    place.mesh.stop()


def many(first: int, count: int) -> Batch:
    messages = [("job:new", (number,)) for number in range(first, first + count)]
    return Batch(("there", 1), first, count, Codec().pack(messages))


@pytest.mark.parametrize("is_stopped", [False, True])
async def test_what_one_message_releases_is_relayed_some_at_a_time(is_stopped: bool) -> None:
    """In order, and in between the event loop serves others."""
    place = Place()
    place.mesh.start()
    links = [place.mesh.add_link(str(n)) for n in range(2)]
    last = 1 + 10 * 500
    for first in range(2, last, 500):
        place.mesh.receive(links[0], many(first, 500))
    assert place.heard.empty()
    place.mesh.receive(links[0], many(1, 1))
    assert MAX_RELAYED <= place.heard.qsize() < last - 500
    # What comes meanwhile comes after that.
    place.mesh.receive(links[1], many(last + 1, 1))
    if is_stopped:
        # Besides what it reports of its links.
        place.mesh.stop()
        assert place.heard.qsize() > last
    turns = 0
    while place.heard.qsize() <= last:
        await asyncio.sleep(0)
        turns += 1
    assert is_stopped or 2 <= turns <= 10
    messages = [place.heard.get_nowait() for _ in range(place.heard.qsize())]
    heard = [message.args[0] for message in messages if message.name == "job"]
    assert heard == list(range(1, last + 2))
    place.mesh.stop()


@pytest.mark.usefixtures("patience")
async def test_a_malformed_batch_that_was_held_stops_nothing() -> None:
    place = Place()
    place.mesh.start()
    links = [place.mesh.add_link(str(n)) for n in range(2)]
    place.mesh.receive(links[0], Batch(("there", 1), 3, 1, b"\xc1"))
    place.mesh.receive(links[0], batch(4))
    heard = [await place.heard.get() for _ in range(2)]
    assert [message.action for message in heard] == ["missed", "new"]
    assert place.mesh.router.malformed == 1
    # Neither the timer nor the end of a link.
    place.mesh.receive(links[0], Batch(("there", 1), 6, 1, b"\xc1"))
    place.mesh.receive(links[1], batch(7))
    links[0].close()
    links[1].close()
    heard = [await place.heard.get() for _ in range(2)]
    assert [message.action for message in heard] == ["missed", "new"]
    place.mesh.stop()


async def test_it_may_start_again() -> None:
    place = Place()
    for _ in range(2):
        place.mesh.start()
        place.mesh.start()
        link = place.mesh.add_link("there")
        place.bus.twitter("job:new")
        await asyncio.sleep(0)
        assert len(link) == 1
        place.mesh.stop()
        assert place.mesh.links == ()
    place.mesh.wake()
    place.bus.twitter("job:new")


async def test_a_batch_that_is_none_stops_nothing() -> None:
    place = Place()
    link = place.mesh.add_link("there")
    with pytest.raises(ProtocolError):
        place.mesh.receive(link, Batch(("there", 1), 1, 1, b"\xc1"))
    place.mesh.receive(link, batch(2))
    assert (await place.heard.get()).args == (2,)
    place.mesh.stop()


async def test_from_a_thread() -> None:
    place = Place()
    link = place.mesh.add_link("there")
    await asyncio.to_thread(lambda: [place.bus.twitter("job:new", n) for n in range(10)])
    while len(link) < 10:
        await asyncio.sleep(0)
    place.mesh.stop()


async def test_what_is_kept_for_a_node_is_for_its_own_user() -> None:
    """Another one with that name gets none of it."""
    place = Place()
    link = place.mesh.add_link("there", node="there", user="alice")
    place.bus.twitter("job:new")
    place.mesh.flush()
    assert len(link) == 1
    for user in ("mallory", None):
        other = place.mesh.add_link("there", node="there", user=user)
        assert len(other) == 0
        assert len(link) == 1
    restarted = place.mesh.add_link("there", node="there", user="alice")
    assert len(restarted) == 1
    assert link not in place.mesh.links
    place.mesh.stop()


def test_its_loop_was_closed_and_it_was_not() -> None:
    place = Bus()

    async def leave() -> Mesh:
        mesh = Mesh(place.gateway)
        mesh.add_link("there")
        return mesh

    mesh = asyncio.run(leave())
    for _ in range(3):
        assert place.twitter("job:new", 1) == 0
    assert mesh.name
