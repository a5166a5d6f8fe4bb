"""What a switchboard does by itself: in time, from threads, and at its end."""

import asyncio
from typing import Any

import pytest

from berrymq_rpc.bus import Bus, Message
from berrymq_rpc.errors import ProtocolError
from berrymq_rpc.exchange.bundle import Bundle
from berrymq_rpc.exchange.switchboard import Switchboard
from berrymq_rpc.rpc.wire.codec import Codec


class Place:
    def __init__(self) -> None:
        self.bus = Bus()
        self.heard: asyncio.Queue[Message] = asyncio.Queue()
        self.bus.regist_function("*:*", self.heard.put_nowait)
        self.switchboard = Switchboard(self.bus.gateway)


def bundle(first: int, source: str = "there") -> Bundle:
    return Bundle((source, 1), first, 1, Codec().pack([("job:new", (first,))]))


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not much of it."""
    from berrymq_rpc.exchange import router, sequences

    def impatient(**_: Any) -> sequences.Sequences:
        return sequences.Sequences(patience=0.02, first_patience=0.01)

    monkeypatch.setattr(router, "Sequences", impatient)


@pytest.mark.usefixtures("patience")
async def test_what_does_not_come_is_missed_in_time() -> None:
    place = Place()
    lines = [place.switchboard.line(str(n)) for n in range(2)]
    place.switchboard.take(lines[0], bundle(3))
    place.switchboard.take(lines[0], bundle(5, "another"))
    assert place.heard.empty()
    heard = [await place.heard.get() for _ in range(4)]
    assert [message.action for message in heard] == ["missed", "new", "missed", "new"]
    # The timer is set again for what comes later.
    place.switchboard.take(lines[1], bundle(5))
    place.switchboard.take(lines[0], bundle(7))
    assert (await place.heard.get()).kwargs["first"] == 4
    place.switchboard.stop()


async def test_what_is_held_when_it_stops() -> None:
    place = Place()
    lines = [place.switchboard.line(str(n)) for n in range(2)]
    place.switchboard.take(lines[0], bundle(3))
    place.switchboard.stop()
    # Nobody can bring the others any more.
    assert (await place.heard.get()).action == "missed"
    assert (await place.heard.get()).args == (3,)
    place.switchboard.stop()


async def test_it_may_start_again() -> None:
    place = Place()
    for _ in range(2):
        place.switchboard.start()
        place.switchboard.start()
        line = place.switchboard.line("there")
        place.bus.twitter("job:new")
        await asyncio.sleep(0)
        assert len(line) == 1
        place.switchboard.stop()
        assert place.switchboard.lines == ()
    place.switchboard.wake()
    place.bus.twitter("job:new")


async def test_a_bundle_that_is_none_stops_nothing() -> None:
    place = Place()
    line = place.switchboard.line("there")
    with pytest.raises(ProtocolError):
        place.switchboard.take(line, Bundle(("there", 1), 1, 1, b"\xc1"))
    place.switchboard.take(line, bundle(2))
    assert (await place.heard.get()).args == (2,)
    place.switchboard.stop()


async def test_from_a_thread() -> None:
    place = Place()
    line = place.switchboard.line("there")
    await asyncio.to_thread(lambda: [place.bus.twitter("job:new", n) for n in range(10)])
    while len(line) < 10:
        await asyncio.sleep(0)
    place.switchboard.stop()


def test_its_loop_was_closed_and_it_was_not() -> None:
    place = Bus()

    async def leave() -> Switchboard:
        switchboard = Switchboard(place.gateway)
        switchboard.line("there")
        return switchboard

    switchboard = asyncio.run(leave())
    for _ in range(3):
        assert place.twitter("job:new", 1) == 0
    assert switchboard.name
