"""A program ends, whatever it has left open, and in whatever order its objects are collected."""

import subprocess
from typing import Any

import pytest

HEAD = """
import asyncio, atexit, gc, sys, threading, time
import berrymq_rpc
from berrymq_rpc import rpc
from berrymq_rpc.exchange import SyncNode

class Handler(rpc.AttrHandler):
    @rpc.method
    def add(self, a, b):
        return a + b
    @rpc.method
    async def nums(self, count):
        for number in range(count):
            yield number
    @rpc.method
    async def block_client(self):
        await rpc.context().peer.rpc.block()
    @rpc.method(thread=True)
    def block_thread(self):
        entered.set()
        time.sleep(1000)

entered = threading.Event()

class Back(rpc.AttrHandler):
    @rpc.method
    def block(self):
        entered.set()
        time.sleep(1000)

def serve(found):
    async def main():
        async with await rpc.start_server(Handler(), bind="tcp://127.0.0.1:*") as server:
            found.append(server.endpoints[0])
            ready.set()
            await asyncio.Event().wait()
    asyncio.run(main())

found, ready = [], threading.Event()
threading.Thread(target=serve, args=(found,), daemon=True).start()
assert ready.wait(10)
endpoint = found[0]

def say(*words):
    print(*words, flush=True)

def attempt(name, function):
    try:
        say(name, function())
    except Exception as error:
        say(name, type(error).__name__)
"""

PROGRAMS = {
    "a stream that is left open": """
client = rpc.SyncClient(connect=endpoint)
g = client.stream.nums(100000)
next(g)
# The interpreter drops modules last.
sys.modules["held"] = g
del g
""",
    "a stream in a cycle": """
class Holder:
    pass
holder = Holder()
holder.client = rpc.SyncClient(connect=endpoint)
holder.items = holder.client.stream.nums(100000)
next(holder.items)
holder.self = holder
sys.modules["holder"] = holder
del holder
""",
    "a call in __del__": """
class Late:
    def __init__(self):
        self.client = rpc.SyncClient(connect=endpoint)
        self.add = self.client.rpc.add
        assert self.add(1, 2) == 3
        self.attempt = attempt
    def __del__(self):
        self.attempt("call", lambda: self.add(1, 2))
        self.attempt("notify", lambda: self.client.notify.add(1, 2))
        self.attempt("stream", lambda: next(self.client.stream.nums(3)))
        self.attempt("close", self.client.close)
# The interpreter drops modules last.
sys.modules["late"] = Late()
""",
    "a node in __del__": """
class Late:
    def __init__(self):
        self.node = SyncNode()
        self.endpoint = self.node.init_connection()
        self.attempt = attempt
    def __del__(self):
        self.attempt("again", self.node.init_connection)
        self.attempt("close", self.node.close_connection)
late = Late()
late.self = late
sys.modules["late"] = late
del late
""",
    "a client in atexit": """
client = rpc.SyncClient(connect=endpoint, timeout=5)
assert client.rpc.add(1, 2) == 3
atexit.register(lambda: (attempt("add", lambda: client.rpc.add(3, 4)), client.close()))
""",
    "a method that holds the client's thread": """
client = rpc.SyncClient(connect=endpoint, handler=Back())
client.notify.block_client()
assert entered.wait(10)
""",
    "a method that holds a thread of a server": """
client = rpc.SyncClient(connect=endpoint)
client.notify.block_thread()
assert entered.wait(10)
""",
    "a server that was closed while a method holds a thread": """
async def main():
    async with (
        await rpc.start_server(Handler(), bind="mem://here", grace=0.1) as server,
        await rpc.open_client(connect="mem://here") as client,
    ):
        client.notify.block_thread()
        while not entered.is_set():
            await asyncio.sleep(0.01)
asyncio.run(main())
""",
    "threads of ZeroMQ in __del__": """
from berrymq_rpc.jsonrpc import zeromq
class News(zeromq.SubscriptionServer):
    def handle_add_method(self, a, b):
        return a + b
class Late:
    def __init__(self):
        self.server = News("tcp://127.0.0.1:*")
        self.server.daemon = True
        self.server.start()
        self.client = zeromq.NotificationReceiverClient(self.server.endpoint, timeout=None)
        assert self.client.subscribe()
        self.attempt = attempt
    def __del__(self):
        self.attempt("call", lambda: self.client.add(1, 2))
        self.attempt("notify", lambda: self.client.notify.add(1, 2))
        self.attempt("publish", lambda: self.server.publish("news"))
        self.attempt("start", self.server.start)
        self.attempt("close client", self.client.close)
        self.attempt("close server", self.server.close)
sys.modules["late"] = Late()
""",
    "a server of ZeroMQ that is closed while a handler blocks": """
from berrymq_rpc.jsonrpc import zeromq
from berrymq_rpc.jsonrpc.zeromq import server as server_module
server_module.CLOSE_PATIENCE = 0.5
class Blocked(zeromq.RPCNotificationServer):
    def handle_block_notification(self):
        entered.set()
        time.sleep(1000)
import logging
logging.getLogger("berrymq_rpc").setLevel(logging.CRITICAL)
with Blocked("tcp://127.0.0.1:*") as server, zeromq.RPCNotifierClient(server.endpoint) as client:
    client.notify.block()
    assert entered.wait(10)
""",
    "a server of ZeroMQ that goes on until it is stopped": """
from berrymq_rpc.jsonrpc import zeromq
class Slow(zeromq.RPCServer):
    def handle_stop_method(self):
        self.stop()
        # The program waits for the handler that runs.
        time.sleep(0.3)
        say("answered")
server = Slow("tcp://127.0.0.1:*")
server.start()
def late(endpoint):
    assert not threading.main_thread().is_alive()
    with zeromq.RPCClient(endpoint) as client:
        client.stop()
def later():
    threading.main_thread().join()
    late(server.endpoint)
threading.Thread(target=later, daemon=True).start()
""",
}

SAID = {
    "threads of ZeroMQ in __del__": [
        "call ServiceClosedError",
        "notify ServiceClosedError",
        "publish ServiceClosedError",
        "start ServiceClosedError",
        "close client None",
        "close server None",
    ],
    "a server of ZeroMQ that goes on until it is stopped": ["answered"],
    "a call in __del__": [
        "call ServiceClosedError",
        "notify ServiceClosedError",
        "stream ServiceClosedError",
        "close None",
    ],
    "a node in __del__": ["again ServiceClosedError", "close None"],
    "a client in atexit": ["add 7"],
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_ends(name: str, run_program: Any) -> None:
    result: subprocess.CompletedProcess[str] = run_program(HEAD + PROGRAMS[name] + "\nsay('end')\n")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert result.stdout.splitlines() == ["end", *SAID.get(name, [])]


CLOSED_LATE = """
import berrymq_rpc.runtime.loop_thread as loop_thread
client = rpc.SyncClient(connect=endpoint, handler=Back())
client.notify.block_client()
assert entered.wait(10)
other = []
waiting = threading.Thread(target=lambda: attempt("other", lambda: client.rpc.add(1, 2)))
waiting.start()
began = time.monotonic()
loop_thread.LoopThread.close.__defaults__ = (None, 0.5)
client.close()
assert time.monotonic() - began < 5
waiting.join(10)
assert not waiting.is_alive()
attempt("late", lambda: client.rpc.add(1, 2))
client.close()
say("end")
"""


def test_a_close_does_not_wait_for_what_never_ends(run_program: Any) -> None:
    result: subprocess.CompletedProcess[str] = run_program(HEAD + CLOSED_LATE)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "other ServiceClosedError",
        "late ServiceClosedError",
        "end",
    ]
    assert result.stderr.splitlines() == ["the thread of a client did not end and was abandoned"]


AFTER_THE_LOOP = """
import warnings
from berrymq_rpc.jsonrpc.http import open_http_client
# What the program does not close before its loop is closed, it leaves open.
warnings.simplefilter("ignore", ResourceWarning)
kept = []
async def main():
    server = await rpc.start_server(Handler(), bind=["tcp://127.0.0.1:*", "mem://here"])
    for address in server.endpoints:
        client = await rpc.open_client(connect=address)
        assert await client.rpc.add(1, 2) == 3
        kept.append(client)
    kept.append(await open_http_client("http://127.0.0.1:1"))
    return server
server = asyncio.run(main())

async def call(function):
    return await function()

for one in kept:
    attempt("notify", lambda: one.notify.add(1, 2))
    attempt("call", lambda: asyncio.run(call(lambda: one.rpc.add(1, 2))))
for one in (*kept, server):
    one.close()
    one.close()
    asyncio.run(asyncio.wait_for(one.wait_closed(), 10))
say("end")
"""


def test_late_uses_of_what_belongs_to_a_closed_loop(run_program: Any) -> None:
    result: subprocess.CompletedProcess[str] = run_program(HEAD + AFTER_THE_LOOP)
    assert result.returncode == 0, result.stderr
    assert "never awaited" not in result.stderr
    assert result.stdout.splitlines() == [
        *["notify ServiceClosedError", "call ServiceClosedError"] * 3,
        "end",
    ]
