"""Every command of the tutorial runs, and shows what its page says.

A block of console has commands with their output. What stands before ``$`` is the terminal. A
program that does not end by itself goes on in it while the next blocks are run, and what it shows
meanwhile is in its own block.
"""

import asyncio
import itertools
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from berrymq_rpc.testing.nats_server import NatsServer

from .programs import ENVIRONMENT, ROOT, with_ports

PAGES = {path.stem: path for path in (ROOT / "docs" / "tutorial").glob("*.rst")}
PROGRAMS = ROOT / "examples" / "tutorial"
SECONDS = 30
#: What a command shows of a key.
PUBLIC = re.compile(r"Public key: \S{40}$")
#: What a server logs of a key that is removed.
LOG = "removed: its connections are cut"
#: Pages on which each terminal is a machine: a folder of its own.
MACHINES = {"keys": {"oven": "oven", "admin": "oven", "shop": "shop"}}


@dataclass
class Command:
    """A command on a page, its terminal, and the lines that it shows."""

    terminal: str
    text: str
    shows: list[str] = field(default_factory=list)


def commands_of(page: str) -> list[Command]:
    found: list[Command] = []
    text = PAGES[page].read_text(encoding="utf-8")
    for block in re.findall(
        r"^\.\. code-block:: console\n\n((?:    .*\n|\n)+)", text, re.MULTILINE
    ):
        for line in block.rstrip("\n").splitlines():
            prompt = re.fullmatch(r"    (\w+)\$ (.*)", line)
            if prompt is not None:
                found.append(Command(prompt[1], prompt[2]))
            else:
                found[-1].shows.append(line.removeprefix("    "))
    return found


class Terminals:
    """The terminals of one page, with the programs of the tutorial in their folders."""

    def __init__(self, page: str, folder: Path, ports: dict[int, int]) -> None:
        self._machines = MACHINES.get(page, {})
        self._folder = folder
        self._ports = ports
        self._running: list[tuple[subprocess.Popen[str], Command]] = []

    def _folder_of(self, terminal: str) -> Path:
        path = self._folder / self._machines.get(terminal, "here")
        if not path.exists():
            path.mkdir()
            for program in PROGRAMS.iterdir():
                if program.is_file():
                    text = with_ports(program.read_text(encoding="utf-8"), self._ports)
                    (path / program.name).write_text(text, encoding="utf-8")
        return path

    def here(self, text: str) -> str:
        """What a page says, with the addresses of this test."""
        return with_ports(text.replace("192.0.2.1", "127.0.0.1"), self._ports)

    def run(self, command: Command) -> None:
        name, *arguments = shlex.split(self.here(command.text))
        if name == "scp":
            source, (machine, target) = arguments[0], arguments[1].split(":")
            target_path = self._folder_of(machine) / target
            shutil.copy(self._folder_of(command.terminal) / source, target_path)
            return
        known = {"python": [], "berrymq": ["-m", "berrymq_rpc"]}
        start = [sys.executable, "-W", "error", *known[name]] if name in known else [name, "-s"]
        folder = self._folder_of(command.terminal)
        if not self.serves(command):
            self._check(command, [*start, *arguments], folder)
            return
        process = subprocess.Popen(
            [*start, *arguments],
            cwd=folder,
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._running.append((process, command))
        assert process.stdout is not None
        shown = process.stdout.readline().rstrip("\n")
        if not shown and process.poll() is not None:
            raise AssertionError(process.communicate()[1])
        assert shown == self.here(command.shows[0])

    def _check(self, command: Command, arguments: list[str], folder: Path) -> None:
        expected = [self.here(line) for line in command.shows]
        for attempt in range(5):
            finished = subprocess.run(
                arguments,
                cwd=folder,
                env=ENVIRONMENT,
                capture_output=True,
                text=True,
                timeout=SECONDS,
            )
            assert (finished.returncode, finished.stderr) == (0, ""), command.text
            # Each pair of keys is another one.
            shown = [PUBLIC.sub("Public key: ", line) for line in finished.stdout.splitlines()]
            # A key that was removed is refused within a second.
            if attempt == 4 or "refused: key" not in expected or shown == expected:
                break
        assert shown == [PUBLIC.sub("Public key: ", line) for line in expected], command.text

    def serves(self, command: Command) -> bool:
        """Whether the command goes on until it is ended."""
        words = command.text.split()
        if words[0] != "python":
            return False
        text = (PROGRAMS / words[1]).read_text(encoding="utf-8")
        return re.search(r"serve_forever|\.wait\(\)|input\(|while True:\n +async", text) is not None

    def end(self) -> None:
        """Read what is still to come from programs that serve, and end them."""
        for process, command in self._running:
            assert process.stdout is not None
            assert process.stdin is not None
            shown = [process.stdout.readline().rstrip("\n") for _ in command.shows[1:]]
            assert shown == [self.here(line) for line in command.shows[1:]], command.text
            if "input(" in (PROGRAMS / command.text.split()[1]).read_text(encoding="utf-8"):
                process.stdin.write("\n")
            else:
                process.send_signal(signal.SIGINT)
            out, errors = process.communicate(timeout=SECONDS)
            assert (process.returncode, out.strip()) == (0, ""), command.text
            logs = "safe_oven.py" in command.text
            assert (LOG in errors) if logs else (errors == ""), command.text

    def kill(self) -> None:
        for process, _ in self._running:
            process.kill()
            process.communicate()


def follow(page: str, folder: Path, ports: dict[int, int]) -> None:
    terminals = Terminals(page, folder, ports)
    try:
        for command in commands_of(page):
            if command.text != "nats-server -js":
                terminals.run(command)
        terminals.end()
    finally:
        terminals.kill()


@pytest.mark.parametrize("page", sorted(PAGES.keys() - {"index", "browser", "cluster"}))
def test_a_page(page: str, tmp_path: Path) -> None:
    follow(page, tmp_path, {})


def test_the_page_about_a_cluster(tmp_path: Path, nats_server: NatsServer) -> None:
    follow("cluster", tmp_path, {4222: int(nats_server.url.rpartition(":")[2])})


async def test_the_page_about_a_browser(tmp_path: Path) -> None:
    """With what page.html sends; tests/jsonrpc/bridge/test_peers.py has a browser."""
    aiohttp = pytest.importorskip("aiohttp", reason="the HTTP listener needs it")
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    script = (PROGRAMS / "page.html").read_text(encoding="utf-8")
    sent = [
        json.loads(re.sub(r"([{,] *)(\w+):", r'\1"\2":', found))
        for found in re.findall(r"=> send\((\{.*\})\);", script)
    ]
    assert [request["method"] for request in sent] == ["subscribe", "heat"]
    ports: dict[int, int] = {}
    terminals = Terminals("browser", tmp_path, ports)
    bridge, curl = commands_of("browser")
    try:
        await asyncio.to_thread(terminals.run, bridge)
        async with (
            asyncio.timeout(SECONDS),
            aiohttp.ClientSession() as session,
            session.ws_connect(
                f"ws://127.0.0.1:{ports[8080]}/ws", headers={"origin": "null"}
            ) as page,
        ):
            received = []
            for request in sent:
                await page.send_json({"jsonrpc": "2.0", **request})
                received.append(await page.receive_json())
            received.append(await page.receive_json())
            answers = [message["result"] for message in received if "result" in message]
            assert answers[1:] == ["heated to 220"]
            assert [m["params"]["id"] for m in received if "method" in m] == ["oven:hot"]
            # What curl does is seen by the page.
            await asyncio.to_thread(terminals.run, curl)
            seen = await page.receive_json()
            assert (seen["params"]["id"], seen["params"]["args"]) == ("oven:hot", [180])
        await asyncio.to_thread(terminals.end)
    finally:
        terminals.kill()


def test_each_program_is_on_a_page() -> None:
    texts = {page: path.read_text(encoding="utf-8") for page, path in PAGES.items()}
    for program in PROGRAMS.iterdir():
        if program.is_file():
            line = f".. literalinclude:: ../../examples/tutorial/{program.name}\n"
            assert sum(line in text for text in texts.values()) == 1, program.name
            # An HTML page is opened by hand; the others run.
            if program.suffix == ".py":
                words = [command.text.split() for page in PAGES for command in commands_of(page)]
                assert ["python", program.name] in [word[:2] for word in words]


def test_the_order_of_the_pages() -> None:
    text = PAGES["index"].read_text(encoding="utf-8")
    pages = re.findall(r"^   (\w+)$", text, re.MULTILINE)
    assert sorted(pages) == sorted(PAGES.keys() - {"index"})
    for page, following in itertools.pairwise(pages):
        assert f" <{following}>`" in PAGES[page].read_text(encoding="utf-8")
