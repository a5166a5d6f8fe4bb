"""Turn annotations and defaults that a peer sent as text into source that is safe in a module.

The text is parsed, never run. The source is rebuilt from the parts that are known; anything else
becomes ``Any``.
"""

import ast
import builtins
import warnings
from collections.abc import Iterable, Mapping

__all__ = [
    "COLLECTIONS",
    "TYPING",
    "annotation_source",
    "default_source",
    "items_source",
    "qualified_names",
    "result_source",
]

#: The longest annotation that is read, in characters; a server sends 200 at most.
MAX_LENGTH = 1000

_BUILTIN = {name for name, value in vars(builtins).items() if isinstance(value, type)} | {"None"}
#: Names of `typing` and of `collections.abc` that may stand in an annotation, without their module.
TYPING = frozenset((
    "Any", "Literal", "LiteralString", "Never", "NoReturn", "Optional", "Union",
))  # fmt: skip
COLLECTIONS = frozenset((
    "AsyncGenerator", "AsyncIterable", "AsyncIterator", "Awaitable", "Callable", "Collection",
    "Coroutine", "Generator", "Hashable", "Iterable", "Iterator", "Mapping", "MutableMapping",
    "MutableSequence", "MutableSet", "Sequence", "Sized",
))  # fmt: skip
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

#: Types that yield items; their first argument is the items' type.
_STREAMS = {
    "AsyncGenerator", "AsyncIterable", "AsyncIterator", "Generator", "Iterable", "Iterator",
}  # fmt: skip


def _known_names() -> dict[str, str]:
    """Map names as people write them in annotations to what is written for them."""
    known = {name: name for name in _BUILTIN | TYPING | COLLECTIONS}
    for module, names in _MODULES.items():
        known |= {name: f"{module}.{name}" for name in names}
        known |= {f"{module}.{name}": f"{module}.{name}" for name in names}
    known |= {f"collections.abc.{name}": name for name in COLLECTIONS}
    for name in COLLECTIONS | TYPING:
        known[f"typing.{name}"] = known[f"t.{name}"] = name
    for name, written in _OF_TYPING.items():
        # Without a module, Set is as often that of `typing` as that of `collections.abc`.
        known[name] = known[f"typing.{name}"] = known[f"t.{name}"] = written
    return known


_KNOWN = _known_names()


def qualified_names(names: Iterable[str]) -> dict[str, str]:
    """Map known names to what to write where `names` hide them.

    A class with a method ``set`` has ``builtins.set`` in its annotations.
    """
    found = {}
    for name in names:
        if name in _BUILTIN:
            found[name] = f"builtins.{name}"
        elif name in TYPING:
            found[name] = f"typing.{name}"
        elif name in COLLECTIONS:
            found[name] = f"collections.abc.{name}"
        elif name in _MODULES:
            found |= {f"{name}.{inner}": "Any" for inner in _MODULES[name]}
    return found


def annotation_source(text: str | None, qualified: Mapping[str, str]) -> str:
    """Write the annotation of a parameter; ``Any`` if there is none, or it is unknown.

    Args:
        text: from the peer; ``None`` for no annotation.
        qualified: from `qualified_names`.
    """
    try:
        parsed = _parsed(text)
        written = None if parsed is None else ast.unparse(_rewritten(parsed, qualified))
    except RecursionError:
        written = None
    return written if written is not None and written.isprintable() else qualified.get("Any", "Any")


def result_source(text: str | None, qualified: Mapping[str, str]) -> str:
    """Write the type of a call's result; arguments as for `annotation_source`.

    Every array arrives as a tuple: a list is written as ``Sequence``, which both are.
    """
    return annotation_source(text, {**qualified, "list": qualified.get("Sequence", "Sequence")})


def items_source(text: str | None, qualified: Mapping[str, str]) -> str:
    """Write the type of a stream's items, from the annotation of what yields them.

    Arguments as for `annotation_source`.
    """
    parsed = _parsed(text)
    if isinstance(parsed, ast.Subscript):
        name = (_dotted(parsed.value) or "").rpartition(".")[2]
        index = parsed.slice
        first = index.elts[0] if isinstance(index, ast.Tuple) and index.elts else index
        if name in _STREAMS:
            return result_source(ast.unparse(first), qualified)
    return result_source(None, qualified)


def default_source(text: str) -> str:
    """Write a default: a plain value as it is, anything else as ``...``."""
    parsed = _parsed(text)
    if parsed is None:
        return "..."
    try:
        value = ast.literal_eval(parsed)
        written = repr(value)
        # An infinite number is written as a name.
        ast.literal_eval(written)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return "..."
    return written if written.isprintable() else ascii(value)


def _parsed(text: str | None) -> ast.expr | None:
    if text is None or len(text) > MAX_LENGTH:
        return None
    try:
        with warnings.catch_warnings():
            # The source is the peer's: an escape such as "\d" in it is not our concern.
            warnings.simplefilter("ignore")
            return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def _rewritten(node: ast.expr, qualified: Mapping[str, str]) -> ast.expr:
    """Rebuild the annotation from known names only."""
    match node:
        case ast.Constant(value=None):
            return node
        case ast.Constant(value=str(text)):
            # A forward reference, as in list["Order"].
            inner = _parsed(text)
            return _anything(qualified) if inner is None else _rewritten(inner, qualified)
        case ast.Name() | ast.Attribute():
            written = _KNOWN.get(_dotted(node) or "")
            return _anything(qualified) if written is None else _name(written, qualified)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return ast.BinOp(_rewritten(left, qualified), ast.BitOr(), _rewritten(right, qualified))
        case ast.Subscript(value=value, slice=index):
            return _rewritten_subscript(value, index, qualified)
        case _:
            return _anything(qualified)


def _rewritten_subscript(
    value: ast.expr, index: ast.expr, qualified: Mapping[str, str]
) -> ast.expr:
    base = _KNOWN.get(_dotted(value) or "")
    arguments = index.elts if isinstance(index, ast.Tuple) else [index]
    if base is None or not arguments:
        return _anything(qualified)
    if base == "Literal":
        plain = all(isinstance(each, ast.Constant) for each in arguments)
        return ast.Subscript(_name(base, qualified), index) if plain else _anything(qualified)
    written = [_argument(each, qualified) for each in arguments]
    inner = written[0] if len(written) == 1 else ast.Tuple(written)
    return ast.Subscript(_name(base, qualified), inner)


def _argument(node: ast.expr, qualified: Mapping[str, str]) -> ast.expr:
    if isinstance(node, ast.Constant) and node.value is ...:
        return node
    if isinstance(node, ast.List):
        return ast.List([_rewritten(each, qualified) for each in node.elts])
    return _rewritten(node, qualified)


def _anything(qualified: Mapping[str, str]) -> ast.expr:
    return _name("Any", qualified)


def _name(written: str, qualified: Mapping[str, str]) -> ast.expr:
    first, *others = qualified.get(written, written).split(".")
    found: ast.expr = ast.Name(first)
    for other in others:
        found = ast.Attribute(found, other)
    return found


def _dotted(node: ast.expr) -> str | None:
    """Return the dotted name that the expression is, if it is one."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value)
        return None if before is None else f"{before}.{node.attr}"
    return None
