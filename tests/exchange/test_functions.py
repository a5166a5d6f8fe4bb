"""berryMQ's functions as any peer calls them: by a plain RPC client, over real sockets."""

import asyncio
import itertools
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from berrymq_rpc import rpc
from berrymq_rpc.bus import Bus, Message
from berrymq_rpc.exchange import ExportedFunctions
from berrymq_rpc.exchange.remote_queue import RemoteQueue
from berrymq_rpc.testing import link_faults

_numbers = itertools.count()

ENDPOINTS = ["tcp", "mem"]


def endpoint_for(transport: str) -> str:
    return "tcp://127.0.0.1:*" if transport == "tcp" else f"mem://functions-{next(_numbers)}"


class Clock:
    """A time that only a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Followers:
    """Keeps what a bus says, for a test to wait for."""

    def __init__(self, bus: Bus) -> None:
        self.messages: asyncio.Queue[Message] = asyncio.Queue()
        bus.regist_function("*@*:*", self.messages.put_nowait)

    async def next(self) -> Message:
        return await self.messages.get()

    @property
    def silent(self) -> bool:
        return self.messages.empty()


@dataclass
class Served:
    """Functions that are served, and a client of theirs."""

    functions: ExportedFunctions
    bus: Bus
    clock: Clock
    endpoint: str
    client: rpc.Client

    @asynccontextmanager
    async def another(self, **options: Any) -> AsyncIterator[rpc.Client]:
        options.setdefault("timeout", 10)
        async with await rpc.open_client(connect=self.endpoint, **options) as client:
            yield client

    async def waiting(self, token: str, count: int = 1) -> None:
        """Return when so many ``get`` wait."""
        (lease,) = (lease for lease in self.functions.leases if lease.token == token)
        queue, consumer = lease.value.resource, lease.value.consumer
        assert isinstance(queue, RemoteQueue)
        assert consumer is not None
        while queue.consumers + consumer.stalled != count:
            await asyncio.sleep(0)


@asynccontextmanager
async def served(transport: str = "mem", **options: Any) -> AsyncIterator[Served]:
    bus, clock = Bus(), Clock()
    functions = ExportedFunctions(bus, clock=clock, **options)
    endpoint = endpoint_for(transport)
    async with (
        await rpc.start_server(functions, bind=endpoint) as server,
        await rpc.open_client(connect=server.endpoints[0], timeout=10) as client,
    ):
        yield Served(functions, bus, clock, server.endpoints[0], client)
    functions.close()


async def test_the_names_are_berrymqs() -> None:
    async with served() as it:
        methods = (await it.client.describe())["methods"]
        assert [method["name"] for method in methods] == [
            "acknowledge",
            "ask_retained",
            "close_connection",
            "connect_oneway",
            "connect_via_queue",
            "get",
            "get_nowait",
            "in_progress",
            "interconnect",
            "introduce",
            "keep_alive",
            "refuse",
            "send_message",
            "send_messages",
            "send_retained",
        ]
        assert all(method["doc"] for method in methods)


@pytest.mark.parametrize("transport", ENDPOINTS)
async def test_oneway(transport: str) -> None:
    async with served(transport) as it:
        followers = Followers(it.bus)
        token = await it.client.rpc.connect_oneway(1000)
        assert uuid.UUID(token).version == 4
        assert await it.client.rpc.send_message(token, "job:new", [1, "two"], {"three": 3}) == "ok"
        message = await followers.next()
        assert (message.id, message.args, message.kwargs) == ("job:new", (1, "two"), {"three": 3})
        # A caller that only sends is not a node: its messages are this node's own.
        assert message.origin is None
        assert await it.client.rpc.send_message(token, "job") == "ok"
        assert (await followers.next()).id == "job:*"
        assert await it.client.rpc.close_connection(token) == "ok"
        assert await it.client.rpc.send_message(token, "job") == "invalid token"
        assert await it.client.rpc.close_connection(token) == "invalid token"
        assert followers.silent


@pytest.mark.parametrize("transport", ENDPOINTS)
async def test_queue(transport: str) -> None:
    async with served(transport) as it:
        token = await it.client.rpc.connect_via_queue("job:*", 1000)
        it.bus.twitter("other:new")
        assert it.bus.twitter("job:new", 1, two=2) == 1
        it.bus.twitter("job:done")
        assert await it.client.rpc.get(token, True, 5) == {
            "id": "job:new",
            "args": (1,),
            "kwargs": {"two": 2},
        }
        assert (await it.client.rpc.get_nowait(token))["id"] == "job:done"
        assert await it.client.rpc.get_nowait(token) == "timeout"
        # The token of any style will do.
        assert await it.client.rpc.send_message(token, "job:mine", (), {}) == "ok"
        assert (await it.client.rpc.get(token, False, None))["id"] == "job:mine"
        assert await it.client.rpc.close_connection(token) == "ok"
        assert it.bus.twitter("job:new") == 0
        assert await it.client.rpc.get(token, True, None) == "invalid token"
        assert await it.client.rpc.get_nowait(token) == "invalid token"


async def test_a_plain_aiozmq_caller_does_the_same() -> None:
    async with served("tcp") as it, it.another(dialect="aiozmq") as client:
        followers = Followers(it.bus)
        token = await client.rpc.connect_via_queue("job:*", 10)
        assert await client.rpc.send_message(token, "job:new", [1], {"two": 2}) == "ok"
        assert (await followers.next()).args == (1,)
        message = await client.rpc.get(token, True, 5)
        assert (message["id"], message["args"], message["kwargs"]) == ("job:new", (1,), {"two": 2})
        assert await client.rpc.get(token, True, 0.01) == "timeout"
        assert await client.rpc.close_connection(token) == "ok"


class TestTokens:
    async def test_unused_for_too_long(self) -> None:
        async with served() as it:
            token = await it.client.rpc.connect_oneway(10)
            it.clock.now += 9
            assert await it.client.rpc.send_message(token, "job") == "ok"
            it.clock.now += 9
            assert await it.client.rpc.send_message(token, "job") == "ok"
            it.clock.now += 10
            assert await it.client.rpc.send_message(token, "job") == "timeout"
            assert await it.client.rpc.send_message(token, "job") == "invalid token"

    async def test_a_queue_unused_for_too_long(self) -> None:
        async with served() as it:
            token = await it.client.rpc.connect_via_queue("job:*", 10)
            it.bus.twitter("job:new")
            it.clock.now += 10
            assert await it.client.rpc.get(token, True, None) == "timeout"
            assert await it.client.rpc.get(token, True, None) == "invalid token"
            assert it.bus.twitter("job:new") == 0

    async def test_no_one_need_ask_for_a_queue_to_be_freed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        freed = asyncio.Event()
        close = RemoteQueue.close

        def closed(self: RemoteQueue) -> None:
            close(self)
            freed.set()

        monkeypatch.setattr(RemoteQueue, "close", closed)
        bus = Bus()
        functions = ExportedFunctions(bus)
        async with (
            await rpc.start_server(functions, bind="mem://*") as server,
            await rpc.open_client(connect=server.endpoints[0], timeout=10) as client,
        ):
            await client.rpc.connect_via_queue("job:*", 1000)
            await client.rpc.connect_via_queue("job:*", 0.02)
            assert bus.twitter("job:new") == 2
            await freed.wait()
            assert bus.twitter("job:new") == 1
            assert functions.statistics()["connections"] == 1
        functions.close()
        assert bus.twitter("job:new") == 0

    async def test_a_waiting_get_is_use(self) -> None:
        async with served() as it:
            token = await it.client.rpc.connect_via_queue("job:*", 10)
            call = it.client.rpc.get(token, True, None)
            await it.waiting(token)
            it.clock.now += 100
            assert await it.client.rpc.get(token, False) == "timeout"
            it.bus.twitter("job:new")
            assert (await call)["id"] == "job:new"
            it.clock.now += 9
            assert await it.client.rpc.get(token, False) == "timeout"
            it.clock.now += 10
            assert [await it.client.rpc.get(token, False) for _ in range(2)] == [
                "timeout",
                "invalid token",
            ]

    async def test_may_be_shared(self) -> None:
        async with served() as it, it.another() as other:
            token = await it.client.rpc.connect_via_queue("job:*", 10)
            it.bus.twitter("job:new")
            assert (await other.rpc.get(token))["id"] == "job:new"

    @pytest.mark.parametrize("token", [None, 5, "", "other", b"other", ["x"], {"x": 1}])
    async def test_what_is_none(self, token: Any) -> None:
        async with served() as it:
            await it.client.rpc.connect_via_queue("job:*", 10)
            assert await it.client.rpc.send_message(token, "job", (), {}) == "invalid token"
            assert await it.client.rpc.get(token, True, 1) == "invalid token"
            assert await it.client.rpc.get_nowait(token) == "invalid token"
            assert await it.client.rpc.close_connection(token) == "invalid token"

    async def test_one_without_a_queue_has_nothing_to_get(self) -> None:
        async with served() as it:
            token = await it.client.rpc.connect_oneway(10)
            assert await it.client.rpc.get(token, True, None) == "invalid token"
            assert await it.client.rpc.send_message(token, "job") == "ok"

    async def test_there_may_be_so_many(self) -> None:
        async with served(max_connections=2, peer_share=1) as it:
            tokens = [
                await it.client.rpc.connect_oneway(10),
                await it.client.rpc.connect_via_queue("a", 10),
            ]
            for token in tokens:
                assert await it.client.rpc.send_message(token, "b") == "ok"
            for call in (
                it.client.rpc.connect_oneway(10),
                it.client.rpc.connect_via_queue("a", 10),
                it.client.rpc.interconnect(None, None, 10),
            ):
                with pytest.raises(rpc.OverloadedError, match="max_connections=2"):
                    await call
            assert it.bus.twitter("a") == 1
            assert it.functions.statistics()["connections_refused"] == 3
            await it.client.rpc.close_connection(tokens[0])
            await it.client.rpc.connect_oneway(10)
            # It was not used, so it makes way.
            await it.client.rpc.connect_oneway(10)
            assert it.functions.statistics()["connections_displaced"] == 1

    async def test_one_peer_has_a_tenth(self) -> None:
        async with served() as it, it.another() as other:
            tokens = [await it.client.rpc.connect_oneway(10) for _ in range(1000)]
            for token in tokens:
                assert await it.client.rpc.send_message(token, "b") == "ok"
            for call in (it.client.rpc.connect_oneway(10), it.client.rpc.connect_via_queue("a")):
                with pytest.raises(
                    rpc.OverloadedError, match="one peer has 1,000 of max_connections=10,000"
                ):
                    await call
            assert it.bus.twitter("a") == 0
            await other.rpc.connect_oneway(10)

    async def test_all_connections_of_a_user_are_one_peer(self) -> None:
        keys = rpc.KeyPair.generate()
        clients = [rpc.KeyPair.generate() for _ in range(3)]
        users = {keys.public: name for keys, name in zip(clients, "aab", strict=True)}
        functions = ExportedFunctions(Bus(), max_connections=10)
        security = rpc.CurveServer(keys, lambda key: users.get(key, False))
        async with await rpc.start_server(
            functions, bind="tcp://127.0.0.1:*", security=security
        ) as server:
            refused = []
            for pair in clients:
                async with await rpc.open_client(
                    connect=server.endpoints,
                    security=rpc.CurveClient(pair, server=keys.public),
                    timeout=10,
                ) as client:
                    try:
                        token = await client.rpc.connect_oneway(10)
                        await client.rpc.send_message(token, "b")
                        refused.append(False)
                    except rpc.OverloadedError:
                        refused.append(True)
            assert refused == [False, True, False]
        functions.close()

    async def test_a_long_ttl_is_cut(self) -> None:
        async with served(max_ttl=100) as it:
            for ttl in (1e308, float("inf"), 101):
                token = await it.client.rpc.connect_oneway(ttl)
                it.clock.now += 99
                assert await it.client.rpc.send_message(token, "b") == "ok"
                it.clock.now += 100
                assert await it.client.rpc.send_message(token, "b") == "timeout"
            with pytest.raises(ValueError, match="ttl must be a number of seconds above 0"):
                await it.client.rpc.connect_oneway(float("nan"))

    @pytest.mark.parametrize("ttl", [0, -1, True, None, "10", float("nan")])
    async def test_ttl_is_a_number_above_zero(self, ttl: Any) -> None:
        async with served() as it:
            for call in (
                it.client.rpc.connect_oneway(ttl),
                it.client.rpc.connect_via_queue("a", ttl),
                it.client.rpc.interconnect(None, None, ttl),
            ):
                with pytest.raises(ValueError, match="ttl must be a number of seconds above 0"):
                    await call
            assert it.bus.twitter("a") == 0


class TestLocal:
    async def test_is_refused(self) -> None:
        async with served() as it:
            followers = Followers(it.bus)
            token = await it.client.rpc.connect_oneway(10)
            for call in (
                it.client.rpc.send_message(token, "_local:new", (), {}),
                it.client.rpc.connect_via_queue("_local:*", 10),
            ):
                with pytest.raises(ValueError, match="local"):
                    await call
            assert followers.silent

    async def test_is_kept_by_no_queue(self) -> None:
        async with served() as it:
            token = await it.client.rpc.connect_via_queue("*@*:*", 10)
            assert it.bus.twitter("_local:new") == 0
            it.bus.twitter("job:new")
            assert (await it.client.rpc.get(token))["id"] == "job:new"

    async def test_is_reached_by_no_wildcard(self) -> None:
        async with served() as it:
            heard: list[Message] = []
            it.bus.regist_function("_local:new", heard.append)
            token = await it.client.rpc.connect_oneway(10)
            assert await it.client.rpc.send_message(token, "*:new", (), {}) == "ok"
            assert heard == []


@pytest.mark.parametrize("identifier", ["", "a:b:c", "a b:", "@x", "x" * 2000])
async def test_what_is_no_identifier(identifier: Any) -> None:
    async with served() as it:
        token = await it.client.rpc.connect_oneway(10)
        for call in (
            it.client.rpc.send_message(token, identifier, (), {}),
            it.client.rpc.connect_via_queue(identifier, 10),
        ):
            with pytest.raises(ValueError, match="not an identifier"):
                await call


@pytest.mark.parametrize(("args", "kwargs"), [("text", {}), (5, {}), ((), 5), ((), {5: 5})])
async def test_what_are_no_arguments(args: Any, kwargs: Any) -> None:
    async with served() as it:
        token = await it.client.rpc.connect_oneway(10)
        with pytest.raises(TypeError, match=r"kwargs|args"):
            await it.client.rpc.send_message(token, "job", args, kwargs)


@pytest.mark.parametrize(
    "option",
    ["queue_size", "queue_bytes", "max_connections", "max_unacknowledged", "max_peer_links"],
)
@pytest.mark.parametrize("value", [0, -1, True, 1.5, None])
def test_bounds_are_whole_numbers(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=option):
        ExportedFunctions(Bus(), **{option: value})


@pytest.mark.parametrize("total", [0, -1, True, 1.5])
def test_the_bytes_of_all_queues_are_a_whole_number(total: Any) -> None:
    with pytest.raises(ValueError, match="total_queue_bytes must be a whole number"):
        ExportedFunctions(Bus(), total_queue_bytes=total)


@pytest.mark.parametrize("share", [0, -0.1, 1.1, True, float("nan"), None, "0.1"])
def test_a_share_is_a_part(share: Any) -> None:
    with pytest.raises(ValueError, match="peer_share must be above 0 and at most 1"):
        ExportedFunctions(Bus(), peer_share=share)


class TestGet:
    async def test_waits_for_its_time(self) -> None:
        async with served() as it:
            token = await it.client.rpc.connect_via_queue("job:*", 10)
            assert await it.client.rpc.get(token, True, 0.02) == "timeout"
            assert await it.client.rpc.get(token, True, 0) == "timeout"

    @pytest.mark.parametrize("timeout", [-1, True, "5", float("nan"), [1]])
    async def test_time_is_a_number(self, timeout: Any) -> None:
        async with served() as it:
            token = await it.client.rpc.connect_via_queue("job:*", 10)
            with pytest.raises(ValueError, match="timeout must be a number of seconds"):
                await it.client.rpc.get(token, True, timeout)

    @pytest.mark.nodebug
    async def test_blocks_no_one(self) -> None:
        async with served("tcp") as it:
            token = await it.client.rpc.connect_via_queue("job:*", 10)
            # More than the window of calls in flight.
            waiting = it.client.with_timeout(None)
            calls = [waiting.rpc.get(token, True, None) for _ in range(1500)]
            await it.waiting(token, 1500)
            assert await it.client.rpc.get_nowait(token) == "timeout"
            for number in range(1500):
                it.bus.twitter("job:new", number)
            numbers = [(await call)["args"][0] for call in calls]
            assert sorted(numbers) == [*range(1500)]

    async def test_ends_with_its_connection(self) -> None:
        async with served() as it, it.another() as other:
            token = await it.client.rpc.connect_via_queue("job:*", 10)
            calls = [it.client.rpc.get(token, True, None) for _ in range(3)]
            await it.waiting(token, 3)
            assert await other.rpc.close_connection(token) == "ok"
            assert [await call for call in calls] == ["invalid token"] * 3

    async def test_a_full_queue_drops_its_oldest(self, caplog: pytest.LogCaptureFixture) -> None:
        async with served(queue_size=2) as it:
            token = await it.client.rpc.connect_via_queue("job:*", 10)
            with caplog.at_level(logging.WARNING, "berrymq_rpc.exchange"):
                for number in range(5):
                    it.bus.twitter("job:new", number)
            assert "remote queue job:*: full with 2 messages" in caplog.text
            counts = {
                "connections": 1,
                "connections_refused": 0,
                "connections_displaced": 0,
                "queues": 1,
                "queue_bytes": it.functions.queues[0].bytes,
                "consumers_waiting": 0,
                "messages_unacknowledged": 0,
                "messages_dead": 0,
                "messages_denied": 0,
                "messages_withheld": 0,
                "messages_waiting": 2,
                "messages_dropped": 3,
            }
            assert it.functions.statistics() == counts
            messages = [await it.client.rpc.get(token) for _ in range(2)]
            assert [message["args"] for message in messages] == [(3,), (4,)]
            # The consumer is informed, once.
            assert [message.get("dropped") for message in messages] == [3, None]
            await it.client.rpc.close_connection(token)
            assert it.functions.statistics() == counts | {
                "connections": 0,
                "queues": 0,
                "queue_bytes": 0,
                "messages_waiting": 0,
            }

    async def test_a_queue_is_bounded_in_bytes(self, caplog: pytest.LogCaptureFixture) -> None:
        async with served(queue_bytes=100_000) as it:
            followers = Followers(it.bus)
            token = await it.client.rpc.connect_via_queue("job:*", 10)
            for number in range(5):
                it.bus.twitter("job:new", number, bytes(30_000))
            # Nothing else makes way for one that does not fit.
            it.bus.twitter("job:new", 5, bytes(100_000))
            assert "is too large, 3 dropped so far" in caplog.text
            assert "remote queue job:*: full with 100,000 bytes, 1 dropped so far" in caplog.text
            messages = [await it.client.rpc.get(token) for _ in range(3)]
            assert [message["args"][0] for message in messages] == [2, 3, 4]
            assert messages[0]["dropped"] == 3
            # It is reported in this process as well: the first, the second, the fourth and so on.
            reported = [m for m in [await followers.next() for _ in range(8)] if m.name != "job"]
            assert [(m.kwargs["identifier"], m.kwargs["count"]) for m in reported] == [
                ("job:*", 1),
                ("job:*", 2),
            ]


class TestNothingIsLost:
    async def test_when_the_call_is_cancelled(self) -> None:
        async with served("tcp") as it:
            token = await it.client.rpc.connect_via_queue("job:*", 10)
            call = it.client.rpc.get(token, True, None)
            await it.waiting(token)
            call.cancel()
            await it.waiting(token, 0)
            it.bus.twitter("job:new")
            assert (await it.client.rpc.get(token, True, 5))["id"] == "job:new"

    async def test_when_it_is_cancelled_as_the_message_comes(self) -> None:
        async with served("tcp") as it:
            token = await it.client.rpc.connect_via_queue("job:*", 10)
            for number in range(50):
                call = it.client.rpc.get(token, True, None)
                await it.waiting(token)
                # The cancel and the answer cross.
                it.bus.twitter("job:new", number)
                for _ in range(number % 5):
                    await asyncio.sleep(0)
                taken = None if call.cancel() else await call
                message = taken or await it.client.rpc.get(token, True, 5)
                assert message["args"] == (number,)
                assert "redelivered" not in message or message["redelivered"] is True
            assert await it.client.rpc.get_nowait(token) == "timeout"

    async def test_when_the_caller_goes_away(self) -> None:
        async with served("tcp") as it:
            token = await it.client.rpc.connect_via_queue("job:*", 10)
            async with it.another() as other:
                call = other.rpc.get(token, True, None)
                await it.waiting(token)
            with pytest.raises(rpc.ServiceClosedError):
                await call
            await it.waiting(token, 0)
            it.bus.twitter("job:new")
            assert (await it.client.rpc.get(token, True, 5))["id"] == "job:new"

    async def test_when_a_plain_aiozmq_caller_goes_away(self) -> None:
        async with served("tcp") as it:
            token = await it.client.rpc.connect_via_queue("job:*", 10)
            async with it.another(dialect="aiozmq") as other:
                calls = [other.rpc.get(token, True, None) for _ in range(3)]
                await it.waiting(token, 3)
            await it.waiting(token, 0)
            it.bus.twitter("job:new")
            message = await it.client.rpc.get(token, True, 5)
            assert message == {"id": "job:new", "args": (), "kwargs": {}}
            for call in calls:
                with pytest.raises(rpc.ServiceClosedError):
                    await call

    async def test_when_the_answer_is_lost(self) -> None:
        async with served("mem") as it, it.another() as other:
            token = await it.client.rpc.connect_via_queue("job:*", 10)
            first, second = (other.rpc.get(token, True, None) for _ in range(2))
            await it.waiting(token, 2)
            faults = link_faults(it.endpoint)
            faults.delay = 0.01
            it.bus.twitter("job:new", 1)
            it.bus.twitter("job:new", 2)
            it.bus.twitter("job:new", 3)
            await it.waiting(token, 0)
            await asyncio.sleep(0)
            # The answers are under way.
            faults.delay = 0
            faults.cut()
            for call in (first, second):
                with pytest.raises(rpc.ConnectionLostError):
                    await call
            messages = [await it.client.rpc.get(token, True, 5) for _ in range(3)]
            assert [(m["args"], m.get("redelivered", False)) for m in messages] == [
                ((1,), True),
                ((2,), True),
                ((3,), False),
            ]

    async def test_but_what_cannot_be_packed_blocks_no_other(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with served("tcp") as it:
            errors: list[Any] = []
            it.bus.on_error = lambda *reported: errors.append(reported)
            token = await it.client.rpc.connect_via_queue("job:*", 10)
            # Reported when it is sent, and where.
            it.bus.twitter("job:new", 1, object())
            ((error, message, _),) = errors
            assert str(error).startswith("args[1]: builtins.object cannot be packed")
            assert message.args[0] == 1
            assert "a message cannot be packed, 1 dropped so far" in caplog.text
            it.bus.twitter("job:new", "x" * (2 << 20))
            it.bus.twitter("job:new", 3)
            # How large a message may be is for the peer to say.
            with pytest.raises(rpc.TooLargeError):
                await it.client.rpc.get_nowait(token)
            assert (await it.client.rpc.get(token, True, 5)) == {
                "id": "job:new",
                "args": (3,),
                "kwargs": {},
                "dropped": 2,
            }
            assert it.functions.statistics()["messages_dropped"] == 2
            assert [(str(error), message.id) for error, message, _ in errors[1:]] == [
                ("the arguments cannot be sent", "job:new")
            ]
            assert "cannot send" in caplog.text

    async def test_a_message_is_what_was_sent(self) -> None:
        async with served("tcp") as it:
            token = await it.client.rpc.connect_via_queue("job:*", 10)
            values, large = [1], bytearray(10_000)
            it.bus.twitter("job:new", values, large=large)
            values.append(2)
            large[0] = 1
            message = await it.client.rpc.get(token, True, 5)
            assert message == {"id": "job:new", "args": ((1,),), "kwargs": {"large": bytes(10_000)}}


class Caller(rpc.AttrHandler):
    """What the functions call back in an interconnection."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[Any] = asyncio.Queue()

    @rpc.method
    def send_message(self, *args: Any) -> None:
        self.messages.put_nowait(args)


class TestInterconnect:
    @pytest.mark.parametrize("transport", ENDPOINTS)
    async def test_both_sides_hear_each_other_and_no_echo(self, transport: str) -> None:
        caller = Caller()
        async with served(transport) as it, it.another(handler=caller) as client:
            followers = Followers(it.bus)
            assert await client.rpc.interconnect(None, "mine", 10) == "mine"
            it.bus.twitter("job:new", 1, two=2)
            it.bus.twitter("_local:new")
            await followers.next()
            await followers.next()
            assert await client.rpc.send_message("mine", "job:theirs", (), {}) == "ok"
            message = await followers.next()
            assert message.origin is not None
            it.bus.twitter("job:last")
            assert await caller.messages.get() == ("mine", "job:new", (1,), {"two": 2})
            assert await caller.messages.get() == ("mine", "job:last", (), {})
            assert await client.rpc.close_connection("mine") == "ok"
            it.bus.twitter("job:after")
            assert await client.rpc.send_message("mine", "job:theirs") == "invalid token"
            assert caller.messages.empty()

    async def test_messages_of_those_who_only_send_are_carried_on(self) -> None:
        caller = Caller()
        async with served() as it, it.another(handler=caller) as client:
            token = await client.rpc.interconnect(None, None, 10)
            assert uuid.UUID(token).version == 4
            oneway = await it.client.rpc.connect_oneway(10)
            await it.client.rpc.send_message(oneway, "job:new", (1,), {})
            assert await caller.messages.get() == (token, "job:new", (1,), {})

    async def test_a_token_in_use_is_refused(self) -> None:
        async with served() as it:
            await it.client.rpc.interconnect(None, "mine", 10)
            with pytest.raises(ValueError, match="in use"):
                await it.client.rpc.interconnect(None, "mine", 10)
            assert it.functions.statistics()["connections"] == 1

    @pytest.mark.parametrize(
        "address", ["tcp://192.0.2.1:1", ("192.0.2.1", 1), "", "tcp://no host at all:1"]
    )
    @pytest.mark.parametrize("transport", ENDPOINTS)
    async def test_no_one_else_is_called_back(self, transport: str, address: Any) -> None:
        async with served(transport) as it:
            with pytest.raises(
                ValueError, match=r"callback_allowed|is not a host|not an endpoint|no add"
            ):
                await it.client.rpc.interconnect(address, None, 10)
            assert it.functions.statistics()["connections"] == 0

    async def test_messages_wait_for_a_caller_that_was_lost(self) -> None:
        caller = Caller()
        async with served() as it, it.another(handler=caller) as client:
            followers = Followers(it.bus)
            token = await client.rpc.interconnect(None, None, 10)
            async with aclosing(aiter(client.rpc.keep_alive([token]))) as statuses:
                assert await anext(statuses) == {token: "ok"}
                link_faults(it.endpoint).down()
                with pytest.raises(rpc.ConnectionLostError):
                    await anext(statuses)
            it.bus.twitter("job:kept")
            await followers.next()
            link_faults(it.endpoint).up()
            async with aclosing(aiter(client.rpc.keep_alive([token]))) as statuses:
                assert await anext(statuses) == {token: "ok"}
                assert await caller.messages.get() == (token, "job:kept", (), {})

    async def test_a_caller_that_does_not_come_back_is_forgotten(self) -> None:
        async with served() as it:
            async with it.another(handler=Caller()) as client:
                await client.rpc.interconnect(None, None, 10)
            it.bus.twitter("job:kept")
            while not it.functions.statistics()["messages_waiting"]:
                await asyncio.sleep(0)
            it.clock.now += 10
            await it.client.rpc.send_message("", "job")
            assert it.functions.statistics() == {
                "connections": 0,
                "connections_refused": 0,
                "connections_displaced": 0,
                "queues": 0,
                "queue_bytes": 0,
                "consumers_waiting": 0,
                "messages_unacknowledged": 0,
                "messages_dead": 0,
                "messages_denied": 0,
                "messages_withheld": 0,
                "messages_waiting": 0,
                "messages_dropped": 1,
            }


class TestKeepAlive:
    async def test_tells_and_holds(self) -> None:
        async with served() as it:
            tokens = [
                await it.client.rpc.connect_oneway(10),
                await it.client.rpc.connect_via_queue("a", 10),
            ]
            old = await it.client.rpc.connect_oneway(1)
            it.clock.now += 5
            async with aclosing(
                aiter(it.client.rpc.keep_alive([*tokens, old, "none"]))
            ) as statuses:
                assert await anext(statuses) == {
                    tokens[0]: "ok",
                    tokens[1]: "ok",
                    old: "timeout",
                    "none": "invalid token",
                }
                it.clock.now += 100
                assert await it.client.rpc.send_message(tokens[0], "b") == "ok"
                await it.client.rpc.close_connection(tokens[1])
                assert await anext(statuses) == {tokens[1]: "invalid token"}
                await it.client.rpc.close_connection(tokens[0])
                assert await anext(statuses) == {tokens[0]: "invalid token"}
                with pytest.raises(StopAsyncIteration):
                    await anext(statuses)

    async def test_lets_go_when_it_ends(self) -> None:
        async with served() as it:
            token = await it.client.rpc.connect_oneway(10)
            async with aclosing(aiter(it.client.rpc.keep_alive([token]))) as statuses:
                await anext(statuses)
                (lease,) = it.functions.leases
                assert lease.pins == 1
            while lease.pins:
                await asyncio.sleep(0)
            it.clock.now += 10
            assert await it.client.rpc.send_message(token, "b") == "timeout"
            assert not lease.value.watchers

    @pytest.mark.parametrize("tokens", ["text", None, 5, [5], [["x"]]])
    async def test_tokens_are_text(self, tokens: Any) -> None:
        async with served() as it:
            with pytest.raises(TypeError, match="tokens must be an array of text"):
                await anext(aiter(it.client.rpc.keep_alive(tokens)))

    async def test_holds_up_no_server_that_closes(self) -> None:
        async with served() as it:
            token = await it.client.rpc.connect_oneway(10)
            stream = aiter(it.client.rpc.keep_alive([token]))
            assert await anext(stream) == {token: "ok"}
        # The server's grace is 5 seconds.
        with pytest.raises(rpc.ServiceClosedError):
            await anext(stream)
