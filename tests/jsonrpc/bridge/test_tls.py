"""TLS by ``ssl=``, with a certificate made for the test."""

import asyncio
import json
import logging
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from berrymq_rpc import rpc
from berrymq_rpc.jsonrpc.bridge import Bridge
from berrymq_rpc.jsonrpc.http import open_http_client

ASKED = b'{"jsonrpc": "2.0", "method": "sum", "params": [1, 2], "id": 1}\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for keys and certificates."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What a server and its clients need."""
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
            with pytest.raises(rpc.AuthenticationError) as refused:
                await calls.rpc.sum(1, 2)
            assert refused.value.reason == "certificate"
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


# -- certificates of clients -----------------------------------------------------------------


WHO = b'{"jsonrpc": "2.0", "method": "who", "id": 1}\n'


class Plant(rpc.AttrHandler):
    @rpc.method
    def who(self) -> str | None:
        return rpc.context().peer.user


class Laboratory:
    """A server's context that asks for certificates, and clients that have one or none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def contexts(
        self, subject: str | None, mode: ssl.VerifyMode
    ) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        """Those of a server, and of a client whose certificate has this subject."""
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(self._folder / "certificate.pem", self._folder / "key.pem")
        client = ssl.create_default_context(cafile=self._folder / "certificate.pem")
        server.verify_mode = mode
        if subject is None:
            server.load_verify_locations(self._folder / "certificate.pem")
            return server, client
        key, certificate = self._folder / "client-key.pem", self._folder / "client.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
             "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1", "-subj", subject,
             "-keyout", str(key), "-out", str(certificate)],
            check=True, capture_output=True, timeout=30,
        )  # fmt: skip
        client.load_cert_chain(certificate, key)
        server.load_verify_locations(certificate)
        return server, client


@pytest.fixture
def laboratory(folder: Path, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> Laboratory:
    # The server's certificate is that of `contexts`.
    return Laboratory(folder)


@pytest.mark.parametrize(
    ("subject", "mode", "user"),
    [
        ("/O=Plant/CN=alice", ssl.CERT_REQUIRED, "alice"),
        ("/CN=alice", ssl.CERT_OPTIONAL, "alice"),
        # It was not asked for, so it was not checked.
        ("/CN=alice", ssl.CERT_NONE, None),
        (None, ssl.CERT_OPTIONAL, None),
        ("/CN=alice/CN=bob", ssl.CERT_REQUIRED, None),
        ("/O=Plant", ssl.CERT_REQUIRED, None),
    ],
)
async def test_the_user_in_a_certificate(
    laboratory: Laboratory, subject: str | None, mode: ssl.VerifyMode, user: str | None
) -> None:
    server, client = laboratory.contexts(subject, mode)
    async with Bridge(Plant()) as bridge:
        url = await bridge.serve_http(ssl=server)
        async with await open_http_client(url, ssl=client) as calls:
            assert await calls.rpc.who() == user
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url + "/ws", ssl=client) as socket,
        ):
            await socket.send_bytes(WHO)
            assert json.loads(await socket.receive_str())["result"] == user
        port = int((await bridge.serve_tcp(ssl=server)).rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
        writer.write(WHO)
        assert json.loads(await reader.readline())["result"] == user
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(("token", "user"), [({"sesame": "bob"}, "bob"), ("sesame", "alice")])
async def test_a_token_and_a_certificate(laboratory: Laboratory, token: Any, user: str) -> None:
    """The name that goes with the token counts; a token without one leaves the certificate's."""
    server, client = laboratory.contexts("/CN=alice", ssl.CERT_REQUIRED)
    async with Bridge(Plant()) as bridge:
        url = await bridge.serve_http(ssl=server, token=token)
        async with await open_http_client(url, ssl=client, token="sesame") as calls:
            assert await calls.rpc.who() == user
        async with await open_http_client(url, ssl=client) as calls:
            with pytest.raises(rpc.AuthenticationError) as refused:
                await calls.rpc.who()
            assert refused.value.reason == "credentials"
        port = int((await bridge.serve_tcp(ssl=server, token=token)).rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
        writer.write(b'{"method": "authorize", "params": ["sesame"]}\n' + WHO)
        assert json.loads(await reader.readline())["result"] == user
        writer.close()
        await writer.wait_closed()


async def test_a_certificate_that_is_refused_is_logged(
    laboratory: Laboratory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    server, client = laboratory.contexts(None, ssl.CERT_REQUIRED)
    async with Bridge(Plant()) as bridge:
        url = await bridge.serve_http(ssl=server)
        async with await open_http_client(url, ssl=client) as calls:
            with pytest.raises(rpc.ConnectionLostError):
                await calls.rpc.who()
    (record,) = [each for each in caplog.records if each.name == "berrymq_rpc.security"]
    assert "127.0.0.1 refused: PEER_DID_NOT_RETURN_A_CERTIFICATE" in record.getMessage()
