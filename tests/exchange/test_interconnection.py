"""Interconnected nodes: what outlives a break, what is reported, and who answers."""

import asyncio
import itertools
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

import pytest

from berrymq_rpc import Bus, Message, Node, rpc
from berrymq_rpc.exchange.batch import Batch
from berrymq_rpc.rpc.wire.codec import Codec
from berrymq_rpc.testing import link_faults

_numbers = itertools.count()

TRANSPORTS = ["tcp", "mem"]


def address_for(transport: str) -> str:
    return "tcp://127.0.0.1:0" if transport == "tcp" else f"mem://interconnected-{next(_numbers)}"


class Place:
    """A bus, the messages on it, and the events about its node's links."""

    def __init__(self) -> None:
        self.bus = Bus()
        self.messages: asyncio.Queue[Message] = asyncio.Queue()
        self.news: asyncio.Queue[Message] = asyncio.Queue()
        self.bus.regist_function("*@*:*", self.take)

    def take(self, message: Message) -> None:
        (self.news if message.name == "connection" else self.messages).put_nowait(message)

    async def next(self) -> Message:
        return await self.messages.get()

    async def reported(self, action: str) -> dict[str, Any]:
        """The next event about the node's links."""
        message = await self.news.get()
        assert message.action == action
        return message.kwargs

    @property
    def silent(self) -> bool:
        return self.messages.empty()


@asynccontextmanager
async def nodes(
    count: int, transport: str = "mem", **options: Any
) -> AsyncIterator[list[tuple[Place, Node]]]:
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(count):
            place = Place()
            node = Node(address_for(transport), place.bus, **options)
            made.append((place, await stack.enter_async_context(node)))
        yield made


@asynccontextmanager
async def pair(
    transport: str = "mem", **options: Any
) -> AsyncIterator[tuple[Place, Node, Place, Node]]:
    async with nodes(2, transport, **options) as ((one, first), (other, second)):
        yield one, first, other, second


class TestNames:
    async def test_tell_where_a_message_came_from(self) -> None:
        async with nodes(3) as ((one, first), (_, second), (last, third)):
            await second.interconnect(first.endpoints[0])
            await third.interconnect(second.endpoints[0])
            one.bus.twitter("job:new")
            message = await last.next()
            assert message.origin == first.name
            assert uuid.UUID(first.name).version == 4

    async def test_may_be_given(self) -> None:
        assert Node(None, Bus(), name="the one").name == "the one"
        for name in ("", "x" * 101, "a\nb"):
            with pytest.raises(ValueError, match="name"):
                Node(None, Bus(), name=name)


class TestTalk:
    @pytest.mark.parametrize("transport", TRANSPORTS)
    async def test_is_answered_by_all_who_follow(self, transport: str) -> None:
        async with nodes(4, transport) as made:
            (asks, asking), *others = made
            for (_, node), (_, peer) in itertools.pairwise(made):
                await node.interconnect(peer.endpoints[0])

            async def later(message: Message) -> str:
                await asyncio.sleep(0)
                return f"later {message.args[0]}"

            def fail(message: Message) -> None:
                raise ValueError("no", message.args[0])

            receivers = [lambda m: f"at once {m.args[0]}", later, fail]
            for (place, _), receiver in zip(others, receivers, strict=True):
                place.bus.unfollow("*@*:*", place.take)
                place.bus.regist_function("question:*", receiver)
            asks.bus.unfollow("*@*:*", asks.take)
            asks.bus.regist_function("answer:*", asks.take)
            asks.bus.talk("question:one", "answer:one", 5)
            answers = {}
            for _ in others:
                message = await asks.next()
                answers[message.origin] = (message.args, repr(message.error))
            assert answers == {
                others[0][1].name: (("at once 5",), "None"),
                others[1][1].name: (("later 5",), "None"),
                others[2][1].name: ((None,), "ValueError('no', 5)"),
            }
            assert asks.silent
            assert asking.statistics()["messages_refused"] == 0

    async def test_no_one_else_hears_the_answer(self) -> None:
        async with nodes(3) as ((one, first), (other, second), (last, third)):
            for node in (second, third):
                await node.interconnect(first.endpoints[0])
            other.bus.unfollow("*@*:*", other.take)
            other.bus.regist_function("question:one", lambda m: 1)
            one.bus.unfollow("*@*:*", one.take)
            one.bus.regist_function("answer:one", one.take)
            one.bus.talk("question:one", "answer:one")
            while (await one.next()).args != (1,):
                pass
            other.bus.twitter("last:word")
            heard = [(await last.next()).id for _ in range(2)]
            assert heard == ["question:one", "last:word"]


class TestLost:
    @pytest.mark.parametrize("style", ["01", "02", "03"])
    async def test_and_restored_is_reported_here(self, style: str) -> None:
        async with pair() as (_, first, other, second):
            endpoint = first.endpoints[0]
            if style == "01":
                await second.interconnect(endpoint)
            elif style == "02":
                await second.connect_oneway(endpoint)
            else:
                await second.connect_via_queue("a", endpoint)
            link_faults(endpoint).down()
            assert await other.reported("lost") == {
                "endpoint": endpoint,
                "style": style,
                "reason": "the peer is gone",
            }
            link_faults(endpoint).up()
            assert await other.reported("restored") == {"endpoint": endpoint, "style": style}

    async def test_and_there(self) -> None:
        async with pair() as (one, first, other, second):
            await second.interconnect(first.endpoints[0])
            one.bus.twitter("job:new")
            await other.next()
            link_faults(first.endpoints[0]).down()
            assert await one.reported("lost") == {
                "endpoint": second.name,
                "style": "01",
                "reason": "the peer is gone",
            }
            link_faults(first.endpoints[0]).up()
            assert await one.reported("restored") == {"endpoint": second.name, "style": "01"}

    async def test_is_not_informed_to_others(self) -> None:
        async with nodes(3) as ((_, first), (other, second), (last, third)):
            await second.interconnect(first.endpoints[0])
            await third.interconnect(second.endpoints[0])
            link_faults(first.endpoints[0]).cut()
            await other.reported("lost")
            await other.reported("restored")
            other.bus.twitter("last:word")
            assert (await last.next()).id == "last:word"
            assert last.news.empty()

    async def test_a_connection_that_is_closed_is_not_lost(self) -> None:
        async with pair("tcp") as (one, first, other, second):
            connection = await second.interconnect(first.endpoints[0])
            await connection.close()
            assert first.statistics()["connections"] == 0
            assert one.news.empty()
            assert other.news.empty()

    async def test_of_a_peer_whose_ttl_has_ended(self) -> None:
        async with pair() as (one, first, other, second):
            await second.interconnect(first.endpoints[0])
            # As when it was away for longer.
            first.handler.leases.clear()
            assert (await other.reported("lost"))["reason"] == "the peer has forgotten it"
            await other.reported("restored")
            one.bus.twitter("job:new")
            other.bus.twitter("job:new")
            for place in (one, other):
                origins = {(await place.next()).origin for _ in range(2)}
                assert None in origins

    async def test_what_waited_for_a_ttl_that_ended_is_reported(self) -> None:
        async with pair() as (one, first, __, second):
            await second.interconnect(first.endpoints[0])
            (served,) = first.handler.leases.values()
            while not served.watchers:
                await asyncio.sleep(0)
            link_faults(first.endpoints[0]).down()
            await one.reported("lost")
            one.bus.twitter("job:new")
            await asyncio.sleep(0)
            first.handler.leases.clear()
            assert await one.reported("dropped") == {
                "endpoint": second.name,
                "count": 1,
                "reason": "the connection has ended",
            }
            assert first.statistics()["messages_dropped"] == 1
            link_faults(first.endpoints[0]).up()


class TestBreaks:
    async def test_cost_nothing_and_duplicate_nothing(self) -> None:
        async with pair() as (one, first, other, second):
            await second.interconnect(first.endpoints[0])
            faults = link_faults(first.endpoints[0])
            count = 3000
            for number in range(count):
                one.bus.twitter("there:new", number)
                other.bus.twitter("back:new", number)
                if number % 300 == 150:
                    faults.cut()
                if number % 10 == 0:
                    await asyncio.sleep(0)
            for place, name in ((one, "back"), (other, "there")):
                heard: list[int] = []
                while len(heard) < count:
                    message = await place.next()
                    if message.name == name:
                        heard.append(message.args[0])
                assert heard == [*range(count)]
            for _, node in ((one, first), (other, second)):
                assert node.statistics()["messages_missed"] == 0

    async def test_a_node_that_is_started_again_has_what_was_kept_for_it(self) -> None:
        """By its name; it had connected to the other."""
        async with nodes(1) as ((one, first),):
            place = Place()
            async with Node(None, place.bus, name="again") as node:
                await node.interconnect(first.endpoints[0])
                one.bus.twitter("job:new", 1)
                assert (await place.next()).args == (1,)
                link = first.handler.mesh.links[0]
                while len(link):
                    await asyncio.sleep(0)
                # As if it were killed: it does not say that it closes the connection.
                first.handler.close_connection = lambda token: "ok"
                link_faults(first.endpoints[0]).down()
                while link.is_up:
                    await asyncio.sleep(0)
            one.bus.twitter("job:new", 2)
            link_faults(first.endpoints[0]).up()
            place = Place()
            async with Node(None, place.bus, name="again") as node:
                await node.interconnect(first.endpoints[0])
                one.bus.twitter("job:new", 3)
                heard = [(await place.next()).args[0] for _ in range(2)]
                assert heard == [2, 3]

    async def test_what_is_sent_before_closing_arrives(self) -> None:
        async with nodes(1, "tcp") as ((one, first),):
            bus = Bus()
            async with Node(None, bus) as node:
                await node.interconnect(first.endpoints[0])
                for number in range(500):
                    bus.twitter("job:new", number)
            assert [(await one.next()).args[0] for _ in range(500)] == [*range(500)]
        place = Place()
        async with nodes(1, "tcp") as ((one, first),), Node(None, place.bus) as node:
            await node.interconnect(first.endpoints[0])
            for number in range(500):
                one.bus.twitter("job:new", number)
            await first.close()
            assert [(await place.next()).args[0] for _ in range(500)] == [*range(500)]


class TestDrain:
    async def test_who_waits_loses_nothing(self) -> None:
        async with pair("tcp", line_size=1000) as (_, first, other, second):
            count = []
            first.bus.regist_function("job:new", lambda m: count.append(m.args[0]))
            connection = await second.interconnect(first.endpoints[0])
            other.bus.unfollow("*@*:*", other.take)
            for number in range(20_000):
                other.bus.twitter("job:new", number)
                if number % 900 == 899:
                    assert await connection.drain(10)
                    assert connection.waiting == 0
            await connection.drain()
            assert count == [*range(20_000)]
            assert connection.dropped == 0

    async def test_over_the_bound_the_oldest_goes_and_it_is_reported(self) -> None:
        async with pair("tcp", line_size=1000) as (one, first, other, second):
            connection = await second.interconnect(first.endpoints[0])
            memory_of = []
            first.bus.regist_function("job:new", lambda m: memory_of.append(m.args[0]))
            for number in range(10_000):
                other.bus.twitter("job:new", number)
            dropped = (await other.reported("dropped"))["count"]
            assert await connection.drain(10)
            assert connection.dropped >= dropped > 0
            missed = 0
            while len(memory_of) + missed < 10_000:
                missed += (await one.reported("missed"))["count"]
            assert memory_of[-1] == 9_999
            assert missed == connection.dropped


class TestCallback:
    @pytest.mark.parametrize("transport", TRANSPORTS)
    async def test_both_directions(self, transport: str) -> None:
        async with pair(transport) as (one, first, other, second):
            connection = await second.interconnect(first.endpoints[0], callback=second.endpoints[0])
            one.bus.twitter("job:one", 1)
            other.bus.twitter("job:other", 2)
            assert {(await one.next()).id, (await one.next()).id} == {"job:one", "job:other"}
            assert {(await other.next()).id, (await other.next()).id} == {"job:one", "job:other"}
            await connection.close()
            while first.statistics()["connections"] or second.statistics()["connections"]:
                await asyncio.sleep(0)
            other.bus.twitter("job:late")
            await other.next()
            assert one.silent

    async def test_has_the_limits_of_the_node_that_calls_back(self) -> None:
        limits = rpc.Limits(max_frame=10_000)
        place, other = Place(), Place()
        async with (
            Node("tcp://127.0.0.1:0", place.bus, limits=limits) as first,
            Node("tcp://127.0.0.1:0", other.bus) as second,
        ):
            await second.interconnect(first.endpoints[0], callback=second.endpoints[0])
            place.bus.twitter("job:large", bytes(20_000))
            place.bus.twitter("job:small", bytes(9_000))
            assert (await other.next()).id == "job:small"
            assert first.statistics()["messages_dropped"] == 1

    async def test_outlives_a_cut(self) -> None:
        async with pair() as (one, first, other, second):
            await second.interconnect(first.endpoints[0], callback=second.endpoints[0])
            one.bus.twitter("job:new", 1)
            assert (await other.next()).args == (1,)
            faults = link_faults(second.endpoints[0])
            faults.down()
            one.bus.twitter("job:new", 2)
            await asyncio.sleep(0.05)
            faults.up()
            assert (await other.next()).args == (2,)
            one.bus.twitter("job:new", 3)
            assert (await other.next()).args == (3,)

    async def test_after_the_peer_has_forgotten_it(self) -> None:
        async with pair() as (one, first, other, second):
            await second.interconnect(first.endpoints[0], callback=second.endpoints[0])
            first.handler.leases.clear()
            await other.reported("lost")
            await other.reported("restored")
            one.bus.twitter("job:new", 1)
            assert (await other.next()).args == (1,)
            assert second.statistics()["connections"] == 1

    async def test_needs_a_place_to_call(self) -> None:
        async with nodes(1) as ((_, first),), Node(None, Bus()) as node:
            with pytest.raises(ValueError, match="does not listen"):
                await node.interconnect(first.endpoints[0], callback="mem://x")

    async def test_not_elsewhere(self) -> None:
        async with pair("tcp") as (_, first, __, second):
            with pytest.raises(ValueError, match="callback_allowed"):
                await second.interconnect(first.endpoints[0], callback=("192.0.2.1", 5))
            assert second.connections == ()
            assert second.statistics()["connections"] == 0

    async def test_of_one_that_is_no_node(self) -> None:
        """Messages go to it one by one, by a connection of this side's."""
        caller = Caller()
        async with (
            nodes(1) as ((one, first),),
            await rpc.start_server(caller, bind=address_for("mem")) as server,
            await rpc.open_client(connect=first.endpoints[0], timeout=5) as client,
        ):
            token = await client.rpc.interconnect(server.endpoints[0], None, 10)
            one.bus.twitter("job:new", 1)
            assert await caller.messages.get() == (token, "job:new", (1,), {})
            link_faults(server.endpoints[0]).cut()
            while not caller.messages.empty():
                caller.messages.get_nowait()
            await client.rpc.close_connection(token)


class Caller(rpc.AttrHandler):
    """One that knows berryMQ's seven functions, as far as is needed here."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[Any] = asyncio.Queue()

    @rpc.method
    def interconnect(self, addr: Any, token: Any, ttl: float) -> str:
        return "its own"

    @rpc.method(waits=True)
    async def keep_alive(self, tokens: Any) -> AsyncIterator[Any]:
        yield dict.fromkeys(tokens, "ok")
        await asyncio.Event().wait()

    @rpc.method
    def send_message(self, *args: Any) -> str:
        self.messages.put_nowait(args)
        return "ok"

    @rpc.method
    def close_connection(self, token: str) -> str:
        return "ok"


class TestLeaves:
    """Peers that know nothing of envelopes."""

    async def test_that_serve(self) -> None:
        caller = Caller()
        async with (
            await rpc.start_server(caller, bind=address_for("mem")) as server,
            nodes(2) as ((one, first), (other, second)),
        ):
            await first.interconnect(server.endpoints[0])
            await second.interconnect(first.endpoints[0])
            one.bus.twitter("job:one", 1)
            other.bus.twitter("job:other", 2)
            heard = {(await caller.messages.get())[:2] for _ in range(2)}
            assert heard == {("its own", "job:one"), ("its own", "job:other")}

    async def test_are_heard_by_all_and_do_not_hear_themselves(self) -> None:
        leaf = Caller()
        async with nodes(2) as ((one, first), (other, second)):
            await second.interconnect(first.endpoints[0])
            async with await rpc.open_client(
                connect=first.endpoints[0], handler=leaf, timeout=5
            ) as client:
                token = await client.rpc.interconnect(None, None, 10)
                assert await client.rpc.send_message(token, "job:leaf", (1,), {}) == "ok"
                for place in (one, other):
                    message = await place.next()
                    assert (message.id, message.args, message.origin) == (
                        "job:leaf",
                        (1,),
                        first.name,
                    )
                other.bus.twitter("job:other", 2)
                assert (await leaf.messages.get())[1] == "job:other"
                assert leaf.messages.empty()
                # It knows no batches, so it has none to send.
                assert await client.rpc.send_messages(token, {}, b"") == "invalid token"

    async def test_style_02_is_heard_by_all(self) -> None:
        async with nodes(2) as ((one, first), (other, second)):
            await second.interconnect(first.endpoints[0])
            async with await rpc.open_client(connect=first.endpoints[0], timeout=5) as client:
                token = await client.rpc.connect_oneway(10)
                # An envelope is ignored there: such a caller cannot speak for another node.
                envelope = {"origin": second.name, "epoch": 0, "seq": 9}
                for more in ((), (envelope,)):
                    await client.rpc.send_message(token, "job:new", (1,), {}, *more)
                    assert (await one.next()).origin is None
                    assert (await other.next()).origin == first.name
                assert await client.rpc.send_messages(token, envelope, b"") == "invalid token"


class TestEnvelopes:
    """A peer that sends them itself."""

    @asynccontextmanager
    async def node(self) -> AsyncIterator[tuple[Place, rpc.Client, str]]:
        async with (
            nodes(1) as ((one, first),),
            await rpc.open_client(connect=first.endpoints[0], timeout=5) as client,
        ):
            yield one, client, await client.rpc.interconnect(None, None, 10, "peer")

    async def test_one_by_one(self) -> None:
        async with self.node() as (one, client, token):
            for number in (1, 2, 2, 1, 3):
                envelope = {"origin": "far", "epoch": 1, "seq": number}
                answer = await client.rpc.send_message(token, "job:new", (number,), {}, envelope)
                assert answer == "ok"
            assert [(await one.next()).args for _ in range(3)] == [(1,), (2,), (3,)]
            assert one.silent

    async def test_in_a_batch(self) -> None:
        async with self.node() as (one, client, token):
            data = Codec().pack([("a", (1,)), ("b", (2,), {"c": 3})])
            envelope = Batch(("far", 1), 1, 2, data).envelope()
            assert await client.rpc.send_messages(token, envelope, data) == "ok"
            assert [(await one.next()).id for _ in range(2)] == ["a:*", "b:*"]

    @pytest.mark.parametrize(
        "envelope",
        [
            5,
            {},
            {"origin": 5, "epoch": 1, "seq": 1},
            {"origin": "far", "epoch": -1, "seq": 1},
            {"origin": "far", "epoch": 1, "seq": -1},
            {"origin": "far", "epoch": 1, "seq": 1, "count": 10**6},
            {"origin": "x" * 1000, "epoch": 1, "seq": 1},
        ],
    )
    async def test_that_are_none(self, envelope: Any) -> None:
        async with self.node() as (one, client, token):
            for call in (
                client.rpc.send_message(token, "a", (), {}, envelope),
                client.rpc.send_messages(token, envelope, b"\x90"),
            ):
                with pytest.raises((TypeError, ValueError)):
                    await call
            assert one.silent

    async def test_messages_that_are_none(self) -> None:
        async with self.node() as (one, client, token):
            envelope = {"origin": "far", "epoch": 1, "seq": 1}
            for data in (b"", b"\xc1", b"\x91\xc0", b"\xdd\xff\xff\xff\xff"):
                with pytest.raises(rpc.ProtocolError):
                    await client.rpc.send_messages(token, envelope, data)
                envelope["seq"] += 1
            for text, error in (("no base64", ValueError), (5, TypeError)):
                with pytest.raises(error):
                    await client.rpc.send_messages(token, envelope, text)
            assert one.silent

    @pytest.mark.parametrize("node", ["", 5, "x" * 1000])
    async def test_names_that_are_none(self, node: Any) -> None:
        async with (
            nodes(1) as ((_, first),),
            await rpc.open_client(connect=first.endpoints[0], timeout=5) as client,
        ):
            with pytest.raises((TypeError, ValueError)):
                await client.rpc.interconnect(None, None, 10, node)
            assert first.statistics()["connections"] == 0


async def test_two_links_between_two_nodes_duplicate_nothing() -> None:
    async with pair() as (one, first, other, second):
        await second.interconnect(first.endpoints[0])
        await first.interconnect(second.endpoints[0])
        for number in range(10):
            one.bus.twitter("job:new", number)
        assert [(await other.next()).args[0] for _ in range(10)] == [*range(10)]
        for place in (one, other):
            await asyncio.sleep(0)
            assert place.news.empty()


async def test_a_held_token_keeps_its_link(caplog: pytest.LogCaptureFixture) -> None:
    """keep_alive of somebody else does not get the messages of a peer that is called back."""
    caplog.set_level(logging.DEBUG, "berrymq_rpc.exchange")
    async with pair() as (one, first, other, second):
        await second.interconnect(first.endpoints[0], callback=second.endpoints[0])
        async with await rpc.open_client(connect=first.endpoints[0], timeout=5) as client:
            (lease,) = first.handler.leases
            stream = aiter(client.rpc.keep_alive([lease.token]))
            async with aclosing(stream):
                assert await anext(stream) == {lease.token: "ok"}
                one.bus.twitter("job:new", 1)
                assert (await other.next()).args == (1,)


async def test_a_talk_that_nobody_hears() -> None:
    """There is no answer, as there is none within a process: neither an error nor an event."""
    asks, other = Bus(), Bus()
    answers: asyncio.Queue[Message] = asyncio.Queue()
    asks.regist_function("answer:*", answers.put_nowait)
    other.regist_function("question:two", lambda message: 2)
    async with Node("tcp://127.0.0.1:0", other) as there, Node(None, asks) as here:
        await here.interconnect(there.endpoints[0])
        assert asks.talk("question:one", "answer:one") == 0
        assert asks.talk("question:two", "answer:two") == 0
        assert (await answers.get()).id == "answer:two"
        assert answers.empty()
