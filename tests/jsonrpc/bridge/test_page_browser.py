"""The page in a browser: what it shows, what users do with it, and what peers may not do to it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from berrymq_rpc import Bus, Message, Node, Queue, rpc
from berrymq_rpc.jsonrpc.bridge import Bridge

from ...browser import PATIENCE, Tab, browser_path, opened_tab

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(browser_path() is None, reason="chromium is not installed"),
]

HOSTILE = "<img src=x onerror=alert(1)>"


def follow(message: Message) -> None: ...


class Handler(rpc.AttrHandler):
    @rpc.method
    def add(self, a: int, b: int = 1) -> int:
        """Add two numbers."""
        return a + b

    @rpc.method
    def fail(self) -> None:
        """Raise what is hostile."""
        raise ValueError(HOSTILE)


class Shown:
    """A page that is open, and what it shows."""

    def __init__(self, tab: Tab, url: str, bus: Bus, bridge: Bridge) -> None:
        self.tab = tab
        self.url = url
        self.bus = bus
        self.bridge = bridge


@asynccontextmanager
async def shown(
    folder: Path, *, password: str | None = None, bus: Bus | None = None, **http: Any
) -> AsyncIterator[Shown]:
    bus = Bus() if bus is None else bus
    async with (
        Node("tcp://127.0.0.1:0", bus, handler=Handler(), name="bakery") as node,
        Bridge(node) as bridge,
        opened_tab(folder) as tab,
    ):
        url = await bridge.serve_http(page=True, **http)
        if password is not None:
            tab.credentials = ("anybody", password)
        await tab.open(url)
        await tab.shows("#link", "live")
        yield Shown(tab, url, bus, bridge)
        assert tab.problems == []


async def follow_all(tab: Tab) -> None:
    await tab.run("document.querySelector('#tail-start').click()")
    await tab.shows("#tail-state", "Following")


async def test_fifty_nodes(tmp_path: Path) -> None:
    bus = Bus()
    followers = []
    for number in range(25):

        def follower(message: Message) -> None: ...

        follower.__qualname__ = f"follower{number}"
        followers.append(follower)
        bus.regist_function(f"room{number}:door", follower)
    async with shown(tmp_path, bus=bus) as page:
        tab = page.tab
        await tab.until("document.querySelectorAll('#drawing [role=option]').length === 50")
        boxes = await tab.run(
            "[...document.querySelectorAll('#drawing rect')].map((box) => {"
            "const {left, right, top, bottom} = box.getBoundingClientRect();"
            "return [left, right, top, bottom];})"
        )
        for index, (left, right, top, bottom) in enumerate(boxes):
            for other in boxes[index + 1 :]:
                beside = right <= other[0] or other[1] <= left
                assert beside or bottom <= other[2] or other[3] <= top, "two nodes overlap"
        texts = await tab.run(
            "[...document.querySelectorAll('#drawing g')].flatMap((node) => {"
            "const [box, text] = [node.querySelector('rect'), node.querySelector('.name')];"
            "return box && text ? [box.getBoundingClientRect().right - "
            "text.getBoundingClientRect().right] : [];})"
        )
        assert min(texts) >= 0, "a name is wider than its box"
        await tab.run("document.querySelector('#as-table').click()")
        await tab.until("document.querySelectorAll('#graph-table tbody tr').length === 25")
        await tab.shows("#graph-table td", "follower7")


async def test_queues_and_connections(tmp_path: Path) -> None:
    async with shown(tmp_path) as page:
        with Queue("oven:*", bus=page.bus, maxsize=2):
            for heat in range(5):
                page.bus.twitter("oven:heat", heat)
            await page.tab.shows("#queues td", "2 of 2")
            await page.tab.shows("#queues .badge[data-state=bad]", "3")
        await page.tab.shows("#queues", "No queues.")
        await page.tab.shows("#connections td", "WebSocket")


async def test_the_tail_and_its_filters(tmp_path: Path) -> None:
    async with shown(tmp_path) as page:
        tab = page.tab
        await tab.run("document.querySelector('#tail-identifier').value = 'oven:*'")
        await follow_all(tab)
        page.bus.twitter("door:open", "not followed")
        for heat in (210, 220):
            page.bus.twitter("oven:heat", heat, unit="C")
        await tab.shows("#tail-log li", 'oven:heat220  unit="C"')
        assert "door" not in await tab.text("#tail-log")
        await tab.run(
            "const text = document.querySelector('#tail-text');"
            "text.value = '210'; text.dispatchEvent(new Event('input'));"
        )
        visible = "[...document.querySelectorAll('#tail-log li')].filter((line) => !line.hidden)"
        assert await tab.run(f"{visible}.length") == 1
        await tab.run("document.querySelector('#tail-start').click()")
        await tab.shows("#tail-state", "Stopped.")
        await tab.until("document.querySelector('#tail-start').textContent === 'Follow'")


async def test_a_flood_holds_nobody(tmp_path: Path) -> None:
    async with shown(tmp_path) as page:
        await follow_all(page.tab)
        for number in range(20_000):
            page.bus.twitter("flood:item", number)
            if number % 500 == 0:
                await asyncio.sleep(0)
        end = "document.querySelector('#tail-log').textContent.includes('flood:end')"
        async with asyncio.timeout(PATIENCE):
            # A page that reads too slowly is cut off, and connects again.
            while not await page.tab.run(end):
                page.bus.twitter("flood:end")
                await asyncio.sleep(0.1)
        assert await page.tab.run("document.querySelectorAll('#tail-log li').length") <= 500


async def test_the_form_completes_and_calls(tmp_path: Path) -> None:
    async with shown(tmp_path, page_write=True) as page:
        tab = page.tab
        await tab.until("document.querySelectorAll('#methods option').length > 2")
        assert await tab.run("document.querySelector('#call-method').list.id") == "methods"
        await tab.run("document.querySelector('#call-method').focus()")
        await tab.type("add")
        await tab.shows("#call-doc", "add(a: int, b: int = 1) -> int\nAdd two numbers.")
        assert {"a: int", "b: int"} <= set(await tab.names("textbox"))
        await tab.run("document.querySelector('#call-parameters input').focus()")
        await tab.type("41")
        await tab.press("Enter")
        await tab.shows("#call-result", "42  (")
        await tab.run(
            "const m = document.querySelector('#call-method'); m.value = 'fail';"
            "m.dispatchEvent(new Event('input')); m.form.requestSubmit()"
        )
        await tab.shows("#call-result[data-state=bad]", HOSTILE)


async def test_the_form_sends(tmp_path: Path) -> None:
    heard: list[Message] = []
    bus = Bus()
    bus.regist_function("oven:*", heard.append)
    async with shown(tmp_path, page_write=True, bus=bus) as page:
        tab = page.tab
        await tab.until(
            "[...document.querySelectorAll('#known option')].some("
            "(option) => option.value === 'oven:*')"
        )
        await tab.run("document.querySelector('#send-identifier').focus()")
        await tab.type("oven:heat")
        await tab.run("document.querySelector('#send-arguments').focus()")
        await tab.type('220\nunit=C\n"a b"')
        await tab.run("document.querySelector('#send-form').requestSubmit()")
        await tab.shows("#send-result", "Sent.")
        (message,) = heard
        assert (message.id, message.args, message.kwargs) == (
            *("oven:heat", (220, "a b")),
            {"unit": "C"},
        )
        await tab.run("document.querySelector('#send-identifier').value = 'a:b:c'")
        await tab.run("document.querySelector('#send-form').requestSubmit()")
        await tab.shows("#send-result[data-state=bad]", "a:b:c")


async def test_without_write_it_may_look_only(tmp_path: Path) -> None:
    async with shown(tmp_path) as page:
        tab = page.tab
        await tab.shows("#read-only", "--http-write")
        assert not await tab.run("document.querySelector('#send-form').checkVisibility()")
        assert not await tab.run("document.querySelector('#call-form').checkVisibility()")
        # Whoever sits before it cannot do it by other means either.
        ask = '{"jsonrpc": "2.0", "method": "add", "params": [1, 2], "id": 1}'
        headers = "{'Content-Type': 'application/json'}"
        posted = f"fetch('/', {{method: 'POST', headers: {headers}, body: '{ask}'}})"
        assert await tab.run(f"{posted}.then((response) => response.status)") == 403
        for path, expected in (("/page/ws", "may look only"), ("/ws", "closed")):
            answer = await tab.run(
                "new Promise((resolve) => {"
                f"const socket = new WebSocket(`ws://${{location.host}}{path}`);"
                f"socket.onopen = () => socket.send('{ask}');"
                "socket.onmessage = (event) => resolve(event.data);"
                "socket.onclose = () => resolve('closed');})"
            )
            assert expected in answer
        # The browser notes both refusals by itself.
        assert len(tab.problems) == 2
        assert all("403" in problem for problem in tab.problems)
        tab.problems.clear()


async def test_a_handler_has_calls_alone(tmp_path: Path) -> None:
    async with Bridge(Handler(), title="sums") as bridge, opened_tab(tmp_path) as tab:
        await tab.open(await bridge.serve_http(page=True, page_write=True))
        await tab.until("document.querySelector('#tail').hidden")
        await tab.shows("#name", "sums")
        await tab.run("document.querySelector('#call-method').focus()")
        await tab.type("add")
        await tab.run("document.querySelector('#call-parameters input').value = 1")
        await tab.run("document.querySelector('#call-form').requestSubmit()")
        await tab.shows("#call-result", "2  (")
        await tab.shows("#calls th", "add")
        for part in ("graph", "tail", "send-form"):
            assert not await tab.run(f"document.querySelector('#{part}').checkVisibility()")
        assert tab.problems == []


async def test_behind_a_token(tmp_path: Path) -> None:
    async with shown(tmp_path, token="secret", password="secret") as page:
        with Queue("oven:*", bus=page.bus):
            await page.tab.shows("#queues th", "oven:*")
        await page.tab.run("fetch('/state').then((response) => response.json())")


async def test_dark_and_light(tmp_path: Path) -> None:
    async with shown(tmp_path) as page:
        tab = page.tab
        grounds = {}
        for scheme in ("light", "dark"):
            await tab.prefer(scheme)
            style = "getComputedStyle(document.body)"
            ground, text = await tab.run(f"[{style}.backgroundColor, {style}.color]")
            grounds[scheme] = ground
            assert contrast(ground, text) > 7
            muted = await tab.run("getComputedStyle(document.querySelector('#where')).color")
            assert contrast(ground, muted) > 4.5
        assert luminance(grounds["dark"]) < 0.1 < 0.8 < luminance(grounds["light"])


def luminance(color: str) -> float:
    """How bright a color ``rgb(...)`` is, as WCAG has it."""
    parts = [int(part) / 255 for part in color[4:-1].split(",")]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    """The contrast of two colors, as WCAG has it."""
    dark, bright = sorted((luminance(first), luminance(second)))
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("write", [False, True])
async def test_a_narrow_window(tmp_path: Path, write: bool) -> None:
    bus = Bus()
    bus.regist_function(f"{'long' * 20}:{'identifier' * 8}", follow)
    queue = Queue(f"queue{'name' * 30}:*", bus=bus, maxsize=3)
    async with shown(tmp_path, bus=bus, page_write=write) as page:
        tab = page.tab
        await tab.resize(360, 740)
        await tab.shows("#queues th", "queuename")
        await follow_all(tab)
        page.bus.twitter("long:text", "x" * 3000)
        await tab.shows("#tail-log li", "long:text")
        for view in ("table", "graph"):
            await tab.run(f"document.querySelector('#as-{view}').click()")
            await tab.until("new Promise((resolve) => requestAnimationFrame(() => resolve(true)))")
            assert await tab.run("document.documentElement.scrollWidth") == 360
            wide = await tab.run(
                "[...document.querySelectorAll('main *')].filter((node) => node.checkVisibility()"
                " && node.getBoundingClientRect().right > 360 && !node.closest('thead'))"
                ".map((node) => node.outerHTML.slice(0, 100))"
            )
            assert wide == []
    queue.close()


async def test_by_the_keyboard_alone(tmp_path: Path) -> None:
    bus = Bus()
    bus.regist_function("oven:heat", follow)
    async with shown(tmp_path, page_write=True, bus=bus) as page:
        tab = page.tab
        await tab.until("document.querySelector('#drawing svg')")
        seen = []
        while "call-method" not in seen and len(seen) < 30:
            await tab.press("Tab")
            seen.append(await tab.focused())
            # What has the focus can be seen.
            assert await tab.run(
                "getComputedStyle(document.activeElement).outlineStyle !== 'none'"
                " || document.activeElement.matches('main')"
            )
            if seen[-1] == "svg":
                await tab.press("ArrowRight")
                chosen = (
                    "document.getElementById(document.activeElement"
                    ".getAttribute('aria-activedescendant')).getAttribute('aria-label')"
                )
                assert "function" in await tab.run(chosen)
                await tab.press("ArrowLeft")
                assert (await tab.run(chosen)).startswith("oven:heat: goes to")
                await tab.press("Escape")
        for each in ("A", "as-graph", "svg", "tail-identifier", "tail-log", "send-identifier"):
            assert each in seen
        await tab.type("add")
        await tab.press("Tab")
        while await tab.run("document.activeElement.closest('#call-parameters') === null"):
            await tab.press("Tab")
        await tab.type("1")
        await tab.press("Enter")
        await tab.shows("#call-result", "2  (")


async def test_what_a_screen_reader_gets(tmp_path: Path) -> None:
    bus = Bus()
    bus.regist_function("oven:heat", follow)
    queue = Queue("oven:*", bus=bus, maxsize=3)
    async with shown(tmp_path, page_write=True, bus=bus) as page:
        tab = page.tab
        await tab.shows("#queues th", "oven:*")
        # On a narrow screen the rows are laid out as cards, and are rows all the same.
        for width in (1280, 360):
            await tab.resize(width, 900)
            tables = await tab.names("table")
            assert "Queues with their depth" in tables
            assert "Connections" in tables
            assert "Depth" in await tab.names("columnheader")
            assert "oven:*" in await tab.names("rowheader")
        assert await tab.names("heading") == [
            *("bakery", "Who follows what", "Identifiers", "Queues", "Calls", "Connections"),
            *("Messages", "Send and call", "Send a message", "Call a method"),
        ]
        for role in ("button", "textbox", "combobox", "searchbox", "listbox", "option"):
            names = await tab.names(role)
            assert all(names), f"a {role} has no name"
        assert "Identifier" in await tab.names("combobox")
        assert any(name.startswith("oven:heat: goes to") for name in await tab.names("option"))
        live = "[...document.querySelectorAll('[aria-live], [role=status], [role=alert]')]"
        ids = await tab.run(f"{live}.map((node) => node.id)")
        assert ids == ["banner", "tail-state", "tail-log"]
        assert await tab.run("document.querySelector('#tail-log').ariaLive") == "off"
        assert await tab.run("document.documentElement.lang") == "en"
    queue.close()


async def test_what_peers_choose_is_text(tmp_path: Path) -> None:
    bus = Bus()

    def hostile(message: Message) -> None: ...

    hostile.__qualname__ = HOSTILE
    bus.regist_function(f"{HOSTILE}:{HOSTILE}", hostile)
    async with shown(tmp_path, bus=bus, page_write=True) as page:
        tab = page.tab
        await follow_all(tab)
        bus.twitter(f"{HOSTILE}:x", HOSTILE, **{HOSTILE: HOSTILE})
        await tab.shows("#tail-log li", HOSTILE)
        await tab.run("document.querySelector('#as-table').click()")
        await tab.shows("#graph-table th", HOSTILE)
        await tab.run(
            f"const m = document.querySelector('#call-method'); m.value = {HOSTILE!r};"
            "m.form.requestSubmit()"
        )
        await tab.shows("#call-result[data-state=bad]", "no method")
        assert await tab.run("document.querySelectorAll('img').length") == 1
        assert (
            await tab.run(
                "(() => { try { document.body.innerHTML = '<b>x</b>'; return 'set'; }"
                " catch (error) { return error.name; } })()"
            )
            == "TypeError"
        )
        refused = [problem for problem in tab.problems if "TrustedHTML" in problem]
        assert refused == tab.problems
        tab.problems.clear()


async def test_the_server_is_gone_and_comes_back(tmp_path: Path) -> None:
    bus = Bus()
    async with (
        Node("tcp://127.0.0.1:0", bus, name="bakery") as node,
        opened_tab(tmp_path) as tab,
    ):
        async with Bridge(node) as bridge:
            url = await bridge.serve_http(page=True)
            await tab.open(url)
            await tab.shows("#link", "live")
            await follow_all(tab)
        await tab.shows("#banner", "The server is gone.")
        await tab.shows("#link", "disconnected")
        async with Bridge(node) as bridge:
            await bridge.serve_http(port=int(url.rpartition(":")[2]), page=True)
            await tab.until("document.querySelector('#banner').hidden")
            await tab.shows("#link", "live")
            # What was followed is followed again.
            await tab.until(
                "document.querySelector('#tail-state').textContent.includes('Following')"
            )
            async with asyncio.timeout(20):
                while not bridge.statistics()["subscriptions"]:
                    await asyncio.sleep(0.02)
            bus.twitter("door:open", "again")
            await tab.shows("#tail-log li", "again")


async def test_a_hidden_page_asks_for_nothing(tmp_path: Path) -> None:
    async with shown(tmp_path) as page:
        tab = page.tab
        await follow_all(tab)
        hide = (
            "Object.defineProperty(document, 'hidden', {configurable: true, value: %s});"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
        await tab.run(hide % "true")
        async with asyncio.timeout(20):
            while page.bridge.statistics()["subscriptions"]:
                await asyncio.sleep(0.02)
        before = page.bridge.statistics()["calls"]
        # Longer than the time between two questions.
        await tab.run("new Promise((resolve) => setTimeout(resolve, 2500))")
        assert page.bridge.statistics()["calls"] == before
        await tab.run(hide % "false")
        async with asyncio.timeout(20):
            while page.bridge.statistics()["calls"] < before + 3:
                await asyncio.sleep(0.02)
        assert page.bridge.statistics()["subscriptions"] == 1
