"""Every program on every page of the manual, and of the README, runs and shows something.

A program that runs alone is run by itself. `TOGETHER` names the test of each that needs another one
beside it, or files; what is new on a page is run alone, until it has a test.
"""

import ast
import asyncio
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq
import zmq.asyncio

from berrymq_rpc import Bus, Node, rpc
from berrymq_rpc.jsonrpc.bridge import Bridge

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.rst", *sorted((ROOT / "docs").glob("*.rst"))]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
SECONDS = 20


def is_python(text: str) -> bool:
    """Whether a block is Python with statements, and not a literal or an address."""
    try:
        compile(text, "block", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except SyntaxError:
        return False
    return bool(re.search(r"^(import|from) |=|\(", text, re.MULTILINE)) and text[0] not in "{["


def blocks(page: Path) -> list[str]:
    """The blocks of Python on a page: those that say so, and literal ones."""
    found: list[str] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        marked = line.strip() == ".. code-block:: python"
        if not marked and (not line.endswith("::") or line.lstrip().startswith("..")):
            continue
        outer = indent(line)
        inner = []
        for following in lines[number + 1 :]:
            if following.strip() and indent(following) <= outer:
                break
            inner.append(following)
        text = textwrap.dedent("\n".join(inner)).strip()
        if marked or (text and is_python(text)):
            found.append(text)
    return found


def indent(line: str) -> int:
    return len(line) - len(line.lstrip())


BLOCKS = {page.name: blocks(page) for page in PAGES}

#: The tests of those that do not run alone, by page and number on it.
TOGETHER = {
    ("README.rst", 0): "test_readme.py",
    ("README.rst", 1): "test_readme.py",
    ("bridge.rst", 0): "test_a_bridge",
    ("bridge.rst", 1): "test_a_bridge_to_berrymq_03",
    ("bridge.rst", 2): "test_a_bridge",
    **{("cluster.rst", number): "test_cluster_page.py" for number in range(3)},
    ("command.rst", 0): "test_a_stub",
    ("jsonrpc.rst", 2): "test_the_port_of_a_server",
    ("messages.rst", 1): "test_workers",
    ("messages.rst", 2): "test_workers",
    **{("bus.rst", number): "test_bus_page.py" for number in range(len(BLOCKS["bus.rst"]))},
    ("tls.rst", 0): "test_tls_page.py",
    ("tls.rst", 1): "test_tls_page.py",
    **{("security.rst", number): "test_keys" for number in range(len(BLOCKS["security.rst"]))},
}
ALONE = [
    (page, number)
    for page, found in BLOCKS.items()
    for number in range(len(found))
    if (page, number) not in TOGETHER
]


def test_what_is_on_the_pages() -> None:
    # Those that the search above must find, whatever else it finds.
    assert {page for page, found in BLOCKS.items() if found} >= {
        "README.rst",
        "bridge.rst",
        "bus.rst",
        "command.rst",
        "jsonrpc.rst",
        "messages.rst",
        "nodes.rst",
        "security.rst",
    }
    for (page, number), test in TOGETHER.items():
        assert number < len(BLOCKS[page]), page
        assert test in globals() or (ROOT / "tests" / test).is_file(), test


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def with_ports(text: str, ports: dict[int, int]) -> str:
    """A program with other ports than the page has: those may be in use here."""

    def other(match: re.Match[str]) -> str:
        return match[1] + str(ports.setdefault(int(match[2]), free_port()))

    return re.sub(r"((?:127\.0\.0\.1|localhost)(?::|\", ))(\d{4,5})\b", other, text)


def program(page: str, number: int, ports: dict[int, int] | None = None) -> list[str]:
    """The command that runs a program."""
    text = with_ports(BLOCKS[page][number], {} if ports is None else ports)
    return [sys.executable, "-W", "error", "-c", text]


def output_of(command: list[str], folder: Path, **environment: str) -> str:
    finished = subprocess.run(
        command,
        cwd=folder,
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    return finished.stdout


@contextmanager
def running(command: list[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A program that runs until it is stopped."""
    with subprocess.Popen(
        command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS)
            process.kill()


async def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(SECONDS):
        return (await asyncio.to_thread(process.stdout.readline)).rstrip("\n")


@pytest.mark.parametrize(("page", "number"), ALONE)
def test_alone(page: str, number: int, tmp_path: Path) -> None:
    assert output_of(program(page, number), tmp_path).strip()


async def test_a_bridge(tmp_path: Path) -> None:
    ports: dict[int, int] = {}
    with running(program("bridge.rst", 0, ports), tmp_path) as bridge:
        url = await line_of(bridge)
        assert url == f"http://127.0.0.1:{ports[8080]}"
        client = await asyncio.to_thread(output_of, program("bridge.rst", 2, ports), tmp_path)
        assert client == "0.25\n"
        page = (ROOT / "docs" / "bridge.rst").read_text(encoding="utf-8")
        found = re.search(r"^    \$ (curl .*\\\n.*)\n    (\{.*\})$", page, re.MULTILINE)
        assert found is not None
        if shutil.which("curl") is None:
            pytest.skip("curl is not installed")
        command = shlex.split(with_ports(found[1], ports).replace("\\\n", ""))
        answer = await asyncio.to_thread(output_of, [*command, "--silent"], tmp_path)
        assert json.loads(answer) == json.loads(found[2])


async def test_a_bridge_to_berrymq_03(tmp_path: Path) -> None:
    bus = Bus()
    heard: asyncio.Queue[object] = asyncio.Queue()
    bus.regist_function("job:*", lambda message: heard.put_nowait((message.id, message.args)))
    # Our own listener is one of 0.3 as well.
    async with Node(None, bus) as node, Bridge(node) as bridge:
        url = await bridge.serve_http()
        ports = {9090: int(url.rpartition(":")[2])}
        shown = await asyncio.to_thread(output_of, program("bridge.rst", 1, ports), tmp_path)
        assert shown == "job:new 1\n"
        async with asyncio.timeout(SECONDS):
            assert await heard.get() == ("job:new", (1,))


class Plant(rpc.AttrHandler):
    @rpc.method
    def divide(self, a: float, b: float) -> float:
        return a / b


async def test_a_stub(tmp_path: Path) -> None:
    async with await rpc.start_server(Plant(), bind="tcp://127.0.0.1:*") as server:
        (endpoint,) = server.endpoints
        stub = [sys.executable, "-m", "berrymq_rpc", "stub", endpoint]
        text = await asyncio.to_thread(output_of, stub, tmp_path)
        (tmp_path / "plant.py").write_text(text, encoding="utf-8")
        command = program("command.rst", 0, {5560: int(endpoint.rpartition(":")[2])})
        path = f"{ROOT}{os.pathsep}{tmp_path}"
        shown = await asyncio.to_thread(output_of, command, tmp_path, PYTHONPATH=path)
        assert shown == "0.25\n"


async def test_the_port_of_a_server(tmp_path: Path) -> None:
    ports: dict[int, int] = {}
    with running(program("jsonrpc.rst", 2, ports), tmp_path) as server:
        assert await line_of(server) == f"serving on tcp://127.0.0.1:{ports[5555]}"
        page = (ROOT / "docs" / "jsonrpc.rst").read_text(encoding="utf-8")
        # As JavaScript has it on the page, without its quotes.
        (said,) = re.findall(r"JSON\.stringify\((\{.*\})\)", page)
        text = re.sub(r"(\w+):", r'"\1":', said)
        with zmq.asyncio.Context() as context, context.socket(zmq.REQ) as peer:
            peer.linger = 0
            peer.connect(f"tcp://127.0.0.1:{ports[5555]}")
            async with asyncio.timeout(SECONDS):
                await peer.send(json.dumps(json.loads(text)).encode())
                answer = json.loads(await peer.recv())
        assert answer == {"jsonrpc": "2.0", "result": 3, "id": 1}


@pytest.mark.parametrize("number", [1, 2])
async def test_workers(number: int, tmp_path: Path) -> None:
    bus = Bus()
    async with Node("tcp://127.0.0.1:0", bus) as node:
        ports = {5572: int(node.endpoints[0].rpartition(":")[2])}
        with running(program("messages.rst", number, ports), tmp_path) as worker:
            async with asyncio.timeout(SECONDS):
                while node.statistics()["consumers_waiting"] == 0:
                    await asyncio.sleep(0.01)
            for job in range(3):
                bus.twitter("job:new", job)
            for job in range(3):
                assert await line_of(worker) == f"work: job:new {job}"


#: Runs the parts of the page on keys one after another, with files where they have them.
KEYS = """
import ast, asyncio, json
from pathlib import Path
from berrymq_rpc import Node, rpc

for name, folder in {"server": "keys", "alice": "keys", "old": ".", "new": "."}.items():
    rpc.KeyPair.generate().save(folder, name)
Path("clients").mkdir()
Path("keys/alice.key").rename("clients/alice.key")

class Handler(rpc.AttrHandler):
    @rpc.method
    def who(self):
        return rpc.context().peer.user

async def closed(opened):
    if opened is not None:
        opened.close()
        await opened.wait_closed()

async def main():
    names = {"rpc": rpc, "Node": Node, "Handler": Handler}
    for text in json.loads(Path("blocks.json").read_text()):
        known = set(names)
        if "start_server(" in text:
            await closed(names.pop("server", None))
        # An expression is a coroutine where a part awaits.
        awaits = eval(compile(text, "a part", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
        if awaits is not None:
            await awaits
        print("made:", *sorted(set(names) - known - {"__builtins__"}))
        if "client" in names:
            client = names.pop("client")
            print(await client.with_timeout(10).rpc.who())
            await closed(client)
    await closed(names.get("server"))

asyncio.run(main())
"""


def test_keys(tmp_path: Path) -> None:
    ports: dict[str, int] = {}

    def on_loopback(match: re.Match[str]) -> str:
        port = ports.setdefault(match[1], free_port())
        return f"tcp://127.0.0.1:{port}"

    parts = BLOCKS["security.rst"]
    texts = [re.sub(r"tcp://(?:\*|server):(\d+)", on_loopback, part) for part in parts]
    (tmp_path / "blocks.json").write_text(json.dumps(texts))
    shown = output_of([sys.executable, "-W", "error", "-c", KEYS], tmp_path).splitlines()
    assert sum(line.startswith("made:") for line in shown) == len(parts)
    assert "alice" in shown
