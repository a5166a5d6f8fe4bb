import json

import pytest

from berrymq_rpc.cli.methods import parse_methods

from .conftest import SILENT


def test_methods(berrymq, server) -> None:
    result = berrymq("methods", server)
    assert (result.returncode, result.stderr) == (0, "")
    blocks = result.stdout.split("\n\n")
    assert (
        "countdown(start: int, pause: float = 0) -> collections.abc.AsyncIterator[int]  stream\n"
        in (result.stdout)
    )
    assert (
        "    Count down to 1.\\x1b[31m"
        in blocks[blocks.index("breaks() -> collections.abc.AsyncIterator[int]  stream") + 1]
    )
    assert "values.set(key: str, value: int, /, *, over: bool = False) -> set[int]" in result.stdout


def test_as_json(berrymq, server) -> None:
    result = berrymq("methods", server, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    methods = {method["name"]: method for method in json.loads(result.stdout)}
    assert methods["divide"]["signature"] == "(a: float, b: float = 1) -> float"
    assert methods["countdown"]["kind"] == "stream"


def test_of_a_node(berrymq, node) -> None:
    result = berrymq("methods", node.endpoint)
    assert result.returncode == 0
    assert "send_message(token: str, identifier: str, " in result.stdout


def test_no_server(berrymq) -> None:
    result = berrymq("methods", "--wait", "0.2", SILENT)
    assert (result.returncode, result.stdout) == (3, "")
    assert "no server is listening on port 1" in result.stderr


@pytest.mark.parametrize(
    "answer",
    [
        None,
        (),
        {},
        {"methods": None},
        {"methods": [1]},
        {"methods": ({"name": 1},)},
        {"methods": "ab"},
    ],
)
def test_malformed_descriptions(answer) -> None:
    with pytest.raises((LookupError, TypeError)):
        parse_methods(answer)
