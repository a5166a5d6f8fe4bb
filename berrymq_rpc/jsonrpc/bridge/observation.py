"""What an HTTP listener shows of itself besides a page: its health, and its metrics.

================  ===========================================================================
``GET /healthz``  200: the process answers
``GET /readyz``   200: it takes calls, and what it depends on is connected; 503 otherwise
``GET /metrics``  what runs, for Prometheus, if the listener has metrics
================  ===========================================================================

The first two answer everybody, by any name of the host and without a token, as those who ask have
none: so they say nothing else.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from aiohttp import web

__all__ = ["GET", "HEALTH_PATH", "METRICS_PATH", "READY_PATH", "Observation"]

HEALTH_PATH = "/healthz"
READY_PATH = "/readyz"
METRICS_PATH = "/metrics"

GET = ("GET", "HEAD")

_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class Exposition(Protocol):
    """The answer to a scrape."""

    @property
    def body(self) -> bytes:
        """The text."""

    @property
    def content_type(self) -> str:
        """Its format."""


class Observation:
    """What one listener shows.

    Args:
        is_ready: says whether calls can be served now.
        scrape: answers a scrape, by the header field ``Accept``; ``None`` for no metrics.
    """

    def __init__(
        self, is_ready: Callable[[], bool], scrape: Callable[[str], Exposition] | None = None
    ) -> None:
        self._is_ready = is_ready
        self._scrape = scrape

    def health(self, method: str, path: str, *, is_closing: bool) -> web.Response | None:
        """The response to who asks for the health; ``None`` for other requests.

        Args:
            is_closing: whether the listener is about to end.
        """
        if method not in GET or path not in (HEALTH_PATH, READY_PATH):
            return None
        if path == HEALTH_PATH or (not is_closing and self._is_ready()):
            return web.Response(text="ok\n", headers=_HEADERS)
        return web.Response(status=503, text="not ready\n", headers=_HEADERS)

    def metrics(self, method: str, path: str, headers: Mapping[str, str]) -> web.Response | None:
        """The response to a scrape; ``None`` for other requests."""
        if self._scrape is None or method not in GET or path != METRICS_PATH:
            return None
        found = self._scrape(headers.get("Accept", ""))
        return web.Response(
            body=found.body, headers=_HEADERS | {"Content-Type": found.content_type}
        )
