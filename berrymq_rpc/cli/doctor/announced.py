"""``mdns://``: the servers and nodes that are announced by a name, each at its nearest address."""

from collections.abc import AsyncIterator

from ...endpoint import Endpoint
from ...security import Security
from .check import Check, failed, ok
from .zeromq import examine

__all__ = ["examine_announced"]


async def examine_announced(
    endpoint: str, security: Security | None, timeout: float, version: str
) -> AsyncIterator[Check]:
    """Look for what is announced by a name, and check each.

    Args:
        endpoint: ``mdns://name``.
        security: the keys of this side; ``None`` for none.
        timeout: seconds to look, and for each check.
        version: of this package.
    """
    from ...rpc.transport.mdns.browser import find
    from ...rpc.transport.mdns.interfaces import nearest_first, own_addresses

    name = Endpoint.parse(endpoint).path
    try:
        found = [each for each in await find(timeout) if each.name == name.lower()]
        own = own_addresses()
    except ModuleNotFoundError as error:
        yield failed("extras", str(error), "install it")
        return
    except OSError as error:
        text = f"the local network cannot be searched: {error}"
        yield failed("service", text, "is this host connected to a network?")
        return
    if not found:
        yield failed(
            "service",
            f"nothing is announced as {name!r} on the local network within {timeout:g} s",
            f"start it with announce={name!r} (berrymq serve --announce {name}); berrymq find "
            "lists what is announced. Multicast DNS passes no router, and a firewall has to let "
            "UDP port 5353 through",
        )
    for service in found:
        place, *others = nearest_first(service.endpoints, own)
        text = f"a {service.kind} is announced as {name!r} at {place}"
        if others:
            text += f", and at {len(others)} more"
        yield ok("service", text, kind=service.kind, endpoints=list(service.endpoints))
        async for check in examine(place, security, timeout, version):
            yield check
