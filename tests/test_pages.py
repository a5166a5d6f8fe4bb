"""Every program on every page of the manual, and of the README, runs and shows something.

A block of text right below a program is its output. `TOGETHER` names the test of each program that
needs another one beside it, or files; what is new on a page is run alone, until it has a test.
"""

import ast
import asyncio
import contextlib
import enum
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4
from zoneinfo import ZoneInfo

import aiohttp
import pytest
import zmq
import zmq.asyncio

from berrymq_rpc import Bus, Node, rpc
from berrymq_rpc.jsonrpc.bridge import Bridge
from berrymq_rpc.testing.nats_server import NatsServer

from .multicast import addresses_with_multicast
from .programs import ENVIRONMENT, ROOT, free_port, run_programs, with_ports

PAGES = [ROOT / "README.rst", *sorted((ROOT / "docs").rglob("*.rst"))]
SECONDS = 20


class Block(NamedTuple):
    """A program on a page, and the output that the page shows beneath it, if it does."""

    text: str
    output: str | None


def is_python(text: str) -> bool:
    """Whether a block is Python with statements, and not a literal or an address."""
    try:
        compile(text, "block", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except SyntaxError:
        return False
    return bool(re.search(r"^(import|from) |=|\(", text, re.MULTILINE)) and text[0] not in "{["


def blocks(page: Path) -> list[Block]:
    """The blocks of Python on a page: those that say so, and literal ones."""
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        marked = line.strip() == ".. code-block:: python"
        if not marked and (not line.endswith("::") or line.lstrip().startswith("..")):
            continue
        text, end = indented(lines, number)
        if marked or (text and is_python(text)):
            output = None
            if end < len(lines) and lines[end].strip() == ".. code-block:: text":
                output, _ = indented(lines, end)
            found.append(Block(text, output))
    return found


def indented(lines: list[str], number: int) -> tuple[str, int]:
    """The text that is indented below a line, and the number of the line after it."""
    end = number + 1
    while end < len(lines) and (
        not lines[end].strip() or indent(lines[end]) > indent(lines[number])
    ):
        end += 1
    return textwrap.dedent("\n".join(lines[number + 1 : end])).strip(), end


def indent(line: str) -> int:
    return len(line) - len(line.lstrip())


#: By the page's path below docs/, and the README by its name.
BLOCKS = {
    page.relative_to(ROOT if page.parent == ROOT else ROOT / "docs").as_posix(): blocks(page)
    for page in PAGES
}


def all_of(page: str) -> list[tuple[str, int]]:
    return [(page, number) for number in range(len(BLOCKS[page]))]


#: The tests of those that do not run alone, by page and number on it.
TOGETHER = {
    ("README.rst", 2): "test_two_programs",
    ("README.rst", 3): "test_two_programs",
    ("README.rst", 4): "test_a_bridge",
    ("howto/bridge.rst", 0): "test_a_bridge",
    ("howto/bridge.rst", 1): "test_a_bridge_to_berrymq_03",
    ("howto/bridge.rst", 2): "test_a_bridge",
    **{("howto/cluster.rst", number): "test_cluster_page.py" for number in range(3)},
    ("howto/page.rst", 0): "test_a_page",
    **dict.fromkeys(all_of("howto/discovery.rst"), "test_discovery"),
    ("howto/programs.rst", 0): "test_a_notebook",
    ("reference/command.rst", 0): "test_a_stub",
    ("reference/jsonrpc.rst", 2): "test_the_port_of_a_server",
    ("howto/messages.rst", 1): "test_workers",
    ("howto/messages.rst", 2): "test_workers",
    ("howto/tls.rst", 0): "test_tls_page.py",
    ("howto/tls.rst", 1): "test_tls_page.py",
    **dict.fromkeys(all_of("howto/security.rst"), "test_keys"),
}
ALONE = {
    page: [number for number in range(len(found)) if (page, number) not in TOGETHER]
    for page, found in BLOCKS.items()
}
#: The address of the NATS server in programs.
NATS = "nats://127.0.0.1:4222"
#: Packages that some programs use, and that nothing here needs. CI installs them.
EXTRA_PACKAGES = {"PySide6", "flask", "numpy"}
#: What programs log by intention: a word of the program, and one of its log.
LOGGING = {
    "maxsize=2": "dropped so far",
    '"sold out"': "LookupError: sold out",
    "await dead.ready()": "is a dead letter now",
}


def test_links_of_the_readme() -> None:
    text = (ROOT / "README.rst").read_text(encoding="utf-8")
    links = re.findall(r"<([\w/]+\.\w+)>`_|^\.\. image:: (\S+)", text, re.MULTILINE)
    assert len(links) > 10
    for link in links:
        assert (ROOT / "".join(link)).is_file(), link


def test_figures_of_the_readme() -> None:
    """They are those of the table that it names."""
    readme = " ".join((ROOT / "README.rst").read_text(encoding="utf-8").split())
    table = (ROOT / "docs" / "explanation" / "performance.rst").read_text(encoding="utf-8")
    ratios = dict(re.findall(r"^(\S.*?)  +[\d,]+ +[\d,]+ \(([\d.]+)\)", table, re.MULTILINE))
    one = float(ratios["one after another, calls/s"])
    assert f"{one:.1f} times as many calls one after another" in readme
    assert f"{ratios['100 in flight, calls/s']} times as many with 100 in flight" in readme
    assert f"{ratios['echo of 1 MiB of bytes, calls/s']} times as many echoes of 1 MiB" in readme


class Number(enum.IntEnum):
    ONE = 1


class Echo(rpc.AttrHandler):
    @rpc.method
    def echo(self, value: object) -> object:
        return value


async def test_values_of_calls() -> None:
    """The table on the page about calls: what arrives as itself, and what does not."""
    zone = ZoneInfo("UTC")
    moment = datetime(2026, 1, 31, 12, tzinfo=zone)
    same = [
        *(
            None,
            True,
            2**100,
            -1.5,
            "text",
            b"bytes",
            {(1, 2): {3}, None: 1},
            frozenset({1}),
            1 + 2j,
        ),
        *(Decimal("1.50"), uuid4(), moment, moment.date(), time(1, 2), timedelta(1, 2, 3), zone),
    ]
    async with (
        await rpc.start_server(Echo(), bind="mem://values") as server,
        await rpc.open_client(connect=server.endpoints[0], timeout=SECONDS) as client,
    ):
        for value in same:
            arrived = await client.rpc.echo(value)
            assert (type(arrived), arrived) == (type(value), value)
        for value, other in [(bytearray(b"x"), b"x"), ([1], (1,)), (Number.ONE, 1)]:
            arrived = await client.rpc.echo(value)
            assert (type(arrived), arrived) == (type(other), other)
        with pytest.raises(TypeError, match="translation_table") as caught:
            await client.rpc.echo(object())
        assert getattr(caught.value, "sent", False) is False


def test_texts_of_timeouts() -> None:
    """The page that says what each text means has the texts of the code."""
    page = " ".join((ROOT / "docs" / "howto" / "timeouts.rst").read_text(encoding="utf-8").split())
    folder = ROOT / "berrymq_rpc" / "rpc"
    code = "\n".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.py"))
    for text in (
        "as there is no connection",
        "was not sent",
        " s ago, not accepted",
        "was accepted, and running for ",
        " held the event loop for ",
    ):
        assert text in page, text
        assert text in code, text


def test_what_is_on_the_pages() -> None:
    # Those that the search above must find, whatever else it finds.
    assert {page for page, found in BLOCKS.items() if found} >= {
        "README.rst",
        "howto/bridge.rst",
        "howto/bus.rst",
        "reference/command.rst",
        "reference/jsonrpc.rst",
        "howto/messages.rst",
        "howto/nodes.rst",
        "howto/security.rst",
    }
    for (page, number), test in TOGETHER.items():
        assert number < len(BLOCKS[page]), page
        assert test in globals() or (ROOT / "tests" / test).is_file(), test


def program(page: str, number: int, ports: dict[int, int] | None = None) -> list[str]:
    """The command that runs a program."""
    text = with_ports(BLOCKS[page][number].text, {} if ports is None else ports)
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
        command,
        cwd=folder,
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
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


def test_each_program_runs_by_itself(tmp_path: Path) -> None:
    """What the others rely on: `run_programs` sees how each program ends, and what it writes."""
    programs = [
        "import sys\nvalue = 1\nprint(__name__, sys.argv)",
        "print('value' in globals())\nraise SystemExit(3)",
        "import atexit\natexit.register(print, 'ended')\n1 / 0",
        "import os\nopen('here', 'w').close()\nprint(os.listdir())",
        "import warnings\nwarnings.warn('a warning is an error')",
    ]
    name, after_another, failed, folder, warned = run_programs(programs, tmp_path, SECONDS)
    assert name == (0, "__main__ ['-c']\n", "")
    assert after_another == (3, "False\n", "")
    assert (failed.status, failed.stdout) == (1, "ended\n")
    assert failed.stderr.endswith("ZeroDivisionError: division by zero\n")
    assert folder == (0, "['here']\n", "")
    assert warned.status == 1
    assert "UserWarning: a warning is an error" in warned.stderr


def without_times(text: str) -> str:
    """An output without what took how long, which a busy machine changes."""
    return re.sub(r"\bfor [\d.]+ s\b", "for some time", text)


def check_programs(page: str, numbers: list[int], folder: Path, ports: dict[int, int]) -> None:
    """Run programs of a page: they show what the page says, or else something."""
    found = [BLOCKS[page][number] for number in numbers]
    texts = [with_ports(block.text, ports) for block in found]
    for block, (status, shown, errors) in zip(
        found, run_programs(texts, folder, SECONDS), strict=True
    ):
        logged = [log for word, log in LOGGING.items() if word in block.text]
        assert bool(errors) == bool(logged), f"{block.text}\n{errors}"
        assert all(log in errors for log in logged), errors
        assert status == 0, block.text
        if block.output is None:
            assert shown.strip(), block.text
        else:
            expected = with_ports(block.output, ports)
            assert without_times(shown.rstrip("\n")) == without_times(expected), block.text


def packages_of(page: str, number: int) -> set[str]:
    """What a program imports that neither the package nor the extra `test` brings."""
    names = re.findall(r"^ *(?:import|from) (\w+)", BLOCKS[page][number].text, re.MULTILINE)
    return EXTRA_PACKAGES & set(names)


PLAIN = {
    page: [
        number
        for number in numbers
        if NATS not in BLOCKS[page][number].text and not packages_of(page, number)
    ]
    for page, numbers in ALONE.items()
}


@pytest.mark.parametrize("page", [page for page, numbers in PLAIN.items() if numbers])
def test_alone(page: str, tmp_path: Path) -> None:
    check_programs(page, PLAIN[page], tmp_path, {})


@pytest.mark.parametrize(
    ("page", "number"),
    [(page, n) for page, numbers in ALONE.items() for n in numbers if packages_of(page, n)],
)
def test_with_packages(page: str, number: int, tmp_path: Path) -> None:
    for name in packages_of(page, number):
        pytest.importorskip(name)
    check_programs(page, [number], tmp_path, {})


@pytest.mark.parametrize(
    "page",
    [page for page in ALONE if any(NATS in BLOCKS[page][number].text for number in ALONE[page])],
)
def test_with_nats(page: str, tmp_path: Path, nats_server: NatsServer) -> None:
    numbers = [number for number in ALONE[page] if NATS in BLOCKS[page][number].text]
    check_programs(page, numbers, tmp_path, {4222: int(nats_server.url.rpartition(":")[2])})


async def test_discovery(tmp_path: Path) -> None:
    if not addresses_with_multicast():
        pytest.skip("this host has no network with multicast")
    for line in re.findall(r"^    berrymq (keygen .+|authorize .+)$", page_text("discovery"), re.M):
        output_of([sys.executable, "-m", "berrymq_rpc", *shlex.split(line)], tmp_path)
    # Other tests may announce the same.
    name = f"calc-{uuid4().hex[:8]}"

    def renamed(number: int) -> list[str]:
        *command, text = program("howto/discovery.rst", number)
        assert "calc" in text
        text = text.replace('announce="calc"', f'announce="{name}"')
        return [*command, text.replace("mdns://calc", f"mdns://{name}")]

    with running(renamed(0), tmp_path) as server:
        assert (await line_of(server)).startswith("listening at tcp://0.0.0.0:")
        assert await asyncio.to_thread(output_of, renamed(1), tmp_path) == "3\n"


def page_text(name: str) -> str:
    return (ROOT / "docs" / "howto" / f"{name}.rst").read_text(encoding="utf-8")


async def test_two_programs(tmp_path: Path) -> None:
    ports: dict[int, int] = {}
    with running(program("README.rst", 2, ports), tmp_path) as kitchen:
        assert await line_of(kitchen) == f"listening at tcp://127.0.0.1:{ports[5570]}"
        shown = await asyncio.to_thread(output_of, program("README.rst", 3, ports), tmp_path)
        assert shown == f"{BLOCKS['README.rst'][3].output}\n"


@pytest.mark.parametrize("page", ["README.rst", "howto/bridge.rst"])
async def test_a_bridge(page: str, tmp_path: Path) -> None:
    ports: dict[int, int] = {}
    number = 4 if page == "README.rst" else 0
    with running(program(page, number, ports), tmp_path) as bridge:
        url = (await line_of(bridge)).split()[-1]
        assert url == f"http://127.0.0.1:{ports[8080]}"
        if page == "howto/bridge.rst":
            client = await asyncio.to_thread(output_of, program(page, 2, ports), tmp_path)
            assert client == "0.25\n"
        (path,) = (path for path in PAGES if path.as_posix().endswith(page))
        text = path.read_text(encoding="utf-8")
        found = re.search(r"^    \$ (curl .*\\\n.*)\n    (\{.*\})$", text, re.MULTILINE)
        assert found is not None
        if shutil.which("curl") is None:
            pytest.skip("curl is not installed")
        command = shlex.split(with_ports(found[1], ports).replace("\\\n", ""))
        answer = await asyncio.to_thread(output_of, [*command, "--silent"], tmp_path)
        assert json.loads(answer) == json.loads(found[2])


async def test_a_page(tmp_path: Path) -> None:
    ports: dict[int, int] = {}
    with running(program("howto/page.rst", 0, ports), tmp_path) as node:
        url = await line_of(node)
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            assert "/page/app.js" in await response.text()


async def test_a_bridge_to_berrymq_03(tmp_path: Path) -> None:
    bus = Bus()
    heard: asyncio.Queue[object] = asyncio.Queue()
    bus.regist_function("job:*", lambda message: heard.put_nowait((message.id, message.args)))
    # Our own listener is one of 0.3 as well.
    async with Node(None, bus) as node, Bridge(node) as bridge:
        url = await bridge.serve_http()
        ports = {9090: int(url.rpartition(":")[2])}
        shown = await asyncio.to_thread(output_of, program("howto/bridge.rst", 1, ports), tmp_path)
        assert shown == "job:new 1\n"
        async with asyncio.timeout(SECONDS):
            assert await heard.get() == ("job:new", (1,))


class Oven(rpc.AttrHandler):
    @rpc.method
    def temperature(self) -> int:
        return 20


async def test_a_notebook() -> None:
    """As IPython runs a cell: in a loop that runs, its last line is shown."""
    async with await rpc.start_server(Oven(), bind="tcp://127.0.0.1:*") as server:
        text = BLOCKS["howto/programs.rst"][0].text
        assert "tcp://127.0.0.1:5571" in text
        cell = ast.parse(text.replace("tcp://127.0.0.1:5571", server.endpoints[0]))
        *lines, last = cell.body
        names: dict[str, object] = {}
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        assert isinstance(last, ast.Expr)
        await eval(compile(ast.Module(lines, []), "cell", "exec", flags), names)
        assert await eval(compile(ast.Expression(last.value), "cell", "eval", flags), names) == 20
        client = names["client"]
        assert isinstance(client, rpc.Client)
        client.close()
        await client.wait_closed()


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
        command = program("reference/command.rst", 0, {5560: int(endpoint.rpartition(":")[2])})
        path = f"{ROOT}{os.pathsep}{tmp_path}"
        shown = await asyncio.to_thread(output_of, command, tmp_path, PYTHONPATH=path)
        assert shown == "0.25\n"


async def test_the_port_of_a_server(tmp_path: Path) -> None:
    ports: dict[int, int] = {}
    with running(program("reference/jsonrpc.rst", 2, ports), tmp_path) as server:
        assert await line_of(server) == f"serving on tcp://127.0.0.1:{ports[5555]}"
        page = (ROOT / "docs" / "reference" / "jsonrpc.rst").read_text(encoding="utf-8")
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
        with running(program("howto/messages.rst", number, ports), tmp_path) as worker:
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

    parts = BLOCKS["howto/security.rst"]
    texts = [re.sub(r"tcp://(?:\*|server):(\d+)", on_loopback, part.text) for part in parts]
    (tmp_path / "blocks.json").write_text(json.dumps(texts))
    shown = output_of([sys.executable, "-W", "error", "-c", KEYS], tmp_path).splitlines()
    assert sum(line.startswith("made:") for line in shown) == len(parts)
    assert "alice" in shown
