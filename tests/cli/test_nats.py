"""The commands at a service behind NATS."""

import asyncio
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("nats", reason="NATS needs nats-py")
pytest.importorskip("click", reason="the command needs click")

from berrymq_rpc import rpc
from berrymq_rpc.testing.nats_server import NatsServer

_numbers = itertools.count()

ROOT = Path(__file__).parents[2]


async def berrymq(*arguments: str) -> tuple[int, str]:
    """Run the command; its exit code, and all that it wrote."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-m", "berrymq_rpc", *arguments,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "1000"},
    )  # fmt: skip
    async with asyncio.timeout(20):
        output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


class Handler(rpc.AttrHandler):
    @rpc.method
    def add(self, a: int, b: int) -> int:
        """Add two numbers."""
        return a + b


async def test_call_and_methods(nats_server: NatsServer) -> None:
    address = f"{nats_server.url}/cli-{os.getpid()}-{next(_numbers)}"
    async with await rpc.start_server(Handler(), bind=address):
        assert await berrymq("call", address, "add", "1", "2") == (0, "3\n")
        code, output = await berrymq("methods", address)
        assert code == 0
        assert output.startswith("add(a: int, b: int) -> int")


async def test_a_bridge_in_front_of_a_service(nats_server: NatsServer) -> None:
    aiohttp = pytest.importorskip("aiohttp", reason="the HTTP listener needs aiohttp")
    address = f"{nats_server.url}/cli-{os.getpid()}-{next(_numbers)}"
    async with await rpc.start_server(Handler(), bind=address):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", "-m", "berrymq_rpc",
            "bridge", "--connect", address, "--http", "127.0.0.1:0",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        try:
            assert process.stdout is not None
            async with asyncio.timeout(20):
                line = (await process.stdout.readline()).decode()
                url = next(w.strip(",") for w in line.split() if w.startswith("http://"))
                call = {"jsonrpc": "2.0", "method": "add", "params": [1, 2], "id": 1}
                async with (
                    aiohttp.ClientSession() as session,
                    session.post(url, json=call) as answer,
                ):
                    assert (await answer.json())["result"] == 3
                process.terminate()
                _, errors = await process.communicate()
            assert (process.returncode, errors) == (0, b"")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def test_nobody_is_there(start_nats: Callable[..., NatsServer]) -> None:
    """The text says who is missing, and has no password."""
    server = start_nats()
    address = f"nats://alice:secret@127.0.0.1:{server.port}/calc"
    code, output = await berrymq("call", address, "add", "1", "2")
    assert code == 3
    assert "NATS answers, but no server of the service 'calc' does" in output
    assert f"nats://127.0.0.1:{server.port}/calc" in output
    server.kill()
    code, down = await berrymq("call", address, "add", "1", "2")
    assert code == 3
    assert "no NATS server answers" in down
    assert "secret" not in output + down


async def test_refused(start_nats: Callable[..., NatsServer]) -> None:
    server = start_nats("authorization { user: alice, password: word }")
    address = f"nats://alice:secret@127.0.0.1:{server.port}/calc"
    code, output = await berrymq("call", address, "add", "1", "2")
    assert code == 5
    assert "refused this side" in output
    assert "secret" not in output
