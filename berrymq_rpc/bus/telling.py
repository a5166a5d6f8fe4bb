"""Routes that tell how their receivers end."""

from .answering import Answering, Ended
from .pooled_call import PooledCall
from .registrations import Receiver, is_sink
from .route import Route

__all__ = ["telling_route"]


def telling_route(route: Route, ended: Ended) -> tuple[Route, int]:
    """The same route, with `ended` called for each receiver; and how many have no end to tell.

    Those are queues: they only put messages aside.
    """
    receivers: list[Receiver] = []
    silent = 0
    for call in route.receivers:
        if isinstance(call, PooledCall):
            receivers.append(call.answering(ended))
        elif is_sink(call):
            receivers.append(call)
            silent += 1
        else:
            receivers.append(Answering(call, ended))
    return Route(route.identifier, (*route.forwarders, *receivers), route.reached), silent
