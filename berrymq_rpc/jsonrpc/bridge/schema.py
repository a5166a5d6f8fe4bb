"""Turn the text of an annotation into JSON Schema. It is parsed, never run."""

import ast
from collections.abc import Iterable
from typing import Any

from ..protocols.json_codec import encode

__all__ = [
    "Schema",
    "any_of",
    "array_of",
    "default_of",
    "enum_of",
    "is_plain",
    "named",
    "object_of",
    "schema_of",
    "tuple_of",
]

Schema = dict[str, Any]

_NAMES: dict[str, Schema] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "None": {"type": "null"},
    "NoneType": {"type": "null"},
    "list": {"type": "array"},
    "tuple": {"type": "array"},
    "deque": {"type": "array"},
    "set": {"type": "array", "uniqueItems": True},
    "frozenset": {"type": "array", "uniqueItems": True},
    "Set": {"type": "array", "uniqueItems": True},
    "Sequence": {"type": "array"},
    "Iterable": {"type": "array"},
    "dict": {"type": "object"},
    "Mapping": {"type": "object"},
    "bytes": {"type": "string", "contentEncoding": "base64"},
    "bytearray": {"type": "string", "contentEncoding": "base64"},
    "datetime": {"type": "string", "format": "date-time"},
    "date": {"type": "string", "format": "date"},
    "time": {"type": "string", "format": "time"},
    "timedelta": {"type": "string", "format": "duration"},
    "Decimal": {"type": "string"},
    "UUID": {"type": "string", "format": "uuid"},
}

#: Those of one item's type, and those of a key's and a value's.
_ITEMS = frozenset(("list", "deque", "set", "frozenset", "Set", "Sequence", "Iterable"))
_VALUES = frozenset(("dict", "Mapping"))

#: Names of `typing` and `collections.abc`, and those of the same meaning here.
_SAME = {
    "List": "list",
    "Deque": "deque",
    "Tuple": "tuple",
    "FrozenSet": "frozenset",
    "AbstractSet": "Set",
    "MutableSet": "Set",
    "MutableSequence": "Sequence",
    "Collection": "Iterable",
    "Dict": "dict",
    "DefaultDict": "dict",
    "defaultdict": "dict",
    "OrderedDict": "dict",
    "MutableMapping": "Mapping",
}

#: Levels of an annotation that are read.
_MAX_LEVELS = 10


def schema_of(annotation: str | None) -> Schema:
    """Return the schema of an annotation; ``{}``, which allows anything, for one that is not known.

    Args:
        annotation: as in source, or ``None`` if there is none.
    """
    if annotation is None:
        return {}
    try:
        return _schema(ast.parse(annotation.strip("'\""), mode="eval").body, _MAX_LEVELS)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}


def _schema(node: ast.expr, levels: int) -> Schema:
    if levels <= 0:
        return {}
    match node:
        case ast.Constant(value=None):
            return {"type": "null"}
        case ast.Constant(value=str() as text):
            return _schema(ast.parse(text, mode="eval").body, levels - 1)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return named(name)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return any_of([_schema(left, levels - 1), _schema(right, levels - 1)])
        case ast.Subscript(value=ast.Name(id=name) | ast.Attribute(attr=name), slice=inner):
            return _generic(name, inner, levels - 1)
        case _:
            return {}


def _generic(name: str, inner: ast.expr, levels: int) -> Schema:
    parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
    if name == "Optional":
        return any_of([_schema(inner, levels), {"type": "null"}])
    if name == "Union":
        return any_of([_schema(part, levels) for part in parts])
    if name == "Literal":
        return enum_of([ast.literal_eval(part) for part in parts])
    if name in ("Annotated", "Required", "NotRequired", "ReadOnly", "Final") and parts:
        return _schema(parts[0], levels)
    schema = named(name)
    name = _SAME.get(name, name)
    if name in _ITEMS and len(parts) == 1:
        return array_of(schema, _schema(parts[0], levels))
    if name in _VALUES and len(parts) == 2:
        return object_of(_schema(parts[1], levels))
    if name == "tuple":
        match parts:
            case [each, ast.Constant(value=value)] if value is ...:
                return array_of(schema, _schema(each, levels))
            case _ if not any(isinstance(part, ast.Starred) for part in parts):
                return tuple_of([_schema(part, levels) for part in parts])
    return schema


# -- schemas of schemas ------------------------------------------------------------------------


def named(name: str) -> Schema:
    """The schema of a well-known name, without what may follow it in brackets."""
    return dict(_NAMES.get(_SAME.get(name, name), {}))


def array_of(schema: Schema, items: Schema) -> Schema:
    """That of an array with its items."""
    return schema | {"items": items} if items else schema


def object_of(values: Schema) -> Schema:
    """That of an object with values of one type, by any names."""
    return {"type": "object"} | ({"additionalProperties": values} if values else {})


def tuple_of(items: list[Schema]) -> Schema:
    """That of an array of so many items."""
    if not items:
        return {"type": "array", "maxItems": 0}
    # Draft 7, which OpenRPC refers to, has an array of schemas for it.
    return {"type": "array", "items": items, "minItems": len(items), "maxItems": len(items)}


def enum_of(values: Iterable[Any]) -> Schema:
    """That of one of some values; ``{}`` if JSON does not have them, or if there are none."""
    found: dict[str, Any] = {}
    for value in values:
        plain = getattr(value, "value", value)
        if not is_plain(plain):
            return {}
        # 1 and True are one to Python, and 1 and 1.0 to JSON Schema.
        found.setdefault(repr(plain + 0.0 if type(plain) is int else plain), plain)
    return {"enum": list(found.values())} if found else {}


def any_of(schemas: list[Schema]) -> Schema:
    """That of a value of any of some types."""
    found: list[Schema] = []
    for schema in schemas:
        for each in schema.get("anyOf", [schema]):
            if not each:
                return {}
            if each not in found:
                found.append(each)
    if not found:
        return {}
    return found[0] if len(found) == 1 else {"anyOf": found}


# -- values ------------------------------------------------------------------------------------


def default_of(text: str) -> Any:
    """The value that a default's text stands for.

    Raises:
        ValueError: it is none that JSON has.
    """
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise ValueError("no plain value") from None
    if not is_plain(value):
        raise ValueError("no value of JSON")
    return list(value) if isinstance(value, tuple) else value


def is_plain(value: Any) -> bool:
    """Whether JSON has a value, and it can be a part of a document."""
    try:
        encode(value, _MAX_LEVELS)
    except (TypeError, ValueError, RecursionError):
        return False
    return _is_plain(value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and all(map(_is_plain, value.values()))
    if isinstance(value, float):
        return value - value == 0
    return value is None or isinstance(value, str | int | bool)
