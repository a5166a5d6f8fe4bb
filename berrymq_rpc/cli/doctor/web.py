"""``http://``, ``https://``, ``ws://`` and ``wss://``: a bridge, its token and its certificate."""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from ...endpoint import Endpoint
from .answer import TLS, identify
from .check import Check, failed, latency, ok, warning
from .first_words import CLOSED, SILENT, speaks_tls
from .nats_server import difference
from .network import Place, reach

__all__ = ["certificate_check", "examine_web"]

#: What starts a bridge at a place.
BRIDGE_START = "A node with a bridge is started there with: berrymq serve --http {place}"

#: Bytes of an answer that are read.
MAX_ANSWER = 1 << 20

#: How many requests are measured.
REQUESTS = 5

#: Days before the end of a certificate from which on a warning says so.
FEW_DAYS = 14

#: What every bridge answers: with a result, or with an error.
CALL = json.dumps({"jsonrpc": "2.0", "method": "rpc.discover", "params": [], "id": 1}).encode()

#: A key of a WebSocket's handshake, which need not be a secret.
_WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "YmVycnltcSBkb2N0b3IgIQ==",
}


class Answer(NamedTuple):
    """An answer over HTTP.

    Args:
        status: its number; 0 for what is not HTTP.
        fields: of its head, by their names in lower case.
        body: as far as it was read; where it is not HTTP, all.
    """

    status: int
    fields: dict[str, str]
    body: bytes


class Target(NamedTuple):
    """Where the requests go.

    Args:
        place: the address.
        host: what the field Host has.
        context: for TLS; ``None`` for none.
        name: of the host, for its certificate.
        token: of this side; ``None`` for none.
    """

    place: Place
    host: str
    context: ssl.SSLContext | None
    name: str
    token: str | None


async def examine_web(
    url: str, token: str | None, ca: str | None, timeout: float
) -> AsyncIterator[Check]:
    """Check a bridge at a URL.

    Args:
        url: of one of the four schemes.
        token: for the bridge; ``None`` for none.
        ca: the file of the authority of its certificate; ``None`` for those of this host.
        timeout: seconds for each check.
    """
    is_socket, is_tls = url.startswith("ws"), url.partition("://")[0] in ("https", "wss")
    address = Endpoint.parse(("https" if is_tls else "http") + "://" + url.partition("://")[2])
    assert address.port is not None
    place: Place | None = None
    async for each in reach(address.host, address.port, timeout, BRIDGE_START):
        if isinstance(each, Check):
            yield each
        else:
            place = each
    if place is None:
        return
    context = None
    if is_tls:
        try:
            context = ssl.create_default_context(cafile=ca)
        except (OSError, ValueError) as error:
            yield failed("tls", f"{ca} cannot be read: {error}", "give the authority as a PEM file")
            return
        check = await certificate_check(place, address.host, context, timeout)
        yield check
        if check.status == "failed":
            if check.details.get("reason") in (None, "plain"):
                return
            # The other checks say what else is wrong.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    shown = str(Endpoint("x", address.host, address.port)).partition("://")[2]
    target = Target(place, shown, context, address.host, token)
    async for check in _bridge(target, address.path, is_socket, timeout):
        yield check


async def certificate_check(
    place: Place, name: str, context: ssl.SSLContext, timeout: float
) -> Check:
    """Check TLS and the certificate of a server.

    Args:
        place: its address.
        name: what the certificate has to be for.
        context: verifies it.
        timeout: seconds.
    """
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(
                place.host, place.port, ssl=context, server_hostname=name
            )
    except ssl.SSLCertVerificationError as error:
        return _not_verified(error, name)
    except ssl.SSLError as error:
        is_plain = error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")
        if is_plain:
            text = f"the server at {place} speaks no TLS"
            return failed("tls", text, "write http:// or ws://", reason="plain")
        advice = (
            "does it want a certificate of this side, or other versions of TLS? Its log may say"
        )
        return failed("tls", f"no TLS: {error.reason or error}", advice)
    except TimeoutError:
        text = f"the server did not end TLS's handshake within {timeout:g} s"
        return failed("tls", text, "is it frozen, or does it speak no TLS (http://)?")
    except (OSError, EOFError) as error:
        text = f"the connection was closed in TLS's handshake: {error}"
        return failed("tls", text, "does it speak TLS? Without it, write http:// or ws://")
    found = writer.get_extra_info("peercert") or {}
    version = writer.get_extra_info("ssl_object").version()
    writer.transport.abort()
    return _in_time(found, str(version), name)


def _in_time(found: dict[str, object], version: str, name: str) -> Check:
    ends = str(found.get("notAfter", ""))
    days = int((ssl.cert_time_to_seconds(ends) - time.time()) // 86400) if ends else 0
    details = {"version": version, "days_left": days}
    text = f"{version}, and the certificate is for {name}: {days:,} days are left"
    if days < FEW_DAYS:
        return warning("tls", text, "renew it", **details)
    return ok("tls", text, **details)


def _not_verified(error: ssl.SSLCertVerificationError, name: str) -> Check:
    # The numbers of OpenSSL, X509_V_ERR_*.
    texts = {
        9: ("the certificate is not valid yet", "are the clocks of both hosts right?", "early"),
        10: ("the certificate has expired", "renew it at the server", "expired"),
        62: (
            f"the certificate is for another name than {name}",
            "write the name that it has, or make one for this name too",
            "name",
        ),
        64: (
            f"the certificate is for another address than {name}",
            "write the name that it has, or make one for this address too",
            "name",
        ),
    }
    unknown = (
        f"this host does not trust the authority of the certificate ({error.verify_message})",
        "give that authority with --ca FILE, if you trust it",
        "authority",
    )
    text, advice, reason = texts.get(error.verify_code, unknown)
    return failed("tls", text, advice, reason=reason)


async def _bridge(
    target: Target, path: str, is_socket: bool, timeout: float
) -> AsyncIterator[Check]:
    began = asyncio.get_running_loop().time()
    answer = await _request(target, "POST", path or "/", timeout, body=CALL)
    first = asyncio.get_running_loop().time() - began
    if isinstance(answer, Check):
        yield answer
        return
    if not answer.status:
        speaker = identify(answer.body) if answer.body else CLOSED
        if not answer.body and target.context is None and await speaks_tls(target.place, timeout):
            speaker = identify(TLS)
        advice = (
            "write https:// or wss://"
            if speaker.word == "tls"
            else f"berrymq doctor tcp://{target.host} says more"
            if speaker.word in ("zeromq", "nats")
            else speaker.advice
        )
        text = f"{speaker.text} listens at {target.host}: it is not an HTTP server"
        yield failed("protocol", text, advice, speaker=speaker.word)
        return
    protocol = _protocol(answer, path, target)
    yield protocol
    if date := answer.fields.get("date"):
        yield _clock(date)
    if protocol.status == "failed":
        return
    yield await _health(target, timeout)
    if is_socket:
        yield await _websocket(target, path, timeout)
    times = [first]
    for _ in range(REQUESTS - 1):
        began = asyncio.get_running_loop().time()
        again = await _request(target, "POST", path or "/", timeout, body=CALL)
        if isinstance(again, Check):
            yield again
            return
        times.append(asyncio.get_running_loop().time() - began)
    yield latency(times, "requests, each with a connection of its own")


def _protocol(answer: Answer, path: str, target: Target) -> Check:
    status = answer.status
    details = {"status": status, "server": answer.fields.get("server", "")[:100]}
    if status == 401:
        given = "the token that is given is wrong" if target.token else "the server wants a token"
        return failed("token", given, "give --token, or set BERRYMQ_TOKEN", **details)
    if status == 403:
        advice = "have the bridge know that name: berrymq bridge --host NAME, serve_http(hosts=)"
        text = f"the server does not answer to the name {target.name}"
        return failed("protocol", text, advice, **details)
    if status == 404:
        text = f"an HTTP server without JSON-RPC at {path or '/'} answers there"
        return failed("protocol", text, "is the path right? A bridge has /, and /ws", **details)
    if status == 503:
        return failed("protocol", "the server is full, or closing", "try again later", **details)
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not {"jsonrpc", "result", "error"} & set(found):
        text = f"an HTTP server (status {status}) answers there, which speaks no JSON-RPC"
        return failed("protocol", text, "is it another program? Is the port right?", **details)
    result = found.get("result")
    methods = result.get("methods") if isinstance(result, dict) else None
    if isinstance(methods, list):
        return ok("protocol", f"JSON-RPC over HTTP, with {len(methods)} methods", **details)
    return ok("protocol", "JSON-RPC over HTTP", **details)


def _clock(date: str) -> Check:
    try:
        theirs = parsedate_to_datetime(date[:100])
        if theirs.tzinfo is None:
            theirs = theirs.replace(tzinfo=UTC)
        return difference((theirs - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError):
        return warning("clock", f"the server tells a date that is none: {date[:40]!r}")


async def _health(target: Target, timeout: float) -> Check:
    answer = await _request(target, "GET", "/healthz", timeout)
    if isinstance(answer, Check):
        return answer
    details = {"status": answer.status}
    if answer.status == 200:
        return ok("health", "/healthz says that it is well", **details)
    if answer.status in (404, 405):
        return ok("health", "it has no /healthz", **details)
    text = f"/healthz answers {answer.status}"
    return failed(
        "health", text, "the server says that it is not well: its log says why", **details
    )


async def _websocket(target: Target, path: str, timeout: float) -> Check:
    place = path if path not in ("", "/") else "/ws"
    answer = await _request(target, "GET", place, timeout, fields=_WEBSOCKET)
    if isinstance(answer, Check):
        return answer
    details = {"status": answer.status}
    if answer.status == 101:
        return ok("service", f"a WebSocket opens at {place}", **details)
    text = f"no WebSocket opens at {place} (status {answer.status})"
    return failed("service", text, "a bridge has it at /ws", **details)


async def _request(
    target: Target,
    method: str,
    path: str,
    timeout: float,
    *,
    body: bytes = b"",
    fields: dict[str, str] | None = None,
) -> Answer | Check:
    if method == "POST" and path.rstrip("/") == "/ws":
        path = "/"
    lines = {"Host": target.host, "Connection": "close", "Accept": "application/json"}
    if body:
        lines |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    if target.token:
        lines["Authorization"] = f"Bearer {target.token}"
    lines |= fields or {}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    request = f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("utf-8", "replace") + body
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(
                target.place.host,
                target.place.port,
                ssl=target.context,
                server_hostname=target.name if target.context else None,
            )
            try:
                writer.write(request)
                return await _read(reader)
            finally:
                writer.transport.abort()
    except TimeoutError:
        return failed(
            "protocol", f"no answer within {timeout:g} s to {method} {path}", SILENT.advice
        )
    except OSError as error:
        return failed("protocol", f"the connection was lost: {error}", CLOSED.advice)


async def _read(reader: asyncio.StreamReader) -> Answer:
    data = b""
    while b"\r\n\r\n" not in data and len(data) < MAX_ANSWER:
        more = await reader.read(MAX_ANSWER)
        data += more
        if not more or not data.startswith(b"HTTP/"[: len(data)]):
            break
    if not data.startswith(b"HTTP/"):
        return Answer(0, {}, data)
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    status = first.split(" ")[1:2]
    fields = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields[name.strip().lower()] = value.strip()
    number = int(status[0]) if status and status[0].isdecimal() and len(status[0]) == 3 else 0
    length = fields.get("content-length", "")
    wanted = int(length) if length.isdecimal() and len(length) < 10 else MAX_ANSWER
    while number != 101 and len(body) < min(wanted, MAX_ANSWER):
        more = await reader.read(MAX_ANSWER)
        if not more:
            break
        body += more
    return Answer(number, fields, body)
