"""JSON Schema of types of this process."""

import collections
import collections.abc
import dataclasses
import datetime
import json
import typing
import uuid
from typing import Annotated, Any, Literal

import pytest
from jsonschema import Draft7Validator
from openrpc_types import (
    ITEM,
    B,
    Color,
    Hostile,
    Item,
    Level,
    Odd,
    Order,
    Own,
    Point,
    Rights,
    T,
    Tree,
    UserId,
)

from berrymq_rpc.jsonrpc.bridge.type_schema import TypeSchemas


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (int, {"type": "integer"}),
        (bool, {"type": "boolean"}),
        (None, {"type": "null"}),
        (Any, {}),
        (object, {}),
        ("int", {"type": "integer"}),
        (typing.List, {"type": "array"}),  # noqa: UP006
        (typing.List[int], {"type": "array", "items": {"type": "integer"}}),  # noqa: UP006
        (typing.Tuple, {"type": "array"}),  # noqa: UP006
        (tuple[()], {"type": "array", "maxItems": 0}),
        (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
        (tuple[int, *tuple[str, ...]], {"type": "array"}),
        (
            tuple[int, str],
            {
                "type": "array",
                "items": [{"type": "integer"}, {"type": "string"}],
                "minItems": 2,
                "maxItems": 2,
            },
        ),
        (typing.Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}),  # noqa: UP045
        (int | str, {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        (int | Hostile, {}),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (
            collections.abc.Mapping[str, int],
            {
                "type": "object",
                "additionalProperties": {"type": "integer"},
            },
        ),
        (collections.OrderedDict[str, Any], {"type": "object"}),
        (collections.abc.MutableSequence[int], {"type": "array", "items": {"type": "integer"}}),
        (set[int], {"type": "array", "uniqueItems": True, "items": {"type": "integer"}}),
        (list["int"], {"type": "array", "items": {"type": "integer"}}),
        (Literal["a", 1, Color.RED], {"enum": ["a", 1, "red"]}),
        (Annotated[int, "more"], {"type": "integer"}),
        (UserId, {"type": "integer"}),
        (T, {}),
        (B, {"type": "integer"}),
        (datetime.datetime, {"type": "string", "format": "date-time"}),
        (datetime.date, {"type": "string", "format": "date"}),
        (uuid.UUID, {"type": "string", "format": "uuid"}),
        (Color, {"title": "Color", "enum": ["red", "green"]}),
        (Level, {"title": "Level", "enum": [1, 2]}),
        (Rights, {"title": "Rights", "type": "integer"}),
        (Odd, {"title": "Odd"}),
        (
            Point,
            {
                "type": "array",
                "items": [{"type": "integer"}, {"type": "number"}],
                "minItems": 2,
                "maxItems": 2,
            },
        ),
        (Item, ITEM),
        (
            Order,
            {
                "title": "Order",
                "type": "object",
                "properties": {
                    "items": {"type": "array", "items": ITEM},
                    "note": {"type": "string"},
                },
                "required": ["items"],
            },
        ),
        (Own, {}),
        (Hostile, {}),
        (Ellipsis, {}),
        (5, {}),
    ],
)
def test_types(annotation: Any, schema: dict[str, Any]) -> None:
    assert TypeSchemas().of(annotation) == schema
    Draft7Validator.check_schema(schema)


def test_types_that_hold_one_another() -> None:
    schema = TypeSchemas().of(Tree)
    children = schema["properties"]["children"]
    assert children == {"type": "array", "items": {"title": "Tree", "type": "object"}}
    wide: Any = int
    for number in range(30):
        wide = dataclasses.make_dataclass(f"Wide{number}", [(f"f{i}", wide) for i in range(4)])
    assert len(json.dumps(TypeSchemas().of(wide))) < 100_000
