"""What handlers may be and do, seen from the other end of the connection."""

import asyncio
import functools
import logging
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from berrymq_rpc import rpc

try:
    from aiozmq import rpc as plain
except ImportError:
    plain = None

Until = Callable[..., Awaitable[None]]


class Sub(rpc.AttrHandler):
    @rpc.method
    def name(self):
        return "sub"


class Handler(rpc.AttrHandler):
    """Docstring of the handler."""

    def __init__(self) -> None:
        self.sub = Sub()
        self.seen: list[Any] = []
        self.go_on = asyncio.Event()

    @rpc.method
    def add(self, a: int, b: int = 1) -> int:
        """Add two numbers.

        It returns the sum.
        """
        return a + b

    @rpc.method
    async def later(self, a):
        await asyncio.sleep(0)
        return a

    @rpc.method(thread=True)
    def in_thread(self):
        return threading.current_thread() is threading.main_thread(), rpc.context().method

    @rpc.method(waits=True)
    async def wait(self):
        await self.go_on.wait()
        return "done"

    @rpc.method(waits=True, thread=True)
    def wait_in_thread(self, seconds):
        time.sleep(seconds)
        return "done"

    @rpc.method
    async def ticks(self, n):
        """Give numbers."""
        for i in range(n):
            yield i

    @rpc.method
    def who(self):
        context = rpc.context()
        self.seen.append(context.peer)
        return context.peer.identity, context.method, context.cancelled

    @rpc.method
    async def who_later(self):
        await asyncio.sleep(0)
        context = rpc.context()
        self.seen.append(context.peer)
        return context.peer.identity, context.method, context.cancelled

    @classmethod
    @rpc.method
    def of_class(cls):
        return cls.__name__

    @rpc.method
    @staticmethod
    def static(a):
        return a


@pytest.fixture
def handler() -> Handler:
    return Handler()


# -- kinds -------------------------------------------------------------------------------------


async def test_kinds(pair: Any, handler: Handler) -> None:
    async with pair(handler) as (_, client):
        assert await client.rpc.add(1, 2) == 3
        assert await client.rpc.later(5) == 5
        assert await client.rpc.in_thread() == (False, "in_thread")
        assert [item async for item in client.rpc.ticks(3)] == [0, 1, 2]
        assert await client.rpc.of_class() == "Handler"
        assert await client.rpc.static(7) == 7
        assert await client.rpc.sub.name() == "sub"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="new in Python 3.12")
async def test_eager_tasks(pair: Any, handler: Handler, until: Until) -> None:
    """Handlers then run to their first wait, or to their end, before they are tasks."""
    loop = asyncio.get_running_loop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
    try:

        async def at_once():
            return rpc.context().method

        handler.at_once = rpc.method(at_once)  # type: ignore[attr-defined]
        async with pair(handler, timeout=30) as (server, client):
            assert await client.rpc.add(1, 2) == 3
            assert await client.rpc.later(5) == 5
            assert await client.rpc.at_once() == "at_once"
            assert await client.rpc.in_thread() == (False, "in_thread")
            assert [item async for item in client.rpc.ticks(300)] == list(range(300))
            assert await asyncio.create_task(client.rpc.add(1)) == 2
            got = await asyncio.gather(*[client.rpc.later(number) for number in range(1000)])
            assert got == list(range(1000))
            with pytest.raises(rpc.RPCTimeoutError):
                await client.with_timeout(0.02).rpc.wait()
            # The server's own timer may be some milliseconds behind the client's.
            await until(lambda: server.statistics()["calls_running"] == 0)
    finally:
        loop.set_task_factory(None)


async def test_threads_do_not_hold_the_loop(pair: Any, until: Until) -> None:
    release = threading.Event()
    inside: list[int] = []

    def block() -> None:
        inside.append(1)
        assert release.wait(10)

    handler = {"block": rpc.method(block, thread=True), "one": rpc.method(lambda: 1)}
    async with pair(handler, server={"threads": 2}) as (_, client):
        blocked = [client.rpc.block() for _ in range(5)]
        await until(lambda: len(inside) == 2)
        assert await client.rpc.one() == 1
        assert len(inside) == 2, "there are two threads"
        release.set()
        await asyncio.gather(*blocked)


async def test_thread_that_was_cancelled_knows(pair: Any, until: Until) -> None:
    seen: list[bool] = []
    ended = threading.Event()

    def work() -> int:
        context = rpc.context()
        seen.append(context.cancelled)
        while not context.cancelled:
            time.sleep(0.001)
        seen.append(context.cancelled)
        ended.set()
        return 5

    async with pair({"work": rpc.method(work, thread=True)}) as (server, client):
        call = client.rpc.work()
        await until(lambda: seen)
        call.cancel()
        await until(ended.is_set)
        assert seen == [False, True]
        await until(lambda: server.statistics()["calls_running"] == 0)
        seen.clear()
        ended.clear()
        with pytest.raises(rpc.RPCTimeoutError):
            await client.with_timeout(0.05).rpc.work()
        await until(ended.is_set)
        assert seen[-1]


async def test_thread_keeps_its_slot_until_it_ends(pair: Any, until: Until) -> None:
    release, began = threading.Event(), threading.Event()

    def block() -> None:
        began.set()
        release.wait(10)

    handler = {
        "block": rpc.method(block, thread=True),
        "later": rpc.method(functools.partial(asyncio.sleep, 0, 1)),
    }
    limits = rpc.Limits(window=1)
    async with pair(handler, server={"limits": limits}) as (_, client):
        assert await client.rpc.later() == 1
        call = client.rpc.block()
        await until(began.is_set)
        call.cancel()
        waiting = client.rpc.later()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await asyncio.shield(waiting)
        release.set()
        assert await waiting == 1


async def test_queued_thread_that_was_cancelled_never_runs(pair: Any, until: Until) -> None:
    release = threading.Event()
    ran: list[int] = []
    handler = {
        "block": rpc.method(lambda: release.wait(10), thread=True),
        "run": rpc.method(lambda: ran.append(1), thread=True),
    }
    async with pair(handler, server={"threads": 1}) as (server, client):
        blocked = client.rpc.block()
        queued = [client.rpc.run() for _ in range(10)]
        await until(lambda: server.statistics()["calls_running"] == 11)
        for call in queued:
            call.cancel()
        # Answered after the server has read of that.
        await client.describe()
        release.set()
        assert await blocked
        await until(lambda: server.statistics()["calls_running"] == 0)
        assert not ran


async def test_waits_leave_the_window(pair: Any, handler: Handler) -> None:
    async with pair(handler, server={"limits": rpc.Limits(window=3)}) as (_, client):
        waiting = [client.rpc.wait() for _ in range(100)]
        assert await client.rpc.later(1) == 1
        assert await asyncio.gather(*[client.rpc.later(i) for i in range(10)]) == list(range(10))
        assert not any(call.done() for call in waiting)
        handler.go_on.set()
        assert set(await asyncio.gather(*waiting)) == {"done"}
        assert await client.rpc.wait_in_thread(0) == "done"


async def test_dict_handlers(pair: Any) -> None:
    class Sneaky(dict):  # type: ignore[type-arg]
        def __missing__(self, key: str) -> Any:
            raise AssertionError("it was asked")

    handler = Sneaky(
        {
            "f": rpc.method(lambda: "f"),
            "inner": {"g": rpc.method(lambda: "g"), "more": Sub()},
            "_private": rpc.method(lambda: "private"),
            "unmarked": lambda: "unmarked",
            "data": 5,
        }
    )
    async with pair(handler) as (_, client):
        assert await client.rpc.f() == "f"
        assert await client.rpc.inner.g() == "g"
        assert await client.rpc.inner.more.name() == "sub"
        for name in ("_private", "unmarked", "data", "nope", "inner", "inner.nope", "keys"):
            with pytest.raises(rpc.NotFoundError):
                await client.call(name)


async def test_handler_that_is_asked_at_each_call(pair: Any) -> None:
    class Asked(rpc.AbstractHandler):
        def __init__(self) -> None:
            self.names: list[str] = []

        def __getitem__(self, key: str) -> Any:
            self.names.append(key)
            if key == "boom":
                raise SystemExit(1)
            if key == "deeper":
                return self
            if key.startswith("make"):
                return rpc.method(lambda a=1: f"{key} {a}")
            if key == "stream":
                return rpc.method(stream)
            if key == "unmarked":
                return print
            raise KeyError(key)

    async def stream():
        yield 1

    asked = Asked()
    async with pair(asked) as (_, client):
        assert await client.rpc.make_it(5) == "make_it 5"
        assert await client.rpc.deeper.deeper.make_it() == "make_it 1"
        assert [item async for item in client.rpc.stream()] == [1]
        for name in ("nope", "unmarked", "boom", "deeper", "deeper.nope"):
            with pytest.raises(rpc.NotFoundError):
                await client.call(name)
        asked.names.clear()
        for name in ("__class__", "_x", "deeper.__init__", "", "a..b"):
            with pytest.raises(rpc.NotFoundError):
                await client.call(name)
        assert not asked.names, "no such name is asked for"
        assert (await client.describe())["methods"] == ()


async def test_handler_set_after_the_start_is_not_found(pair: Any, handler: Handler) -> None:
    async with pair(handler) as (_, client):
        handler.more = Sub()  # type: ignore[attr-defined]
        with pytest.raises(rpc.NotFoundError):
            await client.rpc.more.name()


@pytest.mark.skipif(plain is None, reason="aiozmq.rpc cannot be imported")
async def test_handlers_written_for_aiozmq(pair: Any) -> None:
    class Inner(plain.AttrHandler):
        @plain.method
        def name(self):
            return "inner"

    class Old(plain.AttrHandler):
        def __init__(self) -> None:
            self.inner = Inner()

        @plain.method
        def add(self, a: int, b: int = 1) -> int:
            return a + b

        @plain.method
        async def later(self, a):
            await asyncio.sleep(0)
            return a

        @plain.method
        def _private(self):
            return 1

    async with pair(Old()) as (_, client):
        assert await client.rpc.add(1) == 2
        assert await client.rpc.later(3) == 3
        assert await client.rpc.inner.name() == "inner"
        for name in ("_private", "__dict__.inner.name", "inner"):
            with pytest.raises(rpc.NotFoundError):
                await client.call(name)
        with pytest.raises(rpc.ParametersError):
            await client.rpc.add()
        listed = [method["name"] for method in (await client.describe())["methods"]]
        assert listed == ["add", "inner.name", "later"]


@pytest.mark.parametrize("handler", [5, "text", object(), [1]])
async def test_what_is_no_handler(handler: Any) -> None:
    with pytest.raises(TypeError, match="handler"):
        await rpc.start_server(handler, bind="mem://*")


# -- describe ----------------------------------------------------------------------------------


async def test_describe(pair: Any, handler: Handler) -> None:
    async with pair(handler) as (_, client):
        described = await client.describe()
        methods = {method["name"]: method for method in described["methods"]}
        assert list(methods) == sorted(methods)
        assert methods["add"]["signature"] == "(a: int, b: int = 1) -> int"
        assert methods["add"]["doc"] == "Add two numbers.\n\nIt returns the sum."
        assert methods["add"]["kind"] == "call"
        assert methods["ticks"]["kind"] == "stream"
        assert methods["wait"]["waits"] is True
        assert "sub.name" in methods
        assert not any(name.startswith(("_", "rpc.")) for name in methods)


async def test_describe_a_client_that_has_no_handler(pair: Any) -> None:
    async def ask():
        return await rpc.context().peer.call("rpc.describe")

    async with pair({"ask": rpc.method(ask)}) as (_, client):
        assert await client.rpc.ask() == {"methods": ()}


# -- the context -------------------------------------------------------------------------------


def test_context_outside_of_a_handler() -> None:
    with pytest.raises(rpc.Error, match="no call is being served"):
        rpc.context()


async def test_context(pair: Any, handler: Handler) -> None:
    async with pair(handler) as (server, client):
        identity, method, cancelled = await client.rpc.who()
        assert isinstance(identity, str)
        assert identity
        assert (method, cancelled) == ("who", False)
        assert (await client.rpc.who_later())[:2] == (identity, "who_later")
        assert handler.seen[0] == handler.seen[1]
        assert hash(handler.seen[0]) == hash(handler.seen[1])
        assert identity in repr(handler.seen[0])
        async with await rpc.open_client(connect=server.endpoints) as other:
            assert (await other.rpc.who())[0] != identity
        assert handler.seen[-1] != handler.seen[0]
        with pytest.raises(rpc.Error):
            rpc.context()


async def test_context_of_calls_in_one_message(pair: Any) -> None:
    """Calls that arrive together each have a context of their own."""

    def sync(number):
        return number, rpc.context().method, rpc.context().deadline is None

    async def coroutine(number):
        await asyncio.sleep(0)
        return number, rpc.context().method, rpc.context().deadline is None

    handler = {name: rpc.method(sync) for name in "abc"}
    handler |= {name: rpc.method(coroutine) for name in "xyz"}
    async with pair(handler) as (_, client):
        quick = client.with_timeout(5)
        calls = [client.call(name, i) for i in range(5) for name in "abcxyz"]
        timed = [quick.call(name, i) for i in range(5) for name in "abcxyz"]
        names = [(i, name) for i in range(5) for name in "abcxyz"]
        assert await asyncio.gather(*calls) == [(*each, True) for each in names]
        assert await asyncio.gather(*timed) == [(*each, False) for each in names]


async def test_context_in_a_task_of_a_handler(pair: Any) -> None:
    """It is never that of another call."""
    tasks: list[asyncio.Task[str]] = []

    async def background() -> str:
        await asyncio.sleep(0)
        return rpc.context().method

    def sync() -> None:
        tasks.append(asyncio.create_task(background()))

    async def coroutine() -> None:
        tasks.append(asyncio.create_task(background()))

    handler = {name: rpc.method(coroutine) for name in "xyz"}
    async with pair(handler) as (_, client):
        await asyncio.gather(*[client.call(name) for name in "xyz"])
        assert await asyncio.gather(*tasks) == ["x", "y", "z"]
    tasks.clear()
    handler = {name: rpc.method(sync) for name in "abc"}
    async with pair(handler) as (_, client):
        await asyncio.gather(*[client.call(name) for name in "abc"])
        for task, name in zip(tasks, "abc", strict=True):
            try:
                assert await task == name
            except rpc.Error:
                # A plain function is done by then, and so is its call.
                continue


async def test_context_of_an_outer_call_does_not_leak_into_an_inner_one(pair: Any) -> None:
    inner = {"who": rpc.method(lambda: rpc.context().method)}
    async with pair(inner, bind="mem://*") as (_, to_inner):

        async def outer():
            return await to_inner.rpc.who(), rpc.context().method

        async with pair({"outer": rpc.method(outer)}) as (_, client):
            assert await client.rpc.outer() == ("who", "outer")
        with pytest.raises(rpc.Error):
            rpc.context()


# -- calls back --------------------------------------------------------------------------------


class Caller(rpc.AttrHandler):
    """The client's handler."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    @rpc.method
    def hello(self, name="you"):
        return f"hello {name}"

    @rpc.method
    async def hello_later(self):
        await asyncio.sleep(0)
        return "hello later"

    @rpc.method
    def hear(self, *args):
        self.heard.append(args)

    @rpc.method
    def fail(self):
        raise FileNotFoundError(2, "No such file", "/client")

    @rpc.method
    async def forever(self):
        self.heard.append("started")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.heard.append("cancelled")
            raise


class CallsBack(rpc.AttrHandler):
    def __init__(self) -> None:
        self.peers: list[rpc.Peer] = []

    @rpc.method
    def remember(self):
        self.peers.append(rpc.context().peer)

    @rpc.method
    async def back(self, name, *args):
        return await rpc.context().peer.call(name, *args)

    @rpc.method
    async def hello(self):
        peer = rpc.context().peer
        return await peer.rpc.hello(), await peer.rpc.hello(name="me"), await peer.rpc.hello_later()

    @rpc.method
    def tell(self, count):
        for number in range(count):
            rpc.context().peer.notify.hear(number)

    @rpc.method
    async def fail(self):
        try:
            await rpc.context().peer.rpc.fail()
        except FileNotFoundError as error:
            return error.filename

    @rpc.method
    async def back_and_forth(self, depth):
        if depth == 0:
            return []
        return [depth, *await rpc.context().peer.rpc.back_and_forth(depth - 1)]

    @rpc.method(thread=True)
    def from_a_thread(self):
        rpc.context().peer.notify.hear("from a thread")

    @rpc.method(thread=True)
    def call_from_a_thread(self):
        rpc.context().peer.rpc.hello()


@pytest.mark.parametrize("bind", ["mem://*", "tcp://127.0.0.1:*"])
async def test_call_back(pair: Any, bind: str, until: Until) -> None:
    caller = Caller()
    async with pair(CallsBack(), bind=bind, handler=caller) as (_, client):
        assert await client.rpc.hello() == ("hello you", "hello me", "hello later")
        assert await client.rpc.fail() == "/client"
        with pytest.raises(rpc.NotFoundError, match="nope"):
            await client.rpc.back("nope")
        with pytest.raises(rpc.ParametersError, match="hello"):
            await client.rpc.back("hello", 1, 2, 3)
        await client.rpc.tell(10)
        await until(lambda: len(caller.heard) == 10)
        assert caller.heard == [(number,) for number in range(10)]


async def test_call_back_again_and_again(pair: Any) -> None:
    async with pair(CallsBack(), handler=CallsBack()) as (_, client):
        assert await client.rpc.back_and_forth(20) == tuple(_nested(20))


def _nested(depth: int) -> list[int]:
    return list(range(depth, 0, -1))


async def test_call_back_after_the_call(pair: Any, until: Until) -> None:
    handler, caller = CallsBack(), Caller()
    async with pair(handler, handler=caller) as (_, client):
        await client.rpc.remember()
        (peer,) = handler.peers
        assert await peer.rpc.hello() == "hello you"
        peer.notify.hear("later")
        await until(lambda: caller.heard == [("later",)])
    with pytest.raises((rpc.ServiceClosedError, rpc.ConnectionLostError)):
        await peer.rpc.hello()
    with pytest.raises((rpc.ServiceClosedError, rpc.ConnectionLostError)):
        peer.notify.hear("gone")


async def test_call_back_is_cancelled_with_the_call(pair: Any, until: Until) -> None:
    caller = Caller()
    async with pair(CallsBack(), handler=caller) as (_, client):
        call = client.rpc.back("forever")
        await until(lambda: caller.heard == ["started"])
        call.cancel()
        await until(lambda: caller.heard == ["started", "cancelled"])


async def test_client_leaves_during_a_call_back(pair: Any, until: Until) -> None:
    caller, handler = Caller(), CallsBack()
    server = await rpc.start_server(handler, bind="tcp://127.0.0.1:*")
    async with server:
        client = await rpc.open_client(connect=server.endpoints, handler=caller)
        await client.rpc.remember()
        back = handler.peers[0].rpc.forever()
        await until(lambda: caller.heard == ["started"])
        client.close()
        with pytest.raises((rpc.ConnectionLostError, rpc.ServiceClosedError)):
            await back
        await client.wait_closed()
        assert caller.heard == ["started", "cancelled"]


async def test_peer_in_a_thread(pair: Any, until: Until) -> None:
    """It belongs to the event loop: either it works or it says so, and never half."""
    caller = Caller()
    async with pair(CallsBack(), handler=caller) as (_, client):
        for name in ("from_a_thread", "call_from_a_thread"):
            with pytest.raises(RuntimeError, match="thread"):
                await client.call(name)
        assert await client.rpc.hello()
        assert not caller.heard


async def test_a_client_without_a_handler(pair: Any) -> None:
    async with pair(CallsBack()) as (_, client):
        with pytest.raises(rpc.NotFoundError, match="hello"):
            await client.rpc.back("hello")


async def test_many_calls_back(pair: Any) -> None:
    async with pair(CallsBack(), handler=Caller()) as (_, client):
        got = await asyncio.gather(*[client.rpc.back("hello", i) for i in range(1000)])
        assert got == [f"hello {i}" for i in range(1000)]


# -- delivery ----------------------------------------------------------------------------------


class Delivering(rpc.AttrHandler):
    def __init__(self) -> None:
        self.told: list[bool] = []
        self.started = asyncio.Event()

    def tell(self, delivered: bool) -> None:
        self.told.append(delivered)

    @rpc.method
    def sync(self):
        rpc.context().on_delivery(self.tell)
        return "sync"

    @rpc.method
    async def coroutine(self):
        rpc.context().on_delivery(self.tell)
        await asyncio.sleep(0)
        return "coroutine"

    @rpc.method(thread=True)
    def thread(self):
        rpc.context().on_delivery(self.tell)
        return "thread"

    @rpc.method
    def sync_fails(self):
        rpc.context().on_delivery(self.tell)
        raise ValueError

    @rpc.method
    def sync_unpackable(self):
        rpc.context().on_delivery(self.tell)
        return object()

    @rpc.method
    async def coroutine_fails(self):
        rpc.context().on_delivery(self.tell)
        raise ValueError

    @rpc.method(waits=True)
    async def forever(self):
        rpc.context().on_delivery(self.tell)
        self.started.set()
        await asyncio.Event().wait()

    @rpc.method
    async def callback_fails(self):
        def fail(delivered: bool) -> None:
            self.told.append(delivered)
            raise ValueError("in the callback")

        rpc.context().on_delivery(fail)


@pytest.mark.parametrize("bind", ["mem://*", "tcp://127.0.0.1:*"])
async def test_delivered(pair: Any, until: Until, bind: str) -> None:
    handler = Delivering()
    async with pair(handler, bind=bind) as (_, client):
        for name in ("sync", "coroutine", "thread"):
            assert await client.call(name) == name
            await until(lambda: handler.told)
            assert handler.told == [True]
            handler.told.clear()


@pytest.mark.parametrize("name", ["sync_fails", "sync_unpackable", "coroutine_fails"])
async def test_a_failure_is_no_delivery(pair: Any, until: Until, name: str) -> None:
    handler = Delivering()
    async with pair(handler) as (_, client):
        with pytest.raises((ValueError, TypeError)):
            await client.call(name)
        await until(lambda: handler.told)
        assert handler.told == [False]


async def test_a_stream_has_no_result(pair: Any) -> None:
    async def stream():
        rpc.context().on_delivery(print)
        yield 1

    async with pair({"stream": rpc.method(stream)}) as (_, client):
        with pytest.raises(rpc.Error, match="stream"):
            await anext(client.rpc.stream())


@pytest.mark.parametrize("name", ["sync", "coroutine", "thread"])
async def test_a_notification_delivers_nothing(pair: Any, until: Until, name: str) -> None:
    handler = Delivering()
    async with pair(handler) as (_, client):
        getattr(client.notify, name)()
        await until(lambda: handler.told)
        assert handler.told == [False]


async def test_not_delivered_to_who_gave_up(pair: Any, until: Until) -> None:
    handler = Delivering()
    async with pair(handler) as (_, client):
        call = client.rpc.forever()
        await handler.started.wait()
        call.cancel()
        await until(lambda: handler.told == [False])
        with pytest.raises(rpc.RPCTimeoutError):
            await client.with_timeout(0.02).rpc.forever()
        await until(lambda: handler.told == [False, False])


async def test_not_delivered_to_who_went_away(pair: Any, until: Until) -> None:
    handler = Delivering()
    async with await rpc.start_server(handler, bind="tcp://127.0.0.1:*") as server:
        async with await rpc.open_client(connect=server.endpoints) as client:
            call = client.rpc.forever()
            await handler.started.wait()
        with pytest.raises(rpc.ServiceClosedError):
            await call
        await until(lambda: handler.told == [False])


async def test_callback_that_fails(
    pair: Any, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Delivering()
    async with pair(handler) as (_, client):
        assert await client.rpc.callback_fails() is None
        await until(lambda: handler.told == [True])
        assert await client.rpc.sync() == "sync"
    assert "on_delivery" in caplog.text


async def test_delivered_to_another_dialect(pair: Any, until: Until) -> None:
    handler = Delivering()
    async with pair(handler, dialect="aiozmq") as (_, client):
        assert await client.rpc.coroutine() == "coroutine"
        await until(lambda: handler.told == [True])


# -- what is logged ----------------------------------------------------------------------------


class Slow(rpc.AttrHandler):
    @rpc.method
    def slow_sync(self):
        time.sleep(0.05)

    @rpc.method
    def fast_sync(self):
        pass

    @rpc.method
    async def slow_step(self):
        await asyncio.sleep(0)
        time.sleep(0.05)
        await asyncio.sleep(0)

    @rpc.method
    async def slow_stream(self):
        yield 1
        time.sleep(0.05)
        yield 2

    @rpc.method
    async def long_wait(self):
        await asyncio.sleep(0.05)

    @rpc.method(thread=True)
    def slow_thread(self):
        time.sleep(0.05)


async def test_slow_handlers_are_named(pair: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with pair(Slow(), server={"slow_handler": 0.03}) as (_, client):
        for name in ("slow_sync", "slow_step"):
            caplog.clear()
            await client.call(name)
            (record,) = [r for r in caplog.records if r.name == "berrymq_rpc.rpc"]
            assert record.levelno == logging.WARNING
            assert record.getMessage().startswith(f"handler {name} held the event loop for ")
            assert " ms: mark it @rpc.method(thread=True)" in record.getMessage()
        caplog.clear()
        assert [item async for item in client.rpc.slow_stream()] == [1, 2]
        assert "handler slow_stream held" in caplog.text
        caplog.clear()
        for name in ("fast_sync", "long_wait", "slow_thread"):
            await client.call(name)
        assert "held the event loop" not in caplog.text


async def test_fast_calls_that_arrive_with_a_slow_one_are_not_named(
    pair: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with pair(Slow(), server={"slow_handler": 0.03}) as (_, client):
        await client.rpc.fast_sync()
        caplog.clear()
        calls = [client.rpc.fast_sync() for _ in range(10)]
        calls.append(client.rpc.slow_sync())
        calls += [client.rpc.fast_sync() for _ in range(10)]
        await asyncio.gather(*calls)
        assert "slow_sync" in caplog.text
        assert "fast_sync" not in caplog.text


class Failing(rpc.AttrHandler):
    @rpc.method
    def fail(self):
        raise ValueError("the reason")

    @rpc.method
    async def fail_later(self):
        await asyncio.sleep(0)
        raise KeyError("the reason")


async def test_what_is_logged(pair: Any, caplog: pytest.LogCaptureFixture, until: Until) -> None:
    async with pair(Failing()) as (_, client):
        with pytest.raises(ValueError, match="the reason"):
            await client.rpc.fail()
        assert not caplog.records, "the caller knows"
        client.notify.fail()
        await until(lambda: "handler fail failed" in caplog.text)
        assert "ValueError: the reason" in caplog.text
        client.notify.fail_later()
        await until(lambda: "handler fail_later failed" in caplog.text)
    caplog.clear()
    async with pair(Failing(), server={"log_exceptions": True}) as (_, client):
        with pytest.raises(ValueError, match="the reason"):
            await client.rpc.fail()
        with pytest.raises(KeyError):
            await client.rpc.fail_later()
        assert "handler fail failed" in caplog.text
        assert "handler fail_later failed" in caplog.text
    caplog.clear()
    settings = {"log_exceptions": True, "exclude_log_exceptions": (ValueError,)}
    async with pair(Failing(), server=settings) as (_, client):
        with pytest.raises(ValueError, match="the reason"):
            await client.rpc.fail()
        with pytest.raises(KeyError):
            await client.rpc.fail_later()
        assert "handler fail failed" not in caplog.text
        assert "handler fail_later failed" in caplog.text


async def test_flood_of_bad_notifications_is_a_few_lines(
    pair: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with pair(Failing()) as (server, client):
        for _ in range(2000):
            client.notify.nope()
        with pytest.raises(ValueError, match="the reason"):
            await client.rpc.fail()
        assert server.statistics()["notifications_dropped"] == 2000
        assert len(caplog.records) < 20
