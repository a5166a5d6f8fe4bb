import json
import re
import shlex
import signal
import subprocess

import pytest

from .conftest import ENVIRONMENT, ROOT, SECONDS, endpoint_of

README = (ROOT / "README.rst").read_text(encoding="utf-8")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_is_pasted_arrives(start, number) -> None:
    with start("serve", "--show", "--hello") as node:
        lines = []
        while not (lines and lines[-1].startswith("Messages appear here")):
            lines.append(node.line())
        # Without the line about another port, where the first is in use.
        at, example, end = lines[-3:]
        endpoint = re.findall(r"^The node is at (tcp://127\.0\.0\.1:\d+)$", at)[0]
        assert end == "Messages appear here. Ctrl-C ends the node."
        assert node.line()[10:].startswith("berrymq:hello  'This came over the network")
        pasted = example.removeprefix("Send it a message from a second terminal: ")
        command = shlex.split(pasted)
        assert command[-4:] == ["send", endpoint, "greeting:hello", "your words"]
        # The README shows these lines, as they are in a clone.
        found = re.search(r"second terminal::\n\n((?:    .*\n)+)", README)
        assert found is not None
        shown = [line[4:] for line in found[1].splitlines()]
        there = pasted.replace(shlex.join(command[:-4]), ".venv/bin/berrymq")
        port = endpoint.rpartition(":")[2]
        assert shown == [
            line.replace(pasted, there).replace(f":{port}", ":5555") for line in (at, example, end)
        ]
        sent = subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, timeout=SECONDS, check=False)
        assert sent.returncode == 0
        assert re.fullmatch(r"\d\d:\d\d:\d\d  greeting:hello  'your words'", node.line())
        assert node.end(number) == 0
        assert node.rest() == ["The node has ended."]
        assert node.rest("stderr") == []


def test_the_next_free_port_is_announced(start, default_port) -> None:
    with start("serve") as node:
        said = rf"Port {default_port} is in use; \d+ is the next free port\."
        assert re.fullmatch(said, node.line())
        assert node.line().startswith("The node is at tcp://127.0.0.1:")


def test_several_endpoints(start, berrymq, tmp_path) -> None:
    ipc = f"ipc://{tmp_path}/node"
    with start("serve", "--bind", "tcp://127.0.0.1:*", "--bind", ipc, "--json") as node:
        assert json.loads(node.line())["endpoints"][1] == ipc
        assert berrymq("send", ipc, "a:b", "1").returncode == 0
        assert json.loads(node.line())["args"] == [1]


def test_a_port_in_use(node, berrymq) -> None:
    result = berrymq("serve", "--bind", node.endpoint)
    assert (result.returncode, result.stdout) == (1, "")
    assert re.fullmatch("Error: the node cannot start: .*in use.*\n", result.stderr)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            ["--bind", "tcp://0.0.0.0:0"],
            "Give --key and --authorized, bind to 127.0.0.1, or give --insecure",
        ),
        (
            ["--bind", "ipc://@name"],
            "Write a path, give --key and --authorized, or give --insecure",
        ),
        (
            ["--bind", "tcp://127.0.0.1:*", "--zeromq", "tcp://0.0.0.0:0"],
            "Give --key and --authorized, bind to 127.0.0.1, or give --insecure",
        ),
        (
            ["--bind", "tcp://127.0.0.1:*", "--http", "0.0.0.0:0"],
            "Give --token and --certificate, bind to 127.0.0.1, or give --insecure",
        ),
        (["--bind", "127.0.0.1:5555"], "write tcp://127.0.0.1:5555"),
        (["--bind", "http://127.0.0.1:0"], "is not an endpoint"),
        (["tcp://127.0.0.1:0"], "unexpected extra argument"),
        (["--nmae", "a"], "No such option"),
    ],
)
def test_usage(berrymq, arguments, error) -> None:
    result = berrymq("serve", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert error in result.stderr
    assert "Traceback" not in result.stderr


def test_beyond_this_host(start) -> None:
    with start("serve", "--bind", "tcp://0.0.0.0:*", "--insecure") as node:
        assert endpoint_of(node).startswith("tcp://0.0.0.0:")
