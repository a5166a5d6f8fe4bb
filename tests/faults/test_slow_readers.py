"""Clients that ask for much and do not read the answers."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from berrymq_rpc import rpc

#: Each fault is tried with keys as well.
pytestmark = pytest.mark.keys

Until = Callable[..., Awaitable[None]]

#: Seconds that a busy machine may take longer than is asked for.
SLACK = 2.0

CLIENTS = 10
CALLS = 1500
SIZE = 100_000
#: A peer that reads nothing answers no heartbeat either, and is not to be taken for lost here.
HEARTBEAT = 60
PATIENT = ("--heartbeat", str(HEARTBEAT))
#: Bytes that the server keeps for each of them, and what the C library's heap may take for them:
#: how it is cut up is another number each time.
MAX_QUEUED = 6_000_000
MAX_MEMORY = 20_000_000
#: Bytes that may be left when they are gone.
MAX_LEFT = 10_000_000


def messages(raw: Any, dialect: str) -> list[list[bytes]]:
    if dialect == "plain":
        return [raw.plain_call(number, "give", SIZE) for number in range(CALLS)]
    records = [raw.record(raw.CALL, number, "give", [SIZE]) for number in range(CALLS)]
    return [raw.native_message(record) for record in records]


def answers(raw: Any, client: Any, dialect: str) -> Counter[str]:
    """What became of each of the calls, of which there must be one word each."""
    seen = set()
    found = Counter[str]()
    while len(seen) < CALLS:
        for call_id, outcome in next_answers(raw, client, dialect):
            assert call_id not in seen
            seen.add(call_id)
            found[outcome] += 1
    return found


def next_answers(raw: Any, client: Any, dialect: str) -> list[tuple[int, str]]:
    """Ids, and what was answered: the class of an error, or a result."""
    if dialect == "plain":
        return [
            (call_id, value[0] if is_error else "result")
            for call_id, is_error, value in client.plain_answers(1)
        ]
    return [
        (call_id, value if kind == raw.ERROR else "result")
        for kind, call_id, value, *_ in client.native_answers(1)
    ]


@pytest.mark.slow
@pytest.mark.nodebug
@pytest.mark.parametrize("dialect", ["plain", "native"])
async def test_clients_that_do_not_read(
    server_process: Any, raw: Any, good_client: Any, until: Until, dialect: str
) -> None:
    server = server_process(*PATIENT)
    asked = messages(raw, dialect)

    def ask(clients: list[Any]) -> None:
        for message in asked:
            for client in clients:
                client.send(message)

    async with await rpc.open_client(connect=server.endpoint) as observer:
        await observer.rpc.collect()
        before = await observer.rpc.statistics()
        if not before["memory"]:
            pytest.skip("memory cannot be measured here")
        with contextlib.ExitStack() as stack:
            clients = [
                stack.enter_context(raw.dealer(server.endpoint, linger=0, unread=1))
                for _ in range(CLIENTS)
            ]
            async with good_client(server.endpoint) as good:
                await asyncio.to_thread(ask, clients)
                # Until what was sent is read and answered, or refused.
                await asyncio.sleep(1)
                during = await observer.rpc.statistics()
            assert during["peers"] == CLIENTS + 2
            assert during["bytes_queued"] / CLIENTS < MAX_QUEUED
            assert (during["most_memory"] - before["memory"]) / CLIENTS < MAX_MEMORY
            assert good.longest < 0.1 + SLACK
        left = time.monotonic()
        while (now := await observer.rpc.statistics())["peers"] > 1:
            assert time.monotonic() - left < 10
        assert now["calls_running"] == 0
        await observer.rpc.collect()
        now = await observer.rpc.statistics()
        # What the allocator keeps for the next is not what the peers keep.
        assert now["memory"] - before["memory"] < MAX_LEFT
        assert now["files"] == before["files"]


@pytest.mark.nodebug
@pytest.mark.parametrize("dialect", ["plain", "native"])
async def test_a_client_that_reads_late(server_process: Any, raw: Any, dialect: str) -> None:
    """Its calls wait for it to read, and each is answered."""
    server = server_process(*PATIENT)
    async with await rpc.open_client(connect=server.endpoint) as observer:
        with raw.dealer(server.endpoint, linger=0, unread=1) as client:
            for message in messages(raw, dialect):
                client.send(message)
            for _ in range(100):
                assert await observer.rpc.add(1) == 2
                await asyncio.sleep(0.005)
            found = await asyncio.to_thread(answers, raw, client, dialect)
            assert found == {"result": CALLS}
            client.send(messages(raw, dialect)[0])
            again = await asyncio.to_thread(next_answers, raw, client, dialect)
            assert again == [(0, "result")]


@pytest.mark.nodebug
async def test_what_waits_for_a_client_that_does_not_read(server_process: Any, raw: Any) -> None:
    """It has a deadline, and can be cancelled."""
    server = server_process(*PATIENT)
    many = 1000
    async with await rpc.open_client(connect=server.endpoint) as observer:
        with raw.dealer(server.endpoint, linger=0, unread=1) as client:

            def ask(*records: bytes) -> None:
                client.send(raw.native_message(*records))

            ask(raw.record(raw.CALL, 0, "add", [1]))
            for number in range(1, 200):
                ask(raw.record(raw.CALL, number, "give", [SIZE]))
            # The peer's clock stands still, so the deadline is 0.2 s after its first message.
            ask(raw.record(raw.CALL, 200, "add", [1], {}, 200_000))
            ask(raw.record(raw.CALL, 201, "add", [1]), raw.record(raw.CANCEL, 201))
            ask(raw.record(raw.CALL, 202, "add", [1]), raw.record(raw.CALL, 202, "add", [2]))
            for number in range(203, many):
                ask(raw.record(raw.CALL, number, "add", [1]))
            for _ in range(100):
                assert await observer.rpc.add(1) == 2
                await asyncio.sleep(0.005)
            # One answer more, to the call whose id was in use.
            found = await asyncio.to_thread(client.native_answers, many + 1)
    words: dict[int, list[str]] = {}
    for kind, call_id, value, *_ in found:
        words.setdefault(call_id, []).append(value if kind == raw.ERROR else "result")
    assert words.keys() == set(range(many))
    assert words[200] == ["berrymq_rpc.errors.RPCTimeoutError"]
    assert words[201] == ["asyncio.exceptions.CancelledError"]
    assert sorted(words[202]) == ["berrymq_rpc.errors.ProtocolError", "result"]
    others = {word for number, (word, *_) in words.items() if not 200 <= number <= 202}
    assert others == {"result"}


@pytest.mark.nodebug
async def test_what_waits_is_refused_when_the_server_ends(raw: Any) -> None:
    def give(size: int) -> bytes:
        return bytes(size)

    server = await rpc.start_server(
        {"give": rpc.method(give)},
        bind="tcp://127.0.0.1:*",
        grace=0.1,
        limits=rpc.Limits(heartbeat=HEARTBEAT),
    )
    calls = 300
    with raw.dealer(server.endpoints[0], linger=0, unread=1) as client:
        for number in range(calls):
            client.send(raw.native_message(raw.record(raw.CALL, number, "give", [SIZE])))
        async with await rpc.open_client(connect=server.endpoints[0]) as observer:
            for _ in range(20):
                assert await observer.rpc.give(1) == b"\0"
                await asyncio.sleep(0.005)
        reading = asyncio.create_task(asyncio.to_thread(client.native_answers, calls))
        server.close()
        found = Counter(kind for kind, *_ in await reading)
        await server.wait_closed()
    assert found[raw.CLOSED] > 0
    assert found[raw.RESULT] > 0
    assert found.total() == calls
