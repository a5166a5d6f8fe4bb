"""Peers that are not Python: each example is run as its user runs it, against examples/bridge.py.

What needs a program or a package that is not there is skipped, and says which.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ...browser import opened_tab
from ...programs import with_ports

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = ROOT / "examples" / "javascript"
ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(ROOT),
    "PYTHONWARNINGS": "error",
    # Of version 18: fetch is an experiment there.
    "NODE_NO_WARNINGS": "1",
}


@pytest.fixture(scope="module")
def commands() -> Iterator[dict[str, list[str]]]:
    """What examples/bridge.py says to run, by the name of the program's file."""
    with subprocess.Popen(
        [sys.executable, "examples/bridge.py", "0"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=ENVIRONMENT,
    ) as process:
        try:
            assert process.stdout is not None
            said: dict[str, list[str]] = {}
            while "send.py" not in said:
                words = process.stdout.readline().split()
                said[Path(words[1].strip("'").partition("?")[0]).name] = words
            yield said
        finally:
            process.terminate()
            process.communicate(timeout=30)


def needs(program: str, package: str | None = None) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    if package is not None and not (SCRIPTS / "node_modules" / package).is_dir():
        pytest.skip(f"the npm package {package} is not installed: npm install in {SCRIPTS.name}")


def output_of(command: list[str]) -> list[str]:
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=30, cwd=ROOT, env=ENVIRONMENT
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.splitlines()


def test_curl(commands: dict[str, list[str]]) -> None:
    needs("curl")
    answers = list(map(json.loads, output_of(commands["curl.sh"])))
    assert answers[0] == {"jsonrpc": "2.0", "result": 0.25, "id": 1}
    assert answers[1] == {"jsonrpc": "2.0", "result": "ANYBODY THERE!", "id": 2}
    assert answers[2]["error"]["data"]["type"] == "builtins.ZeroDivisionError"
    assert answers[3] == [{"jsonrpc": "2.0", "result": 2.0, "id": 4}]


def test_node_fetch(commands: dict[str, list[str]]) -> None:
    needs("node")
    assert output_of(commands["fetch.mjs"]) == [
        "a call: 0.25",
        "by name: ANYBODY THERE!",
        "its error: -32000 builtins.ZeroDivisionError",
        "a batch: first 2, second 1.5",
        "a notification: null",
        "what the example says of divide: dividend, divisor",
    ]


def test_node_jayson(commands: dict[str, list[str]]) -> None:
    needs("node", "jayson")
    assert output_of(commands["jayson.mjs"]) == [
        "a call: 0.25",
        "by name: ANYBODY THERE!",
        "its error: -32000 builtins.ZeroDivisionError",
        "a batch: 1.5, 2",
    ]


def test_node_websocket(commands: dict[str, list[str]]) -> None:
    needs("node", "ws")
    assert output_of(commands["websocket.mjs"]) == [
        "a call: 0.25",
        "sent: ok",
        'a message: greeting:hello ["you"] {"from":"me"}',
    ]


def test_node_zeromq(commands: dict[str, list[str]]) -> None:
    needs("node", "zeromq")
    assert output_of(commands["zeromq.mjs"]) == [
        "a call: 0.25",
        "a hundred at once: 2525",
        'a message: greeting:hello ["you"]',
    ]


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_page_in_chromium(commands: dict[str, list[str]], tmp_path: Path) -> None:
    needs("chromium")
    where = commands["page.html"][1].strip("'").partition("?")[2]
    page_url = f"{(SCRIPTS / 'page.html').as_uri()}?{where}&greeting:*"
    async with opened_tab(tmp_path) as tab:
        await tab.open(page_url)
        await tab.shows("#state", "subscribed to greeting:*")
        send = [sys.executable, *commands["send.py"][1:], "from=a test"]
        assert await asyncio.to_thread(output_of, send) == ["sent"]
        await tab.shows("#messages li", 'greeting:hello ["you"] {"from":"a test"}')


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_the_page_of_the_tutorial_in_chromium(tmp_path: Path) -> None:
    needs("chromium")
    ports: dict[int, int] = {}
    for name in ("bridge.py", "page.html"):
        text = (ROOT / "examples" / "tutorial" / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(with_ports(text, ports), encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, tmp_path / "bridge.py"], stdout=subprocess.PIPE, env=ENVIRONMENT
    ) as bridge:
        try:
            assert bridge.stdout is not None
            assert await asyncio.to_thread(bridge.stdout.readline)
            async with opened_tab(tmp_path / "browser") as tab:
                await tab.open((tmp_path / "page.html").as_uri())
                await tab.shows("#heat", "Heat to 220")
                await tab.until("socket.readyState === WebSocket.OPEN")
                await tab.run("document.querySelector('#heat').click()")
                # The message of the method and its result come in either order.
                await tab.shows("#log li", "oven:hot 220")
                await tab.shows("#log li", "heated to 220")
        finally:
            bridge.terminate()
