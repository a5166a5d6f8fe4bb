"""Asks a live page for its state, over HTTP, without aiohttp."""

import json
import ssl as ssl_module
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

import click

from ...endpoint import Endpoint
from ..failure import Failed, Refused, Unreachable
from ..values import printable
from .state import State, read_state

__all__ = ["Source", "page_address"]

#: Where the state is.
STATE_PATH = "/state"

#: Seconds for an answer.
TIMEOUT = 5.0

#: Bytes of an answer. One of 200 rows in each list has some 300 KiB.
MAX_ANSWER = 8 << 20


def page_address(text: str) -> Endpoint:
    """The address of a page: ``http://host:port``, or without the scheme."""
    if "://" not in text:
        text = f"http://{'127.0.0.1' if text.startswith(':') else ''}{text}"
    try:
        endpoint = Endpoint.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if endpoint.scheme not in ("http", "https"):
        raise click.BadParameter(
            f"{text!r} is no address of a live page: write http://host:port, as serve --http has it"
        )
    if not endpoint.port:
        raise click.BadParameter(f"{text!r} has no port")
    return endpoint


class Source:
    """The state of one page. It keeps its connection.

    Args:
        endpoint: where the page is.
        token: proves who asks.
        ca: the file of the authority of its certificate; ``None`` for those of this host.
    """

    def __init__(self, endpoint: Endpoint, token: str | None, ca: Path | None) -> None:
        assert endpoint.port is not None
        self.place = f"{endpoint.scheme}://{endpoint.host}:{endpoint.port}"
        self._headers = {"Accept": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._connection: HTTPConnection
        if endpoint.scheme == "https":
            try:
                context = ssl_module.create_default_context(cafile=ca)
            except (OSError, ssl_module.SSLError) as error:
                raise click.UsageError(f"--ca: {error}") from None
            self._connection = HTTPSConnection(
                endpoint.host, endpoint.port, timeout=TIMEOUT, context=context
            )
        else:
            self._connection = HTTPConnection(endpoint.host, endpoint.port, timeout=TIMEOUT)

    def ask(self) -> tuple[Any, State]:
        """Return the state, as it came and checked.

        Raises:
            Unreachable: nothing answers.
            Refused: it wants a token, or another one.
            Failed: what answers has no live page.
        """
        try:
            status, body = self._get()
        except ssl_module.SSLError as error:
            raise Failed(f"{self.place}: {error}") from None
        except OSError as error:
            reason = error.strerror or str(error) or type(error).__name__
            raise Unreachable(f"nothing answers at {self.place}: {reason}") from None
        except (HTTPException, ValueError):
            raise Failed(f"what listens at {self.place} is no HTTP server") from None
        if status in (401, 403):
            raise Refused(
                f"{self.place} wants a token: give --token, or BERRYMQ_TOKEN"
                if status == 401 and "Authorization" not in self._headers
                else f"{self.place} refuses: {_first_line(body)}",
                reason="credentials" if status == 401 else "permission",
            )
        if status == 404:
            raise Failed(
                f"{self.place} has no live page: berrymq serve --http has one, and "
                "serve_http(page=True)"
            )
        if status != 200:
            raise Failed(f"{self.place} answers with status {status}: {_first_line(body)}")
        try:
            value = json.loads(body)
            return value, read_state(value)
        except RecursionError:
            raise Failed(f"{self.place}: what it answers is nested too deeply") from None
        except ValueError as error:
            is_json = not isinstance(error, json.JSONDecodeError | UnicodeError)
            reason = str(error) if is_json else "what it answers is not JSON"
            raise Failed(f"{self.place}: {reason}") from None

    def _get(self) -> tuple[int, bytes]:
        connection = self._connection
        was_open = connection.sock is not None
        try:
            return self._request()
        except (OSError, HTTPException):
            connection.close()
            if not was_open:
                raise
        # The server may have closed the connection since the last time.
        try:
            return self._request()
        except (OSError, HTTPException):
            connection.close()
            raise

    def _request(self) -> tuple[int, bytes]:
        self._connection.request("GET", STATE_PATH, headers=self._headers)
        response = self._connection.getresponse()
        body = response.read(MAX_ANSWER + 1)
        if len(body) > MAX_ANSWER:
            self._connection.close()
            raise Failed(f"{self.place} answers with more than {MAX_ANSWER:,} bytes")
        return response.status, body

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _first_line(body: bytes) -> str:
    lines = body[:300].decode("utf-8", "replace").splitlines()
    return printable(lines[0]) if lines else "nothing more"
