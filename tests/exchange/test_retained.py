"""What is retained on one bus reaches the nodes that come later, and its newest value stays."""

import asyncio
import itertools
import random
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from berrymq_rpc import Bus, Message, Node, Queue, SyncNode, rpc
from berrymq_rpc.bus.message import RetainedMessage
from berrymq_rpc.bus.retained_store import Forgotten, Kept, RetainedStore
from berrymq_rpc.exchange import ExportedFunctions
from berrymq_rpc.exchange.batch import MAX_NUMBER, parse_batch, parse_stamp
from berrymq_rpc.exchange.interconnection import IncomingMessages
from berrymq_rpc.exchange.retained_batch import parse_retained
from berrymq_rpc.identifier import Identifier

Until = Callable[..., Awaitable[None]]

_numbers = itertools.count()

Heard = list[tuple[str, Any, bool]]


def place(transport: str = "mem") -> str:
    return "tcp://127.0.0.1:0" if transport == "tcp" else f"mem://retained-{next(_numbers)}"


def node(name: str, transport: str = "mem", **options: Any) -> Node:
    return Node(place(transport), Bus(), name=name, **options)


def listen(bus: Bus, identifier: str = "state:*") -> Heard:
    heard: Heard = []

    def hear(message: Message) -> None:
        heard.append((message.id, message.args[0] if message.args else None, message.retained))

    bus.regist_function(identifier, hear)
    return heard


def state(bus: Bus, identifier: str = "state:*") -> dict[str, Any]:
    return {message.id: message.args[0] for message in bus.retained(identifier)}


@pytest.mark.parametrize("transport", ["mem", "tcp"])
async def test_who_interconnects_later_gets_it_both_ways(transport: str, until: Until) -> None:
    async with node("one", transport) as one, node("two", transport) as two:
        one.bus.retain("state:*")
        two.bus.retain("*:*")
        one.bus.twitter("state:a", 1)
        one.bus.twitter("state:a", 2)
        one.bus.twitter("state:b", b"x" * 50_000)
        one.bus.twitter("_state:local", 1)
        two.bus.twitter("state:c", 3)
        two.bus.twitter("state:cannot", object())
        heard_by_one, heard_by_two = listen(one.bus), listen(two.bus, "state:a")
        await two.interconnect(one.endpoints[0])
        await until(lambda: len(state(two.bus)) == 4 and len(state(one.bus)) == 3)
        assert heard_by_one == [
            ("state:a", 2, True),
            ("state:b", b"x" * 50_000, True),
            ("state:c", 3, True),
        ]
        assert heard_by_two == [("state:a", 2, True)]
        origins = {message.id: message.origin for message in two.bus.retained("state:*")}
        assert (origins["state:a"], origins["state:c"]) == ("one", None)
        assert listen(two.bus, "state:b") == [("state:b", b"x" * 50_000, True)]
        one.bus.twitter("state:a", 4)
        await until(lambda: heard_by_two[1:] == [("state:a", 4, False)])
        assert one.statistics()["messages_dropped"] == 0


async def test_what_comes_live_is_kept(until: Until) -> None:
    """The bus that it comes to was never asked to; its own values are kept from then on as well."""
    async with node("one") as one, node("two") as two:
        await two.interconnect(one.endpoints[0])
        one.bus.retain("state:*")
        one.bus.twitter("state:a", 1, unit="C")
        one.bus.twitter("other:a", 1)
        await until(lambda: state(two.bus) == {"state:a": 1})
        assert two.bus.retained()[0].kwargs == {"unit": "C"}
        assert listen(two.bus) == [("state:a", 1, True)]
        two.bus.twitter("state:a", 2)
        await until(lambda: state(one.bus) == {"state:a": 2})
        assert state(two.bus) == {"state:a": 2}


async def test_order_with_other_messages(until: Until) -> None:
    """Retained ones and others arrive in the order in which they were sent."""
    async with node("one") as one, node("two") as two:
        await two.interconnect(one.endpoints[0])
        one.bus.retain("state:*")
        heard = listen(two.bus, "*:*")
        for number in range(600):
            one.bus.twitter("event:a", number)
            one.bus.twitter("state:a", number, large=b"x" * (number % 7 * 3000))
        await until(lambda: len(heard) >= 1200)
        assert [(name, value) for name, value, _ in heard if name != "connection:lost"] == [
            (name, number) for number in range(600) for name in ("event:a", "state:a")
        ]


@pytest.mark.parametrize("extra", [[], [(0, 2)], [(0, 2), (1, 3)]])
async def test_ring(extra: list[tuple[int, int]], until: Until) -> None:
    """No value comes twice, and none circles."""
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(node(f"n{number}")) for number in range(4)]
        heard = [listen(each.bus) for each in nodes]
        for number, each in enumerate(nodes):
            each.bus.retain("state:*")
            each.bus.twitter(f"state:n{number}", 0)
            each.bus.twitter("state:all", number)
        for one, two in [(0, 1), (1, 2), (2, 3), (3, 0), *extra]:
            await nodes[one].interconnect(nodes[two].endpoints[0])
        for number, each in enumerate(nodes):
            for value in range(1, 4):
                each.bus.twitter(f"state:n{number}", value)
        expected = {f"state:n{number}": 3 for number in range(4)} | {"state:all": 3}
        await until(lambda: all(state(each.bus) == expected for each in nodes))
        for each in nodes:
            assert each.statistics()["messages_waiting"] < 20
        nodes[2].bus.twitter("state:end", 1)
        await until(lambda: all(items[-1] == ("state:end", 1, False) for items in heard))
        for items in heard:
            for number in range(4):
                values = [value for name, value, _ in items if name == f"state:n{number}"]
                assert values == sorted(set(values)), "older after newer, or twice"
                assert values[-1] == 3
        assert nodes[1].bus.forget("*:*") == 6
        await until(lambda: not any(state(each.bus) for each in nodes))


async def test_two_that_retain_what_a_third_sends(until: Until) -> None:
    """Each gives the message a time of its own; when they meet they know that it is the same."""
    async with node("sensor") as sensor, node("one") as one, node("two") as two:
        for each in (one, two):
            each.bus.retain("state:*")
            await each.interconnect(sensor.endpoints[0])
        heard = [listen(each.bus) for each in (one, two)]
        for number in range(5):
            sensor.bus.twitter("state:a", {"number": number}, 1.5)
            sensor.bus.twitter("state:b", number)
        await until(lambda: state(one.bus) == state(two.bus) and len(heard[0] + heard[1]) == 20)
        one.bus.twitter("state:b", 4)
        one.bus.twitter("state:c", 1)
        await one.interconnect(two.endpoints[0])
        await until(lambda: "state:c" in state(two.bus))

        def stamps(each: Node) -> dict[str, Any]:
            return {str(kept.identifier): kept.stamp for kept in each.bus.gateway.retained()}

        await until(lambda: stamps(one) == stamps(two))
        names = [name for name, _, is_retained in heard[0] + heard[1] if is_retained]
        assert "state:a" not in names


async def test_threads_that_send_one_identifier(until: Until) -> None:
    """The order in which their messages travel is that in which they were retained."""
    async with node("one") as one, node("two") as two:
        one.bus.retain("state:*")
        await two.interconnect(one.endpoints[0])
        heard = listen(two.bus)

        def send(sender: int) -> None:
            for number in range(300):
                one.bus.twitter("state:a", (sender, number))

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            await asyncio.gather(*(asyncio.to_thread(send, sender) for sender in range(4)))
        finally:
            sys.setswitchinterval(interval)
        await until(lambda: len(heard) == 1200)
        assert state(two.bus) == state(one.bus) == {"state:a": heard[-1][1]}
        for sender in range(4):
            numbers = [value[1] for _, value, _ in heard if value[0] == sender]
            assert numbers == list(range(300))
        assert two.bus.statistics()["retained_outdated"] == 0


async def test_what_was_forgotten_does_not_come_back(until: Until) -> None:
    """Neither from a node that was away, which forgets it as well when it is there again."""
    async with node("one") as one, node("two") as two:
        one.bus.retain("state:*")
        two.bus.retain("state:*")
        two.bus.twitter("state:of two", 1)
        one.bus.twitter("state:a", 1)
        connection = await two.interconnect(one.endpoints[0])
        await until(lambda: len(state(two.bus)) == len(state(one.bus)) == 2)
        await connection.close()
        assert one.bus.forget("state:*") == 2
        one.bus.twitter("state:new", 1)
        two.bus.twitter("state:of two", 2)
        two.bus.twitter("state:late", 1)
        heard = listen(one.bus)
        del heard[:]
        await two.interconnect(one.endpoints[0])
        expected = {"state:of two": 2, "state:late": 1, "state:new": 1}
        await until(lambda: state(two.bus) == expected == state(one.bus))
        assert sorted(heard) == [("state:late", 1, True), ("state:of two", 2, True)]


async def test_talk_still_answers(until: Until) -> None:
    async with node("one") as one, node("two") as two:
        one.bus.retain("ask:*")
        two.bus.regist_function("ask:it", lambda message: message.args[0] * 2)
        await two.interconnect(one.endpoints[0])
        answers = Queue("answer:it", bus=one.bus)
        one.bus.talk("ask:it", "answer:it", 21)
        await until(lambda: answers.qsize() == 1)
        assert answers.get_nowait().args == (42,)
        assert [message.args for message in two.bus.retained()] == [(21,)]


async def test_events_of_a_node_are_its_own(until: Until) -> None:
    """What a bus hears of its own connections is no state, and nothing for other nodes."""
    async with node("one") as one, node("two") as two:
        one.bus.retain("*:*")
        two.bus.retain("*:*")
        events = listen(two.bus, "connection:missed")
        one.bus.twitter("state:a", 1)
        await two.interconnect(one.endpoints[0])
        one.bus.twitter("state:a", 2)
        await until(lambda: events and state(two.bus, "*:*") == {"state:a": 2})
        one.bus.twitter("state:b", 3)
        await until(lambda: state(two.bus, "*:*") == {"state:a": 2, "state:b": 3})
        assert state(one.bus, "*:*") == state(two.bus, "*:*")


async def test_who_cannot_be_sent_it_is_told(until: Until) -> None:
    async with node("one") as one, node("two") as two:
        errors: list[BaseException] = []
        one.bus.on_error = lambda error, message, receiver: errors.append(error)
        await two.interconnect(one.endpoints[0])
        one.bus.retain("state:*")
        assert one.bus.twitter("state:a", object()) == 0
        one.bus.twitter("state:b", 1)
        await until(lambda: state(two.bus) == {"state:b": 1})
        assert [type(error) for error in errors] == [TypeError]
        assert one.statistics()["messages_refused"] == 1


async def test_before_there_is_a_link(until: Until) -> None:
    """Messages of before have numbers, as others have: only these are missed."""
    async with node("one") as one, node("two") as two:
        one.bus.retain("state:*")
        missed: list[Any] = []
        two.bus.regist_function("connection:missed", lambda message: missed.append(message.count))
        for number in range(10):
            one.bus.twitter("state:a", number)
        await two.interconnect(one.endpoints[0])
        for number in range(10, 15):
            one.bus.twitter("state:a", number)
        await until(lambda: state(two.bus) == {"state:a": 14})
        assert missed == [10]


@pytest.mark.parametrize("old", ["the server", "the one that connects"])
async def test_a_node_of_an_older_version(
    old: str, until: Until, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It does not know the question, asks none, and gets each message as it is sent."""
    with monkeypatch.context() as before:
        for name in ("ask_retained", "send_retained"):
            kind = ExportedFunctions if old == "the server" else IncomingMessages
            before.delattr(kind, name)
        async with node("one") as one, node("two") as two:
            one.bus.retain("*:*")
            two.bus.retain("*:*")
            one.bus.twitter("state:a", 1)
            two.bus.twitter("state:b", 2)
            await two.interconnect(one.endpoints[0])
            heard_by_one, heard_by_two = listen(one.bus, "event:*"), listen(two.bus, "event:*")
            one.bus.twitter("event:of one", 1)
            two.bus.twitter("event:of two", 2)
            await until(lambda: len(heard_by_one) == len(heard_by_two) == 2)
    assert "retained" not in caplog.text


def test_threads(until: Until) -> None:
    """A node without asyncio: its receivers run on their own thread."""
    sensor = Bus()
    sensor.retain("state:*")
    sensor.twitter("state:a", 1)
    display = Bus()
    with SyncNode(sensor) as one, SyncNode(display) as two:
        queue = Queue("state:*", bus=display)
        two.interconnect(one.init_connection("mem://retained-threads"))
        first = queue.get(timeout=10)
        assert (first.args, first.retained) == ((1,), True)
        sensor.twitter("state:a", 2)
        second = queue.get(timeout=10)
        assert (second.args, second.retained) == ((2,), False)
        assert state(display) == {"state:a": 2}
        display.forget("state:*")
        late = Queue("state:*", bus=display)
        display.twitter("state:b", 1)
        assert late.get(timeout=10).id == "state:b"


class TestGrants:
    """With keys: what a user may not send or get, it does not by what is retained either."""

    PLANT, ALICE = rpc.KeyPair.generate(), rpc.KeyPair.generate()

    def plant(self, **options: Any) -> Node:
        security = rpc.CurveServer(self.PLANT, {self.ALICE.public})
        return Node("tcp://127.0.0.1:*", Bus(), security=security, **options)

    def alice(self) -> Node:
        client = rpc.CurveClient(self.ALICE, server=self.PLANT.public)
        return Node(None, Bus(), security=client)

    async def test_send(self, until: Until) -> None:
        allowed = {self.ALICE.public: ["state:may"]}
        async with self.plant(allow_send=allowed) as plant, self.alice() as alice:
            alice.bus.retain("*:*")
            for identifier in ("state:may", "state:secret", "*:may"):
                alice.bus.twitter(identifier, 1)
            await alice.interconnect(plant.endpoints[0])
            await until(lambda: plant.statistics()["messages_denied"] == 2)
            assert state(plant.bus, "*:*") == {"state:may": 1}
            alice.bus.twitter("state:secret", 2)
            alice.bus.twitter("state:may", 2)
            await until(lambda: state(plant.bus, "*:*") == {"state:may": 2})
            plant.bus.retain("state:*")
            plant.bus.twitter("state:own", 1)
            alice.bus.forget("*:*")
            alice.bus.forget("state:may")
            await until(lambda: state(plant.bus) == {"state:own": 1})

    async def test_receive(self, until: Until) -> None:
        allowed = {self.ALICE.public: ["state:may"]}
        async with self.plant(allow_receive=allowed) as plant, self.alice() as alice:
            plant.bus.retain("*:*")
            for identifier in ("state:may", "state:secret"):
                plant.bus.twitter(identifier, 1)
            await alice.interconnect(plant.endpoints[0])
            await until(lambda: state(alice.bus, "*:*") == {"state:may": 1})
            plant.bus.twitter("state:secret", 2)
            plant.bus.twitter("state:may", 2)
            await until(lambda: state(alice.bus, "*:*") == {"state:may": 2})


async def test_share(until: Until) -> None:
    """A peer cannot have more retained than its share, live or when it connects."""
    bus = Bus(max_retained=20)
    security = rpc.CurveServer(TestGrants.PLANT, {TestGrants.ALICE.public})
    async with (
        Node("tcp://127.0.0.1:*", bus, security=security, peer_share=0.25) as plant,
        TestGrants().alice() as alice,
    ):
        bus.retain("own:*")
        for number in range(10):
            bus.twitter(f"own:n{number}", number)
        alice.bus.retain("flood:*")
        for number in range(100):
            alice.bus.twitter(f"flood:n{number}", number)
        await alice.interconnect(plant.endpoints[0])
        await until(lambda: "flood:n99" in state(bus, "flood:*"))
        assert len(state(bus, "flood:*")) == 5
        for number in range(100, 200):
            alice.bus.twitter(f"flood:n{number}", number)
        await until(lambda: "flood:n199" in state(bus, "flood:*"))
        assert list(state(bus, "flood:*").values()) == [195, 196, 197, 198, 199]
        assert len(state(bus, "own:*")) == 10


class TestWire:
    @pytest.mark.parametrize(
        "envelope",
        [
            None,
            [],
            {"retained": 1},
            {"retained": [1]},
            {"retained": [["a", 1]]},
            {"retained": [["a", 1, 1.5]]},
            {"retained": [["a", -1, 1]]},
            {"retained": [["a", 1, 2**63]]},
            {"retained": [["", 1, 1]]},
            {"retained": [[5, 1, 1]]},
            {"retained": [["a", 1, 1]] * 1001},
            {"forgotten": "abc"},
            {"forgotten": [["a::b", 1, 1]]},
            {"forgotten": [["_a:b", 1, 1]]},
            {"forgotten": [[1, 1, 1]]},
            {"forgotten": [["a:b", True, 1]]},
        ],
    )
    def test_malformed(self, envelope: Any) -> None:
        with pytest.raises((TypeError, ValueError)):
            parse_retained(envelope)

    def test_parsed(self) -> None:
        envelope = {"retained": [["one", 5, 6]], "forgotten": [("a:b", 7, 8)], "later": 1}
        assert parse_retained(envelope) == (
            [("one", (5, 6))],
            [Forgotten(Identifier("a:b"), (7, 8))],
        )

    @pytest.mark.parametrize("stamp", [5, [1], [1, 2, 3], ["1", 2], [1, None], [-1, 0], [0, 2**63]])
    def test_malformed_stamp(self, stamp: Any) -> None:
        with pytest.raises((TypeError, ValueError)):
            parse_stamp(stamp)
        with pytest.raises((TypeError, ValueError)):
            parse_batch({"origin": "a", "epoch": 1, "seq": 1, "retained": stamp})

    def test_alone(self) -> None:
        envelope = {"origin": "a", "epoch": 1, "seq": 1, "retained": [5, 6]}
        batch = parse_batch(envelope)
        assert batch.stamp == (5, 6)
        assert batch.envelope() == envelope | {"count": 1, "retained": (5, 6)}
        with pytest.raises(ValueError, match="must travel alone"):
            parse_batch(envelope | {"count": 2})

    async def test_hostile_entries(self, until: Until) -> None:
        """What is malformed, local, or of a far future, is not kept, and closes nothing."""
        async with node("one") as one, await rpc.open_client(connect=one.endpoints[0]) as client:
            token = await client.rpc.interconnect(None, None, 100, "hostile")
            assert await client.rpc.ask_retained("no token") == "invalid token"
            queue = await client.rpc.connect_via_queue("a:*")
            for method in ("ask_retained", "send_retained"):
                arguments = () if method == "ask_retained" else ({}, b"\x90")
                assert await client.call(method, queue, *arguments) == "invalid token"
            packed = b"\x91\x92\xa3a:b\x90"
            far = {"retained": [["hostile", MAX_NUMBER, 1]]}
            assert await client.rpc.send_retained(token, far, packed) == "ok"
            assert one.bus.retained() == []
            now = {"retained": [["hostile", 1, 1]]}
            for messages in (b"", b"\x90", b"\x91\x92\xa3a:b\x05", b"\xc1", 5, "?"):
                with pytest.raises((rpc.ProtocolError, TypeError, ValueError, rpc.GenericError)):
                    await client.rpc.send_retained(token, now, messages)
            with pytest.raises(ValueError, match="is local"):
                await client.rpc.send_retained(token, now, b"\x91\x92\xa4_a:b\x90")
            assert await client.rpc.send_retained(token, now, packed) == "ok"
            assert [message.id for message in one.bus.retained()] == ["a:b"]
            far = {"forgotten": [["a:b", MAX_NUMBER, 1]]}
            assert await client.rpc.send_retained(token, far, b"\x90") == "ok"
            assert [message.id for message in one.bus.retained()] == ["a:b"]
            one.bus.twitter("a:b", 2)
            assert state(one.bus, "a:b") == {"a:b": 2}


NAMES = st.sampled_from(["a:x", "a:y", "b:x", "a"])
CHANGES = st.lists(
    st.tuples(NAMES, st.integers(0, 50), st.integers(0, 2), st.booleans()),
    max_size=25,
    unique_by=lambda change: change[1:3],
)


@given(changes=CHANGES, seed=st.integers())
@settings(max_examples=200, deadline=None)
def test_all_orders_end_the_same(changes: list[tuple[str, int, int, bool]], seed: int) -> None:
    """Buses that hear of the same changes in any order, and often, retain the same."""

    def applied(order: list[tuple[str, int, int, bool]]) -> dict[str, Any]:
        store = RetainedStore()
        for name, when, bus, is_forgotten in order:
            identifier, stamp = Identifier(name), (when, bus)
            if is_forgotten:
                store.forget(Forgotten(identifier, stamp))
            elif store.is_newer(identifier, stamp):
                message = RetainedMessage(Message(identifier, (stamp,), {}))
                store.put(Kept(identifier, message, stamp, 1))
        everything = Identifier("*@*:*")
        assert store.bytes == len(store)
        return {str(kept.identifier): kept.stamp for kept in store.find(everything)}

    shuffled = [*changes, *changes]
    random.Random(seed).shuffle(shuffled)
    assert applied(shuffled) == applied(sorted(changes, key=lambda change: change[1:3]))
