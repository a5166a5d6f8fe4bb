"""The page about security: it has every limit that a peer can run into, as the code has it."""

import ast
import importlib
import inspect
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from berrymq_rpc import Bus, Node, rpc
from berrymq_rpc.exchange import remote_queue
from berrymq_rpc.jsonrpc import zeromq
from berrymq_rpc.jsonrpc.bridge import Bridge, bridge
from berrymq_rpc.jsonrpc.http import open_http_client

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "berrymq_rpc"
PAGE = (ROOT / "docs" / "howto" / "security.rst").read_text(encoding="utf-8")

#: What has the parameters of a table, by the beginning of the table's title.
FUNCTIONS: dict[str, tuple[Callable[..., Any], ...]] = {
    "``rpc.Limits``": (rpc.Limits,),
    "``rpc.start_server``": (rpc.start_server, rpc.open_client, rpc.SyncClient),
    "``rpc.Meter``": (rpc.Meter,),
    "``Node``": (Node,),
    "``Bus``": (Bus,),
    "``Bridge``": (Bridge,),
    "``jsonrpc.http.open_http_client``": (open_http_client,),
    "servers and clients of ``jsonrpc.zeromq``": (
        zeromq.RPCServer,
        zeromq.RPCNotificationServer,
        zeromq.NotificationOnlyPullServer,
        zeromq.RPCClient,
        zeromq.RPCNotifierClient,
        zeromq.NotifierOnlyPushClient,
        zeromq.NotificationReceiverClient,
    ),
}

#: Numbers among the parameters that are no limits.
NO_LIMITS = {"ipc_mode"}

#: Defaults that are computed from others.
COMPUTED = {
    ("``Node``", "total_queue_bytes"): remote_queue.MAX_BYTES * 10,
    ("``Bridge``", "max_bytes"): bridge.MAX_BYTES,
}

#: Constants that begin with ``MAX_`` and are not in a table, and why.
NOT_REACHED = {
    "bus.adapters.file_observer.MAX_CHANGES": "files of this host; a row of the limits page",
    "bus.delivery.MAX_DEPTH": "messages of receivers of one process",
    "bus.message.MAX_REPR": "a text for people",
    "bus.routing_table.MAX_ROUTES": "a cache",
    "bus.thread_pool.MAX_WAITING": "receivers of one process",
    "cli.annotation.MAX_LENGTH": "a text for people",
    "cli.completion.MAX_OFFERED": "what this side offers a shell",
    "cli.doctor.conversation.MAX_FRAME": "what the doctor reads of a peer that it asks",
    "cli.doctor.first_words.MAX_ANSWER": "what the doctor reads of a peer that it asks",
    "cli.doctor.native.MAX_VERSIONS": "what the doctor reads of a peer that it asks",
    "cli.doctor.nats_server.MAX_DIFFERENCE": "when a warning says something",
    "cli.doctor.nats_server.MAX_INFO": "what the doctor reads of a peer that it asks",
    "cli.doctor.network.MAX_ADDRESSES": "what the doctor reads of a peer that it asks",
    "cli.doctor.web.MAX_ANSWER": "what the doctor reads of a peer that it asks",
    "cli.tail.MAX_ROUNDS": "what this side reads again",
    "cli.top.keyboard.MAX_KEYS": "keys of the user",
    "cli.tail.MAX_WAITING": "what the command keeps for the terminal",
    "common.measures.MAX_IDENTIFIERS": "the default of ``max_identifiers``",
    "common.measures.MAX_METHODS": "the default of ``max_methods``",
    "common.sizes.MAX_OBJECTS": "how exact an estimate is",
    "endpoint.MAX_PORT": "TCP's",
    "endpoint._MAX_DIGITS": "digits of a port",
    "exchange.batch.MAX_NUMBER": "msgpack's",
    "exchange.cluster.cluster.MAX_UNCONFIRMED": "what this side sends at a time",
    "exchange.cluster.buffer.MAX_KNOWN": "a cache",
    "exchange.cluster.buffer.MAX_SUBJECTS": "a cache of this side's own subjects",
    "exchange.cluster.retained.MAX_KNOWN": "a cache",
    "exchange.cluster.retained.MAX_WAITING": "in the table of buffers",
    "exchange.durable.consumer.MAX_CREDIT": "what this side asks for at a time",
    "exchange.durable.consumer.MAX_FAST_CREDIT": "what this side asks for at a time",
    "exchange.durable.settlement.MAX_ERROR": "a text that this side makes",
    "exchange.durable.settlement.MAX_ERRORS": "a cache",
    "exchange.durable.delivered.MAX_REASON": "a text for people",
    "exchange.durable.kept.MAX_KNOWN": "a cache",
    "exchange.durable.queues.MAX_UNSTORED": "in the table of buffers",
    "exchange.retained_exchange.MAX_BUFFERED": "what this side sends at a time",
    "exchange.retained_exchange.MAX_CHANGES": "names of what this side has to send",
    "exchange.mesh.MAX_EXAMPLE": "a text that this side makes",
    "exchange.node.MAX_DELAY": "this side's own messages",
    "exchange.policy.MAX_REMEMBERED": "a cache",
    "exchange.link.MAX_CALLS": "what this side sends at a time",
    "exchange.link.MAX_IN_FLIGHT": "what this side sends at a time",
    "exchange.serial_sender.MAX_WAITING": "what this side sends at a time",
    "jsonrpc.bridge.acceptor.MAX_MOVING": "connections that change their file at a time",
    "jsonrpc.bridge.acceptor.MAX_REFUSED": "how many that are refused are waited for",
    "jsonrpc.bridge.http_access._MAX_AGE": "a browser's cache",
    "jsonrpc.bridge.page_passes.MAX_PASSES": "passes of those who are let in",
    "jsonrpc.bridge.schema._MAX_LEVELS": "a description of this side's own methods",
    "jsonrpc.bridge.type_schema.MAX_LEVELS": "a description of this side's own methods",
    "jsonrpc.bridge.type_schema.MAX_PARTS": "a description of this side's own methods",
    "jsonrpc.error_objects._MAX_MESSAGE": "a text that this side makes",
    "jsonrpc.http.MAX_CALLS": "calls of this side",
    "jsonrpc.message.MAX_BATCH": "the default of ``max_batch``",
    "jsonrpc.micro._MAX_TEXT": "a text for people",
    "jsonrpc.micro._MAX_TIMEOUT": "a deadline, which is in days for nobody",
    "jsonrpc.protocols.json_codec.MAX_DEPTH": "the default of ``max_depth``",
    "jsonrpc.zeromq.handlers._MAX_MESSAGE": "a text that this side makes",
    "jsonrpc.zeromq.receiver.MAX_UNSENT": "calls of this side",
    "jsonrpc.zeromq.receiver.MAX_WAITING": "in the table of buffers",
    "jsonrpc.zeromq.subscription.MAX_WAITING": "in the table of buffers",
    "monitor.monitor.MAX_AGE": "seconds for which an answer is kept",
    "monitor.monitor.MAX_ITEMS": "what this side sends at a time",
    "monitor.plain_text.MAX_TEXT": "a text for people",
    "nats.connection.MAX_DISCOVERED": "addresses of servers that this side trusts",
    "nats.link.MAX_TEXT": "a text for people",
    "nats.subject.MAX_NAME": "names that this side gives",
    "nats.subject.MAX_TOKEN": "how long tokens are made",
    "rpc.connection.MAX_NOTIFICATIONS": "what this side sends at a time",
    "rpc.method_table.MAX_NAMES": "this side's own methods",
    "rpc.method_table.MAX_SIGNATURES": "a cache",
    "rpc.nats_service._MAX_DOC": "a description of this side's own methods",
    "rpc.proxy.MAX_KEPT": "a cache",
    "rpc.service_identity.MAX_DESCRIPTION": "a description of this side",
    "rpc.service_identity.MAX_VERSION": "a version of this side",
    "rpc.signature._MAX_WRAPPED": "this side's own methods",
    "rpc.transport.nats.channel.MAX_PART": "what this side sends at a time",
    "rpc.transport.nats.records.MAX_FRAMES": "the field's width",
    "rpc.transport.nats.records.MAX_NUMBER": "the field's width",
    "rpc.transport.nats.records._MAX_REASON": "a text for people",
    "rpc.transport.nats.search.MAX_KNOWN": "servers that are remembered",
    "rpc.transport.port.MAX_SERVERS": "the default of ``max_servers``",
    "rpc.transport.zeromq.MAX_DRAINED": "how long a report is put off",
    "rpc.transport.zeromq.MAX_SOCKETS": "ZeroMQ's",
    "rpc.wire.aiozmq_dialect._MAX_ID": "the field's width",
    "rpc.wire.exception_codec._MAX_NAME": "a text that this side makes",
    "rpc.wire.native_records.MAX_BATCH": "what this side sends at a time",
    "rpc.wire.pack_errors._MAX_KEY": "a text that this side makes",
    "rpc.wire.pack_errors._MAX_PATH": "a text that this side makes",
    "rpc.wire.translation.MAX_USER_CODE": "numbers of types",
    "rpc.wire.unpacking._MAX_NUMBER": "digits that are looked at first",
    "rpc.wire.zones._MAX_KEY": "names of time zones",
}


def tables() -> dict[str, dict[str, str]]:
    """The cells of the second column by those of the first, of each table of limits."""
    section = PAGE.partition("\nLimits\n------\n")[2].partition("\n.. held by:")[0]
    found: dict[str, dict[str, str]] = {}
    for part in section.split(".. list-table:: ")[1:]:
        rows = re.findall(r"^   \* - ``([\w.]+)``\n     - (.+)\n     - \S", part, re.MULTILINE)
        assert len(rows) == part.count("   * - ") - 1, part[:40]
        found[part.partition("\n")[0]] = dict(rows)
    return found


TABLES = tables()


def forms(value: float) -> set[str]:
    """How a default may be written: as a number, seconds or bytes."""
    whole = f"{value:,}" if isinstance(value, int) else f"{value:g}"
    written = {whole, f"{int(value):,} s" if value == int(value) else f"{value:g} s"}
    for unit, size in (("KiB", 1 << 10), ("MiB", 1 << 20)):
        if value >= size and value % size == 0:
            written.add(f"{int(value) // size:,} {unit}")
    return written


def numbers_of(function: Callable[..., Any]) -> dict[str, float]:
    """The parameters whose default is a number."""
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if isinstance(parameter.default, int | float)
        and not isinstance(parameter.default, bool)
        and name not in NO_LIMITS
    }


def table_of(beginning: str) -> dict[str, str]:
    (found,) = [rows for title, rows in TABLES.items() if title.startswith(beginning)]
    return found


@pytest.mark.parametrize("title", FUNCTIONS)
def test_parameters(title: str) -> None:
    rows = table_of(title)
    defaults: dict[str, float] = {
        name: value for (table, name), value in COMPUTED.items() if table == title
    }
    for function in FUNCTIONS[title]:
        found = numbers_of(function)
        if title.startswith("servers and"):
            # Theirs is in milliseconds, and on the page about them.
            found.pop("timeout", None)
        for name, value in found.items():
            assert defaults.setdefault(name, value) == value, (function, name)
    for shared in ("connect_timeout", "grace", "slow_handler"):
        if not title.startswith("``rpc.start_server"):
            defaults.pop(shared, None)
    assert rows.keys() == defaults.keys()
    for name, value in defaults.items():
        assert rows[name] in forms(value), name


def constants() -> dict[str, str]:
    return {name: cell for rows in TABLES.values() for name, cell in rows.items() if "." in name}


@pytest.mark.parametrize("name", constants())
def test_constants(name: str) -> None:
    module, _, constant = name.rpartition(".")
    if module.startswith("rpc.transport.nats."):
        pytest.importorskip("nats", reason="NATS needs nats-py")
    value = getattr(importlib.import_module(f"berrymq_rpc.{module}"), constant)
    assert constants()[name] in forms(value)


def test_every_limit_is_there() -> None:
    """Each constant whose name says so is in a table, a parameter's default, or listed here."""
    defaults = {
        value
        for functions in FUNCTIONS.values()
        for function in functions
        for value in numbers_of(function).values()
    }
    missing, used = [], set()
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for name in limits_of(path):
            full = f"{module}.{name}"
            if full in NOT_REACHED:
                used.add(full)
            elif full not in constants() and not is_default(module, name, defaults):
                missing.append(full)
    # A limit that a peer can run into gets a row in docs/howto/security.rst, another one a line in
    # `NOT_REACHED`.
    assert not missing, ", ".join(missing)
    assert used == NOT_REACHED.keys(), "a constant of `NOT_REACHED` is gone"


def limits_of(path: Path) -> list[str]:
    """The names of a module's own constants that begin with ``MAX_``."""
    found = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign):
            found += [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.append(node.target.id)
    return [name for name in found if name.startswith(("MAX_", "_MAX_"))]


def is_default(module: str, name: str, defaults: set[float]) -> bool:
    """Whether a constant is the default of a parameter that a table has, by its value and place."""
    if module not in DEFAULTS:
        return False
    value = getattr(importlib.import_module(f"berrymq_rpc.{module}"), name)
    return value in defaults or value in COMPUTED.values()


#: The modules of the defaults.
DEFAULTS = {
    "bus.retained_store",
    "exchange.consumer",
    "exchange.functions",
    "exchange.leases",
    "exchange.remote_queue",
    "exchange.send_buffer",
    "exchange.will",
    "jsonrpc.bridge.bridge",
    "jsonrpc.bridge.subscriptions",
    "jsonrpc.http",
    "jsonrpc.protocols.json_codec",
    "rpc.wire.limits",
}


def test_how_to_report_a_fault() -> None:
    text = (ROOT / "SECURITY.rst").read_text(encoding="utf-8")
    # The page includes it from there on.
    assert text.count("\n.. report\n") == 1
    assert ".. include:: ../../SECURITY.rst\n   :start-after: .. report\n" in PAGE
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    files = project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert "/SECURITY.rst" in files
