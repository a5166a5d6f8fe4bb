"""Every bound: over it there is a clear error that names it, and the client works on."""

import asyncio
import dataclasses
import os
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from berrymq_rpc import rpc
from berrymq_rpc.rpc import Limits

try:
    from aiozmq import rpc as plain
except ImportError:
    plain = None

Until = Callable[..., Awaitable[None]]

MIB = 1 << 20


class Handler(rpc.AttrHandler):
    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.running = 0
        self.most = 0
        self.started = 0
        self.received: list[Any] = []

    @rpc.method
    def echo(self, value):
        return value

    @rpc.method
    def size(self, value):
        return len(value)

    @rpc.method
    def give(self, size):
        return bytes(size)

    @rpc.method
    def give_text(self, size):
        return "x" * size

    @rpc.method
    def keep(self, value):
        self.received.append(value)

    @rpc.method
    def add(self, a, b=1):
        return a + b

    @rpc.method
    async def hold(self):
        self.started += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.go_on.wait()
        finally:
            self.running -= 1

    @rpc.method(waits=True)
    async def wait(self):
        await self.go_on.wait()

    @rpc.method
    async def stream(self, count, size=1):
        for _ in range(count):
            yield bytes(size)

    @rpc.method
    async def gated(self):
        yield 1
        await self.go_on.wait()


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture(params=["mem://*", "tcp://127.0.0.1:*"])
def bind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def limits(**bounds: Any) -> dict[str, Any]:
    return {"limits": Limits(**bounds)}


# -- the object --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Limits)])
@pytest.mark.parametrize("value", [0, -1, None, "5", True, float("nan")])
def test_bounds_that_are_none(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        Limits(**{name: value})


async def test_depth_beyond_what_msgpack_takes() -> None:
    with pytest.raises(ValueError, match="max_depth"):
        await rpc.start_server({}, bind="mem://*", limits=Limits(max_depth=100_000))


# -- sizes -------------------------------------------------------------------------------------


async def test_max_message_of_the_client(pair: Any, handler: Handler, bind: str) -> None:
    async with pair(handler, bind=bind, **limits(max_message=20_000)) as (_, client):
        with pytest.raises(rpc.TooLargeError, match="max_message=20,000"):
            await client.rpc.size("x" * 20_001)
        with pytest.raises(rpc.TooLargeError, match="max_message=20,000"):
            client.notify.size("x" * 20_001)
        assert await client.rpc.size("x" * 19_000) == 19_000
        with pytest.raises(rpc.TooLargeError, match="max_message=20,000"):
            await client.rpc.give_text(30_000)
        assert len(await client.rpc.give_text(19_000)) == 19_000


async def test_max_message_of_the_server(pair: Any, handler: Handler, bind: str) -> None:
    async with pair(handler, bind=bind, server=limits(max_message=200_000)) as (_, client):
        assert await client.rpc.add(1) == 2
        with pytest.raises(rpc.TooLargeError, match="max_message=200,000"):
            await client.rpc.size("x" * 300_000)
        assert await client.rpc.size("x" * 190_000) == 190_000
        with pytest.raises(rpc.TooLargeError, match="max_message=200,000"):
            await client.rpc.give_text(300_000)
        assert await client.rpc.add(1) == 2


async def test_max_message_of_a_server_that_has_not_told_it_yet(
    pair: Any, handler: Handler, bind: str
) -> None:
    """The first call leaves before the server's hello has come."""
    async with pair(handler, bind=bind, server=limits(max_message=200_000)) as (_, client):
        with pytest.raises(rpc.TooLargeError, match="max_message=200,000"):
            async with asyncio.timeout(5):
                await client.rpc.size("x" * 300_000)
        assert await client.rpc.add(1) == 2


async def test_max_frame_of_the_client(pair: Any, handler: Handler, bind: str) -> None:
    async with pair(handler, bind=bind, **limits(max_frame=200_000)) as (_, client):
        assert await client.rpc.add(1) == 2
        with pytest.raises(rpc.TooLargeError, match="max_frame=200,000"):
            await client.rpc.size(bytes(200_001))
        with pytest.raises(rpc.TooLargeError, match="max_frame=200,000"):
            await client.rpc.give(200_001)
        assert len(await client.rpc.give(200_000)) == 200_000
        assert await client.rpc.size(bytes(200_000)) == 200_000


async def test_max_frame_of_the_server(pair: Any, handler: Handler, bind: str) -> None:
    async with pair(handler, bind=bind, server=limits(max_frame=200_000)) as (_, client):
        assert await client.rpc.add(1) == 2
        with pytest.raises(rpc.TooLargeError, match="max_frame=200,000"):
            await client.rpc.size(bytes(200_001))
        with pytest.raises(rpc.TooLargeError, match="max_frame=200,000"):
            await client.rpc.give(200_001)
        assert await client.rpc.size(bytes(200_000)) == 200_000


async def test_max_frame_of_a_server_that_has_not_told_it_yet(
    pair: Any, handler: Handler, bind: str
) -> None:
    """The transport cuts off who sends more, before there is a call to answer."""
    bounds = limits(max_frame=200_000, max_message=50_000)
    async with pair(handler, bind=bind, server=bounds) as (_, client):
        with pytest.raises(rpc.ConnectionLostError, match="'size' was sent"):
            async with asyncio.timeout(5):
                await client.rpc.size(bytes(300_000))
        assert await client.rpc.add(1) == 2
        with pytest.raises(rpc.TooLargeError, match="max_frame=200,000"):
            await client.rpc.size(bytes(300_000))
        assert await client.rpc.add(1) == 2


async def test_item_that_is_too_large(pair: Any, handler: Handler, bind: str) -> None:
    async with pair(handler, bind=bind, **limits(max_frame=200_000)) as (_, client):
        items = client.rpc.stream(3, 300_000)
        with pytest.raises(rpc.TooLargeError, match="max_frame=200,000"):
            await anext(items)
        with pytest.raises(StopAsyncIteration):
            await anext(items)
        assert await client.rpc.add(1) == 2


async def test_too_large_in_the_other_dialect(pair: Any, handler: Handler) -> None:
    """Four times as much, as they know no bound of ours."""
    small = Limits(max_message=20_000)
    async with pair(handler, server={"limits": small}, dialect="aiozmq") as (_, client):
        with pytest.raises(rpc.TooLargeError, match=r"80,000|max_message"):
            await client.rpc.give(90_000)
        with pytest.raises(rpc.TooLargeError, match=r"80,000|max_message"):
            await client.rpc.size(bytes(90_000))
        assert await client.rpc.size(bytes(79_000)) == 79_000
    async with pair(handler, limits=small, dialect="aiozmq") as (_, client):
        with pytest.raises(rpc.TooLargeError, match="max_message"):
            await client.rpc.size(bytes(90_000))
        assert await client.rpc.size(bytes(79_000)) == 79_000


@pytest.mark.parametrize("size", [0, 1, 8191, 8192, 8193, 65_536, 131_072, MIB, 20 * MIB])
async def test_bytes_of_any_size(pair: Any, handler: Handler, bind: str, size: int) -> None:
    data = random.Random(size).randbytes(size)
    async with pair(handler, bind=bind) as (_, client):
        got = await client.rpc.echo(data)
        assert type(got) is bytes
        assert got == data
        nested = {"a": [data, 1, {"b": data[::-1]}], "c": data[: size // 2]}
        assert await client.rpc.echo(nested) == {**nested, "a": tuple(nested["a"])}


@pytest.mark.parametrize("size", [100, 20_000, 3 * MIB])
async def test_buffers_of_any_kind(pair: Any, handler: Handler, bind: str, size: int) -> None:
    data = random.Random(size).randbytes(size)
    async with pair(handler, bind=bind) as (_, client):
        for value in (
            bytearray(data),
            memoryview(data),
            memoryview(bytearray(data)),
            memoryview(data)[:],
        ):
            assert await client.rpc.echo(value) == data
        assert await client.rpc.echo(memoryview(data)[10:-10]) == data[10:-10]
        changing = bytearray(data)
        call = client.rpc.echo(changing)
        for index in range(len(changing)):
            changing[index] = 0
        assert await call == data, "what was sent is what it was when it was sent"


async def test_large_bytes_in_the_other_dialect(pair: Any, handler: Handler) -> None:
    data = os.urandom(3 * MIB)
    async with pair(handler, dialect="aiozmq") as (_, client):
        assert await client.rpc.echo(data) == data


async def test_many_large_calls_at_once(pair: Any, handler: Handler, bind: str) -> None:
    """More bytes than may be queued for either side: none fails, none is lost."""
    datas = [bytes([number]) * (MIB // 2) for number in range(24)]
    async with pair(handler, bind=bind) as (_, client):
        assert await asyncio.gather(*map(client.rpc.echo, datas)) == datas


async def test_many_large_answers_at_once(pair: Any, handler: Handler, bind: str) -> None:
    """The calls come in one message; those whose answers find no room wait for it."""
    async with pair(handler, bind=bind, server=limits(max_queued_bytes=MIB)) as (_, client):
        calls = [client.rpc.give(MIB // 2 + number) for number in range(100)]
        assert [len(data) for data in await asyncio.gather(*calls)] == [
            MIB // 2 + number for number in range(100)
        ]
        client.notify.add(1)
        assert await client.rpc.add(1) == 2


async def test_max_depth(pair: Any, handler: Handler, bind: str) -> None:
    def nested(levels: int) -> Any:
        value: Any = 1
        for _ in range(levels):
            value = [value]
        return value

    async with pair(handler, bind=bind) as (_, client):
        assert await client.rpc.echo(nested(90))
        for levels in (150, 600, 5_000):
            with pytest.raises((rpc.ProtocolError, ValueError), match="100 levels deep"):
                await client.rpc.echo(nested(levels))
        with pytest.raises((rpc.ProtocolError, ValueError), match="100 levels deep"):
            await client.rpc.echo({"a": {"b": nested(150)}})
        assert await client.rpc.add(1) == 2
    async with pair(handler, bind=bind, server=limits(max_depth=10)) as (_, client):
        with pytest.raises(rpc.ProtocolError, match="10 levels deep"):
            await client.rpc.echo(nested(20))
        assert await client.rpc.add(1) == 2


# -- calls in flight ---------------------------------------------------------------------------


async def test_window(pair: Any, handler: Handler, bind: str, until: Until) -> None:
    """What is over it waits in the client's process, and all of it completes."""
    async with pair(handler, bind=bind, server=limits(window=7)) as (_, client):
        assert await client.rpc.add(1) == 2
        calls = [client.rpc.hold() for _ in range(100)]
        await until(lambda: handler.running == 7)
        for _ in range(20):
            await asyncio.sleep(0)
        assert handler.most == 7
        handler.go_on.set()
        await asyncio.gather(*calls)
        assert handler.most == 7


async def test_window_in_the_first_burst(
    pair: Any, handler: Handler, bind: str, until: Until
) -> None:
    """The server's window is smaller than what a client may send before it knows."""
    async with pair(handler, bind=bind, server=limits(window=2)) as (_, client):
        calls = [client.rpc.hold() for _ in range(100)]
        await until(lambda: handler.running == 2)
        handler.go_on.set()
        assert set(await asyncio.gather(*calls)) == {None}
        assert handler.most == 2


async def test_cancelled_while_it_waits_at_the_server(
    pair: Any, handler: Handler, until: Until
) -> None:
    async with pair(handler, server=limits(window=2)) as (server, client):
        calls = [client.rpc.hold() for _ in range(50)]
        timed = [client.with_timeout(0.2).rpc.hold() for _ in range(10)]
        await until(lambda: handler.running == 2)
        for call in calls[2:]:
            call.cancel()
        got = await asyncio.gather(*timed, return_exceptions=True)
        assert {type(error) for error in got} == {rpc.RPCTimeoutError}
        # Read after the cancels; it needs no room in the window.
        client.notify.keep("read")
        await until(lambda: handler.received)
        handler.go_on.set()
        await asyncio.gather(*calls[:2])
        assert await client.rpc.hold() is None
        assert handler.started == 3
        assert server.statistics()["calls_running"] == 0


async def test_deadline_runs_while_a_call_waits_for_the_window(
    pair: Any, handler: Handler, until: Until
) -> None:
    async with pair(handler, server=limits(window=2)) as (_, client):
        assert await client.rpc.add(1) == 2
        holding = [client.rpc.hold() for _ in range(2)]
        await until(lambda: handler.running == 2)
        with pytest.raises(rpc.RPCTimeoutError, match="not sent"):
            await client.with_timeout(0.05).rpc.add(1)
        handler.go_on.set()
        await asyncio.gather(*holding)
        assert await client.rpc.add(1) == 2


async def test_max_in_flight(pair: Any, handler: Handler, bind: str, until: Until) -> None:
    """It is shared by all peers, which cannot know of one another."""
    async with (
        pair(handler, bind=bind, server=limits(max_in_flight=10)) as (server, client),
        await rpc.open_client(connect=server.endpoints) as other,
    ):
        first = [client.rpc.hold() for _ in range(8)]
        await until(lambda: handler.running == 8)
        second = [other.rpc.hold() for _ in range(8)]
        await until(lambda: sum(call.done() for call in second) == 6)
        assert handler.running == 10
        failed = [call for call in second if call.done()]
        for call in failed:
            with pytest.raises(rpc.OverloadedError, match="max_in_flight=10"):
                await call
        handler.go_on.set()
        await asyncio.gather(*first, *(call for call in second if call not in failed))
        assert await other.rpc.add(1) == 2
        assert await client.rpc.hold() is None


async def test_max_waiting(pair: Any, handler: Handler, bind: str, until: Until) -> None:
    async with pair(handler, bind=bind, server=limits(max_waiting=5)) as (_, client):
        waiting = [client.rpc.wait() for _ in range(3)]
        streams = [client.rpc.gated() for _ in range(2)]
        for items in streams:
            assert await anext(items) == 1
        with pytest.raises(rpc.OverloadedError, match="max_waiting=5"):
            await client.rpc.wait()
        with pytest.raises(rpc.OverloadedError, match="max_waiting=5"):
            await anext(client.rpc.gated())
        assert await client.rpc.add(1) == 2
        handler.go_on.set()
        await asyncio.gather(*waiting)
        assert await client.rpc.wait() is None


async def test_max_all_waiting(pair: Any, handler: Handler, bind: str, until: Until) -> None:
    async with (
        pair(handler, bind=bind, server=limits(max_waiting=4, max_all_waiting=6)) as (server, one),
        await rpc.open_client(connect=server.endpoints) as other,
    ):
        waiting = [one.rpc.wait() for _ in range(4)]
        await until(lambda: server.statistics()["calls_running"] == 4)
        waiting += [other.rpc.wait() for _ in range(2)]
        await until(lambda: server.statistics()["calls_running"] == 6)
        with pytest.raises(rpc.OverloadedError, match="max_all_waiting=6"):
            await other.rpc.wait()
        assert await other.rpc.add(1) == 2
        handler.go_on.set()
        await asyncio.gather(*waiting)
        assert await other.rpc.wait() is None


async def test_max_peers(pair: Any, handler: Handler, bind: str, until: Until) -> None:
    async with pair(handler, bind=bind, server=limits(max_peers=2)) as (server, first):
        assert await first.rpc.add(1) == 2
        async with await rpc.open_client(connect=server.endpoints) as second:
            assert await second.rpc.add(1) == 2
            async with await rpc.open_client(connect=server.endpoints) as third:
                for _ in range(3):
                    with pytest.raises(rpc.OverloadedError, match="max_peers=2"):
                        await third.rpc.add(1)
                calls = [third.rpc.add(number) for number in range(200)]
                got = await asyncio.gather(*calls, return_exceptions=True)
                assert {type(error) for error in got} == {rpc.OverloadedError}
                assert await first.rpc.add(1) == 2
                assert server.statistics()["peers"] == 2
                second.close()
                await second.wait_closed()
                await until(lambda: server.statistics()["peers"] == 1)
                assert await third.rpc.add(1) == 2, "there is room for it now"
                assert server.statistics()["peers"] == 2


async def test_max_peers_in_the_other_dialect(pair: Any, handler: Handler) -> None:
    async with pair(handler, server=limits(max_peers=1)) as (server, first):
        assert await first.rpc.add(1) == 2
        async with await rpc.open_client(connect=server.endpoints, dialect="aiozmq") as second:
            with pytest.raises(rpc.OverloadedError, match="max_peers=1"):
                await second.rpc.add(1)


async def test_max_queued_calls(pair: Any, handler: Handler, until: Until) -> None:
    """A peer that knows no window: its calls are queued, up to a bound in bytes."""
    bounds = limits(window=5, max_queued_call_bytes=10_000)
    async with pair(handler, server=bounds, dialect="aiozmq") as (server, client):
        assert await client.rpc.add(1) == 2
        # Its own window is 500, so all of these are sent.
        calls = [client.rpc.hold() for _ in range(400)]
        await until(lambda: server.statistics()["calls"] == 401)
        await until(lambda: handler.running == 5)
        handler.go_on.set()
        got = await asyncio.gather(*calls, return_exceptions=True)
        refused = [error for error in got if isinstance(error, rpc.OverloadedError)]
        assert 300 < len(refused) < 395
        assert all("max_queued_call_bytes=10,000" in str(error) for error in refused)
        assert set(map(type, got)) == {rpc.OverloadedError, type(None)}
        assert handler.most == 5
        assert server.statistics()["calls_running"] == 0


async def test_max_all_queued_calls(pair: Any, handler: Handler, until: Until) -> None:
    bounds = limits(window=5, max_queued_call_bytes=15_000, max_all_queued_call_bytes=20_000)
    async with (
        pair(handler, server=bounds, dialect="aiozmq") as (server, one),
        await rpc.open_client(connect=server.endpoints, dialect="aiozmq") as other,
        await rpc.open_client(connect=server.endpoints, dialect="aiozmq") as third,
    ):
        assert await third.rpc.add(1) == 2
        first = [one.rpc.hold() for _ in range(40)]
        await until(lambda: server.statistics()["calls"] == 41)
        second = [other.rpc.hold() for _ in range(40)]
        await until(lambda: server.statistics()["calls"] == 81)
        await until(lambda: sum(call.done() for call in second) > 20)
        texts = [str(call.exception()) for call in second if call.done()]
        assert [text for text in texts if "max_all_queued_call_bytes=20,000" not in text] == []
        assert 18_000 < server.statistics()["call_bytes_queued"] <= 20_000
        # What has a slot does not wait.
        held = third.rpc.hold()
        await until(lambda: server.statistics()["calls"] == 82)
        assert await third.rpc.add(1) == 2
        # Those of a peer that leaves wait no more.
        other.close()
        await other.wait_closed()
        await until(lambda: server.statistics()["call_bytes_queued"] <= 15_000)
        handler.go_on.set()
        await held
        got = await asyncio.gather(*first, return_exceptions=True)
        refused = [error for error in got if error is not None]
        assert refused
        assert all("max_queued_call_bytes=15,000" in str(error) for error in refused)
        assert server.statistics()["call_bytes_queued"] == 0
        await asyncio.gather(*second, return_exceptions=True)


@pytest.mark.skipif(plain is None, reason="aiozmq.rpc cannot be imported")
async def test_max_queued_calls_of_a_plain_client(handler: Handler, until: Until) -> None:
    bounds = limits(window=5, max_queued_call_bytes=10_000)
    async with await rpc.start_server(handler, bind="tcp://127.0.0.1:*", **bounds) as server:
        client = await plain.connect_rpc(connect=server.endpoints[0])
        try:
            calls = [client.call.hold() for _ in range(1000)]
            await until(lambda: server.statistics()["calls"] == 1000)
            handler.go_on.set()
            got = await asyncio.gather(*calls, return_exceptions=True)
            refused = [error for error in got if isinstance(error, plain.GenericError)]
            assert 900 < len(refused) < 995
            assert all("max_queued_call_bytes=10,000" in str(error) for error in refused)
            assert set(map(type, got)) == {plain.GenericError, type(None)}
            assert await client.call.add(1) == 2
        finally:
            client.close()
            await client.wait_closed()


async def test_queued_calls_run_in_order(pair: Any) -> None:
    order: list[int] = []

    async def note(number: int) -> None:
        order.append(number)
        await asyncio.sleep(0)

    async with pair({"note": rpc.method(note)}, server=limits(window=1), dialect="aiozmq") as (
        _,
        client,
    ):
        await asyncio.gather(*[client.rpc.note(number) for number in range(300)])
        assert order == list(range(300))


@pytest.mark.skipif(plain is None, reason="aiozmq.rpc cannot be imported")
async def test_queued_calls_are_answered_when_the_server_closes(
    handler: Handler, until: Until
) -> None:
    server = await rpc.start_server(
        handler, bind="tcp://127.0.0.1:*", grace=0.1, limits=Limits(window=2)
    )
    client = await plain.connect_rpc(connect=server.endpoints[0])
    try:
        calls = [client.call.hold() for _ in range(20)]
        await until(lambda: handler.running == 2)
        server.close()
        async with asyncio.timeout(5):
            got = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(error, Exception) for error in got)
        await server.wait_closed()
    finally:
        client.close()
        await client.wait_closed()


# -- what waits to be sent ---------------------------------------------------------------------


async def test_notifications_to_nobody_are_bounded() -> None:
    async with await rpc.open_client(
        connect="mem://nobody", limits=Limits(max_waiting=50)
    ) as client:
        for _ in range(50):
            client.notify.add(1)
        with pytest.raises(rpc.OverloadedError, match="wait"):
            client.notify.add(1)


@pytest.mark.parametrize("size", [100_000, 1000])
async def test_notifications_to_who_does_not_read_are_bounded(
    server_process: Any, size: int
) -> None:
    """By a loop that never awaits. A peer that reads may keep up with it."""
    import signal

    frozen = server_process("--heartbeat", "60")
    bounds = Limits(max_queued_bytes=MIB, heartbeat=60)
    async with await rpc.open_client(connect=frozen.endpoint, limits=bounds) as client:
        assert await client.rpc.add(1) == 2
        frozen.send(signal.SIGSTOP)
        sent = 0
        with pytest.raises(rpc.OverloadedError, match="1,048,576 bytes"):
            while sent < 200_000_000:
                client.notify.echo(bytes(size))
                sent += size
        # What the sockets of both sides hold is not ours to bound.
        assert sent < 100_000_000
        frozen.send(signal.SIGCONT)
        assert await client.rpc.add(1) == 2
        client.notify.count()
        assert await client.rpc.counted() == 1


async def test_a_loop_that_notifies_without_awaiting_is_bounded(
    pair: Any, handler: Handler
) -> None:
    bounds = limits(max_queued_bytes=100_000)
    async with pair(handler, bind="mem://loop", **bounds) as (_, client):
        assert await client.rpc.add(1) == 2
        with pytest.raises(rpc.OverloadedError):
            for _ in range(10_000):
                client.notify.echo(bytes(1000))
        assert await client.rpc.add(1) == 2


async def test_answers_to_all_who_do_not_read_are_bounded(pair: Any, handler: Handler) -> None:
    """Each is below its own bound; together they are not."""
    import struct

    import msgpack
    import zmq

    bounds = limits(
        max_queued_bytes=100 * MIB,
        max_all_queued_bytes=2 * MIB,
        window=10_000,
        # A peer that reads nothing answers no heartbeat either, and is not to be taken for lost.
        heartbeat=60,
    )
    async with pair(handler, server=bounds) as (server, client):
        with zmq.Context() as context:
            peers = [context.socket(zmq.DEALER) for _ in range(4)]
            try:
                for raw in peers:
                    raw.linger = 0
                    raw.rcvhwm = 1
                    raw.connect(server.endpoints[0])
                asked = 1000
                for number in range(asked):
                    header = struct.pack("=HHLd", 1, 2, number, 0.0)
                    frames = [header, b"give", msgpack.packb((20_000,)), b"\x80"]
                    for raw in peers:
                        await asyncio.to_thread(raw.send_multipart, frames)
                    if number % 100 == 0:
                        assert await client.rpc.add(1) == 2
                assert await client.rpc.add(1) == 2
                # What was asked while they were below the bound has been answered.
                assert server.statistics()["bytes_queued"] < 4 * MIB
                for raw in peers:
                    raw.rcvtimeo = 5000
                    for number in range(asked):
                        header, _ = await asyncio.to_thread(raw.recv_multipart)
                        _, _, call_id, _, failed = struct.unpack("=HHLd?", header)
                        assert (call_id, failed) == (number, False)
                assert server.statistics()["bytes_queued"] == 0
            finally:
                for raw in peers:
                    raw.close()


async def test_answers_to_who_does_not_read_are_bounded(pair: Any, handler: Handler) -> None:
    """A raw peer asks for much and reads nothing: others are served, some of it is refused."""
    import struct

    import msgpack
    import zmq

    bounds = limits(
        max_queued_bytes=MIB, max_queued_call_bytes=200_000, window=10_000, heartbeat=60
    )
    async with pair(handler, server=bounds) as (server, client):
        with zmq.Context() as context, context.socket(zmq.DEALER) as raw:
            raw.linger = 0
            raw.rcvhwm = 1
            raw.connect(server.endpoints[0])
            asked = 1500
            for number in range(asked):
                header = struct.pack("=HHLd", 1, 2, number, 0.0)
                frames = [header, b"give", msgpack.packb((50_000,)), b"\x80"]
                await asyncio.to_thread(raw.send_multipart, frames)
                if number % 100 == 0:
                    assert await client.rpc.add(1) == 2
            assert await client.rpc.add(1) == 2
            # Now it reads: each call was answered once, some by a refusal.
            raw.rcvtimeo = 5000
            refused = 0
            for _ in range(asked):
                header, data = await asyncio.to_thread(raw.recv_multipart)
                if struct.unpack("=HHLd?", header)[4]:
                    refused += 1
                    assert b"max_queued_call_bytes=200,000" in data
            assert 0 < refused < asked
