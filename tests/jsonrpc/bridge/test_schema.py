"""JSON Schema of the texts of annotations, and what becomes of defaults."""

from typing import Any

import pytest

from berrymq_rpc.jsonrpc.bridge.schema import default_of, schema_of


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (None, {}),
        ("int", {"type": "integer"}),
        ("'int'", {"type": "integer"}),
        ("float", {"type": "number"}),
        ("bytes", {"type": "string", "contentEncoding": "base64"}),
        ("datetime.datetime", {"type": "string", "format": "date-time"}),
        ("list", {"type": "array"}),
        ("list[int]", {"type": "array", "items": {"type": "integer"}}),
        ("list[Any]", {"type": "array"}),
        ("typing.List[int]", {"type": "array", "items": {"type": "integer"}}),
        ("List", {"type": "array"}),
        ("Tuple[int, ...]", {"type": "array", "items": {"type": "integer"}}),
        ("typing.Dict[str, int]", {"type": "object", "additionalProperties": {"type": "integer"}}),
        ("deque[int]", {"type": "array", "items": {"type": "integer"}}),
        ("tuple[()]", {"type": "array", "maxItems": 0}),
        ("tuple[*tuple[int, ...]]", {"type": "array"}),
        ("Union[()]", {}),
        ("Literal[-1]", {"enum": [-1]}),
        ("Literal[()]", {}),
        ("Literal[1, True, 1.0, 1]", {"enum": [1, True]}),
        ("Literal[b'a']", {}),
        ("Literal[1j, ...]", {}),
        ("Required[int]", {"type": "integer"}),
        ("dict[str, int]", {"type": "object", "additionalProperties": {"type": "integer"}}),
        (
            "tuple[int, str]",
            {
                "type": "array",
                "items": [{"type": "integer"}, {"type": "string"}],
                "minItems": 2,
                "maxItems": 2,
            },
        ),
        ("tuple[int, ...]", {"type": "array", "items": {"type": "integer"}}),
        ("int | None", {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        ("Optional[int]", {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (
            "Union[int, str, None]",
            {"anyOf": [{"type": "integer"}, {"type": "string"}, {"type": "null"}]},
        ),
        ("int | int", {"type": "integer"}),
        ("int | Mine", {}),
        ("Literal['a', 2]", {"enum": ["a", 2]}),
        ("Literal[f()]", {}),
        ("Annotated[int, 'more']", {"type": "integer"}),
        ("Mine", {}),
        ("Mine[int]", {}),
        ("f(int)", {}),
        ("list['int']", {"type": "array", "items": {"type": "integer"}}),
        ("list['in t']", {}),
        ("not python", {}),
        ("", {}),
        ("(" * 1000, {}),
        ("list[" * 50 + "int" + "]" * 50, None),
        ("\0", {}),
    ],
)
def test_annotations(annotation: str | None, schema: dict[str, Any] | None) -> None:
    found = schema_of(annotation)
    assert schema is None or found == schema


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("None", None), ("(1, 2)", [1, 2]), ("{'a': [1.5, True]}", {"a": [1.5, True]})],
)
def test_defaults(text: str, value: Any) -> None:
    assert default_of(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "<object>",
        "f()",
        "1e999",
        "{1: 2}",
        "b'a'",
        "{1}",
        "1j",
        "(" * 1000,
        "",
        "'\\ud800'",
        "['\\ud800']",
        "{'\\ud800': 1}",
        "[" * 50 + "]" * 50,
        "...",
    ],
)
def test_defaults_that_json_lacks(text: str) -> None:
    with pytest.raises(ValueError, match="value"):
        default_of(text)
