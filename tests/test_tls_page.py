"""The page on TLS: its commands make certificates, and its programs use them."""

import asyncio
import contextlib
import json
import os
import re
import shlex
import shutil
import ssl
import stat
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from berrymq_rpc import rpc
from berrymq_rpc.jsonrpc.http import open_http_client

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "howto" / "tls.rst").read_text(encoding="utf-8")
SECONDS = 20


def blocks(language: str) -> list[str]:
    found = re.findall(rf"\.\. code-block:: {language}\n\n((?:    .*\n|\n)+)", PAGE)
    return [textwrap.dedent(block) for block in found]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all commands of the page ran, one after another."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    commands = blocks("sh")
    assert len(commands) == 3
    subprocess.run(
        ["sh", "-euc", "\n".join(commands)],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=SECONDS,
    )
    return folder


def context_of(folder: Path, user: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=folder / "laboratory/ca.pem")
    # What newer Pythons want of certificates by themselves.
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    if user is not None:
        context.load_cert_chain(
            folder / f"laboratory/{user}.pem", folder / f"laboratory/{user}-key.pem"
        )
    return context


@asynccontextmanager
async def running(folder: Path, *command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        *command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await asyncio.wait_for(process.wait(), SECONDS)


async def port_in(process: asyncio.subprocess.Process) -> int:
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), SECONDS)
    found = re.search(rb"(?:https|tls)://\S+:(\d+)", line)
    assert found is not None, line
    return int(found[1])


@asynccontextmanager
async def plant(folder: Path) -> AsyncIterator[tuple[int, int]]:
    """The ports of the page's server, for HTTP and TCP."""
    program = re.sub(r"\b844[34]\b", "0", blocks("python")[0])
    async with running(folder, "-c", program) as process:
        yield await port_in(process), await port_in(process)


def test_secrets_are_for_their_owner(folder: Path) -> None:
    laboratory = folder / "laboratory"
    assert stat.S_IMODE(laboratory.stat().st_mode) == 0o700
    secrets = sorted(laboratory.glob("*-key.pem"))
    assert [path.name for path in secrets] == [
        "alice-key.pem", "bob-key.pem", "ca-key.pem", "plant-key.pem",
    ]  # fmt: skip
    for path in secrets:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


async def test_the_programs(folder: Path) -> None:
    async with plant(folder) as (http, _):
        client = blocks("python")[1].replace("8443", str(http))
        async with running(folder, "-c", client) as process:
            shown, _ = await asyncio.wait_for(process.communicate(), SECONDS)
        assert shown == b"alice opened valve 3\n"


async def test_curl(folder: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    (console,) = blocks("console")
    found = re.search(r"^\$ (curl .*?)\n(\{.*\})$", console, re.MULTILINE | re.DOTALL)
    assert found is not None
    async with plant(folder) as (http, _):
        command = shlex.split(found[1].replace("\\\n", "").replace("8443", str(http)))
        process = await asyncio.create_subprocess_exec(
            *command, "--silent", cwd=folder, stdout=asyncio.subprocess.PIPE
        )
        shown, _ = await asyncio.wait_for(process.communicate(), SECONDS)
    assert json.loads(shown) == json.loads(found[2])


async def test_who_is_let_in_by_http(folder: Path) -> None:
    async with plant(folder) as (http, _):
        url = f"https://localhost:{http}"

        async def opened(user: str | None) -> str:
            tls = context_of(folder, user)
            async with await open_http_client(url, ssl=tls, timeout=SECONDS) as client:
                return str(await client.rpc.open_valve(1))

        assert await opened("alice") == "alice opened valve 1"
        with pytest.raises(rpc.PermissionDeniedError, match="the user 'bob' may not"):
            await opened("bob")
        # A server's certificate is not one of a client.
        for user in (None, "plant"):
            with pytest.raises(rpc.ConnectionLostError):
                await opened(user)
        # Public authorities know nothing of this server.
        async with await open_http_client(url, timeout=SECONDS) as client:
            with pytest.raises(rpc.AuthenticationError) as refused:
                await client.rpc.open_valve(1)
        assert refused.value.reason == "certificate"


async def test_who_is_let_in_by_tcp(folder: Path) -> None:
    asked = {"jsonrpc": "2.0", "method": "open_valve", "params": [2], "id": 1}
    async with plant(folder) as (_, tcp):

        async def answer(user: str | None) -> Any:
            reader, writer = await asyncio.open_connection(
                "localhost", tcp, ssl=context_of(folder, user)
            )
            try:
                writer.write(json.dumps(asked).encode() + b"\n")
                line = await asyncio.wait_for(reader.readline(), SECONDS)
                if not line:
                    raise ConnectionResetError
                return json.loads(line)
            finally:
                writer.transport.abort()

        assert (await answer("alice"))["result"] == "alice opened valve 2"
        assert (await answer("bob"))["error"]["code"] == -32001
        for user in (None, "plant"):
            # Not every Python tells the client why.
            with pytest.raises(OSError):  # noqa: PT011
                await answer(user)


async def test_the_command(folder: Path) -> None:
    (found,) = re.findall(r"^    \$ berrymq (serve .*\\\n.*)$", PAGE, re.MULTILINE)
    arguments = shlex.split(found.replace("\\\n", "").replace(":8443", ":0"))
    bind = ("--bind", "tcp://127.0.0.1:*")
    async with running(folder, "-m", "berrymq_rpc", *arguments, *bind) as process:
        assert process.stdout is not None
        async with asyncio.timeout(SECONDS):
            while b"https://" not in (line := await process.stdout.readline()):
                assert line
        port = re.search(rb"https://0\.0\.0\.0:(\d+)", line)
        assert port is not None, line
        url = f"https://localhost:{port[1].decode()}"
        tls = context_of(folder, "alice")
        async with await open_http_client(url, ssl=tls, timeout=SECONDS) as client:
            token = await client.rpc.connect_oneway(10)
            assert await client.rpc.send_message(token, "job:done", [1]) == "ok"
        async with await open_http_client(
            url, ssl=context_of(folder, None), timeout=SECONDS
        ) as client:
            with pytest.raises(rpc.ConnectionLostError):
                await client.rpc.connect_oneway(10)
