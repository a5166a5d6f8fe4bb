"""What ``--json`` writes is what the page on the command says."""

import json
import re
import signal
from pathlib import Path
from typing import Any

import click
import pytest
import zmq

from berrymq_rpc.cli.command import COMMANDS
from berrymq_rpc.cli.command import berrymq as group
from berrymq_rpc.cli.failure import WORDS
from berrymq_rpc.security import KeyPair

from .conftest import ROOT, SILENT, endpoint_of
from .test_entry import without

PAGE = (ROOT / "docs" / "reference" / "command.rst").read_text(encoding="utf-8")
SECTION = PAGE.partition(".. _command-json:")[2].partition("JSON has fewer types")[0]

#: Commands whose output is a program.
PROGRAMS = {"stub", "completion"}


def rows(section: str) -> list[list[str]]:
    """The rows of all list-tables."""
    return [
        [" ".join(cell.split()) for cell in re.split(r"\n     - ", row.partition("\n\n")[0])]
        for row in re.split(r"\n   \* - ", section)[1:]
    ]


def documented(command: str, event: str | None = None) -> set[str]:
    """The keys that the page gives an object of a command."""
    for row in rows(SECTION):
        if len(row) == 3 and f"``{command}``" in row[0]:
            always = row[2].partition("; sometimes")[0].partition("; of HTTP")[0]
            found = re.search(r'``event`` \("([\w ]+)"\)', row[2])
            if (found and found[1]) == event:
                return set(re.findall(r"``(\w+)``", always.replace("``null``", "")))
    pytest.fail(f"no row of {command} with {event}")


def last(text: str) -> Any:
    return json.loads(text.splitlines()[-1])


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_command_has_it(name: str) -> None:
    command = group.get_command(click.Context(group), name)
    assert command is not None
    has_it = any("--json" in parameter.opts for parameter in command.params)
    assert has_it is (name not in PROGRAMS)


def test_messages(node, start, berrymq) -> None:
    with start("get", node.endpoint, "job:*", "--json") as running:
        assert set(json.loads(running.note())) == {"note", "message"}
        sent = berrymq("send", node.endpoint, "job:done", "1", "a=b", "--json")
        assert running.end() == 0
        assert set(json.loads(running.line())) == documented("get")
    assert json.loads(sent.stdout) == {
        "event": "sent",
        "endpoint": node.endpoint,
        "id": "job:done",
        "args": [1],
        "kwargs": {"a": "b"},
    }
    assert set(json.loads(sent.stdout)) == documented("send", "sent")


def test_a_node_and_a_bridge(start, default_port) -> None:
    listeners = ("--http", ":0", "--tcp", ":0", "--zeromq", "tcp://127.0.0.1:*")
    with start("serve", "--json", *listeners) as node:
        lines = {}
        while "ready" not in lines:
            each = json.loads(node.line())
            lines[each.get("protocol", each["event"])] = each
        for name in ("ready", "port in use"):
            assert set(lines[name]) == documented("serve", name)
        assert set(lines["page"]) == documented("serve", "page")
        for name in ("http", "tcp", "zeromq"):
            more = {"websocket"} if name == "http" else set()
            assert set(lines[name]) == documented("serve", "listening") | more
        with start(
            "bridge", "--connect", lines["ready"]["endpoints"][0], "--tcp", ":0", "--json"
        ) as bridge:
            assert set(json.loads(bridge.line())) == documented("bridge", "listening")
            assert bridge.end(signal.SIGTERM) == 0
            assert list(map(json.loads, bridge.rest())) == [{"event": "ended"}]
        assert node.end(signal.SIGINT) == 0
        assert list(map(json.loads, node.rest())) == [{"event": "ended"}]
        assert node.rest("stderr") == []


def test_methods_and_calls(server, berrymq) -> None:
    listed = json.loads(berrymq("methods", server, "--json").stdout)
    assert all(set(each) == documented("methods") for each in listed)
    failed = berrymq("call", server, "divide", "1", "0", "--json")
    assert last(failed.stderr) == {
        "error": "failed",
        "message": "divide raised ZeroDivisionError: division by zero",
        "exit_code": 1,
        "exception": "ZeroDivisionError",
    }
    # The example of the page.
    assert failed.stderr.strip() in PAGE
    late = berrymq("call", server, "sleep", "9", "--timeout", "0.1", "--json")
    error = last(late.stderr)
    assert (error["error"], error["exit_code"], error["sent"]) == ("timeout", 4, True)


def test_keys(tmp_path: Path, berrymq) -> None:
    folder, trusted = str(tmp_path), str(tmp_path / "trusted")
    made = json.loads(berrymq("keygen", "oven", "--folder", folder, "--json").stdout)
    assert set(made) == documented("keygen", "generated")
    assert KeyPair.load(made["secret_file"]).public == made["public"]
    for arguments, event in (
        (["authorize", trusted, made["public_file"]], "authorized"),
        (["revoke", trusted, "oven"], "revoked"),
    ):
        done = json.loads(berrymq(*arguments, "--json").stdout)
        assert (done["event"], done["name"]) == (event, "oven")
        assert set(done) == documented(arguments[0], event)
    refused = berrymq("revoke", trusted, "oven", "--json")
    assert (last(refused.stderr)["error"], refused.returncode) == ("failed", 1)


def test_queues(nats_server, berrymq) -> None:
    where = (nats_server.url, "--namespace", "cli-json", "--json")
    got = berrymq("get", *where, "job:*", "--durable", "keep", "--timeout", "0.1")
    assert (got.returncode, last(got.stderr)["error"]) == (4, "timeout")
    sent = berrymq("send", *where, "job:new")
    assert set(json.loads(sent.stdout)) == documented("send", "sent")
    assert set(json.loads(berrymq("queues", *where).stdout)) == documented("queues")
    for option, event in (("--replay", "replayed"), ("--delete", "deleted")):
        done = json.loads(berrymq("queues", *where, option, "keep").stdout)
        assert (done["event"], done["queue"]) == (event, "keep")
        assert set(done) == documented(f"queues {option}", event)


@pytest.mark.parametrize(
    ("arguments", "error", "exit_code"),
    [
        (["call", SILENT, "add", "--wait", "0.1", "--json"], "unreachable", 3),
        (["tail", SILENT, "--wait", "0.1", "--json"], "unreachable", 3),
        (["send", "--json", SILENT], "usage", 2),
        (["get", "nonsense", "--json"], "usage", 2),
        (["queues", "--json", "--jsno", "nats://h"], "usage", 2),
        (["sned", "--json"], "usage", 2),
    ],
)
def test_errors(berrymq, arguments: list[str], error: str, exit_code: int) -> None:
    result = berrymq(*arguments)
    assert (result.returncode, result.stdout) == (exit_code, "")
    (line,) = result.stderr.splitlines()
    written = json.loads(line)
    assert (written["error"], written["exit_code"]) == (error, exit_code)
    assert written["message"]


def test_a_refusal(tmp_path: Path, start, berrymq) -> None:
    for name in ("server", "eve"):
        KeyPair.generate().save(tmp_path, name)
    keys = ("--key", str(tmp_path / "server.key_secret"), "--authorized", str(tmp_path / "none"))
    with start("serve", "--bind", "tcp://127.0.0.1:*", *keys) as node:
        endpoint = endpoint_of(node)
        theirs = ("--server-key", str(tmp_path / "server.key"))
        theirs += ("--key", str(tmp_path / "eve.key_secret"))
        refused = berrymq("send", endpoint, "a:b", "--json", *theirs)
    error = last(refused.stderr)
    assert (refused.returncode, error["error"], error["reason"]) == (5, "refused", "key")


def test_with_log_json(node, start, berrymq) -> None:
    """All are records of the log then, which have the same keys."""
    with start("get", node.endpoint, "a:b", "--timeout", "0", "--json", "--log-json") as get:
        note, error = json.loads(get.note()), json.loads(get.note())
    assert (note["note"], note["level"]) == ("waiting", "info")
    assert (error["error"], error["exit_code"], error["level"]) == ("timeout", 4, "error")
    wrong = berrymq("get", node.endpoint, "--json", "--log-json")
    assert last(wrong.stderr)["error"] == "usage"


def test_only_an_option_counts(berrymq) -> None:
    result = berrymq("send", SILENT, "a:b", "--wait", "0.1", "--", "--json")
    assert result.stderr.startswith("Error: no peer answers")


@pytest.mark.parametrize(
    ("module", "arguments"),
    [("click", []), ("nats", ["queues", "nats://127.0.0.1"])],
)
def test_a_missing_package(module: str, arguments: list[str]) -> None:
    result = without(module, *arguments, "--json")
    assert (result.returncode, last(result.stderr)["error"]) == (1, "failed")


def test_notes_and_the_log(start) -> None:
    with start("serve", "--bind", "tcp://127.0.0.1:*", "--json") as node, zmq.Context() as context:
        (endpoint,) = json.loads(node.line())["endpoints"]
        with context.socket(zmq.DEALER) as other:
            other.linger = 0
            other.connect(endpoint)
            other.send(b"junk")
            entry = json.loads(node.note())
    assert entry["level"] == "warning"
    assert "malformed message" in entry["message"]
    listener = ("--zeromq", "tcp://127.0.0.1:*", "--wait", "0.1", "--json")
    with start("bridge", "--connect", SILENT, *listener, BERRYMQ_TOKEN="sesame") as bridge:
        assert json.loads(bridge.note())["note"] == "token"
        assert json.loads(bridge.note())["error"] == "unreachable"


def test_words_of_errors() -> None:
    table = dict(re.findall(r"^``(\w+)`` +(\d)$", SECTION, re.MULTILINE))
    assert table == {word: str(code) for code, word in WORDS.items()}
