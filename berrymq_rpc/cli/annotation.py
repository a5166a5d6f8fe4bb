"""Annotations and defaults that came from a peer as text, as source that may stand in a module.

The text is parsed, never run. What comes out is written anew from the parts that are known; what
is not known is ``Any``.
"""

import ast
import builtins
import warnings
from collections.abc import Iterable, Mapping

__all__ = [
    "annotation_source",
    "default_source",
    "items_source",
    "qualified_names",
    "result_source",
]

#: Characters of an annotation that are read; a server sends 200 at most.
MAX_LENGTH = 1000

_BUILTIN = {name for name, value in vars(builtins).items() if isinstance(value, type)} | {"None"}
_TYPING = {"Any", "Literal", "LiteralString", "Never", "NoReturn", "Optional", "Union"}
_COLLECTIONS = {
    "AsyncGenerator", "AsyncIterable", "AsyncIterator", "Awaitable", "Callable", "Collection",
    "Coroutine", "Generator", "Hashable", "Iterable", "Iterator", "Mapping", "MutableMapping",
    "MutableSequence", "MutableSet", "Sequence", "Sized",
}  # fmt: skip
_OF_TYPING = {
    "Dict": "dict",
    "FrozenSet": "frozenset",
    "List": "list",
    "Set": "set",
    "Tuple": "tuple",
}
_MODULES = {
    "datetime": {"date", "datetime", "time", "timedelta", "timezone", "tzinfo"},
    "decimal": {"Decimal"},
    "uuid": {"UUID"},
    "zoneinfo": {"ZoneInfo"},
}

#: What gives items: the first argument is what they are.
_STREAMS = {
    "AsyncGenerator", "AsyncIterable", "AsyncIterator", "Generator", "Iterable", "Iterator",
}  # fmt: skip


def _known_names() -> dict[str, str]:
    """Names as people write them in annotations, and what is written for them."""
    known = {name: name for name in _BUILTIN | _TYPING | _COLLECTIONS}
    for module, names in _MODULES.items():
        known |= {name: f"{module}.{name}" for name in names}
        known |= {f"{module}.{name}": f"{module}.{name}" for name in names}
    known |= {f"collections.abc.{name}": name for name in _COLLECTIONS}
    for name in _COLLECTIONS | _TYPING:
        known[f"typing.{name}"] = known[f"t.{name}"] = name
    for name, written in _OF_TYPING.items():
        # Without its module, Set is that of `typing` as often as that of `collections.abc`.
        known[name] = known[f"typing.{name}"] = known[f"t.{name}"] = written
    return known


_KNOWN = _known_names()


def qualified_names(names: Iterable[str]) -> dict[str, str]:
    """What to write for known names that mean something else where they would stand.

    A class with a method ``set`` has ``builtins.set`` in its annotations.
    """
    found = {}
    for name in names:
        if name in _BUILTIN:
            found[name] = f"builtins.{name}"
        elif name in _TYPING:
            found[name] = f"typing.{name}"
        elif name in _COLLECTIONS:
            found[name] = f"collections.abc.{name}"
        elif name in _MODULES:
            found |= {f"{name}.{inner}": "Any" for inner in _MODULES[name]}
    return found


def annotation_source(text: str | None, instead: Mapping[str, str]) -> str:
    """Source for the annotation of a parameter; ``Any`` where there is none that can be known.

    Args:
        text: from the peer, or ``None`` for none.
        instead: from `qualified_names`.
    """
    try:
        parsed = _parsed(text)
        written = None if parsed is None else ast.unparse(_rewritten(parsed, instead))
    except RecursionError:
        written = None
    return written if written is not None and written.isprintable() else instead.get("Any", "Any")


def result_source(text: str | None, instead: Mapping[str, str]) -> str:
    """Source for what a call gives; arguments as for `annotation_source`.

    Arrays arrive as tuples, whatever was sent: a list is written as the ``Sequence`` that either
    is.
    """
    return annotation_source(text, {**instead, "list": instead.get("Sequence", "Sequence")})


def items_source(text: str | None, instead: Mapping[str, str]) -> str:
    """Source for the items of a stream, of the annotation of what gives them.

    Arguments as for `annotation_source`.
    """
    parsed = _parsed(text)
    if isinstance(parsed, ast.Subscript):
        name = (_dotted(parsed.value) or "").rpartition(".")[2]
        index = parsed.slice
        first = index.elts[0] if isinstance(index, ast.Tuple) and index.elts else index
        if name in _STREAMS:
            return result_source(ast.unparse(first), instead)
    return result_source(None, instead)


def default_source(text: str) -> str:
    """Source for a default: what it is, if it is a plain value, or else ``...``."""
    parsed = _parsed(text)
    if parsed is None:
        return "..."
    try:
        value = ast.literal_eval(parsed)
        written = repr(value)
        # What is infinite is written as a name.
        ast.literal_eval(written)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return "..."
    return written if written.isprintable() else ascii(value)


def _parsed(text: str | None) -> ast.expr | None:
    if text is None or len(text) > MAX_LENGTH:
        return None
    try:
        with warnings.catch_warnings():
            # Of source such as "\d", which is none of ours.
            warnings.simplefilter("ignore")
            return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def _rewritten(node: ast.expr, instead: Mapping[str, str]) -> ast.expr:
    """The annotation with known names only."""
    match node:
        case ast.Constant(value=None):
            return node
        case ast.Constant(value=str(text)):
            # A name that was not known yet where it was written, as in list["Order"].
            inner = _parsed(text)
            return _anything(instead) if inner is None else _rewritten(inner, instead)
        case ast.Name() | ast.Attribute():
            written = _KNOWN.get(_dotted(node) or "")
            return _anything(instead) if written is None else _name(written, instead)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return ast.BinOp(_rewritten(left, instead), ast.BitOr(), _rewritten(right, instead))
        case ast.Subscript(value=value, slice=index):
            return _rewritten_subscript(value, index, instead)
        case _:
            return _anything(instead)


def _rewritten_subscript(value: ast.expr, index: ast.expr, instead: Mapping[str, str]) -> ast.expr:
    base = _KNOWN.get(_dotted(value) or "")
    arguments = index.elts if isinstance(index, ast.Tuple) else [index]
    if base is None or not arguments:
        return _anything(instead)
    if base == "Literal":
        plain = all(isinstance(each, ast.Constant) for each in arguments)
        return ast.Subscript(_name(base, instead), index) if plain else _anything(instead)
    written = [_argument(each, instead) for each in arguments]
    inner = written[0] if len(written) == 1 else ast.Tuple(written)
    return ast.Subscript(_name(base, instead), inner)


def _argument(node: ast.expr, instead: Mapping[str, str]) -> ast.expr:
    if isinstance(node, ast.Constant) and node.value is ...:
        return node
    if isinstance(node, ast.List):
        return ast.List([_rewritten(each, instead) for each in node.elts])
    return _rewritten(node, instead)


def _anything(instead: Mapping[str, str]) -> ast.expr:
    return _name("Any", instead)


def _name(written: str, instead: Mapping[str, str]) -> ast.expr:
    first, *others = instead.get(written, written).split(".")
    found: ast.expr = ast.Name(first)
    for other in others:
        found = ast.Attribute(found, other)
    return found


def _dotted(node: ast.expr) -> str | None:
    """The name that the expression is, dots and all."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value)
        return None if before is None else f"{before}.{node.attr}"
    return None
