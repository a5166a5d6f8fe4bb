"""What a receiver of a node sets in its context is not there for the next message."""

import asyncio
import decimal
import queue
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from berrymq_rpc import Bus, Message, Node, rpc
from berrymq_rpc.exchange import SyncNode

user: ContextVar[str] = ContextVar("user", default="nobody")


@pytest.fixture(autouse=True)
def own_context() -> Iterator[None]:
    """What a test sets is not there for the next one."""
    token = user.set("nobody")
    with decimal.localcontext(decimal.Context(prec=28)):
        yield
    user.reset(token)


class Visits:
    def __init__(self, put: Any) -> None:
        self.put = put

    def receive(self, message: Message) -> None:
        found = (user.get(), decimal.getcontext().prec)
        user.set(message.args[0])
        decimal.getcontext().prec = 5
        self.put(found)


@pytest.mark.parametrize("style", ["interconnect", "connect_oneway"])
async def test_messages_of_other_nodes(style: str) -> None:
    here, there = Bus(), Bus()
    heard: asyncio.Queue[Any] = asyncio.Queue()
    visits = Visits(heard.put_nowait)
    here.regist_method("visit", visits.receive)
    user.set("starter")
    async with asyncio.timeout(20), Node("tcp://127.0.0.1:0", here) as node:
        user.set("sender")
        async with Node(None, there) as other:
            connection = await getattr(other, style)(node.endpoints[0])
            for name in ("alice", "bob", "carol"):
                if style == "interconnect":
                    there.twitter("visit", name)
                else:
                    await connection.send_message("visit", name)
            for _ in range(3):
                assert await heard.get() == ("starter", 28)
        here.twitter("visit", "here")
        assert (await heard.get())[0] == "sender"
        assert user.get() == "here"


async def test_answers_of_other_nodes() -> None:
    here, there = Bus(), Bus()
    heard: asyncio.Queue[Any] = asyncio.Queue()
    visits = Visits(heard.put_nowait)
    here.regist_method("answer", visits.receive)
    there.regist_function("question", lambda message: message.args[0])
    user.set("starter")
    async with asyncio.timeout(20), Node("tcp://127.0.0.1:0", here) as node:
        user.set("sender")
        async with Node(None, there) as other:
            await other.interconnect(node.endpoints[0])
            for name in ("alice", "bob"):
                here.talk("question", "answer", name)
                assert await heard.get() == ("starter", 28)


async def test_a_handler_of_a_node() -> None:
    class Handler(rpc.AttrHandler):
        @rpc.method
        def visit(self, name: str) -> str:
            found = user.get()
            user.set(name)
            return found

    user.set("starter")
    async with asyncio.timeout(20), Node("tcp://127.0.0.1:0", Bus(), Handler()) as node:
        user.set("later")
        async with await rpc.open_client(connect=node.endpoints) as client:
            assert [await client.rpc.visit(name) for name in ("alice", "bob")] == ["starter"] * 2


def test_the_receivers_thread_of_a_node_without_asyncio() -> None:
    here = Bus()
    heard: queue.Queue[Any] = queue.Queue()
    visits = Visits(heard.put)
    here.regist_method("visit", visits.receive)
    user.set("starter")
    with SyncNode(here) as node, SyncNode(Bus()) as other:
        other.connect_oneway(node.init_connection())
        for name in ("alice", "bob", "carol"):
            other.send_message("visit", name)
            assert heard.get(timeout=20) == ("starter", 28)
