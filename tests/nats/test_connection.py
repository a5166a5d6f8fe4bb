"""The connection to NATS: what is published arrives in order, and it comes back by itself."""

import asyncio
import contextlib
import itertools
import signal
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("nats", reason="NATS needs nats-py")

from berrymq_rpc.errors import (
    AuthenticationError,
    ConnectionLostError,
    NotFoundError,
    TooLargeError,
)
from berrymq_rpc.nats.connection import EARLY, Connection
from berrymq_rpc.nats.headers import pack_headers
from berrymq_rpc.nats.link import Link
from berrymq_rpc.nats.options import Nats
from berrymq_rpc.testing.nats_server import NatsServer

_numbers = itertools.count()

StartNats = Callable[..., NatsServer]


@pytest.fixture
def subject() -> str:
    return f"test.connection{next(_numbers)}"


class Opened:
    """An open connection, and what it reports."""

    def __init__(self, place: str | Nats, **options: Any) -> None:
        self.reports: list[Any] = []
        self.connection = Connection(
            place if isinstance(place, Nats) else Nats(place),
            restored=lambda: self.reports.append("restored"),
            lost=lambda reason: self.reports.append("lost"),
            refused=self.reports.append,
            **options,
        )

    async def __aenter__(self) -> "Opened":
        try:
            await self.connection.connect(10)
        except BaseException:
            await self.connection.close()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.connection.close()


async def test_messages_arrive_in_order_across_subscriptions(
    nats_server: NatsServer, subject: str, until: Any
) -> None:
    arrived: list[bytes] = []

    def note(subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        arrived.append(payload)

    async with Opened(nats_server.url) as one, Opened(nats_server.url) as other:
        for name in "abc":
            one.connection.subscribe(f"{subject}.{name}", note)
        assert await one.connection.flush(10)
        for number in range(3000):
            assert other.connection.publish(f"{subject}.{'abc'[number % 3]}", b"%d" % number)
        await until(lambda: len(arrived) == 3000)
    assert arrived == [b"%d" % number for number in range(3000)]


async def test_one_write_a_turn(nats_server: NatsServer, subject: str, monkeypatch: Any) -> None:
    async with Opened(nats_server.url) as opened:
        link = opened.connection._link
        assert link is not None
        writes: list[int] = []
        write = link.write

        def counted(parts: Any) -> None:
            writes.append(sum(map(len, parts)))
            write(parts)

        monkeypatch.setattr(link, "write", counted)
        for _ in range(100):
            opened.connection.publish(subject, b"x")
        assert opened.connection.queued_bytes > 100
        assert await opened.connection.flush(10)
        assert opened.connection.queued_bytes == 0
    assert len(writes) == 1


async def test_what_is_much_is_written_within_a_turn(
    nats_server: NatsServer, subject: str, monkeypatch: Any, until: Any
) -> None:
    arrived: list[bytes] = []
    async with Opened(nats_server.url) as opened:
        connection = opened.connection
        connection.subscribe(subject, lambda _subject, _reply, payload, _: arrived.append(payload))
        link = connection._link
        assert link is not None
        written: list[int] = []
        write = link.write

        def counted(parts: Any) -> None:
            written.append(sum(map(len, parts)))
            write(parts)

        monkeypatch.setattr(link, "write", counted)
        sent = [b"%08d" % number + bytes(100) for number in range(1000)]
        for payload in sent:
            connection.publish(subject, payload)
        # No turn has ended.
        assert len(written) > 100_000 // EARLY
        assert max(written) < EARLY + 1000
        await until(lambda: len(arrived) == len(sent))
    assert arrived == sent


async def test_a_callback_that_raises_ends_nothing(
    nats_server: NatsServer, subject: str, until: Any
) -> None:
    arrived = []

    def fail(subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        arrived.append(payload)
        raise ValueError("a receiver's own error")

    async with Opened(nats_server.url) as opened:
        opened.connection.subscribe(subject, fail)
        for number in range(3):
            opened.connection.publish(subject, b"%d" % number)
        await until(lambda: len(arrived) == 3)
        assert opened.connection.callback_errors == 3
        assert opened.connection.is_connected


async def test_request(nats_server: NatsServer, subject: str) -> None:
    async with Opened(nats_server.url) as opened:
        connection = opened.connection

        def answer(subject: str, reply: str, payload: bytes, headers: bytes) -> None:
            connection.publish(reply, payload * 2)

        subscription = connection.subscribe(subject, answer)
        assert (await connection.request(subject, b"ab", timeout=10)).payload == b"abab"
        connection.unsubscribe(subscription)
        with pytest.raises(NotFoundError, match=subject):
            await connection.request(subject, b"ab", timeout=10)
        connection.subscribe(subject, lambda *_: None)
        with pytest.raises(TimeoutError):
            await connection.request(subject, b"ab", timeout=0.05)
        with pytest.raises(TooLargeError, match="max_payload"):
            connection.publish(subject, bytes(connection.max_payload + 1))
        with pytest.raises(TooLargeError, match="max_payload"):
            # The server counts headers as well; nats-py does not.
            connection.publish(subject, bytes(connection.max_payload), headers=pack_headers({}))
        assert connection._requests == {}


async def test_it_comes_back(start_nats: StartNats, subject: str, until: Any) -> None:
    server = start_nats()
    arrived = []
    async with Opened(server.url) as opened:
        connection = opened.connection
        connection.subscribe(subject, lambda s, r, payload, h: arrived.append(payload))
        hanging = asyncio.ensure_future(connection.request(f"{subject}.x", b"", timeout=20))
        connection.subscribe(f"{subject}.x", lambda *_: None)
        assert await connection.flush(10)
        server.kill()
        await until(lambda: "lost" in opened.reports)
        with pytest.raises(ConnectionLostError):
            await hanging
        assert not connection.publish(subject, b"never sent")
        assert not await connection.flush(1)
        server.start()
        await until(lambda: opened.reports == ["restored", "lost", "restored"])
        assert connection.publish(subject, b"sent")
        await until(lambda: arrived)
    assert arrived == [b"sent"]


async def test_a_frozen_server_is_lost(start_nats: StartNats, until: Any) -> None:
    server = start_nats()
    async with Opened(server.url, heartbeat=0.2) as opened:
        server.signal(signal.SIGSTOP)
        await until(lambda: "lost" in opened.reports)
        server.signal(signal.SIGCONT)
        await until(lambda: opened.reports[-1] == "restored")


async def test_another_server_of_the_list_is_taken(start_nats: StartNats, until: Any) -> None:
    one, other = start_nats(), start_nats()
    place = f"nats://127.0.0.1:{one.port},127.0.0.1:{other.port}"
    async with Opened(place) as opened:
        first = opened.connection.server
        (one if first.endswith(str(one.port)) else other).kill()
        await until(lambda: opened.reports == ["restored", "lost", "restored"])
        assert opened.connection.server != first


async def test_no_server(start_nats: StartNats) -> None:
    server = start_nats()
    server.kill()
    with pytest.raises(ConnectionLostError, match=rf"{server.port}.*is it running\?"):
        async with asyncio.timeout(10):
            connection = Connection(Nats(server.url))
            try:
                await connection.connect(0.3)
            finally:
                await connection.close()


async def test_a_wrong_password(start_nats: StartNats) -> None:
    server = start_nats('authorization { user: "alice", password: "right-word" }')
    place = f"nats://alice:{{}}@127.0.0.1:{server.port}"
    async with Opened(place.format("right-word")) as opened:
        assert opened.connection.server_info["auth_required"]
    with pytest.raises(AuthenticationError) as caught:
        async with Opened(place.format("wrong-word")):
            pass
    assert caught.value.reason == "credentials"
    assert "wrong-word" not in str(caught.value)


async def test_a_missing_permission_names_the_subject(start_nats: StartNats, until: Any) -> None:
    server = start_nats(
        "authorization { users: [{ user: a, password: b, permissions: {\n"
        '  publish: "Allowed.>", subscribe: "_INBOX.>" } }] }'
    )
    async with Opened(f"nats://a:b@127.0.0.1:{server.port}") as opened:
        opened.connection.subscribe("Not.Allowed", lambda *_: None)
        opened.connection.publish("Not.Allowed.Either", b"")
        with pytest.raises(AuthenticationError, match=r"'Requests\.Neither'") as caught:
            await opened.connection.request("Requests.Neither", b"", timeout=10)
        assert caught.value.reason == "permission"
        await until(lambda: len(opened.reports) == 4)
        assert [(r.operation, r.subject) for r in opened.reports[1:]] == [
            ("subscribe", "Not.Allowed"),
            ("publish", "Not.Allowed.Either"),
            ("publish", "Requests.Neither"),
        ]
        assert opened.connection.is_connected


async def test_what_closes_the_connection_is_told_and_it_comes_back(
    start_nats: StartNats, until: Any
) -> None:
    server = start_nats("max_control_line: 512")
    async with Opened(server.url) as opened:
        opened.connection.publish("x" * 1000, b"")
        await until(lambda: opened.reports == ["restored", "lost", "restored"])
        assert await opened.connection.flush(10)


async def test_closed_in_the_moment_in_which_a_link_is_open(
    nats_server: NatsServer, monkeypatch: Any
) -> None:
    """The cancellation may be lost then, as by `asyncio.wait_for` of Python 3.11."""
    opened = asyncio.Event()

    async def open_link(self: Link, **options: Any) -> None:
        await original(self, **options)
        opened.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(100)

    original = Link.open
    monkeypatch.setattr(Link, "open", open_link)
    connection = Connection(Nats(nats_server.url))
    connection.start()
    async with asyncio.timeout(10):
        await opened.wait()
        await connection.close()
    assert not connection.is_connected
