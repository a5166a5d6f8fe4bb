"""Messages for streams: published again until JetStream has said what became of them."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from berrymq_rpc.errors import NotFoundError, OverloadedError, RPCTimeoutError, ServiceClosedError
from berrymq_rpc.nats.options import Nats
from berrymq_rpc.testing.nats_server import NatsServer

pytest.importorskip("nats", reason="NATS needs nats-py")

from berrymq_rpc.nats import stored_publisher
from berrymq_rpc.nats.connection import Connection
from berrymq_rpc.nats.stored_publisher import StoredPublisher

PATIENCE = 10.0

STORED = b'{"stream":"S","seq":1}'
IN_HAND = (
    b'{"error":{"code":409,"err_code":10158,"description":"duplicate message id is in process"}}'
)
NO_LEADER = (
    b'{"error":{"code":503,"err_code":10008,"description":"JetStream system temporarily '
    b'unavailable"}}'
)
FULL = b'{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"}}'
NO_JSON = b"an answer of a follower"

_numbers = itertools.count()


@pytest.fixture
def subject() -> str:
    return f"stored.{next(_numbers)}"


@asynccontextmanager
async def publishing(
    server: NatsServer, subject: str, *answers: bytes
) -> AsyncIterator[tuple[Callable[[], "asyncio.Future[Exception | None]"], list[bytes]]]:
    """What publishes one message, to a stream that gives these answers; and what came there."""
    stream, connection = Connection(Nats(server.url)), Connection(Nats(server.url))
    came: list[bytes] = []

    def answer(subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        came.append(headers)
        if len(came) <= len(answers):
            stream.publish(reply, answers[len(came) - 1])

    await stream.connect(PATIENCE)
    await connection.connect(PATIENCE)
    if answers:
        stream.subscribe(subject, answer)
    await stream.flush(PATIENCE)
    publisher = StoredPublisher(connection)

    def publish() -> "asyncio.Future[Exception | None]":
        over: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        publisher.publish(subject, b"payload", "an-id", over.set_result)
        return over

    try:
        yield publish, came
    finally:
        publisher.close()
        await connection.close()
        await stream.close()


@pytest.mark.parametrize("passing", [IN_HAND, NO_LEADER])
async def test_what_passes_is_waited_for(
    nats_server: NatsServer, subject: str, passing: bytes
) -> None:
    """A new leader may have the message in hand, or there is none: it is sent again, the same."""
    async with publishing(nats_server, subject, passing, passing, STORED) as (publish, came):
        async with asyncio.timeout(PATIENCE):
            assert await publish() is None
        assert len(came) == 3
        assert len(set(came)) == 1
        assert b"Nats-Msg-Id: an-id" in came[0]


async def test_what_does_not_pass(nats_server: NatsServer, subject: str) -> None:
    async with publishing(nats_server, subject, FULL) as (publish, came):
        async with asyncio.timeout(PATIENCE):
            assert isinstance(await publish(), OverloadedError)
        assert len(came) == 1


async def test_who_else_answers_is_not_heard(
    nats_server: NatsServer, subject: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_publisher, "RETRY", 0.1)
    async with publishing(nats_server, subject, NO_JSON, STORED) as (publish, came):
        async with asyncio.timeout(PATIENCE):
            assert await publish() is None
        assert len(came) == 2


async def test_nobody_is_there_for_long(
    nats_server: NatsServer, subject: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_publisher, "ABSENCE", 0.3)
    async with publishing(nats_server, subject) as (publish, _):
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(PATIENCE):
            assert isinstance(await publish(), NotFoundError)
        assert asyncio.get_running_loop().time() - began >= 0.3


async def test_no_answer(
    nats_server: NatsServer, subject: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_publisher, "RETRY", 0.1)
    monkeypatch.setattr(stored_publisher, "TIMEOUT", 0.5)
    async with publishing(nats_server, subject, NO_JSON) as (publish, came):
        async with asyncio.timeout(PATIENCE):
            assert isinstance(await publish(), RPCTimeoutError)
        assert len(came) > 1


async def test_closed(nats_server: NatsServer, subject: str) -> None:
    async with publishing(nats_server, subject, NO_JSON) as (publish, _):
        over = publish()
    assert isinstance(await over, ServiceClosedError)
