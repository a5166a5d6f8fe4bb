"""One peer never holds the event loop: what it sends is served in turns, and others in between."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import zmq

from berrymq_rpc import rpc
from berrymq_rpc.rpc.turns import TURN, Turns

Until = Callable[..., Awaitable[None]]

NOTIFY = 2

#: More calls than one turn has time for, and than are taken from a message at once.
MANY = 600


class Handler(rpc.AttrHandler):
    def __init__(self) -> None:
        self.ran: list[int] = []
        self.started = 0
        self.cancelled = 0

    @rpc.method
    def hold(self, number: int) -> int:
        """Take a part of a turn."""
        end = time.monotonic() + TURN / 40
        while time.monotonic() < end:
            pass
        self.ran.append(number)
        return number

    @rpc.method
    async def step(self, number: int) -> int:
        self.hold(number)
        await asyncio.sleep(0)
        return number

    @rpc.method
    def returns_step(self, number: int) -> Any:
        return self.step(number)

    @rpc.method
    async def forever(self) -> None:
        self.started += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled += 1

    @rpc.method
    def seen(self) -> int:
        return len(self.ran)

    @rpc.method
    async def ask(self, count: int) -> list[int]:
        peer = rpc.context().peer
        return [await peer.rpc.seen() for _ in range(count)]


@pytest.fixture
def handler() -> Handler:
    return Handler()


@asynccontextmanager
async def served(
    handler: Handler, bind: str = "tcp://127.0.0.1:*", **limits: Any
) -> AsyncIterator[tuple[rpc.Server, rpc.Client]]:
    """A server, and a client of it that is no part of the attack."""
    async with (
        await rpc.start_server(handler, bind=bind, limits=rpc.Limits(**limits)) as server,
        await rpc.open_client(connect=server.endpoints) as client,
    ):
        assert await client.rpc.seen() == 0
        yield server, client


def holds(raw: Any, count: int = MANY) -> list[bytes]:
    """One message of so many notifications."""
    return raw.native_message(  # type: ignore[no-any-return]
        *(raw.record(NOTIFY, "hold", [number]) for number in range(count))
    )


@pytest.mark.nodebug
@pytest.mark.parametrize("bind", ["mem://*", "tcp://127.0.0.1:*"])
@pytest.mark.parametrize("method", ["hold", "step", "returns_step"])
@pytest.mark.parametrize("kind", ["call", "notification"])
async def test_others_are_served_before_a_message_is_done(
    handler: Handler, until: Until, bind: str, method: str, kind: str
) -> None:
    async with (
        served(handler, bind) as (server, other),
        await rpc.open_client(connect=server.endpoints) as client,
    ):
        assert await client.rpc.seen() == 0
        calls = []
        # All in one message, as nothing is awaited.
        for number in range(MANY):
            if kind == "call":
                calls.append(getattr(client.rpc, method)(number))
            else:
                getattr(client.notify, method)(number)
        await until(lambda: handler.ran)
        assert await other.rpc.seen() < MANY
        await until(lambda: len(handler.ran) == MANY)
        assert handler.ran == list(range(MANY))
        assert await asyncio.gather(*calls) == list(range(len(calls)))
        assert server.statistics()["calls"] == MANY + 3


@pytest.mark.nodebug
@pytest.mark.parametrize("dialect", ["native", "aiozmq", "jsonrpc"])
async def test_others_are_served_before_many_messages_are(
    handler: Handler, until: Until, raw: Any, dialect: str
) -> None:
    async with served(handler) as (server, other):
        with raw.dealer(server.endpoints[0]) as enemy:
            for number in range(MANY):
                if dialect == "native":
                    enemy.send(raw.native_message(raw.record(NOTIFY, "hold", [number])))
                elif dialect == "aiozmq":
                    enemy.send(raw.plain_call(number, "hold", number))
                else:
                    asked = {"jsonrpc": "2.0", "method": "hold", "params": [number]}
                    enemy.send([json.dumps(asked).encode()])
            await until(lambda: handler.ran)
            assert await other.rpc.seen() < MANY
            await until(lambda: len(handler.ran) == MANY)
        assert handler.ran == list(range(MANY))


@pytest.mark.nodebug
async def test_calls_that_wait_for_their_turn_when_the_server_closes(
    handler: Handler, until: Until
) -> None:
    async with served(handler) as (server, client):
        # No more than a window: all are at the server.
        calls = [client.rpc.hold(number) for number in range(MANY // 2)]
        await until(lambda: handler.ran)
        server.close()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert outcomes[: len(handler.ran)] == handler.ran
        assert {type(each) for each in outcomes[len(handler.ran) :]} == {rpc.ServiceClosedError}


@pytest.mark.nodebug
async def test_what_a_peer_sent_before_it_left_is_served(
    handler: Handler, until: Until, raw: Any
) -> None:
    """Its notifications are; its calls, whose answers cannot be sent any more, are not."""
    async with served(handler) as (server, _):
        with raw.dealer(server.endpoints[0]) as leaving:
            leaving.send(raw.native_message(raw.record(raw.CALL, 1, "forever", [])))
            await until(lambda: handler.started)
            calls = [raw.record(raw.CALL, 2 + number, "hold", [-1]) for number in range(MANY)]
            leaving.send(holds(raw))
            leaving.send(raw.native_message(*calls))
            await until(lambda: handler.ran)
        await until(lambda: handler.cancelled)
        assert len(handler.ran) < MANY
        await until(lambda: len(handler.ran) == MANY)
        await until(lambda: server.statistics()["peers"] == 1)
        assert handler.ran == list(range(MANY))


@pytest.mark.nodebug
async def test_answers_that_came_before_the_peer_left_arrive(
    handler: Handler, until: Until, raw: Any
) -> None:
    """A client takes what its server sends in turns as well."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as enemy:
        enemy.linger = 1000
        port = raw.bind(enemy)
        async with await rpc.open_client(
            connect=f"tcp://127.0.0.1:{port}", handler=handler
        ) as client:
            call = client.rpc.anything()
            late = client.rpc.another()
            await until(lambda: enemy.poll(0))
            key, *_ = enemy.recv_multipart()
            records = [raw.record(NOTIFY, "hold", [number]) for number in range(MANY)]
            answer = raw.record(raw.RESULT, 1, "in time")
            enemy.send_multipart([key, *raw.native_message(*records, answer)])
            await until(lambda: handler.ran)
            assert not call.done()
            enemy.close()
            assert await call == "in time"
            with pytest.raises(rpc.ConnectionLostError):
                await late
            assert handler.ran == list(range(MANY))


@pytest.mark.nodebug
async def test_what_waits_is_bounded(handler: Handler, until: Until, raw: Any) -> None:
    """What came when there was no room is refused: calls are told, notifications counted."""
    async with served(handler, max_queued_call_bytes=400_000) as (server, client):
        with raw.dealer(server.endpoints[0]) as enemy:
            enemy.send(holds(raw))
            for number in range(MANY):
                enemy.send(raw.native_message(raw.record(raw.CALL, number, "seen", [])))
                enemy.send(raw.native_message(raw.record(NOTIFY, "hold", [-1])))
            answers = await asyncio.to_thread(enemy.native_answers, MANY)
        assert [answer[1] for answer in answers] == list(range(MANY))
        kinds = [answer[0] for answer in answers]
        first = kinds.index(raw.ERROR)
        # Each takes 500 bytes more than it has.
        assert 10 <= first < MANY
        assert set(kinds[:first]) == {raw.RESULT}
        assert {answer[2] for answer in answers if answer[0] == raw.ERROR} == {
            "berrymq_rpc.errors.OverloadedError"
        }
        assert "max_queued_call_bytes=400,000" in answers[first][4]
        await until(lambda: handler.ran.count(-1) and server.statistics()["calls"] > 3 * MANY)
        assert server.statistics()["notifications_dropped"] == 2 * MANY - len(handler.ran)
        # Others are not affected, and neither is the same peer afterwards.
        assert await client.rpc.seen() == len(handler.ran)


@pytest.mark.nodebug
async def test_answers_among_what_is_refused_are_taken(
    handler: Handler, until: Until, raw: Any
) -> None:
    async with served(handler, max_queued_call_bytes=10_000) as (server, _):
        with raw.dealer(server.endpoints[0]) as enemy:
            enemy.send(raw.native_message(raw.record(raw.CALL, 1, "ask", [1])))
            (asked,) = await asyncio.to_thread(enemy.calls, 1)
            enemy.send(holds(raw))
            for _ in range(100):
                enemy.send(raw.native_message(raw.record(NOTIFY, "hold", [-1])))
            enemy.send(raw.native_message(raw.record(raw.RESULT, asked[1], 7)))
            answers = await asyncio.to_thread(enemy.native_answers, 1)
            assert answers[0][:3] == (raw.RESULT, 1, (7,))
        assert server.statistics()["notifications_dropped"] > 50


@pytest.mark.nodebug
async def test_a_peer_that_sends_far_more_is_disconnected(
    handler: Handler, until: Until, raw: Any
) -> None:
    """It notices, as its connection ends, and can come back."""
    limits = {"max_queued_call_bytes": 1000, "max_frame": 20_000, "max_message": 5000}
    async with served(handler, **limits) as (server, other):
        with raw.dealer(server.endpoints[0]) as enemy:
            monitor = enemy.socket.get_monitor_socket(zmq.Event.DISCONNECTED)
            try:
                enemy.send(raw.native_message(raw.record(raw.CALL, 1, "forever", [])))
                await until(lambda: handler.started)
                enemy.send(holds(raw))
                for _ in range(100):
                    enemy.send(raw.native_message(raw.record(NOTIFY, "hold", [-1])))
                await until(lambda: monitor.poll(0))
                await until(lambda: handler.cancelled)
            finally:
                enemy.socket.disable_monitor()
                monitor.close(0)
            assert await other.rpc.seen() < MANY
            enemy.send(raw.native_message(raw.record(raw.CALL, 7, "seen", [])))
            answers = await asyncio.to_thread(enemy.native_answers, 1)
            assert answers[0][1] == 7


def test_turns_are_shared_by_those_that_wait() -> None:
    """Each of many has a part of the turn, and none more than that."""

    class Loop:
        def call_soon(self, callback: Callable[[], None]) -> None:
            scheduled.append(callback)

    class Taker:
        loop: Any = Loop()

        def __init__(self, turns: int) -> None:
            self.turns = turns
            self.ends: list[float] = []

        def take_turn(self, end: float) -> bool:
            self.ends.append(end - time.monotonic())
            self.turns -= 1
            return self.turns > 0

        def end_turns(self) -> None:
            self.turns = 0

    scheduled: list[Callable[[], None]] = []
    turns = Turns()
    takers = [Taker(1), Taker(2), Taker(3)]
    for taker in takers:
        turns.add(taker)
    for rest in (2, 1, 0):
        (run,) = scheduled
        scheduled.clear()
        run()
        assert sum(taker.turns > 0 for taker in takers) == rest
    assert not scheduled
    assert [len(taker.ends) for taker in takers] == [1, 2, 3]
    assert all(end <= TURN for taker in takers for end in taker.ends)
    # Three in the first.
    assert all(taker.ends[0] <= TURN / 2 for taker in takers[:2])
    turns.add(takers[0])
    turns.close()
    assert takers[0].turns == 0
