"""The graph of who sends and follows what, bounded, and without what never leaves the process."""

from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Any

from ..bus import Bus
from ..identifier import WILDCARD, Identifier
from .plain_text import plain_text

__all__ = ["graph_of"]


def graph_of(bus: Bus, limit: int, sent: Iterable[str] = ()) -> dict[str, Any]:
    """The graph of a bus, as `Bus.network` gives it, and how many registrations are left out.

    Args:
        limit: how many nodes at most; of half as many registrations, each of which may have two.
        sent: identifiers of messages that there were. They lead to the wildcards that match them.
    """
    registrations = max(1, limit // 2)
    network = bus.network(registrations)
    _add_sent(network, islice(sent, registrations))
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
    left_out = bus.statistics()["registrations"] - registrations
    return {
        "nodes": [node | {"label": plain_text(node["label"])} for node in nodes[:limit]],
        "edges": [
            edge | {"label": plain_text(edge["label"])}
            for edge in edges
            if edge["from"] in kept and edge["to"] in kept
        ],
        "omitted": max(0, left_out) + max(0, len(nodes) - limit),
    }


def _add_sent(network: dict[str, list[dict[str, Any]]], sent: Iterable[str]) -> None:
    """Add edges from identifiers to the wildcards that are followed and match them."""
    names = {node["label"]: node["id"] for node in network["nodes"] if node["kind"] == "identifier"}
    followed = {edge["from"] for edge in network["edges"] if edge["kind"] == "follows"}
    known = {(edge["from"], edge["to"]) for edge in network["edges"]}
    wildcards = [
        Identifier(label) for label, name in names.items() if WILDCARD in label and name in followed
    ]
    for text in sent:
        try:
            identifier = Identifier(text)
        except ValueError:
            # It stands for several, for which there was no place.
            continue
        if identifier.is_local:
            continue
        for wildcard in wildcards:
            if identifier == wildcard or not identifier.is_match(wildcard):
                continue
            start = names.get(text)
            if start is None:
                start = names[text] = f"s{len(names)}"
                about = {"id": start, "kind": "identifier", "label": text, "objects": 1}
                network["nodes"].append(about)
            ends = {"from": start, "to": names[str(wildcard)]}
            if (start, ends["to"]) not in known:
                more = {"kind": "matches", "label": "", "guarded": False}
                network["edges"].append(ends | more)
