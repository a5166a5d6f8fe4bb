"""The child of a fork ends, is told what belongs to its parent, and leaves that unharmed."""

import os
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

HEAD = """
import asyncio, os, signal, sys, threading, time, warnings
from contextlib import AsyncExitStack
from berrymq_rpc import rpc
from berrymq_rpc.bus import Bus
from berrymq_rpc.exchange import Node, SyncNode
from berrymq_rpc.jsonrpc import zeromq
from berrymq_rpc.jsonrpc.http import open_http_client
from berrymq_rpc.jsonrpc.bridge import Bridge

# Python warns of forks in a process with threads, and ZeroMQ has some.
warnings.simplefilter("ignore", DeprecationWarning)

class Handler(rpc.AttrHandler):
    @rpc.method
    def add(self, a, b):
        return a + b
    @rpc.method
    def fork(self):
        return leave_by_fork()
    @rpc.method
    async def fork_later(self):
        await asyncio.sleep(0)
        return leave_by_fork()
    @rpc.method(thread=True)
    def fork_in_thread(self):
        return leave_by_fork()

def leave_by_fork():
    child = os.fork()
    if child == 0:
        sys.exit(7)
    return child

def ended(child):
    end = time.monotonic() + 10
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hangs"

def refusal(function):
    try:
        return repr(function())
    except rpc.Error as error:
        return str(error).partition(" was opened by another process")[0]

async def refusal_of(coroutine):
    try:
        return repr(await coroutine)
    except rpc.Error as error:
        return str(error).partition(" was opened by another process")[0]

def say(*words):
    print(*words, flush=True)
"""

IN_ASYNC_WITH = """
async def main():
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        server = await enter(await rpc.start_server(Handler(), bind="tcp://127.0.0.1:*"))
        client = await enter(await rpc.open_client(connect=server.endpoints))
        local = await enter(await rpc.start_server(Handler(), bind="mem://here"))
        there = await enter(Node("tcp://127.0.0.1:*", Bus()))
        bus = Bus()
        here = await enter(Node("tcp://127.0.0.1:*", bus))
        queue = await enter(await here.connect_via_queue("job:*", there.endpoints[0]))
        await enter(await here.interconnect(there.endpoints[0]))
        bridge = await enter(Bridge(Handler()))
        url = await bridge.serve_http("127.0.0.1", 0)
        await bridge.serve_tcp("127.0.0.1", 0)
        http = await enter(await open_http_client(url))
        assert await client.rpc.add(1, 2) == await http.rpc.add(1, 2) == 3
        child = os.fork()
        if child == 0:
            for name, attempt in (
                ("call", lambda: client.rpc.add(1, 2)),
                ("notify", lambda: client.notify.add(1, 2)),
                ("http", lambda: http.rpc.add(1, 2)),
            ):
                say(name, refusal(attempt))
            say("get", await refusal_of(queue.get(timeout=1)))
            say("listen", await refusal_of(here.listen("tcp://127.0.0.1:*")))
            say("serve", await refusal_of(bridge.serve_tcp("127.0.0.1", 0)))
            for number in range(100000):
                bus.twitter("job:done", number)
            sys.exit(7)
        say("child", await asyncio.to_thread(ended, child))
        assert await asyncio.wait_for(client.rpc.add(1, 2), 10) == 3
        assert await asyncio.wait_for(http.rpc.add(1, 2), 10) == 3
        there.bus.twitter("job:done", 5)
        assert (await queue.get(timeout=10)).args == (5,)
    say("parent")

asyncio.run(main())
"""

HANDLERS = """
async def main(method):
    async with (
        await rpc.start_server(Handler(), bind="tcp://127.0.0.1:*") as server,
        await rpc.open_client(connect=server.endpoints, timeout=20) as client,
    ):
        child = await client.call(method)
        status = await asyncio.to_thread(ended, child)
        assert await client.rpc.add(1, 2) == 3
        say(status)

asyncio.run(main(sys.argv[1]))
"""

RECEIVERS = """
where = sys.argv[1]
bus = Bus()
children, done = [], threading.Event()
def receive(message):
    children.append(leave_by_fork())
    done.set()
if where == "pool":
    bus.set_multiplicity(2)
bus.regist_function("job:*", receive)
if where == "node":
    node = SyncNode(bus)
    endpoint = node.init_connection()
    other = SyncNode(Bus())
    other.connect_oneway(endpoint)
    other.send_message("job:done")
else:
    bus.twitter("job:done")
assert done.wait(10)
say(ended(children[0]))
if where == "node":
    # The parent's thread goes on.
    children.clear()
    assert other.send_message("other:new") == "ok"
    assert endpoint in node.endpoints
    assert node.statistics()["connections"] == 1
    other.close_connection()
    node.close_connection()
"""

ZEROMQ = """
class Server(zeromq.SubscriptionServer):
    def handle_add_method(self, a, b):
        return a + b
    def handle_fork_method(self):
        return leave_by_fork()

class Plain(zeromq.RPCServer):
    def handle_add_method(self, a, b):
        return a + b
    def handle_fork_method(self):
        return leave_by_fork()

class Watcher(zeromq.NotificationReceiverClient):
    pass

with Server("tcp://127.0.0.1:*") as server, Plain("tcp://127.0.0.1:*") as plain:
    plain_client = zeromq.RPCClient(plain.endpoint)
    client = zeromq.RPCNotifierClient(server.endpoint)
    watcher = Watcher(server.endpoint)
    unstarted = Plain("tcp://127.0.0.1:*")
    every = (plain_client, client, watcher)
    assert [one.add(1, 2) for one in every] == [3, 3, 3]
    child = os.fork()
    if child == 0:
        began = time.monotonic()
        for one in every:
            say(refusal(lambda: one.add(1, 2)), refusal(lambda: one.notify.add(1, 2)))
        say(refusal(watcher.wait_for_notifications))
        say(refusal(unstarted.start), refusal(unstarted.run), refusal(server.start))
        say(refusal(lambda: server.publish("news")))
        for one in (*every, server, plain, unstarted):
            one.close()
        for one in (server, plain, unstarted):
            one.stop()
            one.join()
        assert time.monotonic() - began < 2
        sys.exit(7)
    say(ended(child))
    assert [one.add(1, 2) for one in every] == [3, 3, 3]
    for one in every:
        say(ended(one.fork()))
    assert [one.add(1, 2) for one in every] == [3, 3, 3]
    for one in (*every, unstarted):
        one.close()
say("parent")
"""


Run = Callable[..., list[str]]


@pytest.fixture
def run(run_program: Any, pytestconfig: pytest.Config) -> Run:
    """``run(program, *arguments)`` returns the lines that a program prints."""

    def run(program: str, *arguments: str) -> list[str]:
        program = HEAD + program
        if pytestconfig.getoption("--uvloop"):
            program = "import uvloop\n" + program.replace("asyncio.run(", "uvloop.run(")
        result: subprocess.CompletedProcess[str] = run_program(program, *arguments)
        assert result.returncode == 0, result.stderr
        assert result.stderr == ""
        lines: list[str] = result.stdout.splitlines()
        return lines

    return run


def test_within_async_with(run: Run, pytestconfig: pytest.Config) -> None:
    if pytestconfig.getoption("--uvloop"):
        pytest.skip("uvloop itself crashes in a child that ends beside a TCP server")
    assert run(IN_ASYNC_WITH) == [
        "call this client",
        "notify this client",
        "http this client",
        "get this connection",
        "listen this node",
        "serve this bridge",
        "child 7",
        "parent",
    ]


@pytest.mark.parametrize("method", ["fork", "fork_later"])
def test_in_a_method(method: str, run: Run) -> None:
    assert run(HANDLERS, method) == ["7"]


def test_in_a_method_on_a_thread(run: Run) -> None:
    # Its thread ends, and with it the process.
    assert run(HANDLERS, "fork_in_thread") == ["0"]


@pytest.mark.parametrize(("where", "status"), [("here", "7"), ("pool", "0"), ("node", "0")])
def test_in_a_receiver(where: str, status: str, run: Run) -> None:
    assert run(RECEIVERS, where)[-1] == status


def test_threads_of_zeromq(run: Run) -> None:
    client, server = "this client", "this server"
    assert run(ZEROMQ) == [
        *[f"{client} {client}"] * 3,
        client,
        f"{server} {server} {server}",
        server,
        "7",
        "0",
        "0",
        "0",
        "parent",
    ]
