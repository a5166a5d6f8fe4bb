"""Where services can be announced and found: the addresses of this host with multicast."""

import socket

__all__ = ["addresses_with_multicast"]

GROUP = "224.0.0.251"


def addresses_with_multicast() -> list[str]:
    """Those of IPv4 at which this host hears what it sends; none without zeroconf."""
    try:
        from berrymq_rpc.rpc.transport.mdns.interfaces import own_addresses
        from berrymq_rpc.rpc.transport.mdns.zeroconf_import import check_installed

        check_installed()
        found = own_addresses()
    except (ImportError, OSError):
        return []
    return [own.text for own in found if own.interface.version == 4 and hears_itself(own.text)]


def hears_itself(address: str) -> bool:
    ip = socket.inet_aton(address)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        try:
            receiver.bind(("", 0))
            receiver.settimeout(1)
            group = socket.inet_aton(GROUP) + ip
            receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, ip)
            sender.sendto(b"?", (GROUP, receiver.getsockname()[1]))
            return receiver.recv(1) == b"?"
        except OSError:
            return False
