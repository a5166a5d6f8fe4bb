"""``berrymq doctor http://...``, ``https://``, ``ws://`` and ``wss://``."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from berrymq_rpc import rpc
from berrymq_rpc.cli.doctor.check import Check
from berrymq_rpc.cli.doctor.web import examine_web
from berrymq_rpc.jsonrpc.bridge import Bridge

from .conftest import LONG, SHORT, collected, statuses

REACHED = {"name": "ok", "address": "ok", "port": "ok"}


async def examined(
    url: str, token: str | None = None, ca: str | None = None, timeout: float = LONG
) -> dict[str, Check]:
    return await collected(examine_web(url, token, ca, timeout))


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """A server that gives one answer to all requests."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(answer)
        if not answer:
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def http(status: str, body: bytes = b"", *fields: str) -> bytes:
    head = "".join(f"{field}\r\n" for field in fields)
    return f"HTTP/1.1 {status}\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def test_a_bridge() -> None:
    async with Bridge({}) as bridge:
        url = await bridge.serve_http()
        found = await examined(url)
        assert set(statuses(found).values()) == {"ok"}
        assert {"protocol", "clock", "health", "latency"} < set(found)
        found = await examined(url.replace("http", "ws") + "/ws")
        assert set(statuses(found).values()) == {"ok"}
        assert found["service"].details["status"] == 101
        nowhere = await examined(url + "/elsewhere")
        assert nowhere["protocol"].status == "failed"
        assert "path" in (nowhere["protocol"].advice or "")


async def test_a_token() -> None:
    async with Bridge({}) as bridge:
        url = await bridge.serve_http(token="sesame")
        good = await examined(url, "sesame")
        assert set(statuses(good).values()) == {"ok"}
        for token, text in ((None, "wants a token"), ("wrong", "is wrong")):
            found = await examined(url, token)
            assert found["token"].status == "failed"
            assert text in found["token"].text
            assert "sesame" not in str(found)


@pytest.mark.parametrize(
    ("answer", "name", "text"),
    [
        (http("200 OK", b"<html>"), "protocol", "speaks no JSON-RPC"),
        (http("403 Forbidden"), "protocol", "does not answer to the name"),
        (http("503 Busy"), "protocol", "full"),
        (http("418 Teapot", b"[" * 2000), "protocol", "status 418"),
        (b"\xff\0\0\0\0\0\0\0\1\x7f", "protocol", "a ZeroMQ socket"),
        ("HTTP/1.1 \u00b2\u00b2\u00b2 x\r\n\r\n".encode("latin-1"), "protocol", "an HTTP server"),
        (http("200 OK", b"[]").replace(b": 2", b": \xb2"), "protocol", "speaks no JSON-RPC"),
        (b"SSH-2.0-x\r\n", "protocol", "an SSH server"),
        (b"\x15\3\1\0\2\2\x46", "protocol", "a TLS server"),
    ],
)
async def test_other_servers(answer: bytes, name: str, text: str) -> None:
    async with answering(answer) as url:
        found = await examined(url)
    assert found[name].status == "failed"
    assert text in found[name].text


async def test_a_server_that_says_nothing() -> None:
    async with answering(b"") as url:
        found = await examined(url, timeout=SHORT)
    assert statuses(found) == REACHED | {"protocol": "failed"}
    assert "no answer within" in found["protocol"].text


async def test_a_server_that_is_not_well_and_late() -> None:
    body = b'{"jsonrpc": "2.0", "error": {"code": -32601, "message": "no"}, "id": 1}'
    old = http("200 OK", body, "Date: Sat, 28 Nov 2020 10:00:00 GMT")
    async with answering(old) as url:
        found = await examined(url)
    assert found["clock"].status == "warning"
    assert "behind" in found["clock"].text
    async with answering(http("500 Ill", body)) as url:
        found = await examined(url)
    assert found["health"].status == "failed"


async def test_a_node_at_http() -> None:
    async with await rpc.start_server({}, bind="tcp://127.0.0.1:*") as server:
        found = await examined(server.endpoints[0].replace("tcp", "http"))
    assert found["protocol"].status == "failed"
    assert "berrymq doctor tcp://" in (found["protocol"].advice or "")


# -- certificates ------------------------------------------------------------------------------


def made(folder: Path, name: str, *arguments: str) -> ssl.SSLContext:
    """The context of a server with a certificate for localhost."""
    key, certificate = str(folder / f"{name}.key"), str(folder / f"{name}.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", key, "-out", certificate, *arguments],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


async def test_certificates(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    # In its debug mode asyncio reports clients that do not trust the certificate.
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    long = made(tmp_path, "long", "-days", "90")
    short = made(tmp_path, "short", "-days", "2")
    async with Bridge({}) as bridge:
        ports = []
        for context in (long, short):
            url = await bridge.serve_http("localhost", ssl=context)
            ports.append(int(url.rpartition(":")[2]))
        ca = str(tmp_path / "long.pem")
        good = await examined(f"https://localhost:{ports[0]}", ca=ca)
        assert set(statuses(good).values()) == {"ok"}
        assert good["tls"].details["days_left"] in (89, 90)
        socket = await examined(f"wss://localhost:{ports[0]}/ws", ca=ca)
        assert set(statuses(socket).values()) == {"ok"}
        name = await examined(f"https://127.0.0.1:{ports[0]}", ca=ca)
        assert name["tls"].details["reason"] == "name"
        # What else there is to know is found all the same.
        assert name["latency"].status == "ok"
        unknown = await examined(f"https://localhost:{ports[0]}")
        assert unknown["tls"].details["reason"] == "authority"
        assert "--ca" in (unknown["tls"].advice or "")
        soon = await examined(f"https://localhost:{ports[1]}", ca=str(tmp_path / "short.pem"))
        assert soon["tls"].status == "warning"
        assert soon["tls"].advice == "renew it"


async def test_an_expired_certificate(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    made(tmp_path, "new", "-days", "1")
    subprocess.run(
        ["openssl", "x509", "-in", "new.pem", "-signkey", "new.key", "-days", "-1",
         "-copy_extensions", "copyall", "-out", "old.pem"],
        cwd=tmp_path, check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(tmp_path / "old.pem"), str(tmp_path / "new.key"))
    async with Bridge({}) as bridge:
        url = await bridge.serve_http("localhost", ssl=context)
        port = url.rpartition(":")[2]
        found = await examined(f"https://localhost:{port}", ca=str(tmp_path / "old.pem"))
    assert found["tls"].details["reason"] == "expired"


async def test_no_tls() -> None:
    async with Bridge({}) as bridge:
        url = await bridge.serve_http()
        found = await examined(url.replace("http", "https"))
    assert statuses(found) == REACHED | {"tls": "failed"}
    assert found["tls"].advice == "write http:// or ws://"


async def test_tls_at_http(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with Bridge({}) as bridge:
        url = await bridge.serve_http("localhost", ssl=made(tmp_path, "one"))
        found = await examined(url.replace("https", "http"))
    assert found["protocol"].status == "failed"
    assert "https" in (found["protocol"].advice or "")
