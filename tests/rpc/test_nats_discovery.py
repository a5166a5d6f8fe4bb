"""Servers are listed as NATS's own tools ask for it (ADR-32)."""

import asyncio
import itertools
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("nats", reason="NATS needs nats-py")

import nats
from nats.micro.service import ServiceInfo, ServicePing, ServiceStats

from berrymq_rpc import rpc
from berrymq_rpc.testing.nats_server import NatsServer

_numbers = itertools.count()


@pytest.fixture
def service() -> str:
    return f"discovered-{os.getpid()}-{next(_numbers)}"


class Handler(rpc.AttrHandler):
    """Adds numbers."""

    __version__ = "1.2.3"

    @rpc.method
    def add(self, a: int, b: int = 0) -> int:
        """Add two numbers."""
        return a + b


@asynccontextmanager
async def plain_client(url: str) -> AsyncIterator[Any]:
    """nats-py, as anybody uses it."""
    client = await nats.connect(url)
    try:
        yield client
    finally:
        await client.close()


async def answers(client: Any, subject: str, count: int) -> list[dict[str, Any]]:
    """What comes to a request that several answer."""
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    await client.publish(subject, b"", reply=inbox)
    return [json.loads((await subscription.next_msg(10)).data) for _ in range(count)]


async def test_discovery(nats_server: NatsServer, service: str, until: Any) -> None:
    address = f"{nats_server.url}/{service}"
    async with (
        await rpc.start_server(Handler(), bind=address),
        await rpc.start_server(Handler(), bind=address),
        await rpc.open_client(connect=address) as client,
        plain_client(nats_server.url) as plain,
    ):
        assert await client.rpc.add(1, 2) == 3
        await until(lambda: client.statistics()["peers"] == 2)
        both = await answers(plain, f"$SRV.PING.{service}", 2)
        assert len({found["id"] for found in both}) == 2
        for found in both:
            assert found == {
                "name": service,
                "id": found["id"],
                "version": "1.2.3",
                "metadata": {},
                "type": "io.nats.micro.v1.ping_response",
            }
        one = both[0]["id"]
        for verb in ("PING", "INFO", "STATS"):
            (found,) = await answers(plain, f"$SRV.{verb}.{service}.{one}", 1)
            assert found["id"] == one
            assert found["type"] == f"io.nats.micro.v1.{verb.lower()}_response"
            everybody = await answers(plain, f"$SRV.{verb}", 2)
            assert all(found["name"] for found in everybody)
        stats = await answers(plain, f"$SRV.STATS.{service}", 2)
        assert sum(int(found["metadata"]["calls"]) for found in stats) == 1
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", found["started"]) for found in stats)
        info = await answers(plain, f"$SRV.INFO.{service}", 2)
        assert {found["description"] for found in info} == {"Adds numbers."}
        # As nats-py reads them, when it asks for itself.
        assert {ServicePing.from_dict(found).name for found in both} == {service}
        described = [ServiceInfo.from_dict(found) for found in info]
        assert {one.endpoints[0].subject for one in described} == {f"{service}.add"}
        counted = [ServiceStats.from_dict(found) for found in stats]
        assert {one.endpoints[0].name for one in counted} == {"add"}


async def test_a_server_that_closes_is_not_listed(nats_server: NatsServer, service: str) -> None:
    server = await rpc.start_server(Handler(), bind=f"{nats_server.url}/{service}")
    async with plain_client(nats_server.url) as plain:
        assert await plain.request(f"$SRV.PING.{service}", b"", timeout=10)
        server.close()
        await server.wait_closed()
        with pytest.raises(nats.errors.NoRespondersError):
            await plain.request(f"$SRV.PING.{service}", b"", timeout=10)


async def test_hostile_requests(nats_server: NatsServer, service: str) -> None:
    """Whatever comes with a request, and wherever its answer is to go."""
    async with (
        await rpc.start_server(Handler(), bind=f"{nats_server.url}/{service}"),
        plain_client(nats_server.url) as plain,
    ):
        for reply in ("", "x" * 2000, f"$SRV.PING.{service}"):
            for payload in (b"", b"{", b"\xff" * 1000):
                await plain.publish(f"$SRV.INFO.{service}", payload, reply=reply)
        async with asyncio.timeout(10):
            assert await plain.request(f"$SRV.PING.{service}", b"", timeout=10)
