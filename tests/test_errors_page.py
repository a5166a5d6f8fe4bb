"""The tables of exceptions on the page about errors are those of the code."""

import ast
import asyncio
import builtins
import importlib
import pkgutil
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import berrymq_rpc
from berrymq_rpc import errors, jsonrpc, rpc
from berrymq_rpc.cli.failure import Failed, peer_errors
from berrymq_rpc.jsonrpc.error_objects import to_error
from berrymq_rpc.nats.jetstream import JetStreamError
from berrymq_rpc.rpc.wire.codec import Codec
from berrymq_rpc.rpc.wire.exception_codec import describe

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "berrymq_rpc"
PAGE = (ROOT / "docs" / "reference" / "errors.rst").read_text(encoding="utf-8")

#: The words of the page for the parts of the package; the first that fits.
PARTS = (
    ("cli/", ""),
    ("testing/", ""),
    ("__init__.py", ""),
    ("identifier.py", "bus"),
    ("endpoint.py", "calls"),
    ("monitor/prometheus.py", "metrics"),
    ("opentelemetry.py", "tracing"),
    # It makes the error for those that call it.
    ("runtime/extra.py", ""),
    ("runtime/", "calls"),
    ("rpc/transport/nats/", "NATS"),
    ("rpc/nats_service.py", "NATS"),
    ("jsonrpc/micro.py", "NATS"),
    ("nats/", "NATS"),
    ("jsonrpc/bridge/", "bridge"),
    ("jsonrpc/", "JSON-RPC"),
    ("rpc/", "calls"),
    ("exchange/", "nodes"),
    ("bus/", "bus"),
    ("security/", "keys"),
)

#: Packages of extras, which some modules need.
OPTIONAL = {"aiohttp", "msgspec", "nats"}

#: What a module of the package tells apart, and a user meets as their base class.
SUBCLASSES = {"ExposedError", "UnsafeError"}

#: Those that never leave the package as what they are.
INTERNAL = {
    "ConnectionResetError": "a user sees it as the reason of a ConnectionLostError",
    "KeyError": "a handler has no such name: its caller gets a NotFoundError",
}


def table(number: int) -> dict[str, list[str]]:
    """The rows of a table of the page, by their first column, without markup."""
    text = re.split(r"\n\n(?=\S)", PAGE.split(".. list-table:: ")[number].partition("\n\n")[2])[0]
    rows = {}
    for row in re.split(r"^ +\* - ", text, flags=re.MULTILINE)[2:]:
        cells = [" ".join(cell.split()) for cell in re.split(r"\n +- ?", row)]
        name = re.sub(r"^`(\w+) <[\w.]+>`$", r"\1", cells[0]).strip("`")
        rows[name] = cells[1:]
    return rows


OWN, BUILT_IN = table(1), table(2)


def part_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE).as_posix()
    return next((word for start, word in PARTS if relative.startswith(start)), relative)


def raised() -> dict[str, set[str]]:
    """The exceptions that are made in the package, with the parts that make them."""
    found = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        part = part_of(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Name(id="bind_error")) if part:
                    found["OSError"].add(part)
                case ast.Call(func=ast.Name(id="missing_package")) if part:
                    found["ModuleNotFoundError"].add(part)
                case ast.Call(func=ast.Name(id=name)) if part and name.endswith("Error"):
                    found[name].add(part)
                case ast.Raise(exc=ast.Name(id="Empty")) if part:
                    found["Empty"].add(part)
    return found


RAISED = raised()


def public() -> Iterator[type[errors.Error]]:
    yield from (getattr(errors, name) for name in errors.__all__)
    yield jsonrpc.RPCError
    yield JetStreamError


CLASSES = {cls.__name__: cls for cls in public()}


def made(cls: type[errors.Error]) -> errors.Error:
    if cls is jsonrpc.RPCError:
        return jsonrpc.RPCError(7, "a reason")
    if cls is JetStreamError:
        return JetStreamError("a reason", 10_000)
    return cls("a reason")


def test_every_error_has_a_row() -> None:
    for module in pkgutil.walk_packages(berrymq_rpc.__path__, "berrymq_rpc."):
        if module.name.startswith(("berrymq_rpc.cli", "berrymq_rpc.jsonrpc.zeromq")):
            # Its own are on the page about JSON-RPC; importing the command needs its extra.
            continue
        if module.name.endswith("__main__"):
            continue
        try:
            imported = importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if error.name not in OPTIONAL:
                raise
            continue
        for value in vars(imported).values():
            if isinstance(value, type) and issubclass(value, errors.Error):
                name = value.__name__
                if name not in SUBCLASSES and "jsonrpc.zeromq" not in value.__module__:
                    assert CLASSES.get(name) is value, name
    assert set(OWN) == set(CLASSES)
    assert set(errors.__all__) <= set(rpc.__all__)


@pytest.mark.parametrize("name", CLASSES)
def test_row_of_an_error(name: str) -> None:
    cls = CLASSES[name]
    bases, parts, code, exit_code, advice = OWN[name]
    assert bases == ", ".join(base.__name__ for base in cls.__bases__)
    assert parts == ", ".join(sorted(RAISED[name]))
    answered = str(to_error(describe(made(cls), Codec())).code)
    assert answered == ("7" if code == "its own" else code)
    assert exit_code == str(asyncio.run(exit_code_of(made(cls))))
    assert advice


async def exit_code_of(error: errors.Error) -> int:
    with pytest.raises(Failed) as failed:
        async with peer_errors("tcp://127.0.0.1:1"):
            raise error
    return failed.value.exit_code


def test_built_in_exceptions() -> None:
    found = {
        "queue.Empty" if name == "Empty" else name: ", ".join(sorted(parts))
        for name, parts in RAISED.items()
        if hasattr(builtins, name) or name == "Empty"
    }
    for name in INTERNAL:
        del found[name]
    assert {name: cells[0] for name, cells in BUILT_IN.items()} == found
    assert all(cells[1] for cells in BUILT_IN.values())
