"""CURVE on the sockets of ZeroMQ, and what a client can find out when it is refused."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from typing import Any

import zmq

from ...endpoint import Endpoint
from ...errors import AuthenticationError
from ...runtime.loop_thread import LoopThread
from ...security import CurveClient, CurveServer, Security
from .binding import uses_ipv6
from .monitor import CONNECTION_EVENTS, LOST, REFUSED, read_event
from .port import Credentials
from .zap import USER, authenticate

__all__ = [
    "UNCLEAR",
    "credentials_of",
    "cut",
    "find_refusal",
    "find_refusal_blocking",
    "host_of",
    "reason_of",
    "refused",
    "secure",
]

#: The status with which ZAP refuses a key.
_NOT_AUTHORIZED = 400

#: The reason of a refusal that is guessed: a network that breaks in the middle of a handshake
#: closes it too. It is believed where it comes twice in a row.
UNCLEAR = "handshake"

#: Seconds within which a server has to greet: less than a client waits.
GREETING_TIME = 1.0

#: The first bytes of a greeting (ZMTP 3.1, RFC 37), to which a server answers with its own whole.
_SIGNATURE = b"\xff\0\0\0\0\0\0\0\1\x7f\3\0"
_GREETING_BYTES = 64
_MECHANISM = slice(12, 32)


def secure(
    made: Any,
    security: Security | None,
    *,
    loop: asyncio.AbstractEventLoop | None,
    endpoint: str,
) -> Callable[[], None] | None:
    """Set the keys of a socket that is about to be opened.

    Args:
        made: the socket.
        security: who may come in, and how this side proves who it is.
        loop: where the server's async functions run.
        endpoint: the socket's address, for the log.

    Returns:
        A function to call once the socket is closed, if there is something to release.

    Raises:
        OSError: keys cannot be checked in the socket's context.
        TypeError: ZeroMQ knows nothing of this kind of security.
    """
    if security is None:
        return None
    if isinstance(security, CurveClient):
        _set_keys(made, security.keys)
        made.set(zmq.CURVE_SERVERKEY, security.server.encode("ascii"))
        return None
    if not isinstance(security, CurveServer):
        raise TypeError(f"{endpoint} takes a CurveServer or a CurveClient, not {security!r}")
    domain, release = authenticate(
        made.context, security.authorization, loop=loop, endpoint=endpoint
    )
    made.set(zmq.ZAP_DOMAIN, domain)
    made.set(zmq.ZAP_ENFORCE_DOMAIN, 1)
    _set_keys(made, security.keys[0])
    made.set(zmq.CURVE_SERVER, 1)
    return release


def _set_keys(made: Any, keys: Any) -> None:
    made.set(zmq.CURVE_PUBLICKEY, keys.public.encode("ascii"))
    made.set(zmq.CURVE_SECRETKEY, keys.secret.encode("ascii"))


def credentials_of(frame: Any) -> Credentials | None:
    """Who sent a message, by one of its frames; ``None`` for a peer without a key."""
    try:
        key = frame.get("User-Id")
    except zmq.ZMQError:
        return None
    try:
        return Credentials(key, frame.get(USER))
    except zmq.ZMQError:
        return Credentials(key, None)


def cut(file: int) -> None:
    """End the connection with this file number, at once; others of the socket live on."""
    try:
        with socket.socket(fileno=os.dup(file)) as shared:
            shared.shutdown(socket.SHUT_RDWR)
    except OSError:
        # It has ended by itself.
        return


#: What is wrong with the client that a server connects to.
_REFUSED_BY_SERVER = {
    "key": "the client that listens there is refused: its key is not authorized",
    "no keys": "the client that listens there is refused: it has no key",
    "handshake": "the handshake with the client that listens there failed: either it expects "
    "another server's key, or keys cannot be checked here at the moment (the log says why)",
}


def host_of(file: int) -> str | None:
    """The address of the host at the other end of the connection with this file number.

    Returns:
        Empty text where it must be this host, and ``None`` if the connection has ended.
    """
    try:
        with socket.socket(fileno=os.dup(file)) as shared:
            family, name = shared.family, shared.getpeername()
    except OSError:
        return None
    return str(name[0]) if family in (socket.AF_INET, socket.AF_INET6) else ""


def refused(security: Security | None, reason: str) -> AuthenticationError:
    """The error for a client that was refused, with what to do about it.

    A server that connects is told in the same way that it refused the client there.
    """
    if isinstance(security, CurveServer):
        return AuthenticationError(_REFUSED_BY_SERVER[reason], reason=reason)
    own = security.keys.public if isinstance(security, CurveClient) else ""
    text = {
        "key": f"the server has not authorized this client's key {own}: have the file NAME.key "
        "put into the server's folder of authorized keys (berrymq authorize FOLDER FILE)",
        "keys wanted": "the server wants keys: give "
        "security=rpc.CurveClient(keys, server=KEY) with the server's public key",
        "no keys": "the server has no key, and this client talks only to one that has: give the "
        "server security=rpc.CurveServer(...), or leave the client's security= away",
        "handshake": "the server has closed the handshake: either its key is not the one that "
        "server= says, or it cannot check keys at the moment (its log says why)",
    }[reason]
    return AuthenticationError(text, reason=reason)


def reason_of(status: int) -> str:
    """The reason, as `AuthenticationError` has it, for a status with which ZAP refused a key."""
    return "key" if status == _NOT_AUTHORIZED else "handshake"


def find_refusal_blocking(
    endpoint: str, security: Security | None, patience: float, socket_type: int = zmq.DEALER
) -> str | None:
    """Connect once to find out whether a server refuses this side, and why.

    For sockets without a monitor. It blocks, and returns at once where no server listens.

    Args:
        endpoint: the server's.
        security: this side's.
        patience: seconds to wait at most.
        socket_type: one with which the server's socket talks; others it refuses without a reason.

    Returns:
        The reason, as `AuthenticationError` has it, or ``None`` where it does not.
    """
    reason = _try_to_connect(endpoint, security, patience, socket_type)
    if reason == UNCLEAR:
        reason = _try_to_connect(endpoint, security, patience, socket_type)
    return reason


def _try_to_connect(
    endpoint: str, security: Security | None, patience: float, socket_type: int
) -> str | None:
    with zmq.Context() as context, context.socket(socket_type) as probe:
        probe.linger = 0
        probe.ipv6 = uses_ipv6(endpoint)
        release = secure(probe, security, loop=None, endpoint=endpoint)
        monitor = probe.get_monitor_socket(CONNECTION_EVENTS)
        try:
            probe.connect(endpoint)
            if not monitor.poll(int(patience * 1000)):
                return None
            event, value = read_event(monitor)
        finally:
            probe.disable_monitor()
            monitor.close(0)
            if release is not None:
                release()
    if event == REFUSED:
        return reason_of(value)
    if event == LOST:
        # This thread may run an event loop, as those of notebooks do.
        with contextlib.closing(LoopThread("refused client")) as thread:
            return thread.run(find_refusal(endpoint, security))
    return None


async def find_refusal(endpoint: str, security: Security | None) -> str | None:
    """Find out why a server closed the handshake, by what it says that it wants.

    libzmq reports no reason. The server's greeting, which anybody may read, names the mechanism.

    Returns:
        The reason, as `AuthenticationError` has it, or ``None`` where it was none of keys.
    """
    mechanism = await _mechanism(endpoint)
    if security is None:
        return "keys wanted" if mechanism == "CURVE" else None
    # Any other name is a greeting that was damaged on its way, or not of this package.
    return {"NULL": "no keys", "CURVE": UNCLEAR}.get(mechanism or "")


async def _mechanism(endpoint: str) -> str | None:
    """The mechanism in a server's greeting: ``"NULL"``, ``"PLAIN"`` or ``"CURVE"``."""
    try:
        async with asyncio.timeout(GREETING_TIME):
            reader, writer = await _connect(endpoint)
            try:
                writer.write(_SIGNATURE)
                greeting = await reader.readexactly(_GREETING_BYTES)
            finally:
                writer.close()
    except (OSError, EOFError, ValueError):
        return None
    return greeting[_MECHANISM].rstrip(b"\0").decode("ascii", "replace")


async def _connect(endpoint: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    place = Endpoint.parse(endpoint)
    if place.scheme == "ipc" and hasattr(socket, "AF_UNIX"):
        path = place.path
        return await asyncio.open_unix_connection("\0" + path[1:] if path[:1] == "@" else path)
    return await asyncio.open_connection(place.host, place.port)
