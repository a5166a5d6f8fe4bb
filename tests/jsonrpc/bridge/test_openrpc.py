"""The answer of rpc.discover is an OpenRPC document, whatever the handlers."""

import datetime
import decimal
import functools
import json
import math
import re
import typing
from pathlib import Path
from typing import Any, Literal

import pytest
from jsonschema import Draft7Validator, ValidationError
from openrpc_types import ITEM, Color, Hostile, Item, Odd, Order, Point, Tree
from referencing import Registry
from referencing.jsonschema import DRAFT7

from berrymq_rpc import Bus, Node, rpc
from berrymq_rpc.jsonrpc.bridge import Bridge
from berrymq_rpc.jsonrpc.bridge.openrpc import openrpc_document
from berrymq_rpc.rpc.describe import describe
from berrymq_rpc.rpc.method_table import collect_methods


def meta_schema() -> Draft7Validator:
    """Checks documents by the meta-schema of OpenRPC, and the JSON Schema in them by that."""
    schemas = [
        json.loads((Path(__file__).parent / "openrpc" / name).read_text("utf-8"))
        for name in ("meta_schema.json", "json_schema.json")
    ]
    # It is referred to with and without the slash at the end of its name.
    inner = DRAFT7.create_resource(schemas[1])
    names = (schemas[1]["$id"], schemas[1]["$id"].rstrip("/"))
    registry: Registry[Any] = Registry().with_resources((name, inner) for name in names)
    return Draft7Validator(schemas[0], registry=registry)


META_SCHEMA = meta_schema()


def is_valid(document: Any) -> bool:
    META_SCHEMA.validate(document)
    return True


@pytest.mark.parametrize(
    "change",
    [
        {"openrpc": "9"},
        {"info": {}},
        {"methods": [{"name": "a"}]},
        {"methods": [{"name": "a", "params": [{"name": "b"}]}]},
        {"methods": [{"name": "a", "params": [{"name": "b", "schema": {"type": "what"}}]}]},
        {"methods": [{"name": "a", "params": [{"name": "b", "schema": {"items": []}}]}]},
        {"methods": [{"name": "a", "params": [], "paramStructure": "none"}]},
    ],
)
def test_the_meta_schema_refuses(change: dict[str, Any]) -> None:
    document = openrpc_document([], title="it", version="1")
    assert is_valid(document)
    with pytest.raises(ValidationError):
        META_SCHEMA.validate(document | change)


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
        "paramStructure": "by-name",
        "result": {"name": "result", "schema": {"type": "array", "items": {"type": "integer"}}},
    }
    assert is_valid(document)
    assert found["only"]["paramStructure"] == "by-position"
    assert found["only"]["params"][1]["schema"] == {"description": "default: <object object>"}
    assert found["only"]["result"]["schema"] == {"type": "null"}
    assert found["named"]["paramStructure"] == "by-name"
    assert found["many"]["params"] == []
    assert found["many"]["x-var-positional"] == "args"


SENTINEL = object()
ODD_KEYS = {1: 2}
DEEP: Any = [[[[[[[[[[[[[]]]]]]]]]]]]]
PLAIN = {"a": [None, True, 1.5]}


def decorated(function: Any) -> Any:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    # Half a surrogate pair; the compiler takes none in a docstring.
    call.__doc__ = "\ud800"
    return call


class Everything(rpc.AttrHandler):
    """What people write, and more."""

    @rpc.method
    def empty_tuple(self, value: tuple[()] = ()) -> tuple[()]:
        return ()

    @rpc.method
    def beside(self, a: int, *, b: str = "x") -> None: ...

    @rpc.method
    def needed(self, a: int = 1, *, b: str) -> None: ...

    @rpc.method
    def positional(self, a: int, /, b: int = 2, *, c: int = 3) -> None: ...

    @rpc.method
    def variable(self, a: int, *args: int, b: int = 1, **kwargs: int) -> None: ...

    @rpc.method
    def defaults(
        self,
        a: Any = SENTINEL,
        b: float = math.inf,
        c: float = math.nan,
        d: Any = b"bytes",
        e: Any = "\ud800",
        f: Any = 10**400,
        g: Any = ODD_KEYS,
        h: Any = Color.RED,
        i: Any = Odd.ONE,
        j: Any = datetime.date(2000, 1, 1),
        k: Any = decimal.Decimal(1),
        l: Any = lambda: None,  # noqa: E741
        m: Any = ...,
        n: Any = DEEP,
        o: Any = PLAIN,
    ) -> None: ...

    @rpc.method
    def types(
        self,
        a: Color,
        b: Item,
        c: Order,
        d: typing.List[Point],  # noqa: UP006
        e: "Tree",
        f: "list[Nowhere]",  # type: ignore[name-defined]  # noqa: F821
        g: Literal[()],  # type: ignore[valid-type]
        h: Odd,
        i: typing.Callable[..., Any],
        j: "not python",  # type: ignore[valid-type]  # noqa: F821
        k: 5,  # type: ignore[valid-type]
        l: Hostile,  # noqa: E741
        m: dict[Color, list[Item]],
    ) -> Item:
        """Take each type.

        Args:
            a: a color.
        """
        raise NotImplementedError

    @rpc.method
    @decorated
    def wrapped(self, a: Item) -> None: ...

    @rpc.method
    async def stream(self, a: int) -> Any:
        yield 1


class Inner(rpc.AttrHandler):
    def __init__(self) -> None:
        self.ns = Everything()


async def test_a_document_is_valid_whatever_the_handlers(line_to: Any, listener: str) -> None:
    handlers: tuple[Any, ...] = (
        Inner(),
        {
            "": lambda: None,
            "a b": max,
            "part": functools.partial(max, 1),
            "\ud800": min,
            "ns": {"x": len},
        },
        {},
    )
    for handler in handlers:
        async with Bridge(handler) as bridge, line_to(bridge, listener) as line:
            answer = await line.ask({"jsonrpc": "2.0", "method": "rpc.discover", "id": 1})
            assert is_valid(answer["result"])
    async with (
        await rpc.start_server(Inner(), bind="mem://everything") as server,
        await rpc.open_client(connect=server.endpoints, timeout=10) as client,
        Bridge(client) as bridge,
        line_to(bridge, listener) as line,
    ):
        answer = await line.ask({"jsonrpc": "2.0", "method": "rpc.discover", "id": 1})
        assert is_valid(answer["result"])
        assert "ns.types" in [method["name"] for method in answer["result"]["methods"]]


def test_what_is_found_of_handlers() -> None:
    table = collect_methods(Everything())
    document = openrpc_document(
        describe(table)["methods"],
        title="it",
        version="1",
        functions={method.name: method.function for method in table},
    )
    assert is_valid(document)
    found = {method["name"]: method for method in document["methods"]}
    assert found["beside"]["paramStructure"] == "by-name"
    assert found["needed"]["paramStructure"] == "by-name"
    assert [each["name"] for each in found["needed"]["params"]] == ["b", "a"]
    # A parameter by name cannot be given where another can only be given by position.
    assert found["positional"]["paramStructure"] == "by-position"
    assert [each["name"] for each in found["positional"]["params"]] == ["a", "b"]
    assert found["variable"]["paramStructure"] == "by-name"
    schemas = {each["name"]: each["schema"] for each in found["defaults"]["params"]}
    held = {name: schema["default"] for name, schema in schemas.items() if "default" in schema}
    assert held == {"h": "red", "o": {"a": [None, True, 1.5]}}
    assert schemas["b"] == {"type": "number", "description": "default: inf"}
    params = {each["name"]: each for each in found["types"]["params"]}
    assert params["a"]["description"] == "a color."
    assert params["a"]["schema"] == {"title": "Color", "enum": ["red", "green"]}
    assert params["b"]["schema"] == ITEM
    assert params["f"]["schema"] == {"type": "array"}
    assert found["types"]["result"]["schema"] == ITEM
    assert found["wrapped"]["params"][0]["schema"] == ITEM


def test_what_a_document_needs_of_its_bridge() -> None:
    for wrong in (None, 5, b"x"):
        with pytest.raises(TypeError, match="title"):
            Bridge({}, title=wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="version"):
            Bridge({}, version=wrong)  # type: ignore[arg-type]


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
        assert {"plain", "get", "interconnect", "subscribe"} <= set(names)
        assert "rpc.discover" not in names
        assert is_valid(document)
        # What the specification of OpenRPC wants of each.
        for method in document["methods"]:
            assert method.keys() >= {"name", "params", "result"}
            required = [each["required"] for each in method["params"]]
            assert required == sorted(required, reverse=True)
            assert all(re.fullmatch(r"\w+", each["name"]) for each in method["params"])
