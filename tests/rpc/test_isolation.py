"""What a handler sets in its context is gone with the call: no other call sees it."""

import asyncio
import decimal
import time
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from berrymq_rpc import rpc

user: ContextVar[str] = ContextVar("user", default="nobody")
tenant: ContextVar[str] = ContextVar("tenant", default="none")


@pytest.fixture(autouse=True)
def own_context() -> Iterator[None]:
    """What a test sets is not there for the next one."""
    token = user.set("nobody")
    with decimal.localcontext(decimal.Context(prec=28)):
        yield
    user.reset(token)


def visit(name: str) -> list[Any]:
    """What the last one has left in this context; then leave something."""
    found = [user.get(), decimal.getcontext().prec]
    user.set(name)
    decimal.getcontext().prec = 5
    return found


class Handler(rpc.AttrHandler):
    def __init__(self) -> None:
        self.noted: list[list[Any]] = []

    @rpc.method
    def plain(self, name: str) -> list[Any]:
        return visit(name)

    @rpc.method
    def plain_with_context(self, name: str) -> list[Any]:
        assert rpc.context().method == "plain_with_context"
        return visit(name)

    @rpc.method
    async def coroutine(self, name: str) -> list[Any]:
        first = visit(name)
        await asyncio.sleep(0)
        assert [user.get(), decimal.getcontext().prec] == [name, 5]
        return first

    @rpc.method(thread=True)
    def thread(self, name: str) -> list[Any]:
        return visit(name)

    @rpc.method
    async def stream(self, name: str) -> AsyncIterator[list[Any]]:
        yield visit(name)
        assert [user.get(), decimal.getcontext().prec] == [name, 5]

    @rpc.method
    def note(self, name: str) -> None:
        self.noted.append(visit(name))

    @rpc.method
    def notes(self) -> list[list[Any]]:
        return self.noted


async def visit_all(client: Any, name: str) -> list[Any]:
    client.notify.note(name)
    found = await asyncio.gather(
        client.rpc.plain(name),
        client.rpc.plain_with_context(name),
        client.rpc.plain(name=name),
        client.rpc.coroutine(name),
        client.rpc.thread(name),
        *[client.rpc.plain(name) for _ in range(3)],
    )
    found += [item async for item in client.rpc.stream(name)]
    return [*found, *await client.rpc.notes()]


@pytest.mark.parametrize("bind", ["tcp://127.0.0.1:*", "mem://isolation"])
async def test_no_call_sees_what_another_has_set(pair: Any, bind: str) -> None:
    user.set("starter")
    decimal.setcontext(decimal.Context(prec=12))
    async with pair(Handler(), bind=bind) as (server, client):
        user.set("caller")
        decimal.getcontext().prec = 20
        async with await rpc.open_client(connect=server.endpoints) as other:
            for name, peer in (("alice", client), ("bob", other), ("carol", client)):
                for found in await visit_all(peer, name):
                    assert list(found) == ["starter", 12]
    assert (user.get(), decimal.getcontext().prec) == ("caller", 20)


async def test_a_client_serves_calls_in_the_context_in_which_it_was_opened(pair: Any) -> None:
    class Caller(rpc.AttrHandler):
        @rpc.method
        async def back(self, name: str) -> Any:
            return await rpc.context().peer.rpc.plain(name)

    user.set("opener")
    async with pair(Caller(), handler=Handler()) as (_, client):
        user.set("later")
        for name in ("alice", "bob"):
            assert await client.rpc.back(name) == ("opener", 28)


async def test_aiozmq_and_jsonrpc_peers_are_apart_too(pair: Any) -> None:
    async with pair(Handler()) as (server, _):
        for dialect in ("aiozmq", "jsonrpc"):
            async with await rpc.open_client(connect=server.endpoints, dialect=dialect) as client:
                for name in ("alice", "bob"):
                    assert list(await client.rpc.plain(name)) == ["nobody", 28]


async def test_a_handler_that_is_asked_for_a_name_leaves_nothing(pair: Any) -> None:
    class Asked:
        def __getitem__(self, name: str) -> Any:
            seen = tenant.get()
            tenant.set(name)

            @rpc.method
            def found() -> str:
                return seen

            return found

    async with pair(Asked()) as (_, client):
        assert [await client.call(name) for name in ("a", "b", "a")] == ["none"] * 3


async def test_a_callback_of_a_delivery_runs_in_its_calls_context(pair: Any, until: Any) -> None:
    seen: list[Any] = []

    class Delivering(rpc.AttrHandler):
        @rpc.method
        def plain(self, name: str) -> None:
            user.set(name)
            rpc.context().on_delivery(self.done)

        @rpc.method
        async def coroutine(self, name: str) -> None:
            user.set(name)
            rpc.context().on_delivery(self.done)

        def done(self, delivered: bool) -> None:
            seen.append((user.get(), tenant.get(), delivered))
            tenant.set("left behind")

    async with pair(Delivering()) as (_, client):
        await client.rpc.plain("alice")
        await client.rpc.coroutine("bob")
        await client.rpc.plain("carol")
        await until(lambda: len(seen) == 3)
    assert seen == [("alice", "none", True), ("bob", "none", True), ("carol", "none", True)]


async def test_what_a_plain_handler_starts_has_its_context(pair: Any) -> None:
    class Starting(rpc.AttrHandler):
        task: Any = None

        @rpc.method
        def start(self, name: str) -> None:
            user.set(name)
            self.task = asyncio.create_task(self.work())

        async def work(self) -> str:
            await asyncio.sleep(0)
            return user.get()

    handler = Starting()
    async with pair(handler) as (_, client):
        await client.rpc.start("alice")
        assert await asyncio.wait_for(handler.task, 5) == "alice"


async def test_what_authorize_sets_is_not_there_for_the_next_call(pair: Any) -> None:
    seen: list[Any] = []

    def authorize(context: rpc.Context, name: str) -> bool:
        seen.append(visit(name))
        return True

    user.set("starter")
    async with pair(Handler(), server={"authorize": authorize}) as (_, client):
        for method in ("plain", "coroutine", "thread"):
            assert list(await client.call(method, "alice")) == ["starter", 28]
    assert seen == [["starter", 28]] * 3


async def test_a_handler_that_is_awaited_is_not_named_for_another(
    pair: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Slow(rpc.AttrHandler):
        @rpc.method
        def slow(self) -> Any:
            time.sleep(0.2)
            return asyncio.sleep(0)

        @rpc.method
        def quick(self) -> None: ...

    async with pair(Slow()) as (_, client):
        await asyncio.gather(client.rpc.slow(), client.rpc.quick())
    assert [r.args[0] for r in caplog.records if "held the event loop" in r.msg] == ["slow"]
