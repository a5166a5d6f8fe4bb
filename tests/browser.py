"""A page in headless Chromium, driven by the browser's own protocol, without a package for it."""

import asyncio
import base64
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

__all__ = ["PATIENCE", "Tab", "browser_path", "opened_tab"]

#: Seconds for what a page is expected to do.
PATIENCE = 20.0


def browser_path() -> str | None:
    """Where Chromium is; ``None`` if it is not installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


class PageError(Exception):
    """A script on the page has failed."""


class Tab:
    """One page.

    Attributes:
        problems: what the browser has complained of: errors of scripts, and of the page's policy.
        credentials: what to answer where a server asks for a user and a password.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.problems: list[str] = []
        self.credentials: tuple[str, str] | None = None
        self._socket = socket
        self._ids = 0
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._reading = asyncio.ensure_future(self._read())
        self._answering: set[asyncio.Future[Any]] = set()

    async def send(self, method: str, **params: Any) -> Any:
        """Send the browser a command, and return its result."""
        self._ids += 1
        number = self._ids
        answer = self._pending[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(PATIENCE):
            return await answer

    async def _read(self) -> None:
        async for message in self._socket:
            event = message.json()
            if "id" in event:
                answer = self._pending.pop(event["id"])
                if answer.done():
                    continue
                if "error" in event:
                    answer.set_exception(PageError(event["error"]["message"]))
                else:
                    answer.set_result(event["result"])
            else:
                self._note(event["method"], event["params"])

    def _note(self, method: str, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.problems.append(details.get("exception", details).get("description", "?"))
        elif method == "Log.entryAdded":
            entry = params["entry"]
            self.problems.append(f"{entry['source']}: {entry['text']} {entry.get('url', '')}")
        elif method == "Page.javascriptDialogOpening":
            self.problems.append(f"dialog: {params['message']}")
            self._answer("Page.handleJavaScriptDialog", accept=True)
        elif method == "Fetch.authRequired":
            given = {"response": "CancelAuth"}
            if self.credentials is not None:
                user, password = self.credentials
                given = {
                    "response": "ProvideCredentials",
                    "username": user,
                    "password": password,
                }
            self._answer(
                "Fetch.continueWithAuth",
                requestId=params["requestId"],
                authChallengeResponse=given,
            )
        elif method == "Fetch.requestPaused":
            self._answer("Fetch.continueRequest", requestId=params["requestId"])

    def _answer(self, method: str, **params: Any) -> None:
        answering = asyncio.ensure_future(self.send(method, **params))
        self._answering.add(answering)
        answering.add_done_callback(self._answering.discard)

    async def close(self) -> None:
        """End reading."""
        self._reading.cancel()
        await asyncio.wait((self._reading, *self._answering))

    # -- what users do ---------------------------------------------------------------------

    async def open(self, url: str, *, width: int = 1280, height: int = 900) -> None:
        """Open a page in a window of that size."""
        for domain in ("Page", "Runtime", "Log"):
            await self.send(f"{domain}.enable")
        await self.resize(width, height)
        if self.credentials is not None:
            await self.send("Fetch.enable", handleAuthRequests=True)
        await self.send("Page.navigate", url=url)

    async def resize(self, width: int, height: int) -> None:
        """Give the page's window another size."""
        await self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    async def prefer(self, scheme: str) -> None:
        """Be a user who prefers ``"light"`` or ``"dark"``."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.send("Emulation.setEmulatedMedia", features=features)

    async def press(self, key: str) -> None:
        """Press a key, such as ``"Tab"`` or ``"Enter"``."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "End": 35, "Home": 36}
        codes |= {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        about: dict[str, Any] = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        if key == "Enter":
            about["text"] = "\r"
        await self.send("Input.dispatchKeyEvent", type="keyDown", **about)
        await self.send("Input.dispatchKeyEvent", type="keyUp", **about)

    async def type(self, text: str) -> None:
        """Type text into what has the focus."""
        await self.send("Input.insertText", text=text)

    # -- what they see ---------------------------------------------------------------------

    async def run(self, script: str) -> Any:
        """The value of an expression on the page; a promise is awaited."""
        result = await self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            raise PageError(details.get("exception", details).get("description", "?"))
        return result["result"].get("value")

    async def until(self, script: str) -> None:
        """Wait until an expression on the page is true; a promise is awaited.

        Raises:
            TimeoutError: it did not become so in time.
        """
        found = False
        try:
            async with asyncio.timeout(PATIENCE):
                while not found:
                    # The page may be just loading.
                    with contextlib.suppress(PageError):
                        found = await self.run(f"Promise.resolve({script}).then(Boolean)")
                    await asyncio.sleep(0 if found else 0.02)
        except TimeoutError:
            raise TimeoutError(f"it did not become true: {script}; {self.problems}") from None

    async def text(self, selector: str) -> str:
        """The text of an element."""
        return str(await self.run(f"document.querySelector({json.dumps(selector)}).textContent"))

    async def shows(self, selector: str, text: str) -> None:
        """Wait until an element shows a text."""
        shown = f"node.checkVisibility() && node.textContent.includes({json.dumps(text)})"
        nodes = f"[...document.querySelectorAll({json.dumps(selector)})]"
        await self.until(f"{nodes}.some((node) => {shown})")

    async def focused(self) -> str:
        """The id of what has the focus, or the name of its kind."""
        return str(await self.run("document.activeElement.id || document.activeElement.tagName"))

    async def names(self, role: str) -> list[str]:
        """The names of all elements of a role, as a screen reader gets them."""
        tree = await self.send("Accessibility.getFullAXTree")
        return [
            node.get("name", {}).get("value", "")
            for node in tree["nodes"]
            if not node.get("ignored") and node.get("role", {}).get("value") == role
        ]

    async def picture(self, path: Path) -> None:
        """Save a picture of what the window shows, in the format of the file's name."""
        kind = path.suffix.removeprefix(".")
        quality = {} if kind == "png" else {"quality": 85}
        taken = await self.send("Page.captureScreenshot", format=kind, **quality)
        path.write_bytes(base64.b64decode(taken["data"]))


@contextlib.asynccontextmanager
async def opened_tab(folder: Path) -> AsyncIterator[Tab]:
    """A browser with one empty page.

    Args:
        folder: for the browser's own files.
    """
    program = browser_path()
    assert program is not None
    browser = await asyncio.create_subprocess_exec(
        program,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--hide-scrollbars",
        "--remote-debugging-port=0",
        f"--user-data-dir={folder}",
        "about:blank",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        port = await _port_of(folder)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json") as response:
                pages = await response.json(content_type=None)
            (url,) = (page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
            async with session.ws_connect(url, max_msg_size=1 << 26) as socket:
                tab = Tab(socket)
                try:
                    yield tab
                finally:
                    await tab.close()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(browser.pid, 9)
        await browser.wait()


async def _port_of(folder: Path) -> int:
    path = folder / "DevToolsActivePort"
    async with asyncio.timeout(PATIENCE):
        while not (path.exists() and len(lines := path.read_text().splitlines()) > 1):
            await asyncio.sleep(0.02)
    return int(lines[0])
