import json
import signal

import pytest

from .conftest import SILENT


def test_get(node, start, berrymq) -> None:
    with start("get", node.endpoint, "job:*", "--json", "--count", "2") as running:
        assert json.loads(running.note())["message"] == f"waiting for job:* at {node.endpoint}"
        for arguments in (["job:done", "1", "a=b"], ["other:done"], ["job:left"]):
            assert berrymq("send", node.endpoint, *arguments).returncode == 0
        assert running.end() == 0
        first, second = map(json.loads, running.rest())
    assert list(first) == ["time", "id", "args", "kwargs"]
    assert (first["id"], first["args"], first["kwargs"]) == ("job:done", [1], {"a": "b"})
    assert (second["id"], second["args"], second["kwargs"]) == ("job:left", [], {})


def test_as_text(node, start, berrymq) -> None:
    with start("get", node.endpoint, "job:*", "--quiet") as running:
        # It announces nothing: so the message is sent until it has arrived.
        while running.process.poll() is None:
            berrymq("send", node.endpoint, "job:done", "1", "a=b")
        assert running.end() == 0
        assert [line[10:] for line in running.rest()] == ["job:done  1  a='b'"]
        assert running.rest("stderr") == []


def test_each_message_for_one_consumer(node, start, berrymq) -> None:
    command = ("get", node.endpoint, "job:*", "--shared")
    with start(*command) as first, start(*command) as second:
        first.note()
        second.note()
        berrymq("send", node.endpoint, "job:done", "1")
        berrymq("send", node.endpoint, "job:done", "2")
        assert (first.end(), second.end()) == (0, 0)
        assert sorted(line[-1] for line in first.rest() + second.rest()) == ["1", "2"]


@pytest.mark.parametrize("timeout", ["0", "0.2"])
def test_nothing_came(node, berrymq, timeout) -> None:
    result = berrymq("get", node.endpoint, "a:b", "--timeout", timeout, "--quiet")
    assert (result.returncode, result.stdout) == (4, "")
    assert result.stderr == f"Error: no message a:b within {timeout} s\n"


def test_too_few_came(node, start, berrymq) -> None:
    with start("get", node.endpoint, "a:b", "--timeout", "3", "--count", "2") as running:
        running.note()
        berrymq("send", node.endpoint, "a:b")
        assert running.end() == 4
        assert running.note() == "Error: no message a:b within 3 s (1 of 2 came)"
        assert len(running.rest()) == 1


def test_a_node_that_dies(node, start) -> None:
    with start("get", node.endpoint, "a:b", "--wait", "0.5") as running:
        running.note()
        node.process.kill()
        assert running.end() == 3
        assert running.note().startswith(f"Error: {node.endpoint}: the connection was lost: ")
        assert running.rest("stderr") == []


def test_interrupted(node, start) -> None:
    with start("get", node.endpoint, "a:b") as running:
        running.note()
        assert running.end(signal.SIGINT) == -signal.SIGINT
        assert running.rest("stderr") == [""]


@pytest.mark.parametrize(
    ("arguments", "status", "error"),
    [
        (["--wait", "0.2", SILENT, "a:b"], 3, "no peer answers at"),
        ([SILENT, "a:b", "--count", "0"], 2, "0 is not in the range x>=1"),
        ([SILENT, "a:b", "--timeout", "-1"], 2, "'-1' is not a number of seconds"),
        ([SILENT, "_a:b"], 2, "'_a:b' is local"),
        ([SILENT], 2, "Missing argument 'IDENTIFIER'"),
        ([SILENT, "a:b", "c:d"], 2, "unexpected extra argument (c:d)"),
    ],
)
def test_refused_arguments(berrymq, arguments, status, error) -> None:
    result = berrymq("get", *arguments)
    assert (result.returncode, result.stdout) == (status, "")
    assert error in result.stderr


def test_a_server_without_a_node(berrymq, server) -> None:
    result = berrymq("get", server, "a:b")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: the server at {server} is not a node")
