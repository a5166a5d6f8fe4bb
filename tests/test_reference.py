"""The reference has every public name and no internal one; its tables are those of the code."""

import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from berrymq_rpc import AsyncQueue, Bus, FileObserver, Node, Queue, SyncNode, rpc
from berrymq_rpc.jsonrpc.bridge import Bridge
from berrymq_rpc.rpc.transport import TRANSPORTS
from berrymq_rpc.rpc.wire import limits

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs" / "reference"
PAGES = {
    path.relative_to(ROOT / "docs").as_posix(): path.read_text(encoding="utf-8")
    for path in [*REFERENCE.glob("*.rst"), ROOT / "docs" / "howto" / "bridge.rst"]
}

#: What users import.
MODULES = [
    "berrymq_rpc",
    "berrymq_rpc.bus",
    "berrymq_rpc.errors",
    "berrymq_rpc.exchange",
    "berrymq_rpc.jsonrpc",
    "berrymq_rpc.jsonrpc.bridge",
    "berrymq_rpc.jsonrpc.zeromq",
    "berrymq_rpc.monitor",
    "berrymq_rpc.opentelemetry",
    "berrymq_rpc.rpc",
    "berrymq_rpc.testing",
]

#: What the classes have without a ``_`` for other modules of the package.
INTERNAL = {
    # What is measured writes by these.
    "Meter": {
        "call_totals",
        "delayed",
        "message_totals",
        "names_left_out",
        "published",
        "publisher",
        "receiver_failed",
        "relayed",
        "renamed",
        "replace_lock",
        "tick",
    },
    "Call": {
        *("accepted", "accepted_at", "connection", "deadline", "end", "fail", "fail_at_once"),
        *("id", "item", "loop_left", "made_at", "make_stream", "method", "refused", "resend"),
        *("sent", "succeed", "timeout", "usage", "is_stream", "on_end"),
        # It passes for a coroutine by them; users have `aclose` and ``async for``.
        *("close", "read", "send", "throw"),
    },
    "Condition": {"parts"},
    "Connection": {"measure", "open"},
    "ExportedFunctions": {
        *("ask_retained", "close", "expect", "introduce", "keep", "keep_alive", "leases"),
        *("measure", "mesh", "queues", "remove_key", "send_messages", "send_retained"),
        *("statistics", "wait_closed", "is_traced"),
    },
    "Identifier": {"require_exportable"},
    "Interconnection": {"measure", "open"},
    "Kit": {"aclose", "begin", "close"},
    "KitServer": {"aclose", "has_link", "new_link", "start"},
    "Link": {"close", "freeze", "kill", "revive", "thaw"},
    "LinkFaults": {
        *("copies", "due", "holds_disconnect", "is_broken", "is_frozen", "is_silent"),
        "port_closing",
    },
    "Node": {"handler", "may_receive", "reached_at"},
    "OnewayConnection": {"measure", "open"},
    "Peer": {"account", "is_request", "owner", "scheme", "takes_bytes"},
    "QueueConnection": {"measure", "open", "put_back", "settle"},
    "CurveServer": {"authorization", "client", "for_endpoint"},
    "Limits": {"largest_frame"},
    "Nats": {"address", "for_service", "has_proof", "has_secret"},
}


def resolve(name: str) -> Any:
    first, *rest = name.split(".")
    found: Any = importlib.import_module(first)
    path = first
    for part in rest:
        path = f"{path}.{part}"
        # A function may hide the module of its name, as `rpc.context` does.
        found = getattr(found, part) if hasattr(found, part) else importlib.import_module(path)
    return found


def directives() -> Iterator[tuple[str, str, dict[str, list[str]]]]:
    """The directives of autodoc: kind, name, options with their words."""
    pattern = r"^\.\. auto(\w+):: ([\w.]+).*\n((?:   :.*\n)*)"
    for text in PAGES.values():
        for kind, name, below in re.findall(pattern, text, re.MULTILINE):
            options = dict(re.findall(r"^   :([\w-]+): ?(.*)$", below, re.MULTILINE))
            yield kind, name, {key: re.findall(r"\w+", value) for key, value in options.items()}


def modules_whole() -> set[str]:
    """The modules of which a page has everything."""
    return {
        name for kind, name, options in directives() if kind == "module" and "members" in options
    }


def documented() -> dict[int, dict[str, list[str]]]:
    """The options of the objects that the pages have, by their identity."""
    return {id(resolve(name)): options for kind, name, options in directives() if kind != "module"}


@pytest.mark.parametrize("module", MODULES)
def test_each_public_name(module: str) -> None:
    pytest.importorskip("aiohttp") if module.endswith("bridge") else None
    known = documented()
    whole = {
        id(getattr(resolve(name), word))
        for name in modules_whole()
        for word in resolve(name).__all__
    }
    text = "\n".join(PAGES.values())
    for name in resolve(module).__all__:
        found = getattr(resolve(module), name)
        # Functions that are methods of a default object are named in the text.
        if id(found) not in known and id(found) not in whole:
            assert f"``{name}``" in text or f".{name}``" in text, f"{module}.{name}"


def own_members(cls: type) -> set[str]:
    return {
        name
        for base in cls.__mro__
        if base.__module__.startswith("berrymq_rpc")
        for name in vars(base)
        if not name.startswith("_")
    }


def listed(cls: type, options: dict[str, list[str]]) -> set[str]:
    """The members that the pages show of a class, those of its parents included."""
    known = documented()
    shown = set(options.get("members", []))
    for base in cls.__mro__[1:]:
        shown |= set(known.get(id(base), {}).get("members", []))
    return shown


CLASSES = {
    name: options
    for kind, name, options in directives()
    if kind == "class" and not name.startswith("berrymq_rpc.jsonrpc")
}


@pytest.mark.parametrize("name", CLASSES)
def test_each_public_member(name: str) -> None:
    cls = resolve(name)
    members, internal = own_members(cls), INTERNAL.get(cls.__name__, set())
    assert internal <= members, "no longer there"
    shown = listed(cls, CLASSES[name])
    assert not shown & internal
    # What the docstring says is in the page with it, as is what the page says itself.
    told = set(re.findall(r"``message\.(\w+)``", PAGES["reference/nodes.rst"])) | {
        word
        for base in cls.__mro__
        for word in re.findall(r"^ +(\w+(?:, \w+)*):", base.__doc__ or "", re.MULTILINE)
        for word in word.split(", ")
    }
    assert members - shown - internal - told == set()


def test_internal_names_have_a_class() -> None:
    assert INTERNAL.keys() <= {name.rpartition(".")[2] for name in CLASSES}


def test_limits() -> None:
    source = Path(limits.__file__).read_text(encoding="utf-8")
    part = source[source.index("#: Twice this and a frozen peer") : source.index("@dataclass")]
    page = PAGES["reference/limits.rst"]
    assert ":start-at: #: Twice this and a frozen peer\n   :end-before: @dataclass\n" in page
    for field in fields(rpc.Limits):
        # A default with its reason above it, or above the one that it follows.
        assert re.search(rf"^{field.name.upper()} = ", part, re.MULTILINE), field.name
        assert getattr(limits, field.name.upper()) == getattr(rpc.Limits(), field.name)


def numbers_of(*functions: Any) -> dict[str, float]:
    """The parameters with a number, by name; a mode of files is no limit."""
    return {
        name: parameter.default
        for function in functions
        for name, parameter in inspect.signature(function).parameters.items()
        if type(parameter.default) in (int, float) and name != "ipc_mode"
    }


def test_parameters() -> None:
    http = pytest.importorskip("berrymq_rpc.jsonrpc.http", reason="it needs aiohttp")
    expected = {
        "rpc.start_server": numbers_of(rpc.start_server, rpc.open_client),
        "Node": numbers_of(Node, SyncNode) | {"total_queue_bytes": 640 << 20},
        "Bus": numbers_of(Bus),
        "Queue": numbers_of(Queue, AsyncQueue),
        "Bridge": numbers_of(Bridge),
        "FileObserver": numbers_of(FileObserver),
        "jsonrpc.http.open_http_client": numbers_of(http.open_http_client),
    }
    units = {"MiB": 1 << 20, "KiB": 1 << 10, "": 1}
    found: dict[str, dict[str, float]] = {}
    for table in PAGES["reference/limits.rst"].split(".. list-table:: ``")[1:]:
        rows = re.findall(r"   \* - ``(\w+)``\n     - ([\d.,]+) ?(MiB|KiB|)\n     - \S", table)
        found[table.partition("``")[0]] = {
            name: float(number.replace(",", "")) * units[unit] for name, number, unit in rows
        }
    assert found == expected


def test_transports() -> None:
    text = PAGES["reference/transports.rst"]
    head, *rows = re.findall(r"^   \* -.*\n(?:     .*\n)+", text, re.MULTILINE)
    schemes = re.findall(r"``(\w+)://", head)
    assert schemes == ["mem", "ipc", "tcp", "nats", "http"]
    # mdns:// finds tcp://, whose column is its own.
    assert {*schemes, "nats+tls", "mdns"} - {"http"} == set(TRANSPORTS)
    assert "``mdns://name``" in text
    assert len(rows) >= 8
    for row in rows:
        # A cell for each column, and the row's own name.
        assert len(re.findall(r"^ +(?:\* )?-", row, re.MULTILINE)) == 1 + len(schemes), row
