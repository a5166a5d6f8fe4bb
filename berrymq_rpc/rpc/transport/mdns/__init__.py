"""Services of the local network, which are found by their names: ``mdns://name``.

A server or node with ``announce=`` says by multicast DNS (RFC 6762 and 6763) where it listens. A
client looks for all that have the name, and connects to each by ``tcp://``. What the network says
decides only where it connects to: keys decide who is trusted, as at any ``tcp://`` address.

`service` is what is said, `browser` looks for it, `announcement` says it, `dialler` is the port of
a client.
"""

from typing import NoReturn

from ..port import Port, PortHandler, PortOptions

__all__ = ["dial", "listen"]


async def dial(endpoint: str, handler: PortHandler, options: PortOptions) -> Port:
    """Look for the servers that a name stands for, now and as long as the port is open.

    Args:
        endpoint: ``mdns://name``.
        handler: is called on the running event loop.
        options: as for ``tcp://``; `max_servers` and `avoided_services` count as well.

    Raises:
        ModuleNotFoundError: zeroconf is not installed; it comes with the extra ``discovery``.
    """
    from .dialler import MdnsPort

    return MdnsPort(endpoint, handler, options)


async def listen(endpoint: str, handler: PortHandler, options: PortOptions) -> NoReturn:
    """Refuse: a server listens at ``tcp://``, and is announced.

    Raises:
        ValueError: always.
    """
    raise ValueError(f"{endpoint} is found, not bound: bind tcp:// and give announce=")
