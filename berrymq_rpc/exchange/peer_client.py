"""Open the client of another node, over whichever transport its endpoint has."""

from dataclasses import replace
from typing import Any, TypeAlias, cast

from ..endpoint import Address, Binding, bind_endpoints, endpoint_of, split_user
from ..jsonrpc.http import is_url, open_http_client
from ..nats.options import Nats, NatsEndpoint, NatsPlace, is_nats, nats_of
from ..rpc.client import open_client_with
from ..rpc.options import ClientOptions
from ..rpc.transport import endpoints_of
from ..security import CurveClient, CurveServer, Security

__all__ = [
    "Place",
    "binding_of",
    "endpoint_of_node",
    "endpoint_to_show",
    "key_of",
    "open_peer_client",
]

#: Where a node is: an address, or a service at NATS with more settings.
Place: TypeAlias = Address | Nats


def endpoint_of_node(place: Place) -> str:
    """The endpoint of a node; that of one behind NATS has no password in its text.

    Raises:
        TypeError, ValueError: it is not one.
    """
    if not is_nats(place):
        return endpoint_of(cast(Address, place))
    settings = nats_of(cast(NatsPlace, place))
    if settings.address.service is None:
        raise ValueError(
            f"{settings} names no service, as a node that listens behind NATS has one: "
            f"{settings}/plant. All nodes there are a cluster: Node(cluster={str(settings)!r})"
        )
    return NatsEndpoint(settings)


def binding_of(binding: Binding | Nats) -> tuple[str, ...]:
    """The endpoints that a node binds.

    Raises:
        TypeError, ValueError: one of them is not an address.
    """
    if isinstance(binding, str | Nats):
        return bind_endpoints(endpoint_of_node(binding))
    places = tuple(binding)
    if any(map(is_nats, places)):
        return bind_endpoints(endpoint_of_node(cast(Place, place)) for place in places)
    return bind_endpoints(binding)


def endpoint_to_show(endpoint: str) -> str:
    """An endpoint for texts, logs and comparisons: a URL without its user and password."""
    return split_user(endpoint)[1] if is_url(endpoint) else endpoint


async def open_peer_client(
    endpoint: str,
    options: ClientOptions,
    handler: Any = None,
    *,
    address: str | None = None,
    server: str | None = None,
) -> Any:
    """Open a client: a `Client`, or an `HTTPClient` if the endpoint is a URL.

    All clients of a node are opened here, so that each has its options.

    Args:
        endpoint: where the other node is.
        options: of the client, but for the endpoint.
        handler: methods that the peer may call over the same connection; not used over HTTP, where
            a peer cannot call back.
        address: over HTTP, the IP address to connect to; ``None`` for any that the host has.
        server: the other node's public key, where this node has keys and the ``servers`` of its
            `CurveServer` do not say it.

    Raises:
        ValueError: the endpoint is malformed, or the other node's key is not known.
        ModuleNotFoundError: it is a URL, and aiohttp is not installed.
    """
    if is_url(endpoint):
        return await open_http_client(
            endpoint,
            version="1.0",
            timeout=options.call.timeout,
            connect_timeout=options.connect_timeout,
            security=options.security,
            address=address,
        )
    security = options.security
    key = key_of(endpoint, security, server)
    if isinstance(security, CurveServer):
        security = security.client(str(key))
    return await open_client_with(
        replace(
            options,
            connect=endpoints_of(endpoint, "connect", connecting=True),
            security=security,
            # A connection, its token and its messages are with one node.
            max_servers=1,
        ),
        handler,
    )


def key_of(endpoint: str, security: Security | None, server: str | None = None) -> str | None:
    """The public key that a node has to have; ``None`` where keys are not wanted.

    Args:
        endpoint: where it is.
        security: this node's.
        server: its key, where this is known otherwise.

    Raises:
        ValueError: this node has keys, and the key of the other one is not known; or a key is
            given, and this node cannot hold the other one to it.
    """
    if not isinstance(security, CurveServer):
        known = security.server if isinstance(security, CurveClient) else None
        if server is not None and server != known:
            have = "no keys" if known is None else f"a CurveClient for {known} alone"
            raise ValueError(
                f"{endpoint} has to have the key {server}, but this node has {have}: give the node "
                "security=CurveServer(keys, authorized=...)"
            )
        return known
    key = server or security.servers.get(endpoint)
    if key is None:
        raise ValueError(
            f"the public key of {endpoint} is not known, and this node has keys: give server=KEY, "
            f"or CurveServer(..., servers={{{endpoint!r}: KEY}})"
        )
    return key
