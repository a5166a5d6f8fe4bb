"""Addresses, read and checked in one place.

::

    tcp://host:port       a host and a port; ``*`` or 0 is any free port; [::1] is an IPv6 address
    ipc://path            a socket of this host
    mem://name            within this process
    mdns://name           what is announced on the local network by that name
    http://host:port/path and every other scheme of a host and a port; http:// and https:// have
                          their usual ports where none is given

No part of an address is left to another parser to understand: what two of them could read in two
ways, such as ``http://one.host:80@another.host/``, is not an address.

Which schemes there are transports for is known to `berrymq_rpc.rpc.transport`.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

__all__ = [
    "MAX_PORT",
    "Address",
    "Binding",
    "Endpoint",
    "bind_endpoints",
    "check_exposure",
    "checked_host_and_port",
    "endpoint_of",
    "host_and_port",
    "host_key",
    "is_loopback",
    "is_service_name",
    "split_user",
    "without_password",
]

#: An endpoint such as ``"tcp://127.0.0.1:5555"``, or a host and a port: ``("127.0.0.1", 5555)`` or
#: ``"127.0.0.1:5555"``.
Address: TypeAlias = str | tuple[str, int]
#: One address or several.
Binding: TypeAlias = Address | Iterable[Address]

MAX_PORT = 65_535

#: Digits of a port at most: Python refuses to parse thousands.
_MAX_DIGITS = 5

#: Schemes without a host, and so without a port.
_WITHOUT_HOST = frozenset(("ipc", "mem"))

#: The schemes whose hosts are found by a name.
_FOUND = frozenset(("mdns",))

#: A service of the local network: part of a label of DNS, which has 63 characters.
_SERVICE_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}", re.ASCII)

#: The ports of schemes that have one of their own.
_USUAL_PORTS = {"http": 80, "https": 443}

#: What neither a host nor a port has. Each of these ends the host for some parsers.
_NOT_IN_HOST = re.compile(r"[\x00-\x20\x7f@?#\\]")
#: A user and a password, in what may be meant as an address.
_PASSWORD = re.compile(r"^([\w+.-]+:?//)?[^/]*?:.*@", re.DOTALL)
#: What no path has, as it could end the line that carries it.
_NOT_IN_PATH = re.compile(r"[\x00-\x20\x7f]")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A parsed address.

    Args:
        scheme: such as ``"tcp"``, in lower case.
        host: without the brackets of an IPv6 address; empty for ``ipc``, ``mem`` and ``mdns``.
        port: ``None`` for any free one, and for ``ipc``, ``mem`` and ``mdns``.
        path: what follows the port, with its slash; of ``ipc``, ``mem`` and ``mdns``, all that
            follows the scheme.
    """

    scheme: str
    host: str
    port: int | None
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> "Endpoint":
        """Parse an endpoint.

        Raises:
            TypeError: it is not text.
            ValueError: it has no scheme or place, or no port where its scheme wants one; or it has
                a user part, or a character that no host has.
        """
        if not isinstance(text, str):
            raise TypeError(f"an endpoint is text such as 'tcp://127.0.0.1:5555', not {text!r}")
        scheme, separator, place = text.partition("://")
        if not (scheme and separator and place):
            raise ValueError(f"{without_password(text)!r} is not an endpoint: write scheme://place")
        if scheme in _WITHOUT_HOST:
            return cls(scheme, "", None, place)
        if scheme in _FOUND:
            if not is_service_name(place):
                raise ValueError(
                    f"{without_password(text)!r} names no service: write {scheme}:// and 1 to 40 "
                    "letters, digits, '_' and '-', without a port"
                )
            return cls(scheme, "", None, place)
        authority, slash, path = place.partition("/")
        if "@" in authority:
            # Without the text, which may have a password.
            raise ValueError(
                f"an address of {scheme}:// is a host and a port, without a user part before them"
            )
        if _NOT_IN_HOST.search(authority) or _NOT_IN_PATH.search(path):
            raise ValueError(f"{without_password(text)!r} has a character that no address has")
        host, colon, digits = authority.rpartition(":")
        if scheme in _USUAL_PORTS and ("]" in digits or not colon):
            host, colon, digits = authority, ":", str(_USUAL_PORTS[scheme])
        if not (host and colon and (digits == "*" or is_port(digits))):
            raise ValueError(_what_is_missing(scheme, authority, text))
        if slash and scheme == "tcp":
            raise ValueError(
                f"{without_password(text)!r} has a path, which no address of tcp:// has"
            )
        port = None if digits == "*" else int(digits)
        return cls(scheme, _host_of(host, text), port, slash + path)

    def require_port(self) -> "Endpoint":
        """Return the endpoint, if it can be connected to.

        Raises:
            ValueError: it has a host, and port 0 or ``*``.
        """
        if self.host and not self.port:
            raise ValueError(f"{str(self)!r} has no port to connect to: write that of the server")
        return self

    @property
    def is_loopback(self) -> bool:
        """Whether only this host can reach it."""
        return self.scheme in _WITHOUT_HOST or is_loopback(self.host)

    def __str__(self) -> str:
        if self.scheme in _WITHOUT_HOST or self.scheme in _FOUND:
            return f"{self.scheme}://{self.path}"
        # An IPv6 address is written in brackets.
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{'*' if self.port is None else self.port}{self.path}"


def _what_is_missing(scheme: str, authority: str, text: str) -> str:
    """Say what an address lacks: its host, its port or both."""
    shown = repr(without_password(text))
    host, colon, port = authority.rpartition(":")
    if not authority:
        problem = f"no host: write {scheme}://127.0.0.1:5555"
    elif not colon or port.endswith("]"):
        problem = f"no port: write {scheme}://{authority}:5555"
    elif not port:
        problem = f"no port after its ':': write {scheme}://{host or '127.0.0.1'}:5555"
    elif port != "*" and not is_port(port):
        return (
            f"{shown} has no valid port: a port is a number from 0 to {MAX_PORT}, or * for a free "
            f"one, not {port[:20]!r}"
        )
    else:
        problem = f"no host: write {scheme}://127.0.0.1:{port} for this one"
    return f"{shown} has {problem}"


def split_user(url: str) -> tuple[str, str]:
    """Take the user part out of a URL.

    Returns:
        What is before the ``@``, such as ``"user:password"``, or an empty text; and the URL
        without it.
    """
    scheme, separator, place = url.partition("://")
    authority, slash, path = place.partition("/")
    user, at, rest = authority.rpartition("@")
    return (user, f"{scheme}{separator}{rest}{slash}{path}") if at else ("", url)


def without_password(text: str) -> str:
    """What looks like an address, for an error or a log: with ``...`` for a user and a password.

    A password may have a slash in it, by mistake.
    """
    return _PASSWORD.sub(r"\1...@", text)


def _host_of(host: str, text: str) -> str:
    """Take the brackets off an IPv6 address; refuse those that are not around one."""
    has_brackets = "[" in host or "]" in host
    inner = host[1:-1] if has_brackets else host
    # Several colons: an address of IPv6, or for ZeroMQ a source address before the ";".
    if has_brackets or (":" in host and ";" not in host):
        try:
            ipaddress.IPv6Address(inner)
        except ValueError:
            is_whole = False
        else:
            is_whole = not has_brackets or host == f"[{inner}]"
        if not is_whole:
            raise ValueError(f"{text!r} has no host: write an IPv6 address in brackets")
    return inner


def is_service_name(text: str) -> bool:
    """Whether text may name a service of the local network."""
    return _SERVICE_NAME.fullmatch(text) is not None


def is_port(digits: str) -> bool:
    """Whether text is the number of a port."""
    return (
        digits.isascii()
        and digits.isdecimal()
        and len(digits) <= _MAX_DIGITS
        and int(digits) <= MAX_PORT
    )


def is_loopback(host: str) -> bool:
    """Whether only this host can reach a port that is bound to `host`."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        # A name, an interface or "*": all may be reached from other hosts.
        return False
    # Not every Python looks into an IPv4 address that is mapped to IPv6.
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def host_key(address: str | None) -> str:
    """What counts as one host: an IPv4 address, the first 64 bits of an IPv6 one, or this host.

    A host has 64 bits of IPv6 addresses to choose from, and all of ``127.0.0.0/8``.
    """
    try:
        found = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return address or ""
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is None:
            return found.exploded[:19]
        found = found.ipv4_mapped
    return "127" if found.is_loopback else str(found)


def host_and_port(text: str, default_host: str) -> tuple[str, int]:
    """Read ``host:port``, ``:port`` or a port alone; ``*`` is port 0, any free one.

    Raises:
        ValueError: there is no port, or no such host.
    """
    host, _, digits = text.rpartition(":")
    try:
        endpoint = Endpoint.parse(f"tcp://{host or default_host}:{digits}")
    except ValueError:
        raise ValueError(
            f"{without_password(text)!r} is not an address: write :8080 or host:8080 with a port "
            f"from 0 to {MAX_PORT}"
        ) from None
    return endpoint.host, endpoint.port or 0


def checked_host_and_port(host: object, port: object) -> tuple[str, int]:
    """Check what a program gave for a host and a port to listen at, and return both.

    Args:
        host: a name or an address; an IPv6 address with or without its brackets.
        port: from 0, which is any free one, to 65,535.

    Raises:
        TypeError: they are not text and a number.
        ValueError: there is no such host or port.
    """
    if not isinstance(host, str):
        raise TypeError(f"host is text such as '127.0.0.1', not {host!r}")
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"port is a number, not {port!r}")
    if not 0 <= port <= MAX_PORT:
        # Python refuses to show numbers of thousands of digits.
        shown = f", not {port}" if port.bit_length() < 64 else ""
        raise ValueError(f"a port is a number from 0 to {MAX_PORT}{shown}")
    if not host or "/" in host or _NOT_IN_HOST.search(host):
        raise ValueError(
            f"{host.rpartition('@')[2]!r} is empty or has a character that no host has"
        )
    return _host_of(host, host), port


def endpoint_of(address: Address) -> str:
    """The endpoint of an address; that of a host and a port is ``tcp://``.

    Raises:
        TypeError, ValueError: it is not an address.
    """
    if isinstance(address, str):
        if address.startswith("tcp://"):
            # libzmq takes a port that is too high, and then never connects.
            Endpoint.parse(address)
        elif "://" not in address:
            host, colon, digits = address.rpartition(":")
            if host and colon and (digits == "*" or (digits.isascii() and digits.isdecimal())):
                return endpoint_of(f"tcp://{address}")
        return address
    if not _is_host_and_port(address):
        raise TypeError(
            "an address is text such as 'tcp://127.0.0.1:5555' or '127.0.0.1:5555', or "
            f"(host, port), not {address!r}"
        )
    return str(Endpoint("tcp", *checked_host_and_port(*address)))


def bind_endpoints(binding: Binding) -> tuple[str, ...]:
    """The endpoints to bind; port 0, as sockets have it, is any free port, as ``*`` is.

    Raises:
        TypeError, ValueError: one of them is not an address.
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


def check_exposure(
    endpoint: str, insecure: bool, problem: str = "there is no authentication. Give security="
) -> None:
    """Refuse to open a port to the network by accident.

    Args:
        problem: why others must not reach it, and what to do about it, for the error.

    Raises:
        ValueError: `endpoint` binds beyond loopback, or is an abstract socket, which every user
            of this host may connect to; and `insecure` is not set.
    """
    if insecure:
        return
    if endpoint.startswith("ipc://@"):
        raise ValueError(
            f"{endpoint} has no file, so every user of this host may call this side. Write a path, "
            "give security=, or pass insecure=True if they all are trusted"
        )
    if not endpoint.startswith("tcp://"):
        return
    host = Endpoint.parse(endpoint).host
    if not is_loopback(host):
        raise ValueError(
            f"{endpoint} would let anyone who reaches {host!r} call this side: {problem}, bind to "
            "127.0.0.1, or pass insecure=True if the network is trusted"
        )


def _is_host_and_port(value: object) -> bool:
    match value:
        case (str(), int()) if isinstance(value, tuple) and not isinstance(value[1], bool):
            return True
        case _:
            return False
