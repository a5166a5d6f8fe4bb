"""Ask a port who answers: what it says by itself, to a ZeroMQ greeting, to HTTP, and to TLS."""

import asyncio
import ssl
from typing import NamedTuple

from .answer import JSON_REQUEST, REQUEST, TLS, Speaker, identify
from .greeting import (
    GREETING_BYTES,
    SIGNATURE,
    Greeting,
    parse_greeting,
    parse_ready,
    rest_of_greeting,
)
from .network import Place, opened

__all__ = ["CLOSED", "SILENT", "Found", "find_speaker", "speaks_tls"]

#: Seconds for what a server says without being asked: ZeroMQ, SSH and NATS begin at once.
UNASKED = 0.5

#: Bytes of an answer that are looked at.
MAX_ANSWER = 4096

CLOSED = Speaker(
    "closed",
    "a program that closes each connection at once",
    "is the program behind it down, as behind a proxy or a container's port, or does it let this "
    "host in? Its log may say",
)
SILENT = Speaker(
    "silent",
    "a program that says nothing",
    "is it frozen (stopped by a debugger or SIGSTOP), or busy? The system accepts connections for "
    "it then. Else: is the port right?",
)
CUT = Speaker(
    "cut",
    "a ZeroMQ socket that does not end its greeting",
    "is it frozen, or older than ZeroMQ 4.0?",
)


class Found(NamedTuple):
    """Who answers.

    Args:
        speaker: who.
        greeting: that of a ZeroMQ socket.
        socket_type: its type, such as ``"ROUTER"``; ``None`` where it tells none without a key.
        refusal: why it refused this side as a DEALER, if it did.
    """

    speaker: Speaker
    greeting: Greeting | None = None
    socket_type: str | None = None
    refusal: str | None = None


async def find_speaker(place: Place | str, timeout: float) -> Found:
    """Find out who answers at an address, or at the path of a socket.

    Args:
        place: which accepts connections.
        timeout: seconds for each of five questions at most.
    """
    first = await _say(place, b"", min(UNASKED, timeout))
    if first and first[:1] == SIGNATURE[:1]:
        return await _zeromq(place, timeout)
    if first:
        return Found(identify(first))
    answer = await _say(place, REQUEST, timeout)
    if not answer:
        # Those that take HTTP for an attack close, and so may those of TLS.
        answer = await _say(place, JSON_REQUEST, timeout) or answer
    if answer and answer[:1] == SIGNATURE[:1]:
        # It was not that fast over this network.
        return await _zeromq(place, timeout)
    if answer:
        return Found(identify(answer))
    if isinstance(place, Place) and await speaks_tls(place, timeout):
        return Found(identify(TLS))
    return Found(SILENT if answer == b"" else CLOSED)


async def _say(place: Place | str, words: bytes, timeout: float) -> bytes | None:
    """What is answered; nothing if nothing is in time, ``None`` if the connection is closed."""
    try:
        async with asyncio.timeout(timeout), opened(place) as (reader, writer):
            writer.write(words)
            return await reader.read(MAX_ANSWER) or None
    except TimeoutError:
        return b""
    except OSError:
        return None


async def _zeromq(place: Place | str, timeout: float) -> Found:
    greeting = None
    zeromq = identify(SIGNATURE)
    try:
        async with asyncio.timeout(timeout), opened(place) as (reader, writer):
            writer.write(SIGNATURE + b"\3\0")
            data = await reader.readexactly(GREETING_BYTES)
            greeting = parse_greeting(data)
            if greeting is None:
                return Found(CUT)
            if greeting.mechanism != "NULL":
                return Found(zeromq, greeting)
            # Its READY comes now; ours would have a socket of another type close at once.
            writer.write(rest_of_greeting()[2:])
            command = None
            said = b""
            while command is None and len(said) < MAX_ANSWER:
                more = await reader.read(MAX_ANSWER)
                if not more:
                    break
                said += more
                command = parse_ready(said)
    except (EOFError, OSError, TimeoutError):
        return Found(CUT if greeting is None else zeromq, greeting)
    if command is None:
        return Found(zeromq, greeting)
    name, properties = command
    if name == "ERROR":
        return Found(zeromq, greeting, None, properties.get("reason") or "no reason given")
    return Found(zeromq, greeting, properties.get("socket-type"))


async def speaks_tls(place: Place, timeout: float) -> bool:
    """Whether a server ends a handshake of TLS, whatever its certificate is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(place.host, place.port, ssl=context)
    except (OSError, TimeoutError):
        return False
    writer.transport.abort()
    return True
