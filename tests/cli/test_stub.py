import ast
import subprocess
import sys
import types
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from berrymq_rpc.cli.methods import Method, Parameter
from berrymq_rpc.cli.stub import check_class_name, stub_source

KINDS = [
    "positional_only", "positional_or_keyword", "var_positional", "keyword_only", "var_keyword",
]  # fmt: skip


def method(name, *parameters, doc="", kind="call", returns=None) -> Method:
    return Method(name, "()", doc, kind, parameters, returns)


def parameter(name, kind=1, annotation=None, default=None) -> Parameter:
    return Parameter(name, KINDS[kind], annotation, default, default is None)


def source_of(*methods: Method) -> str:
    return stub_source(methods, "Server", "tcp://127.0.0.1:5555")


def imported(source: str) -> types.ModuleType:
    module = types.ModuleType("stub")
    exec(compile(source, "stub", "exec"), module.__dict__)
    return module


def body_of(*methods: Method) -> str:
    source = source_of(*methods)
    imported(source)
    return source[source.index("\n\n\n") + 3 :]


def test_a_whole_module() -> None:
    source = source_of(
        method(
            "add",
            parameter("a", annotation="int"),
            parameter("b", annotation="int", default="1"),
            returns="int",
            doc="Add.",
        ),
        method("texts.reverse", parameter("text"), doc="Reverse.\n\nAll of it.", returns="str"),
        method("ticks", kind="stream", returns="AsyncIterator[int]"),
    )
    assert (
        source
        == '''\
"""Types for what a berrymq_rpc server offers, as it was at tcp://127.0.0.1:5555.

Written by "berrymq stub"; write it again rather than edit it. Use it with a client::

    from typing import cast

    server = cast(Server, client.rpc)
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import AsyncIterator
from typing import Any, Protocol, TypeVar


Item = TypeVar("Item", covariant=True)


class Stream(Protocol[Item]):
    """Yields items one by one; contextlib.aclosing ends it early."""

    def __aiter__(self) -> AsyncIterator[Item]: ...

    async def __anext__(self) -> Item: ...

    async def aclose(self) -> None: ...


class ServerTexts(Protocol):
    def reverse(self, text: Any) -> Future[str]:
        """Reverse.

        All of it.
        """
        ...


class Server(Protocol):
    @property
    def texts(self) -> ServerTexts: ...

    def add(self, a: int, b: int = 1) -> Future[int]:
        """Add."""
        ...

    def ticks(self) -> Stream[int]: ...
'''
    )
    assert imported(source).Server.add.__doc__ == "Add."


def test_nothing() -> None:
    assert body_of() == "class Server(Protocol):\n    pass\n"


def test_all_kinds_of_parameters() -> None:
    body = body_of(
        method(
            "f",
            parameter("a", 0),
            parameter("b", 0, default="1"),
            parameter("self", 1, default="<object>"),
            parameter("rest", 2, "int"),
            parameter("c", 3),
            parameter("more", 4),
        ),
        method("g", parameter("c", 3), parameter("d", 3, default="None")),
    )
    assert "def f(\n        self_,\n        a: Any,\n        b: Any = 1,\n        /,\n" in body
    assert (
        "        self: Any = ...,\n        *rest: int,\n        c: Any,\n        **more: Any,\n"
        in body
    )
    assert "def g(self, *, c: Any, d: Any = None) -> Future[Any]: ..." in body


@pytest.mark.parametrize(
    "parameters",
    [
        [parameter("class")],
        [parameter("a b")],
        [parameter("a"), parameter("a")],
        [parameter("a", 3), parameter("b", 1)],
        [parameter("a", default="1"), parameter("b")],
        [parameter("a", 2), parameter("b", 2)],
        [parameter("a", 4), parameter("b", 4)],
        [parameter("__debug__")],
        [parameter("ﬁ"), parameter("fi")],
        [Parameter("a", "unheard of", None, None, True)],
    ],
)
def test_parameters_that_make_no_sense(parameters) -> None:
    assert "def f(self, *args: Any, **kwargs: Any)" in body_of(method("f", *parameters))


def test_a_namespace_that_can_be_called() -> None:
    for methods in ([method("a"), method("a.b")], [method("a.b"), method("a")]):
        body = body_of(*methods)
        assert (
            "class ServerA(Protocol):\n    def __call__(self) -> Future[Any]: ...\n\n    def b("
            in body
        )
        assert "    @property\n    def a(self) -> ServerA: ..." in body


def test_names_of_classes_differ() -> None:
    body = body_of(method("a_b.c"), method("a.b.c"), method("aB.c"))
    names = [node.name for node in ast.parse(body).body if isinstance(node, ast.ClassDef)]
    assert len(names) == len(set(names)) == 5


@pytest.mark.parametrize("name", ["class", "_hidden", "a._b", "a-b", "", "a..b", "a\n#", "é"])
def test_names_that_are_no_attributes(name) -> None:
    body = body_of(method(name))
    assert f"# Not an attribute: client.call({name!a}, ...)\n" in body


@pytest.mark.parametrize(
    "doc",
    [
        '"""',
        'a"',
        "\\",
        'a\n"""\nimport os',
        "\\\n",
        '""""',
        "a\x00b\x1b",
        "\u2028",
        "\ud800",
        " \n ",
    ],
)
def test_docstrings(doc) -> None:
    body_of(method("f", doc=doc))


def test_methods_named_as_types() -> None:
    body = body_of(
        method("set", parameter("a", annotation="list[int]"), returns="set[int]"), method("list")
    )
    assert "def set(self, a: builtins.list[int]) -> Future[builtins.set[int]]" in body


@pytest.mark.parametrize(
    "name", ["class", "a-b", "", "_A", "é", "Any", "int", "Stream", "datetime"]
)
def test_names_that_the_class_cannot_have(name) -> None:
    with pytest.raises(ValueError, match=r"class name|already used"):
        check_class_name(name)


odd_text = st.text() | st.text("ab.\"'\\\n#:[]()_,=", max_size=20)
parameters = st.builds(
    Parameter,
    st.sampled_from(["a", "b", "self", "class", "ﬁ", "fi"]) | odd_text,
    st.sampled_from(KINDS),
    st.none() | st.sampled_from(["int", "list[int]", "Order"]) | odd_text,
    st.none() | st.just("1") | odd_text,
    st.booleans(),
)
methods = st.builds(
    Method,
    st.sampled_from(["a", "a.b", "a.b.c", "set", "b", "Any"]) | odd_text,
    odd_text,
    odd_text,
    st.sampled_from(["call", "stream"]),
    st.lists(parameters, max_size=4).map(tuple),
    st.none() | st.sampled_from(["int", "list[int]", "AsyncIterator[int]"]) | odd_text,
)


@given(st.lists(methods, max_size=5))
@settings(max_examples=200)
def test_any_description_of_a_peer(found: list[Method]) -> None:
    """The module can be imported, and does nothing but define its classes."""
    source = source_of(*found)
    for node in ast.parse(source).body[1:]:
        assert isinstance(node, ast.Import | ast.ImportFrom | ast.ClassDef | ast.Assign)
    for node in ast.walk(ast.parse(source)):
        assert not isinstance(node, ast.Call) or ast.unparse(node.func) == "TypeVar"
    imported(source)


USE = """
from typing import assert_type, cast
from asyncio import Future
from collections.abc import Sequence
from berrymq_rpc import rpc
from stub import Server

async def use(client: rpc.Client) -> None:
    server = cast(Server, client.rpc)
    assert_type(await server.divide(1, b=2), float)
    assert_type(await server.values.list(["a"]), Sequence[str])
    assert_type(await server.values.set("a", 1, over=True), set[int])
    async for number in server.countdown(3):
        assert_type(number, int)
    await server.divide("one")  # type: ignore[arg-type]
    await server.divid(1)  # type: ignore[attr-defined]
"""


def test_the_command(berrymq, server, tmp_path: Path) -> None:
    result = berrymq("stub", server)
    assert (result.returncode, result.stderr) == (0, "")
    imported(result.stdout)
    (tmp_path / "stub.py").write_text(result.stdout, encoding="utf-8")
    (tmp_path / "use.py").write_text(USE)
    mypy = pytest.importorskip("mypy", reason="mypy is not installed here")
    checked = subprocess.run(
        [
            sys.executable, "-m", mypy.__name__, "--strict", "--config-file=", "--no-incremental",
            "--follow-imports=silent", "--cache-dir", str(tmp_path / "cache"), "use.py",
        ],
        cwd=tmp_path,
        env={"MYPYPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr + result.stdout


def test_another_name(berrymq, server) -> None:
    result = berrymq("stub", server, "--name", "Plant")
    assert "class PlantValues(Protocol):" in result.stdout
    assert "cast(Plant, client.rpc)" in result.stdout


@pytest.mark.parametrize("name", ["a b", "int"])
def test_usage(berrymq, name) -> None:
    result = berrymq("stub", "tcp://127.0.0.1:1", "--name", name)
    assert (result.returncode, result.stdout) == (2, "")
    assert f"--name: {name!r}" in result.stderr
