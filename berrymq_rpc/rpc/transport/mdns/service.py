"""What a service says of itself by multicast DNS.

::

    _berrymq._tcp.local.                       the type of all services
    calc-5f0c2a9b1d3e._berrymq._tcp.local.     one server of the service "calc", with its id
      SRV   port and host
      TXT   kind=server  keys=1  version=0.1.0

Whoever is on the network may say anything: what is not as here is not a service.
"""

import ipaddress
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ....endpoint import Endpoint, is_service_name

__all__ = ["KINDS", "MAX_ADDRESSES", "TYPE", "Announced", "Service", "instance_of", "service_of"]

TYPE = "_berrymq._tcp.local."

#: What may be announced.
KINDS = ("node", "server")

#: Addresses of one server that are looked at: those of a host with some networks and IPv6.
MAX_ADDRESSES = 16

_INSTANCE = re.compile(rf"(?P<name>[^.]+)-(?P<id>[0-9a-f]{{12}})\.{re.escape(TYPE)}", re.IGNORECASE)
_VERSION = re.compile(r"[0-9A-Za-z.+_-]{1,30}")


def new_id() -> str:
    """An id that no other server has."""
    return secrets.token_hex(6)


@dataclass(frozen=True, slots=True)
class Announced:
    """As what a server is to be announced.

    Args:
        name: of the service.
        kind: ``"server"`` or ``"node"``.
        id: tells it from other servers of the service.
    """

    name: str
    kind: str = "server"
    id: str = field(default_factory=new_id)


@dataclass(frozen=True, slots=True)
class Service:
    """One server or node, as it was announced. None of it is proved.

    Attributes:
        name: of the service; several servers may share it.
        id: tells it from other servers of the service.
        kind: ``"server"`` or ``"node"``.
        endpoints: where it listens.
        has_keys: whether it wants keys.
        version: of the library; empty if it is not known.
    """

    name: str
    id: str
    kind: str
    endpoints: tuple[str, ...]
    has_keys: bool
    version: str


def instance_of(full_name: str) -> tuple[str, str] | None:
    """The name and id of a server by its name in DNS, in small letters; ``None`` if it is none."""
    match = _INSTANCE.fullmatch(full_name)
    if match is None or not is_service_name(match["name"]):
        return None
    return match["name"].lower(), match["id"].lower()


def service_of(
    full_name: str,
    port: int | None,
    addresses: Iterable[str],
    properties: Mapping[bytes, bytes | None],
) -> Service | None:
    """Read what was announced; ``None`` if it is not a service that can be connected to."""
    instance = instance_of(full_name)
    kind = _text(properties.get(b"kind"))
    if instance is None or kind not in KINDS or port is None or not 0 < port < 65536:
        return None
    endpoints = tuple(
        dict.fromkeys(
            str(Endpoint("tcp", address, port))
            for address in list(addresses)[:MAX_ADDRESSES]
            if _is_possible(address)
        )
    )
    if not endpoints:
        return None
    version = _text(properties.get(b"version"))
    return Service(
        name=instance[0],
        id=instance[1],
        kind=kind,
        endpoints=endpoints,
        has_keys=properties.get(b"keys") == b"1",
        version=version if _VERSION.fullmatch(version) else "",
    )


def _text(value: bytes | None) -> str:
    return (value or b"").decode("ascii", "replace")


def _is_possible(text: str) -> bool:
    """Whether a server of the network may be at an address.

    Not at this host's loopback: what listens there trusts that others cannot reach it.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return not (mapped.is_loopback or mapped.is_multicast or mapped.is_unspecified)
