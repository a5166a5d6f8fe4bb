"""Methods called by plain NATS requests, as `nats req` or another language's client sends them."""

import asyncio
import itertools
import json
import os
import re
import socket
import time
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgpack
import pytest

pytest.importorskip("nats", reason="NATS needs nats-py")

import nats
from hypothesis import given
from hypothesis import strategies as st

from berrymq_rpc import rpc
from berrymq_rpc.jsonrpc.micro import MicroDialect
from berrymq_rpc.rpc.wire.codec import Codec
from berrymq_rpc.rpc.wire.limits import Limits
from berrymq_rpc.rpc.wire.record import CALL, NOTIFY
from berrymq_rpc.testing.nats_server import NatsServer

_numbers = itertools.count()


@pytest.fixture
def service() -> str:
    return f"micro-{os.getpid()}-{next(_numbers)}"


class Inner(rpc.AttrHandler):
    @rpc.method
    def mul(self, a: int, b: int) -> int:
        return a * b


class Handler(rpc.AttrHandler):
    def __init__(self, name: str = "") -> None:
        self.name = name
        self.inner = Inner()
        self.table = {"gr\u00f6\u00dfe": rpc.method(lambda: "size")}
        self.heard: list[Any] = []
        self.running = 0

    @rpc.method
    def who(self) -> str:
        return self.name

    @rpc.method
    def add(self, a: int, b: int = 0) -> int:
        """Add two numbers."""
        return a + b

    @rpc.method
    async def echo(self, value: Any = None) -> Any:
        await asyncio.sleep(0)
        return value

    @rpc.method
    def give(self, size: int) -> str:
        return "x" * size

    @rpc.method
    def log(self, *args: Any) -> None:
        self.heard.append(args)

    @rpc.method
    def fail(self, *args: Any) -> None:
        raise ZeroDivisionError("by\r\nNats-Evil: zero", 5, *args)

    @rpc.method
    async def forever(self) -> None:
        self.running += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.running -= 1

    @rpc.method(waits=True)
    async def waits(self) -> None: ...

    @rpc.method
    async def stream(self) -> AsyncIterator[int]:
        yield 1

    @rpc.method(allow={"alice"})
    def private(self) -> None: ...


class Plain:
    """nats-py, as anybody uses it."""

    def __init__(self, client: Any, service: str) -> None:
        self.client = client
        self.service = service

    async def ask(
        self, method: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Any:
        subject = f"{self.service}.{method}"
        return await self.client.request(subject, body, timeout=10, headers=headers)

    async def value(self, method: str, body: bytes = b"") -> Any:
        answer = await self.ask(method, body)
        assert answer.headers is None, answer.headers
        return json.loads(answer.data)

    async def code(self, method: str, body: bytes = b"", **headers: str) -> str:
        answer = await self.ask(
            method, body, {name.replace("_", "-"): text for name, text in headers.items()} or None
        )
        assert answer.headers["Nats-Service-Error"]
        assert json.loads(answer.data).keys() == {"type", "args", "repr"}
        code: str = answer.headers["Nats-Service-Error-Code"]
        return code


@asynccontextmanager
async def plain_client(server: NatsServer, service: str) -> AsyncIterator[Plain]:
    client = await nats.connect(server.url)
    try:
        yield Plain(client, service)
    finally:
        await client.close()


@asynccontextmanager
async def opened(server: NatsServer, service: str, **options: Any) -> AsyncIterator[Any]:
    handler = Handler()
    async with (
        await rpc.start_server(
            handler, bind=f"{server.url}/{service}", grace=0.2, **options
        ) as serving,
        plain_client(server, service) as plain,
    ):
        yield handler, serving, plain


async def test_calls(nats_server: NatsServer, service: str, until: Any) -> None:
    async with opened(nats_server, service) as (handler, _, plain):
        assert await plain.value("add", b"[1, 2]") == 3
        assert await plain.value("add", b'{"a": 1, "b": 5}') == 6
        assert await plain.value("add", b'{"args": [1], "kwargs": {"b": 2}}') == 3
        assert await plain.value("add", b'{"args": [1]}') == 1
        assert await plain.value("echo") is None
        assert await plain.value("echo", b"[[1, null, {}]]") == [1, None, {}]
        assert await plain.value("inner.mul", b"[3, 4]") == 12
        assert await plain.value("rpc.describe")
        await plain.client.publish(f"{service}.log", b"[1]")
        await until(lambda: handler.heard == [(1,)])


async def test_names_are_escaped(nats_server: NatsServer, service: str) -> None:
    async with opened(nats_server, service) as (_, _, plain):
        assert await plain.value("table.gr%C3%B6%C3%9Fe") == "size"
        for name in ("table.%20x", "table.%2a", "table.%", "_x", "x" * 1000, "table.\u00e9"):
            assert await plain.code(name) == "404"


async def test_msgpack(nats_server: NatsServer, service: str) -> None:
    headers = {"Content-Type": "application/msgpack"}
    async with opened(nats_server, service) as (_, _, plain):
        answer = await plain.ask("echo", msgpack.packb([b"\xff"]), headers)
        assert answer.headers == headers
        assert msgpack.unpackb(answer.data) == b"\xff"
        answer = await plain.ask("add", msgpack.packb({"a": 1, "b": 2}), headers)
        assert msgpack.unpackb(answer.data) == 3
        for body in (b"\xc1", b"\x91", msgpack.packb({1: 2})):
            answer = await plain.ask("echo", body, headers)
            assert answer.headers["Nats-Service-Error-Code"] == "400"
            assert answer.headers["Content-Type"] == "application/msgpack"
            assert msgpack.unpackb(answer.data)["type"] == "berrymq_rpc.errors.ProtocolError"


async def test_errors(nats_server: NatsServer, service: str, caplog: Any) -> None:
    async with opened(nats_server, service) as (_, _, plain):
        answer = await plain.ask("fail", b'[{"x": 1}]')
        assert answer.headers == {
            "Nats-Service-Error": "ZeroDivisionError('by\\r\\nNats-Evil: zero', 5, {'x': 1})",
            "Nats-Service-Error-Code": "500",
        }
        described = json.loads(answer.data)
        assert described["type"] == "builtins.ZeroDivisionError"
        assert described["args"] == ["by\r\nNats-Evil: zero", 5, {"x": 1}]
        for method, body, code in [
            ("nothing", b"", "404"),
            ("_private", b"", "404"),
            ("add", b"", "400"),
            ("add", b"[1, 2, 3]", "400"),
            ("add", b'{"c": 1}', "400"),
            ("add", b"5", "400"),
            ("add", b"[1", "400"),
            ("add", b"\xff", "400"),
            ("add", b"[" * 200 + b"]" * 200, "400"),
            ("add", b'{"args": 1}', "400"),
            ("add", b'{"args": [1], "kwargs": []}', "400"),
            ("private", b"", "403"),
            ("stream", b"", "501"),
            ("waits", b"", "501"),
        ]:
            assert await plain.code(method, body) == code, (method, body)


async def test_a_deadline(nats_server: NatsServer, service: str, until: Any) -> None:
    async with opened(nats_server, service) as (handler, _, plain):
        began = time.monotonic()
        assert await plain.code("forever", Berrymq_Timeout="100") == "408"
        assert 0.09 < time.monotonic() - began < 2
        await until(lambda: handler.running == 0)
        for text in ("-1", "1.5", "x", "", "9" * 20, "\u0661"):
            assert await plain.code("add", b"[1]", Berrymq_Timeout=text) == "400"
        answer = await plain.ask("add", b"[1]", {"Berrymq-Timeout": "5000"})
        assert json.loads(answer.data) == 1


async def test_too_large_an_answer(nats_server: NatsServer, service: str) -> None:
    async with opened(nats_server, service) as (_, _, plain):
        big = b'["' + b"x" * 900_000 + b'"]'
        assert len(await plain.value("echo", big)) == 900_000
        assert await plain.code("give", b"[2000000]") == "413"
        wide = '["' + "\u00e9" * 500_000 + '"]'
        answer = await plain.ask("fail", wide.encode())
        assert answer.headers["Nats-Service-Error-Code"] == "500"


async def test_bounds(nats_server: NatsServer, service: str, until: Any) -> None:
    """Over them there is an answer at once, and never silence."""
    limits = rpc.Limits(max_in_flight=3)
    async with opened(nats_server, service, limits=limits) as (handler, server, plain):
        tasks = [asyncio.ensure_future(plain.ask("forever")) for _ in range(3)]
        await until(lambda: handler.running == 3)
        assert await plain.code("forever") == "429"
        assert await plain.value("add", b"[1]") == 1
        assert server.statistics()["calls_running"] == 3
        # Those that run when the server closes are answered as well.
        server.close()
        for task in tasks:
            answer = await task
            assert answer.headers["Nats-Service-Error-Code"] == "503"


async def test_calls_that_wait_are_bounded_in_bytes(
    nats_server: NatsServer, service: str, until: Any
) -> None:
    limits = rpc.Limits(window=1, max_queued_call_bytes=100_000)
    async with opened(nats_server, service, limits=limits) as (handler, _, plain):
        first = asyncio.ensure_future(plain.ask("forever"))
        await until(lambda: handler.running == 1)
        body = b'["' + b"x" * 10_000 + b'"]'
        waiting = [asyncio.ensure_future(plain.ask("echo", body)) for _ in range(50)]
        await until(lambda: sum(task.done() for task in waiting) >= 40)
        codes = {t.result().headers["Nats-Service-Error-Code"] for t in waiting if t.done()}
        assert codes == {"429"}
        for task in [first, *waiting]:
            task.cancel()
        await asyncio.gather(first, *waiting, return_exceptions=True)


async def test_several_servers_share_the_requests(nats_server: NatsServer, service: str) -> None:
    address = f"{nats_server.url}/{service}"
    async with (
        await rpc.start_server(Handler("a"), bind=address),
        await rpc.start_server(Handler("b"), bind=address) as leaving,
        plain_client(nats_server, service) as plain,
    ):
        got = Counter([await plain.value("who") for _ in range(100)])
        assert got.keys() == {"a", "b"}
        leaving.close()
        await leaving.wait_closed()
        assert {await plain.value("who") for _ in range(20)} == {"a"}


def blocking_client(server: NatsServer) -> socket.socket:
    """A plain NATS client that the event loop does not run."""
    client = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    client.sendall(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\n')
    return client


def read_until(client: socket.socket, enough: Callable[[bytes], object]) -> bytes:
    data = b""
    while not enough(data):
        data += client.recv(1 << 16)
    return data


@pytest.mark.parametrize("grace", [5.0, 0.1])
async def test_requests_on_their_way_to_a_closing_server_are_answered(
    nats_server: NatsServer, service: str, grace: float
) -> None:
    """NATS has given them to it: nobody else answers."""
    server = await rpc.start_server(Handler(), bind=f"{nats_server.url}/{service}", grace=grace)
    with blocking_client(nats_server) as client:
        request = f"PUB {service}.add answers.{service} 3\r\n[1]\r\n"
        client.sendall(f"SUB answers.{service} 1\r\n{request * 100}PING\r\n".encode())
        read_until(client, lambda data: data.endswith(b"PONG\r\n"))
        server.close()
        await server.wait_closed()
        got = read_until(client, lambda data: len(re.findall(rb"^H?MSG ", data, re.M)) == 100)
    assert got.count(b"Nats-Service-Error-Code: 503\r\n") == got.count(b"HMSG")


async def test_plain_clients_are_no_peer(nats_server: NatsServer, service: str) -> None:
    """They take no place of those that `max_peers` allows, and need none."""
    limits = rpc.Limits(max_peers=1)
    async with opened(nats_server, service, limits=limits) as (_, server, plain):
        assert await plain.value("add", b"[1]") == 1
        assert server.statistics()["peers"] == 0
        async with await rpc.open_client(
            connect=f"{nats_server.url}/{service}", timeout=10
        ) as client:
            assert await client.rpc.add(1, 2) == 3
            assert server.statistics()["peers"] == 1
            assert await plain.value("add", b"[1]") == 1


@pytest.mark.parametrize("dialects", ["native", ("native", "aiozmq")])
async def test_it_can_be_turned_off(nats_server: NatsServer, service: str, dialects: Any) -> None:
    async with opened(nats_server, service, dialects=dialects) as (_, _, plain):
        with pytest.raises(nats.errors.NoRespondersError):
            await plain.ask("add", b"[1]")
        info = await plain.client.request(f"$SRV.INFO.{service}", b"", timeout=10)
        assert json.loads(info.data)["endpoints"] == []


async def test_a_service_by_the_name_of_messages(nats_server: NatsServer) -> None:
    """Its methods would be called by what nodes send one another."""
    async with opened(nats_server, "berrymq") as (_, _, plain):
        with pytest.raises(nats.errors.NoRespondersError):
            await plain.ask("add", b"[1]")


async def test_endpoints_are_described_and_counted(nats_server: NatsServer, service: str) -> None:
    async with opened(nats_server, service) as (_, _, plain):
        await plain.value("inner.mul", b"[3, 4]")
        assert await plain.code("add", b"[]") == "400"
        await plain.value("add", b"[1]")
        info = json.loads((await plain.client.request(f"$SRV.INFO.{service}", timeout=10)).data)
        endpoints = {endpoint["name"]: endpoint for endpoint in info["endpoints"]}
        assert endpoints["add"] == {
            "name": "add",
            "subject": f"{service}.add",
            "queue_group": "q",
            "metadata": {
                "signature": "(a: int, b: int = 0) -> int",
                "doc": "Add two numbers.",
                "kind": "call",
            },
        }
        assert endpoints["inner-mul"]["subject"] == f"{service}.inner.mul"
        assert endpoints["table-gr_C3_B6_C3_9Fe"]["subject"] == f"{service}.table.gr%C3%B6%C3%9Fe"
        stats = json.loads((await plain.client.request(f"$SRV.STATS.{service}", timeout=10)).data)
        counted = {endpoint["name"]: endpoint for endpoint in stats["endpoints"]}
        assert counted["inner-mul"]["num_requests"] == 1
        assert counted["inner-mul"]["num_errors"] == 0
        assert counted["inner-mul"]["processing_time"] > 0
        assert counted["add"]["num_requests"] == 2
        assert counted["add"]["num_errors"] == 1
        assert counted["add"]["last_error"].startswith("400:")
        assert counted["who"]["average_processing_time"] == 0


async def test_a_peer_that_cannot_be_called(nats_server: NatsServer, service: str) -> None:
    class Asks(rpc.AttrHandler):
        @rpc.method
        async def ask(self) -> str:
            peer = rpc.context().peer
            assert peer.user is None
            with pytest.raises(rpc.ServiceClosedError):
                await peer.rpc.anything()
            with pytest.raises(rpc.ServiceClosedError):
                peer.notify.anything()
            return "asked"

    async with (
        await rpc.start_server(Asks(), bind=f"{nats_server.url}/{service}"),
        plain_client(nats_server, service) as plain,
    ):
        assert await plain.value("ask") == "asked"


async def test_a_lost_link_cancels_what_runs(start_nats: Any, service: str, until: Any) -> None:
    server = start_nats()
    async with opened(server, service) as (handler, _, plain):
        task = asyncio.ensure_future(plain.ask("forever"))
        await until(lambda: handler.running == 1)
        server.kill()
        await until(lambda: handler.running == 0)
        task.cancel()
        server.start()
        async with plain_client(server, service) as another:
            async with asyncio.timeout(10):
                while True:
                    try:
                        assert await another.value("add", b"[1, 2]") == 3
                        break
                    except nats.errors.NoRespondersError:
                        # Until the server is back as well.
                        await asyncio.sleep(0.01)


async def test_hostile_requests(nats_server: NatsServer, service: str) -> None:
    async with opened(nats_server, service) as (_, server, plain):
        for reply in ("", "x" * 2000, f"{service}.add", "$SRV.PING"):
            for body in (b"", b"{", os.urandom(1000), b"[" * 100_000):
                for headers in (None, {"Content-Type": "application/msgpack"}):
                    await plain.client.publish(f"{service}.add", body, reply, headers)
        many = {f"X-{number}": "x" * 50 for number in range(1000)}
        assert await plain.code("nothing", b"", **many) == "404"
        assert await plain.value("add", b"[1, 2]") == 3
        # Requests whose answer cannot be sent where it is wanted.
        assert server.statistics()["malformed_messages"] == 4 * 2 * 2


@pytest.mark.parametrize(
    "body",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\x91\xdf\xff\xff\xff\xff",
        b"\x91\xc6\xff\xff\xff\xff",
        b"\x91" * 100_000,
        b"\xdc\xff\xff" + b"\x90" * 65_535,
        b"\x91\xc7\xff\x05" + b"\xff" * 255,
        b"\x91\xd4\x7f\x00",
        b"\x82\xa4args\x81\x00\x00\xa6kwargs\x90",
        b"\x81\x90\x00",
        b"\x81\xa1\xff\x00",
    ],
)
def test_msgpack_bombs(body: bytes) -> None:
    micro = session()
    headers = b"NATS/1.0\r\nContent-Type: Application/MsgPack; x=y\r\n\r\n"
    tracemalloc.start()
    try:
        events = micro.receive([b"add", b"reply", headers, body], 1.0)
        assert tracemalloc.get_traced_memory()[1] < (8 << 20) + 100 * len(body)
    finally:
        tracemalloc.stop()
    if not events:
        ((_, answer, _),) = micro.messages(2.0)
        assert b"Nats-Service-Error-Code: 400\r\n" in answer


def session() -> Any:
    dialect = MicroDialect(Codec(), lambda name: None, lambda: 1 << 20, iter(["add"]))
    made = dialect.session(Limits())
    made.connected(0.0)
    return made


@given(
    st.binary(max_size=20),
    st.binary(max_size=20),
    st.binary(max_size=60) | st.just(b"NATS/1.0\r\nContent-Type: application/msgpack\r\n\r\n"),
    st.binary(max_size=60),
)
def test_any_bytes(name: bytes, reply: bytes, headers: bytes, body: bytes) -> None:
    """Whatever arrives is a call or is answered, unless nobody wants an answer."""
    micro = session()
    events = micro.receive([name, reply, headers, body], 1.0)
    answers = micro.messages(2.0)
    assert len(events) + len(answers) == 1 if reply or events else not answers
    assert all(event[0] == (CALL if reply else NOTIFY) for event in events)
    assert all(answer[0] == reply for answer in answers)
