"""A server whose process has no files left refuses connections, says so, and goes on."""

import json
import sys
from typing import Any

import pytest

PROGRAM = """
import asyncio, json, logging, resource, socket, sys, time
from berrymq_rpc.jsonrpc.bridge import Bridge
from berrymq_rpc import rpc

listener, uses_uvloop = sys.argv[1], sys.argv[2] == "uvloop"
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
LIMIT = 120
REQUEST = b'{"jsonrpc": "2.0", "method": "add", "params": [1, 2], "id": 1}'

class Handler(rpc.AttrHandler):
    @rpc.method
    def add(self, a, b):
        return a + b

handled = []

async def ask(reader, writer):
    if listener == "http":
        writer.write(
            b"POST / HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nContent-Type: application/json\\r\\n"
            b"Content-Length: %d\\r\\n\\r\\n%s" % (len(REQUEST), REQUEST)
        )
    else:
        writer.write(REQUEST + b"\\n")
    return b'"result"' in await asyncio.wait_for(reader.read(4096), 10)

async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: handled.append(str(context)))
    async with Bridge(Handler()) as bridge:
        serve = bridge.serve_http if listener == "http" else bridge.serve_tcp
        port = int((await serve("127.0.0.1", 0)).rstrip("/").rpartition(":")[2])
        old = await asyncio.open_connection("127.0.0.1", port)
        assert await ask(*old)
        # Connected, and never accepted: each takes one file here and one when it is accepted.
        resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, hard))
        clients = []
        while True:
            client = socket.socket()
            try:
                client.setblocking(False)
                client.connect_ex(("127.0.0.1", port))
            except OSError:
                client.close()
                break
            clients.append(client)
            if len(clients) >= LIMIT - 30:
                break
        # Let the server accept what it can; the rest is refused.
        refused = 0
        for client in clients:
            try:
                received = loop.sock_recv(client, 1)
                # The first byte of what it is told.
                first = await asyncio.wait_for(received, 0.05 if refused else 1)
                refused += first in (b"", b"H", b"{")
            except OSError:
                refused += 1
            except TimeoutError:
                pass
        began = time.monotonic()
        served = await ask(*old)
        took = time.monotonic() - began
        for client in clients:
            client.close()
        again = False
        for _ in range(100):
            try:
                new = await asyncio.open_connection("127.0.0.1", port)
                again = await ask(*new)
                new[1].close()
            except OSError:
                pass
            if again:
                break
            await asyncio.sleep(0.05)
        old[1].close()
        outcome = dict(refused=refused, served=served, took=took, again=again)
        print(json.dumps(outcome | {"handled": handled}))

logging.basicConfig(level=logging.WARNING)
if uses_uvloop:
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no bound on files")
@pytest.mark.parametrize("listener", ["http", "tcp"])
def test_no_files_left(listener: str, run_program: Any, pytestconfig: pytest.Config) -> None:
    loop = "uvloop" if pytestconfig.getoption("--uvloop") else "asyncio"
    result = run_program(PROGRAM, listener, loop)
    assert result.returncode == 0, result.stderr
    outcome = json.loads(result.stdout)
    # Those that found no file were closed, and do not wait in vain.
    assert outcome["refused"] > 10
    # The connections that were there are served, and new ones as soon as there are files again.
    assert outcome["served"]
    assert outcome["took"] < 1.0
    assert outcome["again"]
    # The exception handler of the program's own loop has nothing to do with it.
    assert outcome["handled"] == []
    assert 0 < result.stderr.count("no files left") <= 15
    assert len(result.stderr) < 5_000
