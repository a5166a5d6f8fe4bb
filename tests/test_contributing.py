"""``CONTRIBUTING.rst``: the files that it names exist, and its journeys pass through them."""

import asyncio
import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from berrymq_rpc import Bus, Node, rpc

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "berrymq_rpc"
TEXT = (ROOT / "CONTRIBUTING.rst").read_text(encoding="utf-8")


def files_in(text: str) -> set[str]:
    return set(re.findall(r"``([\w/]+\.py)``", text))


def files_of_journey(title: str) -> set[str]:
    """The files in the numbered steps of a journey."""
    (journey,) = re.findall(rf"^{title}\n\.+\n(.*?)(?=^\w[^\n]*\n[.-]+\n)", TEXT, re.M | re.S)
    found = files_in("".join(re.findall(r"^\d\. .*\n(?: +\S.*\n)*", journey, re.M)))
    assert found
    return found


@contextmanager
def followed() -> Iterator[set[str]]:
    """Collect the files of the package whose functions run, in any thread that starts within."""
    seen: set[str] = set()
    prefix = f"{PACKAGE}/"

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(prefix):
            seen.add(frame.f_code.co_filename.removeprefix(prefix))

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        yield seen
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


class Handler(rpc.AttrHandler):
    @rpc.method
    def add(self, a: int, b: int) -> int:
        return a + b


@pytest.mark.parametrize("name", sorted(files_in(TEXT)))
def test_files_exist(name: str) -> None:
    assert (PACKAGE / name).exists() or (ROOT / name).exists()


async def test_call() -> None:
    async with (
        await rpc.start_server(Handler(), bind="tcp://127.0.0.1:*") as server,
        await rpc.open_client(connect=server.endpoints[0], timeout=10) as client,
    ):
        await client.rpc.add(1, 2)
        with followed() as seen:
            assert await client.rpc.add(1, 2) == 3
    assert files_of_journey("A call") <= seen


async def test_message() -> None:
    here, there = Bus(), Bus()
    arrived = asyncio.Event()
    loop = asyncio.get_running_loop()
    there.regist_function("job:done", lambda _: loop.call_soon_threadsafe(arrived.set))
    async with Node("tcp://127.0.0.1:*", there) as node, Node(bus=here) as other:
        await other.interconnect(node.endpoints[0])
        with followed() as seen:
            here.twitter("job:done", 1)
            async with asyncio.timeout(10):
                await arrived.wait()
    assert files_of_journey("A message") <= seen


async def test_post() -> None:
    pytest.importorskip("aiohttp", reason="the HTTP listener needs it")
    from berrymq_rpc.jsonrpc.bridge import Bridge

    body = json.dumps({"jsonrpc": "2.0", "method": "add", "params": [1, 2], "id": 1}).encode()
    async with Bridge(Handler()) as bridge:
        url = await bridge.serve_http(port=0)
        address = url.removeprefix("http://").rstrip("/")
        host, port = address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            head = (
                f"POST / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            with followed() as seen:
                writer.write(head.encode() + body)
                async with asyncio.timeout(10):
                    answer = await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()
    assert b'"result":3' in answer.replace(b" ", b"")
    assert files_of_journey("A POST") <= seen
