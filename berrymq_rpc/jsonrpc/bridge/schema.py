"""Turn the text of an annotation into JSON Schema. It is parsed, never run."""

import ast
from typing import Any

__all__ = ["Schema", "default_of", "schema_of"]

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
    "set": {"type": "array", "uniqueItems": True},
    "frozenset": {"type": "array", "uniqueItems": True},
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
_ITEMS = frozenset(("list", "set", "frozenset", "Sequence", "Iterable"))
_VALUES = frozenset(("dict", "Mapping"))

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
            return dict(_NAMES.get(name, {}))
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _any_of([_schema(left, levels - 1), _schema(right, levels - 1)])
        case ast.Subscript(value=ast.Name(id=name) | ast.Attribute(attr=name), slice=inner):
            return _generic(name, inner, levels - 1)
        case _:
            return {}


def _generic(name: str, inner: ast.expr, levels: int) -> Schema:
    parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
    if name == "Optional":
        return _any_of([_schema(inner, levels), {"type": "null"}])
    if name == "Union":
        return _any_of([_schema(part, levels) for part in parts])
    if name == "Literal":
        values = [part.value for part in parts if isinstance(part, ast.Constant)]
        return {"enum": values} if len(values) == len(parts) else {}
    if name == "Annotated":
        return _schema(parts[0], levels)
    schema = dict(_NAMES.get(name, {}))
    if name in _ITEMS and len(parts) == 1:
        _add(schema, "items", _schema(parts[0], levels))
    elif name in _VALUES and len(parts) == 2:
        _add(schema, "additionalProperties", _schema(parts[1], levels))
    elif name == "tuple":
        match parts:
            case [each, ast.Constant(value=value)] if value is ...:
                _add(schema, "items", _schema(each, levels))
            case _:
                # Draft 7, which OpenRPC refers to, has an array of schemas for it.
                schema["items"] = [_schema(part, levels) for part in parts]
                schema["minItems"] = schema["maxItems"] = len(parts)
    return schema


def _add(schema: Schema, key: str, inner: Schema) -> None:
    if inner:
        schema[key] = inner


def _any_of(schemas: list[Schema]) -> Schema:
    found: list[Schema] = []
    for schema in schemas:
        for each in schema.get("anyOf", [schema]):
            if not each:
                return {}
            if each not in found:
                found.append(each)
    return found[0] if len(found) == 1 else {"anyOf": found}


def default_of(text: str) -> Any:
    """The value that a default's text stands for.

    Raises:
        ValueError: it is none that JSON has.
    """
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise ValueError("no plain value") from None
    if not _is_plain(value):
        raise ValueError("no value of JSON")
    return list(value) if isinstance(value, tuple) else value


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and all(map(_is_plain, value.values()))
    if isinstance(value, float):
        return value - value == 0
    return value is None or isinstance(value, str | int | bool)
