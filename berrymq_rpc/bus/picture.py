"""How an object wants to be drawn in the picture of who sends and hears what."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

__all__ = ["DiagramNode", "DiagramSource", "Pictured", "diagram_nodes_of"]


class DiagramNode(NamedTuple):
    """One node of the picture.

    Attributes:
        kind: ``"queue"`` or ``"connection"``.
        label: what is written on it.
        hears: of a connection: the identifiers that it carries away.
        sends: the identifiers that come from it.
    """

    kind: str
    label: str
    hears: tuple[str, ...] = ()
    sends: tuple[str, ...] = ()


DiagramSource: TypeAlias = Callable[[], list[DiagramNode]]


class Pictured(Protocol):
    """What the object of a method that receives may offer."""

    def bus_diagram_nodes(self) -> list[DiagramNode]:
        """The nodes to draw in place of its class."""


def diagram_nodes_of(receiver: Any) -> list[DiagramNode] | None:
    """How the object of a bound method wants to be drawn, or `None` if it does not say so."""
    owner: Any = getattr(receiver, "__self__", None)
    # Of its class: an object may claim to have any attribute.
    if isinstance(owner, type) or not hasattr(type(owner), "bus_diagram_nodes"):
        return None
    pictured: Pictured = owner
    return pictured.bus_diagram_nodes()
