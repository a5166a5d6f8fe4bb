"""Peers that are not Python: each example is run as its user runs it, against examples/bridge.py.

What needs a program or a package that is not there is skipped, and says which.
"""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

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


class Page:
    """A page in a browser, looked at by Chromium's own protocol."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.count = 0

    async def shows(self, selector: str, beginning: str) -> str:
        """The text of an element that begins like that, once there is one."""
        script = f"""
            new Promise((resolve) => {{
                const look = () => {{
                    const texts = [...document.querySelectorAll({json.dumps(selector)})].map(
                        (element) => element.textContent,
                    );
                    const found = texts.find((text) => text.startsWith({json.dumps(beginning)}));
                    if (found !== undefined) resolve(found);
                    else setTimeout(look, 10);
                }};
                look();
            }})
        """
        return await self.evaluate(script)

    async def evaluate(self, script: str) -> str:
        """What a script on the page gives, once its promise is kept."""
        parameters = {"expression": script, "awaitPromise": True, "returnByValue": True}
        while True:
            self.count += 1
            await self.socket.send_json(
                {"id": self.count, "method": "Runtime.evaluate", "params": parameters}
            )
            answer: dict[str, Any] = {}
            while answer.get("id") != self.count:
                answer = await self.socket.receive_json()
            # There is an error instead when it was asked of the blank page before this one.
            if "result" in answer:
                return str(answer["result"]["result"]["value"])

    async def press(self, selector: str) -> None:
        """Press a button, once the page is connected."""
        script = f"""
            new Promise((resolve) => {{
                const press = () => {{
                    if (socket.readyState === WebSocket.OPEN) {{
                        document.querySelector({json.dumps(selector)}).click();
                        resolve("pressed");
                    }} else setTimeout(press, 10);
                }};
                press();
            }})
        """
        assert await self.evaluate(script) == "pressed"


async def until_written(path: Path) -> list[str]:
    while True:
        if path.exists() and len(lines := path.read_text().splitlines()) > 1:
            return lines
        await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def opened(page_url: str, folder: Path) -> AsyncIterator[Page]:
    """A page in a browser that has nothing else open."""
    needs("chromium")
    browser = await asyncio.create_subprocess_exec(
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--remote-debugging-port=0",
        f"--user-data-dir={folder}",
        page_url,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        port, *_ = await until_written(folder / "DevToolsActivePort")
        async with aiohttp.ClientSession() as session:
            url = None
            while url is None:
                async with session.get(f"http://127.0.0.1:{port}/json") as response:
                    for found in await response.json(content_type=None):
                        if found["url"].startswith("file:"):
                            url = found["webSocketDebuggerUrl"]
            async with session.ws_connect(url) as socket:
                yield Page(socket)
    finally:
        os.killpg(browser.pid, 9)
        await browser.wait()


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_page_in_chromium(commands: dict[str, list[str]], tmp_path: Path) -> None:
    where = commands["page.html"][1].strip("'").partition("?")[2]
    page_url = f"{(SCRIPTS / 'page.html').as_uri()}?{where}&greeting:*"
    async with opened(page_url, tmp_path) as page:
        assert await page.shows("#state", "subscribed") == "subscribed to greeting:*"
        send = [sys.executable, *commands["send.py"][1:], "from=a test"]
        assert await asyncio.to_thread(output_of, send) == ["sent"]
        shown = await page.shows("#messages li", "greeting:hello")
        assert shown == 'greeting:hello ["you"] {"from":"a test"}'


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_the_page_of_the_tutorial_in_chromium(tmp_path: Path) -> None:
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
            async with opened((tmp_path / "page.html").as_uri(), tmp_path / "browser") as page:
                assert await page.shows("#heat", "Heat to 220") == "Heat to 220"
                await page.press("#heat")
                # The message of the method and its result come in either order.
                assert await page.shows("#log li", "oven:hot") == "oven:hot 220"
                assert await page.shows("#log li", "heated") == "heated to 220"
        finally:
            bridge.terminate()
