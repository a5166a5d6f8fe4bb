"""The page about full buffers: it has every buffer of the package, with the numbers of the code."""

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from berrymq_rpc import Node
from berrymq_rpc.bus import thread_pool
from berrymq_rpc.common.bounded import Overflow
from berrymq_rpc.exchange import (
    consumer,
    message_codec,
    reorder,
    router,
    serial_sender,
    threaded_node,
)
from berrymq_rpc.jsonrpc import http
from berrymq_rpc.jsonrpc.bridge import Bridge, bridge, write_queue
from berrymq_rpc.jsonrpc.zeromq import receiver, router_queues, subscription
from berrymq_rpc.rpc import Limits
from berrymq_rpc.rpc.transport import zap

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "berrymq_rpc"
PAGE = (ROOT / "docs" / "reference" / "overflow.rst").read_text(encoding="utf-8")

#: What makes something that holds items until they are taken.
BUFFERS = {"Bounded", "LifoQueue", "PriorityQueue", "Queue", "SimpleQueue", "deque"}

#: Each module that makes a buffer: the beginning of its row, or why it has none.
MODULES = {
    "bus/backlog.py": "messages in a ``Queue``",
    "bus/catch_up.py": "no buffer: what one receiver that is new has to hear first",
    "bus/routing_table.py": "no buffer: changes that are made at once, before the next route",
    "bus/thread_pool.py": "receivers that wait for the pool",
    "common/bounded.py": "no buffer: the class of buffers",
    "common/history.py": "no buffer: the rates of the last minutes",
    "exchange/cluster/interest.py": "no buffer: changes of what is followed, until the next turn",
    "exchange/cluster/retained.py": "retained messages for a cluster",
    "exchange/durable/consumer.py": "messages of a durable queue in a process",
    "exchange/link.py": "no buffer: the rest of one batch",
    "exchange/queue_connection.py": "no buffer: one for each call of `get` that was cancelled",
    "exchange/remote_queue.py": "messages in a queue for a remote consumer",
    "exchange/router.py": "messages of a node's own that are in no batch yet",
    "exchange/send_buffer.py": "messages for an interconnected node",
    "exchange/serial_sender.py": "messages on their way to a berryMQ 0.3 peer",
    "jsonrpc/bridge/bus_source.py": "messages of a bridge's subscription",
    "jsonrpc/bridge/write_queue.py": "texts for a peer of a bridge's",
    "jsonrpc/zeromq/receiver.py": "calls of a ``NotificationReceiverClient``",
    "jsonrpc/zeromq/router_queues.py": "what a threaded JSON-RPC server keeps",
    "jsonrpc/zeromq/subscription.py": "notifications of a ``SubscriptionServer``",
    "rpc/connection.py": "messages of a peer that wait for its turn",
    "rpc/stream.py": "items of a stream",
    "rpc/transport/memory.py": "answers that a peer does not read",
    "rpc/transport/nats/channel.py": "answers that a peer does not read",
    "rpc/transport/zeromq.py": "no buffer: events of the socket, one for each connection",
    "rpc/transport/zeromq_socket.py": "answers that a peer does not read",
    "rpc/turns.py": "no buffer: each peer once",
    "rpc/wire/session.py": "calls of a native client",
    "runtime/daemon_executor.py": "calls of ``thread=True`` methods",
    "runtime/worker_thread.py": "messages for the receivers of a ``SyncNode``",
}


def rows() -> dict[str, list[str]]:
    """The cells of each row but the first, by what is in the first cell."""
    found: dict[str, list[str]] = {}
    table = PAGE.partition(".. list-table::")[2]
    for row in re.split(r"\n   \* - ", table)[2:]:
        body = re.split(r"\n\n(?=\S)", row)[0]
        name, *cells = re.split(r"\n     -", body)
        found[" ".join(name.split())] = [" ".join(cell.split()) for cell in cells]
    return found


ROWS = rows()


def default(function: Any, name: str) -> int:
    value: int = inspect.signature(function).parameters[name].default
    return value


def mib(count: int) -> str:
    assert count % (1 << 20) == 0
    return f"{count >> 20} MiB"


LIMITS = Limits()
NODE = {
    name: default(Node, name) for name in ("line_size", "line_bytes", "queue_size", "queue_bytes")
}

#: The bounds that rows have, as they are written there.
NUMBERS = {
    "receivers that wait for the pool": f"{thread_pool.MAX_WAITING:,} calls",
    "messages of a node's own that": f"{router.BATCH_MESSAGES}, "
    f"{message_codec.BATCH_BYTES >> 10} KiB",
    "messages for an interconnected node": f"``line_size`` ({NODE['line_size']:,}), "
    f"``line_bytes`` ({mib(NODE['line_bytes'])})",
    "messages on their way to a berryMQ 0.3 peer": f"{serial_sender.MAX_WAITING}",
    "messages held until earlier ones": f"{reorder.MAX_HELD:,}, {mib(reorder.MAX_HELD_BYTES)}",
    "messages in a queue for a remote consumer": f"``queue_size`` ({NODE['queue_size']:,}), "
    f"``queue_bytes`` ({mib(NODE['queue_bytes'])})",
    "messages that a consumer has got": f"``max_unacknowledged`` ({consumer.MAX_UNACKNOWLEDGED:,})",
    "messages for the receivers of a ``SyncNode``": f"{threaded_node.MAX_MESSAGES:,}, "
    f"{mib(threaded_node.MAX_BYTES)}",
    "calls of a native client": f"``window`` ({LIMITS.window})",
    "calls that run at a server": f"``max_in_flight`` ({LIMITS.max_in_flight:,})",
    "messages of a peer that wait for its turn": "``max_queued_call_bytes`` "
    f"({mib(LIMITS.max_queued_call_bytes)})",
    "streams and ``waits=True`` calls": f"``max_waiting`` ({LIMITS.max_waiting:,})",
    "calls that wait at a server": "``max_queued_call_bytes`` "
    f"({mib(LIMITS.max_queued_call_bytes)})",
    "answers that a peer does not read": f"``max_queued_bytes`` ({mib(LIMITS.max_queued_bytes)})",
    "notifications to a peer that": f"``max_queued_bytes`` ({mib(LIMITS.max_queued_bytes)})",
    "items of a stream": f"``stream_window`` ({LIMITS.stream_window})",
    "calls of a client for JSON-RPC over HTTP": f"{http.MAX_CALLS:,} in flight",
    "the same that wait for one of its": f"``max_connections`` ({http.MAX_CONNECTIONS})",
    "texts for a peer of a bridge's": f"{write_queue.ROOM >> 10} KiB",
    "texts that have not arrived whole": f"``max_bytes`` ({mib(bridge.MAX_BYTES)})",
    "subscriptions of a bridge": "``max_subscriptions`` "
    f"({default(Bridge, 'max_subscriptions'):,}), of a host a tenth",
    "messages of a bridge's subscription": f"``queue_size`` ({default(Bridge, 'queue_size'):,}), "
    f"and ``queue_bytes`` ({mib(default(Bridge, 'queue_bytes'))})",
    "calls of a ``NotificationReceiverClient``": f"{receiver.MAX_UNSENT:,}",
    "notifications that wait for its handler": f"{receiver.MAX_WAITING:,}",
    "notifications of a ``SubscriptionServer``": f"{subscription.MAX_WAITING:,}",
    "what a threaded JSON-RPC server keeps": f"{mib(router_queues.MAX_QUEUED)}, of all peers "
    f"{mib(router_queues.MAX_ALL_QUEUED)}",
    "keys that wait for a user's function": f"{zap.MAX_WAITING:,}",
}


def row(beginning: str) -> list[str]:
    matching = [cells for name, cells in ROWS.items() if name.startswith(beginning)]
    assert len(matching) == 1, f"{len(matching)} rows begin with {beginning!r}"
    return matching[0]


@pytest.mark.parametrize("beginning", NUMBERS)
def test_the_bounds_are_those_of_the_code(beginning: str) -> None:
    assert row(beginning)[0].startswith(NUMBERS[beginning])


@pytest.mark.parametrize("name", ROWS)
def test_each_row_says_what_is_done(name: str) -> None:
    bound, policy, _ = ROWS[name]
    assert bound
    assert policy
    for word in re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b|``([A-Z]+)``", policy):
        assert not word or word in Overflow.__members__


def test_each_policy_is_explained() -> None:
    assert re.findall(r"^\* ``([A-Z_]+)``:", PAGE, re.MULTILINE) == list(Overflow.__members__)


def makers() -> dict[str, set[str]]:
    """The modules that make buffers, and which kinds."""
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        module = path.relative_to(PACKAGE).as_posix()
        if module.startswith(("testing/", "cli/")):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                function = node.func
                name = function.attr if isinstance(function, ast.Attribute) else ""
                name = function.id if isinstance(function, ast.Name) else name
                if name in BUFFERS:
                    found.setdefault(module, set()).add(name)
    return found


def test_all_buffers_are_known() -> None:
    assert set(makers()) == set(MODULES)


@pytest.mark.parametrize("module", [name for name in MODULES if "no buffer" not in MODULES[name]])
def test_each_buffer_has_its_row(module: str) -> None:
    assert row(MODULES[module])
