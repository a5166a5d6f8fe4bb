"""The package's layers: each imports only from those above it, and only some may do I/O.

Imports are read from the source, not from `sys.modules`, so that an import inside a function counts
as well. So does one under ``if TYPE_CHECKING:``: it never runs, but a layer that names the types of
a lower one depends on it all the same.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "berrymq_rpc"

# From the top. A module belongs to the layer with the longest prefix of its name.
LAYERS = {
    "pure": [
        "berrymq_rpc.common",
        "berrymq_rpc.endpoint",
        "berrymq_rpc.errors",
        "berrymq_rpc.identifier",
        "berrymq_rpc.nats.headers",
        "berrymq_rpc.nats.subject",
    ],
    "runtime": ["berrymq_rpc.runtime", "berrymq_rpc.security", "berrymq_rpc.opentelemetry"],
    "bus": ["berrymq_rpc.bus"],
    "wire": [
        "berrymq_rpc.rpc.wire",
        "berrymq_rpc.rpc.transport.nats.channel",
        "berrymq_rpc.rpc.transport.nats.records",
        "berrymq_rpc.rpc.transport.nats.search",
        "berrymq_rpc.jsonrpc.dialect",
        "berrymq_rpc.jsonrpc.error_objects",
        "berrymq_rpc.jsonrpc.message",
        "berrymq_rpc.jsonrpc.micro",
        "berrymq_rpc.jsonrpc.items",
        "berrymq_rpc.jsonrpc.protocols",
    ],
    "nats": ["berrymq_rpc.nats"],
    "transport": ["berrymq_rpc.rpc.transport"],
    "rpc": ["berrymq_rpc.rpc"],
    "shells": ["berrymq_rpc.jsonrpc"],
    "exchange": ["berrymq_rpc.exchange"],
    "monitor": ["berrymq_rpc.monitor"],
    "bridge": ["berrymq_rpc.jsonrpc.bridge"],
    "cli": ["berrymq_rpc.cli", "berrymq_rpc.__main__"],
    "testing": ["berrymq_rpc.testing"],
    # They only re-export, and nothing inside the package imports them.
    "public names": ["berrymq_rpc", "berrymq_rpc.connect"],
}
ORDER = list(LAYERS)

# Sans-I/O. The bus stands above the wire, but brings threads and asyncio with it.
PURE = {"pure", "wire"}

# What waits, sends, or asks for the time.
IMPURE = {
    "asyncio",
    "concurrent",
    "http",
    "multiprocessing",
    "queue",
    "sched",
    "select",
    "selectors",
    "signal",
    "socket",
    "socketserver",
    "ssl",
    "subprocess",
    "threading",
    "time",
    "urllib",
}

# Each package from elsewhere, and the only ones that may import it. The base dependencies come
# first; the others belong to extras.
THIRD_PARTY = {
    "aiozmq": ["berrymq_rpc.rpc.transport.aiozmq_import"],
    "msgpack": ["berrymq_rpc.rpc.wire"],
    "zmq": [
        "berrymq_rpc.security",
        "berrymq_rpc.rpc.transport",
        "berrymq_rpc.jsonrpc",
        "berrymq_rpc.testing.opened_sockets",
    ],
    "aiohttp": ["berrymq_rpc.jsonrpc"],
    "opentelemetry": ["berrymq_rpc.opentelemetry"],
    "msgspec": ["berrymq_rpc.jsonrpc.protocols"],
    "nats": ["berrymq_rpc.nats.link"],
    "nkeys": ["berrymq_rpc.nats.link"],
    "click": ["berrymq_rpc.cli"],
    "prometheus_client": ["berrymq_rpc.monitor.prometheus"],
    "rich": ["berrymq_rpc.cli"],
    "uvloop": ["berrymq_rpc.cli"],
    "ifaddr": ["berrymq_rpc.rpc.transport.mdns.interfaces"],
    "zeroconf": ["berrymq_rpc.rpc.transport.mdns"],
    "watchfiles": ["berrymq_rpc.bus.adapters.file_watch"],
}

# Modules that import each other, with the reason why they are not one module or cut elsewhere.
CYCLES: dict[frozenset[str], str] = {}
MAX_CYCLES = 0

# Folders of one layer, the first of which knows nothing of the second.
ONE_WAY = [("berrymq_rpc.exchange.durable", "berrymq_rpc.exchange.cluster")]

# In the standard library of 3.14, but not in every `sys.stdlib_module_names`.
LATER_STDLIB = {"annotationlib", "compression"}

# Layers that work without an event loop.
NO_ASYNCIO = PURE | {"public names"}

# What would run code, or load it, by a name or bytes that came from a peer. The command line may
# import what its user names.
BUILTINS_THAT_RUN_CODE = {"__import__", "compile", "eval", "exec"}
LOADERS = {
    "builtins": BUILTINS_THAT_RUN_CODE,
    "importlib": {"__import__", "import_module"},
    "marshal": {"load", "loads"},
    "pickle": {"Unpickler", "load", "loads"},
    "runpy": {"run_module", "run_path"},
    "shelve": {"open"},
}


@dataclass(frozen=True)
class Import:
    importer: str
    line: int
    imported: str

    def __str__(self) -> str:
        return f"{self.importer}, line {self.line}: imports {self.imported}"


def module_name(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def read_tree(root: Path) -> dict[str, tuple[Path, ast.Module]]:
    return {
        module_name(path, root): (path, ast.parse(path.read_text(encoding="utf-8"), str(path)))
        for path in sorted((root / PACKAGE).rglob("*.py"))
    }


def imports_of(name: str, path: Path, tree: ast.Module, modules: set[str]) -> Iterator[Import]:
    """Each import in the module, as the full name of the module that it reaches.

    ``from .wire import codec`` reaches ``wire.codec`` where that is a module, and ``wire`` where
    ``codec`` is a name in it.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(name, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = name if path.name == "__init__.py" else name.rpartition(".")[0]
                parts = package.split(".")
                above = parts[: len(parts) - node.level + 1]
                base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                longer = f"{base}.{alias.name}"
                yield Import(name, node.lineno, longer if longer in modules else base)


def is_under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def layer_of(name: str) -> str | None:
    fitting = [
        (len(prefix), layer)
        for layer, prefixes in LAYERS.items()
        for prefix in prefixes
        # Whatever is new in the package needs a layer of its own, not the package's.
        if is_under(name, prefix) and (prefix != PACKAGE or name == PACKAGE)
    ]
    return max(fitting)[1] if fitting else None


def complaints(root: Path) -> list[str]:
    tree = read_tree(root)
    found = [f"{name} belongs to no layer" for name in tree if layer_of(name) is None]
    for name, (path, parsed) in tree.items():
        layer = layer_of(name)
        if layer is None:
            continue
        for entry in imports_of(name, path, parsed, set(tree)):
            reason = forbidden(layer, entry)
            if reason:
                found.append(f"{entry}: {reason}")
        found += [f"{name}, line {line}: {what}" for line, what in dangers(layer, parsed)]
    return found


def forbidden(layer: str, entry: Import) -> str | None:
    top = entry.imported.partition(".")[0]
    if top == PACKAGE:
        return forbidden_inside(layer, entry)
    if top in THIRD_PARTY:
        if not any(is_under(entry.importer, prefix) for prefix in THIRD_PARTY[top]):
            return f"only {', '.join(THIRD_PARTY[top])} may"
    elif top not in sys.stdlib_module_names | LATER_STDLIB:
        return "no dependency of this package"
    if layer in PURE and top in IMPURE:
        return f"the layer '{layer}' does no I/O and asks for no time"
    if layer in NO_ASYNCIO and top == "asyncio":
        return f"the layer '{layer}' knows no event loop"
    return None


def forbidden_inside(layer: str, entry: Import) -> str | None:
    other = layer_of(entry.imported)
    if other is None:
        return "belongs to no layer"
    for folder, unknown in ONE_WAY:
        if is_under(entry.importer, folder) and is_under(entry.imported, unknown):
            return f"{folder} knows nothing of {unknown}"
    if ORDER.index(other) > ORDER.index(layer):
        return f"the layer '{other}' is below '{layer}'"
    if layer in PURE and other not in PURE:
        return f"the layer '{layer}' does no I/O, and '{other}' does"
    return None


def dangers(layer: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    if layer == "cli":
        return
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in BUILTINS_THAT_RUN_CODE:
                yield node.lineno, f"calls {name}()"
            case ast.Attribute(value=ast.Name(id=module), attr=name):
                if name in LOADERS.get(module, ()):
                    yield node.lineno, f"uses {module}.{name}"
            case ast.ImportFrom(module=module, names=aliases) if module in LOADERS:
                for alias in aliases:
                    if alias.name in LOADERS[module]:
                        yield node.lineno, f"imports {module}.{alias.name}"
            case ast.Import(names=aliases):
                for alias in aliases:
                    # Under another name, its use would go unseen here.
                    if alias.name in LOADERS and alias.asname:
                        yield node.lineno, f"imports {alias.name} under another name"


def import_cycles(root: Path) -> set[frozenset[str]]:
    """Sets of modules that reach each other by their imports.

    A package's own `__init__` re-exports what its modules define: to import from it is to import
    from these, so it is no part of a cycle itself.
    """
    tree = read_tree(root)
    graph = {
        name: {
            entry.imported
            for entry in imports_of(name, path, parsed, set(tree))
            if entry.imported in tree and entry.imported != name
        }
        for name, (path, parsed) in tree.items()
        if path.name != "__init__.py"
    }
    reached: dict[str, set[str]] = {}
    for name in graph:
        found: set[str] = set()
        waiting = [name]
        while waiting:
            for other in graph.get(waiting.pop(), ()):
                if other not in found:
                    found.add(other)
                    waiting.append(other)
        reached[name] = found
    return {
        frozenset({name, *(o for o in others if name in reached.get(o, ()))})
        for name, others in reached.items()
        if name in others
    }


def test_import_cycles() -> None:
    assert import_cycles(ROOT) == set(CYCLES)
    assert len(CYCLES) <= MAX_CYCLES


def test_an_import_cycle_is_found(tmp_path: Path) -> None:
    made_tree(tmp_path, "bus/first.py", "from . import second")
    (tmp_path / PACKAGE / "bus/second.py").write_text("from .third import name")
    (tmp_path / PACKAGE / "bus/third.py").write_text("if TYPE_CHECKING:\n    from . import first")
    modules = {f"{PACKAGE}.bus.{name}" for name in ("first", "second", "third")}
    assert import_cycles(tmp_path) == {frozenset(modules)}


def test_layers() -> None:
    assert complaints(ROOT) == []


def test_exactly_one_module_imports_aiozmq() -> None:
    tree = read_tree(ROOT)
    importers = {
        entry.importer
        for name, (path, parsed) in tree.items()
        for entry in imports_of(name, path, parsed, set(tree))
        if is_under(entry.imported, "aiozmq")
    }
    assert importers == set(THIRD_PARTY["aiozmq"])


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("rpc/wire/codec.py", "from ... import errors"),
        ("rpc/wire/codec.py", "from ...errors import Error"),
        ("rpc/wire/codec.py", "from . import limits"),
        ("rpc/wire/codec.py", "import msgpack"),
        ("rpc/wire/codec.py", "import datetime"),
        ("rpc/wire/codec.py", "json.loads(text)"),
        ("rpc/wire/codec.py", "re.compile(text)"),
        ("rpc/wire/codec.py", "import pickle\npickle.dumps(value)"),
        ("rpc/transport/link.py", "from ..wire.limits import Limits"),
        ("rpc/transport/link.py", "from .. import wire"),
        ("rpc/transport/link.py", "from berrymq_rpc.rpc import wire"),
        ("rpc/transport/link.py", "import zmq.auth"),
        ("rpc/transport/link.py", "from ...nats.connection import Connection"),
        ("nats/link.py", "from nats.aio.client import Client\nimport asyncio"),
        ("nats/subject.py", "from ..errors import Error"),
        ("rpc/client.py", "from . import transport"),
        ("rpc/client.py", "import asyncio"),
        ("rpc/__init__.py", "from .wire import limits"),
        ("rpc/__init__.py", "from ..bus import Bus"),
        ("bus/follower.py", "import threading"),
        ("bus/follower.py", "from ..runtime.fork import call_in_child"),
        ("exchange/node.py", "from ..rpc import client"),
        ("exchange/cluster/buffer.py", "from ..durable.queue import ClusterQueue"),
        ("jsonrpc/bridge/http.py", "from ...exchange import node"),
        ("jsonrpc/items.py", "from ..rpc.wire import limits"),
        ("cli/main.py", "importlib.import_module(name)"),
        ("cli/main.py", "from ..exchange import node"),
        ("cli/main.py", "import click\nfrom rich.text import Text"),
        ("testing/link_faults.py", "import asyncio\nfrom ..rpc.transport import link"),
        ("__main__.py", "from .cli import main"),
        ("connect.py", "from .exchange import node"),
        ("__init__.py", "from . import rpc"),
    ],
)
def test_allows(tmp_path: Path, module: str, line: str) -> None:
    assert complaints(made_tree(tmp_path, module, line)) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("unheard_of.py", ""),
        ("errors.py", "from .identifier import Identifier\nfrom .bus import Bus"),
        ("identifier.py", "import time"),
        ("common/tally.py", "import threading"),
        ("common/tally.py", "from ..runtime.fork import call_in_child"),
        ("runtime/fork.py", "from ..bus import Bus"),
        ("bus/follower.py", "from ..rpc import client"),
        ("bus/follower.py", "from .. import rpc"),
        ("bus/follower.py", "import zmq"),
        ("bus/follower.py", "import msgpack"),
        ("rpc/wire/codec.py", "import asyncio"),
        ("rpc/wire/codec.py", "import asyncio.events as events"),
        ("rpc/wire/codec.py", "from time import monotonic"),
        ("rpc/wire/codec.py", "from concurrent.futures import Future"),
        ("rpc/wire/codec.py", "def late():\n    import threading"),
        ("rpc/wire/codec.py", "if TYPE_CHECKING:\n    import zmq"),
        ("rpc/wire/codec.py", "try:\n    import socket\nexcept ImportError:\n    socket = None"),
        ("rpc/wire/codec.py", "from ...bus import Bus"),
        ("rpc/wire/codec.py", "from .. import transport"),
        ("rpc/wire/codec.py", "from ..transport.link import Link"),
        ("rpc/wire/codec.py", "from berrymq_rpc import rpc"),
        ("rpc/wire/codec.py", "import berrymq_rpc.rpc.client"),
        ("rpc/wire/codec.py", "import numpy"),
        ("rpc/transport/link.py", "import aiozmq"),
        ("rpc/transport/link.py", "from aiozmq.rpc import open_client"),
        ("rpc/transport/link.py", "from .. import client"),
        ("rpc/client.py", "import zmq"),
        ("nats/connection.py", "import nats"),
        ("nats/connection.py", "from ..rpc import client"),
        ("rpc/transport/link.py", "import nats"),
        ("rpc/client.py", "from .. import bus, exchange"),
        ("rpc/client.py", "import berrymq_rpc"),
        ("rpc/__init__.py", "from ..connect import ExportedFunctions"),
        ("exchange/node.py", "from ..jsonrpc.bridge import http"),
        ("jsonrpc/items.py", "import asyncio"),
        ("jsonrpc/client.py", "from ..exchange import node"),
        ("rpc/client.py", "eval(text)"),
        ("rpc/client.py", "pickle.loads(data)"),
        ("rpc/client.py", "from pickle import loads"),
        ("rpc/client.py", "class Reader(pickle.Unpickler): ..."),
        ("rpc/client.py", "import pickle as p"),
        ("rpc/client.py", "importlib.import_module(name)"),
        ("rpc/client.py", "import click"),
        ("exchange/node.py", "from ..cli import main"),
        ("exchange/durable/queue.py", "from ..cluster.buffer import ClusterBuffer"),
        ("rpc/client.py", "from ..testing import link_faults"),
        ("testing/link_faults.py", "import pytest"),
        ("jsonrpc/bridge/http.py", "import rich"),
    ],
)
def test_refuses(tmp_path: Path, module: str, line: str) -> None:
    assert complaints(made_tree(tmp_path, module, line)) != []


def made_tree(root: Path, module: str, source: str) -> Path:
    """A package with one module of each layer, and `source` in one more."""
    modules = {
        "__init__.py": "",
        "errors.py": "",
        "identifier.py": "",
        "connect.py": "",
        "common/__init__.py": "",
        "runtime/__init__.py": "",
        "runtime/fork.py": "",
        "bus/__init__.py": "",
        "nats/__init__.py": "",
        "nats/connection.py": "",
        "nats/link.py": "",
        "rpc/__init__.py": "",
        "rpc/client.py": "",
        "rpc/wire/__init__.py": "",
        "rpc/wire/limits.py": "",
        "rpc/transport/__init__.py": "",
        "rpc/transport/link.py": "",
        "exchange/__init__.py": "",
        "exchange/node.py": "",
        "exchange/cluster/__init__.py": "",
        "exchange/durable/__init__.py": "",
        "jsonrpc/__init__.py": "",
        "jsonrpc/items.py": "",
        "jsonrpc/bridge/__init__.py": "",
        "jsonrpc/bridge/http.py": "",
        "testing/__init__.py": "",
        "testing/link_faults.py": "",
        module: source,
    }
    for name, text in modules.items():
        path = root / PACKAGE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root
