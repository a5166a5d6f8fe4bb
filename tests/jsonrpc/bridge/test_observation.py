"""`/healthz`, `/readyz` and `/metrics` of an HTTP listener."""

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from berrymq_rpc import Bus, Node, rpc
from berrymq_rpc.jsonrpc.bridge import Bridge
from berrymq_rpc.testing.nats_server import NatsServer

TOKEN = "open sesame"
Until = Callable[..., Any]


async def fetch(url: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, headers=headers) as response,
    ):
        return response.status, await response.text()


async def post(url: str, method: str, *params: Any, **headers: str) -> dict[str, Any]:
    asked = {"jsonrpc": "2.0", "method": method, "params": list(params), "id": 1}
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, json=asked, headers=headers) as response,
    ):
        answer: dict[str, Any] = await response.json()
        return answer


def samples(text: str) -> dict[str, dict[str, float]]:
    """Values by the labels' values, by the samples' names."""
    found: dict[str, dict[str, float]] = {}
    for family in parse(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[" ".join(sample.labels.values())] = sample.value
    return found


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_health_needs_no_token_and_shows_nothing(handler: Any, path: str) -> None:
    async with Bridge(handler) as bridge:
        url = await bridge.serve_http(token=TOKEN)
        assert await fetch(url + path) == (200, "ok\n")
        # A probe comes by an address that is not in `hosts`.
        assert await fetch(url + path, Host="10.1.2.3:80") == (200, "ok\n")
        assert await fetch(url + path, "HEAD") == (200, "")
        assert bridge.statistics()["tokens_refused"] == 0
        status, _ = await fetch(url + path, "POST")
        assert status == 401


async def test_metrics_are_behind_the_token(handler: Any) -> None:
    async with Bridge(handler) as bridge:
        url = await bridge.serve_http(token=TOKEN, metrics=True)
        status, text = await fetch(url + "/metrics")
        assert status == 401
        assert "berrymq" not in text
        status, text = await fetch(url + "/metrics", Authorization=f"Bearer {TOKEN}")
        assert status == 200
        assert "berrymq_peers" in samples(text)
        status, _ = await fetch(url + "/metrics", Authorization=f"Bearer {TOKEN}", Host="evil.test")
        assert status == 403


async def test_there_are_no_metrics_unless_they_are_asked_for(handler: Any) -> None:
    async with Bridge(handler) as bridge:
        url = await bridge.serve_http()
        status, _ = await fetch(url + "/metrics")
        assert status == 404
        assert bridge.metrics is None
        assert "calls_ok" not in bridge.statistics()


async def test_calls_are_counted(handler: Any) -> None:
    async with Bridge(handler) as bridge:
        url = await bridge.serve_http(metrics=True)
        assert (await post(url, "sum", 1, 2))["result"] == 3
        await post(url, "sum", "no number", 1)
        await post(url, "nothing")
        _, text = await fetch(url + "/metrics")
        found = samples(text)
        assert found["berrymq_calls_total"]["sum ok"] == 1
        assert found["berrymq_calls_total"]["sum error"] == 1
        assert found["berrymq_calls_total"]["(other) refused"] == 1
        assert found["berrymq_call_seconds_count"]["sum"] == 2
        assert bridge.statistics()["calls_ok"] == 1
        assert bridge.metrics is bridge.measure()


async def test_the_format_of_openmetrics(handler: Any) -> None:
    async with Bridge(handler) as bridge, aiohttp.ClientSession() as session:
        url = await bridge.serve_http(metrics=True)
        headers = {"Accept": "application/openmetrics-text;version=1.0.0"}
        async with session.get(url + "/metrics", headers=headers) as response:
            assert response.headers["Content-Type"].startswith("application/openmetrics-text")
            assert (await response.text()).endswith("# EOF\n")


async def test_a_peer_cannot_grow_the_labels() -> None:
    """A bridge before a remote server passes on whatever names its peers make up."""

    calc = {"add": rpc.method(_add)}
    async with (
        await rpc.start_server(calc, bind="tcp://127.0.0.1:*") as server,
        await rpc.open_client(connect=server.endpoints) as client,
        Bridge(client) as bridge,
    ):
        url = await bridge.serve_http(metrics=True)
        made_up = [
            {"jsonrpc": "2.0", "method": f'made up {number}\n"', "id": number}
            for number in range(300)
        ]
        async with aiohttp.ClientSession() as session:
            for some in (made_up[:100], made_up[100:200], made_up[200:]):
                async with session.post(url, json=some) as response:
                    assert all("error" in answer for answer in await response.json())
        assert (await post(url, "add", 1, 2))["result"] == 3
        _, text = await fetch(url + "/metrics")
        found = samples(text)
        methods = {labels.rpartition(" ")[0] for labels in found["berrymq_calls_total"]}
        assert methods == {"(other)", "add"}
        made = {labels.rpartition(" ")[0] for labels in found["berrymq_calls_made_total"]}
        assert made <= {"(other)", "add", "rpc.describe"}


def _add(a: int, b: int) -> int:
    return a + b


async def test_a_node_behind_the_bridge_is_measured() -> None:
    bus = Bus()
    async with Node("tcp://127.0.0.1:*", bus) as node, Bridge(node) as bridge:
        bus.twitter("oven:log")
        url = await bridge.serve_http(metrics=True)
        assert bridge.metrics is node.metrics is bus.metrics
        bus.twitter("oven:log")
        bus.twitter("_local:log")
        found = samples((await fetch(url + "/metrics"))[1])
        assert found["berrymq_messages_published_total"] == {"oven:log": 1, "(local)": 1}
        assert found["berrymq_peers"] == {"bridge": 1, "node": 0}


async def test_one_meter_for_a_bridge_and_a_node_that_is_measured() -> None:
    bus = Bus()
    async with Node(None, bus, metrics=True) as node:
        for metrics in (True, False):
            async with Bridge(node, metrics=metrics) as bridge:
                await bridge.serve_http(metrics=True)
                assert bridge.metrics is node.metrics is bus.metrics
        meter = rpc.Meter()
        async with Bridge(node, metrics=meter) as bridge:
            assert bridge.metrics is node.metrics is bus.metrics is meter


@pytest.mark.parametrize(("path", "expected"), [("/healthz", b"200"), ("/readyz", b"503")])
async def test_it_is_not_ready_while_it_closes(
    handler: Any, until: Until, path: str, expected: bytes
) -> None:
    async with Bridge(handler, grace=0.3) as bridge:
        url = await bridge.serve_http(token=TOKEN)
        asking = asyncio.create_task(post(url, "wait", Authorization=f"Bearer {TOKEN}"))
        await until(lambda: bridge.statistics()["calls_running"])
        port = int(url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        # Its request has begun before the bridge closes; a later one could not connect.
        writer.write(f"GET {path} HTTP/1.1\r\n".encode())
        await until(lambda: bridge.statistics()["bytes_held"])
        closing = asyncio.create_task(bridge.close())
        await asyncio.sleep(0)
        writer.write(b"Host: 10.1.2.3\r\n\r\n")
        async with asyncio.timeout(10):
            assert (await reader.readline()).split()[1] == expected
        writer.close()
        await writer.wait_closed()
        await asyncio.wait_for(closing, 10)
        await asyncio.gather(asking, return_exceptions=True)


async def test_it_is_ready_while_its_target_has_a_server(until: Until) -> None:
    server = await rpc.start_server({}, bind="tcp://127.0.0.1:*", grace=0)
    async with await rpc.open_client(connect=server.endpoints) as client, Bridge(client) as bridge:
        url = await bridge.serve_http()
        await until(lambda: client.is_connected)
        assert await fetch(url + "/readyz") == (200, "ok\n")
        server.close()
        await server.wait_closed()
        await until(lambda: not client.is_connected)
        assert await fetch(url + "/readyz") == (503, "not ready\n")
        assert await fetch(url + "/healthz") == (200, "ok\n")


@pytest.mark.parametrize("where", ["cluster", "bind"])
async def test_it_is_ready_while_nats_answers(
    start_nats: Callable[..., NatsServer], until: Until, where: str
) -> None:
    pytest.importorskip("nats", reason="NATS needs nats-py")
    nats = start_nats()
    address = nats.url if where == "cluster" else f"{nats.url}/calc"
    async with Node(**{where: address}, bus=Bus()) as node, Bridge(node) as bridge:
        url = await bridge.serve_http()
        assert await fetch(url + "/readyz") == (200, "ok\n")
        nats.kill()
        await until(lambda: not node.is_connected, 20)
        assert await fetch(url + "/readyz") == (503, "not ready\n")
        assert await fetch(url + "/healthz") == (200, "ok\n")
        nats.start()
        await until(lambda: node.is_connected, 20)
        assert await fetch(url + "/readyz") == (200, "ok\n")


async def test_a_path_that_is_taken(handler: Any) -> None:
    async with Bridge(handler) as bridge:
        for path in ("/healthz", "/readyz", "/metrics"):
            with pytest.raises(ValueError, match="path is one such as"):
                await bridge.serve_http(path=path)


async def test_without_prometheus_client(handler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in list(sys.modules):
        if name.startswith("prometheus_client") or name == "berrymq_rpc.monitor.prometheus":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.setitem(sys.modules, "prometheus_client.core", None)
    async with Bridge(handler) as bridge:
        with pytest.raises(ModuleNotFoundError, match=r'extra "metrics"'):
            await bridge.serve_http(metrics=True)
        assert await bridge.serve_http()
