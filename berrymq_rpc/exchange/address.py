"""Addresses as people write them, and the endpoints that they stand for."""

from collections.abc import Iterable
from typing import TypeAlias

__all__ = ["Address", "Binding", "bind_endpoints", "endpoint_of"]

#: An endpoint such as ``"tcp://127.0.0.1:5555"``, or a host and a port: ``("127.0.0.1", 5555)`` or
#: ``"127.0.0.1:5555"``.
Address: TypeAlias = str | tuple[str, int]
#: One address or several.
Binding: TypeAlias = Address | Iterable[Address]

MAX_PORT = 65_535
#: Of a port's digits, those that are read: Python refuses to read thousands.
MAX_DIGITS = 10


def endpoint_of(address: Address) -> str:
    """The endpoint of an address; that of a host and a port is ``tcp://``.

    Raises:
        TypeError, ValueError: it is no address.
    """
    if isinstance(address, str):
        if address.startswith("tcp://"):
            # libzmq takes a port that is too high, and then never connects.
            _, _, port_text = address.rpartition(":")
            if port_text.isdecimal():
                _check_port(int(port_text[:MAX_DIGITS]))
        elif "://" not in address:
            host, colon, port_text = address.rpartition(":")
            is_port = port_text.isascii() and (port_text.isdecimal() or port_text == "*")
            if host and colon and is_port:
                return endpoint_of(f"tcp://{address}")
        return address
    if not _is_host_and_port(address):
        raise TypeError(
            "an address is text such as 'tcp://127.0.0.1:5555' or '127.0.0.1:5555', or "
            f"(host, port), not {address!r}"
        )
    host, port = address
    _check_port(port)
    # The brackets that zmq wants around an IPv6 address.
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def bind_endpoints(binding: Binding) -> tuple[str, ...]:
    """The endpoints to bind; port 0, as sockets have it, is any free port, as ``*`` is.

    Raises:
        TypeError, ValueError: one of them is no address.
    """
    if isinstance(binding, str) or _is_host_and_port(binding):
        addresses: tuple[Address, ...] = (binding,)  # type: ignore[assignment]
    else:
        addresses = tuple(binding)  # type: ignore[arg-type]
    endpoints = map(endpoint_of, addresses)
    return tuple(
        f"{endpoint[:-1]}*"
        if endpoint.startswith("tcp://") and endpoint.endswith(":0")
        else endpoint
        for endpoint in endpoints
    )


def _check_port(port: int) -> None:
    if not 0 <= port <= MAX_PORT:
        raise ValueError(f"a port is a number up to {MAX_PORT}, not {port}")


def _is_host_and_port(value: object) -> bool:
    match value:
        case (str(), int()) if isinstance(value, tuple) and not isinstance(value[1], bool):
            return True
        case _:
            return False
