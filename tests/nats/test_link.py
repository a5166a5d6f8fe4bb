"""What a link needs of nats-py, and what it makes of a NATS server that misbehaves.

A new release of nats-py that changes what is overridden fails here, and not in a user's program.
"""

import asyncio
import inspect
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("nats", reason="NATS needs nats-py")

from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.aio.transport import TcpTransport
from nats.protocol.parser import Parser as NatsParser

from berrymq_rpc.errors import AuthenticationError, ConnectionLostError
from berrymq_rpc.nats.address import Server
from berrymq_rpc.nats.connection import Connection
from berrymq_rpc.nats.link import Link, Parser, error_of, refusal_of
from berrymq_rpc.nats.options import Nats

#: Names of nats-py that begin with an underscore and are overridden, and their parameters.
OVERRIDDEN = {
    "_select_next_server": [],
    "_connect_command": [],
    "_process_msg": ["sid", "subject", "reply", "data", "headers"],
    "_process_info": ["info", "initial_connection"],
    "_process_err": ["err_msg"],
    "_process_op_err": ["e"],
    "_read_loop": [],
}

INFO = {"server_id": "x", "version": "2.12.0", "max_payload": 1 << 20, "headers": True}


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_what_is_overridden_is_there(name: str) -> None:
    for cls in (Client, Link):
        parameters = list(inspect.signature(getattr(cls, name)).parameters)
        assert parameters == ["self", *OVERRIDDEN[name]]
    theirs, ours = getattr(Client, name), vars(Link)[name]
    assert inspect.iscoroutinefunction(theirs) == inspect.iscoroutinefunction(ours)


async def test_what_is_used_is_there() -> None:
    client = Client()
    used = ["_ps", "_transport", "_server_info", "_flush_queue", "_server_pool", "_current_server"]
    used += ["_pongs", "_reading_task", "_ping_interval_task", "_flusher_task"]
    for name in used:
        assert hasattr(client, name), name
    assert list(inspect.signature(Client._send_ping).parameters) == ["self", "future"]
    assert inspect.iscoroutinefunction(NatsParser.parse)
    assert NatsParser(client).buf == b""
    assert inspect.iscoroutinefunction(TcpTransport.read)
    assert list(inspect.signature(TcpTransport.read).parameters) == ["self", "buffer_size"]
    connect = inspect.signature(TcpTransport.connect)
    assert list(connect.parameters) == ["self", "uri", "buffer_size", "connect_timeout"]
    assert hasattr(TcpTransport(), "_io_writer")
    assert hasattr(TcpTransport(), "_bare_io_writer")


class FakeServer:
    """Speaks as a NATS server until it says what a test wants."""

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        #: What it says after the first PING, beside PONG.
        self.words: list[bytes] = []
        #: What it says at first, instead of INFO.
        self.greeting: bytes | None = None
        self.read: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        info = b"INFO " + json.dumps(INFO).encode() + b"\r\n"
        try:
            writer.write(info if self.greeting is None else self.greeting)
            said = False
            while line := await reader.readline():
                self.read.append(line)
                if line == b"PING\r\n":
                    writer.write(b"PONG\r\n")
                    if not said and self.words:
                        said = True
                        writer.write(self.words.pop(0))
        except OSError:
            # The link was aborted.
            return
        finally:
            writer.close()


@asynccontextmanager
async def fake(host: str = "127.0.0.1") -> AsyncIterator[FakeServer]:
    made = FakeServer()
    server = await asyncio.start_server(made.serve, host, 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def connected(server: FakeServer, **options: Any) -> AsyncIterator[Connection]:
    connection = Connection(Nats(f"nats://127.0.0.1:{server.port}"), **options)
    try:
        await connection.connect(10)
        yield connection
    finally:
        await connection.close()


chance = random.Random(1)


@pytest.mark.parametrize(
    "words",
    [
        b"nonsense\r\n",
        b"-ERR 'Stale Connection'\r\n",
        b"-ERR 'Unknown Protocol Operation'\r\n",
        b"-ERR\r\n",
        b"-ERR '\xff\xfe'\r\n",
        b"INFO {]\r\n",
        b"INFO []\r\nnonsense\r\n",
        b"INFO \xff\r\n",
        b"MSG x y z\r\nnonsense\r\n",
        b"MSG x 1 " + b"9" * 5000 + b"\r\n",
        b"HMSG x 1 5 3\r\nab\r\n" + b"nonsense\r\n",
        chance.randbytes(100) + b"\r\n",
    ],
)
async def test_whatever_a_server_says(words: bytes, until: Callable[..., Awaitable[None]]) -> None:
    """The link is lost, which is told, and another one is made."""
    reports: list[str] = []
    async with fake() as server:
        server.words = [words]
        async with connected(
            server,
            restored=lambda: reports.append("restored"),
            lost=lambda reason: reports.append("lost"),
        ) as connection:
            await until(lambda: reports == ["restored", "lost", "restored"])
            assert await connection.flush(10)
            assert server.connections == 2


@pytest.mark.parametrize(
    "words",
    [
        b"+OK\r\n",
        b"PING\r\n",
        b"PONG\r\n",
        b'INFO {"connect_urls": 5, "max_payload": "x"}\r\n',
        b'INFO {"connect_urls": ["a b", 5, null, "[::1]:4", "host:99999", "x"]}\r\n',
        b'INFO {"ldm": true}\r\n',
        b"MSG unknown 77 3\r\nabc\r\n",
        b"HMSG unknown 77 4 4\r\nabcd\r\n",
        b"-ERR 'Permissions Violation for Publish to \"a\"'\r\n",
        b"-ERR 'Permissions Violation for'\r\n",
    ],
)
async def test_what_does_not_end_a_link(words: bytes) -> None:
    async with fake() as server:
        server.words = [words]
        async with connected(server) as connection:
            for _ in range(3):
                assert await connection.flush(10)
            assert server.connections == 1


async def test_an_answer_that_was_read_as_the_link_ends() -> None:
    async with fake() as server, connected(server) as connection:
        assert connection._link is not None
        link = connection._link
        pong = await link.ping()
        link.abort()
        await link._process_pong()
        assert await pong is False


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"INFO {\r\n"])
async def test_what_is_no_nats_server(greeting: bytes) -> None:
    async with fake() as server:
        server.greeting = greeting
        connection = Connection(Nats(f"nats://127.0.0.1:{server.port}"))
        try:
            with pytest.raises(ConnectionLostError, match="is it running"):
                await connection.connect(0.5)
        finally:
            await connection.close()


@pytest.mark.parametrize("size", [1, 4095])
async def test_a_server_that_takes_small_messages_alone(
    size: int, until: Callable[..., Awaitable[None]]
) -> None:
    """It is refused with a text that says why; one that says so later is left."""
    info = b"INFO " + json.dumps({**INFO, "max_payload": size}).encode() + b"\r\n"
    async with fake() as server:
        server.greeting = info
        connection = Connection(Nats(f"nats://127.0.0.1:{server.port}"))
        try:
            with pytest.raises(ConnectionLostError, match="max_payload"):
                await connection.connect(0.5)
        finally:
            await connection.close()
    reports: list[str] = []
    async with fake() as server:
        server.words = [info]
        async with connected(
            server,
            restored=lambda: reports.append("restored"),
            lost=lambda reason: reports.append(reason),
        ):
            await until(lambda: len(reports) >= 3)
    assert reports[::2] == ["restored", "restored"]
    assert "max_payload" in reports[1]


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("nats://127.0.0.1:{}", "asks for no authentication"),
        ("nats://alice:word@127.0.0.1:{}", "would go over the network"),
    ],
)
async def test_a_server_that_a_cluster_names_and_that_is_not_safe(
    place: str, why: str, until: Callable[..., Awaitable[None]], monkeypatch: Any
) -> None:
    """It is left alone. A refusal would be told, and who was given be tried more seldom."""
    # An address of this host's own stands for one of the network.
    monkeypatch.setattr(Server, "is_loopback", property(lambda each: each.host == "127.0.0.1"))
    reports: list[str] = []
    async with fake("127.0.0.2") as named:
        info = {**INFO, "connect_urls": [f"127.0.0.2:{named.port}"]}
        async with fake() as server:
            server.greeting = b"INFO " + json.dumps(info).encode() + b"\r\n"
            connection = Connection(
                Nats(place.format(server.port)),
                restored=lambda: reports.append("restored"),
                lost=lambda reason: reports.append("lost"),
                refused=lambda refusal: reports.append(str(refusal.error)),
            )
            await connection.connect(10)
            server.words = [b"nonsense\r\n"]
            server.greeting = b"-ERR 'closing'\r\n"
            await connection.flush(10)
            await until(lambda: "lost" in reports)
        try:
            await until(lambda: why in connection.last_error)
            assert reports == ["restored", "lost"]
        finally:
            await connection.close()


async def test_messages_and_headers_arrive_as_they_are(
    until: Callable[..., Awaitable[None]],
) -> None:
    """Also what no other NATS client would send."""
    got: list[tuple[str, str, bytes, bytes]] = []
    headers = b"NATS/1.0 503\r\n\r\n"
    async with fake() as server:
        server.words = [
            b"MSG a.b 1 3\r\nabc\r\n"
            b"MSG a.\xc3\xa9 1 reply 0\r\n\r\n"
            b"MSG a.\xff 1 4\r\n\r\n\r\n\r\n"
            + b"HMSG a.b 1 reply %d %d\r\n" % (len(headers), len(headers) + 2)
            + headers
            + b"xy\r\n"
        ]
        connection = Connection(Nats(f"nats://127.0.0.1:{server.port}"))
        connection.subscribe("a.*", lambda *message: got.append(message))
        try:
            await connection.connect(10)
            await until(lambda: len(got) == 4)
            # What is not UTF-8 goes back as it came.
            connection.publish(got[2][0], b"")
            assert await connection.flush(10)
        finally:
            await connection.close()
    assert got == [
        ("a.b", "", b"abc", b""),
        ("a.\u00e9", "reply", b"", b""),
        ("a.\udcff", "", b"\r\n\r\n", b""),
        ("a.b", "reply", b"xy", headers),
    ]
    assert b"PUB a.\xff 0\r\n" in server.read


@pytest.mark.parametrize(
    ("text", "operation", "subject"),
    [
        ('Permissions Violation for Publish to "A.b"', "publish", "A.b"),
        ('Permissions Violation for Subscription to "A.*" using queue "q"', "subscribe", "A.*"),
        ("Authorization Violation", "connect", ""),
        ("User Authentication Expired", "connect", ""),
        ("Account Authentication Expired", "connect", ""),
        ("Stale Connection", None, None),
        ("", None, None),
    ],
)
def test_refusals(text: str, operation: str | None, subject: str | None) -> None:
    refusal = refusal_of(text, "host:4222")
    if refusal is None:
        assert operation is None
    else:
        assert (refusal.operation, refusal.subject) == (operation, subject)
        assert subject in str(refusal.error)
        assert "host:4222" in str(refusal.error)


class Owner:
    """What a parser reports to."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.reads = 0

    def received(self, *message: Any) -> None:
        self.events.append(message)

    def parsed(self) -> None:
        self.reads += 1


class Taken:
    """A client as the parser of nats-py sees it."""

    def __init__(self) -> None:
        self.owner = Owner()

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        self.owner.received(sid, bytes(subject), bytes(reply), data, headers or b"")

    async def _process_info(self, info: Any) -> None:
        self.owner.events.append(info)

    async def _process_err(self, text: str) -> None:
        self.owner.events.append(text)

    async def _process_ping(self) -> None:
        self.owner.events.append("ping")

    async def _process_pong(self) -> None:
        self.owner.events.append("pong")


PIECES = st.one_of(
    st.sampled_from(
        [
            b"PING\r\n",
            b"PONG\r\n",
            b"+OK\r\n",
            b"-ERR 'Permissions Violation for Publish to \"a\"'\r\n",
            b'INFO {"a": 1}\r\n',
            b"HMSG a.b 3 r 12 14\r\nNATS/1.0\r\n\r\nxy\r\n",
            b"HMSG a.b 3 12 12\r\nNATS/1.0\r\n\r\n\r\n",
        ]
    ),
    st.builds(
        lambda reply, body: b"MSG a.b 7 %s%d\r\n%s\r\n" % (reply, len(body), body),
        st.sampled_from([b"", b"r.1 "]),
        st.binary(max_size=30) | st.sampled_from([b"MSG a 1 3\r\n", b"\r\n", b"PING\r\n"]),
    ),
)


@given(st.lists(PIECES, max_size=12), st.lists(st.integers(1, 60), max_size=40))
async def test_messages_are_parsed_as_nats_py_does(pieces: list[bytes], cuts: list[int]) -> None:
    """However what was read is cut."""
    data = b"".join(pieces)
    theirs, ours = Taken(), Taken()
    await NatsParser(theirs).parse(data)
    parser = Parser(ours)
    while data:
        cut = cuts.pop() if cuts else len(data)
        await parser.parse(data[:cut])
        data = data[cut:]
    assert ours.owner.events == theirs.owner.events
    assert len(ours.owner.events) == len([p for p in pieces if p != b"+OK\r\n"])
    assert parser.buf == b""


async def test_messages_after_another_line_are_not_left_to_nats_py() -> None:
    class NoMessages(Taken):
        async def _process_msg(self, *message: Any) -> None:
            raise AssertionError("it was left to nats-py")

    taken = NoMessages()
    message = b"MSG a.b 7 2\r\nxy\r\n"
    await Parser(taken).parse(b"PONG\r\n" + message + b"+OK\r\nPING\r\n" + message)
    assert [type(event) for event in taken.owner.events] == [str, tuple, str, tuple]


def test_errors() -> None:
    server = Server("host", 4222)
    own = AuthenticationError("x")
    assert error_of(own, server) is own
    refused = ConnectionRefusedError("x")
    assert error_of(refused, server) is refused
    for unknown in (ValueError("x"), AssertionError(), KeyError("y")):
        assert type(error_of(unknown, server)) is ConnectionLostError
