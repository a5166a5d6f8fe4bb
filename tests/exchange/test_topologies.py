"""Routers in memory: any topology, with links that open, break and end, and nodes that restart."""

from collections import Counter, deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from berrymq_rpc.bus import Bus, Message
from berrymq_rpc.exchange.batch import Batch, parse_batch
from berrymq_rpc.exchange.router import Router
from berrymq_rpc.exchange.send_buffer import SendBuffer


class Place:
    """A node: its bus, its router, and what was heard and missed there."""

    def __init__(self, network: "Network", name: str, epoch: int) -> None:
        self.network = network
        self.epoch = epoch
        self.bus = Bus()
        self.router = Router(self.bus.gateway, name, epoch=epoch)
        self.heard: dict[tuple[str, int], list[int]] = {}
        self.missed: list[dict[str, Any]] = []
        self.sent = 0
        self.bus.regist_function("job:*", self.take)
        self.bus.regist_function("connection:missed", lambda m: self.missed.append(m.kwargs))
        self.bus.gateway.add_forwarder(self.router.forward)

    def take(self, message: Message) -> None:
        if message.origin is not None:
            self.heard.setdefault((message.origin, message.args[0]), []).append(message.args[1])

    def send(self) -> None:
        self.sent += 1
        self.bus.twitter("job:new", self.epoch, self.sent)


class Direction:
    """A link in one direction: what waits, and what is in flight."""

    def __init__(self, source: Place, target: Place) -> None:
        self.source = source
        self.target = target
        self.send_buffer = SendBuffer()
        self.under_way: deque[tuple[Batch, int]] = deque()
        self.back: Direction | None = None

    def transmit(self) -> None:
        self.source.router.collect()
        for batch in self.send_buffer.take(1, 10**9):
            self.under_way.append((batch, self.send_buffer.ack_position))

    def deliver(self, now: float) -> None:
        if self.under_way:
            assert self.back is not None
            batch, mark = self.under_way.popleft()
            arrived = parse_batch(batch.envelope(), batch.data, batch.frames)
            self.target.router.receive(self.back.send_buffer, arrived, now)
            self.send_buffer.acknowledge(mark)

    def break_off(self) -> None:
        self.under_way.clear()
        self.send_buffer.retransmit()


class Network:
    def __init__(self, count: int) -> None:
        self.now = 0.0
        self.places = [Place(self, f"node {n}", 0) for n in range(count)]
        self.links: dict[frozenset[int], tuple[Direction, Direction]] = {}

    def open(self, a: int, b: int) -> None:
        if a == b or frozenset((a, b)) in self.links:
            return
        there = Direction(self.places[a], self.places[b])
        back = Direction(self.places[b], self.places[a])
        there.back, back.back = back, there
        for direction in (there, back):
            direction.source.router.add(direction.send_buffer)
        self.links[frozenset((a, b))] = (there, back)

    def close(self, a: int, b: int) -> None:
        pair = self.links.pop(frozenset((a, b)), None)
        for direction in pair or ():
            direction.source.router.remove(direction.send_buffer, self.now)

    def restart(self, index: int) -> None:
        """Its links are new; the peers keep what they have for it."""
        place = Place(self, f"node {index}", self.places[index].epoch + 1)
        self.places[index] = place
        for there, back in self.links.values():
            if index not in (self.index(there.source), self.index(there.target)):
                continue
            for direction in (there, back):
                direction.break_off()
                if direction.source.router.name == place.router.name:
                    direction.source = place
                    direction.send_buffer = SendBuffer()
                    place.router.add(direction.send_buffer)
                else:
                    direction.target = place

    def index(self, place: Place) -> int:
        return int(place.router.name.split()[1])

    @property
    def directions(self) -> list[Direction]:
        return [direction for pair in self.links.values() for direction in pair]

    def settle(self) -> None:
        """Let all arrive that can."""
        busy = True
        while busy:
            busy = False
            for direction in self.directions:
                direction.transmit()
                busy = busy or bool(direction.under_way)
                while direction.under_way:
                    direction.deliver(self.now)


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Three to six nodes, each of which can reach all the others."""
    count = draw(st.integers(3, 6))
    network = Network(count)
    for index in range(1, count):
        network.open(index, draw(st.integers(0, index - 1)))
    return network


def step(network: Network, data: st.DataObject, kinds: list[str]) -> None:
    kind = data.draw(st.sampled_from(kinds))
    nodes = st.integers(0, len(network.places) - 1)
    if kind == "send":
        network.places[data.draw(nodes)].send()
    elif kind in ("open", "close"):
        getattr(network, kind)(data.draw(nodes), data.draw(nodes))
    elif kind == "restart":
        network.restart(0)
    else:
        directions = network.directions
        direction = directions[data.draw(st.integers(0, len(directions) - 1))]
        if kind == "transmit":
            direction.transmit()
        elif kind == "deliver":
            direction.deliver(network.now)
        else:
            direction.break_off()
            assert direction.back is not None
            direction.back.break_off()


MOVES = ["send"] * 3 + ["transmit"] * 4 + ["deliver"] * 4


@settings(max_examples=150)
@given(network=networks(), data=st.data())
def test_each_message_once_and_in_order(network: Network, data: st.DataObject) -> None:
    """Whatever links are added meanwhile, and however often they break."""
    for _ in range(data.draw(st.integers(10, 80))):
        step(network, data, [*MOVES, "open", "break"])
    network.settle()
    for place in network.places:
        assert place.missed == []
        assert place.router.reorder.held == 0
        for other in network.places:
            if other is not place and other.sent:
                assert place.heard[(other.router.name, 0)] == [*range(1, other.sent + 1)]


@settings(max_examples=150)
@given(data=st.data())
def test_one_that_restarts_costs_the_others_nothing(data: st.DataObject) -> None:
    """Four nodes in a ring with a chord, one of which is restarted at any time."""
    network = Network(4)
    for a, b in ((0, 1), (1, 2), (2, 3), (3, 0), (1, 3)):
        network.open(a, b)
    for _ in range(data.draw(st.integers(10, 80))):
        step(network, data, [*MOVES, "restart", "break"])
    network.settle()
    network.now += 1000.0
    for place in network.places:
        place.router.expire(network.now)
    network.settle()
    restarted, *others = network.places
    for place in others:
        for other in others:
            if other is not place and other.sent:
                assert place.heard[(other.router.name, 0)] == [*range(1, other.sent + 1)]
        assert all(missed["origin"] == restarted.router.name for missed in place.missed)
    for place in network.places:
        for (origin, _), numbers in place.heard.items():
            assert numbers == sorted(set(numbers)), origin
    # What it has not heard was reported to it as missed.
    counts = Counter(dict.fromkeys((other.router.name for other in others), 0))
    for missed in restarted.missed:
        counts[missed["origin"]] += missed["count"]
    for other in others:
        heard = restarted.heard.get((other.router.name, 0), [])
        # But for what it would learn of with the next message only.
        assert counts[other.router.name] + len(heard) in (other.sent, 0) or heard[-1] < other.sent


def test_a_link_that_is_ahead_costs_nothing() -> None:
    """A shortcut opens while much is on its way along the old links."""
    network = Network(3)
    network.open(0, 1)
    network.open(1, 2)
    for _ in range(5):
        network.places[0].send()
        network.places[0].router.collect()
    network.open(0, 2)
    network.places[0].send()
    there, _ = network.links[frozenset((0, 2))]
    there.transmit()
    there.deliver(0.0)
    assert network.places[2].heard == {}
    assert network.places[2].router.reorder.held == 1
    network.settle()
    assert network.places[2].heard == {("node 0", 0): [1, 2, 3, 4, 5, 6]}


def test_who_comes_late_is_reported() -> None:
    network = Network(3)
    network.open(0, 1)
    for _ in range(5):
        network.places[0].send()
    network.settle()
    network.open(1, 2)
    network.places[0].send()
    network.settle()
    late = network.places[2]
    assert late.heard == {("node 0", 0): [6]}
    assert late.missed == [{"origin": "node 0", "first": 1, "last": 5, "count": 5}]


@pytest.mark.parametrize("count", [1, 2, 10])
def test_a_star(count: int) -> None:
    network = Network(count + 1)
    for index in range(count):
        network.open(0, index + 1)
    for place in network.places:
        place.send()
    network.settle()
    for place in network.places:
        assert len(place.heard) == count
