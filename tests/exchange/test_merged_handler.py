from typing import Any

import pytest

from berrymq_rpc import rpc
from berrymq_rpc.exchange.merged_handler import merge_handlers
from berrymq_rpc.rpc.method_table import collect_methods


class Functions(rpc.AttrHandler):
    @rpc.method
    def get(self) -> str:
        return "own"


class Sub(rpc.AttrHandler):
    @rpc.method
    def hello(self) -> str:
        return "hello"


class Attributes(rpc.AttrHandler):
    def __init__(self) -> None:
        self.sub = Sub()

    @rpc.method
    def add(self, a: int, b: int) -> int:
        return a + b


class Asked:
    def __init__(self, names: dict[str, Any]) -> None:
        self.names = names

    def __getitem__(self, name: str) -> Any:
        return self.names[name]


@pytest.mark.parametrize("handler", [Attributes(), {"sub": Sub(), "add": Attributes().add}])
def test_both_are_known_at_start(handler: Any) -> None:
    table = collect_methods(merge_handlers(Functions(), handler))
    assert [method.name for method in table] == ["add", "get", "sub.hello"]
    assert table.find("get").function() == "own"


def test_one_that_is_asked() -> None:
    table = collect_methods(merge_handlers(Functions(), Asked({"sub": Sub()})))
    assert table.find("get").function() == "own"
    assert table.find("sub.hello").function() == "hello"
    for name in ("other", "get.x", "sub.other"):
        with pytest.raises(rpc.NotFoundError):
            table.find(name)


class Clash(rpc.AttrHandler):
    @rpc.method
    def get(self) -> str:
        return "theirs"


@pytest.mark.parametrize(
    "handler", [Clash(), {"get": Sub()}, Asked({"get": Clash().get}), Asked({"get": Sub()})]
)
def test_a_clash_is_an_error(handler: Any) -> None:
    with pytest.raises(ValueError, match=r"own functions: get$"):
        merge_handlers(Functions(), handler)


@pytest.mark.parametrize("handler", [5, Clash, "text"])
def test_no_handler(handler: Any) -> None:
    with pytest.raises(TypeError):
        merge_handlers(Functions(), handler)
