"""What the names of `statistics` stand for: which only grow, and how ``/metrics`` calls them."""

from typing import NamedTuple

__all__ = ["ALIASES", "COUNTS", "METERED", "Count"]


class Count(NamedTuple):
    """One name.

    Args:
        text: what is counted.
        grows: whether it counts what has happened, and not what there is now.
        metric: its name at ``/metrics``, where that is another one.
    """

    text: str
    grows: bool = False
    metric: str | None = None


def _grows(text: str, metric: str | None = None) -> Count:
    return Count(text, True, metric)


#: All but those of `METERED` and `ALIASES`.
COUNTS = {
    # Of servers and clients.
    "peers": Count("connections that there are"),
    "calls": _grows("calls and notifications of peers, refused ones included", "calls_received"),
    "calls_running": Count("calls of peers that are not answered yet"),
    "calls_in_flight": Count("calls to peers that are not answered yet"),
    "call_bytes_queued": Count("bytes of calls of peers that wait for their turn"),
    "bytes_queued": Count("bytes that wait for the peers to read them"),
    "malformed_messages": _grows("messages that could not be read"),
    "malformed": _grows("parts of messages that the dialect does not allow", "malformed_records"),
    "expired": _grows("calls that were read after their deadline", "calls_read_late"),
    "notifications_dropped": _grows("notifications of peers that were not served"),
    "notifications_lost": _grows("notifications to peers that did not arrive"),
    # Of nodes.
    "connections": Count("connections of other processes"),
    "connections_refused": _grows("connections that were refused as all places were taken"),
    "connections_displaced": _grows("connections never used that made way for others"),
    "queues": Count("queues that are open"),
    "queue_bytes": Count("bytes that the queues of other processes take"),
    "consumers_waiting": Count("calls of get that wait"),
    "messages_waiting": Count("messages that wait in queues and for connections"),
    "messages_unacknowledged": Count("messages that consumers have not acknowledged"),
    "messages_dead": _grows("messages that were delivered as often as they may be"),
    "messages_dropped": _grows("messages that full queues have dropped"),
    "messages_denied": _grows("messages whose senders may not send them"),
    "messages_withheld": _grows("messages left out for those that may not get them"),
    "messages_refused": _grows("messages of this node that could not be sent"),
    "messages_missed": _grows("messages of other nodes that were missed"),
    "messages_duplicated": _grows("messages that came twice, which is no loss"),
    "messages_malformed": _grows("malformed messages of other nodes"),
    "wills_held": Count("wills of other nodes that are held"),
    "wills_refused": _grows("wills that took too many bytes"),
    "wills_published": _grows("wills of lost nodes that were published"),
    "will_holders": Count("nodes of the cluster that hold this node's will"),
    "cluster_connected": Count("whether there is a NATS server now"),
    "cluster_received": _grows("messages that came from the cluster"),
    "cluster_waiting": Count("messages that the cluster has not confirmed yet"),
    "cluster_dropped": _grows("messages dropped as too many waited for the cluster"),
    # Of buses.
    "registrations": Count("receivers that follow"),
    "routes_cached": Count("identifiers whose receivers are known already"),
    "changes_waiting": Count("changes of registrations that wait"),
    "async_receivers": Count("async receivers that run"),
    "pool_threads": Count("threads of the pool"),
    "receivers_running": Count("receivers that run on the pool"),
    "receivers_waiting": Count("receivers that wait for a thread of the pool"),
    "messages_retained": Count("messages that are retained"),
    "retained_bytes": Count("bytes that retained messages take"),
    "retained_dropped": _grows("retained messages dropped at a bound"),
    "retained_outdated": _grows("retained messages of other nodes that were no longer the last"),
    # Of bridges.
    "peers_refused": _grows("peers that were refused"),
    "peers_closed": _grows("connections closed to make way for others"),
    "bytes_held": Count("bytes of texts that are not whole or wait to be sent"),
    "posts_refused": _grows("posts refused as their host had too many"),
    "tokens_refused": _grows("requests and connections without a valid token"),
    "subscriptions": Count("subscriptions of peers"),
    "subscription_bytes": Count("bytes that the messages take that are kept for subscriptions"),
    "subscriptions_refused": _grows("subscriptions that were refused"),
}

#: Sums of what a meter counts by name, which ``/metrics`` has with the names.
METERED = frozenset(
    (
        *(
            f"{calls}_{outcome}"
            for calls in ("calls", "calls_made")
            for outcome in ("ok", "error", "cancelled", "expired", "refused")
        ),
        *("messages_published", "messages_relayed", "receiver_errors"),
    )
)

#: Older names of some of them.
ALIASES = {"doubles": "messages_duplicated", "calls_in_progress": "calls_running"}
