"""The kit: servers that record, meet calls as planned, and fail as a test says."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from berrymq_rpc import default_bus, rpc, twitter
from berrymq_rpc.testing import Kit, KitServer
from berrymq_rpc.testing.kit import LeakError
from berrymq_rpc.testing.network import MemoryNetwork

#: Seconds in which what has to happen happens, on a machine that is busy with other things.
PATIENCE = 10.0


class Math(rpc.AttrHandler):
    @rpc.method
    def half(self, number: int) -> float:
        return number / 2


class Handler(rpc.AttrHandler):
    def __init__(self) -> None:
        self.math = Math()
        self.released = asyncio.Event()

    @rpc.method
    def add(self, a: Any, b: Any = 1) -> Any:
        return a + b

    @rpc.method
    async def wait(self, number: int = 0) -> int:
        await self.released.wait()
        return number

    @rpc.method(thread=True)
    def block(self, number: int) -> int:
        return number

    @rpc.method
    async def count(self, end: int) -> AsyncIterator[int]:
        for number in range(end):
            yield number

    @rpc.method(allow={"alice"})
    def secret(self) -> None: ...


async def again(client: rpc.Client) -> Any:
    """Call until the client has noticed that the server was lost: over NATS, that is by a call."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(rpc.ConnectionLostError):
                return await client.rpc.add(1)


class TestRecords:
    async def test_calls_and_notifications(self, berrymq: Kit) -> None:
        server = await berrymq.serve(Handler())
        client = await berrymq.client(server)
        assert await client.rpc.add(1, b=2) == 3
        assert await client.rpc.math.half(4) == 2
        client.notify.add(5)
        with pytest.raises(TypeError):
            await client.rpc.add("text")
        assert await client.rpc.block(6) == 6
        assert [item async for item in client.rpc.count(2)] == [0, 1]
        assert server.calls("add") == [((1,), {"b": 2}), (("text",), {})]
        assert server.calls("math.half") == [((4,), {})]
        assert server.notifications("add") == [((5,), {})]
        assert server.notifications() == [("add", (5,), {})]
        assert [name for name, _, _ in server.calls()] == [
            "add",
            "math.half",
            "add",
            "block",
            "count",
        ]
        assert server.cancelled() == server.expired() == []

    async def test_what_did_not_reach_the_handler(self, berrymq: Kit) -> None:
        server = await berrymq.serve(Handler())
        client = await berrymq.client(server)
        for call in (client.rpc.add(1, 2, 3), client.rpc.secret(), client.rpc.missing()):
            with pytest.raises(rpc.Error):
                await call
        assert server.calls() == []

    @pytest.mark.parametrize("method", ["wait", "block", "count"])
    async def test_cancelled(self, berrymq: Kit, method: str) -> None:
        server = await berrymq.serve(Handler())
        client = await berrymq.client(server)
        server.method(method).hangs()
        call = client.call(method, 1)
        waiting = asyncio.ensure_future(call.__anext__() if method == "count" else call)
        await berrymq.until(lambda: server.calls(method), PATIENCE)
        waiting.cancel()
        call.cancel()
        await berrymq.until(lambda: server.cancelled(method) == [((1,), {})], PATIENCE)
        assert server.expired() == []

    async def test_expired_while_it_ran(self, berrymq: Kit) -> None:
        server = await berrymq.serve(Handler())
        client = await berrymq.client(server)
        assert await client.rpc.add(1) == 2
        with berrymq.raises_within(rpc.RPCTimeoutError, PATIENCE):
            await client.with_timeout(0.05).rpc.wait(3)
        await berrymq.until(lambda: server.expired("wait") == [((3,), {})], PATIENCE)
        assert server.calls("wait") == [((3,), {})]
        assert server.cancelled() == []

    async def test_expired_before_it_could_run(self, berrymq: Kit) -> None:
        server = await berrymq.serve(Handler())
        client = await berrymq.client(server)
        assert await client.rpc.add(1) == 2
        server.freeze()
        with berrymq.raises_within(rpc.RPCTimeoutError, PATIENCE):
            await client.with_timeout(0.05).rpc.add(3)
        # The server knows the client's clock only to some milliseconds.
        await asyncio.sleep(0.05)
        server.thaw()
        await berrymq.until(lambda: server.expired("add") == [((3,), {})], PATIENCE)
        assert server.calls("add") == [((1,), {})]

    async def test_a_handler_that_is_asked(self, berrymq: Kit) -> None:
        class Asked(rpc.AbstractHandler):
            def __getitem__(self, name: str) -> Any:
                if name != "known":
                    raise KeyError(name)
                return rpc.method(lambda: "asked")

        server = await berrymq.serve(Asked())
        client = await berrymq.client(server)
        assert await client.rpc.known() == "asked"
        server.method("known").returns(1)
        assert await client.rpc.known() == 1
        assert server.calls("known") == [((), {})] * 2
        with pytest.raises(rpc.NotFoundError):
            server.method("unknown")

    @pytest.mark.parametrize("word", ["method", "calls", "notifications", "cancelled", "expired"])
    async def test_a_wrong_name(self, berrymq: Kit, word: str) -> None:
        server = await berrymq.serve(Handler())
        with pytest.raises(rpc.NotFoundError) as caught:
            getattr(server, word)("ad")
        assert str(caught.value) == (
            "no method 'ad'; is it 'add'? The server has: "
            "add, block, count, math.half, secret, wait"
        )

    async def test_description_and_signatures_stay(self, berrymq: Kit) -> None:
        server = await berrymq.serve(Handler())
        client = await berrymq.client(server)
        described = {m["name"]: m["signature"] for m in (await client.describe())["methods"]}
        assert "number: int" in described["math.half"]


class TestPlans:
    @pytest.mark.parametrize("method", ["add", "block", "wait"])
    async def test_fails_then_returns(self, berrymq: Kit, method: str) -> None:
        server = await berrymq.serve(Handler())
        client = await berrymq.client(server)
        server.method(method).fails(ConnectionError("down"), times=2).then(returns=7)
        for _ in range(2):
            with pytest.raises(ConnectionError, match=r"^down$"):
                await client.call(method, 1)
        assert await client.call(method, 1) == 7
        assert server.calls(method) == [((1,), {})] * 3

    @pytest.mark.parametrize("method", ["add", "block"])
    async def test_delays(self, berrymq: Kit, method: str) -> None:
        server = await berrymq.serve(Handler())
        client = await berrymq.client(server)
        server.method(method).delays(0.05, times=1)
        loop = asyncio.get_running_loop()
        began = loop.time()
        first = await client.call(method, 1)
        # uvloop's timers go by milliseconds.
        assert loop.time() - began >= 0.045
        assert await client.call(method, 1) == first

    async def test_a_stream(self, berrymq: Kit) -> None:
        server = await berrymq.serve(Handler())
        client = await berrymq.client(server)
        server.method("count").returns("ab").then(fails=KeyError).then(delays=0.01)
        assert [item async for item in client.rpc.count(2)] == ["a", "b"]
        with pytest.raises(KeyError):
            await anext(client.rpc.count(2))
        assert [item async for item in client.rpc.count(2)] == [0, 1]

    async def test_the_arguments_are_checked(self, berrymq: Kit) -> None:
        server = await berrymq.serve(Handler())
        client = await berrymq.client(server)
        server.method("add").returns(1)
        with pytest.raises(rpc.ParametersError):
            await client.rpc.add()
        assert await client.rpc.add(5) == 1

    async def test_what_hangs_ends_with_the_test(self, berrymq: Kit) -> None:
        server = await berrymq.serve(Handler())
        client = await berrymq.client(server, timeout=None)
        for method in ("add", "block", "wait"):
            server.method(method).hangs()
            # The client fails them as it is closed.
            client.call(method, 1).add_done_callback(lambda call: call.exception())
        await berrymq.until(lambda: len(server.calls()) == 3, PATIENCE)


class TestLife:
    async def test_kill_and_restart(self, berrymq: Kit) -> None:
        server = await berrymq.serve(Handler())
        client = await berrymq.client(server)
        waiting = client.rpc.wait()
        await berrymq.until(lambda: server.calls("wait"), PATIENCE)
        server.kill()
        assert not server.is_serving
        with berrymq.raises_within(rpc.ConnectionLostError, PATIENCE) as caught:
            await waiting
        assert caught.value.sent is True
        assert server.cancelled("wait") == [((), {})]
        server.method("add").returns("planned", times=1)
        later = client.rpc.add(1)
        await server.restart()
        assert await later == "planned"
        assert await client.rpc.add(1) == 2
        assert len(server.calls("add")) == 2

    async def test_restart_of_one_that_runs(self, berrymq: Kit) -> None:
        server = await berrymq.serve(Handler())
        client = await berrymq.client(server)
        own = await rpc.open_client(connect=server.endpoints)
        async with own:
            assert await own.rpc.add(1) == await client.rpc.add(1) == 2
            await server.restart()
            assert await again(own) == await again(client) == 2

    async def test_a_client_of_one_that_is_down(self, berrymq: Kit) -> None:
        server = await berrymq.serve(Handler())
        server.kill()
        client = await berrymq.client(server, connect_timeout=0.02)
        with berrymq.raises_within(rpc.ConnectionLostError, PATIENCE) as caught:
            await client.rpc.add(1)
        assert caught.value.sent is False
        await server.restart()
        assert await again(client) == 2

    async def test_freeze(self, berrymq: Kit) -> None:
        limits = rpc.Limits(heartbeat=0.3)
        server = await berrymq.serve(Handler(), limits=limits)
        client = await berrymq.client(server, limits=limits)
        assert await client.rpc.add(1) == 2
        server.freeze()
        with berrymq.raises_within(rpc.ConnectionLostError, PATIENCE):
            await client.rpc.add(1)
        newcomer = await berrymq.client(server)
        waiting = newcomer.rpc.add(1)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
        server.thaw()
        assert await waiting == 2
        assert await client.rpc.add(1) == 2

    async def test_a_frozen_one_is_killed_and_restarted(self, berrymq: Kit) -> None:
        server = await berrymq.serve(Handler())
        client = await berrymq.client(server)
        server.freeze()
        server.kill()
        await server.restart()
        assert await again(client) == 2

    async def test_what_does_not_run(self, berrymq: Kit) -> None:
        server = await berrymq.serve(Handler())
        server.kill()
        for word in (server.kill, server.freeze):
            with pytest.raises(RuntimeError, match=r"does not run, and cannot be .*restart"):
                word()
        server.thaw()

    async def test_close_in_order(self, berrymq: Kit) -> None:
        handler = Handler()
        server = await berrymq.serve(handler, grace=PATIENCE)
        client = await berrymq.client(server)
        waiting = client.rpc.wait(3)
        await berrymq.until(lambda: server.calls("wait"), PATIENCE)
        closing = asyncio.ensure_future(server.close())
        await berrymq.until(lambda: not server.is_serving)
        handler.released.set()
        assert await waiting == 3
        await closing


class TestLinks:
    async def test_each_client_has_its_own(self, berrymq: Kit) -> None:
        server = await berrymq.serve(Handler())
        slow, fast = await berrymq.client(server), await berrymq.client(server)
        assert await slow.rpc.add(1) == await fast.rpc.add(1)
        berrymq.link(slow).delay = 0.2
        loop = asyncio.get_running_loop()
        began = loop.time()
        later = slow.rpc.add(1)
        await fast.rpc.add(1)
        assert not later.done()
        await later
        assert loop.time() - began >= 0.39
        assert berrymq.link(slow).delay == 0.2
        assert berrymq.link(slow) is berrymq.link(slow.with_timeout(1))

    async def test_drop(self, berrymq: Kit) -> None:
        server = await berrymq.serve(Handler())
        client = await berrymq.client(server)
        await client.rpc.add(1)
        berrymq.link(client).drop(towards="server")
        with berrymq.raises_within(rpc.RPCTimeoutError, PATIENCE):
            await client.with_timeout(0.02).rpc.add(2)
        assert server.calls("add") == [((1,), {})]
        berrymq.link(client).drop(towards="client")
        with berrymq.raises_within(rpc.RPCTimeoutError, PATIENCE):
            await client.with_timeout(0.02).rpc.add(3)
        assert ((3,), {}) in server.calls("add")

    async def test_duplicate(self, berrymq: Kit) -> None:
        server = await berrymq.serve(Handler())
        client = await berrymq.client(server)
        await client.rpc.add(1)
        berrymq.link(client).duplicate(towards="server")
        client.notify.add(2)
        await berrymq.until(lambda: len(server.notifications("add")) == 2, PATIENCE)

    async def test_cut_down_and_up(self, berrymq: Kit) -> None:
        server = await berrymq.serve(Handler())
        client = await berrymq.client(server)
        link = berrymq.link(client)
        for fault in (link.cut, link.down):
            waiting = client.rpc.wait()
            count = len(server.calls("wait")) + 1
            await berrymq.until(lambda count=count: len(server.calls("wait")) == count, PATIENCE)
            fault()
            with berrymq.raises_within(rpc.ConnectionLostError, PATIENCE):
                await waiting
            later = client.rpc.add(1)
            if fault == link.down:
                await asyncio.sleep(0.03)
                assert not later.done()
                link.up()
            assert await later == 2

    async def test_several_servers(self, berrymq: Kit) -> None:
        servers = [await berrymq.serve(Handler()) for _ in range(2)]
        client = await berrymq.client(*servers)
        with pytest.raises(ValueError, match="has 2 links"):
            berrymq.link(client)
        await berrymq.until(lambda: client.statistics()["peers"] == 2, PATIENCE)
        berrymq.link(client, servers[0]).down()
        await berrymq.until(lambda: client.statistics()["peers"] == 1, PATIENCE)
        await client.rpc.add(1)
        assert len(servers[1].calls("add")) == 1
        assert berrymq.link(client, servers[0]) is not berrymq.link(client, servers[1])

    async def test_bad_use(self, berrymq: Kit) -> None:
        server = await berrymq.serve(Handler())
        client = await berrymq.client(server)
        link = berrymq.link(client)
        for word in (link.drop, link.duplicate):
            with pytest.raises(ValueError, match="'server' or 'client', not 'me'"):
                word(towards="me")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="0 seconds or more"):
            link.delay = -1
        with pytest.raises(TypeError, match="give a client"):
            berrymq.link(server)  # type: ignore[arg-type]
        async with await rpc.open_client(connect=server.endpoints) as own:
            with pytest.raises(ValueError, match=r"open it by berrymq\.client"):
                berrymq.link(own)


class TestBadUse:
    async def test_servers(self, berrymq: Kit) -> None:
        with pytest.raises(TypeError, match="not the class Handler itself"):
            await berrymq.serve(Handler)
        with pytest.raises(TypeError, match=r"with bind= use rpc\.start_server"):
            await berrymq.serve(Handler(), bind="mem://mine")
        with pytest.raises(TypeError, match="unexpected keyword"):
            await berrymq.serve(Handler(), wrong=1)

    async def test_clients(self, berrymq: Kit) -> None:
        server = await berrymq.serve(Handler())
        with pytest.raises(TypeError, match="give a server"):
            await berrymq.client()
        with pytest.raises(TypeError, match=r"not awaited: await berrymq\.serve"):
            await berrymq.client(berrymq.serve(Handler()))  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"'mem://x' is not a server"):
            await berrymq.client("mem://x")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="with connect="):
            await berrymq.client(server, connect="mem://x")

    async def test_sync_and_async(self, berrymq: Kit) -> None:
        server = await berrymq.serve(Handler())
        with pytest.raises(ValueError, match="which a sync client would hold"):
            berrymq.sync_client(server)
        on_a_thread = berrymq.sync_serve(Handler())
        with pytest.raises(TypeError, match=r"berrymq\.sync_client\(server\)"):
            await berrymq.client(on_a_thread)  # type: ignore[arg-type]
        assert await asyncio.to_thread(berrymq.sync_client(on_a_thread).rpc.add, 1) == 2

    async def test_until(self, berrymq: Kit) -> None:
        nothing: list[int] = []
        with pytest.raises(AssertionError, match=r"within 0\.01 s, but \[\]: .*lambda: nothing"):
            await berrymq.until(lambda: nothing, 0.01)
        with pytest.raises(AssertionError, match=r"within 0\.01 s, but \[\]: .*lambda: nothing"):
            berrymq.sync_until(lambda: nothing, 0.01)

        async def condition() -> bool:
            return True

        with pytest.raises(TypeError, match="give a plain function"):
            await berrymq.until(condition)

    @pytest.mark.parametrize("word", ["serve", "client"])
    def test_another_event_loop(self, word: str) -> None:
        kit = Kit()
        # As trio drives it: no event loop of asyncio is running.
        with pytest.raises(RuntimeError, match=r"anyio_backend has to return 'asyncio'"):
            getattr(kit, word)({}).send(None)
        with pytest.raises(StopIteration):
            kit.__aexit__(None, None, None).send(None)

    def test_kinds_of_leaks(self, berrymq: Kit) -> None:
        with pytest.raises(ValueError, match=r"\['sockets', 'tasks', 'threads'\], not \['files'\]"):
            berrymq.allow_leaks("files", "tasks")


class TestPlainTests:
    def test_calls(self, berrymq: Kit) -> None:
        server = berrymq.sync_serve({"add": rpc.method(lambda a, b: a + b)})
        client = berrymq.sync_client(server)
        assert client.rpc.add(1, 2) == 3
        server.method("add").fails(ValueError)
        with pytest.raises(ValueError, match=r"^$"):
            client.rpc.add(1, 2)
        assert len(server.calls("add")) == 2
        assert server.statistics()["calls"] >= 2

    def test_life(self, berrymq: Kit) -> None:
        server = berrymq.sync_serve({"add": rpc.method(lambda a, b: a + b)})
        client = berrymq.sync_client(server)
        assert client.rpc.add(1, 2) == 3
        server.kill()
        server.restart()
        with contextlib.suppress(rpc.ConnectionLostError):
            # Over NATS, this is how the client notices.
            client.rpc.add(1, 2)
        assert client.rpc.add(1, 2) == 3
        server.freeze()
        with berrymq.raises_within(rpc.RPCTimeoutError, PATIENCE):
            client.with_timeout(0.02).rpc.add(1, 2)
        server.thaw()
        berrymq.link(client).delay = 0.02
        assert client.rpc.add(1, 2) == 3
        server.close()
        assert not server.is_serving


class TestBus:
    def test_it_is_the_default_one(self, berrymq: Kit) -> None:
        bus = berrymq.bus()
        assert bus is default_bus is berrymq.bus()
        heard = berrymq.listen("oven:*")
        twitter("oven:log", 42)
        heard.expect("oven:log", 42, timeout=0)

    def test_it_is_restored(self) -> None:
        before = default_bus.registrations()
        with Kit() as kit:
            kit.bus()
            kit.listen()
            assert len(default_bus.registrations()) == 1
        assert default_bus.registrations() == before

    def test_a_listener_of_the_bus_as_it_is_ends(self) -> None:
        before = len(default_bus.registrations())
        with Kit() as kit:
            kit.listen("a:b")
            assert len(default_bus.registrations()) == before + 1
        assert len(default_bus.registrations()) == before


class TestLeaks:
    async def test_a_task(self) -> None:
        task: asyncio.Task[Any] | None = None
        with pytest.raises(LeakError, match=r"left behind:\n  a task still runs: .*sleep"):
            async with Kit():
                task = asyncio.create_task(asyncio.sleep(100))
        assert task is not None
        task.cancel()

    async def test_a_thread(self) -> None:
        event = threading.Event()
        thread = threading.Thread(target=event.wait, name="mine")
        kit = Kit()
        kit.begin()
        thread.start()
        assert await kit.aclose() == ["a thread still runs: 'mine'"]
        event.set()
        thread.join()

    def test_a_socket(self) -> None:
        with pytest.raises(LeakError, match=r"  a socket is open: <socket\.socket fd="), Kit():
            left = socket.socket()
        left.close()

    async def test_a_server_of_its_own(self) -> None:
        with pytest.raises(LeakError, match=r"a socket is open: <zmq\.Socket"):
            async with Kit():
                server = await rpc.start_server({}, bind="tcp://127.0.0.1:*")
        server.close()
        await server.wait_closed()

    def test_what_was_there_before_is_none(self) -> None:
        with socket.socket(), Kit():
            pass

    def test_many_sockets(self) -> None:
        left: list[socket.socket] = []
        with pytest.raises(LeakError) as caught, Kit(), Kit():
            left += [socket.socket() for _ in range(30)]
        assert str(caught.value).count("a socket is open") == 30
        for one in left:
            one.close()

    def test_sockets_are_noted_only_meanwhile(self) -> None:
        before = socket.socket.__init__
        with Kit():
            with Kit():
                assert socket.socket.__init__ is not before
            assert socket.socket.__init__ is not before
        assert socket.socket.__init__ is before

    def test_what_is_allowed(self) -> None:
        with Kit() as kit:
            kit.allow_leaks()
            left = socket.socket()
        left.close()

    def test_the_failure_of_the_test_comes_first(self) -> None:
        with pytest.raises(KeyError) as caught, Kit():
            left = socket.socket()
            raise KeyError
        assert "a socket is open" in caught.value.__notes__[0]
        left.close()

    async def test_everything_is_closed(self) -> None:
        async with Kit() as kit:
            server = await kit.serve(Handler())
            client = await kit.client(server)
            sync = kit.sync_client(kit.sync_serve(Handler()))
            waiting = client.rpc.wait()
            await kit.until(lambda: server.calls("wait"), PATIENCE)
        with pytest.raises(rpc.ServiceClosedError):
            await waiting
        with pytest.raises(rpc.ServiceClosedError):
            sync.rpc.add(1)
        assert not server.is_serving


def test_an_event_loop_that_was_closed_before() -> None:
    kit = Kit(MemoryNetwork())
    asyncio.run(kit.serve(Handler()))
    with pytest.raises(RuntimeError, match=r"closed before <KitServer .*async with Kit\(\)"):
        kit.close()


def test_a_loop_that_does_not_run_any_more() -> None:
    kit = Kit()
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(kit.serve(Handler()))
    kit.close()
    assert not server.is_serving
    loop.close()


def test_repr() -> None:
    with Kit() as kit:
        server = kit.sync_serve({})
        assert repr(server).startswith("<SyncKitServer mem://")
        assert isinstance(server.served, KitServer)
