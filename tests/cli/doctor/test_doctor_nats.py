"""``berrymq doctor nats://...``."""

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from berrymq_rpc import rpc
from berrymq_rpc.cli.doctor.check import Check
from berrymq_rpc.cli.doctor.nats_server import examine_nats
from berrymq_rpc.nats.options import Nats
from berrymq_rpc.testing.nats_server import NatsServer

from .conftest import LONG, SHORT, collected, statuses

pytest.importorskip("nats", reason="NATS needs nats-py")

USER = "authorization { user: alice, password: sesame }"


async def examined(place: str, timeout: float = LONG) -> dict[str, Check]:
    return await collected(examine_nats(Nats(place), timeout, False))


async def test_a_cluster(nats_server: NatsServer) -> None:
    found = await examined(nats_server.url)
    assert set(statuses(found).values()) == {"ok"}
    assert {"protocol", "version", "keys", "latency", "limits", "jetstream"} < set(found)
    assert found["limits"].details["max_payload"] == 1 << 20


async def test_a_service(nats_server: NatsServer) -> None:
    place = f"{nats_server.url}/doctor"
    found = await examined(place)
    assert found["service"].status == "failed"
    async with await rpc.start_server({}, bind=place):
        found = await examined(place)
    assert found["service"].status == "ok"


async def test_a_login(start_nats: Callable[..., NatsServer]) -> None:
    server = start_nats(USER)
    right = f"nats://alice:sesame@127.0.0.1:{server.port}"
    found = await examined(right)
    assert found["keys"].status == "ok"
    # Without JetStream there are no durable queues, and all else works.
    assert found["jetstream"].status == "warning"
    for wrong in (f"nats://127.0.0.1:{server.port}", right.replace("sesame", "basil")):
        found = await examined(wrong)
        assert found["keys"].status == "failed"
        assert "basil" not in str(found)
    server.kill()
    found = await examined(right)
    assert statuses(found) == {"name": "ok", "address": "ok", "port": "failed"}


async def test_one_server_of_two(nats_server: NatsServer) -> None:
    found = await examined(f"nats://127.0.0.1:1,127.0.0.1:{nats_server.port}")
    assert found["service"].status == "warning"
    assert found["latency"].status == "ok"


@pytest.mark.parametrize(
    ("first", "word"), [(b"SSH-2.0-x\r\n", "ssh"), (b"\xff\0", "zeromq"), (b"INFO x\r\n", None)]
)
async def test_other_servers(first: bytes, word: str | None) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        found = await examined(f"nats://127.0.0.1:{port}")
    assert found["protocol"].status == "failed"
    assert found["protocol"].details.get("speaker") == word


async def test_a_server_that_tells_nonsense() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write('INFO {"version": "\u00b2.\u00b2", "server_name": [1]}\r\n'.encode())
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        found = await examined(f"nats://127.0.0.1:{port}", timeout=SHORT)
    assert found["version"].status == "ok"
    assert "failed" in statuses(found).values()


async def test_a_server_that_says_nothing() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        found = await examined(f"nats://127.0.0.1:{port}", timeout=SHORT)
    assert found["protocol"].status == "failed"
    assert f"berrymq doctor tcp://127.0.0.1:{port}" in (found["protocol"].advice or "")
