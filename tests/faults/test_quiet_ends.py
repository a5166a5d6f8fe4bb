"""A program that ends as it should says nothing about it."""

import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

NODES = """
import logging, sys, threading, time
from berrymq_rpc.bus import Bus, Empty
from berrymq_rpc.exchange import SyncNode

logging.basicConfig(level=logging.INFO)
nodes = [SyncNode(Bus()), SyncNode(Bus())]
here, there = nodes
endpoint = there.init_connection()
here.connect_via_queue(endpoint, "job:*")
here.interconnect(endpoint)
there.interconnect(here.init_connection())
working = [threading.Event() for _ in range(6)]

def use(function, number):
    try:
        while True:
            try:
                function()
            except Empty:
                pass
            working[number].set()
    except Exception as error:
        sys.stdout.write(f"{type(error).__name__}\\n")
        sys.stdout.flush()

# Nothing is sent: what is sent while a program ends may be dropped, and is reported then.
functions = [here.get_nowait, lambda: here.get(timeout=0.001), lambda: here.get(timeout=None)]
for number, function in enumerate(functions * 2):
    threading.Thread(target=use, args=(function, number), daemon=True).start()
for event in working[:2]:
    assert event.wait(10)

print("end", flush=True)
"""

BLOCKED = """
import threading, time
from berrymq_rpc.bus import Bus
from berrymq_rpc.exchange import SyncNode

entered = threading.Event()
async def receive(message):
    entered.set()
    time.sleep(1000)

buses = [Bus(), Bus()]
nodes = [SyncNode(bus) for bus in buses]
endpoint = nodes[0].init_connection()
buses[0].regist_function("job:*", receive)
nodes[1].connect_oneway(endpoint)
threading.Thread(target=lambda: nodes[1].send_message("job:new"), daemon=True).start()
assert entered.wait(10)
print("end", flush=True)
"""

CALL_BACK = """
import asyncio, gc, logging
from berrymq_rpc.bus import Bus
from berrymq_rpc.exchange import Node
from berrymq_rpc.jsonrpc.bridge import Bridge
from berrymq_rpc.jsonrpc.http import open_http_client

logging.basicConfig(level=logging.INFO)

async def main():
    bus, heard = Bus(), asyncio.Event()
    receiver = Bus()
    receiver.regist_function("job:*", lambda message: heard.set())
    async with Node(None, receiver) as there, Bridge(there) as bridge:
        callback = await bridge.serve_http("127.0.0.1", 0)
        async with Node(None, bus) as node, Bridge(node) as listener:
            url = await listener.serve_http("127.0.0.1", 0)
            link = await there.interconnect(url, callback=callback)
            for _ in range(1000):
                bus.twitter("job:new")
                if heard.is_set():
                    break
                await asyncio.sleep(0.01)
            await asyncio.wait_for(heard.wait(), 10)
        # Its loop goes on, and its sessions are closed all the same.
        gc.collect()
        await asyncio.sleep(0)
    gc.collect()
    print("end", flush=True)

asyncio.run(main())
gc.collect()
"""


def test_nodes_in_use_at_the_end(run_program: Any) -> None:
    for _ in range(3):
        result: subprocess.CompletedProcess[str] = run_program(NODES)
        assert result.returncode == 0, result.stderr
        # Nothing is lost or missing: this program closes what it has opened.
        assert result.stderr == ""
        first, *rest = result.stdout.splitlines()
        assert first == "end"
        assert set(rest) <= {"ServiceClosedError"}


@pytest.mark.slow
def test_a_node_that_is_blocked_at_the_end(run_program: Any) -> None:
    result: subprocess.CompletedProcess[str] = run_program(BLOCKED)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "end\n"


def test_a_call_back_over_http(run_program: Any) -> None:
    pytest.importorskip("aiohttp")
    result: subprocess.CompletedProcess[str] = run_program(CALL_BACK)
    assert result.returncode == 0, result.stderr
    assert "Unclosed" not in result.stderr
    assert result.stderr == ""
    assert result.stdout == "end\n"


def programs_that_serve() -> list[tuple[str, str]]:
    """The programs on the pages that run until Ctrl-C."""
    found = []
    for page in [ROOT / "README.rst", *sorted((ROOT / "docs").rglob("*.rst"))]:
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r"((?:^ {3,8}.*\n|^\n)+)", text, re.MULTILINE):
            program = textwrap.dedent(block)
            if (
                re.search(r"^[^#\n]*(serve_forever\(\)|Event\(\)\.wait\(\))", program, re.MULTILINE)
                and "def main" in program
            ):
                found.append((page.name, program))
    return found


@pytest.mark.parametrize(("page", "program"), programs_that_serve())
def test_ctrl_c_of_a_program_that_serves(page: str, program: str, tmp_path: Path) -> None:
    assert "    with contextlib.suppress(KeyboardInterrupt):" in textwrap.indent(program, "    ")
    if "load_cert_chain" in program or "KeyPair.load" in program:
        # Its certificates or keys are not here; the tests of its page run it.
        return
    path = tmp_path / "server.py"
    # The port on the page may be in use here.
    path.write_text(re.sub(r'127\.0\.0\.1(:|", )\d+', r"127.0.0.1\g<1>0", program))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-W", "error", path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as server:
        try:
            assert server.stdout is not None
            assert "127.0.0.1" in server.stdout.readline()
            server.send_signal(signal.SIGINT)
            _, errors = server.communicate(timeout=30)
        finally:
            server.kill()
    assert errors == ""
    assert server.returncode == 0


def test_there_are_such_programs() -> None:
    assert {page for page, _ in programs_that_serve()} >= {"README.rst", "bridge.rst"}
