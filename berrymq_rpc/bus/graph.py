"""A directed graph of identifiers and of what sends and hears them, in Graphviz's language.

::

    digraph berrymq {
      i0 [label="job:done", shape=plaintext];
      n0 [label="shop.Logger", shape=box3d, ...];
      i0 -> n0 [label="write"];
    }

What comes from a program stands in double quotes only, with ``"`` and the backslash escaped.
"""

from typing import Any

from ..identifier import Identifier

__all__ = ["Graph"]

_LOOKS = {
    "class": 'shape=box3d, style=filled, fillcolor="#C1E4FF", color="#358ACC"',
    "connection": 'shape=cds, style=filled, fillcolor="#E4FFC1", color="#6FA01E"',
    "function": 'shape=box, style="filled,rounded", fillcolor="#F2F2F2", color="#808080"',
    "queue": 'shape=cylinder, style=filled, fillcolor="#FFEFC1", color="#CC9A35"',
}


class Graph:
    """Nodes and lines are added one by one; the same ones are drawn once."""

    def __init__(self) -> None:
        self._identifiers: dict[Identifier, str] = {}
        # By kind and identity: the name in the graph, and the label.
        self._nodes: dict[tuple[str, int], tuple[str, str]] = {}
        # What was given is held, so that no other object gets its identity.
        self._held: list[Any] = []
        self._objects: dict[str, set[int]] = {}
        self._sent: set[Identifier] = set()
        self._heard: set[Identifier] = set()
        self._lines: dict[str, None] = {}

    def node(self, kind: str, label: str, what: Any, of: Any = None) -> str:
        """The name of the node of an object.

        Args:
            kind: one of ``"class"``, ``"connection"``, ``"function"`` and ``"queue"``.
            label: what is written on it.
            what: the object itself.
            of: one of the objects that it stands for; how many there are is written on it.
        """
        key = kind, id(what)
        if key not in self._nodes:
            self._held.append(what)
            self._nodes[key] = f"n{len(self._nodes)}", label
        name = self._nodes[key][0]
        if of is not None:
            self._held.append(of)
            self._objects.setdefault(name, set()).add(id(of))
        return name

    def hears(
        self, node: str, identifier: Identifier, label: str = "", *, is_guarded: bool = False
    ) -> None:
        """A line from an identifier to what hears it."""
        self._heard.add(identifier)
        attributes = [f"label={_quoted(label)}"] if label else []
        if is_guarded:
            attributes.append("style=dashed")
        self._line(self._identifier(identifier), node, attributes)

    def sends(self, node: str, identifier: Identifier) -> None:
        """A line from what sends an identifier."""
        self._sent.add(identifier)
        self._line(node, self._identifier(identifier), [])

    def text(self) -> str:
        """The graph."""
        for sent in sorted(self._sent, key=str):
            for heard in sorted(self._heard, key=str):
                if sent != heard and sent.is_match(heard):
                    names = self._identifiers[sent], self._identifiers[heard]
                    self._line(*names, ["style=dashed"])
        lines = ["digraph berrymq {", "  rankdir=LR;"]
        for identifier, name in self._identifiers.items():
            lines.append(f"  {name} [label={_quoted(str(identifier))}, shape=plaintext];")
        for (kind, _), (name, label) in self._nodes.items():
            count = len(self._objects.get(name, ()))
            shown = _quoted(label if count < 2 else f"{label}\n{count} objects")
            lines.append(f"  {name} [label={shown}, {_LOOKS[kind]}];")
        return "\n".join([*lines, *self._lines, "}", ""])

    def _identifier(self, identifier: Identifier) -> str:
        return self._identifiers.setdefault(identifier, f"i{len(self._identifiers)}")

    def _line(self, start: str, end: str, attributes: list[str]) -> None:
        written = f" [{', '.join(attributes)}]" if attributes else ""
        self._lines[f"  {start} -> {end}{written};"] = None


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    # What cannot be printed would spoil the picture, or not be encoded.
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1].replace("\\", "\\\\") for c in escaped)
    return f'"{shown}"'
