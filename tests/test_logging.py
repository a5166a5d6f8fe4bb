"""All that the package logs passes one place, which has a rate and does not raise."""

import ast
import re
from pathlib import Path

from berrymq_rpc.cli.log_json import FIELDS, LOGGER

PACKAGE = Path(__file__).resolve().parents[1] / "berrymq_rpc"

#: The place itself, and those that only make a logger for it, or that show what is logged.
MAY = {
    "common/safe_log.py",
    "jsonrpc/zeromq/socket_owner.py",
    "cli/output.py",
    "cli/log_json.py",
}
ROOT = PACKAGE.parent
PAGE = (ROOT / "docs" / "reference" / "logs.rst").read_text(encoding="utf-8")


def uses_of_logging(path: Path) -> list[int]:
    """The lines that get a logger, or log by `logging` itself."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="logging"), attr="Logger" | "LogRecord"):
                # As the type of an argument.
                continue
            case ast.Attribute(value=ast.Name(id="logging")):
                found.append(node.lineno)
            case ast.Call(func=ast.Attribute(value=ast.Attribute(attr="logger"))):
                # The one that a user gave.
                found.append(node.lineno)
            case ast.ImportFrom(module="logging", names=names):
                found += [node.lineno for name in names if name.name != "Logger"]
    return found


def test_one_place_logs() -> None:
    found = {
        str(path.relative_to(PACKAGE)): lines
        for path in PACKAGE.rglob("*.py")
        if (lines := uses_of_logging(path))
    }
    assert set(found) <= MAY, found
    assert found["common/safe_log.py"]


def names_of_loggers() -> set[str]:
    """The names of all loggers that the package makes."""
    found = {LOGGER}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Name(id="Log" | "SafeLog") | ast.Attribute(attr="getLogger"),
                    args=[ast.Constant(value=str(name)), *_],
                ):
                    found.add(name)
    # The one that the others are below.
    return found - {"berrymq_rpc"}


def test_the_page_names_each_logger() -> None:
    documented = re.findall(r"^   \* - ``([a-z_.]+)``$", PAGE, re.MULTILINE)
    assert [name for name in documented if "." in name] == sorted(names_of_loggers())


def test_the_page_names_each_field() -> None:
    documented = re.findall(r"^   \* - ``([a-z_]+)``$", PAGE, re.MULTILINE)
    assert tuple(documented) == FIELDS
