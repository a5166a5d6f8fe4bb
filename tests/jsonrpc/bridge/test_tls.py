"""TLS by ``ssl=``, with a certificate made for the test."""

import asyncio
import json
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from berrymq_rpc.jsonrpc.bridge import Bridge
from berrymq_rpc.jsonrpc.http import open_http_client

ASKED = b'{"jsonrpc": "2.0", "method": "sum", "params": [1, 2], "id": 1}\n'


@pytest.fixture(scope="module")
def contexts(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What a server and its clients need."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder: Path = tmp_path_factory.mktemp("tls")
    key, certificate = str(folder / "key.pem"), str(folder / "certificate.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "1", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
         "-keyout", key, "-out", certificate],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    return server, ssl.create_default_context(cafile=certificate)


async def test_https(handler: Any, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server, client = contexts
    # In its debug mode asyncio reports clients that do not trust the certificate.
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with Bridge(handler) as bridge:
        url = await bridge.serve_http(ssl=server)
        assert url.startswith("https://127.0.0.1:")
        async with await open_http_client(url, ssl=client) as calls:
            assert await calls.rpc.sum(1, 2) == 3
        async with await open_http_client(url) as calls:
            with pytest.raises(ConnectionError):
                await calls.rpc.sum(1, 2)
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url + "/ws", ssl=client) as socket,
        ):
            await socket.send_bytes(ASKED)
            assert json.loads(await socket.receive_str())["result"] == 3


async def test_lines(handler: Any, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server, client = contexts
    async with Bridge(handler) as bridge:
        url = await bridge.serve_tcp(ssl=server)
        assert url.startswith("tls://127.0.0.1:")
        port = int(url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
        writer.write(ASKED)
        assert json.loads(await reader.readline())["result"] == 3
        writer.close()
        await writer.wait_closed()
