"""Endpoints: which transport each is for, and whether it may be open to others."""

from collections.abc import Iterable
from types import ModuleType

__all__ = ["check_exposure", "endpoints_of", "is_memory", "transport_for"]

MAX_PORT = 65_535

_SCHEMES = "tcp://host:port, ipc://path or mem://name"


def endpoints_of(value: str | Iterable[str] | None, name: str) -> tuple[str, ...]:
    """The endpoints that the argument `name` gave: one, several or none.

    Raises:
        ValueError: one of them is no endpoint.
    """
    if value is None:
        return ()
    found = (value,) if isinstance(value, str) else tuple(value)
    for endpoint in found:
        if not isinstance(endpoint, str):
            raise TypeError(f"{name}: an endpoint is text such as {_SCHEMES}, not {endpoint!r}")
        scheme, separator, rest = endpoint.partition("://")
        if not separator or not rest or scheme not in ("tcp", "ipc", "mem"):
            raise ValueError(f"{name}: {endpoint!r} is no endpoint: write {_SCHEMES}")
        if scheme == "tcp":
            _check_port(endpoint, name)
    return found


def _check_port(endpoint: str, name: str) -> None:
    """See that there is a port: libzmq would take 99999 for another."""
    port = endpoint.rpartition(":")[2]
    if port != "*" and not (port.isascii() and port.isdigit() and int(port) <= MAX_PORT):
        raise ValueError(
            f"{name}: {endpoint!r} has no port of 0 to {MAX_PORT}, or * for a free one"
        )


def is_memory(endpoint: str) -> bool:
    """Whether the endpoint is within this process."""
    return endpoint.startswith("mem://")


def transport_for(endpoint: str) -> ModuleType:
    """The module that listens and dials at such an endpoint."""
    # Most processes use one of the two alone.
    if is_memory(endpoint):
        from .transport import memory

        return memory
    from .transport import zeromq

    return zeromq


def check_exposure(endpoint: str, insecure: bool) -> None:
    """See that nobody opens a port to the network by accident.

    Raises:
        ValueError: `endpoint` binds beyond loopback, and `insecure` is not set.
    """
    if insecure or not endpoint.startswith("tcp://"):
        return
    host = endpoint[len("tcp://") :].rpartition(":")[0].strip("[]").partition("%")[0]
    if host in ("localhost", "127.0.0.1"):
        return
    import ipaddress

    try:
        if ipaddress.ip_address(host).is_loopback:
            return
    except ValueError:
        # A name, an interface or "*": all may be reached from other hosts.
        host = host or "*"
    raise ValueError(
        f"{endpoint} would let everybody who reaches {host!r} call this side: there is no "
        "authentication. Bind to 127.0.0.1, or pass insecure=True if the network is trusted"
    )
