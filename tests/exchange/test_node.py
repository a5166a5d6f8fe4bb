"""Nodes and their connections to each other, over real sockets."""

import asyncio
import errno
import itertools
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

import berrymq_rpc
from berrymq_rpc import Bus, Empty, Message, Node, connect, rpc
from berrymq_rpc.exchange import PulledMessage
from berrymq_rpc.testing import link_faults

_numbers = itertools.count()

TRANSPORTS = ["tcp", "mem"]


def address_for(transport: str) -> str:
    return "tcp://127.0.0.1:0" if transport == "tcp" else f"mem://node-{next(_numbers)}"


class Place:
    """A bus, and all that is said on it for a test to wait for."""

    def __init__(self) -> None:
        self.bus = Bus()
        self.messages: asyncio.Queue[Message] = asyncio.Queue()
        #: Events about the node's own links.
        self.news: asyncio.Queue[Message] = asyncio.Queue()
        self.bus.regist_function("*@*:*", self.take)

    def take(self, message: Message) -> None:
        (self.news if message.name == "connection" else self.messages).put_nowait(message)

    async def next(self) -> Message:
        return await self.messages.get()

    async def numbers(self, count: int) -> list[int]:
        return [(await self.next()).args[0] for _ in range(count)]

    @property
    def silent(self) -> bool:
        return self.messages.empty()


@asynccontextmanager
async def two(
    transport: str = "mem", **options: Any
) -> AsyncIterator[tuple[Place, Node, Place, Node]]:
    """A place with a node that listens, and one with a node that does not."""
    there, here = Place(), Place()
    async with (
        Node(address_for(transport), there.bus) as server,
        Node(None, here.bus, **options) as node,
    ):
        yield there, server, here, node


def endpoint(node: Node) -> str:
    return node.endpoints[0]


def test_it_is_found_in_two_places() -> None:
    assert berrymq_rpc.Node is Node is connect.Node
    assert "Node" in dir(berrymq_rpc)
    with pytest.raises(AttributeError, match="no attribute 'Nod'"):
        _ = berrymq_rpc.Nod  # type: ignore[attr-defined]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_oneway(transport: str) -> None:
    async with two(transport) as (there, server, here, node):
        async with await node.connect_oneway(endpoint(server)) as connection:
            assert await connection.send_message("job:new", 1, identifier="x", self=2) == "ok"
            message = await there.next()
            assert (message.id, message.args) == ("job:new", (1,))
            assert message.kwargs == {"identifier": "x", "self": 2}
            assert server.statistics()["connections"] == 1
        assert connection.closed
        assert server.statistics()["connections"] == 0
        with pytest.raises(rpc.ServiceClosedError):
            await connection.send_message("job:new")
        assert here.silent


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_queue(transport: str) -> None:
    async with two(transport) as (there, server, here, node):
        connection = await node.connect_via_queue("job:*", endpoint(server), 10)
        assert connection.identifier.id_str() == "job:*"
        there.bus.twitter("job:new", 1, two=2)
        there.bus.twitter("other:new")
        message = await connection.get()
        assert isinstance(message, PulledMessage)
        assert (message.id, message.args, message.kwargs) == ("job:new", (1,), {"two": 2})
        assert (message.two, message.origin, message.redelivered) == (2, endpoint(server), False)
        for call in (
            connection.get_nowait(),
            connection.get(block=False),
            connection.get(timeout=0),
            connection.get(timeout=0.01),
        ):
            with pytest.raises(Empty):
                await call
        with pytest.raises(ValueError, match="timeout"):
            await connection.get(timeout=-1)
        waiting = asyncio.create_task(connection.get(timeout=5))
        assert await connection.send_message("job:mine") == "ok"
        assert (await waiting).id == "job:mine"
        await connection.close()
        assert there.bus.twitter("job:new") == 1
        assert here.silent


async def test_a_get_that_is_cancelled_loses_nothing() -> None:
    async with two("tcp") as (there, server, _, node):
        connection = await node.connect_via_queue("job:*", endpoint(server))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connection.get(), 0.02)
        there.bus.twitter("job:new")
        assert (await connection.get()).id == "job:new"


async def test_what_has_no_time_is_not_over_with_the_tokens() -> None:
    async with two() as (there, server, _, node):
        connection = await node.connect_via_queue("job:*", endpoint(server), 10)
        (queue,) = server.handler.queues
        waiting = asyncio.create_task(connection.get())
        while not queue.consumers:
            await asyncio.sleep(0)
        # All that the peer knows is gone, as if it had been restarted.
        server.handler.leases.clear()
        while there.bus.twitter("job:new") < 2:
            await asyncio.sleep(0)
        assert (await waiting).id == "job:new"


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_interconnect(transport: str) -> None:
    async with two(transport) as (there, server, here, node):
        connection = await node.interconnect(endpoint(server))
        for number in range(100):
            here.bus.twitter("job:here", number)
        assert await here.numbers(100) == [*range(100)]
        assert await there.numbers(100) == [*range(100)]
        there.bus.twitter("job:there", 1, two=2)
        message = await here.next()
        assert (message.id, message.args, message.kwargs) == ("job:there", (1,), {"two": 2})
        assert message.origin == server.name
        await there.next()
        # Straight to the peer, past this side's bus.
        assert await connection.send_message("job:direct") == "ok"
        assert (await there.next()).id == "job:direct"
        for place in (here, there):
            place.bus.twitter("_local:new")
            assert (await place.next()).id == "_local:new"
        # What has come is not sent back: had it been, it would be there before these.
        here.bus.twitter("last:here")
        assert (await there.next()).id == "last:here"
        there.bus.twitter("last:there")
        assert [(await here.next()).id for _ in range(2)] == ["last:here", "last:there"]
        assert (await there.next()).id == "last:there"
        assert connection.dropped == 0
        await connection.close()
        here.bus.twitter("after:close")
        there.bus.twitter("after:close")
        await here.next()
        await there.next()
        assert here.silent
        assert there.silent


@pytest.mark.parametrize("ends", [0, 1])
async def test_a_message_comes_to_each_node_once(ends: int) -> None:
    """In a ring, and in a chain, where it is passed on."""
    async with AsyncExitStack() as stack:
        places = [Place() for _ in range(4)]
        nodes = [
            await stack.enter_async_context(Node(address_for("mem"), place.bus)) for place in places
        ]
        for index in range(4 - ends):
            await nodes[index].interconnect(endpoint(nodes[(index + 1) % 4]))
        for place in places:
            place.bus.twitter("job:new", id(place))
        for place in places:
            assert sorted(await place.numbers(4)) == sorted(map(id, places))
        for place in places:
            assert place.silent
            assert place.news.empty()


async def test_messages_from_a_thread_are_carried() -> None:
    async with two("tcp") as (there, server, here, node), await node.interconnect(endpoint(server)):
        await asyncio.to_thread(lambda: [here.bus.twitter("job:new", n) for n in range(100)])
        assert await there.numbers(100) == [*range(100)]


async def test_what_cannot_be_sent_stays_here() -> None:
    async with two("tcp") as (there, server, here, node):
        connection = await node.interconnect(endpoint(server))
        reported: list[str] = []
        here.bus.on_error = lambda error, message, receiver: reported.append(message.id)
        here.bus.twitter("job:object", object())
        here.bus.twitter("job:large", "x" * (2 << 20))
        here.bus.twitter("job:last")
        assert [(await here.next()).id for _ in range(3)] == ["job:object", "job:large", "job:last"]
        assert (await there.next()).id == "job:last"
        assert reported == ["job:object", "job:large"]
        assert node.statistics()["messages_refused"] == 2
        with pytest.raises(TypeError):
            await connection.send_message("job:object", object())


async def test_a_token_of_another_is_refused_by_the_caller() -> None:
    async with two() as (_, server, here, node):
        await node.interconnect(endpoint(server))
        (link,) = server.handler.mesh.links
        carrier = link.carrier
        assert carrier is not None
        assert await carrier.call("send_message", "other", "job:new", (), {}) == "invalid token"
        assert await carrier.call("send_messages", "other", {}, b"") == "invalid token"
        with pytest.raises(ValueError, match="local"):
            await carrier.call("send_message", carrier.token, "_job:new", (), {})
        assert here.silent


class TestInterconnectOnce:
    async def test_with_the_same_node(self) -> None:
        async with two() as (_, server, __, node):
            connection = await node.interconnect(endpoint(server))
            with pytest.raises(ValueError, match="there is an interconnection with mem://"):
                await node.interconnect(endpoint(server))
            await connection.close()
            await node.interconnect(endpoint(server))

    async def test_not_with_itself(self) -> None:
        async with Node(address_for("mem"), Bus()) as node:
            with pytest.raises(ValueError, match="is this node itself"):
                await node.interconnect(endpoint(node))

    async def test_after_one_that_failed(self) -> None:
        async with Node(None, Bus(), connect_timeout=0.02) as node:
            for _ in range(2):
                with pytest.raises(rpc.ConnectionLostError):
                    await node.interconnect("mem://nobody-is-here")
                with pytest.raises(ValueError, match="not an endpoint"):
                    await node.interconnect("nobody-is-here")


async def started_again(where: str, bus: Bus) -> Node:
    """A node where one has just been closed; libzmq frees a port a moment after that."""
    while True:
        try:
            return await Node(where, bus).start()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            await asyncio.sleep(0.01)


class TestRestored:
    """A link is cut, a peer is restarted: the connection works again, and reports it."""

    async def test_after_a_cut(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "berrymq_rpc.exchange")
        async with two() as (there, server, _, node):
            connection = await node.connect_via_queue("job:*", endpoint(server))
            there.bus.twitter("job:before")
            faults = link_faults(endpoint(server))
            faults.down()
            with pytest.raises(rpc.ConnectionLostError):
                await connection.get(timeout=0.2)
            faults.up()
            there.bus.twitter("job:after")
            messages = [await connection.get() for _ in range(2)]
            assert [message.id for message in messages] == ["job:before", "job:after"]
            assert server.statistics()["connections"] == 1
            while "restored" not in caplog.text:
                await asyncio.sleep(0)
        lost, restored = [text for text in caplog.messages if "connection to" in text]
        assert lost == f"connection to {connection.endpoint}: lost: the peer is gone; trying again"
        assert restored == f"connection to {connection.endpoint}: restored"

    @pytest.mark.parametrize("transport", TRANSPORTS)
    async def test_after_a_restart(self, transport: str, caplog: pytest.LogCaptureFixture) -> None:
        there = Place()
        async with Node(None, Bus()) as node:
            async with Node(address_for(transport), there.bus) as server:
                where = endpoint(server)
                oneway = await node.connect_oneway(where)
                queue = await node.connect_via_queue("job:*", where)
                assert await oneway.send_message("job:one") == "ok"
                assert (await queue.get()).id == "job:one"
            async with await started_again(where, there.bus):
                assert await oneway.send_message("other:two") == "ok"
                assert [(await there.next()).id for _ in range(2)] == ["job:one", "other:two"]
                # The old queue is gone with the old node.
                with pytest.raises(Empty):
                    await queue.get(timeout=0.01)
                there.bus.twitter("job:three")
                assert (await queue.get()).id == "job:three"
                assert "forgotten by the peer" in caplog.text

    @pytest.mark.parametrize("transport", TRANSPORTS)
    async def test_an_interconnection_after_a_restart(self, transport: str) -> None:
        there, here = Place(), Place()
        async with Node(None, here.bus) as node:
            async with Node(address_for(transport), there.bus) as server:
                where = endpoint(server)
                connection = await node.interconnect(where)
                here.bus.twitter("job:one", 1)
                assert await there.numbers(1) == [1]
            while "lost" not in repr(connection):
                await asyncio.sleep(0)
            # Kept until the link is there again.
            here.bus.twitter("job:two", 2)
            async with await started_again(where, there.bus):
                assert await there.numbers(1) == [2]
                here.bus.twitter("job:three", 3)
                assert await there.numbers(1) == [3]
                there.bus.twitter("job:four", 4)
                assert await here.numbers(4) == [1, 2, 3, 4]

    async def test_an_interconnection_after_a_cut(self) -> None:
        async with two() as (there, server, here, node):
            connection = await node.interconnect(endpoint(server))
            faults = link_faults(endpoint(server))
            faults.down()
            while "lost" not in repr(connection):
                await asyncio.sleep(0)
            here.bus.twitter("from:here", 1)
            there.bus.twitter("from:there", 2)
            faults.up()
            assert await there.numbers(2) == [2, 1]
            assert await here.numbers(2) == [1, 2]
            assert here.silent
            assert there.silent

    async def test_not_in_time(self) -> None:
        async with Node(None, Bus(), timeout=0.2, connect_timeout=0.1) as node:
            async with Node(address_for("mem"), Bus()) as server:
                oneway = await node.connect_oneway(endpoint(server))
                queue = await node.connect_via_queue("job:*", endpoint(server))
                waiting = asyncio.create_task(queue.get())
                # A `get` without limit fails with its peer, too.
                while not server.statistics()["consumers_waiting"]:
                    await asyncio.sleep(0)
            with pytest.raises((rpc.ConnectionLostError, rpc.ServiceClosedError)):
                await waiting
            with pytest.raises(rpc.ConnectionLostError):
                await oneway.send_message("job:new")

    async def test_a_peer_that_forgets_for_ever(self) -> None:
        async with two(timeout=0.2) as (_, server, __, node):
            connection = await node.connect_oneway(endpoint(server))

            def refuse(*_: Any) -> str:
                raise rpc.OverloadedError("no more")

            server.handler.leases.add = refuse
            server.handler.leases.clear()
            with pytest.raises(rpc.RPCTimeoutError, match="nothing was sent"):
                await connection.send_message("job:new")


class TestClosing:
    async def test_a_node_closes_its_connections(self) -> None:
        async with two("tcp") as (_, server, __, node):
            opened = [
                await node.connect_oneway(endpoint(server)),
                await node.connect_via_queue("a", endpoint(server)),
                await node.interconnect(endpoint(server)),
            ]
            assert set(node.connections) == set(opened)
            await node.close()
            assert node.connections == ()
            assert all(connection.closed for connection in opened)
            assert server.statistics()["connections"] == 0
            await node.close()
            with pytest.raises(rpc.ServiceClosedError, match="the node is not running"):
                await node.connect_oneway(endpoint(server))

    async def test_a_server_frees_what_it_keeps(self) -> None:
        place = Place()
        async with Node(None, Bus()) as node:
            async with Node(address_for("mem"), place.bus) as server:
                await node.connect_via_queue("a", endpoint(server))
                assert place.bus.twitter("a") == 2
            assert place.bus.twitter("a") == 1

    async def test_while_a_connection_opens(self) -> None:
        node = await Node(None, Bus(), connect_timeout=20).start()
        opening = asyncio.create_task(node.connect_oneway("mem://nobody-opens-this"))
        while not node.connections:
            await asyncio.sleep(0)
        await node.close()
        with pytest.raises(rpc.ServiceClosedError):
            await opening

    async def test_wakes_who_waits(self) -> None:
        async with two() as (_, server, __, node):
            queue = await node.connect_via_queue("a", endpoint(server))
            waiting = asyncio.create_task(queue.get())
            await asyncio.sleep(0)
            await queue.close()
            with pytest.raises(rpc.ServiceClosedError):
                await waiting

    async def test_of_a_lost_connection_waits_for_no_one(self) -> None:
        async with Node(None, Bus(), timeout=1000, connect_timeout=1000) as node:
            async with Node(address_for("mem"), Bus()) as server:
                connection = await node.connect_oneway(endpoint(server))
            while "lost" not in repr(connection):
                await asyncio.sleep(0)
            await connection.close()


class Handler(rpc.AttrHandler):
    @rpc.method
    def add(self, a: int, b: int) -> int:
        return a + b


class TestServing:
    async def test_a_handler_beside_its_own_functions(self) -> None:
        async with (
            Node(address_for("tcp"), Bus(), Handler()) as node,
            await rpc.open_client(connect=endpoint(node), timeout=10) as client,
        ):
            assert await client.rpc.add(1, 2) == 3
            token = await client.rpc.connect_oneway(10)
            assert await client.rpc.send_message(token, "a") == "ok"

    async def test_a_clash_is_an_error(self) -> None:
        class Clash(rpc.AttrHandler):
            @rpc.method
            def send_message(self) -> None: ...

        with pytest.raises(ValueError, match="send_message"):
            Node(address_for("mem"), Bus(), Clash())

    async def test_a_handler_needs_an_address(self) -> None:
        with pytest.raises(ValueError, match="give bind="):
            Node(None, Bus(), Handler())

    @pytest.mark.parametrize(
        "bind", [("127.0.0.1", 0), "tcp://127.0.0.1:0", "tcp://127.0.0.1:*", ["tcp://127.0.0.1:0"]]
    )
    async def test_a_free_port(self, bind: Any) -> None:
        node = Node(bind, Bus())
        assert node.endpoints == ()
        async with node:
            (where,) = node.endpoints
            assert int(where.removeprefix("tcp://127.0.0.1:")) > 0
            assert repr(node) == f"<Node {where}>"
        assert repr(node) == "<Node closed>"

    async def test_several_addresses(self) -> None:
        place = Place()
        async with Node([("127.0.0.1", 0), address_for("mem")], place.bus) as server:
            async with Node(None, Bus()) as node:
                for where in server.endpoints:
                    connection = await node.connect_oneway(where)
                    await connection.send_message("job:new", where)
            assert await place.numbers(2) == [*server.endpoints]

    async def test_an_address_in_use(self) -> None:
        async with Node(("127.0.0.1", 0), Bus()) as node:
            with pytest.raises(OSError, match="in use"):
                await Node(endpoint(node), Bus()).start()

    async def test_not_beyond_this_host_by_accident(self) -> None:
        with pytest.raises(ValueError, match="insecure=True"):
            await Node(("0.0.0.0", 0), Bus()).start()
        async with Node(("0.0.0.0", 0), Bus(), insecure=True) as node:
            assert node.endpoints

    async def test_starts_once(self) -> None:
        async with await Node(None, Bus()).start() as node:
            with pytest.raises(RuntimeError, match="is already running"):
                await node.start()
            assert repr(node) == "<Node nowhere>"

    async def test_the_default_bus_is_the_default(self) -> None:
        assert Node().bus is berrymq_rpc.default_bus

    @pytest.mark.parametrize("option", ["timeout", "connect_timeout"])
    @pytest.mark.parametrize("value", [0, -1, float("nan")])
    def test_times_are_above_zero(self, option: str, value: float) -> None:
        with pytest.raises(ValueError, match=option):
            Node(None, Bus(), **{option: value})  # type: ignore[arg-type]


class TestRefused:
    async def test_what_may_not_leave(self) -> None:
        async with two() as (there, server, _, node):
            connection = await node.connect_oneway(endpoint(server))
            with pytest.raises(ValueError, match="local"):
                await connection.send_message("_local:new")
            with pytest.raises(ValueError, match="not an identifier"):
                await connection.send_message("a:b:c")
            with pytest.raises(ValueError, match="local"):
                await node.connect_via_queue("_local:*", endpoint(server))
            assert there.silent

    @pytest.mark.parametrize("ttl", [0, -1, None, "10", float("nan")])
    async def test_what_is_no_ttl(self, ttl: Any) -> None:
        async with two() as (_, server, __, node):
            with pytest.raises(ValueError, match="ttl"):
                await node.connect_oneway(endpoint(server), ttl)
            assert node.connections == ()

    async def test_who_is_no_node(self) -> None:
        async with (
            await rpc.start_server(Handler(), bind=address_for("mem")) as server,
            Node(None, Bus()) as node,
        ):
            with pytest.raises(rpc.NotFoundError):
                await node.connect_oneway(server.endpoints[0])
            assert node.connections == ()

    async def test_a_connection_too_many(self) -> None:
        async with (
            Node(address_for("mem"), Bus(), max_connections=1) as server,
            Node(None, Bus()) as node,
        ):
            connection = await node.connect_oneway(endpoint(server))
            await connection.send_message("job")
            with pytest.raises(rpc.OverloadedError, match="max_connections=1"):
                await node.connect_oneway(endpoint(server))

    async def test_an_answer_that_is_no_message(self) -> None:
        scripted = Scripted()
        async with scripted.queue() as connection:
            for answer in (
                None,
                5,
                "text",
                {},
                {"id": "a:b:c", "args": (), "kwargs": {}},
                {"id": "a", "args": 5, "kwargs": {}},
                {"id": "a", "args": (), "kwargs": {5: 5}},
            ):
                scripted.answers = [answer]
                with pytest.raises(rpc.ProtocolError, match="malformed message"):
                    await connection.get(timeout=1)


class Scripted(rpc.AttrHandler):
    """A peer whose answers a test chooses."""

    def __init__(self) -> None:
        self.registered = 0
        self.answers: list[Any] = []
        self.statuses: asyncio.Queue[Any] = asyncio.Queue()
        self.closed: list[str] = []

    @asynccontextmanager
    async def queue(self, **options: Any) -> AsyncIterator[Any]:
        """A connection to it."""
        async with (
            await rpc.start_server(self, bind=address_for("mem")) as server,
            Node(None, Bus(), **options) as node,
        ):
            yield await node.connect_via_queue("a", server.endpoints[0])

    @rpc.method
    def connect_via_queue(self, identifier: str, ttl: float) -> str:
        self.registered += 1
        return f"token {self.registered}"

    @rpc.method(waits=True)
    async def keep_alive(self, tokens: Any) -> AsyncIterator[Any]:
        yield {tokens[0]: "ok"}
        while True:
            yield await self.statuses.get()

    @rpc.method
    def get(self, *_: Any) -> Any:
        return self.answers.pop(0)

    @rpc.method
    def close_connection(self, token: str) -> str:
        self.closed.append(token)
        raise KeyError(token)


MESSAGE = {"id": "a", "args": (1,), "kwargs": {}}


class TestForgotten:
    """The peer does not know the token any more."""

    @pytest.mark.parametrize("timeout", [None, 5])
    @pytest.mark.parametrize("status", ["invalid token", "timeout"])
    async def test_it_is_asked_again_with_a_new_one(
        self, status: str, timeout: float | None
    ) -> None:
        scripted = Scripted()
        async with scripted.queue() as connection:
            scripted.answers = [status, MESSAGE]
            waiting = asyncio.create_task(connection.get(timeout=timeout))
            if (status, timeout) == ("timeout", 5):
                # Which may be said of the queue as well.
                with pytest.raises(Empty):
                    await waiting
                return
            scripted.statuses.put_nowait({"token 1": status})
            assert (await waiting).args == (1,)
            assert scripted.registered == 2
        assert scripted.closed == ["token 2"]

    async def test_twice(self) -> None:
        scripted = Scripted()
        async with scripted.queue() as connection:
            scripted.answers = ["invalid token", "invalid token"]
            waiting = asyncio.create_task(connection.get(timeout=5))
            scripted.statuses.put_nowait({"token 1": "invalid token"})
            with pytest.raises(Empty):
                await waiting

    async def test_and_closed_meanwhile(self) -> None:
        scripted = Scripted()
        async with scripted.queue() as connection:
            scripted.answers = ["invalid token"]
            waiting = asyncio.create_task(connection.get())
            while scripted.answers:
                await asyncio.sleep(0)
            for _ in range(20):
                await asyncio.sleep(0)
            await connection.close()
            with pytest.raises(rpc.ServiceClosedError):
                await waiting
        assert scripted.closed == []

    async def test_a_peer_that_makes_no_sense_is_asked_again(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        scripted = Scripted()
        async with scripted.queue() as connection:
            scripted.statuses.put_nowait(5)
            while "lost: AttributeError" not in caplog.text:
                await asyncio.sleep(0)
            assert "lost" in repr(connection)
            while "lost" in repr(connection):
                await asyncio.sleep(0)
            assert scripted.registered == 1

    async def test_a_failure_to_close_is_no_error(self) -> None:
        scripted = Scripted()
        async with scripted.queue() as connection:
            await connection.close()
            assert scripted.closed == ["token 1"]

    async def test_closed_as_the_peer_has_answered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        closing: list[asyncio.Task[None]] = []

        def succeed(self: rpc.Call, value: Any) -> None:
            # It closes before its opener knows of the answer.
            (connection,) = node.connections
            closing.append(asyncio.create_task(connection.close()))
            self.set_result(value)

        async with (
            await rpc.start_server(Scripted(), bind=address_for("mem")) as server,
            Node(None, Bus()) as node,
        ):
            monkeypatch.setattr(rpc.Call, "succeed", succeed)
            with pytest.raises(rpc.ServiceClosedError, match=r"the connection to .* is closed"):
                await node.connect_via_queue("a", server.endpoints[0])
            await asyncio.gather(*closing)
            assert len(closing) == 1
