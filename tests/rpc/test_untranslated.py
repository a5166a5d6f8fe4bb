"""An entry of ``translation_table`` on one side only: the error names the code and what to add."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

import pytest

from berrymq_rpc import Bus, Message, Node, rpc
from berrymq_rpc.exchange import SyncNode


@dataclass(frozen=True)
class Point:
    x: int
    y: int


TABLE = {5: (Point, lambda p: b"%d %d" % (p.x, p.y), lambda data: Point(*map(int, data.split())))}
SAYS = r"ext type 5 has no entry in the translation_table .*\{5: \(Class, packer, unpacker\)\}"


class Handler(rpc.AttrHandler):
    def __init__(self) -> None:
        self.noted: list[Any] = []

    @rpc.method
    def echo(self, value: Any) -> Any:
        return value

    @rpc.method
    def make(self, x: int = 1) -> Any:
        return {"points": [Point(x, 2)]}

    @rpc.method
    async def stream(self) -> Any:
        yield Point(1, 2)

    @rpc.method
    def fail(self) -> None:
        raise ValueError(Point(1, 2))

    @rpc.method
    def note(self, value: Any) -> None:
        self.noted.append(value)


@pytest.mark.parametrize("dialect", ["native", "aiozmq"])
async def test_only_the_client_has_it(pair: Any, dialect: str) -> None:
    async with pair(Handler(), dialect=dialect, translation_table=TABLE) as (_, client):
        for value in (Point(1, 2), [{"a": Point(1, 2)}]):
            with pytest.raises(rpc.Error, match=SAYS):
                await client.rpc.echo(value)
        with pytest.raises(TypeError, match=r"Point cannot be packed: .*translation_table"):
            await client.rpc.make()
        assert await client.rpc.echo(1) == 1


@pytest.mark.parametrize("dialect", ["native", "aiozmq"])
async def test_only_the_server_has_it(pair: Any, dialect: str) -> None:
    server = {"translation_table": TABLE}
    async with pair(Handler(), server=server, dialect=dialect) as (_, client):
        with pytest.raises(rpc.Error, match=SAYS):
            await client.rpc.make()
        with pytest.raises(TypeError, match=r"Point cannot be packed: .*translation_table"):
            await client.rpc.echo(Point(1, 2))
        with pytest.raises(Exception, match=SAYS):
            await client.rpc.fail()
        assert await client.rpc.echo(1) == 1


async def test_a_stream(pair: Any) -> None:
    async with pair(Handler(), server={"translation_table": TABLE}) as (_, client):
        with pytest.raises(rpc.Error, match=SAYS):
            async for _ in client.rpc.stream():
                pytest.fail("it arrived")


async def test_a_notification_is_counted_and_logged(
    pair: Any, until: Any, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Handler()
    async with pair(handler, translation_table=TABLE) as (server, client):
        with caplog.at_level(logging.WARNING):
            client.notify.note(Point(1, 2))
            client.notify.note(1)
            await until(lambda: handler.noted == [1])
        assert server.statistics()["malformed"] == 1
        assert server.statistics()["notifications_dropped"] == 1
        assert "ext type 5 has no entry" in caplog.text


async def test_both_have_it(pair: Any) -> None:
    server = {"translation_table": TABLE}
    async with pair(Handler(), server=server, translation_table=TABLE) as (_, client):
        assert await client.rpc.echo(Point(1, 2)) == Point(1, 2)
        assert (await client.rpc.make())["points"] == (Point(1, 2),)


class Place:
    def __init__(self) -> None:
        self.bus = Bus()
        self.heard: asyncio.Queue[Any] = asyncio.Queue()
        self.errors: asyncio.Queue[Any] = asyncio.Queue()
        self.bus.on_error = lambda error, message, receiver: self.errors.put_nowait(error)
        self.bus.regist_function("point", self.hear)

    def hear(self, message: Message) -> None:
        self.heard.put_nowait(message.args[0].x)


async def test_nodes_with_it() -> None:
    """Each way between nodes; the advice of the error can be followed."""
    here, there = Place(), Place()
    async with (
        asyncio.timeout(20),
        Node("tcp://127.0.0.1:0", here.bus, translation_table=TABLE) as node,
        Node("tcp://127.0.0.1:0", there.bus, translation_table=TABLE) as other,
    ):
        oneway = await node.connect_oneway(other.endpoints[0])
        await oneway.send_message("point", Point(1, 2))
        assert await there.heard.get() == 1
        queue = await node.connect_via_queue("queued", other.endpoints[0])
        there.bus.twitter("queued", Point(2, 3))
        assert (await queue.get(timeout=10)).args == (Point(2, 3),)
        await node.interconnect(other.endpoints[0])
        here.bus.twitter("point", Point(3, 4))
        assert (await here.heard.get(), await there.heard.get()) == (3, 3)
        there.bus.regist_function("ask", lambda message: Point(4, 5))
        here.bus.regist_function("answer", lambda message: here.heard.put_nowait(message.args[0]))
        here.bus.talk("ask", "answer")
        assert await here.heard.get() == Point(4, 5)


async def test_a_node_without_it_passes_it_on() -> None:
    first, middle, last = Place(), Place(), Place()
    async with (
        asyncio.timeout(20),
        Node("tcp://127.0.0.1:0", middle.bus) as node,
        Node("tcp://127.0.0.1:0", first.bus, translation_table=TABLE) as sender,
        Node("tcp://127.0.0.1:0", last.bus, translation_table=TABLE) as receiver,
    ):
        await sender.interconnect(node.endpoints[0])
        await receiver.interconnect(node.endpoints[0])
        queue = await receiver.connect_via_queue("point", node.endpoints[0])
        first.bus.twitter("point", Point(1, 2))
        assert await last.heard.get() == 1
        error = await middle.errors.get()
        assert isinstance(error, AttributeError)
        with pytest.raises(AttributeError, match=SAYS):
            raise error
        assert (await queue.get(timeout=10)).args == (Point(1, 2),)


async def test_a_node_without_it_names_it_where_it_sends() -> None:
    here, there = Place(), Place()
    async with (
        asyncio.timeout(20),
        Node("tcp://127.0.0.1:0", here.bus) as node,
        Node("tcp://127.0.0.1:0", there.bus) as other,
    ):
        await node.interconnect(other.endpoints[0])
        here.bus.twitter("point", Point(1, 2))
        with pytest.raises(TypeError, match=r"Point cannot be packed: .*translation_table"):
            raise await here.errors.get()


@pytest.mark.parametrize("table", [{123: TABLE[5]}, {5: (Point, 1, 2)}, {5: (int, repr, int)}])
def test_what_is_no_table_is_refused_at_once(table: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"translation_table"):
        Node("tcp://127.0.0.1:0", Bus(), translation_table=table)


def test_a_node_without_asyncio_has_it_too() -> None:
    here, there = Bus(), Bus()
    with (
        SyncNode(here, translation_table=TABLE) as node,
        SyncNode(there, translation_table=TABLE) as other,
    ):
        other.connect_via_queue(node.init_connection(), "point")
        here.twitter("point", Point(1, 2))
        assert other.get(timeout=20).args == (Point(1, 2),)
