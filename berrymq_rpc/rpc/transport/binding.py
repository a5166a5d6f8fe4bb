"""Bind and connect ZeroMQ sockets, with the checks that libzmq does not make.

libzmq (4.3.5) deletes whatever is at the path of an ``ipc://`` endpoint that it binds: a regular
file, or the socket of a server that runs. IPv6 is an option of the socket: without it, a name that
has an IPv6 address alone can be neither bound nor connected to; with it, a name that has addresses
of both kinds stands for the IPv6 one only.
"""

import errno
import os
import socket
import stat
import threading
from typing import Any

import zmq

from ...endpoint import Endpoint
from .port import IPC_MODE
from .zap import set_endpoint

__all__ = ["bind_error", "bind_socket", "is_name", "library_versions", "needs_ipv6", "uses_ipv6"]

_IPC = "ipc://"

#: The mask is that of the whole process.
_umask_lock = threading.Lock()


#: What to do where an address cannot be bound.
_ADVICE = {
    errno.EADDRINUSE: "another program listens there, or this one does already: end it, or take "
    "another address",
    errno.EADDRNOTAVAIL: "this host has no such address: take 127.0.0.1, or one that it has",
    errno.ENODEV: "this host has no such address: take 127.0.0.1, or one that it has",
    errno.EACCES: "this user may not: take a port from 1024 on, or another folder",
    errno.ENOENT: "the folder of its file does not exist: make it first",
    errno.ENAMETOOLONG: "the path is too long for a socket: take a shorter one",
}


def bind_error(endpoint: str, error: OSError) -> OSError:
    """The error for an endpoint that could not be bound, which says what to do.

    Args:
        error: with the number of what is wrong; a `zmq.ZMQError` is not an `OSError`, but has the
            same fields.
    """
    reason = (error.strerror or "").split(" (addr=")[0].split(" for ipc path ")[0]
    advice = _ADVICE.get(error.errno or 0)
    text = f"cannot listen at {endpoint}: {reason}"
    return OSError(error.errno, text if advice is None else f"{text} ({advice})")


def bind_socket(zmq_socket: Any, endpoint: str, ipc_mode: int = IPC_MODE) -> str:
    """Bind a socket.

    Args:
        zmq_socket: of pyzmq, and not bound yet.
        endpoint: such as ``tcp://127.0.0.1:*`` or ``ipc:///run/x``.
        ipc_mode: the mode of the socket's file: who on this host may connect.

    Returns:
        The real endpoint.

    Raises:
        zmq.ZMQError: it cannot be bound: the address is in use, there is no such host, or the path
            of ``ipc://`` is not that of a socket.
    """
    if endpoint.startswith(_IPC):
        path = endpoint.removeprefix(_IPC)
        _check_path(path)
        if hasattr(socket, "AF_UNIX") and not path.startswith("@"):
            _bind_path(zmq_socket, endpoint, ipc_mode)
            return _bound(zmq_socket)
    zmq_socket.set(zmq.IPV6, int(uses_ipv6(endpoint)))
    try:
        zmq_socket.bind(endpoint)
    except zmq.ZMQError as error:
        if error.errno != errno.ENODEV or not is_name(endpoint):
            raise
        # It has no IPv4 address, but may have an IPv6 one.
        zmq_socket.set(zmq.IPV6, 1)
        zmq_socket.bind(endpoint)
    return _bound(zmq_socket)


def _bind_path(zmq_socket: Any, endpoint: str, mode: int) -> None:
    """Bind a socket with a file of this mode; nobody else may connect meanwhile."""
    with _umask_lock:
        before = os.umask(0o777 & ~mode)
        try:
            zmq_socket.bind(endpoint)
        finally:
            os.umask(before)


def _bound(zmq_socket: Any) -> str:
    """The real endpoint, by which the log names the socket from now on."""
    last: bytes = zmq_socket.get(zmq.LAST_ENDPOINT)
    real = last.rstrip(b"\0").decode()
    set_endpoint(zmq_socket, real)
    return real


def uses_ipv6(endpoint: str) -> bool:
    """Whether the endpoint is an IPv6 address."""
    if not endpoint.startswith("tcp://"):
        return False
    host = Endpoint.parse(endpoint).host
    return ":" in host and ";" not in host


def is_name(endpoint: str) -> bool:
    """Whether the endpoint has a host name: it may stand for addresses of both kinds."""
    if not endpoint.startswith("tcp://"):
        return False
    host = Endpoint.parse(endpoint).host
    return ":" not in host and any(character.isalpha() for character in host)


def needs_ipv6(endpoint: str) -> bool | None:
    """Whether the endpoint is an IPv6 address, or a name that has no others.

    It waits for the name to be looked up, and returns ``None`` if it cannot be.
    """
    if not is_name(endpoint):
        return uses_ipv6(endpoint)
    try:
        found = socket.getaddrinfo(Endpoint.parse(endpoint).host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return None
    return {family for family, *_ in found} == {socket.AF_INET6}


def _check_path(path: str) -> None:
    """Refuse a path that is in use, unless it is a socket without a listener."""
    # "@" is a name without a file, which is in use or not; "*" a new path.
    if path.startswith("@") or path == "*" or not hasattr(socket, "AF_UNIX"):
        return
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        # Nothing is there, or libzmq says what is wrong with it.
        return
    if not stat.S_ISSOCK(mode):
        raise zmq.ZMQError(
            errno.ENOTSOCK, f"{path} exists and is not a socket: binding would delete it"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        # A socket of another kind, or that this user may not reach, is in use as well.
        if probe.connect_ex(path) not in (errno.ECONNREFUSED, errno.ENOENT):
            raise zmq.ZMQError(errno.EADDRINUSE)


def library_versions() -> tuple[str, str]:
    """The versions of pyzmq and of the libzmq that it uses."""
    return zmq.pyzmq_version(), zmq.zmq_version()
