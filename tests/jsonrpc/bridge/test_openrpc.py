"""The answer of rpc.discover, and what becomes of annotations and defaults."""

import re
from typing import Any

import pytest

from berrymq_rpc import Bus, Node, rpc
from berrymq_rpc.jsonrpc.bridge import Bridge
from berrymq_rpc.jsonrpc.bridge.openrpc import openrpc_document
from berrymq_rpc.jsonrpc.bridge.schema import default_of, schema_of
from berrymq_rpc.rpc.describe import describe
from berrymq_rpc.rpc.method_table import collect_methods


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
        ("typing.List[int]", {}),
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
    "text", ["<object>", "f()", "1e999", "{1: 2}", "b'a'", "{1}", "1j", "(" * 1000, ""]
)
def test_defaults_that_json_lacks(text: str) -> None:
    with pytest.raises(ValueError, match="value"):
        default_of(text)


class Handler(rpc.AttrHandler):
    @rpc.method
    def plain(self, a: int, b: str = "x", *, c: float = 1.0) -> list[int]:
        """One line.

        And more.
        """
        return []

    @rpc.method
    def only(self, a: int, /, sentinel: object = object()) -> None: ...

    @rpc.method
    def named(self, *, a: int) -> None: ...

    @rpc.method
    def many(self, *args: int, **kwargs: int) -> None: ...

    @rpc.method
    async def stream(self) -> Any:
        yield 1


def test_a_document() -> None:
    methods = describe(collect_methods(Handler()))["methods"]
    document = openrpc_document(methods, title="it", version="3", url="http://here")
    assert document["openrpc"].startswith("1.")
    assert document["info"] == {"title": "it", "version": "3"}
    assert document["servers"] == [{"name": "this", "url": "http://here"}]
    found = {method["name"]: method for method in document["methods"]}
    assert found.keys() == {"plain", "only", "named", "many"}
    assert found["plain"] == {
        "name": "plain",
        "summary": "One line.",
        "description": "One line.\n\nAnd more.",
        "params": [
            {"name": "a", "required": True, "schema": {"type": "integer"}},
            {"name": "b", "required": False, "schema": {"type": "string", "default": "x"}},
            {"name": "c", "required": False, "schema": {"type": "number", "default": 1.0}},
        ],
        "paramStructure": "either",
        "result": {"name": "result", "schema": {"type": "array", "items": {"type": "integer"}}},
    }
    assert found["only"]["paramStructure"] == "by-position"
    assert found["only"]["params"][1]["schema"] == {"description": "default: <object object>"}
    assert found["only"]["result"]["schema"] == {"type": "null"}
    assert found["named"]["paramStructure"] == "by-name"
    assert found["many"]["params"] == []
    assert found["many"]["x-var-positional"] == "args"


async def test_discover(line_to: Any, listener: str) -> None:
    async with (
        Node("tcp://127.0.0.1:0", Bus(), handler=Handler()) as node,
        Bridge(node, title="mine", version="1.2") as bridge,
        line_to(bridge, listener) as line,
    ):
        asked = {"jsonrpc": "2.0", "method": "rpc.discover", "id": 1}
        document = (await line.ask(asked))["result"]
        assert document["info"] == {"title": "mine", "version": "1.2"}
        names = [method["name"] for method in document["methods"]]
        assert names == sorted(set(names))
        assert {"plain", "get", "interconnect", "subscribe", "rpc.discover"} <= set(names)
        # What the specification of OpenRPC wants of each.
        for method in document["methods"]:
            assert method.keys() >= {"name", "params", "result"}
            required = [each["required"] for each in method["params"]]
            assert required == sorted(required, reverse=True)
            assert all(re.fullmatch(r"\w+", each["name"]) for each in method["params"])
