"""The addresses of this host, and those that a bound address covers."""

import ipaddress
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from ....endpoint import Endpoint, is_loopback

__all__ = ["OwnAddress", "covered_by", "multicast_on", "nearest_first", "own_addresses"]

Interface: TypeAlias = ipaddress.IPv4Interface | ipaddress.IPv6Interface


class OwnAddress(NamedTuple):
    """An address of this host, and where it has it.

    Args:
        interface: the address with its network.
        adapter: the number of the network's adapter.
    """

    interface: Interface
    adapter: int | None

    @property
    def text(self) -> str:
        """The address alone."""
        return str(self.interface.ip)


def own_addresses() -> list[OwnAddress]:
    """The addresses of this host, without those of loopback.

    Raises:
        OSError: the system does not tell.
    """
    # It comes with zeroconf.
    import ifaddr

    found: list[OwnAddress] = []
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            # An address of IPv6 has its scope beside it.
            text = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
            address = ipaddress.ip_interface(f"{text.partition('%')[0]}/{ip.network_prefix}")
            if not address.ip.is_loopback:
                found.append(OwnAddress(address, adapter.index))
    return found


def covered_by(endpoint: str, own: Iterable[OwnAddress]) -> list[OwnAddress]:
    """The addresses of this host at which others reach what is bound to an endpoint.

    Those of IPv6 that hold for one link only are left out, if there are others.

    Args:
        endpoint: ``tcp://`` with an IP address, as the port of a server tells it.
        own: the addresses of this host.
    """
    host = Endpoint.parse(endpoint).host.partition("%")[0]
    if is_loopback(host):
        return []
    if host not in ("0.0.0.0", "::"):
        wanted = ipaddress.ip_address(host)
        return [each for each in own if each.interface.ip == wanted]
    # A port at all addresses of IPv6 is one at those of IPv4 as well.
    found = [each for each in own if host == "::" or each.interface.version == 4]
    return [each for each in found if not each.interface.ip.is_link_local] or found


def multicast_on(own: Iterable[OwnAddress]) -> list[str | int]:
    """Where to send and hear multicast: addresses of IPv4, and for IPv6 numbers of adapters."""
    found: dict[str | int, None] = {}
    for each in own:
        if each.interface.version == 4:
            found[each.text] = None
        elif each.adapter is not None:
            found[each.adapter] = None
    return list(found)


def nearest_first(endpoints: Iterable[str], own: Iterable[OwnAddress]) -> list[str]:
    """Endpoints in the order in which to try them: those of this host's networks first."""
    networks = [each.interface.network for each in own]

    def is_far(endpoint: str) -> bool:
        address = ipaddress.ip_address(Endpoint.parse(endpoint).host)
        return not any(address in network for network in networks)

    return sorted(endpoints, key=is_far)
