"""The picture of who sends and hears what."""

import threading
import types
import weakref
from collections.abc import Iterable
from typing import Any

from ..identifier import Identifier
from .graph import Graph
from .log import describe
from .picture import DiagramNode, DiagramSource, diagram_nodes_of
from .registration import Registration

__all__ = ["Network"]


class Network:
    """What is known of a bus's senders, and the pictures of it with its receivers."""

    __slots__ = ("_lock", "_senders", "_sources")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._sources: tuple[DiagramSource, ...] = ()
        # A function that is gone sends nothing any more.
        self._senders: weakref.WeakKeyDictionary[Any, tuple[Identifier, ...]]
        self._senders = weakref.WeakKeyDictionary()

    def add_sender(self, function: Any, identifiers: Iterable[Identifier]) -> None:
        """Note that a function sends messages of these identifiers when it is called."""
        if isinstance(function, classmethod | staticmethod):
            function = function.__func__
        with self._lock:
            self._senders[function] = tuple(identifiers)

    def add_source(self, source: DiagramSource) -> None:
        """Ask `source` for connections from now on."""
        with self._lock:
            self._sources = (*self._sources, source)

    def remove_source(self, source: DiagramSource) -> None:
        """Undo `add_source`."""
        with self._lock:
            self._sources = tuple(kept for kept in self._sources if kept != source)

    def followers(self, registrations: list[Registration]) -> dict[str, list[str]]:
        """By identifier, in order, what follows it."""
        found: dict[str, list[str]] = {}
        for registration in registrations:
            receiver = registration.receiver()
            if receiver is not None:
                pictures = diagram_nodes_of(receiver)
                names = [describe(receiver)] if pictures is None else [p.label for p in pictures]
                found.setdefault(str(registration.identifier), []).extend(names)
        for picture in self._pictures():
            for heard in picture.hears:
                found.setdefault(heard, []).append(picture.label)
        return dict(sorted(found.items()))

    def dot(self, registrations: list[Registration]) -> str:
        """The picture in the language of Graphviz."""
        graph = Graph()
        for registration in registrations:
            _draw_receiver(graph, registration)
        for picture in self._pictures():
            _draw_picture(graph, picture)
        with self._lock:
            senders = list(self._senders.items())
        for function, identifiers in senders:
            node = graph.node("function", describe(function), function)
            for identifier in identifiers:
                graph.sends(node, identifier)
        return graph.text()

    def _pictures(self) -> Iterable[DiagramNode]:
        for source in self._sources:
            yield from source()


def _draw_receiver(graph: Graph, registration: Registration) -> None:
    receiver = registration.receiver()
    if receiver is None:
        return
    is_guarded = registration.guard is not None
    pictures = diagram_nodes_of(receiver)
    if pictures is not None:
        for picture in pictures:
            node = graph.node(picture.kind, picture.label, getattr(receiver, "__self__", receiver))
            graph.hears(node, registration.identifier, is_guarded=is_guarded)
    elif isinstance(receiver, types.MethodType):
        owner = receiver.__self__
        owner_class = owner if isinstance(owner, type) else type(owner)
        node = graph.node("class", describe(owner_class), owner_class, of=owner)
        graph.hears(node, registration.identifier, receiver.__name__, is_guarded=is_guarded)
    else:
        node = graph.node("function", describe(receiver), receiver)
        graph.hears(node, registration.identifier, is_guarded=is_guarded)


def _draw_picture(graph: Graph, picture: DiagramNode) -> None:
    node = graph.node(picture.kind, picture.label, picture)
    for heard in picture.hears:
        graph.hears(node, Identifier(heard))
    for sent in picture.sends:
        graph.sends(node, Identifier(sent))
