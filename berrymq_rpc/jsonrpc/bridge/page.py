"""The page of an HTTP listener: its files, the state as JSON, and the WebSocket that it uses.

======================  =====================================================================
``GET /``               the page
``GET /page/NAME``      its style, scripts and icon
``GET /page/ws``        its WebSocket: JSON-RPC, with the methods that it may call
``GET /page/pass``      what lets it open the WebSocket, if the browser sends no password there
``GET /state``          what runs, as JSON: a snapshot of `monitor.Monitor`
======================  =====================================================================

A browser runs and loads nothing but what is in these files, and shows the page in no frame.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from aiohttp import web

from ...rpc.method import Method
from ...rpc.method_table import HandlerTable
from ..error_objects import PERMISSION_DENIED
from ..message import IncomingMessage
from .listener import ListenerPort
from .page_passes import Passes
from .page_table import STATE, PageTable
from .places import Place
from .post_path import PostPath
from .runtime import BridgeRuntime
from .websocket import WebSockets

__all__ = ["PAGE_WEBSOCKET", "STATE_PATH", "Page"]

STATE_PATH = "/state"
PAGE_WEBSOCKET = "/page/ws"
PASS_PATH = "/page/pass"

_FOLDER = Path(__file__).with_name("page_files")

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

#: What a browser may do with anything from here.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_ASKED = json.dumps({"jsonrpc": "2.0", "method": STATE, "id": 1}).encode()


class File(NamedTuple):
    """A file of the page."""

    body: bytes
    content_type: str
    etag: str


@cache
def page_files() -> Mapping[str, File]:
    """The files by their paths."""
    files = {}
    for path in sorted(_FOLDER.iterdir()):
        if path.suffix in _TYPES:
            body = path.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            where = "/" if path.name == "index.html" else f"/page/{path.name}"
            files[where] = File(body, _TYPES[path.suffix], etag)
    return files


class Page:
    """The page of one listener.

    Args:
        runtime: of the bridge.
        port: of the listener.
        served: the methods of the bridge.
        state: answers what runs.
        may_write: whether the page may send messages and call methods.

    Attributes:
        web_sockets: those of pages.
        passes: what lets a page open one.
    """

    def __init__(
        self,
        runtime: BridgeRuntime,
        port: ListenerPort,
        served: HandlerTable,
        state: Method,
        *,
        may_write: bool,
    ) -> None:
        self.may_write = may_write
        dispatcher = runtime.new_dispatcher(PageTable(served, {STATE: state}, may_write=may_write))
        self.web_sockets = WebSockets(runtime, port, dispatcher)
        #: Asks for the state, as whoever sends the request.
        self.state_path = PostPath(runtime, port, IncomingMessage, dispatcher)
        self.passes = Passes()
        self._files = page_files()

    def has(self, path: str) -> bool:
        """Whether there is something to GET at a path."""
        return path in (STATE_PATH, PASS_PATH) or path in self._files

    async def get(
        self, request: web.BaseRequest, path: str, place: Place, user: str | None
    ) -> web.Response:
        """Answer a GET or HEAD.

        Args:
            request: the request.
            path: its path, which `has` knows.
            place: that of its connection.
            user: who sends it, if that is known.
        """
        if path == STATE_PATH:
            return await self._state(request, place, user)
        if path == PASS_PATH:
            headers = HEADERS | {"Cache-Control": "no-store"}
            return web.Response(text=self.passes.issue(user), headers=headers)
        file = self._files[path]
        headers = HEADERS | {"ETag": file.etag, "Cache-Control": "no-cache"}
        if _matches(request.headers.get("If-None-Match", ""), file.etag):
            return web.Response(status=304, headers=headers)
        headers["Content-Type"] = file.content_type
        return web.Response(body=file.body, headers=headers)

    async def _state(
        self, request: web.BaseRequest, place: Place, user: str | None
    ) -> web.Response:
        headers = HEADERS | {"Cache-Control": "no-store"}
        answer = json.loads(await self.state_path.ask(request, _ASKED, place.host, user))
        if "error" in answer:
            error = answer["error"]
            status = 403 if error["code"] == PERMISSION_DENIED else 503
            headers["Content-Type"] = "text/plain; charset=utf-8"
            text = f"{error.get('data') or error['message']}\n"
            return web.Response(status=status, body=text.encode(), headers=headers)
        headers["Content-Type"] = "application/json"
        body = json.dumps(answer["result"], ensure_ascii=False, separators=(",", ":"))
        return web.Response(body=body.encode(), headers=headers)


def _matches(asked: str, etag: str) -> bool:
    """Whether ``If-None-Match`` names the tag, or any."""
    tags = {tag.strip().removeprefix("W/") for tag in asked.split(",")}
    return etag in tags or "*" in tags
