"""What answers where a live page should be."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import click
import pytest

from berrymq_rpc.cli.failure import Failed, Refused, Unreachable
from berrymq_rpc.cli.top import source as source_module
from berrymq_rpc.cli.top.source import Source, page_address

STATE = json.dumps({"version": 1, "name": "kitchen"}).encode()


@contextmanager
def answering(status: int, body: bytes) -> Iterator[tuple[Source, list[Any]]]:
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        # Each answer closes the connection, as a server may at any time.
        def do_GET(self) -> None:
            asked.append((self.path, dict(self.headers)))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        source = Source(page_address(f"127.0.0.1:{server.server_port}"), "secret", None)
        try:
            yield source, asked
        finally:
            source.close()
            server.shutdown()
            thread.join()


def test_a_state() -> None:
    with answering(200, STATE) as (source, asked):
        value, state = source.ask()
        assert source.ask()[0] == value == json.loads(STATE)
        assert state.name == "kitchen"
    assert [path for path, _ in asked] == ["/state"] * 2
    assert asked[0][1]["Authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    ("status", "body", "error", "text"),
    [
        (
            401,
            b"the token is \x1b[2Jwrong\nmore",
            Refused,
            r"refuses: the token is \\x1b\[2Jwrong$",
        ),
        (403, b"", Refused, "refuses"),
        (404, b"no such page", Failed, "has no live page"),
        (500, b"oops", Failed, "status 500: oops"),
        (200, b"<html>", Failed, "not JSON"),
        (200, b"\xff\xfe", Failed, "not JSON"),
        (200, b"[]", Failed, "no state"),
        (200, b'{"version": 2}', Failed, "later version"),
        (200, b"[" * 100_000, Failed, "nested too deeply"),
    ],
)
def test_something_else(status: int, body: bytes, error: type[Failed], text: str) -> None:
    with answering(status, body) as (source, _), pytest.raises(error, match=text):
        source.ask()


def test_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "MAX_ANSWER", 1000)
    with answering(200, b" " * 2000) as (source, _), pytest.raises(Failed, match="more than 1,000"):
        source.ask()


def test_nothing_listens() -> None:
    source = Source(page_address("127.0.0.1:1"), None, None)
    with pytest.raises(Unreachable, match="nothing answers at http"):
        source.ask()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        (":8080", "http://127.0.0.1:8080"),
        ("http://plant", "http://plant:80"),
        ("https://plant:1/", "https://plant:1"),
    ],
)
def test_addresses(text: str, place: str) -> None:
    assert Source(page_address(text), None, None).place == place


@pytest.mark.parametrize("text", ["tcp://127.0.0.1:1", "plant:x", "http://a b:1", "http://u:p@h:1"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(click.BadParameter):
        page_address(text)
