"""What a node has at a moment, in plain values: its connections, and the queues between nodes."""

from collections.abc import Hashable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from .connection import Connection
from .functions import ExportedFunctions
from .interconnection import Interconnection
from .leases import Lease
from .link import Link
from .queue_connection import QueueConnection
from .remote_queue import RemoteQueue
from .served_connections import ServedConnection

if TYPE_CHECKING:
    from .cluster.cluster import Cluster

__all__ = ["connections_of", "queues_of"]


def connections_of(
    own: Iterable[Connection], functions: ExportedFunctions, cluster: "Cluster | None"
) -> Iterator[dict[str, Any]]:
    """The connections of a node: to a cluster, those that it has made, and those of its peers.

    Each has these keys: ``direction``: ``"out"`` if this node has made it, else ``"in"``;
    ``style``: ``"01"``, ``"02"``, ``"03"`` or ``"cluster"``; ``peer``: an address or the name of a
    node; ``user``: who the peer has proved to be, or ``None``; ``identifier``: of style 03, else
    ``None``; ``is_up``: whether it works now; messages that are ``waiting`` and were ``dropped``.
    No token is in there.
    """
    if cluster is not None:
        buffer = cluster.send_buffer
        yield {
            "direction": "out",
            "style": "cluster",
            "peer": cluster.place,
            "user": None,
            "identifier": None,
            "is_up": cluster.is_connected,
            "waiting": buffer.messages,
            "dropped": buffer.dropped,
        }
    for connection in own:
        yield _made_here(connection)
    for lease in functions.leases:
        served = lease.value
        # Without a resource but with a link, it is the way back of one that this node has made.
        if served.resource is not None or served.link is None:
            yield _of_peer(lease, served)


def queues_of(functions: ExportedFunctions) -> Iterator[dict[str, Any]]:
    """The queues that a node keeps for other processes, and the send buffers of its links.

    Each has these keys: ``kind``: ``"remote"`` or ``"link"``; ``identifier``: what is kept;
    ``peer``: of a link, else ``None``; ``depth``: messages that wait; ``limit``: how many may;
    ``bytes`` that they take; how many were ``dropped``; ``consumers`` that wait for one.
    """
    for queue in functions.queues:
        yield {
            "kind": "remote",
            "identifier": str(queue.identifier),
            "peer": None,
            "depth": len(queue),
            "limit": queue.max_messages,
            "bytes": queue.bytes,
            "dropped": queue.dropped,
            "consumers": queue.consumers,
        }
    for link in functions.mesh.links:
        buffer = link.send_buffer
        yield {
            "kind": "link",
            "identifier": "*@*:*",
            "peer": link.peer,
            "depth": len(link),
            "limit": buffer.max_messages,
            "bytes": buffer.bytes,
            "dropped": link.dropped,
            "consumers": 0,
        }


def _made_here(connection: Connection) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "direction": "out",
        "style": connection.style,
        "peer": connection.endpoint,
        "user": None,
        "identifier": None,
        "is_up": connection.is_up,
        "waiting": 0,
        "dropped": 0,
    }
    if isinstance(connection, Interconnection):
        shown |= {"waiting": connection.waiting, "dropped": connection.dropped}
    elif isinstance(connection, QueueConnection):
        shown["identifier"] = str(connection.identifier)
    return shown


def _of_peer(lease: Lease[ServedConnection], served: ServedConnection) -> dict[str, Any]:
    resource = served.resource
    shown: dict[str, Any] = {
        "direction": "in",
        "style": "02",
        "peer": _name_of(lease.account),
        "user": lease.account if isinstance(lease.account, str) else None,
        "identifier": None,
        "is_up": not served.is_lost,
        "waiting": 0,
        "dropped": 0,
    }
    if isinstance(resource, Link):
        shown |= {
            "style": "01",
            "peer": resource.node or resource.peer,
            "is_up": resource.is_up,
            "waiting": len(resource),
            "dropped": resource.dropped,
        }
    elif isinstance(resource, RemoteQueue):
        shown |= {
            "style": "03",
            "identifier": str(resource.identifier),
            "waiting": len(resource),
            "dropped": resource.dropped,
        }
    return shown


def _name_of(account: Hashable) -> str:
    """What is known of a peer that has given no address."""
    if isinstance(account, str):
        return account
    if isinstance(account, tuple):
        return " ".join(map(str, account))
    return "this process" if account is None else "a client"
