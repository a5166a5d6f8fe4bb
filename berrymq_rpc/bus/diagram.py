"""The diagram of who sends and who follows what, in the language of Graphviz.

::

    digraph berrymq {
      i0 [label="job:done", shape=plaintext];
      n0 [label="shop.Logger", shape=box3d, ...];
      i0 -> n0 [label="write"];
    }

Text that comes from a program stands in double quotes only, with ``"`` and the backslash escaped.
"""

import threading
import types
import weakref
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias

from ..identifier import WILDCARD, Identifier
from .log import describe
from .registrations import Registration

__all__ = ["Diagram", "DiagramNode", "DiagramSource"]

_ATTRIBUTES = {
    "class": 'shape=box3d, style=filled, fillcolor="#C1E4FF", color="#358ACC"',
    "connection": 'shape=cds, style=filled, fillcolor="#E4FFC1", color="#6FA01E"',
    "function": 'shape=box, style="filled,rounded", fillcolor="#F2F2F2", color="#808080"',
    "queue": 'shape=cylinder, style=filled, fillcolor="#FFEFC1", color="#CC9A35"',
}


class DiagramNode(NamedTuple):
    """How an object that is not a function or class of a program is drawn.

    An object whose method follows, and whose class has ``bus_diagram_nodes() ->
    list[DiagramNode]``, is drawn as these nodes instead of as its class.

    Attributes:
        kind: ``"queue"`` or ``"connection"``.
        label: the text on it.
        follows: of a connection: the identifiers of the messages that it takes to its peer.
        sends: the identifiers of the messages that come from its peer.
    """

    kind: str
    label: str
    follows: tuple[str, ...] = ()
    sends: tuple[str, ...] = ()


DiagramSource: TypeAlias = Callable[[], list[DiagramNode]]


class Diagram:
    """What a bus shows besides its registrations: functions that send, and connections."""

    __slots__ = ("_lock", "_senders", "_sources")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._sources: tuple[DiagramSource, ...] = ()
        # Weakly: a function that is gone sends nothing any more.
        self._senders: weakref.WeakKeyDictionary[Any, tuple[Identifier, ...]]
        self._senders = weakref.WeakKeyDictionary()

    def add_sender(self, function: Any, identifiers: Iterable[Identifier]) -> None:
        """Note that a function sends messages of these identifiers when it is called."""
        if isinstance(function, classmethod | staticmethod):
            function = function.__func__
        with self._lock:
            self._senders[function] = tuple(identifiers)

    def add_source(self, source: DiagramSource) -> None:
        """Ask `source` for connections, each time that a diagram is made."""
        with self._lock:
            self._sources = (*self._sources, source)

    def remove_source(self, source: DiagramSource) -> None:
        """Undo `add_source`."""
        with self._lock:
            self._sources = tuple(kept for kept in self._sources if kept != source)

    def followers(self, registrations: list[Registration]) -> dict[str, list[str]]:
        """By identifier, in order, the names of what follows it."""
        found: dict[str, list[str]] = {}
        for registration in registrations:
            receiver = registration.receiver()
            if receiver is not None:
                nodes = _nodes_of(receiver)
                names = [describe(receiver)] if nodes is None else [node.label for node in nodes]
                found.setdefault(str(registration.identifier), []).extend(names)
        for node in self._connections():
            for followed in node.follows:
                found.setdefault(followed, []).append(node.label)
        return dict(sorted(found.items()))

    def dot(self, registrations: list[Registration]) -> str:
        """The diagram in the language of Graphviz."""
        return self._graph(registrations).text()

    def data(self, registrations: list[Registration]) -> dict[str, list[dict[str, Any]]]:
        """The diagram as `Bus.network` answers it."""
        return self._graph(registrations).data()

    def _graph(self, registrations: list[Registration]) -> "_Graph":
        graph = _Graph()
        for registration in registrations:
            _draw_receiver(graph, registration)
        for connection in self._connections():
            name = graph.node(connection.kind, connection.label, connection)
            for followed in connection.follows:
                graph.follows(name, Identifier(followed))
            for sent in connection.sends:
                graph.sends(name, Identifier(sent))
        with self._lock:
            senders = list(self._senders.items())
        for function, identifiers in senders:
            name = graph.node("function", describe(function), function)
            for identifier in identifiers:
                graph.sends(name, identifier)
        return graph

    def _connections(self) -> Iterable[DiagramNode]:
        for source in self._sources:
            yield from source()


def _nodes_of(receiver: Any) -> list[DiagramNode] | None:
    """The nodes that the object of a bound method is drawn as; `None` for its class."""
    owner: Any = getattr(receiver, "__self__", None)
    # Looked up on the class: an object may claim to have any attribute.
    if isinstance(owner, type) or not hasattr(type(owner), "bus_diagram_nodes"):
        return None
    nodes: list[DiagramNode] = owner.bus_diagram_nodes()
    return nodes


def _draw_receiver(graph: "_Graph", registration: Registration) -> None:
    receiver = registration.receiver()
    if receiver is None:
        return
    is_guarded = registration.guard is not None
    nodes = _nodes_of(receiver)
    if nodes is not None:
        for node in nodes:
            name = graph.node(node.kind, node.label, getattr(receiver, "__self__", receiver))
            graph.follows(name, registration.identifier, is_guarded=is_guarded)
    elif isinstance(receiver, types.MethodType):
        owner = receiver.__self__
        owner_class = owner if isinstance(owner, type) else type(owner)
        name = graph.node("class", describe(owner_class), owner_class, instance=owner)
        graph.follows(name, registration.identifier, receiver.__name__, is_guarded=is_guarded)
    else:
        name = graph.node("function", describe(receiver), receiver)
        graph.follows(name, registration.identifier, is_guarded=is_guarded)


class _Edge(NamedTuple):
    """An edge, by the names of what it leads from and to.

    Args:
        kind: ``"follows"``, ``"sends"``, or ``"matches"`` from what is sent to a wildcard.
        label: the name of the method that follows, or nothing.
        is_guarded: whether a guard decides on each message.
    """

    start: str
    end: str
    kind: str
    label: str = ""
    is_guarded: bool = False


class _Graph:
    """A directed graph of identifiers and of what sends and follows them.

    Nodes and edges are added one by one; the same ones are drawn once.
    """

    def __init__(self) -> None:
        self._identifiers: dict[Identifier, str] = {}
        # By kind and identity: the name in the graph, and the label.
        self._nodes: dict[tuple[str, int], tuple[str, str]] = {}
        # Objects are held, so that no other object gets their identity.
        self._held: list[Any] = []
        self._instances: dict[str, set[int]] = {}
        self._sent: set[Identifier] = set()
        self._followed: set[Identifier] = set()
        self._edges: dict[_Edge, None] = {}

    def node(self, kind: str, label: str, shown: Any, instance: Any = None) -> str:
        """The name of an object's node.

        Args:
            kind: one of ``"class"``, ``"connection"``, ``"function"`` and ``"queue"``.
            label: the text on it.
            shown: the object.
            instance: an instance, if it is a class; their number is written on the node.
        """
        key = kind, id(shown)
        if key not in self._nodes:
            self._held.append(shown)
            self._nodes[key] = f"n{len(self._nodes)}", label
        name = self._nodes[key][0]
        if instance is not None:
            self._held.append(instance)
            self._instances.setdefault(name, set()).add(id(instance))
        return name

    def follows(
        self, node: str, identifier: Identifier, label: str = "", *, is_guarded: bool = False
    ) -> None:
        """Add an edge from an identifier to what follows it."""
        self._followed.add(identifier)
        edge = _Edge(self._identifier(identifier), node, "follows", label, is_guarded)
        self._edges[edge] = None

    def sends(self, node: str, identifier: Identifier) -> None:
        """Add an edge from what sends an identifier."""
        self._sent.add(identifier)
        self._edges[_Edge(node, self._identifier(identifier), "sends")] = None

    def text(self) -> str:
        """The graph in the language of Graphviz."""
        lines = ["digraph berrymq {", "  rankdir=LR;"]
        for identifier, name in self._identifiers.items():
            lines.append(f"  {name} [label={_quoted(str(identifier))}, shape=plaintext];")
        for (kind, _), (name, label) in self._nodes.items():
            count = len(self._instances.get(name, ()))
            shown = _quoted(label if count < 2 else f"{label}\n{count} objects")
            lines.append(f"  {name} [label={shown}, {_ATTRIBUTES[kind]}];")
        return "\n".join([*lines, *dict.fromkeys(map(_line, self._all_edges())), "}", ""])

    def data(self) -> dict[str, list[dict[str, Any]]]:
        """The graph in plain values."""
        nodes: list[dict[str, Any]] = [
            {"id": name, "kind": "identifier", "label": str(identifier), "objects": 1}
            for identifier, name in self._identifiers.items()
        ]
        for (kind, _), (name, label) in self._nodes.items():
            count = len(self._instances.get(name, ())) or 1
            nodes.append({"id": name, "kind": kind, "label": label, "objects": count})
        edges = [
            {
                "from": edge.start,
                "to": edge.end,
                "kind": edge.kind,
                "label": edge.label,
                "guarded": edge.is_guarded,
            }
            for edge in self._all_edges()
        ]
        return {"nodes": nodes, "edges": edges}

    def _all_edges(self) -> Iterable[_Edge]:
        """The edges, with one from each sent identifier to the wildcards that match it."""
        yield from self._edges
        followed = sorted(self._followed, key=str)
        wildcards = [identifier for identifier in followed if _has_wildcard(identifier)]
        for sent in sorted(self._sent, key=str):
            # Without a wildcard, an identifier matches itself alone.
            for other in followed if _has_wildcard(sent) else wildcards:
                if sent != other and sent.is_match(other):
                    yield _Edge(self._identifiers[sent], self._identifiers[other], "matches")

    def _identifier(self, identifier: Identifier) -> str:
        return self._identifiers.setdefault(identifier, f"i{len(self._identifiers)}")


def _has_wildcard(identifier: Identifier) -> bool:
    return WILDCARD in (identifier.name, identifier.action, identifier.namespace)


def _line(edge: _Edge) -> str:
    """An edge in the language of Graphviz."""
    attributes = [f"label={_quoted(edge.label)}"] if edge.label else []
    if edge.is_guarded or edge.kind == "matches":
        attributes.append("style=dashed")
    written = f" [{', '.join(attributes)}]" if attributes else ""
    return f"  {edge.start} -> {edge.end}{written};"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    # Unprintable characters would spoil the diagram, or could not be encoded.
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1].replace("\\", "\\\\") for c in escaped)
    return f'"{shown}"'
