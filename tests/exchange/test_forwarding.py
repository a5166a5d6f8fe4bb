import asyncio
import logging
import threading
from typing import Any

import pytest

from berrymq_rpc.bus import Bus
from berrymq_rpc.errors import ConnectionLostError, OverloadedError, ServiceClosedError
from berrymq_rpc.exchange.forwarding import BURST, Forwarding


class Line:
    """Where messages are sent, and what goes wrong there."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.error: Exception | None = None
        self.awaited: list[tuple[int, asyncio.Event]] = []

    def send(self, identifier: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.error is not None:
            raise self.error
        self.sent.append((identifier, args, kwargs))
        for count, event in self.awaited:
            if len(self.sent) >= count:
                event.set()

    async def has_sent(self, count: int) -> None:
        event = asyncio.Event()
        self.awaited.append((count, event))
        if len(self.sent) < count:
            await event.wait()

    @property
    def numbers(self) -> list[int]:
        return [args[0] for _, args, _ in self.sent]


@pytest.fixture
def bus() -> Bus:
    return Bus()


@pytest.fixture
def line() -> Line:
    return Line()


async def test_sends_at_once_and_in_order(bus: Bus, line: Line) -> None:
    forwarding = Forwarding(bus, "peer")
    forwarding.open(line, line.send)
    arguments = [1]
    assert bus.twitter("a:b", arguments, key=2) == 0
    assert line.sent == [("a:b", (arguments,), {"key": 2})]
    bus.twitter("a", 2)
    assert line.sent[1][0] == "a:*"
    forwarding.close()


async def test_carries_neither_local_messages_nor_those_of_others(bus: Bus, line: Line) -> None:
    forwarding = Forwarding(bus, "peer")
    forwarding.open(line, line.send)
    bus.twitter("_local:b")
    bus.relay("a:b", (1,), {}, "another node")
    assert line.sent == []
    bus.relay("a:b", (2,), {}, None)
    assert line.numbers == [2]
    forwarding.close()


async def test_keeps_what_is_sent_while_the_line_is_down(bus: Bus, line: Line) -> None:
    forwarding = Forwarding(bus, "peer")
    bus.twitter("a:b", 1)
    forwarding.open(line, line.send)
    forwarding.cut(line)
    bus.twitter("a:b", 2)
    assert (line.numbers, len(forwarding)) == ([1], 1)
    forwarding.open(line, line.send)
    bus.twitter("a:b", 3)
    assert line.numbers == [1, 2, 3]
    forwarding.close()


async def test_the_end_of_an_old_line_does_not_cut_the_new_one(bus: Bus, line: Line) -> None:
    forwarding = Forwarding(bus, "peer")
    forwarding.open("old", Line().send)
    forwarding.open("new", line.send)
    forwarding.cut("old")
    bus.twitter("a:b", 1)
    assert line.numbers == [1]
    forwarding.close()


@pytest.mark.parametrize("error", [ServiceClosedError("closed"), ConnectionLostError("lost")])
async def test_a_line_that_is_gone_loses_nothing(bus: Bus, line: Line, error: Exception) -> None:
    forwarding = Forwarding(bus, "peer")
    forwarding.open(line, line.send)
    line.error = error
    bus.twitter("a:b", 1)
    line.error = None
    bus.twitter("a:b", 2)
    assert line.sent == []
    forwarding.open(line, line.send)
    assert line.numbers == [1, 2]
    forwarding.close()


async def test_a_peer_that_does_not_read_is_tried_again(bus: Bus, line: Line) -> None:
    forwarding = Forwarding(bus, "peer")
    forwarding.open(line, line.send)
    line.error = OverloadedError("full")
    bus.twitter("a:b", 1)
    line.error = None
    # In its turn.
    bus.twitter("a:b", 2)
    assert line.sent == []
    await line.has_sent(2)
    assert line.numbers == [1, 2]
    forwarding.close()


async def test_many_leave_the_loop_to_others(bus: Bus, line: Line) -> None:
    forwarding = Forwarding(bus, "peer")
    for number in range(3 * BURST):
        bus.twitter("a:b", number)
    forwarding.open(line, line.send)
    assert len(line.sent) == BURST
    await line.has_sent(3 * BURST)
    assert line.numbers == [*range(3 * BURST)]
    forwarding.close()


async def test_over_the_bound_the_oldest_goes(
    bus: Bus, line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    forwarding = Forwarding(bus, "peer", maximum=3)
    with caplog.at_level(logging.WARNING, "berrymq_rpc.exchange"):
        for number in range(103):
            bus.twitter("a:b", number)
    assert forwarding.dropped == 100
    assert len(caplog.messages) == 7
    assert caplog.messages[0] == (
        "interconnection with peer: 3 messages wait for the line, 1 dropped so far"
    )
    forwarding.open(line, line.send)
    assert line.numbers == [100, 101, 102]
    forwarding.close()


async def test_what_cannot_travel_is_told_and_stops_nothing(
    bus: Bus, line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Any] = []
    bus.on_error = lambda error, message, receiver: told.append((error, message.id, receiver))
    forwarding = Forwarding(bus, "peer")
    forwarding.open(line, line.send)
    heard: list[Any] = []
    bus.regist_function("a:b", heard.append)
    line.error = TypeError("no way to pack it")
    assert bus.twitter("a:b", object()) == 1
    line.error = None
    bus.twitter("a:b", 2)
    assert len(heard) == 2
    assert told == [(told[0][0], "a:b", forwarding)]
    assert forwarding.refused == 1
    assert line.numbers == [2]
    assert "<Forwarding to peer> cannot carry: <Message a:b" in caplog.text
    forwarding.close()


async def test_from_other_threads(bus: Bus, line: Line) -> None:
    forwarding = Forwarding(bus, "peer")
    forwarding.open(line, line.send)

    def send(thread: int) -> None:
        for number in range(500):
            bus.twitter("a:b", number, thread)

    threads = [threading.Thread(target=send, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    await line.has_sent(2000)
    for thread in threads:
        await asyncio.to_thread(thread.join)
    for n in range(4):
        assert [args[0] for _, args, _ in line.sent if args[1] == n] == [*range(500)]
    forwarding.close()


async def test_closed_carries_nothing(bus: Bus, line: Line) -> None:
    forwarding = Forwarding(bus, "peer")
    forwarding.open(line, line.send)
    line.error = OverloadedError("full")
    bus.twitter("a:b", 1)
    line.error = None
    forwarding.close()
    bus.twitter("a:b", 2)
    forwarding.open(line, line.send)
    # A thread may be in the midst of sending.
    forwarding.forward(bus_message(bus))
    assert len(forwarding) == 0
    assert line.sent == []


def bus_message(bus: Bus) -> Any:
    kept: list[Any] = []
    bus.regist_function("kept:now", kept.append)
    bus.twitter("kept:now")
    return kept[0]


def test_its_loop_may_be_closed_before(bus: Bus) -> None:
    async def leave() -> Forwarding:
        return Forwarding(bus, "peer")

    forwarding = asyncio.run(leave())
    thread = threading.Thread(target=lambda: [bus.twitter("a:b", n) for n in range(2)])
    thread.start()
    thread.join()
    assert len(forwarding) == 1
