import json
from typing import Any

import msgpack
import pytest

from berrymq_rpc import rpc
from berrymq_rpc.rpc.describe import describe
from berrymq_rpc.rpc.handler import AttrHandler
from berrymq_rpc.rpc.method import method
from berrymq_rpc.rpc.method_table import collect_methods


class Math(AttrHandler):
    @method
    def add(self, a: int, b: "int" = 0, /, *rest: float, c=None, d, **more) -> int | None:
        """Add.

        Indented.
        """


class Handler(AttrHandler):
    def __init__(self):
        self.math = Math()

    @method
    async def ticks(self, n):
        yield n

    @method(waits=True)
    async def get(self): ...

    def private(self): ...


def by_name(handler):
    return {entry["name"]: entry for entry in describe(collect_methods(handler))["methods"]}


def test_everything_about_a_method():
    assert by_name(Handler())["math.add"] == {
        "name": "math.add",
        "signature": "(a: int, b: int = 0, /, *rest: float, c=None, d, **more) -> int | None",
        "doc": "Add.\n\nIndented.",
        "kind": "call",
        "waits": False,
        "parameters": [
            {
                "name": "a",
                "kind": "positional_only",
                "annotation": "int",
                "default": None,
                "required": True,
            },
            {
                "name": "b",
                "kind": "positional_only",
                "annotation": "int",
                "default": "0",
                "required": False,
            },
            {
                "name": "rest",
                "kind": "var_positional",
                "annotation": "float",
                "default": None,
                "required": False,
            },
            {
                "name": "c",
                "kind": "keyword_only",
                "annotation": None,
                "default": "None",
                "required": False,
            },
            {
                "name": "d",
                "kind": "keyword_only",
                "annotation": None,
                "default": None,
                "required": True,
            },
            {
                "name": "more",
                "kind": "var_keyword",
                "annotation": None,
                "default": None,
                "required": False,
            },
        ],
        "returns": "int | None",
    }


def test_streams_and_waiting_methods():
    described = by_name(Handler())
    assert [described[name]["kind"] for name in ("get", "ticks")] == ["call", "stream"]
    assert [described[name]["waits"] for name in ("get", "ticks")] == [True, False]
    assert described["ticks"]["parameters"][0]["kind"] == "positional_or_keyword"
    assert described["ticks"]["returns"] is None
    assert described["get"]["doc"] == ""


def test_sorted_by_name():
    assert list(by_name(Handler())) == ["get", "math.add", "ticks"]


def test_nothing_to_describe():
    assert describe(collect_methods({})) == {"methods": []}


class FailsToShow:
    def __repr__(self):
        raise RuntimeError("no text")


def odd(a=FailsToShow(), b="x" * 1_000_000, c=object(), *, d="\ud800"):  # noqa: B008
    ...


odd.__doc__ = "\ud800" + "y" * 1_000_000
odd.__annotations__ = {"a": FailsToShow(), "b": "\ud800", "return": list[int]}
method(odd)


@pytest.mark.parametrize("loads", [lambda value: msgpack.unpackb(msgpack.packb(value)), None])
def test_the_description_can_travel(loads):
    description = describe(collect_methods({"odd \ud800": odd, "handler": Handler()}))
    loads = loads or (lambda value: json.loads(json.dumps(value)))
    assert loads(description) == description


def test_bounds():
    (entry,) = describe(collect_methods({"odd": odd}))["methods"]
    assert len(entry["doc"]) < 4100
    assert entry["returns"] == "list[int]"
    defaults = {p["name"]: p["default"] for p in entry["parameters"]}
    assert defaults["a"] == "<FailsToShow object>"
    assert defaults["b"].endswith("...")
    assert len(defaults["b"]) == 200
    assert defaults["c"] == "<object object>"
    assert len(entry["signature"]) < 1000


async def test_a_server_describes_itself_once() -> None:
    class Default:
        described = 0

        def __repr__(self) -> str:
            self.described += 1
            return "Default()"

    default = Default()

    class Handler(rpc.AttrHandler):
        @rpc.method
        def take(self, value: Any = default) -> None:
            pass

    async with (
        await rpc.start_server(Handler(), bind="mem://*") as server,
        await rpc.open_client(connect=server.endpoints) as client,
    ):
        first = await client.describe()
        assert default.described > 0
        described = default.described
        assert [await client.describe() for _ in range(10)] == [first] * 10
        assert default.described == described
