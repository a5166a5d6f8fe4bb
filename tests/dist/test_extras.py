"""Install each extra as its user does, into an environment of its own, and use it."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

#: For work on the package itself; installed by `make`.
OF_DEVELOPERS = {"dist", "docs", "lint", "test"}

CALL = """
import asyncio
from berrymq_rpc import rpc

class Handler(rpc.AttrHandler):
    @rpc.method
    def add(self, a, b):
        return a + b

async def main():
    async with await rpc.start_server(Handler(), bind="tcp://127.0.0.1:*") as server:
        async with await rpc.open_client(connect=server.endpoints) as client:
            print(await client.rpc.add(1, 2))
"""

#: A program for each extra, and what it prints.
PROGRAMS = {
    "": (
        CALL
        + """
async def without():
    from berrymq_rpc.jsonrpc.bridge import Bridge
    async with Bridge({}) as bridge:
        await bridge.serve_http("127.0.0.1", 0)

asyncio.run(main())
try:
    asyncio.run(without())
except ModuleNotFoundError as error:
    print("[http]" in str(error))
""",
        "3\nTrue\n",
    ),
    "uvloop": (CALL + "import uvloop\nuvloop.run(main())\n", "3\n"),
    "json": (
        "from berrymq_rpc.jsonrpc.protocols import json_codec\n"
        "print(json_codec.write.__module__.rpartition('.')[2], json_codec.encode([1]))\n",
        "json_msgspec b'[1]'\n",
    ),
    "http": (
        CALL
        + """
from berrymq_rpc.jsonrpc.bridge import Bridge
from berrymq_rpc.jsonrpc.http import open_http_client

async def over_http():
    async with Bridge(Handler()) as bridge:
        url = await bridge.serve_http("127.0.0.1", 0)
        async with await open_http_client(url) as client:
            print(await client.rpc.add(1, 2))

asyncio.run(over_http())
""",
        "3\n",
    ),
    "nats": (
        CALL
        + """
from berrymq_rpc.errors import ConnectionLostError

async def over_nats():
    try:
        await rpc.start_server(Handler(), bind="nats://127.0.0.1:1/calc")
    except ConnectionLostError as error:
        print("is it running?" in str(error))

asyncio.run(over_nats())
""",
        "True\n",
    ),
    "otel": (
        CALL
        + """
from opentelemetry import trace
from berrymq_rpc.opentelemetry import instrument

instrument()
asyncio.run(main())
""",
        "3\n",
    ),
    "metrics": (
        """
import asyncio
from berrymq_rpc import rpc
from berrymq_rpc.monitor.prometheus import MetricsCollector

async def main():
    meter = rpc.Meter()
    async with await rpc.start_server({"f": f}, bind="tcp://127.0.0.1:*", metrics=meter) as server:
        async with await rpc.open_client(connect=server.endpoints) as client:
            await client.rpc.f()
    text = MetricsCollector(meter, {}).exposition().body.decode()
    print(*[line for line in text.splitlines() if 'method="f",outcome="ok"' in line and "_total" in line])

@rpc.method
def f():
    return 1

asyncio.run(main())
""",
        'berrymq_calls_total{method="f",outcome="ok"} 1.0\n',
    ),
    "discovery": (
        CALL
        + """
async def not_found():
    async with await rpc.open_client(connect="mdns://none-has-it", connect_timeout=0.5) as client:
        try:
            await client.rpc.add(1, 2)
        except ConnectionError as error:
            print("local network" in str(error))

asyncio.run(not_found())
""",
        "True\n",
    ),
    "files": (
        "import pathlib, tempfile\n"
        "import berrymq_rpc as berrymq\n"
        "folder = tempfile.mkdtemp()\n"
        "with berrymq.FileObserver(folder, 'files'), berrymq.Queue('files') as queue:\n"
        "    pathlib.Path(folder, 'a').touch()\n"
        "    print(queue.get(timeout=20).id)\n",
        "files:created\n",
    ),
    "nats-server": (
        "import subprocess, sys, pathlib\n"
        "from berrymq_rpc.testing.nats_server import find_nats_server\n"
        "found = find_nats_server()\n"
        "print(pathlib.Path(found).parent == pathlib.Path(sys.executable).parent)\n"
        "print(subprocess.run([found, '--version'], capture_output=True).returncode)\n",
        "True\n0\n",
    ),
    "cli": (
        "import subprocess, sys, pathlib\n"
        "command = pathlib.Path(sys.executable).with_name('berrymq')\n"
        "print(subprocess.run([command, '--help'], capture_output=True).returncode)\n",
        "0\n",
    ),
}


def test_each_has_a_program() -> None:
    extras = set(PROJECT["optional-dependencies"]) - OF_DEVELOPERS
    assert extras | {""} == set(PROGRAMS)


def test_the_page_has_each() -> None:
    page = (ROOT / "docs" / "howto" / "install.rst").read_text(encoding="utf-8")
    rows = re.findall(r"   \* - ``([\w-]+)``\n     - (.+)\n", page)
    brought = {
        extra: ", ".join(re.split(r"[\[>]", requirement)[0] for requirement in requirements)
        for extra, requirements in PROJECT["optional-dependencies"].items()
        if extra not in OF_DEVELOPERS
    }
    assert sorted(rows) == sorted(brought.items())
    for extra in OF_DEVELOPERS:
        assert f"``{extra}``" in page.partition("The extras")[2]
    always = {re.split(r"[\[>]", requirement)[0] for requirement in PROJECT["dependencies"]}
    assert always == set(re.findall(r"``(\w+)``", page.partition("brings ")[2].partition(".")[0]))


def test_no_other_page_says_how() -> None:
    # What is right depends on whether its reader has a clone; the page has both.
    pages = {path for path in (ROOT / "docs").rglob("*.rst") if "_build" not in path.parts}
    saying = {path.name for path in pages if "berrymq-rpc[" in path.read_text(encoding="utf-8")}
    assert saying == {"install.rst"}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("extra", PROGRAMS)
def test_installed_and_used(extra: str, dist: Any, environment: Any) -> None:
    environment.install(f"{dist.wheel}[{extra}]" if extra else dist.wheel)
    program, printed = PROGRAMS[extra]
    assert environment.program(program) == printed
    if not extra:
        assert environment.packages() == {"aiozmq", "berrymq-rpc", "msgpack", "pyzmq"}
