"""The graph of who sends and follows what, bounded, and without what never leaves the process."""

from collections import Counter
from typing import Any

from ..bus import Bus
from ..identifier import Identifier
from .plain_text import plain_text

__all__ = ["graph_of"]


def graph_of(bus: Bus, limit: int) -> dict[str, Any]:
    """The graph of a bus, as `Bus.network` gives it, and how many registrations are left out.

    Args:
        limit: of how many registrations at most, and how many nodes.
    """
    network = bus.network(limit)
    hidden = {
        node["id"]
        for node in network["nodes"]
        if node["kind"] == "identifier" and Identifier(node["label"]).is_local
    }
    edges = [edge for edge in network["edges"] if not {edge["from"], edge["to"]} & hidden]
    # What only follows or sends what is hidden would be there with no edge.
    ends = Counter(end for edge in edges for end in (edge["from"], edge["to"]))
    nodes = [node for node in network["nodes"] if ends[node["id"]]]
    kept = {node["id"] for node in nodes[:limit]}
    registrations = bus.statistics()["registrations"]
    return {
        "nodes": [node | {"label": plain_text(node["label"])} for node in nodes[:limit]],
        "edges": [
            edge | {"label": plain_text(edge["label"])}
            for edge in edges
            if edge["from"] in kept and edge["to"] in kept
        ],
        "omitted": max(0, registrations - limit) + max(0, len(nodes) - limit),
    }
